//! The reader. It accepts exactly one order of members and one form of each, and has three types for a bundle.
//!
//! An [`UnverifiedBundle`] is a file that looks like a bundle. Its content may be shown, but nothing else may
//! depend on it. A [`SignedBundle`] is signed by a trusted key, but its volumes may be missing. A
//! [`VerifiedBundle`] has all its volumes too. The bytes of its members are compared with the signed digests
//! when they are read, not before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::bundle::BundleError;
use crate::bundle::assemble::{self, Faults, check_length, compare, locate};
use crate::bundle::content::{Content, open_regular};
use crate::bundle::format::{MANIFEST, MAX_MANIFEST, PAYLOAD_TYPE};
use crate::bundle::header::{self, BLOCK};
use crate::bundle::payload::{BadPayload, Member, Payload};
use crate::bundle::volumes::{self, VolumeNumber};
use crate::dataset::layer::CHUNK;
use crate::digest::{Digest, Hasher};
use crate::trust::envelope::{Envelope, Verified};
use crate::trust::key::{KeyId, PublicKey};
use crate::trust::keyring::Keyring;
use crate::trust::message::PayloadType;
use crate::util::text::{Unverified, escape};

/// A bundle whose signature has not been verified yet.
#[derive(Debug)]
pub struct UnverifiedBundle {
    path: PathBuf,
    file: File,
    length: u64,
    capacity: u64,
    envelope: Envelope,
}

/// A bundle whose manifest is signed by a trusted key. Its volumes may be missing.
#[derive(Debug)]
pub struct SignedBundle {
    path: PathBuf,
    content: Content,
    capacity: u64,
    payload: Payload,
    identity: Digest,
    signers: Vec<KeyId>,
}

/// A bundle whose manifest is signed by a trusted key and whose volumes all exist.
#[derive(Debug)]
pub struct VerifiedBundle(SignedBundle);

impl UnverifiedBundle {
    /// Opens a file and reads its envelope. Links are not followed, and only regular files are
    /// read.
    ///
    /// # Errors
    /// [`BundleError::Open`] or [`BundleError::Read`] if the file cannot be read; [`BundleError::NotAFile`]
    /// if it is not a regular file; [`BundleError::NotABundle`] if it begins with something else;
    /// [`BundleError::CutOff`] if it ends within the manifest; [`BundleError::Manifest`] if the manifest is
    /// damaged.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let (mut file, length) = open_regular(path)?;
        let not = |why: String| BundleError::NotABundle { path: path.into(), why: why.into() };
        let damaged = |why: String| BundleError::Manifest { path: path.into(), why: why.into() };
        let read = |file: &mut File, buffer: &mut [u8]| match file.read_exact(buffer) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(BundleError::Read { path: path.into(), error }),
            Ok(()) => Ok(true),
        };
        let mut first = [0; BLOCK as usize];
        if !read(&mut file, &mut first)? {
            let begun = &first[..first.len().min(length as usize)];
            // A file on a medium that was unplugged too early often holds only zeros.
            let cut = begun.iter().all(|byte| *byte == 0) || begun.starts_with(MANIFEST.as_bytes());
            return Err(match cut || MANIFEST.as_bytes().starts_with(begun) {
                true => BundleError::CutOff { path: path.into(), have: length },
                false => not(format!("its first member is not {MANIFEST}")),
            });
        }
        if !first.starts_with(MANIFEST.as_bytes()) {
            return Err(not(format!("its first member is not {MANIFEST}")));
        }
        let capacity = tar::Header::from_byte_slice(&first).entry_size().unwrap_or(u64::MAX);
        if capacity > MAX_MANIFEST {
            return Err(damaged(format!("it claims {capacity} bytes (limit: {MAX_MANIFEST})")));
        }
        if header::header(MANIFEST, capacity).is_none_or(|wanted| wanted != first) {
            return Err(damaged("its header is not in the required form".into()));
        }
        let mut bytes = vec![0; capacity as usize];
        if !read(&mut file, &mut bytes)? {
            return Err(BundleError::CutOff { path: path.into(), have: length });
        }
        let envelope = Envelope::parse(&bytes).map_err(|e| damaged(e.to_string()))?;
        if envelope.payload_type() != PAYLOAD_TYPE.as_str() {
            return Err(not(format!("its payload is of type {:?}", escape(envelope.payload_type()))));
        }
        Ok(UnverifiedBundle { path: path.into(), file, length, capacity, envelope })
    }

    /// Returns the unverified payload, for display only.
    ///
    /// # Errors
    /// [`BundleError::Unknown`] if the payload needs a newer version of trivy-ferry;
    /// [`BundleError::Payload`] if it breaks the rules of the format.
    pub fn claims(&self) -> Result<Payload, BundleError> {
        parse(&self.path, self.envelope.payload())
    }

    /// Returns the unverified identity: the digest of the payload.
    pub fn identity(&self) -> Digest {
        Digest::of(self.envelope.payload())
    }

    /// Returns the length of the unverified payload in bytes.
    pub fn payload_length(&self) -> usize {
        self.envelope.payload().len()
    }

    /// Returns the unverified key identifiers in its envelope.
    pub fn claimed_keyids(&self) -> Vec<Unverified> {
        self.envelope.claimed_keyids().cloned().collect()
    }

    /// Returns the payload if this key has signed it and the file has its signed length.
    pub fn signed_by(&self, key: &PublicKey) -> Option<Payload> {
        let payload =
            self.claims().ok().filter(|_| !self.envelope.signers(PAYLOAD_TYPE, [key]).is_empty())?;
        check_length(&self.path, self.capacity, self.length, &payload).ok()?;
        Some(payload)
    }

    /// Checks the signature, then the payload, then the length of the file and of its volumes beside it.
    ///
    /// # Errors
    /// [`BundleError::Volumes`] if a volume is missing or has another length than was signed; an error
    /// of [`UnverifiedBundle::signed`] if the signatures, payload or file length are rejected.
    pub fn verify(self, keyring: &Keyring) -> Result<VerifiedBundle, BundleError> {
        let signed = self.signed(keyring)?;
        let head = signed.path.clone();
        signed.with_volumes(&|number| volumes::beside(&head, number))
    }

    /// Checks the signature, then the payload, then the length of the file.
    ///
    /// # Errors
    /// [`BundleError::Untrusted`] or [`BundleError::InvalidSignature`] if no trusted key has signed it;
    /// [`BundleError::Unknown`] if the payload needs a newer version of trivy-ferry;
    /// [`BundleError::Payload`] if it breaks the rules of the format; [`BundleError::Short`] or
    /// [`BundleError::Long`] if the file has another length than was signed; [`BundleError::NotForStream`] if
    /// its keys are not trusted for its stream; [`BundleError::FewSigners`] if too few of them signed it.
    pub fn signed(self, keyring: &Keyring) -> Result<SignedBundle, BundleError> {
        let (signed, verified) = self.signed_and_payload(keyring)?;
        let (have, wanted) = (signed.signers.len(), keyring.min_signers());
        if have < wanted as usize {
            let stream = signed.payload.stream.to_string();
            let others = keyring.trusted_for_others(&stream, verified.signers());
            return Err(BundleError::FewSigners { path: signed.path, have, wanted, stream, others });
        }
        Ok(signed)
    }

    /// Verifies like [`UnverifiedBundle::signed`], but accepts one trusted key, and returns the verified bytes.
    pub(super) fn signed_and_payload(
        self,
        keyring: &Keyring,
    ) -> Result<(SignedBundle, Verified), BundleError> {
        let UnverifiedBundle { path, file, length, capacity, envelope } = self;
        let verified = verified(&path, envelope, PAYLOAD_TYPE, keyring)?;
        let payload = parse(&path, verified.payload())?;
        check_length(&path, capacity, length, &payload)?;
        let identity = Digest::of(verified.payload());
        let signers = trusted_for(&path, payload.stream.as_str(), verified.signers(), keyring)?;
        let content = Content::of(file, length);
        Ok((SignedBundle { path, content, capacity, payload, identity, signers }, verified))
    }
}

impl SignedBundle {
    /// Returns its file, or its head volume.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the signed payload.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Returns the trusted keys that signed it.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// Returns the offset of the first member after the manifest.
    pub fn start(&self) -> u64 {
        header::footprint(self.capacity)
    }

    /// Appends the volumes to the head, unless they are in the same file. `find` returns the path of a volume.
    ///
    /// # Errors
    /// [`BundleError::Volumes`] if a volume is missing, cannot be opened, or has another length than was
    /// signed. The error names all such volumes.
    pub fn with_volumes(
        mut self,
        find: &dyn Fn(volumes::VolumeNumber) -> Option<PathBuf>,
    ) -> Result<VerifiedBundle, BundleError> {
        if self.content.length() < self.payload.length {
            assemble::gather(&self.path, &mut self.content, &self.payload, find)?;
        }
        Ok(VerifiedBundle(self))
    }
}

/// Returns the payload of an envelope, if trusted keys signed it as this type.
pub(super) fn verified(
    path: &Path,
    envelope: Envelope,
    wanted: PayloadType,
    keyring: &Keyring,
) -> Result<Verified, BundleError> {
    let envelope = match envelope.verify(wanted, keyring.public_keys()) {
        Ok(verified) => return Ok(verified),
        Err(envelope) => envelope,
    };
    let path = path.to_path_buf();
    let mut claimed: Vec<Unverified> = envelope.claimed_keyids().cloned().collect();
    let known: Vec<String> = keyring.public_keys().map(|key| key.id().hex()).collect();
    // A file that names a trusted key without its valid signature is damaged or forged, which is a separate error.
    let is_known = |id: &Unverified| known.iter().any(|known| known == id.raw());
    if claimed.iter().any(is_known) {
        claimed.retain(is_known);
        return Err(BundleError::InvalidSignature { claimed, path });
    }
    Err(BundleError::Untrusted { claimed, path })
}

/// Returns the signers that are trusted for the stream.
pub(super) fn trusted_for(
    path: &Path,
    stream: &str,
    signers: &[KeyId],
    keyring: &Keyring,
) -> Result<Vec<KeyId>, BundleError> {
    let trusted = keyring.trusted_for(stream, signers);
    if trusted.is_empty() {
        let others = keyring.trusted_for_others(stream, signers);
        return Err(BundleError::NotForStream { path: path.into(), stream: stream.to_owned(), others });
    }
    Ok(trusted)
}

fn parse(path: &Path, payload: &[u8]) -> Result<Payload, BundleError> {
    Payload::parse(payload).map_err(|bad| match bad {
        BadPayload::Unknown(feature) => BundleError::Unknown { path: path.into(), feature },
        BadPayload::Rule(why) => BundleError::Payload { path: path.into(), why },
    })
}

impl VerifiedBundle {
    /// Returns the file, or the head volume.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the name of the file, for messages.
    pub fn name(&self) -> String {
        escape(&self.path().file_name().unwrap_or_default().to_string_lossy())
    }

    /// Returns the signed payload.
    pub fn payload(&self) -> &Payload {
        &self.0.payload
    }

    /// Returns the sha256 of the signed payload.
    pub fn identity(&self) -> Digest {
        self.0.identity
    }

    /// Returns the trusted keys that signed it.
    pub fn signers(&self) -> &[KeyId] {
        &self.0.signers
    }

    /// Returns the space that is reserved for the envelope, in bytes. It begins after the first header.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// Returns the offset of the first member after the manifest.
    pub(super) fn start(&self) -> u64 {
        self.0.start()
    }

    /// Returns its bytes.
    pub(super) fn content(&self) -> &Content {
        &self.0.content
    }

    /// Returns a second handle to the open files.
    pub(super) fn reopen(&self) -> Result<Content, BundleError> {
        self.0.content.try_clone().map_err(|error| BundleError::Read { path: self.0.path.clone(), error })
    }

    /// Returns the members in the order of the file.
    pub fn members(&self) -> Members<'_> {
        Members {
            path: &self.0.path,
            content: &self.0.content,
            payload: &self.0.payload,
            next: 0,
            at: self.start(),
        }
    }

    /// Reads every byte and compares it with the signed manifest. `begin` is called for each member; the function
    /// that it returns is called with the number of bytes after each read.
    ///
    /// # Errors
    /// [`BundleError::Read`] if a file cannot be read; [`BundleError::Member`] or [`BundleError::Volumes`]
    /// if bytes differ from the signed ones.
    pub fn check<F: Fn(u64)>(&self, mut begin: impl FnMut(&Member) -> F) -> Result<(), BundleError> {
        let mut buffer = vec![0; CHUNK];
        let mut members = self.members();
        while let Some(mut member) = members.next()? {
            let advance = begin(member.member());
            loop {
                match member.read(&mut buffer).map_err(|error| BundleError::from_io(self.path(), error))? {
                    0 => break,
                    count => advance(count as u64),
                }
            }
        }
        Ok(())
    }

    /// Returns a reader for the blob with this digest. It skips the members before it.
    ///
    /// # Errors
    /// [`BundleError::Read`] if a file cannot be read; [`BundleError::Member`] or [`BundleError::Volumes`]
    /// if a header before the blob differs from the signed one; [`BundleError::Payload`] if there is no
    /// such blob.
    pub fn blob(&self, digest: Digest) -> Result<MemberReader<'_>, BundleError> {
        let mut members = self.members();
        while let Some(member) = members.next()? {
            let is_blob = member.member().path.starts_with("blobs/");
            if is_blob && member.member().digest == digest {
                return Ok(member);
            }
        }
        Err(BundleError::Payload {
            path: self.0.path.clone(),
            why: format!("it does not contain the blob {digest}").into(),
        })
    }

    /// Returns the bytes of small members by name. It stops at the last wanted member, so that for members of
    /// datasets it does not reach the large layers.
    ///
    /// # Errors
    /// [`BundleError::Read`] if a file cannot be read; [`BundleError::Member`] or [`BundleError::Volumes`]
    /// if a member differs from the signed one; [`BundleError::Payload`] if a member is larger than `most`
    /// bytes.
    pub fn small_members(
        &self,
        wanted: &BTreeSet<String>,
        most: u64,
    ) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
        let path = self.0.path.clone();
        let mut found = BTreeMap::new();
        let mut members = self.members();
        while found.len() < wanted.len() {
            let Some(mut member) = members.next()? else { break };
            let Member { path: name, size, .. } = member.member().clone();
            if !wanted.contains(&name) {
                continue;
            }
            if size > most {
                let why = format!("{name} has {size} bytes (limit: {most})");
                return Err(BundleError::Payload { path, why: why.into() });
            }
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).map_err(|error| BundleError::from_io(&path, error))?;
            found.insert(name, bytes);
        }
        Ok(found)
    }
}

/// The members in the order of the file. The unread rest of a member is skipped and not checked.
pub struct Members<'b> {
    path: &'b Path,
    content: &'b Content,
    payload: &'b Payload,
    next: usize,
    /// The offset of the next header in the bundle.
    at: u64,
}

impl<'b> Members<'b> {
    /// Checks the header of the next member and returns a reader for it. After the last member it checks the end
    /// of the file and returns `None`.
    ///
    /// # Errors
    /// [`BundleError::Read`] if a file cannot be read; [`BundleError::Member`] or [`BundleError::Volumes`]
    /// if the header, or the end of the bundle, does not match the signed manifest.
    #[allow(clippy::should_implement_trait)] // The items of an iterator cannot borrow from it.
    pub fn next(&mut self) -> Result<Option<MemberReader<'b>>, BundleError> {
        let Some(member) = self.payload.members.get(self.next) else {
            return self.end().map(|()| None);
        };
        self.next += 1;
        let at = self.at + BLOCK;
        let mut found = [0; BLOCK as usize];
        self.exactly(&mut found, &member.path)?;
        if header::header(&member.path, member.size).is_none_or(|wanted| wanted != found) {
            return Err(self.bad(&member.path, "has a header that does not match the signed manifest"));
        }
        self.at += header::footprint(member.size);
        Ok(Some(MemberReader {
            path: self.path,
            content: self.content,
            payload: self.payload,
            member,
            at,
            left: member.size,
            hasher: Hasher::new(),
            checked: false,
        }))
    }

    fn end(&self) -> Result<(), BundleError> {
        let mut zeros = [1; 2 * BLOCK as usize];
        self.exactly(&mut zeros, "the end of the archive")?;
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(self.bad("the end of the archive", "is not two blocks of zeros"));
        }
        let mut more = [0];
        match self.content.read_at(&mut more, self.at + zeros.len() as u64) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.bad("the end of the archive", "is followed by further bytes")),
            Err(error) => Err(BundleError::Read { path: self.path.into(), error }),
        }
    }

    fn exactly(&self, buffer: &mut [u8], member: &str) -> Result<(), BundleError> {
        self.content.read_exact_at(buffer, self.at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.bad(member, "is truncated: the file became shorter while it was read")
            }
            _ => BundleError::from_io(self.path, error),
        })
    }

    fn bad(&self, member: &str, why: &str) -> BundleError {
        bad(self.path, self.content, self.payload, member, why)
    }
}

/// Returns the error for a bad member. If the bundle has volumes, the error names the damaged ones instead, so
/// that the user knows which of them to copy again.
fn bad(path: &Path, content: &Content, payload: &Payload, member: &str, why: &str) -> BundleError {
    assemble::damaged(path, content, payload).unwrap_or_else(|| BundleError::Member {
        path: path.into(),
        member: member.into(),
        why: why.into(),
    })
}

/// A reader of a member. Only the read at its end compares the digest and fails if it is not the signed one.
pub struct MemberReader<'b> {
    path: &'b Path,
    content: &'b Content,
    payload: &'b Payload,
    member: &'b Member,
    /// The offset of the next byte in the bundle.
    at: u64,
    left: u64,
    hasher: Hasher,
    checked: bool,
}

impl<'b> MemberReader<'b> {
    /// Returns the member.
    pub fn member(&self) -> &'b Member {
        self.member
    }

    /// Returns the file of the bundle.
    pub fn bundle_path(&self) -> &'b Path {
        self.path
    }

    /// Reads to the end and discards the bytes.
    ///
    /// # Errors
    /// [`BundleError::Read`] if a file cannot be read; [`BundleError::Member`] or [`BundleError::Volumes`]
    /// if the bytes differ from the signed ones.
    pub fn check(mut self) -> Result<(), BundleError> {
        io::copy(&mut self, &mut io::sink()).map(|_| ()).map_err(|e| BundleError::from_io(self.path, e))
    }

    fn bad(&self, why: &str) -> io::Error {
        io::Error::other(bad(self.path, self.content, self.payload, &self.member.path, why))
    }

    /// Checks the digest, and the zeros up to the next block.
    fn finish(&mut self) -> io::Result<()> {
        let mut zeros = vec![0; header::padding(self.member.size) as usize];
        self.content.read_exact_at(&mut zeros, self.at)?;
        if std::mem::take(&mut self.hasher).finish() != self.member.digest {
            return Err(self.bad("does not match the signed manifest"));
        }
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(self.bad("is followed by bytes that are not zero"));
        }
        self.checked = true;
        Ok(())
    }
}

impl Read for MemberReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            if !self.checked {
                self.finish()?;
            }
            return Ok(0);
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.content.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(self.bad("is truncated: the file became shorter while it was read"));
        }
        self.hasher.update(&buffer[..count]);
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

impl BundleError {
    /// Returns the [`BundleError`] inside an `io::Error`, or [`BundleError::Read`] for any other error.
    pub fn from_io(path: &Path, error: io::Error) -> Self {
        match error.downcast::<BundleError>() {
            Ok(bundle) => bundle,
            Err(error) => BundleError::Read { path: path.into(), error },
        }
    }
}

impl SignedBundle {
    /// Reads all volumes after the head and returns an error that names each missing or damaged one. `None`
    /// if all are good. `find` returns the path of a volume.
    pub fn bad_volumes(&self, find: &dyn Fn(VolumeNumber) -> Option<PathBuf>) -> Option<BundleError> {
        let mut faults = Faults::default();
        for (index, volume) in self.payload().volumes.iter().enumerate() {
            let Some(number) = VolumeNumber::at(index) else { continue };
            if let Some(path) = locate(self.path(), self.payload(), number, find, &mut faults) {
                compare(&path, volume, &mut faults);
            }
        }
        faults.error(self.path(), self.payload())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::bundle::writer::tests as writer;
    use crate::trust::key::SigningKey;
    use crate::trust::keyring;

    fn keyring(dir: &Path) -> Keyring {
        let key = SigningKey::from_pem(writer::KEY, None).unwrap().public();
        Keyring::load(&[keyring::add(dir, "test", &key, &[]).unwrap().path]).unwrap()
    }

    /// Writes a bundle and verifies it completely.
    fn read(bytes: &[u8]) -> Result<usize, BundleError> {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = dir.path().join("b.tar");
        File::create(&path).unwrap().write_all(bytes).unwrap();
        read_all(&path)
    }

    fn read_all(path: &Path) -> Result<usize, BundleError> {
        let bundle = UnverifiedBundle::open(path)?.verify(&keyring(path.parent().unwrap()))?;
        let mut count = 0;
        bundle.check(|_| {
            count += 1;
            |_| {}
        })?;
        Ok(count)
    }

    /// Writes a bundle in volumes and verifies it completely. An empty volume is not written.
    fn read_volumes(volumes: &[Vec<u8>]) -> Result<usize, BundleError> {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = |number: usize| dir.path().join(format!("b.tar.{number:03}"));
        for (number, bytes) in volumes.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            std::fs::write(path(number), bytes).unwrap();
        }
        read_all(&path(0))
    }

    /// Returns volumes that are so small that members and even headers are split between them.
    fn split() -> Vec<Vec<u8>> {
        let head = writer::volumes(20_000)[0].len() as u64;
        let all = writer::volumes(head + 700);
        assert_eq!(all.len(), 2);
        all
    }

    #[test]
    fn missing_and_damaged_volumes_are_named() {
        let good = split();
        assert_eq!(read_volumes(&good).unwrap(), 10);
        let named = |volumes: &[Vec<u8>]| match read_volumes(volumes).unwrap_err() {
            BundleError::Volumes { missing, damaged, all: 2, .. } => (missing, damaged.concat()),
            other => panic!("{other}"),
        };
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut volumes = good.clone();
            change(&mut volumes[1]);
            named(&volumes)
        };
        assert_eq!(changed(Vec::clear).0, ["b.tar.001"]);
        assert!(changed(|bytes| bytes.truncate(9)).1.contains("b.tar.001 has 9 bytes"));
        assert!(changed(|bytes| bytes.push(0)).1.contains("b.tar.001 has"));
        for change in [|bytes: &mut Vec<u8>| bytes[3] ^= 1, |bytes: &mut Vec<u8>| bytes[2000] ^= 1] {
            assert_eq!(changed(change), (vec![], "b.tar.001 does not match the signed digest".into()));
        }
        // The head alone under the name of a bundle, and all volumes in one file.
        assert!(read(&good[0]).unwrap_err().to_string().contains(".tar.001 is missing (2 in total)"));
        assert_eq!(read(&good.concat()).unwrap(), 10);
        assert!(matches!(read(&[&good.concat()[..], b"x"].concat()), Err(BundleError::Long { .. })));
    }

    #[test]
    fn a_good_bundle_is_read_completely() {
        assert_eq!(read(&writer::bundle()).unwrap(), 10);
    }

    #[test]
    fn every_length_but_the_right_one_is_rejected() {
        let good = writer::bundle();
        for length in (0..good.len()).step_by(97).chain([good.len() - 1]) {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        for extra in [1, 511, 512, 10240] {
            let longer = [&good[..], &vec![0; extra]].concat();
            assert!(matches!(read(&longer), Err(BundleError::Long { .. })), "{extra}");
        }
    }

    #[test]
    fn unread_bytes_are_skipped() {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = dir.path().join("b.tar");
        std::fs::write(&path, writer::bundle()).unwrap();
        let bundle = UnverifiedBundle::open(&path).unwrap().verify(&keyring(dir.path())).unwrap();
        let mut members = bundle.members();
        while let Some(mut member) = members.next().unwrap() {
            let _ = member.read(&mut [0]).unwrap();
        }
    }

    proptest! {
        #![proptest_config(crate::util::seed::cases(400))]
        #[test]
        fn no_flipped_bit_changes_an_accepted_bundle(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let good = writer::bundle();
            let mut bad = good.clone();
            let at = at.index(bad.len());
            bad[at] ^= 1 << bit;
            // Unsigned bytes of the envelope, such as the key identifier, may change. A bundle that is
            // accepted must have the same payload and members.
            let identity = |bytes: &[u8]| Envelope::parse(&bytes[512..][..capacity(bytes)]).map(|e| Digest::of(e.payload()));
            if read(&bad).is_ok() {
                prop_assert!(at < 512 + capacity(&good), "byte {} of {}", at, good.len());
                prop_assert_eq!(identity(&bad), identity(&good));
            }
        }
    }

    fn capacity(bytes: &[u8]) -> usize {
        let mut first = [0; 512];
        first.copy_from_slice(&bytes[..512]);
        tar::Header::from_byte_slice(&first).entry_size().unwrap() as usize
    }
}
