//! Opens and changes files by path. All access to files is here and, through descriptors, in
//! [`dir`](crate::util::dir). Each change to the file system calls [`step`], where tests can kill the process.

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

/// Returns the name of a path in the steps of tests.
fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(path.as_os_str())
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

/// The reason why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It is a file of this kind, not a regular file.
    #[error("it is {0}, not a regular file")]
    NotRegular(&'static str),
    /// The system reported an error.
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

/// The flags of every open: it must not wait for the other end of a named pipe, and a terminal must not become the
/// controlling terminal.
const OPEN: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a regular file for reading. Reading a device or a pipe could block or never end.
///
/// # Errors
/// If it is not a regular file, or cannot be opened.
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
        Err(OpenError::NotRegular("a directory"))
    } else if kind.is_fifo() {
        Err(OpenError::NotRegular("a FIFO"))
    } else {
        Err(OpenError::NotRegular("a device"))
    }
}

/// Reads a regular file. It has no size limit, because this program or the system wrote the file.
///
/// # Errors
/// If it is not a regular file (a link is not followed), or cannot be read.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path.as_ref(), Links::Refuse)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file to overwrite parts of it. A link is not followed. The caller checks the kind of the file.
///
/// # Errors
/// If it cannot be opened.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OPEN | OFlags::WRONLY | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// Opens a regular file with one name to read and write it.
///
/// # Errors
/// If it is a link, is not a regular file, has further hard links, or cannot be opened.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let file: File = rustix::fs::open(path, OPEN | OFlags::RDWR | OFlags::NOFOLLOW, Mode::empty())?.into();
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file with a single name"))
    }
}

/// Opens a descriptor of this process a second time. It may be a pipe.
///
/// # Errors
/// If there is no such descriptor, or it cannot be opened for reading.
pub(crate) fn open_descriptor(number: u32) -> io::Result<File> {
    let path = format!("/proc/self/fd/{number}");
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Whether a path still leads to an open file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|open| path.symlink_metadata().is_ok_and(|found| same(open, found)))
}

/// Opens the directory of a path. Also returns the name in it.
///
/// # Errors
/// If the path does not end in a name, or the directory cannot be opened.
pub(crate) fn holding(path: &Path) -> io::Result<(Dir, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    Ok((Dir::by_path(directory.unwrap_or(Path::new(".")))?, name))
}

/// Writes a file under a temporary name and renames it. See [`Dir::replace`].
///
/// # Errors
/// If the directory cannot be opened, a directory has the name or the temporary name, or the file cannot be written or
/// renamed.
pub(crate) fn replace(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: impl Into<FileMode>,
    durability: Durability,
) -> io::Result<()> {
    let (directory, name) = holding(path.as_ref())?;
    directory.replace(name, bytes, mode, None, durability)
}

/// Writes a file that must not exist, under its final name. See [`Dir::write_new`].
///
/// # Errors
/// If the directory cannot be opened, the name exists (`AlreadyExists`), the file system cannot make a private file
/// private, or the file cannot be written.
pub(crate) fn write_new(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: impl Into<FileMode>,
    durability: Durability,
) -> io::Result<()> {
    let (directory, name) = holding(path.as_ref())?;
    directory.write_new(name, bytes, mode, durability)
}

/// Creates a file that must not exist, to read and write it. The umask applies to the mode.
///
/// # Errors
/// If the name exists (`AlreadyExists`), or the file cannot be created.
pub(crate) fn create_new(path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
    step("create", name(path.as_ref()))?;
    File::options().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Writes all bytes to a file. The path is only for tests.
pub(crate) fn write_all(mut file: &File, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    step("write", name(path.as_ref()))?;
    io::Write::write_all(&mut file, bytes)
}

/// Writes all bytes at an offset of a file. `what` is only for tests.
pub(crate) fn write_all_at(file: &File, what: &str, bytes: &[u8], at: u64) -> io::Result<()> {
    step("write", OsStr::new(what))?;
    file.write_all_at(bytes, at)
}

/// Sets the length of a file. `what` is only for tests.
pub(crate) fn set_len(file: &File, what: &str, length: u64) -> io::Result<()> {
    step("truncate", OsStr::new(what))?;
    file.set_len(length)
}

/// Renames a file or a directory, and replaces the entry that has the new name. With [`Durability::Synced`], the file
/// or directory is synced before, and its new parent after.
///
/// # Errors
/// If it cannot be synced or renamed.
pub(crate) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>, durability: Durability) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    rename_with(from, to, durability, || {
        step("rename", name(to))?;
        fs::rename(from, to)
    })
}

/// Renames as [`rename`] does, but never over an existing entry. On a file system without `RENAME_NOREPLACE` (FAT),
/// this first checks that the new name is free.
///
/// # Errors
/// If the new name exists (`AlreadyExists`), or the entry cannot be synced or renamed.
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

/// Syncs the directory of a path, so that the names in it are durable. It is no error if the file system does not
/// support this.
///
/// # Errors
/// If the directory cannot be opened or synced.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    holding(path)?.0.sync()
}

/// Calls [`fs::remove_file`].
pub(crate) fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    step("unlink", name(path.as_ref()))?;
    fs::remove_file(path)
}

/// Calls [`fs::remove_dir`].
pub(crate) fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    step("rmdir", name(path.as_ref()))?;
    fs::remove_dir(path)
}

/// Calls [`fs::remove_dir_all`]. For tests, this is one step.
pub(crate) fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    step("rmdir", name(path.as_ref()))?;
    fs::remove_dir_all(path)
}

/// Creates a directory that must not exist. Its parent must exist.
pub(crate) fn create_dir(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    step("mkdir", name(path.as_ref()))?;
    fs::DirBuilder::new().mode(mode).create(path)
}

/// Creates a directory and its missing parents. For tests, this is one step.
pub(crate) fn create_dir_all(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    step("mkdir", name(path.as_ref()))?;
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Creates a directory with mode 0700, whatever the umask is, and a unique name that begins with `prefix`. It is
/// removed with the value.
///
/// # Errors
/// If it cannot be created.
pub(crate) fn tempdir_in(directory: &Path, prefix: &str) -> io::Result<TempDir> {
    step("mkdir", OsStr::new(prefix))?;
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(directory)
}

/// Creates a file without a name in a directory. It is removed once it is closed.
///
/// # Errors
/// If it cannot be created.
pub(crate) fn tempfile_in(directory: &Path) -> io::Result<File> {
    step("create", OsStr::new("unnamed"))?;
    tempfile::tempfile_in(directory)
}

/// Returns the bytes that an ordinary user may still write to the file system of a directory. A file system that does
/// not report its size (fusefat 0.1a) counts as unlimited.
pub(crate) fn free(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    if stat.f_blocks == 0 {
        return Ok(u64::MAX);
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Creates a directory with mode 0700, whatever the umask is.
#[cfg(test)]
pub(crate) fn tempdir() -> io::Result<TempDir> {
    tempdir_in(&std::env::temp_dir(), "test-")
}

/// Writes a file that only this user can write, whatever the umask is.
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
        fs::create_dir(at("directory")).unwrap();
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
            ("directory", "a directory", "a directory"),
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
    fn files_and_directories_are_renamed_and_a_new_name_never_replaces_an_entry() {
        let dir = tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for durability in [Durability::Unsynced, Durability::Synced] {
            write_new(at("a"), b"a", 0o644, durability).unwrap();
            put(at("b"), "b");
            create_dir(at("directory"), 0o700).unwrap();
            fault::trace();
            let error = rename_new(&at("a"), &at("b"), durability).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            rename(at("a"), at("b"), durability).unwrap();
            rename_new(&at("directory"), &at("moved"), durability).unwrap();
            assert_eq!(fault::trace(), ["rename b", "rename b", "rename moved"]);
            assert_eq!(read(at("b")).unwrap(), b"a");
            remove_dir(at("moved")).unwrap();
        }
    }
}
