//! Reads files that other users may have written: follows no link below the given directory, reads regular
//! files only, and reads at most a given number of bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::source::error::SourceError;
use crate::util::dir::Dir;

/// Opens a regular file below `directory`, which itself may be a link. Returns it with its length.
pub(super) fn open(directory: &Path, parts: &[&str]) -> Result<(File, u64), SourceError> {
    let path: PathBuf =
        std::iter::once(directory.as_os_str()).chain(parts.iter().map(|part| part.as_ref())).collect();
    open_parts(directory, parts).map_err(|error| SourceError::Local { path, error })
}

fn open_parts(directory: &Path, parts: &[&str]) -> io::Result<(File, u64)> {
    let explain = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::NOTDIR) => io::Error::other("links are not followed here"),
        None => io::Error::other(format!("it is {error}")),
        _ => error,
    };
    let mut dir = Dir::by_path(directory)?;
    let (name, directories) = parts.split_last().ok_or(Errno::NOENT)?;
    for part in directories {
        dir = dir.open(part).map_err(explain)?;
    }
    let file = dir.open_file(name).map_err(explain)?.ok_or(Errno::NOENT)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Reads a regular file below `directory` that has at most `most` bytes.
pub(super) fn read(directory: &Path, parts: &[&str], most: u64) -> Result<Vec<u8>, SourceError> {
    let (file, length) = open(directory, parts)?;
    let path = || parts.iter().fold(directory.to_owned(), |path, part| path.join(part));
    let mut bytes = Vec::new();
    let read = if length > most { Ok(0) } else { file.take(most + 1).read_to_end(&mut bytes) };
    read.map_err(|error| SourceError::Local { path: path(), error })?;
    if length > most || bytes.len() as u64 > most {
        return Err(SourceError::TooLarge { subject: path().display().to_string(), most });
    }
    Ok(bytes)
}
