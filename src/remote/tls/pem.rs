//! Certificates in PEM files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

use crate::remote::tls::certificate;

/// The format of a certificate in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `BEGIN CERTIFICATE`, or the old `BEGIN X509 CERTIFICATE`.
    Plain,
    /// `BEGIN TRUSTED CERTIFICATE` of OpenSSL, which has trust settings after the certificate.
    Trusted,
}

/// Finds all certificates in a file, each with its error if it is not valid. Text, keys and all other parts
/// are skipped.
pub(super) fn certificates(bytes: &[u8]) -> Vec<(Form, Result<CertificateDer<'static>, String>)> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let form = match line {
            "-----BEGIN CERTIFICATE-----" | "-----BEGIN X509 CERTIFICATE-----" => Form::Plain,
            "-----BEGIN TRUSTED CERTIFICATE-----" => Form::Trusted,
            _ => continue,
        };
        let mut body = String::new();
        let mut is_closed = false;
        for line in lines.by_ref() {
            is_closed = line.starts_with("-----END ");
            if is_closed {
                break;
            }
            body.push_str(line);
        }
        found.push((form, if is_closed { decoded(form, &body) } else { Err("it has no END line".into()) }));
    }
    found
}

fn decoded(form: Form, body: &str) -> Result<CertificateDer<'static>, String> {
    let bytes = STANDARD.decode(body).map_err(|_| "it is not base64".to_owned())?;
    match form {
        Form::Plain => Ok(bytes.into()),
        Form::Trusted => certificate::trusted_for_servers(&bytes),
    }
}
