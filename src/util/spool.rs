//! The spool: where small blobs of an unforeseen size wait, in memory up to a point and in an
//! unnamed temporary file beyond.

use std::io::{self, Read, Seek, Write};

use tempfile::SpooledTempFile;

use crate::dataset::layer::CHUNK;
use crate::error::Error;

/// How much of all blobs that wait at the same time stays in memory, in bytes.
pub(crate) const IN_MEMORY: u64 = 4 << 20;
/// How much of one blob of an export stays in memory, in bytes: it may carry dozens.
pub(crate) const ONE_IN_MEMORY: u64 = 1 << 20;

/// Takes all that a source holds, and rewinds. Up to `in_memory` bytes stay in memory. `failed` says what
/// an error of the source means.
pub(crate) fn spool(
    mut source: impl Read,
    in_memory: u64,
    failed: impl Fn(io::Error) -> Error,
) -> Result<SpooledTempFile, Error> {
    let mut file = SpooledTempFile::new(usize::try_from(in_memory).unwrap_or(0));
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = source.read(&mut buffer).map_err(&failed)?;
        if count == 0 {
            file.rewind().map_err(spooling)?;
            return Ok(file);
        }
        file.write_all(&buffer[..count]).map_err(spooling)?;
    }
}

/// What an error of the spool itself means.
pub(crate) fn spooling(error: io::Error) -> Error {
    Error::Unexpected { doing: format!("holding small blobs in {}", std::env::temp_dir().display()), error }
}
