//! Writing whole files into a directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::fs::{self, Mode};

use crate::util::dir::{Dir, FileMode, Owner};
use crate::util::step;

/// What stands behind a file's name while it is written.
pub(crate) const TEMPORARY: &str = ".trivy-ferry.tmp";

/// How long a file that another run writes is waited for. Such files are small.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a power cut may take of a change. Whoever asks for the change says so; nothing below decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The change may be lost, and of a new file the content: for what can be made again.
    Unsynced,
    /// The file and its directory are synced when the function returns.
    Synced,
}

/// A new file under a temporary name, which gets its own name when it is complete. It is removed if it is
/// dropped before; if the process is killed, it stays until a file of the same temporary name is begun.
#[derive(Debug)]
pub(crate) struct PendingFile<'d> {
    dir: &'d Dir,
    file: File,
    temporary: OsString,
    is_complete: bool,
}

impl<'d> PendingFile<'d> {
    /// Begins a file. What has the temporary name is replaced.
    ///
    /// # Errors
    /// A directory has the temporary name, or the system refuses.
    pub fn create(
        dir: &'d Dir,
        temporary: impl Into<OsString>,
        mode: impl Into<FileMode>,
        owner: Option<Owner>,
    ) -> io::Result<Self> {
        let temporary = temporary.into();
        // A directory of that name is none of ours, and nothing in it is removed.
        if dir.unlink(&temporary)? {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = dir.create(&temporary, mode, owner).inspect_err(|_| {
            let _ = dir.unlink(&temporary);
        })?;
        Ok(PendingFile { dir, file, temporary, is_complete: false })
    }

    /// Gives the file its name, in the place of the file that has it.
    ///
    /// # Errors
    /// A directory has the name, or the system refuses.
    pub fn replace(self, name: impl AsRef<OsStr>, durability: Durability) -> io::Result<()> {
        self.finish(durability, |dir, temporary| dir.rename(temporary, dir, name))
    }

    /// Gives the file a name that nothing has.
    ///
    /// # Errors
    /// Something has the name (`AlreadyExists`), or the system refuses.
    pub fn put_new(self, name: impl AsRef<OsStr>, durability: Durability) -> io::Result<()> {
        self.finish(durability, |dir, temporary| dir.rename_new(temporary, dir, name))
    }

    fn finish(
        mut self,
        durability: Durability,
        rename: impl FnOnce(&Dir, &OsStr) -> io::Result<()>,
    ) -> io::Result<()> {
        if durability == Durability::Synced {
            self.file.sync_all()?;
        }
        rename(self.dir, &self.temporary)?;
        self.is_complete = true;
        match durability {
            Durability::Unsynced => Ok(()),
            Durability::Synced => self.dir.sync(),
        }
    }
}

impl Write for PendingFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        step("write", &self.temporary)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PendingFile<'_> {
    fn drop(&mut self) {
        if !self.is_complete {
            let _ = self.dir.unlink(&self.temporary);
        }
    }
}

impl Dir {
    /// Writes a file under a temporary name and renames it, so that a reader sees the old one or the new one.
    /// What has the name is replaced, also a symbolic link.
    ///
    /// # Errors
    /// A directory has the name or the temporary one, or the system refuses.
    pub fn replace(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: impl Into<FileMode>,
        owner: Option<Owner>,
        durability: Durability,
    ) -> io::Result<()> {
        let mut temporary = name.as_ref().to_owned();
        temporary.push(TEMPORARY);
        let mut file = PendingFile::create(self, temporary, mode, owner)?;
        file.write_all(bytes)?;
        file.replace(name, durability)
    }

    /// As [`Dir::replace`], in a directory where other runs may replace the same file at the same time: one waits for
    /// the other. What a killed run left is replaced after [`PATIENCE`].
    ///
    /// # Errors
    /// As [`Dir::replace`].
    pub fn replace_beside_others(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: FileMode,
        owner: Option<Owner>,
        durability: Durability,
    ) -> io::Result<()> {
        let mut temporary = name.as_ref().to_owned();
        temporary.push(TEMPORARY);
        let file = self.create_beside_others(&temporary, mode, owner)?;
        let mut file = PendingFile { dir: self, file, temporary, is_complete: false };
        file.write_all(bytes)?;
        file.replace(name, durability)
    }

    fn create_beside_others(
        &self,
        temporary: &OsStr,
        mode: FileMode,
        owner: Option<Owner>,
    ) -> io::Result<File> {
        let mut waits_for = None;
        loop {
            let error = match self.create(temporary, mode, owner) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => error,
                other => return other,
            };
            let Some(there) = self.find(temporary)? else { continue };
            if there.is_dir() {
                return Err(error);
            }
            let (id, since) = waits_for.get_or_insert((there.inode, Instant::now()));
            if *id != there.inode {
                waits_for = None;
            } else if since.elapsed() >= PATIENCE {
                self.unlink(temporary)?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a file that must not exist. It has its name from the beginning, which so belongs to one process
    /// alone; it is removed again if it cannot be written.
    ///
    /// # Errors
    /// Something has the name (`AlreadyExists`), the file is for its owner alone and the file system refuses
    /// that, or the system refuses.
    pub fn write_new(
        &self,
        name: impl AsRef<OsStr>,
        bytes: &[u8],
        mode: impl Into<FileMode>,
        durability: Durability,
    ) -> io::Result<()> {
        let name = name.as_ref();
        let mode = mode.into();
        let mut file = self.create(name, mode, None)?;
        let mut write = || -> io::Result<()> {
            // What creates a file takes a mode for a wish.
            if mode.bits() & 0o077 == 0 && !matches!(mode, FileMode::Shared(_)) {
                fs::fchmod(&file, Mode::from_raw_mode(mode.bits()))?;
            }
            step("write", name)?;
            file.write_all(bytes)?;
            match durability {
                Durability::Unsynced => Ok(()),
                Durability::Synced => file.sync_all().and_then(|()| self.sync()),
            }
        };
        write().inspect_err(|_| {
            let _ = self.unlink(name);
        })
    }
}
