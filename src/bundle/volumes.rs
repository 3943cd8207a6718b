//! Volumes: a bundle split into several files, for media that are small or cannot hold large files.
//!
//! The head volume `NAME.tar.000` begins with the manifest; `NAME.tar.001` and so on follow. Concatenated, they
//! are the bundle. This module handles the names of volumes and their place in a payload, and reads no files.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The feature in `requires` that a reader of volumes must support.
pub(super) const FEATURE: &str = "volumes";
/// The highest number of volumes after a head: their numbers have 3 digits.
pub const MAX_VOLUMES: usize = 999;

/// A volume after the head, as the payload lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// The number of a volume: 0 is the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeNumber(u16);

impl VolumeNumber {
    /// The number of the head.
    pub const HEAD: VolumeNumber = VolumeNumber(0);

    /// Returns the number of the volume at this index of the payload.
    pub fn at(index: usize) -> Option<Self> {
        u16::try_from(index + 1).ok().filter(|number| usize::from(*number) <= MAX_VOLUMES).map(VolumeNumber)
    }

    /// Returns its index in the payload; `None` for the head.
    pub fn index(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

impl fmt::Display for VolumeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// Returns the name of a volume of the bundle `NAME.tar`.
pub fn name(bundle: &str, number: VolumeNumber) -> String {
    format!("{bundle}.{number}")
}

/// Returns the name of the bundle and the number of the volume: `NAME.tar` and 1 for `NAME.tar.001`.
pub fn parse_name(name: &str) -> Option<(&str, VolumeNumber)> {
    let (bundle, number) = name.rsplit_once('.')?;
    let digits = number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit());
    let tar = bundle.to_ascii_lowercase();
    (digits && tar.ends_with(".tar")).then_some((bundle, VolumeNumber(number.parse().ok()?)))
}

/// Returns the path of a volume beside its head. `None` if the name of the head is not that of a head volume.
pub fn beside(head: &Path, number: VolumeNumber) -> Option<PathBuf> {
    let file = head.file_name()?.to_str()?;
    let (bundle, _) = parse_name(file).filter(|(_, of)| *of == VolumeNumber::HEAD)?;
    Some(head.with_file_name(name(bundle, number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_numbered_in_their_names() {
        assert_eq!(parse_name("a.tar.000"), Some(("a.tar", VolumeNumber::HEAD)));
        assert_eq!(parse_name("A.TAR.999").map(|(_, number)| number.index()), Some(Some(998)));
        for none in ["a.tar", "a.tar.1", "a.tar.0001", "a.zip.001", "a.tar.00x", "a.tar.+01", ".001"] {
            assert_eq!(parse_name(none), None, "{none}");
        }
        let third = VolumeNumber::at(2).unwrap();
        assert_eq!(beside(Path::new("/m/a.tar.000"), third), Some("/m/a.tar.003".into()));
        assert_eq!(beside(Path::new("/m/a.tar.001"), third), None);
        assert_eq!(beside(Path::new("/m/a.tar"), third), None);
        assert_eq!((VolumeNumber::at(998).is_some(), VolumeNumber::at(999)), (true, None));
    }
}
