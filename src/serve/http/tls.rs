//! The server's certificate and key, from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::serve::http::error::ServeError;
use crate::util::trusted;

/// The maximum size of a file of certificates or of a key, in bytes.
const MAX_PEM: u64 = 1 << 20;

/// Returns the configuration of a server with TLS 1.2 or 1.3, without client certificates.
///
/// # Errors
/// [`ServeError::Tls`] if a file cannot be read, if it holds no usable certificate or private key, or
/// if the key does not match the certificate.
pub(crate) fn configuration(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, ServeError> {
    let wrong = |path: &Path, why: String| ServeError::Tls { path: path.into(), why };
    let read = |path| trusted::read(path, MAX_PEM).map_err(|failed| wrong(path, failed.to_string()));
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "it holds no certificate".into()));
    }
    let private =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match format!("{error}").contains("UnsupportedCertVersion") {
            true => wrong(
                certificate,
                "it is an X.509 version 1 certificate: issue a new one with a subjectAltName".into(),
            ),
            false => wrong(key, format!("it does not match the certificate: {error}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
