//! Writes the files of a key pair. An existing file is never overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::trust::TrustError;
use crate::trust::key::SigningKey;
use crate::util::fs::{self, sync_folder};

/// Writes a pair: the private key for its owner alone, encrypted if there is a passphrase, and the public key for
/// everybody. Both last when this returns.
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
    let failed = |error| TrustError::File { path: path.into(), error };
    let file = match fs::create_new(path, mode) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(TrustError::Exists { path: path.into() });
        }
        other => other.map_err(failed)?,
    };
    // The umask takes from the mode of a new file; a public key is for everybody to read.
    let mode = std::fs::Permissions::from_mode(mode);
    let written = fs::write_all(&file, path, bytes).and_then(|()| file.set_permissions(mode));
    written.and_then(|()| file.sync_all()).and_then(|()| sync_folder(path)).map_err(failed)
}
