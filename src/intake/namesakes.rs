//! Chooses the genuine file among several that have the name of one volume.
//!
//! Anyone who can write to a medium or an inbox can add files with the name of a volume, in another
//! directory or with other letter case, and with its length. Only reading a file completely shows
//! whether it is genuine. A sparse file takes no space on the disk but may take hours to read.
//! Therefore the module reads likely files first, reads few files per look, and remembers their
//! digests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::SeekFrom;

use crate::bundle::open_regular;
use crate::bundle::volumes::Volume;
use crate::digest::{Digest, digest_of};
use crate::util::clock;

/// The limit of wrong files with the name of a volume that are read in one look.
const MAX_WRONG: usize = 8;
/// The limit of sparse files among these. A genuine volume holds compressed data and is not sparse.
const MAX_HOLLOW: usize = 1;
/// The limit of remembered digests.
const MAX_KNOWN: usize = 16_384;
/// The time without a change after which the digest of a file is remembered. Some file systems store times in
/// steps of 2 seconds, so a second change within a step is invisible.
const UNCHANGED: Duration = Duration::from_secs(2);
/// The limit of ranges of a file that are counted to decide whether it is sparse.
const MAX_RANGES: usize = 4096;

/// The digests of files that were read, valid while the files are unchanged. Clones share them.
#[derive(Clone)]
pub(crate) struct Digests(Rc<RefCell<Known>>);

struct Known {
    digests: BTreeMap<Identity, Digest>,
    /// The number of files that were read.
    reads: usize,
    unchanged: Duration,
}

/// Identifies an unchanged file: device, inode, length, modification time, change time. Its owner can set all
/// except the last.
type Identity = (u64, u64, u64, (i64, i64), (i64, i64));

impl Default for Digests {
    fn default() -> Self {
        Digests(Rc::new(RefCell::new(Known { digests: BTreeMap::new(), reads: 0, unchanged: UNCHANGED })))
    }
}

impl Digests {
    /// Returns the digest of an open file, if it is known.
    fn known(&self, metadata: &Metadata) -> Option<Digest> {
        self.0.borrow().digests.get(&identity(metadata)).copied()
    }

    /// Returns the digest of a file, and reads the file if the digest is not known.
    fn of(&self, file: &File) -> Option<Digest> {
        let before = file.metadata().ok()?;
        if let Some(digest) = self.known(&before) {
            return Some(digest);
        }
        self.0.borrow_mut().reads += 1;
        // Without a limit, reading would not end if the file grew at the same speed.
        let (digest, _) = digest_of(file.take(before.len())).ok()?;
        let after = file.metadata().ok()?;
        let mut known = self.0.borrow_mut();
        if identity(&before) == identity(&after) && is_at_rest(&after, known.unchanged) {
            if known.digests.len() >= MAX_KNOWN {
                known.digests.clear();
            }
            known.digests.insert(identity(&after), digest);
        }
        Some(digest)
    }

    /// Whether a file is this volume. It is read only if it has the volume's length.
    pub(crate) fn is(&self, path: &Path, volume: &Volume) -> bool {
        let file = open_regular(path).ok().filter(|(_, length)| *length == volume.size);
        file.and_then(|(file, _)| self.of(&file)) == Some(volume.digest)
    }
}

fn identity(metadata: &Metadata) -> Identity {
    let (m, c) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    (metadata.dev(), metadata.ino(), metadata.len(), m, c)
}

/// Whether the last change of a file is so long ago that a further change would be visible.
fn is_at_rest(metadata: &Metadata, unchanged: Duration) -> bool {
    let changed = u64::try_from(metadata.ctime()).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    changed.is_ok_and(|changed| clock::of_files().duration_since(changed).is_ok_and(|past| past >= unchanged))
}

/// One look at the files, with the number of wrong files that it has read for each volume.
#[derive(Default)]
pub(crate) struct Look {
    digests: Digests,
    /// The number of wrong files for each volume, and the number of sparse ones among them.
    wrong: RefCell<BTreeMap<Digest, (usize, usize)>>,
    /// The digests of renamed files that this look has read, including files that have just changed.
    read: RefCell<BTreeMap<Identity, Digest>>,
}

impl Look {
    /// Creates a look that uses the digests of earlier looks.
    pub(crate) fn with(digests: &Digests) -> Self {
        Look { digests: digests.clone(), ..Look::default() }
    }

    /// Whether a file is this volume.
    pub(crate) fn is(&self, path: &Path, volume: &Volume) -> bool {
        self.digests.is(path, volume)
    }

    /// Whether a file with any name is this volume. It is read only if it has the length of the volume, is not sparse,
    /// and `left`, the number of files that may still be read, is not 0.
    pub(crate) fn is_by_content(&self, path: &Path, volume: &Volume, left: &Cell<usize>) -> bool {
        let open = || {
            let (mut file, _) = open_regular(path).ok().filter(|(_, length)| *length == volume.size)?;
            let metadata = file.metadata().ok()?;
            let known = self.read.borrow().get(&identity(&metadata)).copied();
            if let Some(digest) = known.or_else(|| self.digests.known(&metadata)) {
                return Some(digest);
            }
            if left.get() == 0 || is_hollow(&file, volume.size) {
                return None;
            }
            left.set(left.get() - 1);
            // The search for holes moved the file offset.
            file.rewind().ok()?;
            let digest = self.digests.of(&file)?;
            self.read.borrow_mut().insert(identity(&metadata), digest);
            Some(digest)
        };
        open() == Some(volume.digest)
    }

    /// Returns the genuine file, else a file with its length, else the first. `expected` is the path of a volume that
    /// kept its name: another file can have this path only if the genuine one was removed.
    pub(crate) fn right(
        &self,
        expected: Option<&Path>,
        paths: &[PathBuf],
        volume: &Volume,
    ) -> Option<PathBuf> {
        // A single file needs no choice, because its digest is compared later.
        if let [] | [_] = paths {
            return paths.first().cloned();
        }
        let mut candidates: Vec<Candidate<'_>> =
            paths.iter().filter_map(|path| self.candidate(expected, path, volume)).collect();
        candidates.sort_by_key(|candidate| candidate.rank);
        let genuine = candidates.iter().find(|candidate| self.is_genuine(candidate, volume));
        genuine.or(candidates.first()).map(|found| found.path.to_path_buf()).or(paths.first().cloned())
    }

    /// Returns the file as a candidate if it has the length of the volume.
    fn candidate<'p>(
        &self,
        expected: Option<&Path>,
        path: &'p Path,
        volume: &Volume,
    ) -> Option<Candidate<'p>> {
        let (file, _) = open_regular(path).ok().filter(|(_, length)| *length == volume.size)?;
        let rank = match self.digests.known(&file.metadata().ok()?) {
            Some(digest) if digest == volume.digest => Rank::Genuine,
            Some(_) => Rank::Another,
            None if expected == Some(path) => Rank::Expected,
            None if is_hollow(&file, volume.size) => Rank::Hollow,
            None => Rank::Likely,
        };
        Some(Candidate { path, rank })
    }

    /// Reads a candidate, unless this look has read too many.
    fn is_genuine(&self, candidate: &Candidate<'_>, volume: &Volume) -> bool {
        let hollow = candidate.rank == Rank::Hollow;
        match candidate.rank {
            Rank::Genuine => return true,
            Rank::Another => return false,
            Rank::Expected | Rank::Likely | Rank::Hollow => {}
        }
        let (wrong, wrong_hollow) = self.wrong.borrow().get(&volume.digest).copied().unwrap_or_default();
        if wrong >= MAX_WRONG || (hollow && wrong_hollow >= MAX_HOLLOW) {
            return false;
        }
        let is = self.is(candidate.path, volume);
        if !is {
            self.wrong.borrow_mut().insert(volume.digest, (wrong + 1, wrong_hollow + usize::from(hollow)));
        }
        is
    }
}

struct Candidate<'p> {
    path: &'p Path,
    rank: Rank,
}

/// The order in which candidates are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Its digest is known and is that of the volume.
    Genuine,
    /// It has the expected path.
    Expected,
    /// It is not sparse.
    Likely,
    /// It is sparse.
    Hollow,
    /// Its digest is known and is not that of the volume.
    Another,
}

/// Whether less than half of the bytes of a file are stored and the rest are holes. Copying a bundle never creates
/// such a file. A file system without support for holes reports none, and data that is not on the disk yet counts
/// as stored.
pub(crate) fn is_hollow(file: &File, length: u64) -> bool {
    let (mut at, mut there) = (0u64, 0u64);
    for _ in 0..MAX_RANGES {
        let Ok(data) = rustix::fs::seek(file, SeekFrom::Data(at)) else { return there < length / 2 };
        let end = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap_or(length);
        there = there.saturating_add(end.saturating_sub(data));
        if end <= at || there >= length.div_ceil(2) {
            return there < length / 2;
        }
        at = end;
    }
    // For a file with so many ranges, the counted ones decide.
    there < at / 2
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SIZE: u64 = 1 << 20;

    struct Place {
        dir: tempfile::TempDir,
        volume: Volume,
        genuine: Vec<u8>,
        digests: Digests,
    }

    impl Place {
        fn new() -> Place {
            let genuine: Vec<u8> = (0..SIZE).map(|at| (at * 31 / 7) as u8 | 1).collect();
            let volume = Volume { size: SIZE, digest: Digest::of(&genuine) };
            let digests = Digests::default();
            digests.0.borrow_mut().unchanged = Duration::ZERO;
            Place { dir: tempfile::tempdir().unwrap(), volume, genuine, digests }
        }

        fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        }

        fn sparse(&self, name: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            File::create(&path).unwrap().set_len(SIZE).unwrap();
            path
        }

        fn reads(&self) -> usize {
            self.digests.0.borrow().reads
        }

        fn find(&self, expected: Option<&Path>, paths: &[PathBuf]) -> Option<PathBuf> {
            Look::with(&self.digests).right(expected, paths, &self.volume)
        }
    }

    #[test]
    fn the_genuine_file_is_found_first_among_thousands() {
        let place = Place::new();
        let mut paths: Vec<PathBuf> = (0..2000).map(|number| place.sparse(&format!("s{number}"))).collect();
        let genuine = place.put("genuine", &place.genuine);
        paths.push(genuine.clone());
        // The test needs a file system that reports holes.
        assert!(is_hollow(&File::open(&paths[0]).unwrap(), SIZE));
        assert_eq!(place.find(None, &paths), Some(genuine.clone()));
        assert_eq!(place.reads(), 1, "no other was read");
        assert_eq!(place.find(None, &paths), Some(genuine));
        assert_eq!(place.reads(), 1, "it was remembered");
    }

    #[test]
    fn a_file_that_kept_its_name_is_read_first() {
        let place = Place::new();
        let mut paths: Vec<PathBuf> =
            (0..20).map(|number| place.put(&format!("x{number}"), &vec![7; SIZE as usize])).collect();
        let genuine = place.put("z.tar.001", &place.genuine);
        paths.push(genuine.clone());
        assert_eq!(place.find(Some(&genuine), &paths), Some(genuine));
        assert_eq!(place.reads(), 1);
    }

    #[test]
    fn few_files_are_read_in_a_look_and_none_twice() {
        let place = Place::new();
        let mut paths: Vec<PathBuf> =
            (0..20).map(|number| place.put(&format!("x{number}"), &vec![7; SIZE as usize])).collect();
        let genuine = place.put("z", &place.genuine);
        paths.push(genuine.clone());
        let look = Look::with(&place.digests);
        let fallback = look.right(None, &paths, &place.volume);
        assert!(fallback.is_some_and(|path| path != genuine));
        assert_eq!(place.reads(), MAX_WRONG);
        look.right(None, &paths, &place.volume);
        assert_eq!(place.reads(), MAX_WRONG, "this look has read enough");
        // Later looks continue after the remembered files, so the genuine one is found eventually.
        let found = (0..3).map(|_| place.find(None, &paths)).find(|found| *found == Some(genuine.clone()));
        assert!(found.is_some());
        assert_eq!(place.reads(), 21);
        // A changed file counts as a new one.
        fs::write(&paths[3], &place.genuine).unwrap();
        fs::write(&genuine, b"").unwrap();
        assert_eq!(place.find(None, &paths).as_ref(), Some(&paths[3]));
    }

    #[test]
    fn only_one_sparse_file_is_read_per_look() {
        let place = Place::new();
        let paths: Vec<PathBuf> = (0..50).map(|number| place.sparse(&format!("s{number}"))).collect();
        assert!(place.find(None, &paths).is_some(), "a file with its length is returned");
        assert_eq!(place.reads(), 1);
    }

    #[test]
    fn the_digest_of_a_file_that_has_just_changed_is_not_remembered() {
        let place = Place::new();
        place.digests.0.borrow_mut().unchanged = Duration::from_secs(3600);
        let path = place.put("a", &place.genuine);
        assert!(place.digests.is(&path, &place.volume) && place.digests.is(&path, &place.volume));
        assert_eq!(place.reads(), 2);
    }

    #[test]
    fn holes_are_counted() {
        let place = Place::new();
        let full = File::open(place.put("full", &place.genuine)).unwrap();
        assert!(!is_hollow(&full, SIZE), "also before it is on the disk");
        let path = place.sparse("half");
        let file = File::options().write(true).read(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &place.genuine[..SIZE as usize / 4], 0).unwrap();
        assert!(is_hollow(&file, SIZE));
        std::os::unix::fs::FileExt::write_all_at(&file, &place.genuine[..SIZE as usize / 2], 0).unwrap();
        assert!(!is_hollow(&file, SIZE));
        assert!(!is_hollow(&File::open(place.put("empty", b"")).unwrap(), 0));
    }
}
