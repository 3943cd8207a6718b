//! The TLS settings that all connections of a run share.
//!
//! This module reads files of certificates. It opens no connection.

mod certificate;
mod pem;
mod pinned;

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::remote::error::RemoteError;
use crate::remote::exchange::innermost;
use crate::remote::tls::pem::Form;
use crate::remote::tls::pinned::Pinned;
use crate::util::trusted;

/// The maximum size of a file of certificates, in bytes. Mozilla's complete list takes 230 KB.
const MAX_PEM: u64 = 16 << 20;

/// The user's settings for TLS.
#[derive(Default)]
pub(crate) struct TlsOptions {
    /// Trusted certificates of CAs and servers, beside those of the system.
    pub roots: Vec<CertificateDer<'static>>,
    pub identity: Option<Identity>,
    /// Accepts any certificate.
    pub insecure: bool,
}

/// A client certificate with its chain and its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a PEM file with certificates, and the key from the same or another file.
    ///
    /// # Errors
    /// [`RemoteError::ClientCertificate`] if a file cannot be read, if it has no certificate or no
    /// private key, or if the key does not match the certificate.
    pub(crate) fn read(path: &Path, key: Option<&Path>) -> Result<Self, RemoteError> {
        let wrong_in = |path: &Path, why: String| RemoteError::ClientCertificate { path: path.into(), why };
        let wrong = |why| wrong_in(path, why);
        let read =
            |path: &Path| trusted::read(path, MAX_PEM).map_err(|error| wrong_in(path, error.to_string()));
        let bytes = read(path)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let chain = chain.map_err(|error| wrong(format!("it is not a PEM file: {error}")))?;
        if chain.is_empty() {
            return Err(wrong("it holds no certificate".into()));
        }
        let key_bytes = key.map(read).transpose()?;
        let private = PrivateKeyDer::from_pem_slice(key_bytes.as_deref().unwrap_or(&bytes));
        let key = private.map_err(|_| wrong_in(key.unwrap_or(path), "it holds no private key".into()))?;
        let loaded = rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider());
        loaded.map_err(|error| wrong(innermost(&error)))?;
        Ok(Identity { chain, key })
    }
}

/// The certificates of a file, and a warning for each that cannot be used.
#[derive(Debug)]
pub(crate) struct CaFile {
    pub roots: Vec<CertificateDer<'static>>,
    pub warnings: Vec<String>,
}

/// Reads a PEM file of CA certificates, including the format of OpenSSL's trust store. Unusable certificates,
/// which the CA files of organizations may contain, are skipped.
///
/// # Errors
/// [`RemoteError::CaFile`] if the file cannot be read, or if it holds no usable certificate.
pub(crate) fn certificates(path: &Path) -> Result<CaFile, RemoteError> {
    let wrong = |why: String| RemoteError::CaFile { path: path.into(), why };
    let bytes = trusted::read(path, MAX_PEM).map_err(|error| wrong(error.to_string()))?;
    let (mut roots, mut unusable) = (Vec::new(), Vec::new());
    for (number, (_, certificate)) in pem::certificates(&bytes).into_iter().enumerate() {
        let usable = certificate.and_then(|certificate| {
            let added = RootCertStore::empty().add(certificate.clone());
            added.map(|()| certificate).map_err(|error| innermost(&error))
        });
        match usable {
            Ok(certificate) => roots.push(certificate),
            Err(why) => unusable.push(format!("certificate {} in it cannot be used: {why}", number + 1)),
        }
    }
    if roots.is_empty() {
        return Err(wrong(unusable.into_iter().next().unwrap_or_else(|| "it holds no certificate".into())));
    }
    let warnings = unusable.into_iter().map(|why| format!("{}: {why}", path.display())).collect();
    Ok(CaFile { roots, warnings })
}

/// The certificates in `SSL_CERT_FILE` with the format of OpenSSL's trust store, which rustls-native-certs
/// skips.
fn of_system_in_openssl_form() -> Vec<CertificateDer<'static>> {
    let file = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
    let bytes = file.and_then(|file| trusted::read(Path::new(&file), MAX_PEM).ok()).unwrap_or_default();
    let all = pem::certificates(&bytes).into_iter();
    all.filter(|(form, _)| *form == Form::Trusted).filter_map(|(_, certificate)| certificate.ok()).collect()
}

/// The configuration for HTTP/1.1 over TLS.
///
/// # Errors
/// [`RemoteError::Setup`] if the TLS library rejects the settings.
pub(crate) fn config(options: &TlsOptions) -> Result<ClientConfig, RemoteError> {
    let setup = |error: rustls::Error| RemoteError::Setup { why: innermost(&error) };
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(setup)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier(options)?);
    let config = match &options.identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()),
        None => Ok(builder.with_no_client_auth()),
    };
    let mut config = config.map_err(setup)?;
    // Large blobs need one connection per request: with HTTP/2 they would share one flow-control window,
    // which limits them on connections with a long round-trip time.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn verifier(options: &TlsOptions) -> Result<Arc<dyn ServerCertVerifier>, RemoteError> {
    if options.insecure {
        return Ok(Arc::new(Unchecked { accepted: true }));
    }
    let mut trusted = options.roots.clone();
    trusted.extend(rustls_native_certs::load_native_certs().certs);
    trusted.extend(of_system_in_openssl_form());
    if trusted.is_empty() {
        // On a system without CA certificates, plain HTTP still works, and HTTPS fails when it is used, with
        // a suitable hint.
        return Ok(Arc::new(Unchecked { accepted: false }));
    }
    Ok(Arc::new(Pinned::new(trusted, provider())?))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// All schemes, because [`Unchecked`] verifies no signature.
const SCHEMES: [SignatureScheme; 13] = [
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_SHA1_Legacy,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
];

/// Accepts every certificate (`--insecure`), or none if there is no CA certificate.
#[derive(Debug)]
struct Unchecked {
    accepted: bool,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.accepted {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests;
