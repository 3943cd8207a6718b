//! Changes to the file system by path, as the standard library makes them. Each passes [`step`], where tests
//! can stop the world.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

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

/// As [`fs::rename`].
pub(crate) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    step("rename", name(to.as_ref()))?;
    fs::rename(from, to)
}

/// As [`fs::write`]; two steps.
pub(crate) fn write(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    step("create", name(path.as_ref()))?;
    let mut file = File::create(&path)?;
    step("write", name(path.as_ref()))?;
    io::Write::write_all(&mut file, bytes)
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
