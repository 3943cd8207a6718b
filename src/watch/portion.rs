//! Sorts the files of the inbox by the names of bundles, and the files of one name into a complete signed bundle, stray
//! heads and other files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::bundle::{BundleError, UnverifiedBundle};
use crate::intake::file_sets::{Inputs, name_of};
use crate::trust::keyring::Keyring;

/// The files of one name that are handled together. Other users may add unrelated files with the same name.
pub(crate) enum Portion {
    /// All files of the name.
    All,
    /// The files of a complete bundle that a trusted key signed.
    Own(Vec<PathBuf>),
    /// Files that have the name of a head but are not bundles. Other files have the name, too.
    Stray(Vec<PathBuf>),
}

/// Files of one name that are not part of a trusted bundle.
pub(crate) struct Junk {
    pub(crate) key: String,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) error: BundleError,
}

/// The files of one name, sorted.
pub(crate) struct Sorted {
    pub(crate) portion: Portion,
    /// Whether a trusted key signed one of its heads.
    pub(crate) trusted: bool,
    /// The missing files of the bundle by its signed manifest. `None` if only some of the files are
    /// handled.
    pub(crate) lacks: Option<BundleError>,
    /// The reason why the handled files are not signed by a trusted key, which waiting cannot
    /// change.
    pub(crate) junk: Option<BundleError>,
}

impl Sorted {
    pub(crate) fn of(there: &Inputs, key: &str, keyring: &Keyring) -> Sorted {
        let mut lacks = None;
        let mut bad: Vec<(&PathBuf, BundleError)> = Vec::new();
        for head in there.heads(key) {
            match UnverifiedBundle::open(head).and_then(|head| head.signed(keyring)) {
                Ok(signed) => match there.complete(signed) {
                    Ok(bundle) => {
                        let portion = Portion::Own(there.own(key, &bundle));
                        return Sorted { portion, trusted: true, lacks: None, junk: None };
                    }
                    Err(error) => drop(lacks.get_or_insert(error)),
                },
                Err(error) => bad.push((head, error)),
            }
        }
        let trusted = lacks.is_some();
        let has_others = trusted || there.volumes(key).next().is_some() || !there.parity(key).is_empty();
        let is_stray = |why: &BundleError| match why {
            BundleError::NotABundle { .. } | BundleError::NotAFile { .. } => true,
            // A head may still be arriving, and a damaged one may be rebuilt from parity.
            why => trusted && !why.is_short(),
        };
        let (stray, other): (Vec<_>, Vec<_>) = bad.into_iter().partition(|(_, why)| is_stray(why));
        if has_others && !stray.is_empty() {
            let files = stray.iter().map(|(head, _)| PathBuf::from(head)).collect();
            let junk = stray.into_iter().map(|(_, why)| why).find(is_junk);
            return Sorted { portion: Portion::Stray(files), trusted, lacks: None, junk };
        }
        let bad: Vec<BundleError> = stray.into_iter().chain(other).map(|(_, why)| why).collect();
        let all_junk = !has_others && !bad.is_empty() && bad.iter().all(is_junk);
        let mut bad = bad.into_iter();
        let lacks = there.headless_one(key).or(lacks);
        match all_junk {
            true => Sorted { portion: Portion::All, trusted, lacks, junk: bad.next() },
            false => {
                Sorted { portion: Portion::All, trusted, lacks: lacks.or_else(|| bad.next()), junk: None }
            }
        }
    }
}

impl Portion {
    pub(crate) fn files<'f>(&'f self, all: &'f [PathBuf]) -> &'f [PathBuf] {
        match self {
            Portion::All => all,
            Portion::Own(files) | Portion::Stray(files) => files,
        }
    }
}

/// Whether a head is not signed by a trusted key, which waiting cannot change.
pub(crate) fn is_junk(why: &BundleError) -> bool {
    !why.is_signed() && !why.is_short() && !why.is_usage() && !matches!(why, BundleError::Read { .. })
}

/// Returns the single file or the head of a bundle, or another of its files if it has neither.
pub(crate) fn first(there: &Inputs, key: &str) -> PathBuf {
    there.all(key).into_iter().next().unwrap_or_default()
}

/// The properties of files that show a change: path, length, modification time and inode.
pub(crate) type Look = Vec<(PathBuf, u64, i64, i64, u64)>;

/// Returns the properties of files, sorted, because the order of a directory's entries may change without a change to
/// the files. tmpfs changes it when a file is put back.
pub(crate) fn look(files: &[PathBuf]) -> Look {
    let look = |path: &PathBuf| {
        let metadata = path.symlink_metadata().ok()?;
        Some((path.clone(), metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
    };
    let mut looks: Look = files.iter().filter_map(look).collect();
    looks.sort();
    looks
}

/// Returns all files by the name of their bundle or heartbeat.
pub(crate) fn sets_of(there: &Inputs) -> Vec<(String, Vec<PathBuf>)> {
    let mut heartbeats: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in &there.heartbeats {
        heartbeats.entry(name_of(file)).or_default().push(file.clone());
    }
    // Files with the name of a heartbeat are handled after the heartbeat.
    let bundles = there.keys().filter(|key| !heartbeats.contains_key(*key));
    let bundles: Vec<_> = bundles.map(|key| (key.to_owned(), there.all(key))).collect();
    bundles.into_iter().chain(heartbeats).collect()
}

/// Turns a bundle's name into a valid name of a directory.
pub(crate) fn file_name(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    key.chars().take(100).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_listing_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a.tar.000", "a.tar.001", "a.par.001"].map(|name| dir.path().join(name));
        files.iter().for_each(|file| std::fs::write(file, "x").unwrap());
        let [a, b, c] = files.clone();
        assert!(look(&[c.clone(), a.clone(), b.clone()]) == look(&[a.clone(), b.clone(), c.clone()]));
        std::fs::write(&b, "another").unwrap();
        assert_eq!(look(&files).len(), 3);
        assert!(look(&files) != look(&files[..2]));
    }

    #[test]
    fn names_of_directories_are_plain() {
        assert_eq!(file_name("default-20261121t091500z.tar"), "default-20261121t091500z.tar");
        assert_eq!(file_name("../\u{1b}[2J x"), "..___2J_x");
    }
}
