//! Trust in a server's own certificate.
//!
//! Many registries have a self-signed certificate, often marked as a CA. curl, Docker and Trivy accept it if
//! the user gives it as a CA certificate. webpki verifies chains only, and rejects a CA certificate of a
//! server.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::remote::error::RemoteError;
use crate::remote::exchange::innermost;
use crate::remote::tls::certificate;

/// Accepts certificates that a trusted CA issued, and the trusted certificates themselves, each for its names
/// and its validity. A certificate that is not a CA is never accepted as an issuer.
#[derive(Debug)]
pub(super) struct Pinned {
    /// The verifier of chains; `None` if no trusted certificate is a CA.
    by_authority: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// Trusts these certificates.
    ///
    /// # Errors
    /// [`RemoteError::Setup`] if the TLS library rejects the settings.
    pub(super) fn new(
        trusted: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, RemoteError> {
        let mut authorities = RootCertStore::empty();
        let all = trusted.iter().filter(|certificate| certificate::is_authority(certificate));
        authorities.add_parsable_certificates(all.cloned());
        let by_authority = if authorities.is_empty() {
            None
        } else {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
            Some(builder.build().map_err(|error| RemoteError::Setup { why: innermost(&error) })?)
        };
        Ok(Pinned { by_authority, trusted, provider })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_authority = match &self.by_authority {
            Some(verifier) => verifier.verify_server_cert(own, above, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        by_authority.or_else(|error| {
            if !self.trusted.contains(own) {
                return Err(error);
            }
            certificate::check(own, now)?;
            verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
            Ok(ServerCertVerified::assertion())
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, own, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, own, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
