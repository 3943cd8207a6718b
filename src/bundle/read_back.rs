//! A new bundle, read back from the medium that it was written to.
//!
//! What was just written lies in memory, and would be compared with itself: the system is asked to forget
//! it first. Fake and failing sticks are found so, before they are carried away.

use std::fs::File;
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

/// Reads all of a synced bundle, which this key signed and which has this identity. Its files are the only
/// one, or the head and the volumes behind it; and those of its parity.
///
/// # Errors
/// Where the medium fails, or holds anything else than was written.
pub fn read_back(
    files: &[PathBuf],
    parity: &[PathBuf],
    key: &PublicKey,
    identity: Digest,
    step: &dyn Step,
) -> Result<(), BundleError> {
    for path in files.iter().chain(parity) {
        let read = |error: io::Error| BundleError::Read { path: path.into(), error };
        let file = File::open(path).map_err(read)?;
        // Some file systems have nothing to forget.
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
