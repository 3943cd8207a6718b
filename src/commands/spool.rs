//! The spool: where small blobs of an unforeseen size wait, in memory up to a point and in an
//! unnamed temporary file beyond.

use std::io::{self, Read, Seek, Write};

use tempfile::SpooledTempFile;

use crate::dataset::layer::CHUNK;
use crate::error::Error;

/// How much stays in memory, in bytes.
const IN_MEMORY: usize = 4 << 20;

/// Takes all that a source holds, and rewinds. `failed` says what an error of the source means.
pub(super) fn spool(
    mut source: impl Read,
    failed: impl Fn(io::Error) -> Error,
) -> Result<SpooledTempFile, Error> {
    let mut file = SpooledTempFile::new(IN_MEMORY);
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
pub(super) fn spooling(error: io::Error) -> Error {
    Error::Unexpected { doing: format!("holding small blobs in {}", std::env::temp_dir().display()), error }
}
