//! Holds small blobs of unknown size: in memory up to a limit, and in an unnamed temporary file beyond it.

use std::io::{self, Read, Seek, Write};

use tempfile::SpooledTempFile;

use crate::util::pipe::for_each_chunk;

/// The bytes in memory for all blobs that wait at the same time.
pub(crate) const IN_MEMORY: u64 = 4 << 20;
/// The bytes in memory for one blob of an export, which may have dozens of blobs.
pub(crate) const ONE_IN_MEMORY: u64 = 1 << 20;

/// Copies all data of a source, and rewinds the copy. Up to `in_memory` bytes stay in memory. `failed` converts an
/// error of the source, and `spooling` an error of the temporary file.
///
/// # Errors
/// The result of `failed` if the source cannot be read, or of `spooling` if the temporary file cannot be
/// written.
pub(crate) fn spool<E>(
    source: impl Read,
    in_memory: u64,
    failed: impl Fn(io::Error) -> E,
    spooling: impl Fn(io::Error) -> E,
) -> Result<SpooledTempFile, E> {
    let mut file = SpooledTempFile::new(usize::try_from(in_memory).unwrap_or(0));
    for_each_chunk(source, failed, |bytes| file.write_all(bytes).map_err(&spooling))?;
    file.rewind().map_err(spooling)?;
    Ok(file)
}
