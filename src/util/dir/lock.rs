//! Lock files of a directory.

use std::fs::File;
use std::io;

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::util::dir::{Dir, FileMode, component, give, open_at, regular};
use crate::util::step;

impl Dir {
    /// Opens a lock file, creating it with `mode` if it is missing. What is there is neither changed nor written.
    /// It is opened for writing if this user may do that: NFSv4 gives an exclusive lock for nothing less (flock(2)).
    ///
    /// # Errors
    /// Something that is no regular file has the name, or the system refuses.
    pub fn lock_file(&self, name: &str, mode: impl Into<FileMode>) -> io::Result<File> {
        let name = component(name.as_ref())?;
        let mode = self.entry()?.file_mode(mode.into());
        loop {
            let flags = OFlags::RDWR | OFlags::NONBLOCK;
            match open_at(&self.fd, name, flags, Mode::empty()) {
                Ok(fd) => return regular(fd),
                Err(Errno::NOENT) => {}
                // It belongs to another user, or lies on a medium that is read-only.
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

/// Takes an exclusive lock without waiting: `Some(true)` if it was had, `Some(false)` if another
/// holds it, `None` where the file system has no locks.
pub(crate) fn try_lock(file: &File) -> io::Result<Option<bool>> {
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(true)),
        Err(Errno::WOULDBLOCK) => Ok(Some(false)),
        // EBADF: NFSv4, if the file could be opened for reading alone (flock(2)).
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOLCK | Errno::BADF) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
