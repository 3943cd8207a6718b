//! Files by path: opening and writing them has its one place here and, through descriptors, in
//! [`dir`](crate::util::dir). Each change to the file system passes [`step`], where tests can stop the world.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::util::dir::FileMode;
pub(crate) use crate::util::dir::write::Durability;
use crate::util::dir::{self, Dir};
use crate::util::step;

/// The name by which tests know a path.
fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(path.as_os_str())
}

/// What becomes of a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// What it is instead of a regular file.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotRegular(_) => io::Error::new(io::ErrorKind::InvalidInput, error),
            OpenError::Io(error) => error,
        }
    }
}

/// Never waits for the other end of a named pipe, and never makes a terminal this process's.
const OPEN: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a regular file for reading. What else there is would be waited for, or never end.
///
/// # Errors
/// It is something else, or the system refuses.
pub(crate) fn open_regular(path: &Path, links: Links) -> Result<File, OpenError> {
    let no_link = if links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
    let file: File = match rustix::fs::open(path, OPEN | OFlags::RDONLY | no_link, Mode::empty()) {
        Err(Errno::LOOP) if links == Links::Refuse => return Err(OpenError::NotRegular("a symbolic link")),
        Err(Errno::NXIO) => return Err(OpenError::NotRegular("a socket")),
        other => other.map_err(io::Error::from)?.into(),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(OpenError::NotRegular("a folder"))
    } else if kind.is_fifo() {
        Err(OpenError::NotRegular("a FIFO"))
    } else {
        Err(OpenError::NotRegular("a device"))
    }
}

/// Reads all of a regular file that this program or the system wrote, so that its size needs no limit.
///
/// # Errors
/// As [`open_regular`], which follows no link here; also if it cannot be read.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path.as_ref(), Links::Refuse)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file to write over what is in it, and follows no link. What it is, is for the caller to see.
///
/// # Errors
/// The system refuses.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OPEN | OFlags::WRONLY | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// Opens a file that is nothing but a file: no link, no FIFO, and no second name of another one.
///
/// # Errors
/// It is something else, or cannot be read and written.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let file: File = rustix::fs::open(path, OPEN | OFlags::RDWR | OFlags::NOFOLLOW, Mode::empty())?.into();
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        Ok(file)
    } else {
        Err(io::Error::other("it is no plain file"))
    }
}

/// Opens once more what this process has open under a number; it may be a pipe.
///
/// # Errors
/// Nothing is, or it cannot be read.
pub(crate) fn open_descriptor(number: u32) -> io::Result<File> {
    let path = format!("/proc/self/fd/{number}");
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Whether a path still leads to an open file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|open| path.symlink_metadata().is_ok_and(|found| same(open, found)))
}

/// Opens the directory that holds what a path names. Also gives the name in it.
///
/// # Errors
/// The path ends in no name, or the directory cannot be opened.
pub(crate) fn holding(path: &Path) -> io::Result<(Dir, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    Ok((Dir::by_path(directory.unwrap_or(Path::new(".")))?, name))
}

/// Writes a file under a temporary name and renames it. See [`Dir::replace`].
///
/// # Errors
/// As there; also if the directory cannot be opened.
pub(crate) fn replace(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: impl Into<FileMode>,
    durability: Durability,
) -> io::Result<()> {
    let (directory, name) = holding(path.as_ref())?;
    directory.replace(name, bytes, mode, None, durability)
}

/// Writes a file that must not exist, under its name from the beginning. See [`Dir::write_new`].
///
/// # Errors
/// As there; also if the directory cannot be opened.
pub(crate) fn write_new(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: impl Into<FileMode>,
    durability: Durability,
) -> io::Result<()> {
    let (directory, name) = holding(path.as_ref())?;
    directory.write_new(name, bytes, mode, durability)
}

/// Creates a file that must not exist, to read and write it. The umask takes from the mode.
///
/// # Errors
/// Something has the name (`AlreadyExists`), or the system refuses.
pub(crate) fn create_new(path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
    step("create", name(path.as_ref()))?;
    File::options().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Writes all bytes to a file. The path is for tests alone.
pub(crate) fn write_all(mut file: &File, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    step("write", name(path.as_ref()))?;
    io::Write::write_all(&mut file, bytes)
}

/// Writes all bytes to a place in a file. `what` is for tests alone.
pub(crate) fn write_all_at(file: &File, what: &str, bytes: &[u8], at: u64) -> io::Result<()> {
    step("write", OsStr::new(what))?;
    file.write_all_at(bytes, at)
}

/// Cuts a file off or makes it longer. `what` is for tests alone.
pub(crate) fn set_len(file: &File, what: &str, length: u64) -> io::Result<()> {
    step("truncate", OsStr::new(what))?;
    file.set_len(length)
}

/// Renames a file or a directory, in the place of what has the name. If durable, what is renamed is synced
/// before, and after that the directory that it goes to.
///
/// # Errors
/// The system refuses.
pub(crate) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>, durability: Durability) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    rename_with(from, to, durability, || {
        step("rename", name(to))?;
        fs::rename(from, to)
    })
}

/// As [`rename`], but never over what exists. A file system that cannot promise that (FAT) is asked first.
///
/// # Errors
/// Something has the name (`AlreadyExists`), or the system refuses.
pub(crate) fn rename_new(from: &Path, to: &Path, durability: Durability) -> io::Result<()> {
    rename_with(from, to, durability, || dir::rename_new(CWD, from, CWD, to))
}

fn rename_with(
    from: &Path,
    to: &Path,
    durability: Durability,
    rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match durability {
        Durability::Unsynced => rename(),
        Durability::Synced => {
            let flags = OPEN | OFlags::RDONLY | OFlags::NOFOLLOW;
            let open = File::from(rustix::fs::open(from, flags, Mode::empty())?);
            match open.sync_all() {
                Err(error) if !(dir::unsupported(&error) && open.metadata()?.is_dir()) => return Err(error),
                _ => {}
            }
            rename()?;
            sync_parent(to)
        }
    }
}

/// Makes the names in the directory durable that holds what a path names. File systems that cannot are left
/// in peace.
///
/// # Errors
/// The directory cannot be opened or synced.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    holding(path)?.0.sync()
}

/// As [`fs::remove_file`].
pub(crate) fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    step("unlink", name(path.as_ref()))?;
    fs::remove_file(path)
}

/// As [`fs::remove_dir`].
pub(crate) fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    step("rmdir", name(path.as_ref()))?;
    fs::remove_dir(path)
}

/// As [`fs::remove_dir_all`]; one step.
pub(crate) fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    step("rmdir", name(path.as_ref()))?;
    fs::remove_dir_all(path)
}

/// Creates a directory that must not exist; all above it must.
pub(crate) fn create_dir(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    step("mkdir", name(path.as_ref()))?;
    fs::DirBuilder::new().mode(mode).create(path)
}

/// Creates a directory and all above it that are missing; one step.
pub(crate) fn create_dir_all(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    step("mkdir", name(path.as_ref()))?;
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Makes a directory of this user alone, whatever the umask is, with a name of its own that begins with
/// `prefix`. It is removed with the value.
///
/// # Errors
/// The system refuses.
pub(crate) fn tempdir_in(directory: &Path, prefix: &str) -> io::Result<TempDir> {
    step("mkdir", OsStr::new(prefix))?;
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(directory)
}

/// The bytes that an ordinary user may still write in a folder's file system. Some say nothing of their
/// size (fusefat 0.1a): then only writing shows.
pub(crate) fn free(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    if stat.f_blocks == 0 {
        return Ok(u64::MAX);
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes a directory of this user alone, whatever the umask is.
#[cfg(test)]
pub(crate) fn tempdir() -> io::Result<TempDir> {
    tempdir_in(&std::env::temp_dir(), "test-")
}

/// Writes a file that only this user can change, whatever the umask is.
#[cfg(test)]
pub(crate) fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::fault;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        put(at("file"), "text");
        fs::create_dir(at("folder")).unwrap();
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (link, to) in [("link", "file"), ("to-fifo", "fifo"), ("to-device", "/dev/zero")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        let what = |name: &str, links| match open_regular(&at(name), links) {
            Ok(mut file) => io::read_to_string(&mut file).unwrap(),
            Err(OpenError::NotRegular(what)) => what.to_owned(),
            Err(OpenError::Io(error)) => format!("{:?}", error.kind()),
        };
        for (name, followed, refused) in [
            ("file", "text", "text"),
            ("link", "text", "a symbolic link"),
            ("folder", "a folder", "a folder"),
            ("fifo", "a FIFO", "a FIFO"),
            ("to-fifo", "a FIFO", "a symbolic link"),
            ("socket", "a socket", "a socket"),
            ("to-device", "a device", "a symbolic link"),
            ("missing", "NotFound", "NotFound"),
        ] {
            let found = [what(name, Links::Follow), what(name, Links::Refuse)];
            assert_eq!(found, [followed, refused], "{name}");
        }
        assert_eq!(read(at("file")).unwrap(), b"text");
        assert_eq!(read(at("fifo")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn files_and_directories_are_renamed_and_never_over_what_is_new() {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for durability in [Durability::Unsynced, Durability::Synced] {
            write_new(at("a"), b"a", 0o644, durability).unwrap();
            put(at("b"), "b");
            create_dir(at("folder"), 0o700).unwrap();
            fault::trace();
            let error = rename_new(&at("a"), &at("b"), durability).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            rename(at("a"), at("b"), durability).unwrap();
            rename_new(&at("folder"), &at("moved"), durability).unwrap();
            assert_eq!(fault::trace(), ["rename b", "rename b", "rename moved"]);
            assert_eq!(read(at("b")).unwrap(), b"a");
            remove_dir(at("moved")).unwrap();
        }
    }
}
