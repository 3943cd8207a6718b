//! Files whose names say nothing: a disc without Rock Ridge or Joliet, a kiosk or a mail gateway has given them
//! others (`DEFAULT_.000`, `NAME.tar (1).000`, `NAME.tar.001;1`). A bundle and a head are known by how they begin, a
//! volume by the size and digest that the signed head lists, and parity by the identity in it.
//!
//! Anybody may put files there. So only files are read whose size is that of a volume that is missing, and of these
//! few.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::bundle::parity::ParityFile;
use crate::bundle::volumes::Volume;
use crate::bundle::{MANIFEST, begins_with};
use crate::intake::namesakes::Look;

/// How many files of unknown names are looked at.
const MAX_FILES: usize = 4096;
/// How many parity files are looked at whose names say nothing, or not of which head they are.
pub(crate) const MAX_PARITY: usize = 256;
/// How many files of a fitting size are read in vain for one bundle.
const MAX_WRONG: usize = 8;

/// The files of unknown names.
#[derive(Default)]
pub(crate) struct RenamedFiles {
    files: Vec<PathBuf>,
    /// What a file was found to be part of a bundle.
    used: RefCell<BTreeSet<PathBuf>>,
    /// Those that begin as parity does.
    parity: Vec<PathBuf>,
    /// All files among which volumes are looked for, by their size.
    by_size: OnceCell<Vec<(u64, PathBuf)>>,
}

impl RenamedFiles {
    /// Adds a file whose name is unknown. Whether there was room for it.
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

    /// The files that begin as parity does.
    pub(crate) fn parity(&self) -> &[PathBuf] {
        &self.parity
    }

    /// Writes down that a file is part of a bundle.
    pub(crate) fn uses(&self, path: &Path) {
        self.used.borrow_mut().insert(path.to_path_buf());
    }

    /// The files that were found to be no volumes.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().filter(|file| !self.is_used(file))
    }

    /// Whether a file was found to be a volume of a bundle.
    pub(crate) fn is_used(&self, path: &Path) -> bool {
        self.used.borrow().contains(path)
    }

    /// The files that may be volumes, by what is left of their names.
    pub(crate) fn like_volumes(&self) -> impl Iterator<Item = &PathBuf> {
        self.files
            .iter()
            .filter(|file| is_like_volume(&file.file_name().unwrap_or_default().to_string_lossy()))
    }

    /// All of them.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Begins the search for the volumes of a bundle, of which there are so many. `others` are further files among
    /// which they may be.
    pub(crate) fn search<'f>(
        &'f self,
        volumes: usize,
        look: &'f Look,
        others: impl Iterator<Item = PathBuf>,
    ) -> Search<'f> {
        // Of most bundles there is nothing to look for.
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
        // Each volume that is found is read once, whatever the order.
        Search { files: self, by_size, look, left: Cell::new(volumes + MAX_WRONG) }
    }
}

/// A search for the volumes of one bundle.
pub(crate) struct Search<'f> {
    files: &'f RenamedFiles,
    by_size: &'f [(u64, PathBuf)],
    look: &'f Look,
    /// How many files may still be read.
    left: Cell<usize>,
}

impl Search<'_> {
    /// Whether a file that is no head has the size of a volume.
    pub(crate) fn has_size_of(&self, volume: &Volume) -> bool {
        // Heads have the size of most volumes.
        self.of_size(volume.size).any(|path| !begins_with(path, MANIFEST))
    }

    fn of_size(&self, wanted: u64) -> impl Iterator<Item = &PathBuf> {
        let begin = self.by_size.partition_point(|(size, _)| *size < wanted);
        self.by_size[begin..].iter().take_while(move |(size, _)| *size == wanted).map(|(_, path)| path)
    }

    /// Where a volume lies, whatever its name is, among the files that are `usable`.
    pub(crate) fn find(
        &self,
        number: &str,
        volume: &Volume,
        usable: &dyn Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        let mut fits: Vec<&PathBuf> = self.of_size(volume.size).filter(|path| usable(path)).collect();
        // Most likely the number is still in its name.
        fits.sort_by_key(|path| !path.file_name().unwrap_or_default().to_string_lossy().contains(number));
        let found = fits.into_iter().find(|path| self.look.is_by_content(path, volume, &self.left))?;
        self.files.used.borrow_mut().insert(found.clone());
        Some(found.clone())
    }
}

/// Whether a name has something left of that of a volume: three digits at its end, or `.tar` in it.
fn is_like_volume(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // The number of a version that ISO 9660 puts behind it.
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
        // In whatever order they come, each is read once.
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
        // Whether a file may be a volume of the size of a head is not found out by reading all volumes.
        let head = dir.path().join("head");
        fs::write(&head, [MANIFEST.as_bytes(), &content(0)[MANIFEST.len()..]].concat()).unwrap();
        let no_names = RenamedFiles::default();
        assert!(!no_names.search(1, &look, [head.clone()].into_iter()).has_size_of(&volume(1)));
        let no_names = RenamedFiles::default();
        let both = [head, dir.path().join("x01")].into_iter();
        assert!(no_names.search(1, &look, both).has_size_of(&volume(1)));
        // Somebody has put many files of the right size there.
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
        // Holes are no volume.
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
