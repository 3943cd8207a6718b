//! Trust in a server's own certificate.
//!
//! Many a registry has a certificate that it has signed itself, often marked as a CA's. curl, Docker and Trivy accept it
//! if the user gives it as a CA certificate. webpki checks chains alone, and says that a CA must not be a server.

use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{Error, SignatureScheme};

use crate::remote::tls::certificate;

/// Accepts what another verifier accepts, and the very certificates that are trusted, each for its names and its time.
#[derive(Debug)]
pub(super) struct Pinned {
    by_authority: Arc<dyn ServerCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
}

impl Pinned {
    /// Accepts `roots` beside what the other one accepts, and those of the system.
    pub(super) fn new(
        by_authority: Arc<dyn ServerCertVerifier>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Self {
        Pinned { by_authority, roots }
    }

    fn is_trusted(&self, certificate: &CertificateDer<'_>) -> bool {
        // The system's are read only if nothing else is left: this is the way to an error.
        self.roots.contains(certificate)
            || rustls_native_certs::load_native_certs().certs.contains(certificate)
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
        self.by_authority.verify_server_cert(own, above, name, ocsp, now).or_else(|error| {
            if !self.is_trusted(own) {
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
        self.by_authority.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}
