//! Writes complete files into a directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::fs::{self, Mode};

use crate::util::dir::{Dir, FileMode, Owner};
use crate::util::step;

/// The end of a file's name while it is written.
pub(crate) const TEMPORARY: &str = ".trivy-ferry.tmp";

/// The time to wait for another run that writes the same file. Such files are small.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The durability of a change in a power cut. The caller chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The change, and the content of a new file, may be lost. For files that can be written again.
    Unsynced,
    /// The file and its directory are synced when the function returns.
    Synced,
}

/// A new file under a temporary name, which gets its final name when it is complete. It is removed if it is
/// dropped before that. If the process is killed, it stays until a file with the same temporary name is created.
#[derive(Debug)]
pub(crate) struct PendingFile<'d> {
    dir: &'d Dir,
    file: File,
    temporary: OsString,
    is_complete: bool,
}

impl<'d> PendingFile<'d> {
    /// Creates the file. An existing file with the temporary name is replaced.
    ///
    /// # Errors
    /// If a directory has the temporary name, or the file cannot be created.
    pub fn create(
        dir: &'d Dir,
        temporary: impl Into<OsString>,
        mode: impl Into<FileMode>,
        owner: Option<Owner>,
    ) -> io::Result<Self> {
        let temporary = temporary.into();
        // This program creates no directory of that name, so it must not be removed.
        if dir.unlink(&temporary)? {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = dir.create(&temporary, mode, owner).inspect_err(|_| {
            let _ = dir.unlink(&temporary);
        })?;
        Ok(PendingFile { dir, file, temporary, is_complete: false })
    }

    /// Gives the file its final name, and replaces the file that has it.
    ///
    /// # Errors
    /// If a directory has the name, or the file cannot be synced or renamed.
    pub fn replace(self, name: impl AsRef<OsStr>, durability: Durability) -> io::Result<()> {
        self.finish(durability, |dir, temporary| dir.rename(temporary, dir, name))
    }

    /// Gives the file its final name, which must not exist.
    ///
    /// # Errors
    /// If the name exists (`AlreadyExists`), or the file cannot be synced or renamed.
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
    /// Writes a file under a temporary name and renames it, so that a reader sees either the old or the new content.
    /// A symbolic link is replaced, not followed.
    ///
    /// # Errors
    /// If a directory has the name or the temporary name, or the file cannot be written or renamed.
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

    /// Replaces a file as [`Dir::replace`] does, in a directory where other runs may replace the same file at the same
    /// time. One run waits for the other. The leftover file of a killed run is replaced after [`MAX_WAIT`].
    ///
    /// # Errors
    /// If a directory has the name or the temporary name, or the file cannot be written or renamed.
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
            } else if since.elapsed() >= MAX_WAIT {
                self.unlink(temporary)?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes a file that must not exist. It has its final name from the beginning, so that only one process can
    /// create it. It is removed if it cannot be written.
    ///
    /// # Errors
    /// If the name exists (`AlreadyExists`), the file system cannot make a private file private, or the file cannot be
    /// written.
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
            // Some file systems ignore the mode when a file is created. Changing it shows whether they support it.
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
