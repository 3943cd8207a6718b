//! `sign`: adds a signature to a bundle that a trusted key has signed.
//!
//! It serves two-person approval and the rotation of keys. Only the space that is reserved for signatures changes.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::UnverifiedBundle;
use crate::bundle::sign::SignError;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::verify::check_bytes;
use crate::progress::Progress;
use crate::trust::keyring::Keyring;
use crate::trust::signer::Signer;

/// A bundle that [`sign`] signed.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SignReport {
    /// Its file, or that of its head.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// The digest of its payload.
    pub identity: Digest,
    /// The fingerprint of the key that signed it.
    pub fingerprint: String,
    /// Whether the key had signed it already.
    pub unchanged: bool,
    /// The errors, which are always empty, because any error ends the command.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// Adds a signature to a bundle that is signed by a key of the keyring, after comparing every byte.
///
/// # Errors
/// [`Error::Bundle`] if the bundle is damaged or not signed by a trusted key, or changes meanwhile;
/// [`Error::Trust`] if the signer fails, or there is no space for a further signature; [`Error::Destination`] if the
/// file cannot be written.
pub fn sign(
    bundle: &Path,
    keyring: &Keyring,
    signer: &dyn Signer,
    progress: &dyn Progress,
) -> Result<SignReport, Error> {
    let signable = UnverifiedBundle::open(bundle)?.signable(keyring)?;
    // The signature covers every byte, so every byte is checked first.
    check_bytes(signable.bundle(), progress)?;
    let identity = signable.bundle().identity();
    let added = signable.sign(signer).map_err(|error| match error {
        SignError::Bundle(error) => Error::from(error),
        SignError::Trust(error) => error.into(),
        SignError::Write(error) => Error::Destination {
            path: bundle.into(),
            what: format!("the signature could not be added: {error}"),
            hint:
                "Check that the medium is connected and writable, and run `trivy-ferry verify`: if the bundle is intact, sign it again; otherwise, copy it again first."
                    .into(),
        },
    })?;
    Ok(SignReport {
        path: bundle.into(),
        identity,
        fingerprint: signer.public().id().fingerprint(),
        unchanged: !added,
        errors: Vec::new(),
    })
}
