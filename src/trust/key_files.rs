//! The files of a key pair. An existing file is never overwritten.

use std::path::Path;

use crate::trust::TrustError;
use crate::trust::key::SigningKey;
use crate::util::fs::{self, Durability};

/// Writes a pair: the private key readable by its owner only, encrypted if there is a passphrase, and the public key
/// readable by everyone. Both are synced when this returns.
///
/// # Errors
/// [`TrustError::Exists`] if one of the files exists; [`TrustError::File`] if one cannot be written.
pub fn write_pair(
    private: &Path,
    public: &Path,
    key: &SigningKey,
    passphrase: Option<&str>,
) -> Result<(), TrustError> {
    let pem = key.to_pem(passphrase).map_err(|error| TrustError::File { path: private.into(), error })?;
    write_new(private, 0o600, pem.as_bytes())?;
    write_new(public, 0o644, key.public().to_pem().as_bytes())
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), TrustError> {
    fs::write_new(path, bytes, mode, Durability::Synced).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => TrustError::Exists { path: path.into() },
        _ => TrustError::File { path: path.into(), error },
    })
}
