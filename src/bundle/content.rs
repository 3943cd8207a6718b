//! Reads the bytes of a bundle at any offset, from one file or from its volumes in order. It interprets
//! neither members nor signatures.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bundle::BundleError;
use crate::util::fs::{self, Links, OpenError};

/// The number of volumes of a bundle that are open at once. A bundle may have hundreds of volumes, and the system limits
/// the open files of a process. Several are open because layers in different volumes are read at once.
const OPEN_AT_ONCE: usize = 8;

/// The bytes of a bundle.
#[derive(Debug)]
pub(super) struct Content {
    /// The file, or the head volume. It stays open.
    head: File,
    head_length: u64,
    volumes: Vec<Volume>,
    /// The open volumes, the most recently read one last.
    open: Mutex<Vec<(usize, Arc<File>)>>,
}

/// A volume after the head, and its range of the bundle.
#[derive(Debug)]
struct Volume {
    path: PathBuf,
    start: u64,
    length: u64,
}

impl Content {
    /// Creates the content of one file.
    pub(super) fn of(head: File, head_length: u64) -> Self {
        Content { head, head_length, volumes: Vec::new(), open: Mutex::default() }
    }

    /// Appends a volume. It is opened when it is read.
    pub(super) fn push(&mut self, path: PathBuf, length: u64) {
        let start = self.length();
        self.volumes.push(Volume { path, start, length });
    }

    /// Returns the length of all files in bytes.
    pub(super) fn length(&self) -> u64 {
        self.volumes.last().map_or(self.head_length, |last| last.start + last.length)
    }

    /// Returns the file, or the head volume.
    pub(super) fn head(&self) -> &File {
        &self.head
    }

    /// Returns the numbers and paths of the volumes after the head that hold some of these bytes.
    pub(super) fn volumes_in(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (usize, &Path)> {
        let holds =
            move |volume: &Volume| volume.start < range.end && range.start < volume.start + volume.length;
        let all = self.volumes.iter().enumerate();
        all.filter(move |(_, volume)| holds(volume)).map(|(index, volume)| (index, volume.path.as_path()))
    }

    /// Reads some bytes and returns their number, which is 0 at the end. If a volume became shorter, its new
    /// end counts as the end of the bundle.
    ///
    /// # Errors
    /// If a volume cannot be opened, or the system cannot read the file.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        if self.volumes.is_empty() || at < self.head_length {
            let most = if self.volumes.is_empty() { u64::MAX } else { self.head_length - at };
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
            return self.head.read_at(&mut buffer[..most], at);
        }
        let index = self.volumes.partition_point(|volume| volume.start + volume.length <= at);
        let Some(volume) = self.volumes.get(index) else { return Ok(0) };
        let left = usize::try_from(volume.start + volume.length - at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        self.volume(index, &volume.path)?.read_at(&mut buffer[..most], at - volume.start)
    }

    /// Fills the buffer.
    ///
    /// # Errors
    /// If a volume cannot be opened, or the system cannot read the file; `UnexpectedEof` if the bundle ends before
    /// the buffer is full.
    pub(super) fn read_exact_at(&self, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn volume(&self, index: usize, path: &Path) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match open.iter().position(|(number, _)| *number == index) {
            Some(at) => open.remove(at).1,
            None => {
                if open.len() >= OPEN_AT_ONCE {
                    drop(open.remove(0));
                }
                Arc::new(open_regular(path).map_err(io::Error::other)?.0)
            }
        };
        open.push((index, file.clone()));
        Ok(file)
    }

    /// Returns a second handle to the same bytes.
    ///
    /// # Errors
    /// If the system has no further file descriptor.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let volume = |v: &Volume| Volume { path: v.path.clone(), start: v.start, length: v.length };
        Ok(Content {
            head: self.head.try_clone()?,
            head_length: self.head_length,
            volumes: self.volumes.iter().map(volume).collect(),
            open: Mutex::default(),
        })
    }
}

/// Opens a regular file without following links. Returns the file and its length in bytes.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), BundleError> {
    let open = |error: io::Error| BundleError::Open { path: path.into(), error };
    let file = fs::open_regular(path, Links::Refuse).map_err(|error| match error {
        OpenError::NotRegular(what) => BundleError::NotAFile { path: path.into(), what },
        OpenError::Io(error) => open(error),
    })?;
    let length = file.metadata().map_err(open)?.len();
    Ok((file, length))
}

/// Whether the path is a regular file that begins with this text.
pub(crate) fn begins_with(path: &Path, text: &str) -> bool {
    let mut begin = vec![0; text.len()];
    open_regular(path).is_ok_and(|(file, _)| file.read_exact_at(&mut begin, 0).is_ok())
        && begin == text.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        let sizes = [100, 1, 300, 299, 300];
        let mut at = 0;
        let paths: Vec<PathBuf> = sizes
            .iter()
            .map(|size| {
                let path = dir.path().join(at.to_string());
                std::fs::write(&path, &all[at..at + size]).unwrap();
                at += size;
                path
            })
            .collect();
        let mut content = Content::of(File::open(&paths[0]).unwrap(), 100);
        for (path, size) in paths.iter().zip(sizes).skip(1) {
            content.push(path.clone(), size as u64);
        }
        assert_eq!(content.length(), 1000);
        for (from, to) in [(0, 1000), (99, 102), (100, 101), (101, 400), (999, 1000), (50, 950)] {
            let mut found = vec![0; to - from];
            content.read_exact_at(&mut found, from as u64).unwrap();
            assert!(found == all[from..to], "{from}..{to}");
        }
        assert_eq!(content.read_at(&mut [0; 9], 1000).unwrap(), 0);
        let end = content.read_exact_at(&mut [0; 2], 999).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        let numbers = |range| content.volumes_in(range).map(|(number, _)| number).collect::<Vec<_>>();
        assert!(numbers(0..100).is_empty());
        assert_eq!(numbers(99..102), [0, 1]);
        assert_eq!(numbers(400..401), [1]);
        assert_eq!(numbers(401..1000), [2, 3]);
    }
}
