//! A folder into which others put files: taking them away, putting them back, and keeping them with a reason.
//!
//! Whoever puts files there may be anybody. Files are taken by renaming, which follows no link, into a
//! folder that is ours alone; what is in them is looked at only there. The watched folder and our own in it
//! are opened once, and reached through what was opened: whoever may rename there, or in what leads there,
//! puts nothing in their place.
//!
//! On a share, a rename is refused while somebody else holds the file (a virus scanner, the sender, the filer
//! itself). So it is repeated for some seconds, and what could not be put back is put back later.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::Error;
use crate::util::clock;
use crate::util::dir::{Dir, FileMode, euid};
use crate::util::file_lock::HeldLock;
use crate::util::fs::{self, Durability, rename_new};
use crate::util::text::escape;
use crate::util::trusted::TrustedUsers;
use crate::watch::reason::{Disposition, Reason, may_be_completed};

/// Our own folder there.
const OWN: &str = ".trivy-ferry";
/// What a folder of taken files is called.
const TAKEN: &str = "taken-";
/// What a folder is called in which files stay whose name somebody gave to another while they were dealt with.
const BESIDE: &str = "beside-";
/// How many files of one name stay.
const MAX_BESIDE: usize = 8;
/// For how long renames are repeated in one look, all together.
const HELD_FOR: Duration = Duration::from_secs(5);
/// How long the pause before such a repetition is.
const HELD_PAUSE: Duration = Duration::from_millis(250);
/// What was said of kept files.
pub(crate) const REASON: &str = "reason.json";

/// The directory of the inbox into which bundles of an outcome are put.
fn directory_of(outcome: Disposition) -> &'static str {
    match outcome {
        Disposition::Processed => "processed",
        Disposition::Quarantined => "quarantine",
    }
}

/// The watched directory. While this lives, no other run works on it.
pub(crate) struct Inbox {
    /// As the user calls it, for messages.
    path: PathBuf,
    watched: Dir,
    /// The path that leads to `watched`, whatever becomes of its name.
    place: PathBuf,
    /// What a run that was killed had taken, and that cannot be put back.
    stuck: Vec<Error>,
    own: Pinned,
    /// How long this look still repeats renames that are refused.
    left: Cell<Duration>,
    /// What was taken and could not be put back yet.
    unreturned: RefCell<Vec<PathBuf>>,
    _lock: HeldLock,
}

/// A folder of this user or, where a group of this user shares the watched one, of that group, whatever becomes of
/// its name.
struct Pinned {
    dir: Dir,
    /// The path that leads to it.
    path: PathBuf,
}

impl Pinned {
    /// Opens a folder in another, which is called `shown` in messages, and makes it if it is missing.
    fn open(parent: &Dir, name: &str, shown: &Path, mode: u32) -> Result<Self, Error> {
        let failed = |error| failed(shown, error);
        match parent.make(name, FileMode::working(mode), None) {
            // What is put into it must not be lost with it.
            Ok(_) => parent.sync().map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let not_ours = || {
            Error::usage(
                format!("{} is not a folder of this user alone", escape(&shown.display().to_string())),
                "Remove it, or run the command as the user to whom it belongs.",
            )
        };
        let dir = parent.open(name).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP | Errno::NOTDIR) => not_ours(),
            _ => failed(error),
        })?;
        let above = parent.entry().map_err(failed)?;
        let trust = TrustedUsers::own().with_groups();
        if trust.shares(&above) {
            dir.share_as(&above).map_err(failed)?;
        }
        let entry = dir.entry().map_err(failed)?;
        let is_shared = trust.shares(&above) && trust.judge_in(&above, shown, &entry).is_ok();
        if !is_shared && (entry.owner.uid != euid() || entry.mode & 0o022 != 0) {
            return Err(not_ours());
        }
        let path = dir.pinned();
        Ok(Pinned { dir, path })
    }
}

/// Files that were taken from the inbox.
pub(crate) struct TakenFiles {
    /// Where they are, under their names.
    pub(crate) directory: PathBuf,
}

/// The bundles in quarantine that are damaged or incomplete, while it is open.
pub(crate) struct Quarantine {
    pub(crate) bundles: Vec<TakenFiles>,
    shown: PathBuf,
    _pinned: Pinned,
}

impl Quarantine {
    /// Returns the files of each bundle; none of one that cannot be read.
    pub(crate) fn files(&self) -> Vec<Vec<PathBuf>> {
        self.bundles.iter().map(|taken| taken.files().unwrap_or_default()).collect()
    }
}

impl TakenFiles {
    /// All folders in which they are: those that were beside are in folders of their own.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let beside = (1..=MAX_BESIDE).map(|number| self.directory.join(number.to_string()));
        std::iter::once(self.directory.clone()).chain(beside.filter(|directory| directory.is_dir())).collect()
    }

    /// All of them.
    ///
    /// # Errors
    /// Where a folder cannot be read.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let directories = self.directories();
        let mut files = Vec::new();
        for directory in &directories {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_name() != REASON && !directories.contains(&entry.path()) {
                    files.push(entry.path());
                }
            }
        }
        Ok(files)
    }

    /// Where a file of these was: 0 for the watched folder itself.
    fn was(&self, file: &Path) -> usize {
        file.parent().filter(|directory| *directory != self.directory).and_then(number_of).unwrap_or(0)
    }

    /// Removes the folders, in which nothing is left but a reason: no file is lost here.
    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join(REASON)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.directories().iter().rev().try_for_each(fs::remove_dir)
    }
}

impl Inbox {
    /// Begins to work on a folder. What a run had taken that was killed is put back.
    ///
    /// # Errors
    /// Where another run works on it, or our own folder there is not ours.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let watched = Dir::top(path).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => failed(path, error),
            Some(Errno::LOOP) => Error::usage(
                format!("{} is or leads through a symbolic link that others can change", path.display()),
                "Name the folder itself.",
            ),
            _ => Error::usage(
                format!("there is no folder {}", path.display()),
                "Make it first, or check that the share is mounted there.",
            ),
        })?;
        let place = watched.pinned();
        let own = Pinned::open(&watched, OWN, &path.join(OWN), 0o700)?;
        let failed = |error| failed(&path.join(OWN), error);
        let (lock, _) = own.dir.append("lock", FileMode::working(0o600)).map_err(failed)?;
        if matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return Err(Error::usage(
                format!("another run watches {}", path.display()),
                "One is enough: end the other first.",
            ));
        }
        let lock = HeldLock::on(lock);
        let mut directory = Inbox {
            path: path.into(),
            watched,
            place,
            stuck: Vec::new(),
            own,
            left: Cell::new(HELD_FOR),
            unreturned: RefCell::default(),
            _lock: lock,
        };
        for entry in std::fs::read_dir(&directory.own.path).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TAKEN) {
                // What cannot be put back must not keep the others out.
                let taken = TakenFiles { directory: entry.path() };
                if let Err(error) = directory.give_all_back(&taken) {
                    directory.stuck.push(directory.failed(&taken.directory, error));
                }
            }
        }
        Ok(directory)
    }

    /// Begins a look at the folder: puts back what could not be put back before. Says how many folders of such files
    /// are still left.
    pub(crate) fn begin_look(&self) -> usize {
        self.left.set(HELD_FOR);
        let unreturned = self.unreturned.take();
        let still = unreturned.into_iter().filter(|directory| {
            directory.is_dir() && self.give_all_back(&TakenFiles { directory: directory.clone() }).is_err()
        });
        let still: Vec<PathBuf> = still.collect();
        let count = still.len();
        self.unreturned.borrow_mut().extend(still);
        count
    }

    /// Does what is refused while somebody else holds the file, again and again for as long as this look allows.
    fn patiently<T>(&self, mut change: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match change() {
                Err(error) if is_held(&error) && self.left.get() >= HELD_PAUSE => {
                    self.left.set(self.left.get() - HELD_PAUSE);
                    std::thread::sleep(HELD_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// Makes a folder in our own, or in one that was taken.
    fn make(&self, directory: &Path) -> io::Result<()> {
        let (parent, name) = fs::holding(directory)?;
        parent.make(name, FileMode::working(0o700), None).map(drop)
    }

    /// The folder, as the user calls it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path by which files in it are reached.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Whether another directory has come under its name, such as a share that was mounted again.
    pub(crate) fn is_replaced(&self) -> bool {
        let same = |other: &Dir| Ok::<_, io::Error>(other.identity()? == self.watched.identity()?);
        Dir::top(&self.path).and_then(|other| same(&other)).is_ok_and(|same| !same)
    }

    /// All folders in which files wait: the folder, and our own for files whose name there is another's.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let beside =
            (1..=MAX_BESIDE).map(|number| self.beside(number)).filter(|directory| directory.is_dir());
        std::iter::once(self.place.clone()).chain(beside).collect()
    }

    /// An error with a file, by the name that the user knows.
    fn failed(&self, path: &Path, error: io::Error) -> Error {
        let below = |top: &Path, shown: PathBuf| path.strip_prefix(top).ok().map(|rest| shown.join(rest));
        let own = || below(&self.own.path, self.path.join(OWN));
        let shown = below(&self.place, self.path.clone()).or_else(own);
        failed(&shown.unwrap_or_else(|| path.into()), error)
    }

    fn beside(&self, number: usize) -> PathBuf {
        self.own.path.join(format!("{BESIDE}{number}"))
    }

    /// What a run that was killed had taken, and that cannot be put back.
    pub(crate) fn stuck(&self) -> &[Error] {
        &self.stuck
    }

    /// All files that were taken.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub(crate) fn files(&self, taken: &TakenFiles) -> Result<Vec<PathBuf>, Error> {
        taken.files().map_err(|error| self.failed(&taken.directory, error))
    }

    /// Puts one file back under its name.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn release(&self, taken: &TakenFiles, file: &Path) -> Result<(), Error> {
        self.give_back(file, taken.was(file)).map_err(|error| self.failed(file, error))
    }

    /// Gives a file a place again: where it was, 0 for the folder itself, or where another has come there
    /// meanwhile, beside. Nobody gets rid of a file by giving its name to another.
    ///
    /// # Errors
    /// Where that fails; also where too many have come under its name. It stays where it is then.
    fn give_back(&self, file: &Path, was: usize) -> io::Result<()> {
        let name = file.file_name().unwrap_or_default();
        let mut error = io::ErrorKind::AlreadyExists.into();
        for number in std::iter::once(was).chain((1..=MAX_BESIDE).filter(|number| *number != was)) {
            let directory = match number {
                0 => self.place.clone(),
                number => self.beside(number),
            };
            if number > 0 && !directory.is_dir() {
                self.make(&directory)?;
            }
            let to = directory.join(name);
            match self.patiently(|| rename_new(file, &to, Durability::Unsynced)) {
                Err(other) if other.kind() == io::ErrorKind::AlreadyExists => error = other,
                other => return other,
            }
        }
        Err(error)
    }

    /// Gives all files of a folder that were taken or kept a place again, and removes it.
    fn give_all_back(&self, taken: &TakenFiles) -> io::Result<()> {
        let mut failed = None;
        // What came last gives way where there is no place for all.
        for file in taken.files()?.iter().rev() {
            if let Err(error) = self.give_back(file, taken.was(file)) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or_else(|| self.patiently(|| taken.remove()), Err)
    }

    /// Where we may keep notes of our own.
    pub(crate) fn own(&self) -> &Path {
        &self.own.path
    }

    /// Takes files away from those who put them there.
    ///
    /// # Errors
    /// Where they may not be renamed; none is taken then. What is gone meanwhile is no error.
    pub(crate) fn take(&self, files: &[PathBuf]) -> Result<TakenFiles, Error> {
        let directory =
            fs::tempdir_in(&self.own.path, TAKEN).map_err(|error| self.failed(&self.place, error))?;
        let taken = TakenFiles { directory: directory.keep() };
        self.share(&taken.directory).map_err(|error| self.failed(&self.place, error))?;
        for file in files {
            let Some(name) = file.file_name() else { continue };
            // What somebody keeps in a folder is in the way when it is to be removed.
            if file.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                continue;
            }
            let to = match file.parent().filter(|parent| *parent != self.place).and_then(number_of) {
                None => taken.directory.clone(),
                Some(number) => taken.directory.join(number.to_string()),
            };
            let made = match to.is_dir() {
                true => Ok(()),
                false => self.make(&to),
            };
            let to_name = to.join(name);
            let take = || fs::rename(file, &to_name, Durability::Unsynced);
            let claimed = made.and_then(|()| self.patiently(take));
            // Somebody may have put one of our folders there in the meantime.
            if claimed.is_ok() && to_name.symlink_metadata().is_ok_and(|it| it.is_dir()) {
                let back = self.patiently(|| rename_new(&to_name, file, Durability::Unsynced));
                back.map_err(|error| self.failed(file, error))?;
                continue;
            }
            match claimed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // What cannot be put back now is put back later, and is not what has failed first.
                    let _ = self.put_back(&taken);
                    return Err(self.failed(file, error));
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    /// Puts files back. One whose name another has got meanwhile stays beside, and counts like that one. What cannot
    /// be put back now is put back when a later look begins.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn put_back(&self, taken: &TakenFiles) -> Result<(), Error> {
        self.give_all_back(taken).map_err(|error| {
            self.unreturned.borrow_mut().push(taken.directory.clone());
            self.failed(&taken.directory, error)
        })
    }

    /// Lets those work in a folder who may work in our own.
    fn share(&self, directory: &Path) -> io::Result<()> {
        match euid() {
            0 => Ok(()),
            _ => Dir::by_path(directory)?.share_as(&self.own.dir.entry()?),
        }
    }

    /// Opens the quarantine for the bundles that went there because they were damaged or incomplete; if a name is
    /// given, for those of this name.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn quarantine(&self, bundle: Option<&str>) -> Result<Option<Quarantine>, Error> {
        let name = directory_of(Disposition::Quarantined);
        let shown = self.path.join(name);
        if !self.place.join(name).is_dir() {
            return Ok(None);
        }
        let pinned = Pinned::open(&self.watched, name, &shown, 0o755)?;
        let list = || -> io::Result<Vec<TakenFiles>> {
            let all = std::fs::read_dir(&pinned.path)?.filter_map(|entry| Some(entry.ok()?.path()));
            let lacks = |path: &PathBuf| is_kept(path) && may_be_completed(&path.join(REASON), bundle);
            let mut directories: Vec<PathBuf> = all.filter(lacks).collect();
            // The newest first.
            directories.sort_by(|a, b| b.cmp(a));
            Ok(directories.into_iter().map(|directory| TakenFiles { directory }).collect())
        };
        let bundles = list().map_err(|error| failed(&shown, error))?;
        Ok(Some(Quarantine { bundles, shown, _pinned: pinned }))
    }

    /// Puts back bundles from quarantine: more of them has come. Says whether anything was put back.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn bring_back<'q>(
        &self,
        quarantine: &Quarantine,
        bundles: impl IntoIterator<Item = &'q TakenFiles>,
    ) -> Result<bool, Error> {
        let back = |taken: &TakenFiles| -> io::Result<bool> {
            let before = taken.files()?.len();
            // What finds no place stays where it is.
            match self.give_all_back(taken) {
                Ok(()) => Ok(before > 0),
                Err(_) => Ok(taken.files()?.len() < before),
            }
        };
        let mut any = false;
        for taken in bundles {
            any |= back(taken).map_err(|error| failed(&quarantine.shown, error))?;
        }
        Ok(any)
    }

    /// Removes files.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn discard(&self, taken: TakenFiles) -> Result<(), Error> {
        self.patiently(|| fs::remove_dir_all(&taken.directory)).map_err(|error| {
            self.unreturned.borrow_mut().push(taken.directory.clone());
            self.failed(&taken.directory, error)
        })
    }

    /// Keeps files for good, with what is to be said of them, and of those kept there the newest `most`. Says
    /// where the reason lies.
    ///
    /// # Errors
    /// Where that fails.
    pub(crate) fn keep(
        &self,
        taken: &TakenFiles,
        name: &str,
        reason: &Reason<'_>,
        most: u32,
    ) -> Result<PathBuf, Error> {
        let directory = directory_of(reason.outcome);
        let shown = self.path.join(directory);
        let pinned = Pinned::open(&self.watched, directory, &shown, 0o755)?;
        let keep = || -> io::Result<String> {
            let text = reason.to_bytes()?;
            let path = taken.directory.join(REASON);
            // Whatever came under this name is not ours to keep.
            let _ = fs::remove_file(&path);
            // Once the reason lasts in the folder, so do the files there: the folder must not be lost with them.
            self.own.dir.sync()?;
            fs::write_new(&path, &text, FileMode::AtMost(0o644), Durability::Synced)?;
            let now = clock::now().strftime("%Y%m%dt%H%M%S%3fz");
            for number in 0..100 {
                let to = match number {
                    0 => format!("{now}-{name}"),
                    _ => format!("{now}-{name}-{number}"),
                };
                let to_path = pinned.path.join(&to);
                match self.patiently(|| rename_new(&taken.directory, &to_path, Durability::Synced)) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => return other.map(|()| to),
                }
            }
            Err(io::ErrorKind::AlreadyExists.into())
        };
        let kept = keep().map_err(|error| failed(&shown, error))?;
        // Those who look at it may be others than this user.
        let readable =
            pinned.dir.entry().map_or(0o755, |above| above.directory_mode(FileMode::working(0o755)));
        let readable = std::os::unix::fs::PermissionsExt::from_mode(readable);
        let _ = std::fs::set_permissions(pinned.path.join(&kept), readable);
        let all = std::fs::read_dir(&pinned.path).into_iter().flatten().flatten().map(|entry| entry.path());
        // What was kept under a clock that was ahead is no newer than this.
        let made = pinned.path.join(&kept);
        let mut all: Vec<PathBuf> = all.filter(|path| is_kept(path) && *path != made).collect();
        all.sort_by_key(|path| (*path < made, path.clone()));
        let old = all.len().saturating_sub(most.saturating_sub(1) as usize);
        for path in &all[..old] {
            let _ = fs::remove_dir_all(path);
        }
        Ok(shown.join(kept).join(REASON))
    }
}

/// The number that a folder's name ends in.
fn number_of(directory: &Path) -> Option<usize> {
    let name = directory.file_name()?.to_str()?;
    name.strip_prefix(BESIDE).unwrap_or(name).parse().ok().filter(|number| (1..=MAX_BESIDE).contains(number))
}

/// Whether a path is called as a folder is that we keep: its moment, then a name.
fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let moment = name.split('-').next().unwrap_or_default();
    moment.len() == 19 && moment.bytes().all(|c| c.is_ascii_digit() || c == b't' || c == b'z')
}

/// Whether an error may only mean that somebody else holds the file. Servers of CIFS refuse with any of these
/// (Linux, fs/smb/client/smb2maperror.c): EBUSY for a sharing violation, EACCES for a file that was just in use.
fn is_held(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::BUSY | Errno::TXTBSY | Errno::AGAIN))
}

fn failed(path: &Path, error: io::Error) -> Error {
    let hint = match is_held(&error) {
        true => {
            "It is tried again, for whoever writes there may still hold the file; this user must be allowed to write and rename in the folder that is watched."
        }
        false => "This user must be allowed to write and rename in the folder that is watched.",
    };
    Error::Destination { path: path.into(), what: error.to_string(), hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::watch::reason::Details;

    fn reason(outcome: Disposition) -> Reason<'static> {
        let (bundle, at) = ("c".into(), clock::now());
        let details = Details::given_up("a test", std::time::Duration::ZERO);
        Reason { outcome, bundle, exit_code: 4, at, errors: Vec::new(), stray: false, details }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_taken_is_kept_or_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let directory = Inbox::open(dir.path()).unwrap();
        assert!(Inbox::open(dir.path()).is_err(), "one is enough");
        let files = [file("a", "first"), file("b", "b"), dir.path().join("gone")];
        let taken = directory.take(&files).unwrap();
        assert_eq!(names(dir.path()), [OWN]);
        file("a", "came again");
        directory.put_back(&taken).unwrap();
        assert_eq!(names(dir.path()), [OWN, "a", "b"]);
        // Nobody gets rid of a file by giving its name to another, not even again and again.
        let beside = directory.own().join("beside-1");
        let is_as_it_was = |directory: &Inbox| {
            assert_eq!(
                directory.directories(),
                [directory.place().to_path_buf(), directory.own().join("beside-1")]
            );
            assert_eq!(fs::read_to_string(&files[0]).unwrap(), "came again");
            assert_eq!(fs::read_to_string(directory.own().join("beside-1/a")).unwrap(), "first");
        };
        is_as_it_was(&directory);
        let all = [&files[..], &[beside.join("a")]].concat();
        let taken = directory.take(&all).unwrap();
        assert_eq!(taken.directories(), [taken.directory.clone(), taken.directory.join("1")]);
        directory.put_back(&taken).unwrap();
        is_as_it_was(&directory);
        // A run that is killed has taken something.
        let _ = directory.take(&all).unwrap();
        drop(directory);
        let directory = Inbox::open(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [OWN, "a", "b"]);
        is_as_it_was(&directory);
        let taken = directory.take(&[directory.own().join("beside-1/a")]).unwrap();
        directory.discard(taken).unwrap();
        for _ in 0..4 {
            let taken = directory.take(&[file("c", "c"), file(REASON, "not ours")]).unwrap();
            let kept = directory.keep(&taken, "c", &reason(Disposition::Quarantined), 2).unwrap();
            assert!(fs::read_to_string(kept).unwrap().contains("a test"));
        }
        let kept = names(&dir.path().join("quarantine"));
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert_eq!(names(directory.own()), ["beside-1", "lock"]);
    }

    #[test]
    fn nobody_puts_something_in_the_place_of_our_directories() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directory = Inbox::open(dir.path()).unwrap();
        let swap = |name: &str| {
            let path = dir.path().join(name);
            let _ = fs::rename(&path, dir.path().join(format!("{name}-away")));
            std::os::unix::fs::symlink(elsewhere.path(), path).unwrap();
        };
        swap(OWN);
        fs::write(dir.path().join("a"), "a").unwrap();
        let taken = directory.take(&[directory.place().join("a")]).unwrap();
        assert_eq!(names(elsewhere.path()), [""; 0]);
        swap("processed");
        let kept = directory.keep(&taken, "a", &reason(Disposition::Processed), 1);
        assert!(kept.unwrap_err().to_string().contains("is not a folder of this user alone"));
        assert_eq!(names(elsewhere.path()), [""; 0]);
        directory.put_back(&taken).unwrap();
        assert!(dir.path().join("a").exists());
    }

    #[test]
    fn somebody_elses_directory_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join(OWN)).unwrap();
        assert!(Inbox::open(dir.path()).is_err());
        fs::remove_file(dir.path().join(OWN)).unwrap();
        crate::util::fs::create_dir(dir.path().join(OWN), 0o700).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path().join(OWN), open).unwrap();
        assert!(Inbox::open(dir.path()).is_err());
        assert!(Inbox::open(&dir.path().join("none")).is_err());
    }
}
