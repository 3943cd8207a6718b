//! Reads the bytes of a bundle at any offset, from one file or from its volumes in their order. Knows no
//! members and no signature.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bundle::BundleError;
use crate::util::fs::{self, Links, OpenError};

/// How many volumes of a bundle are open at once. A bundle may have hundreds, and a process may have
/// some thousand files open; several are read at once where layers lie in several volumes.
const OPEN_AT_ONCE: usize = 8;

/// The bytes of a bundle.
#[derive(Debug)]
pub(super) struct Content {
    /// The file, or the head volume: open as long as this lives.
    head: File,
    head_length: u64,
    volumes: Vec<Volume>,
    /// Volumes that were read last, the latest at the end.
    open: Mutex<Vec<(usize, Arc<File>)>>,
}

/// A volume behind the head: a range of the bundle.
#[derive(Debug)]
struct Volume {
    path: PathBuf,
    start: u64,
    length: u64,
}

impl Content {
    /// The bytes of one file.
    pub(super) fn of(head: File, head_length: u64) -> Self {
        Content { head, head_length, volumes: Vec::new(), open: Mutex::default() }
    }

    /// Puts a volume behind what is here. It is opened when it is read.
    pub(super) fn push(&mut self, path: PathBuf, length: u64) {
        let start = self.length();
        self.volumes.push(Volume { path, start, length });
    }

    /// The number of all bytes.
    pub(super) fn length(&self) -> u64 {
        self.volumes.last().map_or(self.head_length, |last| last.start + last.length)
    }

    /// The file, or the head volume.
    pub(super) fn head(&self) -> &File {
        &self.head
    }

    /// The numbers and paths of the volumes behind the head that hold some of these bytes.
    pub(super) fn volumes_in(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = (usize, &Path)> {
        let holds =
            move |volume: &Volume| volume.start < range.end && range.start < volume.start + volume.length;
        let all = self.volumes.iter().enumerate();
        all.filter(move |(_, volume)| holds(volume)).map(|(index, volume)| (index, volume.path.as_path()))
    }

    /// Reads some bytes; none at the end. The end of a volume that has become shorter is the end of all.
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
    /// As [`Content::read_at`], and `UnexpectedEof` if the bundle ends before the buffer is full.
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

    /// The same bytes once more, for whoever keeps them longer.
    ///
    /// # Errors
    /// If the system gives no further file descriptor.
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

/// Opens a regular file, which no link leads to. Gives the file and its length in bytes.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), BundleError> {
    let open = |error: io::Error| BundleError::Open { path: path.into(), error };
    let file = fs::open_regular(path, Links::Refuse).map_err(|error| match error {
        OpenError::NotRegular(what) => BundleError::NotAFile { path: path.into(), what },
        OpenError::Io(error) => open(error),
    })?;
    let length = file.metadata().map_err(open)?.len();
    Ok((file, length))
}

/// Whether a path leads to a regular file that begins with this text.
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
