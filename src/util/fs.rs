//! Files by path: opening and writing them has its one place here and, through descriptors, in
//! [`dir`](crate::util::dir). Each change to the file system passes [`step`], where tests can stop the world.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use tempfile::TempDir;

pub(crate) use crate::util::dir::Durability;
use crate::util::dir::{self, Dir};
use crate::util::step;

/// The name by which tests know a path.
fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(path.as_os_str())
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

/// Opens the directory that holds what a path names. Also gives the name in it.
///
/// # Errors
/// The path ends in no name, or the directory cannot be opened.
pub(crate) fn holding(path: &Path) -> io::Result<(Dir, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((Dir::by_path(folder.unwrap_or(Path::new(".")))?, name))
}

/// Writes a file under a temporary name and renames it. See [`Dir::replace`].
///
/// # Errors
/// As there; also if the directory cannot be opened.
pub(crate) fn replace(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<()> {
    let (folder, name) = holding(path.as_ref())?;
    folder.replace(name, bytes, mode, None, durability)
}

/// Writes a file that must not exist, under its name from the beginning. See [`Dir::write_new`].
///
/// # Errors
/// As there; also if the directory cannot be opened.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (folder, name) = holding(path)?;
    folder.write_new(name, bytes, mode, durability)
}

/// Creates a file that must not exist, to read and write it.
pub(crate) fn create_new(path: impl AsRef<Path>, mode: u32) -> io::Result<File> {
    step("create", name(path.as_ref()))?;
    File::options().read(true).write(true).create_new(true).mode(mode).open(path)
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

/// Makes a directory of this user alone, whatever the umask is.
#[cfg(test)]
pub(crate) fn tempdir() -> io::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir()
}

/// Writes a file that only this user can change, whatever the umask is.
#[cfg(test)]
pub(crate) fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Whether a path still leads to an open file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|open| path.symlink_metadata().is_ok_and(|found| same(open, found)))
}

/// Opens a file that is nothing but a file: no link, no FIFO, and no second name of another one.
///
/// # Errors
/// If the path is a link, another kind of file or one of several names of a file, or the file cannot be
/// opened for reading and writing.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file: File = rustix::fs::open(path, flags, Mode::empty())?.into();
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        Ok(file)
    } else {
        Err(io::Error::other("it is no plain file"))
    }
}

/// Renames a file or a directory, in the place of what has the name. Synced: what is renamed, and then the
/// directory that it goes to.
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
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
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

/// Makes the names in the directory durable that holds what a path names. File systems that cannot are left in
/// peace.
///
/// # Errors
/// The directory cannot be opened or synced.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    holding(path)?.0.sync()
}

/// Makes a directory with a name of its own, which is gone with the value. The name begins with `prefix`.
///
/// # Errors
/// The system refuses.
pub(crate) fn tempdir_in(folder: &Path, prefix: &str) -> io::Result<TempDir> {
    step("mkdir", OsStr::new(prefix))?;
    tempfile::Builder::new().prefix(prefix).tempdir_in(folder)
}

/// The bytes that an ordinary user may still write in a folder's file system. Some say nothing of their
/// size (fusefat 0.1a): then only writing shows.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    if stat.f_blocks == 0 {
        return Ok(u64::MAX);
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
