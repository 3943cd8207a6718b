//! A bounded pipe between two threads, so that reading, hashing, decompressing and writing overlap.
//!
//! The writing end is `io::Write`, the reading end `io::Read`. If one end is dropped early, the other gets
//! an error, so that truncated data never looks complete.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The unit in which large data is passed on, in bytes.
pub const CHUNK: usize = 128 << 10;

/// Passes all data of a source to a function, in chunks. `failed` converts an error of the source, so that it differs
/// from those of the function.
///
/// # Errors
/// The result of `failed` if the source cannot be read; the first error of `take`.
pub(crate) fn for_each_chunk<E>(
    mut source: impl Read,
    failed: impl Fn(io::Error) -> E,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The most chunks that a pipe holds, about 1 MiB.
const DEPTH: usize = 8;

/// The error of the reading end if the writing end was dropped early. The writing side reports the cause.
#[derive(Debug, thiserror::Error)]
#[error("the data ended early")]
pub struct WriterGaveUp;

/// The writing end. [`PipeWriter::finish`] marks the end of the data.
pub struct PipeWriter(SyncSender<Chunk>);

/// The next bytes, an empty list at the end, or an error of the source.
type Chunk = io::Result<Vec<u8>>;

/// The reading end.
pub struct PipeReader {
    chunks: Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
    done: bool,
}

/// Creates a pipe.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, chunks) = sync_channel(DEPTH);
    (PipeWriter(sender), PipeReader { chunks, chunk: Vec::new(), at: 0, done: false })
}

impl PipeWriter {
    /// Marks the end of the data. Without this, the reading end reports [`WriterGaveUp`].
    pub fn finish(self) {
        // If the reader was dropped, it reports its own error.
        let _ = self.0.send(Ok(Vec::new()));
    }

    /// Passes on all data of a source, and its error if reading fails.
    pub fn drain(self, mut source: impl Read) {
        loop {
            let mut bytes = vec![0; CHUNK];
            let (chunk, last) = match source.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (Err(error), true),
                Ok(count) => {
                    bytes.truncate(count);
                    (Ok(bytes), count == 0)
                }
            };
            if self.0.send(chunk).is_err() || last {
                return;
            }
        }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.send(Ok(bytes.to_vec())).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() && !self.done {
            self.chunk = self.chunks.recv().map_err(|_| io::Error::other(WriterGaveUp))??;
            (self.at, self.done) = (0, self.chunk.is_empty());
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_gets_all_written_bytes() {
        let (mut writer, mut reader) = pipe();
        let data: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let copy = data.clone();
        let thread = std::thread::spawn(move || {
            for chunk in copy.chunks(70_001) {
                writer.write_all(chunk).unwrap();
            }
            writer.finish();
        });
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        thread.join().unwrap();
        assert!(out == data);
    }

    #[test]
    fn the_reader_gets_the_error_of_a_drained_source() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
        let (writer, mut reader) = pipe();
        let thread = std::thread::spawn(move || writer.drain((&[7; 300_000][..]).chain(Broken)));
        let mut out = Vec::new();
        assert_eq!(reader.read_to_end(&mut out).unwrap_err().kind(), io::ErrorKind::TimedOut);
        thread.join().unwrap();
        assert_eq!(out, [7; 300_000]);
        let (writer, mut reader) = pipe();
        writer.drain(&b"complete"[..]);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "complete");
    }

    #[test]
    fn truncated_data_never_looks_complete() {
        let (mut writer, mut reader) = pipe();
        writer.write_all(b"half").unwrap();
        drop(writer);
        let mut out = Vec::new();
        assert!(reader.read_to_end(&mut out).unwrap_err().get_ref().unwrap().is::<WriterGaveUp>());
        let (mut writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
