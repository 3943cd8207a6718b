//! Finds the volumes of a bundle beside its head, and compares their lengths and digests with the signed
//! ones. It does not check signatures.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::content::{Content, open_regular};
use crate::bundle::header::{self, BLOCK};
use crate::bundle::names;
use crate::bundle::volumes::{self, Volume, VolumeNumber, beside};
use crate::bundle::{BundleError, Payload};
use crate::digest::{Digest, digest_of};

/// Compares the length of a bundle, or of its head, with the length in the payload.
///
/// # Errors
/// [`BundleError::Payload`] if the payload contradicts itself; [`BundleError::Short`] or [`BundleError::Long`] if the
/// file has another length than was signed.
pub(super) fn check_length(
    path: &Path,
    capacity: u64,
    have: u64,
    payload: &Payload,
) -> Result<(), BundleError> {
    let members: u64 = payload.members.iter().map(|member| header::footprint(member.size)).sum();
    let wanted = header::footprint(capacity) + members + 2 * BLOCK;
    if wanted != payload.length {
        let why = format!("its members take {wanted} bytes, but its length is {}", payload.length);
        return Err(BundleError::Payload { path: path.into(), why: why.into() });
    }
    // The head holds the bytes that are not in the other volumes.
    let head = payload.head_length();
    if head < header::footprint(capacity) {
        let why = "its volumes leave no room for the manifest";
        return Err(BundleError::Payload { path: path.into(), why: why.into() });
    }
    // The concatenated volumes are accepted as well.
    let wanted = if have > head { payload.length } else { head };
    let path = path.to_path_buf();
    match have.cmp(&wanted) {
        std::cmp::Ordering::Less => Err(BundleError::Short { path, have, wanted }),
        std::cmp::Ordering::Greater => Err(BundleError::Long { path, extra: have - wanted }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// Returns the file name that a missing volume should have: derived from the name of its head or, if the head
/// was renamed, the name that an export gives it.
pub(crate) fn expected(head: &Path, payload: &Payload, number: VolumeNumber) -> String {
    let file = beside(head, number).and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let written = || volumes::name(&names::default_name(payload.stream.as_str(), payload.created), number);
    crate::util::text::escape(&file.unwrap_or_else(written))
}

/// The faults of the volumes of a bundle.
#[derive(Default)]
pub(crate) struct Faults {
    missing: Vec<String>,
    /// Clauses: the name of a volume, and its fault.
    damaged: Vec<String>,
    /// Whether one is shorter than its signed length.
    short: bool,
}

impl Faults {
    fn damaged(&mut self, path: &Path, why: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.damaged.push(format!("{} {}", crate::util::text::escape(&name), crate::util::text::escape(why)));
    }

    /// Returns one error for all faults; `None` if there are none.
    pub(crate) fn error(self, head: &Path, payload: &Payload) -> Option<BundleError> {
        let Faults { missing, damaged, short } = self;
        let (path, all) = (head.to_path_buf(), payload.volumes.len() + 1);
        let any = !missing.is_empty() || !damaged.is_empty();
        any.then_some(BundleError::Volumes { path, all, missing, damaged, short })
    }
}

/// Returns the path of a volume if it exists and has its signed length. Adds a fault otherwise.
pub(crate) fn locate(
    head: &Path,
    payload: &Payload,
    number: VolumeNumber,
    find: &dyn Fn(VolumeNumber) -> Option<PathBuf>,
    faults: &mut Faults,
) -> Option<PathBuf> {
    let volume = payload.volumes.get(number.index()?)?;
    let path = find(number);
    match path.as_deref().map(open_regular) {
        None => faults.missing.push(expected(head, payload, number)),
        Some(Err(BundleError::Open { error, .. })) if error.kind() == io::ErrorKind::NotFound => {
            faults.missing.push(expected(head, payload, number));
        }
        Some(Err(error)) => faults.damaged(&path?, &error.to_string()),
        Some(Ok((_, length))) if length != volume.size => {
            faults.short |= length < volume.size;
            faults.damaged(&path?, &format!("has {length} bytes instead of the signed {}", volume.size));
        }
        Some(Ok(_)) => return path,
    }
    None
}

/// Appends the volumes to the head, if each exists and has its signed length.
///
/// # Errors
/// [`BundleError::Volumes`] if a volume is missing, cannot be opened, or has another length than was
/// signed. It names all such volumes.
pub(crate) fn gather(
    head: &Path,
    content: &mut Content,
    payload: &Payload,
    find: &dyn Fn(VolumeNumber) -> Option<PathBuf>,
) -> Result<(), BundleError> {
    let mut faults = Faults::default();
    for (index, volume) in payload.volumes.iter().enumerate() {
        let Some(number) = VolumeNumber::at(index) else { continue };
        if let Some(path) = locate(head, payload, number, find, &mut faults) {
            content.push(path, volume.size);
        }
    }
    faults.error(head, payload).map_or(Ok(()), Err)
}

/// Reads all volumes after the head and names those that do not have their signed digest.
pub(crate) fn damaged(head: &Path, content: &Content, payload: &Payload) -> Option<BundleError> {
    let mut faults = Faults::default();
    for (index, path) in content.volumes_in(0..content.length()) {
        if let Some(volume) = payload.volumes.get(index) {
            compare(path, volume, &mut faults);
        }
    }
    faults.error(head, payload)
}

/// Reads a volume completely and compares its digest with the signed one.
pub(crate) fn compare(path: &Path, volume: &Volume, faults: &mut Faults) {
    match digest(path, volume.size) {
        Ok(digest) if digest == volume.digest => {}
        Ok(_) => faults.damaged(path, "does not match the signed digest"),
        Err(error) => faults.damaged(path, &format!("cannot be read ({error})")),
    }
}

/// Returns the digest of the first `most` bytes of a file.
pub(crate) fn digest(path: &Path, most: u64) -> io::Result<Digest> {
    let (file, _) = open_regular(path).map_err(io::Error::other)?;
    digest_of(io::Read::take(file, most)).map(|(digest, _)| digest)
}
