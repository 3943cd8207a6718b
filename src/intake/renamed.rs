//! Files with unknown names: a disc without Rock Ridge or Joliet, a kiosk or a mail gateway has renamed them
//! (`DEFAULT_.000`, `NAME.tar (1).000`, `NAME.tar.001;1`). A bundle or a head is recognized by its beginning, a
//! volume by the size and digest that the signed head lists, and parity by the identity in it.
//!
//! Anyone may add files. Therefore the module reads only files with the size of a missing volume, and few of them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::bundle::parity::ParityFile;
use crate::bundle::volumes::Volume;
use crate::bundle::{MANIFEST, begins_with};
use crate::intake::namesakes::Look;

/// The limit of files with unknown names.
const MAX_FILES: usize = 4096;
/// The limit of parity files whose name does not match a head.
pub(crate) const MAX_PARITY: usize = 256;
/// The limit of wrong files with the right size that are read for one bundle.
const MAX_WRONG: usize = 8;

/// The files with unknown names.
#[derive(Default)]
pub(crate) struct RenamedFiles {
    files: Vec<PathBuf>,
    /// The files that belong to a bundle.
    used: RefCell<BTreeSet<PathBuf>>,
    /// The files that begin like a parity file.
    parity: Vec<PathBuf>,
    /// All files that may be volumes, sorted by size.
    by_size: OnceCell<Vec<(u64, PathBuf)>>,
}

impl RenamedFiles {
    /// Adds a file with an unknown name. Returns `false` if there are too many.
    pub(crate) fn add(&mut self, path: PathBuf) -> bool {
        let has_room = self.files.len() < MAX_FILES;
        if has_room {
            if self.parity.len() < MAX_PARITY && ParityFile::begins(&path) {
                self.parity.push(path.clone());
            }
            self.files.push(path);
        }
        has_room
    }

    /// Returns the files that begin like a parity file.
    pub(crate) fn parity(&self) -> &[PathBuf] {
        &self.parity
    }

    /// Records that a file belongs to a bundle.
    pub(crate) fn uses(&self, path: &Path) {
        self.used.borrow_mut().insert(path.to_path_buf());
    }

    /// Returns the files that do not belong to a bundle.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().filter(|file| !self.is_used(file))
    }

    /// Whether a file belongs to a bundle.
    pub(crate) fn is_used(&self, path: &Path) -> bool {
        self.used.borrow().contains(path)
    }

    /// Returns the files whose name resembles that of a volume.
    pub(crate) fn like_volumes(&self) -> impl Iterator<Item = &PathBuf> {
        self.files
            .iter()
            .filter(|file| is_like_volume(&file.file_name().unwrap_or_default().to_string_lossy()))
    }

    /// Returns all files.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Begins the search for the volumes of a bundle. `volumes` is their number; `others` are further files that may
    /// be volumes.
    pub(crate) fn search<'f>(
        &'f self,
        volumes: usize,
        look: &'f Look,
        others: impl Iterator<Item = PathBuf>,
    ) -> Search<'f> {
        // Most bundles have no volumes, so the files are listed only on demand.
        let find_all = || {
            let size = |path: PathBuf| {
                let metadata = path.symlink_metadata().ok().filter(|metadata| metadata.is_file())?;
                Some((metadata.len(), path))
            };
            let mut all: Vec<_> = self.files.iter().cloned().chain(others).filter_map(size).collect();
            all.sort();
            all
        };
        let by_size: &[(u64, PathBuf)] = if volumes > 0 { self.by_size.get_or_init(find_all) } else { &[] };
        // Each volume is read once, in any order.
        Search { files: self, by_size, look, left: Cell::new(volumes + MAX_WRONG) }
    }
}

/// A search for the volumes of one bundle.
pub(crate) struct Search<'f> {
    files: &'f RenamedFiles,
    by_size: &'f [(u64, PathBuf)],
    look: &'f Look,
    /// The number of files that may still be read.
    left: Cell<usize>,
}

impl Search<'_> {
    /// Whether a file other than a head has the size of a volume.
    pub(crate) fn has_size_of(&self, volume: &Volume) -> bool {
        // Most volumes have the size of their head.
        self.of_size(volume.size).any(|path| !begins_with(path, MANIFEST))
    }

    fn of_size(&self, wanted: u64) -> impl Iterator<Item = &PathBuf> {
        let begin = self.by_size.partition_point(|(size, _)| *size < wanted);
        self.by_size[begin..].iter().take_while(move |(size, _)| *size == wanted).map(|(_, path)| path)
    }

    /// Returns the path of a volume, regardless of its name, if the file is `usable`.
    pub(crate) fn find(
        &self,
        number: &str,
        volume: &Volume,
        usable: &dyn Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        let mut fits: Vec<&PathBuf> = self.of_size(volume.size).filter(|path| usable(path)).collect();
        // Files with the number in their name are the most likely ones.
        fits.sort_by_key(|path| !path.file_name().unwrap_or_default().to_string_lossy().contains(number));
        let found = fits.into_iter().find(|path| self.look.is_by_content(path, volume, &self.left))?;
        self.files.used.borrow_mut().insert(found.clone());
        Some(found.clone())
    }
}

/// Whether a name resembles that of a volume: it ends in 3 digits, or contains `.tar`.
fn is_like_volume(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // ISO 9660 appends a version number.
    let name = name.rsplit_once(';').map_or(&name[..], |(name, _)| name);
    let ends_in_digits = name
        .rsplit_once('.')
        .is_some_and(|(_, number)| number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit()));
    ends_in_digits || name.contains(".tar") || name.contains("_tar")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::digest::Digest;

    #[test]
    fn names_that_still_look_like_volumes() {
        for name in
            ["DEFAULT_.001", "default_.001;1", "a.tar (1).001", "a.tar.001.txt", "A_TAR.001", "001.TAR"]
        {
            assert!(is_like_volume(name), "{name}");
        }
        for name in ["photo.jpg", "a.0001", "tar", "notes;1"] {
            assert!(!is_like_volume(name), "{name}");
        }
    }

    #[test]
    fn volumes_are_found_by_content_and_few_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let content = |n: u8| vec![n; 1000];
        let volume = |n: u8| Volume { size: 1000, digest: Digest::of(&content(n)) };
        let mut files = RenamedFiles::default();
        let mut put = |name: &str, bytes: &[u8]| {
            fs::write(dir.path().join(name), bytes).unwrap();
            assert!(files.add(dir.path().join(name)));
        };
        // Each is read once, in any order.
        (1..=30).for_each(|n| put(&format!("x{:02}", 31 - n), &content(n)));
        put("other", b"of another size");
        let look = Look::default();
        let search = files.search(30, &look, std::iter::empty());
        for n in 1..=30 {
            let wanted = Some(dir.path().join(format!("x{:02}", 31 - n)));
            assert_eq!(search.find(&format!("{n:03}"), &volume(n), &|_| true), wanted, "{n}");
        }
        assert_eq!(search.left.get(), MAX_WRONG, "none was read twice");
        assert_eq!(files.unused().count(), 1);
        // A head with the size of a volume does not count, so that volumes need not be read because of it.
        let head = dir.path().join("head");
        fs::write(&head, [MANIFEST.as_bytes(), &content(0)[MANIFEST.len()..]].concat()).unwrap();
        let no_names = RenamedFiles::default();
        assert!(!no_names.search(1, &look, [head.clone()].into_iter()).has_size_of(&volume(1)));
        let no_names = RenamedFiles::default();
        let both = [head, dir.path().join("x01")].into_iter();
        assert!(no_names.search(1, &look, both).has_size_of(&volume(1)));
        // Many files have the right size.
        let mut files = RenamedFiles::default();
        for n in 0..100 {
            let path = dir.path().join(format!("junk{n:03}"));
            fs::write(&path, content(200)).unwrap();
            files.add(path);
        }
        let genuine = dir.path().join("z.001");
        fs::write(&genuine, content(7)).unwrap();
        files.add(genuine.clone());
        let look = Look::default();
        let search = files.search(1, &look, std::iter::empty());
        assert_eq!(search.find("002", &volume(8), &|_| true), None);
        assert_eq!(search.left.get(), 0);
        let search = files.search(1, &look, std::iter::empty());
        assert_eq!(search.find("001", &volume(7), &|_| true), Some(genuine), "the number is in its name");
        // A sparse file is never read.
        let mut files = RenamedFiles::default();
        let hollow = dir.path().join("hollow.001");
        fs::File::create(&hollow).unwrap().set_len(1 << 20).unwrap();
        files.add(hollow);
        let zeros = Volume { size: 1 << 20, digest: Digest::of(&vec![0; 1 << 20]) };
        let look = Look::default();
        let search = files.search(1, &look, std::iter::empty());
        assert_eq!((search.find("001", &zeros, &|_| true), search.left.get()), (None, 1 + MAX_WRONG));
    }
}
