//! The files of a pending bundle as one sequence of bytes: the only file, or the head volume and the others.
//!
//! The files stay open from the first byte to the last. None is opened by name again, because
//! another process may have replaced it. This module does not depend on the format of a bundle.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::util::fs::{self, Durability, is_at, rename_new, sync_parent};
use crate::util::step;

/// The open files of a pending bundle, and a position in them. A clone has its own position in the same
/// files.
#[derive(Debug, Clone)]
pub(crate) struct VolumeFiles {
    volume_files: Arc<Vec<VolumeFile>>,
    at: u64,
}

#[derive(Debug)]
struct VolumeFile {
    file: File,
    path: PathBuf,
    start: u64,
    /// The planned length in bytes.
    length: u64,
}

impl VolumeFiles {
    /// Combines files with these planned lengths in bytes.
    pub(crate) fn new(files: Vec<(File, PathBuf, u64)>) -> Self {
        let mut start = 0;
        let volume_file = |(file, path, length)| {
            let volume_file = VolumeFile { file, path, start, length };
            start += length;
            volume_file
        };
        VolumeFiles { volume_files: Arc::new(files.into_iter().map(volume_file).collect()), at: 0 }
    }

    /// The temporary names of the files, the head volume first.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.volume_files.iter().map(|volume_file| volume_file.path.as_path())
    }

    /// The files, the head volume first.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.volume_files.iter().map(|volume_file| &volume_file.file)
    }

    /// The total size of the files in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.volume_files
            .iter()
            .filter_map(|volume_file| volume_file.file.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// Whether each file has exactly its planned length.
    ///
    /// # Errors
    /// If the medium fails.
    pub(crate) fn are_complete(&self) -> io::Result<bool> {
        for volume_file in self.volume_files.iter() {
            if volume_file.file.metadata()?.len() != volume_file.length {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs an action on each file.
    ///
    /// # Errors
    /// If the action fails for a file.
    pub(crate) fn each(&self, action: impl FnMut(&File) -> io::Result<()>) -> io::Result<()> {
        self.files().try_for_each(action)
    }

    /// Cuts the files off after the first `length` bytes.
    ///
    /// # Errors
    /// If the medium fails.
    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        for volume_file in self.volume_files.iter() {
            let keep = length.saturating_sub(volume_file.start).min(volume_file.length);
            if volume_file.file.metadata()?.len() > keep {
                fs::set_len(&volume_file.file, "part", keep)?;
            }
        }
        Ok(())
    }

    /// Returns the file that holds a byte, and its planned length from there on.
    fn find(&self, at: u64) -> Option<(&VolumeFile, u64)> {
        let index =
            self.volume_files.partition_point(|volume_file| volume_file.start + volume_file.length <= at);
        let volume_file = self.volume_files.get(index)?;
        Some((volume_file, volume_file.start + volume_file.length - at))
    }

    /// Reads some bytes; none at the end of the written bytes.
    ///
    /// # Errors
    /// If the medium fails.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let Some((volume_file, left)) = self.find(at) else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        volume_file.file.read_at(&mut buffer[..most], at - volume_file.start)
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// If the medium fails; `UnexpectedEof` if fewer bytes were written.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Renames all files to their final names, the head volume last, because importers find the others by it.
    /// Never replaces a file. If this fails, no file keeps its final name.
    ///
    /// # Errors
    /// If a file cannot be renamed, or if a file with the final name exists.
    pub(crate) fn publish(&self, names: &[PathBuf]) -> io::Result<()> {
        let pairs = || self.volume_files.iter().zip(names);
        let volumes = pairs().skip(1);
        let all = || -> io::Result<()> {
            volumes.clone().try_for_each(|(volume_file, name)| volume_file.publish(name))?;
            // The head volume must not appear before the others.
            volumes.clone().try_for_each(|(_, name)| sync_parent(name))?;
            pairs().take(1).try_for_each(|(volume_file, name)| {
                volume_file.publish(name).and_then(|()| sync_parent(name))
            })
        };
        all().inspect_err(|_| self.withdraw(names))
    }

    /// Renames files back to their temporary names.
    pub(crate) fn withdraw(&self, names: &[PathBuf]) {
        for (volume_file, name) in self.volume_files.iter().zip(names) {
            if is_at(&volume_file.file, name) {
                let _ = fs::rename(name, &volume_file.path, Durability::Unsynced);
            }
        }
    }
}

impl VolumeFile {
    fn publish(&self, name: &Path) -> io::Result<()> {
        let swapped = || io::Error::other("another file was moved to its name");
        is_at(&self.file, &self.path).then_some(()).ok_or_else(swapped)?;
        rename_new(&self.path, name, Durability::Unsynced)?;
        is_at(&self.file, name).then_some(()).ok_or_else(swapped)
    }
}

impl Write for VolumeFiles {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((volume_file, left)) = self.find(self.at) else { return Ok(0) };
        let most = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        step("write", volume_file.path.file_name().unwrap_or_default())?;
        let count = volume_file.file.write_at(&bytes[..most], self.at - volume_file.start)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for VolumeFiles {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self
                .find(0)
                .and(self.volume_files.last())
                .and_then(|last| (last.start + last.length).checked_add_signed(by)),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::names::PARTIAL;
    use std::fs;

    fn volume_files(dir: &Path, lengths: &[u64]) -> VolumeFiles {
        let file = |(number, length): (usize, &u64)| {
            let path = dir.join(format!("{number}{PARTIAL}"));
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            (file, path, *length)
        };
        VolumeFiles::new(lengths.iter().enumerate().map(file).collect())
    }

    #[test]
    fn several_files_are_written_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut all = volume_files(dir.path(), &[10, 3, 4]);
        let bytes: Vec<u8> = (0..17).collect();
        all.write_all(&bytes).unwrap();
        assert!(all.are_complete().unwrap());
        assert_eq!(fs::read(dir.path().join("1.partial")).unwrap(), [10, 11, 12]);
        assert_eq!(all.write(&[1]).unwrap(), 0, "the last file is full");
        let mut found = [0; 6];
        all.read_exact_at(&mut found, 8).unwrap();
        assert_eq!(found, [8, 9, 10, 11, 12, 13]);
        all.seek(SeekFrom::Start(9)).unwrap();
        all.write_all(&[99, 98]).unwrap();
        assert_eq!(fs::read(dir.path().join("1.partial")).unwrap(), [98, 11, 12]);
        all.set_len(11).unwrap();
        assert_eq!((all.size(), all.are_complete().unwrap()), (11, false));
    }

    #[test]
    fn all_files_get_their_names_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let all = volume_files(dir.path(), &[1, 1, 1]);
        let name = |number: usize| dir.path().join(number.to_string());
        let names: Vec<PathBuf> = (0..3).map(name).collect();
        fs::write(name(2), "in the way").unwrap();
        assert!(all.publish(&names).is_err());
        assert!(!name(0).exists() && !name(1).exists(), "no file has its final name");
        assert!(all.paths().all(Path::exists));
        fs::remove_file(name(2)).unwrap();
        all.publish(&names).unwrap();
        assert!(names.iter().all(|name| name.exists()) && !all.paths().any(Path::exists));
    }
}
