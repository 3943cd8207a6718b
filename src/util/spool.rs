//! The spool: holds small blobs of unknown size, in memory up to a limit and in an unnamed temporary file
//! beyond it.

use std::io::{self, Read, Seek, Write};

use tempfile::SpooledTempFile;

use crate::util::pipe::CHUNK;

/// How much of all blobs that wait at the same time stays in memory, in bytes.
pub(crate) const IN_MEMORY: u64 = 4 << 20;
/// How much of one blob of an export stays in memory, in bytes: it may carry dozens.
pub(crate) const ONE_IN_MEMORY: u64 = 1 << 20;

/// Takes all that a source holds, and rewinds. Up to `in_memory` bytes stay in memory. `failed` says what an
/// error of the source means, and `spooling` what one of the spool itself does.
///
/// # Errors
/// The result of `failed` if the source cannot be read, or of `spooling` if the temporary file cannot be
/// written.
pub(crate) fn spool<E>(
    mut source: impl Read,
    in_memory: u64,
    failed: impl Fn(io::Error) -> E,
    spooling: impl Fn(io::Error) -> E,
) -> Result<SpooledTempFile, E> {
    let mut file = SpooledTempFile::new(usize::try_from(in_memory).unwrap_or(0));
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = source.read(&mut buffer).map_err(&failed)?;
        if count == 0 {
            file.rewind().map_err(spooling)?;
            return Ok(file);
        }
        file.write_all(&buffer[..count]).map_err(&spooling)?;
    }
}
