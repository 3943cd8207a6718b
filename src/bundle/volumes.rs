//! Volumes: a bundle in several files, for media that are small or hold no large files.
//!
//! `NAME.tar.000`, the head, begins with the manifest; `NAME.tar.001` and so on are what follows. Put one
//! behind the other they are the bundle. Knows their names, their place in a payload, and which of them is
//! to blame.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::bundle::content::{Content, open_regular};
use crate::bundle::{BundleError, Payload, SignedBundle};
use crate::digest::{Digest, digest_of};

/// The feature in `requires` without which a bundle in volumes cannot be read.
pub(super) const FEATURE: &str = "volumes";
/// The most volumes behind a head: their numbers have three digits.
pub const MAX_VOLUMES: usize = 999;

/// A volume behind the head, as the payload lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// The number of a volume: 0 is the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u16);

impl Number {
    /// The head's.
    pub const HEAD: Number = Number(0);

    /// The number of the volume at this place in the payload.
    pub fn at(index: usize) -> Option<Self> {
        u16::try_from(index + 1).ok().filter(|number| usize::from(*number) <= MAX_VOLUMES).map(Number)
    }

    /// Its place in the payload; none for the head.
    pub fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// The name of a volume of the bundle `NAME.tar`.
pub fn name(bundle: &str, number: Number) -> String {
    format!("{bundle}.{number}")
}

/// The bundle's name and the volume's number: `NAME.tar` and 1 of `NAME.tar.001`.
pub fn parse_name(name: &str) -> Option<(&str, Number)> {
    let (bundle, number) = name.rsplit_once('.')?;
    let digits = number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit());
    let tar = bundle.to_ascii_lowercase();
    (digits && tar.ends_with(".tar")).then_some((bundle, Number(number.parse().ok()?)))
}

/// The path of a volume beside its head. `None` where the head does not have a head's name.
pub fn beside(head: &Path, number: Number) -> Option<PathBuf> {
    let file = head.file_name()?.to_str()?;
    let (bundle, _) = parse_name(file).filter(|(_, of)| *of == Number::HEAD)?;
    Some(head.with_file_name(name(bundle, number)))
}

/// How a volume is called where it is missed.
fn expected(head: &Path, number: Number) -> String {
    let file = beside(head, number).and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    crate::util::text::safe(&file.unwrap_or_else(|| format!("….tar.{number}")))
}

/// What is wrong with the volumes of a bundle.
#[derive(Default)]
struct Faults {
    missing: Vec<String>,
    /// Sentences' ends: which volume, and what is wrong with it.
    damaged: Vec<String>,
    /// Whether one is shorter than was signed.
    short: bool,
}

impl Faults {
    fn damaged(&mut self, path: &Path, why: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.damaged.push(format!("{} {}", crate::util::text::safe(&name), crate::util::text::safe(why)));
    }

    /// One error for all; `None` where there are none.
    fn error(self, head: &Path, payload: &Payload) -> Option<BundleError> {
        let Faults { missing, damaged, short } = self;
        let (path, all) = (head.to_path_buf(), payload.volumes.len() + 1);
        let any = !missing.is_empty() || !damaged.is_empty();
        any.then_some(BundleError::Volumes { path, all, missing, damaged, short })
    }
}

/// Where a volume lies, where it is there and as long as was signed.
fn locate(
    head: &Path,
    number: Number,
    volume: &Volume,
    find: &dyn Fn(Number) -> Option<PathBuf>,
    faults: &mut Faults,
) -> Option<PathBuf> {
    let path = find(number);
    match path.as_deref().map(open_regular) {
        None => faults.missing.push(expected(head, number)),
        Some(Err(BundleError::Open { error, .. })) if error.kind() == io::ErrorKind::NotFound => {
            faults.missing.push(expected(head, number));
        }
        Some(Err(error)) => faults.damaged(&path?, &error.to_string()),
        Some(Ok((_, length))) if length != volume.size => {
            faults.short |= length < volume.size;
            faults.damaged(&path?, &format!("has {length} bytes, and {} were signed", volume.size));
        }
        Some(Ok(_)) => return path,
    }
    None
}

/// Puts the volumes behind the head, where each is there and as long as was signed.
///
/// # Errors
/// [`BundleError::Volumes`] names all that are missing or of another length.
pub(super) fn gather(
    head: &Path,
    content: &mut Content,
    payload: &Payload,
    find: &dyn Fn(Number) -> Option<PathBuf>,
) -> Result<(), BundleError> {
    let mut faults = Faults::default();
    for (index, volume) in payload.volumes.iter().enumerate() {
        let Some(number) = Number::at(index) else { continue };
        if let Some(path) = locate(head, number, volume, find, &mut faults) {
            content.push(path, volume.size);
        }
    }
    faults.error(head, payload).map_or(Ok(()), Err)
}

impl SignedBundle {
    /// Reads all volumes behind the head that are there, found by their number, and names each that is
    /// missing or is not what was signed: those are to be copied again. `None` where all are good.
    pub fn bad_volumes(&self, find: &dyn Fn(Number) -> Option<PathBuf>) -> Option<BundleError> {
        let mut faults = Faults::default();
        for (index, volume) in self.payload().volumes.iter().enumerate() {
            let Some(number) = Number::at(index) else { continue };
            if let Some(path) = locate(self.path(), number, volume, find, &mut faults) {
                compare(&path, volume, &mut faults);
            }
        }
        faults.error(self.path(), self.payload())
    }
}

/// Reads all volumes behind the head and names those that are not what was signed.
pub(super) fn damaged(head: &Path, content: &Content, payload: &Payload) -> Option<BundleError> {
    let mut faults = Faults::default();
    for (index, path) in content.volumes_in(0..content.length()) {
        if let Some(volume) = payload.volumes.get(index) {
            compare(path, volume, &mut faults);
        }
    }
    faults.error(head, payload)
}

/// Reads a volume through.
fn compare(path: &Path, volume: &Volume, faults: &mut Faults) {
    match digest(path, volume.size) {
        Ok(digest) if digest == volume.digest => {}
        Ok(_) => faults.damaged(path, "is not what was signed"),
        Err(error) => faults.damaged(path, &format!("cannot be read ({error})")),
    }
}

/// The digest of the first `most` bytes of a file.
fn digest(path: &Path, most: u64) -> io::Result<Digest> {
    let (file, _) = open_regular(path).map_err(io::Error::other)?;
    digest_of(io::Read::take(file, most)).map(|(digest, _)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_numbered_in_their_names() {
        assert_eq!(parse_name("a.tar.000"), Some(("a.tar", Number::HEAD)));
        assert_eq!(parse_name("A.TAR.999").map(|(_, number)| number.index()), Some(Some(998)));
        for none in ["a.tar", "a.tar.1", "a.tar.0001", "a.zip.001", "a.tar.00x", "a.tar.+01", ".001"] {
            assert_eq!(parse_name(none), None, "{none}");
        }
        let third = Number::at(2).unwrap();
        assert_eq!(beside(Path::new("/m/a.tar.000"), third), Some("/m/a.tar.003".into()));
        assert_eq!(beside(Path::new("/m/a.tar.001"), third), None);
        assert_eq!(beside(Path::new("/m/a.tar"), third), None);
        assert_eq!((Number::at(998).is_some(), Number::at(999)), (true, None));
    }
}
