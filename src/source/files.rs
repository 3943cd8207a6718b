//! Reads files that other users may have written: follows no link below the directory that was named, reads
//! regular files only, and reads no more than a limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::source::error::SourceError;

/// Opens a regular file below `folder`, which itself may be a link. Returns it with its length.
pub(super) fn open(folder: &Path, parts: &[&str]) -> Result<(File, u64), SourceError> {
    let path: PathBuf =
        std::iter::once(folder.as_os_str()).chain(parts.iter().map(|part| part.as_ref())).collect();
    open_parts(folder, parts).map_err(|error| SourceError::Local { path, error })
}

fn open_parts(folder: &Path, parts: &[&str]) -> io::Result<(File, u64)> {
    let only = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(folder, only | OFlags::DIRECTORY, Mode::empty())?;
    let explain = |error: rustix::io::Errno| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            io::Error::other("links are not followed here")
        }
        other => other.into(),
    };
    for (index, part) in parts.iter().enumerate() {
        // Without NONBLOCK a named pipe would hold the program until somebody writes to it.
        let kind = if index + 1 < parts.len() { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        at =
            rustix::fs::openat(&at, *part, only | OFlags::NOFOLLOW | kind, Mode::empty()).map_err(explain)?;
    }
    let file = File::from(at);
    let data = file.metadata()?;
    if data.is_file() { Ok((file, data.len())) } else { Err(io::Error::other("it is not a regular file")) }
}

/// The bytes of a regular file below `folder`, at most `most` of them.
pub(super) fn read(folder: &Path, parts: &[&str], most: u64) -> Result<Vec<u8>, SourceError> {
    let (file, length) = open(folder, parts)?;
    let path = || parts.iter().fold(folder.to_owned(), |path, part| path.join(part));
    let mut bytes = Vec::new();
    let read = if length > most { Ok(0) } else { file.take(most + 1).read_to_end(&mut bytes) };
    read.map_err(|error| SourceError::Local { path: path(), error })?;
    if length > most || bytes.len() as u64 > most {
        return Err(SourceError::TooLarge { subject: path().display().to_string(), most });
    }
    Ok(bytes)
}
