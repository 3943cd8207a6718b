//! Blobs of a verified bundle that many threads read at once and in any order, in chunks.
//!
//! The verification takes a BLAKE3 digest of each chunk, which costs little compared to SHA-256, and keeps it
//! in memory. Every read compares the chunk with its digest, so that a change to the file after the
//! verification is detected.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use crate::bundle::content::Content;
use crate::bundle::header::{self, BLOCK};
use crate::bundle::{BundleError, VerifiedBundle};
use crate::content_digest::ContentDigest;
use crate::digest::Digest;
use crate::progress::Progress;

/// The length of a chunk in bytes. A reader needs the memory of 1 or 2 chunks, and 100 may read at once, so
/// chunks are small. The digests of 1 GiB take 512 KiB.
pub const CHUNK: u64 = 64 << 10;

/// Blobs of one bundle that match their signed digests.
#[derive(Debug)]
pub struct VerifiedBlobs {
    path: PathBuf,
    content: Content,
    blobs: BTreeMap<Digest, Placed>,
}

/// The place of a blob in the bundle, and the digests of its chunks.
#[derive(Debug)]
struct Placed {
    offset: u64,
    size: u64,
    chunks: Vec<ContentDigest>,
}

/// One blob of [`VerifiedBlobs`].
#[derive(Debug, Clone)]
pub struct VerifiedBlob {
    bundle: Arc<VerifiedBlobs>,
    digest: Digest,
}

impl VerifiedBundle {
    /// Reads the bundle once from front to back, compares the wanted blobs with their signed digests, and keeps
    /// the bundle open for reading them. `what` returns the name of a blob for progress.
    ///
    /// # Errors
    /// [`BundleError::Read`] if a file cannot be read or opened a second time. [`BundleError::Member`] or
    /// [`BundleError::Volumes`] if the bytes differ from the signed ones.
    pub fn verify_in_chunks(
        &self,
        wanted: &BTreeSet<Digest>,
        what: impl Fn(Digest) -> String,
        progress: &dyn Progress,
    ) -> Result<Arc<VerifiedBlobs>, BundleError> {
        let path = self.path().to_path_buf();
        let mut blobs = BTreeMap::new();
        let mut offset = self.start();
        let mut members = self.members();
        while let Some(mut member) = members.next()? {
            let (digest, size) = (member.member().digest, member.member().size);
            let begin = offset + BLOCK;
            offset += header::footprint(size);
            if !wanted.contains(&digest) || !member.member().path.starts_with("blobs/") {
                continue;
            }
            let step = progress.begin(&what(digest), size, "");
            let mut chunks = Vec::new();
            let mut chunk = Vec::new();
            loop {
                chunk.clear();
                let read = (&mut member).take(CHUNK).read_to_end(&mut chunk);
                let count = read.map_err(|error| BundleError::from_io(&path, error))?;
                if count == 0 {
                    break;
                }
                step.advance(count as u64);
                chunks.push(ContentDigest::of(&chunk));
            }
            blobs.insert(digest, Placed { offset: begin, size, chunks });
        }
        let content = self.reopen()?;
        Ok(Arc::new(VerifiedBlobs { path, content, blobs }))
    }
}

impl VerifiedBlobs {
    /// Returns a wanted blob.
    pub fn blob(self: &Arc<Self>, digest: Digest) -> Option<VerifiedBlob> {
        self.blobs.contains_key(&digest).then(|| VerifiedBlob { bundle: self.clone(), digest })
    }
}

impl VerifiedBlob {
    /// Returns its length in bytes.
    pub fn size(&self) -> u64 {
        self.placed().map_or(0, |placed| placed.size)
    }

    /// Returns the bytes of its chunk with this number, counted from 0. All but the last have [`CHUNK`] bytes.
    ///
    /// # Errors
    /// `InvalidInput` if there is no chunk with this number; the error of the system if the file cannot be
    /// read; an error that holds [`BundleError::Member`] if the bytes changed after the verification.
    pub fn chunk(&self, number: u64) -> io::Result<Vec<u8>> {
        let none = || io::Error::from(io::ErrorKind::InvalidInput);
        let placed = self.placed().ok_or_else(none)?;
        let begin = number.checked_mul(CHUNK).filter(|begin| *begin < placed.size).ok_or_else(none)?;
        let wanted = usize::try_from(number).ok().and_then(|number| placed.chunks.get(number));
        let length = (placed.size - begin).min(CHUNK);
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| none())?];
        let read = self.bundle.content.read_exact_at(&mut bytes, placed.offset + begin);
        match read {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            Ok(()) if wanted == Some(&ContentDigest::of(&bytes)) => return Ok(bytes),
            _ => {}
        }
        Err(io::Error::other(BundleError::Member {
            path: self.bundle.path.clone(),
            member: format!("blobs/sha256/{}", self.digest.hex()).into(),
            why: "was changed after it was verified".into(),
        }))
    }

    fn placed(&self) -> Option<&Placed> {
        self.bundle.blobs.get(&self.digest)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::bundle::UnverifiedBundle;
    use crate::bundle::writer::tests as writer;
    use crate::progress::Silent;
    use crate::trust::key::SigningKey;
    use crate::trust::keyring::{self, Keyring};

    #[test]
    fn every_chunk_is_the_one_that_was_verified_or_an_error() {
        let dir = crate::util::fs::tempdir().unwrap();
        let key = SigningKey::from_pem(writer::KEY, None).unwrap().public();
        let keyring = Keyring::load(&[keyring::add(dir.path(), "test", &key, &[]).unwrap().path]).unwrap();
        let path = dir.path().join("b.tar");
        let bytes = writer::bundle();
        std::fs::write(&path, &bytes).unwrap();
        let bundle = UnverifiedBundle::open(&path).unwrap().verify(&keyring).unwrap();
        let members: Vec<_> = bundle.payload().members.clone();
        let wanted: BTreeSet<Digest> =
            members.iter().filter(|m| m.path.starts_with("blobs/")).map(|m| m.digest).collect();
        let checked = bundle.verify_in_chunks(&wanted, |_| String::new(), &Silent).unwrap();
        for digest in &wanted {
            let blob = checked.blob(*digest).unwrap();
            let mut all = Vec::new();
            for number in 0..blob.size().div_ceil(CHUNK) {
                all.extend(blob.chunk(number).unwrap());
            }
            assert_eq!(Digest::of(&all), *digest);
            assert!(blob.chunk(blob.size().div_ceil(CHUNK)).is_err());
        }
        // After a replacement under the same name, the verified file is still read. A change in place is an error.
        let largest = checked.blob(members.iter().max_by_key(|m| m.size).unwrap().digest).unwrap();
        std::fs::rename(&path, dir.path().join("old.tar")).unwrap();
        std::fs::write(&path, b"another").unwrap();
        assert!(largest.chunk(0).is_ok());
        let mut file = std::fs::OpenOptions::new().write(true).open(dir.path().join("old.tar")).unwrap();
        file.write_all(&vec![0x55; bytes.len()]).unwrap();
        let error = largest.chunk(0).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("was changed after it was verified"), "{error}");
        file.set_len(10).unwrap();
        assert!(largest.chunk(0).is_err());
    }
}
