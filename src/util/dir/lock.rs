//! Lock files of a directory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::util::dir::{Dir, FileMode, component, give, open_at, regular};
use crate::util::step;
use crate::util::text::escape;

impl Dir {
    /// Opens a lock file, and creates it with `mode` if it is missing. An existing file is not changed. It is opened
    /// for writing if this user may do that, because NFSv4 needs this for an exclusive lock (flock(2)).
    ///
    /// # Errors
    /// If the name exists and is not a regular file, or the file cannot be opened or created.
    pub fn lock_file(&self, name: &str, mode: impl Into<FileMode>) -> io::Result<File> {
        let name = component(name.as_ref())?;
        let mode = self.entry()?.file_mode(mode.into());
        loop {
            let flags = OFlags::RDWR | OFlags::NONBLOCK;
            match open_at(&self.fd, name, flags, Mode::empty()) {
                Ok(fd) => return regular(fd),
                Err(Errno::NOENT) => {}
                // It belongs to another user, or is on a read-only medium.
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
                    if let Some(file) = self.open_file(name)? {
                        return Ok(file);
                    }
                }
                Err(error) => return Err(error.into()),
            }
            step("create", name)?;
            let create = flags | OFlags::CREATE | OFlags::EXCL;
            match open_at(&self.fd, name, create, Mode::from_raw_mode(mode)) {
                Ok(fd) => {
                    give(&fd, mode, None)?;
                    return Ok(File::from(fd));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Takes an exclusive lock without waiting. Returns `Some(false)` if another process holds it, and `None` if the
/// file system has no locks.
pub(crate) fn try_lock(file: &File) -> io::Result<Option<bool>> {
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            log::debug!("locked {}", name(file));
            Ok(Some(true))
        }
        Err(Errno::WOULDBLOCK) => {
            log::debug!("{} is locked by another process", name(file));
            Ok(Some(false))
        }
        // NFSv4 fails with `EBADF` if the file is open only for reading (flock(2)).
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOLCK | Errno::BADF) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The path of an open file, for the debug log.
fn name(file: &File) -> String {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).map_or_else(|_| "a lock file".into(), |path| escape(&path.display().to_string()))
}
