//! Reads a new bundle back from the medium that it was written to.
//!
//! The bytes are still in the page cache, so a comparison would not read the medium. Therefore the module first
//! asks the system to drop them. This finds fake and failing media before they leave the connected side.

use std::io;
use std::path::PathBuf;

use rustix::fs::Advice;
use rustix::io::Errno;

use crate::bundle::parity::ParityFile;
use crate::bundle::{BundleError, UnverifiedBundle};
use crate::digest::Digest;
use crate::progress::Step;
use crate::trust::key::PublicKey;
use crate::trust::keyring::Keyring;
use crate::util::fs::{self, Links};

/// Reads a synced bundle completely and checks that this key signed it and that it has this identity. `files`
/// holds the only file, or the head and its volumes; `parity` holds the parity files.
///
/// # Errors
/// If a file cannot be opened or read, the bundle has another signature, identity or content than was
/// written, or a parity file is damaged.
pub fn read_back(
    files: &[PathBuf],
    parity: &[PathBuf],
    key: &PublicKey,
    identity: Digest,
    step: &dyn Step,
) -> Result<(), BundleError> {
    for path in files.iter().chain(parity) {
        let read = |error: io::Error| BundleError::Read { path: path.into(), error };
        let file = fs::open_regular(path, Links::Refuse).map_err(|error| read(error.into()))?;
        // Some file systems have no page cache.
        match rustix::fs::fadvise(&file, 0, None, Advice::DontNeed) {
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => {}
            Err(error) => return Err(read(error.into())),
        }
    }
    let path = files
        .first()
        .ok_or_else(|| BundleError::Open { path: PathBuf::new(), error: io::ErrorKind::NotFound.into() })?;
    let signed = UnverifiedBundle::open(path)?.signed(&Keyring::of(key))?;
    let bundle = signed.with_volumes(&|number| files.get(number.index()? + 1).cloned())?;
    if bundle.identity() != identity {
        let why = "it is not the one that was written";
        return Err(BundleError::Manifest { path: path.into(), why: why.into() });
    }
    bundle.check(|_| |count| step.advance(count))?;
    parity.iter().try_for_each(|path| ParityFile::open(path)?.check())
}
