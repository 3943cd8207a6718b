//! A further signature for a bundle, in the room that was left for it.
//!
//! The envelope lists signatures at its end and is filled up with spaces, so that a further one changes
//! nothing before it, and no other byte of the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::header::BLOCK;
use super::{BundleError, VerifiedBundle};
use crate::digest::Digest;
use crate::trust::TrustError;
use crate::trust::envelope::{Envelope, MAX_SIGNATURES, NotAnEnvelope};
use crate::trust::signer::Signer;

/// Why a signature could not be added.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The bundle is no longer what was verified.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Nobody signed, or there is no room.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl VerifiedBundle {
    /// Adds a signature and syncs. Says whether the key had not signed it yet.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn sign(&self, signer: &dyn Signer) -> Result<bool, SignError> {
        let changed = |why: String| BundleError::Manifest { path: self.path().into(), why };
        // The envelope stands in the head.
        let read = self.content().head();
        // One after the other: each begins with the signatures of those before it. Some file systems know no
        // locks.
        let _ = read.lock();
        let mut before = vec![0; self.capacity() as usize];
        read.read_exact_at(&mut before, BLOCK)?;
        let mut envelope =
            Envelope::parse(&before).map_err(|error: NotAnEnvelope| changed(error.to_string()))?;
        if Digest::of(envelope.payload()) != self.identity() {
            return Err(changed("it has changed since it was verified".into()).into());
        }
        if !envelope.signers([&signer.public()]).is_empty() {
            return Ok(false);
        }
        envelope.sign(signer)?;
        let after = envelope.to_bytes(before.len()).ok_or(TrustError::NoRoom { most: MAX_SIGNATURES })?;
        let same = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
        let file = File::options().write(true).open(self.path())?;
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity(&file)? != identity(read)? {
            return Err(io::Error::other("another file has its name now").into());
        }
        file.write_all_at(&after[same..], BLOCK + same as u64)?;
        file.sync_all()?;
        Ok(true)
    }
}
