//! Chooses between several files that have the name of one volume: which of them is the one that was
//! signed.
//!
//! Anyone who may write to a medium or an inbox can put files there that have the name of a volume, in
//! other letters or in another directory, and its length. Only a file that is read to its end is known to
//! be genuine. A sparse file takes no room on the disk but hours to read. So the likely files are read
//! first, few are read at a time, and the results are remembered.

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

/// How many namesakes of a volume are read in one look and turn out to be another file.
const MAX_WRONG: usize = 8;
/// How many of these may be hollow. A genuine volume holds compressed data and is not.
const MAX_HOLLOW: usize = 1;
/// How many digests are remembered.
const MAX_KNOWN: usize = 16_384;
/// How long a file must have been unchanged for its digest to be remembered: some file systems count time in
/// steps of two seconds, and a change within the same step does not show.
const UNCHANGED: Duration = Duration::from_secs(2);
/// How many ranges of a file are looked at to find out whether it is hollow.
const MAX_RANGES: usize = 4096;

/// The digests of files that were read, for as long as the files stay as they were. A clone remembers the same.
#[derive(Clone)]
pub(crate) struct Digests(Rc<RefCell<Known>>);

struct Known {
    digests: BTreeMap<Identity, Digest>,
    /// How often a file was read.
    reads: usize,
    unchanged: Duration,
}

/// What tells whether a file is still as it was: device, inode, length, modification, change. Its owner can
/// set all but the last.
type Identity = (u64, u64, u64, (i64, i64), (i64, i64));

impl Default for Digests {
    fn default() -> Self {
        Digests(Rc::new(RefCell::new(Known { digests: BTreeMap::new(), reads: 0, unchanged: UNCHANGED })))
    }
}

impl Digests {
    /// The digest of an open file, where it is known.
    fn known(&self, metadata: &Metadata) -> Option<Digest> {
        self.0.borrow().digests.get(&identity(metadata)).copied()
    }

    /// The digest of a file: the known one, or it is read.
    fn of(&self, file: &File) -> Option<Digest> {
        let before = file.metadata().ok()?;
        if let Some(digest) = self.known(&before) {
            return Some(digest);
        }
        self.0.borrow_mut().reads += 1;
        // A file may grow as fast as it is read.
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

/// Whether a file's last change is so long ago that a further one would show.
fn is_at_rest(metadata: &Metadata, unchanged: Duration) -> bool {
    let changed = u64::try_from(metadata.ctime()).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    changed.is_ok_and(|changed| clock::of_files().duration_since(changed).is_ok_and(|past| past >= unchanged))
}

/// One look at what lies there: how many namesakes it has read of each volume.
#[derive(Default)]
pub(crate) struct Look {
    digests: Digests,
    /// How many of a volume's namesakes were another file, and how many of these were hollow.
    wrong: RefCell<BTreeMap<Digest, (usize, usize)>>,
    /// What was read by its content in this look, also of files that have just changed.
    read: RefCell<BTreeMap<Identity, Digest>>,
}

impl Look {
    /// A look that remembers what earlier ones have read.
    pub(crate) fn with(digests: &Digests) -> Self {
        Look { digests: digests.clone(), ..Look::default() }
    }

    /// Whether a file is this volume.
    pub(crate) fn is(&self, path: &Path, volume: &Volume) -> bool {
        self.digests.is(path, volume)
    }

    /// Whether a file of whatever name is this volume. It is read only if it has the volume's length, is not hollow,
    /// and `left`, the number of files that may still be read, allows it.
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
            // To look for holes has moved the place from which it would be read.
            file.rewind().ok()?;
            let digest = self.digests.of(&file)?;
            self.read.borrow_mut().insert(identity(&metadata), digest);
            Some(digest)
        };
        open() == Some(volume.digest)
    }

    /// Of several files the one that was signed, else one of its length, else the first. `expected` is where
    /// it lies if it has kept its name: nobody can put another file there without removing it.
    pub(crate) fn right(
        &self,
        expected: Option<&Path>,
        paths: &[PathBuf],
        volume: &Volume,
    ) -> Option<PathBuf> {
        // A single one is taken as it is: its bytes are compared later.
        if let [] | [_] = paths {
            return paths.first().cloned();
        }
        let mut candidates: Vec<Candidate<'_>> =
            paths.iter().filter_map(|path| self.candidate(expected, path, volume)).collect();
        candidates.sort_by_key(|candidate| candidate.rank);
        let genuine = candidates.iter().find(|candidate| self.is_genuine(candidate, volume));
        genuine.or(candidates.first()).map(|found| found.path.to_path_buf()).or(paths.first().cloned())
    }

    /// A file that has the volume's length.
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

    /// Reads a candidate, unless too many have been read in this look.
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

/// In which order candidates are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It was read and is the volume.
    Genuine,
    /// It lies where the volume would lie.
    Expected,
    /// It has data.
    Likely,
    /// Most of it has no data.
    Hollow,
    /// It was read and is another file.
    Another,
}

/// Whether less than half of a file's bytes are stored, and the rest are holes. Copying a bundle makes no such
/// file. A file system that knows no holes says that there are none, and data that is not on the disk yet is
/// data.
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
    // Of a file in so many pieces its beginning tells.
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
    fn the_genuine_one_is_found_first_among_thousands() {
        let place = Place::new();
        let mut paths: Vec<PathBuf> = (0..2000).map(|number| place.sparse(&format!("s{number}"))).collect();
        let genuine = place.put("genuine", &place.genuine);
        paths.push(genuine.clone());
        // It has data, and they have none. This file system must be able to tell.
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
    fn few_are_read_in_a_look_and_none_twice() {
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
        // Later looks go on where it ended: nobody crowds the genuine one out.
        let found = (0..3).map(|_| place.find(None, &paths)).find(|found| *found == Some(genuine.clone()));
        assert!(found.is_some());
        assert_eq!(place.reads(), 21);
        // A file that has changed is another one.
        fs::write(&paths[3], &place.genuine).unwrap();
        fs::write(&genuine, b"").unwrap();
        assert_eq!(place.find(None, &paths).as_ref(), Some(&paths[3]));
    }

    #[test]
    fn hollow_files_alone_cost_one_reading_a_look() {
        let place = Place::new();
        let paths: Vec<PathBuf> = (0..50).map(|number| place.sparse(&format!("s{number}"))).collect();
        assert!(place.find(None, &paths).is_some(), "one of its length is there");
        assert_eq!(place.reads(), 1);
    }

    #[test]
    fn what_has_just_changed_is_not_remembered() {
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
