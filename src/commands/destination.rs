//! The destination of an export: a temporary name while it is written, and the true one only when
//! everything is signed and synced. What an export that was cut short left there is found by the next.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{CWD, RenameFlags};

use super::partial::{self, Geometry, Leftover, PARTIAL, PLAN, PartialFile, Prefix};
use crate::bundle::writer::{Plan, WriteError};
use crate::bundle::{self, Member};
use crate::digest::Digest;
use crate::error::Error;
use crate::progress::{Progress, Step};
use crate::text::size;
use crate::trust::key::PublicKey;

/// What an export that was cut short is called while another is written under its name.
const OLD: &str = ".old";
/// How many leftovers are looked at.
const MOST_LEFTOVERS: usize = 4;
/// How often, and after what pause, a name is tried that another run holds for a moment.
const TRIES: u32 = 50;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Where a bundle is to go.
#[derive(Clone)]
pub(super) struct Destination {
    folder: PathBuf,
    /// The file's name, where the user chose it.
    name: Option<String>,
    stream: String,
}

/// A bundle that is being written. Dropped before it is published, it leaves what the next export can
/// go on with, if there is any.
pub(super) struct Unpublished {
    path: PathBuf,
    partial: PathBuf,
    /// What earlier exports left and this one may use.
    leftovers: Vec<Leftover>,
    /// Nobody can go on with it: the medium is full, or gone.
    failed: Cell<bool>,
    /// The file is this run's, and not one that another run writes.
    ours: Cell<bool>,
    /// What it was made from is not what it should be, from this byte on.
    spoiled: Cell<Option<u64>>,
    /// So is what earlier exports left.
    leftovers_spoiled: Cell<bool>,
    geometry: Geometry,
    length: u64,
    published: bool,
}

/// A bundle that is on its medium as a whole, under its temporary name.
pub(super) struct Synced(File);

impl Destination {
    /// The folder in which bundles are named after their stream; `None` where the user chose a name.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.name.is_none().then_some(&self.folder)
    }

    /// Looks at the place, before anything is fetched for it.
    ///
    /// # Errors
    /// A folder that is not there, or a file that is.
    pub(super) fn new(output: &Path, stream: &str) -> Result<Self, Error> {
        if output.is_dir() {
            return Ok(Destination { folder: output.into(), name: None, stream: stream.into() });
        }
        let name = output.file_name().map(|name| name.to_string_lossy().into_owned());
        let parent =
            output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A mount point that is not there must not become a file of its name.
        let named_as_folder = !output.as_os_str().to_string_lossy().to_lowercase().ends_with(".tar");
        let (Some(name), true, false) = (name, parent.is_dir(), named_as_folder) else {
            return Err(Error::usage(
                format!("there is no folder {}", if named_as_folder { output } else { parent }.display()),
                "Make it first, or check that the medium is mounted there; a file's name ends in .tar.",
            ));
        };
        if output.symlink_metadata().is_ok() {
            return Err(Error::usage(
                format!("{} exists already, and a bundle is never overwritten", output.display()),
                "Name a new file, or a folder: the file is then named after stream and date.",
            ));
        }
        Ok(Destination { folder: parent.into(), name: Some(name), stream: stream.into() })
    }

    /// The first moment from this one on that no bundle in the folder is named after. An export
    /// that was killed when its bundle had its name, and a second exporter, know nothing of it.
    pub(super) fn free_moment(&self, created: Timestamp) -> Result<Timestamp, Error> {
        /// More than a few runs in a row ever take; a medium full of later names is a trick.
        const MOST: i64 = 60;
        let moments =
            (0..MOST).filter_map(|seconds| created.checked_add(SignedDuration::from_secs(seconds)).ok());
        let free = |moment: &Timestamp| {
            let path = self.folder.join(file_name(&self.stream, *moment));
            self.name.is_some() || path.symlink_metadata().is_err()
        };
        moments.into_iter().find(free).ok_or_else(|| Error::Destination {
            path: self.folder.clone(),
            what: "it holds bundles of this stream dated now and later".into(),
            next: "Use an empty folder; a bundle dated ahead would lock out those that follow.".into(),
        })
    }

    /// Begins a file for a bundle of this plan.
    ///
    /// # Errors
    /// Where there is no room for it.
    pub(super) fn create(
        self,
        plan: &Plan,
        created: Timestamp,
        progress: &dyn Progress,
    ) -> Result<Unpublished, Error> {
        let name = self.name.unwrap_or_else(|| file_name(&self.stream, created));
        let path = self.folder.join(&name);
        // What is much larger than what is to be written was not left by an export like this one.
        let most = plan.length().saturating_mul(4);
        let mut leftovers = left_over(&self.folder, &name, &self.stream, most);
        leftovers.sort_by_key(|leftover| (!leftover.fits(plan), std::cmp::Reverse(leftover.good())));
        let free = || free(&self.folder).map_err(|error| failed(&self.folder, error));
        let same = leftovers.first().filter(|leftover| leftover.fits(plan));
        let (partial, good, there) = match same {
            Some(leftover) => (leftover.path.clone(), leftover.good(), leftover.length()),
            None => (self.folder.join(format!("{name}{PARTIAL}")), 0, 0),
        };
        if good == 0 {
            set_aside(&partial, &mut leftovers);
        }
        let length = plan.length().saturating_sub(there);
        // What is left from before is worth less than that this one has room.
        while free()? < length && leftovers.last().is_some_and(|leftover| leftover.path != partial) {
            if let Some(leftover) = leftovers.pop() {
                progress.note(&format!(
                    "{} is removed to make room: its bytes are fetched again",
                    leftover.path.display()
                ));
                partial::remove(&leftover.path);
            }
        }
        let free = free()?;
        if free < length {
            return Err(Error::Destination {
                what: format!("needs {}, has {}", size(length), size(free)),
                path: self.folder,
                next: "Make room, use a larger medium, or leave something out: --skip trivy-java-db.".into(),
            });
        }
        let (failed, ours, spoiled, leftovers_spoiled) = Default::default();
        let (geometry, length) = (Geometry::of(plan), plan.length());
        let published = false;
        Ok(Unpublished {
            path,
            partial,
            leftovers,
            failed,
            ours,
            spoiled,
            leftovers_spoiled,
            geometry,
            length,
            published,
        })
    }
}

/// What a bundle is called where nobody chose a name.
fn file_name(stream: &str, created: Timestamp) -> String {
    format!("{stream}-{}.tar", created.strftime("%Y%m%dt%H%M%Sz"))
}

/// Whether a file is called as a bundle of this stream is where nobody chose a name.
pub(super) fn is_named_for(name: &str, stream: &str) -> bool {
    let date = name.strip_suffix(".tar").and_then(|rest| rest.strip_prefix(stream)?.strip_prefix('-'));
    let of_date = |c: u8| c.is_ascii_digit() || c == b't' || c == b'z';
    date.is_some_and(|date| date.len() == 16 && date.bytes().all(of_date))
}

impl Unpublished {
    /// Opens the file for writing.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn writer(&self, plan: &Plan) -> Result<PartialFile, Error> {
        let begin = || match self.leftovers.iter().find(|leftover| leftover.path == self.partial) {
            Some(leftover) => {
                self.ours.set(true);
                leftover.go_on()
            }
            None => {
                let file = create_locked(&self.partial)?;
                self.ours.set(true);
                PartialFile::new(file, &self.partial, plan)
            }
        };
        begin().map_err(|error| self.broke(&self.partial, error))
    }

    /// The start of a blob, as far as an earlier export has fetched it.
    pub(super) fn prefix(&self, digest: Digest, size: u64) -> Option<Prefix> {
        let found = self.leftovers.iter().filter_map(|leftover| leftover.prefix(digest, size));
        found.max_by_key(Prefix::left)
    }

    /// What is here of a blob is not what it should be: nobody must go on with it, nor, where a part of it
    /// was `left`, with what that came from.
    pub(super) fn spoil(&self, member: &Member, left: bool) {
        self.leftovers_spoiled.set(self.leftovers_spoiled.get() || left);
        let at = self.geometry.find(member.digest, member.size).unwrap_or(0);
        self.spoiled.set(Some(self.spoiled.get().map_or(at, |earlier| earlier.min(at))));
    }

    fn broke(&self, path: &Path, error: io::Error) -> Error {
        self.failed.set(true);
        failed(path, error)
    }

    /// Writes what is still in memory to the medium.
    ///
    /// # Errors
    /// Where that fails.
    pub(super) fn sync(&self, writer: PartialFile) -> Result<Synced, Error> {
        let sync = || {
            let file = writer.into_file()?;
            // Whatever the umask is: it is carried to be read. FAT knows no modes.
            let _ = file.set_permissions(fs::Permissions::from_mode(0o644));
            if file.metadata()?.len() != self.length {
                return Err(io::Error::other("it has another length than was planned"));
            }
            file.sync_all().map(|()| Synced(file))
        };
        sync().map_err(|error| self.broke(&self.partial, error))
    }

    /// Reads the file back from the medium and compares it with what was signed.
    ///
    /// # Errors
    /// Where they differ; nothing is left behind then.
    pub(super) fn read_back(
        &self,
        _: &Synced,
        key: &PublicKey,
        identity: Digest,
        step: &dyn Step,
    ) -> Result<(), Error> {
        bundle::read_back(&self.partial, key, identity, step).map_err(|error| {
            self.failed.set(true);
            Error::Destination {
                path: self.path.clone(),
                what: format!("what was read back is not what was written: {error}"),
                next: "Do not trust this medium again: it is failing, or smaller than it says. Use another."
                    .into(),
            }
        })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// Where that fails; nothing is left behind then.
    pub(super) fn publish(mut self, Synced(file): Synced) -> Result<PathBuf, Error> {
        let publish = || -> io::Result<()> {
            let swapped = || io::Error::other("another file has its name now");
            is_at(&file, &self.partial).then_some(()).ok_or_else(swapped)?;
            rename_new(&self.partial, &self.path)?;
            is_at(&file, &self.path).then_some(()).ok_or_else(swapped)?;
            match self.path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            }
        };
        publish().map_err(|error| self.broke(&self.path, error))?;
        self.published = true;
        Ok(std::mem::take(&mut self.path))
    }

    /// What an error of the writer means.
    pub(super) fn failed(&self, error: WriteError) -> Error {
        match error {
            WriteError::Destination(error) => self.broke(&self.path, error),
            WriteError::Sign(error) => error.into(),
            WriteError::Source { member, error } => Error::unexpected(format!("reading {member}"))(error),
            other => Error::unexpected(format!("writing {}", self.path.display()))(io::Error::other(other)),
        }
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if self.published {
            let _ = fs::remove_file(partial::plan_of(&self.partial));
        } else if !self.ours.get() {
            // Whoever it belongs to still needs it.
        } else if self.failed.get() || !partial::is_worth_keeping(&self.partial) {
            partial::remove(&self.partial);
        } else if let Some(end) = self.spoiled.get() {
            partial::cut(&self.partial, end);
        }
        for leftover in &self.leftovers {
            // Its bytes are in the bundle now, or nobody wants them any more.
            if leftover.path != self.partial && (self.published || self.leftovers_spoiled.get()) {
                partial::remove(&leftover.path);
            }
        }
    }
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|open| path.symlink_metadata().is_ok_and(|found| same(open, found)))
}

/// Never over an existing file. File systems that cannot promise it (FAT) are asked first.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

/// Gives a leftover another name that has the one which is wanted.
fn set_aside(partial: &Path, leftovers: &mut Vec<Leftover>) {
    let name = partial.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside =
        partial.with_file_name(format!("{}{OLD}{PARTIAL}", name.strip_suffix(PARTIAL).unwrap_or(&name)));
    if leftovers.iter().any(|leftover| leftover.path == partial) {
        leftovers.retain(|leftover| leftover.path != aside);
        partial::remove(&aside);
        for leftover in leftovers.iter_mut().filter(|leftover| leftover.path == partial) {
            let moved = fs::rename(partial::plan_of(partial), partial::plan_of(&aside));
            if moved.and_then(|()| fs::rename(partial, &aside)).is_ok() {
                leftover.path.clone_from(&aside);
            }
        }
    }
}

/// Makes a file and locks it, so that another run does not take it for abandoned.
fn create_locked(partial: &Path) -> io::Result<File> {
    for _ in 0..TRIES {
        match File::options().read(true).write(true).create_new(true).mode(0o644).open(partial) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            // One that found it before the lock stood has removed it.
            Ok(file) => match file.try_lock() {
                Ok(()) if !is_at(&file, partial) => {}
                // Some file systems know no locks.
                Ok(()) | Err(fs::TryLockError::Error(_)) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {}
            },
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// What exports of this stream left that were cut short. What nobody can go on with is removed; one that
/// is still running holds its lock.
fn left_over(folder: &Path, name: &str, stream: &str, most: u64) -> Vec<Leftover> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let ours = file_name == format!("{name}{PARTIAL}")
            || file_name == format!("{name}{OLD}{PARTIAL}")
            || file_name.strip_suffix(PARTIAL).is_some_and(|name| is_named_for(name, stream));
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        // An export that was killed when its bundle had its name has left the plan alone.
        let of_plan = file_name.strip_suffix(PLAN).filter(|of| *of == name || is_named_for(of, stream));
        if let Some(of) = of_plan.filter(|_| plain)
            && folder.join(format!("{of}{PARTIAL}")).symlink_metadata().is_err()
        {
            let _ = fs::remove_file(entry.path());
        }
        if ours && plain {
            // Only who holds the lock takes or removes, and only what the lock is on.
            let path = entry.path();
            let abandoned = partial::open_plain(&path).ok().filter(|file| {
                !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) && is_at(file, &path)
            });
            let Some(file) = abandoned else { continue };
            // More than a few are not what exports leave.
            let enough = found.len() >= MOST_LEFTOVERS;
            let small = file.metadata().is_ok_and(|metadata| metadata.len() <= most);
            let looked = (small && !enough).then(|| Leftover::look(&path, file)).flatten();
            match looked {
                Some(leftover) => found.push(leftover),
                None => partial::remove(&path),
            }
        }
    }
    found
}

/// The bytes that an ordinary user may still write in a folder's file system.
fn free(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn failed(path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{AlreadyExists, FileTooLarge, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let next = match error.kind() {
        AlreadyExists => "Another export of this stream writes there at this moment; run the command again.",
        StorageFull => "Make room, use a larger medium, or leave something out: --skip trivy-java-db.",
        FileTooLarge => {
            "FAT32 holds no file of 4 GiB: use a medium with exFAT, or leave something out with --skip."
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "Choose a folder that you may write, or mount the medium for writing."
        }
        _ => {
            "Nothing was left there; check the medium (it may have been unplugged) and run the command again."
        }
    };
    Error::Destination { path: path.into(), what: error.to_string(), next: next.into() }
}
