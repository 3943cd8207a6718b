//! The inbox, a directory into which others put files: takes files, puts them back, and keeps them with a reason.
//!
//! Files in the inbox are untrusted. They are taken by renaming, which does not follow symbolic links, into a
//! directory of trivy-ferry, and are read only there. The inbox and that directory are opened once and used through
//! the open descriptors, so that other users cannot replace them by renaming.
//!
//! On a share, a rename fails while another program has the file open (a virus scanner, the sender, the file server).
//! It is retried for up to 5 s in one look. Files that could not be put back are put back later.

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

/// The name of trivy-ferry's directory in the inbox.
const OWN: &str = ".trivy-ferry";
/// The prefix of the directories of taken files.
const TAKEN: &str = "taken-";
/// The prefix of the directories for files that cannot be put back because another file now has
/// their name.
const BESIDE: &str = "beside-";
/// The maximum number of such files with one name.
const MAX_BESIDE: usize = 8;
/// The total time for which renames are retried in one look.
const HELD_FOR: Duration = Duration::from_secs(5);
/// The pause before such a retry.
const HELD_PAUSE: Duration = Duration::from_millis(250);
/// The file that says why files were kept.
pub(crate) const REASON: &str = "reason.json";

/// Returns the name of the directory in the inbox for bundles with this outcome.
fn directory_of(outcome: Disposition) -> &'static str {
    match outcome {
        Disposition::Processed => "processed",
        Disposition::Quarantined => "quarantine",
    }
}

/// The inbox. Holds a lock on it: no other run can watch it until this is dropped.
pub(crate) struct Inbox {
    /// The path as the user gave it, for messages.
    path: PathBuf,
    watched: Dir,
    /// The path through the descriptor of `watched`, which stays valid if the directory is renamed.
    place: PathBuf,
    /// The errors with files that a killed run had taken and that cannot be put back.
    stuck: Vec<Error>,
    own: Pinned,
    /// The time that is left for retries of renames in this look.
    left: Cell<Duration>,
    /// The directories of taken files that could not be put back yet.
    unreturned: RefCell<Vec<PathBuf>>,
    _lock: HeldLock,
}

/// An open directory that only this user can write to, or the group if the inbox is shared with a group of this user.
/// It stays the same directory if its name is given to another.
struct Pinned {
    dir: Dir,
    /// The path through its descriptor.
    path: PathBuf,
}

impl Pinned {
    /// Opens a directory in `parent`, and creates it if it is missing. `shown` is its path in messages.
    ///
    /// # Errors
    /// If the directory cannot be created or opened, or if other users can write to it.
    fn open(parent: &Dir, name: &str, shown: &Path, mode: u32) -> Result<Self, Error> {
        let failed = |error| failed(shown, error);
        match parent.make(name, FileMode::working(mode), None) {
            // A power cut must not lose the directory with the files in it.
            Ok(_) => parent.sync().map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let not_ours = || {
            Error::usage(
                format!(
                    "{} is not a directory that only this user can write to",
                    escape(&shown.display().to_string())
                ),
                "Remove it, or run the command as the user that owns it.",
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
    /// The directory that holds them under their names.
    pub(crate) directory: PathBuf,
}

/// The open quarantine directory, with its damaged or incomplete bundles.
pub(crate) struct Quarantine {
    pub(crate) bundles: Vec<TakenFiles>,
    shown: PathBuf,
    _pinned: Pinned,
}

impl Quarantine {
    /// Returns the files of each bundle. The list is empty for a bundle that cannot be read.
    pub(crate) fn files(&self) -> Vec<Vec<PathBuf>> {
        self.bundles.iter().map(|taken| taken.files().unwrap_or_default()).collect()
    }
}

impl TakenFiles {
    /// Returns all directories that hold the files. Files of a `beside-` directory have a directory of their own.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let beside = (1..=MAX_BESIDE).map(|number| self.directory.join(number.to_string()));
        std::iter::once(self.directory.clone()).chain(beside.filter(|directory| directory.is_dir())).collect()
    }

    /// Returns all files.
    ///
    /// # Errors
    /// If a directory cannot be read.
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

    /// Returns the number of the `beside-` directory that a file came from. Returns 0 for the inbox itself.
    fn was(&self, file: &Path) -> usize {
        file.parent().filter(|directory| *directory != self.directory).and_then(number_of).unwrap_or(0)
    }

    /// Removes the directories and `reason.json`. Fails if any other file is left, so that no file is lost.
    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join(REASON)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.directories().iter().rev().try_for_each(fs::remove_dir)
    }
}

impl Inbox {
    /// Opens and locks an inbox. Puts back files that a killed run had taken.
    ///
    /// # Errors
    /// If the directory does not exist or cannot be opened, if another run watches it, or if other users can write to
    /// trivy-ferry's directory in it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let watched = Dir::top(path).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => failed(path, error),
            Some(Errno::LOOP) => Error::usage(
                format!("{} is or contains a symbolic link that is writable by others", path.display()),
                "Give the path of the directory itself.",
            ),
            _ if path.exists() => Error::usage(
                format!("{} is not a directory", path.display()),
                "Give the directory that the files arrive in.",
            ),
            _ => Error::usage(
                format!("the directory {} does not exist", path.display()),
                "Create it first, or check that the share is mounted there.",
            ),
        })?;
        let place = watched.pinned();
        let own = Pinned::open(&watched, OWN, &path.join(OWN), 0o700)?;
        let failed = |error| failed(&path.join(OWN), error);
        let (lock, _) = own.dir.append("lock", FileMode::working(0o600)).map_err(failed)?;
        if matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return Err(Error::usage(
                format!("another run watches {}", path.display()),
                "Stop the other run first.",
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
                // The watch must work even if some files cannot be put back.
                let taken = TakenFiles { directory: entry.path() };
                if let Err(error) = directory.give_all_back(&taken) {
                    directory.stuck.push(directory.failed(&taken.directory, error));
                }
            }
        }
        Ok(directory)
    }

    /// Begins a look at the inbox. Puts back files that could not be put back before, and returns the number of
    /// directories of such files that are still left.
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

    /// Retries a change that fails while another program has the file open, within the time limit of this look.
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

    /// Creates a directory in trivy-ferry's own directory, or in a directory of taken files.
    fn make(&self, directory: &Path) -> io::Result<()> {
        let (parent, name) = fs::holding(directory)?;
        parent.make(name, FileMode::working(0o700), None).map(drop)
    }

    /// Returns the path of the inbox as the user gave it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path by which files in the inbox are opened.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Whether the path leads to another directory now, such as a share that was mounted again.
    pub(crate) fn is_replaced(&self) -> bool {
        let same = |other: &Dir| Ok::<_, io::Error>(other.identity()? == self.watched.identity()?);
        Dir::top(&self.path).and_then(|other| same(&other)).is_ok_and(|same| !same)
    }

    /// Returns all directories with files that are not handled yet: the inbox and the `beside-`
    /// directories.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let beside =
            (1..=MAX_BESIDE).map(|number| self.beside(number)).filter(|directory| directory.is_dir());
        std::iter::once(self.place.clone()).chain(beside).collect()
    }

    /// Creates an error about a file, with the path that the user knows.
    fn failed(&self, path: &Path, error: io::Error) -> Error {
        let below = |top: &Path, shown: PathBuf| path.strip_prefix(top).ok().map(|rest| shown.join(rest));
        let own = || below(&self.own.path, self.path.join(OWN));
        let shown = below(&self.place, self.path.clone()).or_else(own);
        failed(&shown.unwrap_or_else(|| path.into()), error)
    }

    fn beside(&self, number: usize) -> PathBuf {
        self.own.path.join(format!("{BESIDE}{number}"))
    }

    /// Returns the errors with files that a killed run had taken and that cannot be put back.
    pub(crate) fn stuck(&self) -> &[Error] {
        &self.stuck
    }

    /// Returns all files that were taken.
    ///
    /// # Errors
    /// If their directories cannot be read.
    pub(crate) fn files(&self, taken: &TakenFiles) -> Result<Vec<PathBuf>, Error> {
        taken.files().map_err(|error| self.failed(&taken.directory, error))
    }

    /// Puts one file back under its name.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub(crate) fn release(&self, taken: &TakenFiles, file: &Path) -> Result<(), Error> {
        self.give_back(file, taken.was(file)).map_err(|error| self.failed(file, error))
    }

    /// Puts a file back into the directory with the number `was`, 0 for the inbox. If another file
    /// has its name there, the file is moved to a `beside-` directory, so that another file of the
    /// same name does not displace it.
    ///
    /// # Errors
    /// If the file cannot be renamed, or if too many files have its name. It stays in place then.
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

    /// Puts back all files of a directory of taken or kept files, and removes the directory.
    fn give_all_back(&self, taken: &TakenFiles) -> io::Result<()> {
        let mut failed = None;
        // In reverse order, so that files of `beside-` directories keep their places if there is not enough room for
        // all files of one name.
        for file in taken.files()?.iter().rev() {
            if let Err(error) = self.give_back(file, taken.was(file)) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or_else(|| self.patiently(|| taken.remove()), Err)
    }

    /// Returns the directory for trivy-ferry's own notes.
    pub(crate) fn own(&self) -> &Path {
        &self.own.path
    }

    /// Moves files out of reach of the users who put them there. Skips files that no longer exist.
    ///
    /// # Errors
    /// If a file cannot be renamed. The files that were taken are put back then.
    pub(crate) fn take(&self, files: &[PathBuf]) -> Result<TakenFiles, Error> {
        let directory =
            fs::tempdir_in(&self.own.path, TAKEN).map_err(|error| self.failed(&self.place, error))?;
        let taken = TakenFiles { directory: directory.keep() };
        self.share(&taken.directory).map_err(|error| self.failed(&self.place, error))?;
        for file in files {
            let Some(name) = file.file_name() else { continue };
            // A directory may contain files that prevent its removal later.
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
            // Another user may have replaced the file with a directory in the meantime.
            if claimed.is_ok() && to_name.symlink_metadata().is_ok_and(|it| it.is_dir()) {
                let back = self.patiently(|| rename_new(&to_name, file, Durability::Unsynced));
                back.map_err(|error| self.failed(file, error))?;
                continue;
            }
            match claimed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // Report the first error. Files that cannot be put back now are put back later.
                    let _ = self.put_back(&taken);
                    return Err(self.failed(file, error));
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    /// Puts files back. A file whose name is in use is moved to a `beside-` directory and handled
    /// like the other one. Files that cannot be put back now are put back when a later look begins.
    ///
    /// # Errors
    /// If a file cannot be renamed.
    pub(crate) fn put_back(&self, taken: &TakenFiles) -> Result<(), Error> {
        self.give_all_back(taken).map_err(|error| {
            self.unreturned.borrow_mut().push(taken.directory.clone());
            self.failed(&taken.directory, error)
        })
    }

    /// Gives a directory the group of trivy-ferry's own directory.
    fn share(&self, directory: &Path) -> io::Result<()> {
        match euid() {
            0 => Ok(()),
            _ => Dir::by_path(directory)?.share_as(&self.own.dir.entry()?),
        }
    }

    /// Opens the quarantine with the bundles that were put there because they were damaged or incomplete. If a name is
    /// given, only bundles of this name are included.
    ///
    /// # Errors
    /// If the quarantine cannot be opened or read, or if other users can write to it.
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

    /// Puts back bundles from quarantine for which more files have arrived. Returns whether any file was put back.
    ///
    /// # Errors
    /// If the directory of a bundle cannot be read.
    pub(crate) fn bring_back<'q>(
        &self,
        quarantine: &Quarantine,
        bundles: impl IntoIterator<Item = &'q TakenFiles>,
    ) -> Result<bool, Error> {
        let back = |taken: &TakenFiles| -> io::Result<bool> {
            let before = taken.files()?.len();
            // Files that cannot be put back stay in quarantine.
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
    /// If a file cannot be removed.
    pub(crate) fn discard(&self, taken: TakenFiles) -> Result<(), Error> {
        self.patiently(|| fs::remove_dir_all(&taken.directory)).map_err(|error| {
            self.unreturned.borrow_mut().push(taken.directory.clone());
            self.failed(&taken.directory, error)
        })
    }

    /// Moves files to the directory of their outcome, with a reason. Removes all but the newest `most` sets of files
    /// there. Returns the path of the reason.
    ///
    /// # Errors
    /// If the directory cannot be created, if other users can write to it, or if the files cannot be moved.
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
            // A taken file may have this name.
            let _ = fs::remove_file(&path);
            // Syncing the reason also makes the files durable. The entry of their directory needs its own sync.
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
        // Other users may want to read it.
        let readable =
            pinned.dir.entry().map_or(0o755, |above| above.directory_mode(FileMode::working(0o755)));
        let readable = std::os::unix::fs::PermissionsExt::from_mode(readable);
        let _ = std::fs::set_permissions(pinned.path.join(&kept), readable);
        let all = std::fs::read_dir(&pinned.path).into_iter().flatten().flatten().map(|entry| entry.path());
        // Directories with later times were named while the clock was ahead, and count as older
        // than the new one.
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

/// Returns the number at the end of a directory's name.
fn number_of(directory: &Path) -> Option<usize> {
    let name = directory.file_name()?.to_str()?;
    name.strip_prefix(BESIDE).unwrap_or(name).parse().ok().filter(|number| (1..=MAX_BESIDE).contains(number))
}

/// Whether a path has the name of a directory of kept files: a time, then a name.
fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let moment = name.split('-').next().unwrap_or_default();
    moment.len() == 19 && moment.bytes().all(|c| c.is_ascii_digit() || c == b't' || c == b'z')
}

/// Whether an error may mean that another program has the file open. CIFS servers return any of these (Linux,
/// `fs/smb/client/smb2maperror.c`): `EBUSY` for a sharing violation, `EACCES` for a file that was just in use.
fn is_held(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::BUSY | Errno::TXTBSY | Errno::AGAIN))
}

fn failed(path: &Path, error: io::Error) -> Error {
    let hint = match is_held(&error) {
        true => {
            "trivy-ferry retries, because another program may have the file open; check that this user may write and rename in the inbox."
        }
        false => "Check that this user may write and rename in the inbox.",
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
    fn taken_files_are_kept_or_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let directory = Inbox::open(dir.path()).unwrap();
        assert!(Inbox::open(dir.path()).is_err(), "only one run can watch a directory");
        let files = [file("a", "first"), file("b", "b"), dir.path().join("gone")];
        let taken = directory.take(&files).unwrap();
        assert_eq!(names(dir.path()), [OWN]);
        file("a", "came again");
        directory.put_back(&taken).unwrap();
        assert_eq!(names(dir.path()), [OWN, "a", "b"]);
        // A file of the same name never displaces the first one, even after several rounds.
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
        // This simulates a run that is killed after it took files.
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
    fn other_users_cannot_replace_the_directories_of_trivy_ferry() {
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
        assert!(
            kept.unwrap_err().to_string().contains("is not a directory that only this user can write to")
        );
        assert_eq!(names(elsewhere.path()), [""; 0]);
        directory.put_back(&taken).unwrap();
        assert!(dir.path().join("a").exists());
    }

    #[test]
    fn a_directory_of_another_user_is_not_used() {
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
