//! Adds a signature to a bundle, in the space that the writer reserved for it.
//!
//! The signatures are at the end of the envelope, followed by spaces as padding. A further signature replaces
//! only padding and changes no other byte of the file. The key signs the verified bytes, which are kept in
//! memory, because a medium may return different bytes at each read.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::bundle::header::BLOCK;
use crate::bundle::reader::{UnverifiedBundle, VerifiedBundle};
use crate::bundle::{BundleError, volumes};
use crate::trust::TrustError;
use crate::trust::envelope::{CountersignError, Envelope, MAX_SIGNATURES, NotAnEnvelope, Verified};
use crate::trust::keyring::Keyring;
use crate::trust::signer::Signer;
use crate::util::fs;

/// The reason why a signature could not be added.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The bundle changed after it was verified.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The signer failed, or there is no space for a further signature.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// A verified bundle with the verified bytes, which a further key may sign.
#[derive(Debug)]
pub struct Signable {
    bundle: VerifiedBundle,
    verified: Verified,
}

impl UnverifiedBundle {
    /// Verifies the bundle like [`UnverifiedBundle::verify`], and keeps the signed bytes for a further signature.
    ///
    /// # Errors
    /// If no key that is trusted for its stream has signed the bundle, its payload cannot be used, the
    /// file or a volume has another length than was signed, or volumes are missing.
    pub fn signable(self, keyring: &Keyring) -> Result<Signable, BundleError> {
        let (signed, verified) = self.signed_and_payload(keyring)?;
        let head = signed.path().to_path_buf();
        let bundle = signed.with_volumes(&|number| volumes::beside(&head, number))?;
        Ok(Signable { bundle, verified })
    }
}

impl Signable {
    /// Returns the bundle.
    pub fn bundle(&self) -> &VerifiedBundle {
        &self.bundle
    }

    /// Adds a signature and syncs the file. Returns `false` if the key had signed the bundle already.
    ///
    /// # Errors
    /// [`SignError::Bundle`] if the envelope in the file is not the verified one, or the file changes meanwhile;
    /// [`SignError::Trust`] if the signer fails, or there is no space for a further signature;
    /// [`SignError::Write`] if the file cannot be read, written or synced.
    pub fn sign(&self, signer: &dyn Signer) -> Result<bool, SignError> {
        let changed =
            |why: String| BundleError::Manifest { path: self.bundle.path().into(), why: why.into() };
        // The envelope is in the head volume.
        let read = self.bundle.content().head();
        // The lock keeps concurrent signers from overwriting each other's signatures. An error is ignored, because
        // some file systems have no locks.
        let _ = read.lock();
        // Only the current signatures are taken from the medium.
        let mut before = vec![0; self.bundle.capacity() as usize];
        read.read_exact_at(&mut before, BLOCK)?;
        let stored = Envelope::parse(&before).map_err(|error: NotAnEnvelope| changed(error.to_string()))?;
        let envelope = match self.verified.countersigned(&stored, signer) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(false),
            Err(error @ CountersignError::Changed) => return Err(changed(error.to_string()).into()),
            Err(CountersignError::Signer(error)) => return Err(error.into()),
        };
        let after = envelope.to_bytes(before.len()).ok_or(TrustError::NoRoom { most: MAX_SIGNATURES })?;
        let same = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
        let file = self.open_for_writing()?;
        fs::write_all_at(&file, "signatures", &after[same..], BLOCK + same as u64)?;
        file.sync_all()?;
        read.read_exact_at(&mut before, BLOCK)?;
        if before != after {
            return Err(changed("the file changed while it was signed".into()).into());
        }
        Ok(true)
    }

    /// Opens the file again for writing. Returns an error if something else has replaced the
    /// file, such as a link or a FIFO: this function follows no link, waits for no FIFO, and writes
    /// nothing.
    fn open_for_writing(&self) -> io::Result<File> {
        let file = fs::open_to_write(self.bundle.path())?;
        let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity(&file)? != identity(self.bundle.content().head())? {
            return Err(io::Error::other("another file has this name now"));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::fs::Mode;

    use super::*;
    use crate::bundle::format::PAYLOAD_TYPE;
    use crate::bundle::heartbeat::HEARTBEAT_TYPE;
    use crate::bundle::writer;
    use crate::trust::key::{PublicKey, SigningKey};
    use crate::trust::message::{Message, PayloadType};

    /// Returns a signed bundle, verified with the key of [`writer::tests`].
    fn verified(dir: &tempfile::TempDir) -> (PathBuf, Signable) {
        let path = dir.path().join("b.tar");
        std::fs::write(&path, writer::tests::bundle()).unwrap();
        let key = SigningKey::from_pem(writer::tests::KEY, None).unwrap();
        let bundle = UnverifiedBundle::open(&path).unwrap();
        (path, bundle.signable(&Keyring::of(&key.public())).unwrap())
    }

    /// Replaces the envelope in a file, like a medium that returns other bytes later.
    fn exchange(path: &PathBuf, signable: &Signable, payload_type: PayloadType, payload: &[u8]) {
        let other = SigningKey::generate().unwrap();
        let envelope = Envelope::signed(payload_type, payload.to_vec(), &other).unwrap();
        let bytes = envelope.to_bytes(signable.bundle.capacity() as usize).unwrap();
        File::options().write(true).open(path).unwrap().write_all_at(&bytes, BLOCK).unwrap();
    }

    #[test]
    fn bytes_that_the_medium_returns_later_are_not_signed() {
        let signer = SigningKey::generate().unwrap();
        let in_toto = PayloadType::new("application/vnd.in-toto+json");
        for payload_type in [in_toto, HEARTBEAT_TYPE, PAYLOAD_TYPE] {
            let dir = tempfile::tempdir().unwrap();
            let (path, signable) = verified(&dir);
            // The same payload as another type, and another payload as the same type.
            let payload = match payload_type {
                PAYLOAD_TYPE => &b"{}"[..],
                _ => signable.verified.payload(),
            };
            exchange(&path, &signable, payload_type, payload);
            let before = std::fs::read(&path).unwrap();
            let rejected = signable.sign(&signer);
            assert!(matches!(rejected, Err(SignError::Bundle(_))), "{payload_type:?}: {rejected:?}");
            assert!(std::fs::read(&path).unwrap() == before, "{payload_type:?}: it was written to");
        }
    }

    /// Changes the type in the file while it signs.
    struct Meddler<'a> {
        key: SigningKey,
        path: &'a PathBuf,
        signable: &'a Signable,
    }

    impl Signer for Meddler<'_> {
        fn public(&self) -> PublicKey {
            self.key.public()
        }

        fn sign(&self, message: &Message) -> Result<[u8; 64], TrustError> {
            exchange(self.path, self.signable, HEARTBEAT_TYPE, self.signable.verified.payload());
            Signer::sign(&self.key, message)
        }
    }

    #[test]
    fn a_bundle_that_changes_while_it_is_signed_is_an_error_and_gets_no_signature() {
        let dir = tempfile::tempdir().unwrap();
        let (path, signable) = verified(&dir);
        let signer = Meddler { key: SigningKey::generate().unwrap(), path: &path, signable: &signable };
        assert!(matches!(signable.sign(&signer), Err(SignError::Bundle(_))));
        let bytes = std::fs::read(&path).unwrap();
        let room = BLOCK as usize..BLOCK as usize + signable.bundle.capacity() as usize;
        // The file may hold a mixture, but nothing except the verified payload was signed.
        if let Ok(left) = Envelope::parse(&bytes[room]) {
            assert!(left.signers(HEARTBEAT_TYPE, [&signer.public()]).is_empty());
        }
    }

    #[test]
    fn another_file_of_its_name_is_not_written_to() {
        let signer = SigningKey::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (path, signable) = verified(&dir);
        let other = dir.path().join("other");
        std::fs::rename(&path, &other).unwrap();
        let before = std::fs::read(&other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(matches!(signable.sign(&signer), Err(SignError::Write(_))), "a link");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        assert!(matches!(signable.sign(&signer), Err(SignError::Write(_))), "a FIFO");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &before).unwrap();
        assert!(matches!(signable.sign(&signer), Err(SignError::Write(_))), "a copy");
        for file in [&path, &other] {
            assert!(std::fs::read(file).unwrap() == before);
        }
    }

    #[test]
    fn a_signature_is_added_once() {
        let signer = SigningKey::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (path, signable) = verified(&dir);
        assert!(signable.sign(&signer).unwrap());
        assert!(!signable.sign(&signer).unwrap());
        let bundle = UnverifiedBundle::open(&path).unwrap().verify(&Keyring::of(&signer.public())).unwrap();
        assert_eq!(bundle.signers(), [signer.public().id()]);
    }
}
