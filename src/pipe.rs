//! A bounded pipe between two threads, so that reading, hashing, inflating and writing overlap.
//!
//! The writing end is `io::Write`, the reading end `io::Read`. An end that was dropped early is
//! an error on the other side: a reader never takes a cut stream for a whole one.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The chunks under way at the most. With chunks of 128 KiB a pipe holds about 1 MiB.
const DEPTH: usize = 8;

/// What the reading end reports when the writing end gave up: the reason is on that side.
#[derive(Debug, thiserror::Error)]
#[error("the data ended early")]
pub struct Upstream;

/// The writing end. [`PipeWriter::finish`] marks the end of the data.
pub struct PipeWriter(SyncSender<Option<Vec<u8>>>);

/// The reading end.
pub struct PipeReader {
    chunks: Receiver<Option<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    done: bool,
}

/// A new pipe.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, chunks) = sync_channel(DEPTH);
    (PipeWriter(sender), PipeReader { chunks, chunk: Vec::new(), at: 0, done: false })
}

impl PipeWriter {
    /// All data is written. Without this the reading end reports [`Upstream`].
    pub fn finish(self) {
        // A reader that is gone has its own error to report.
        let _ = self.0.send(None);
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.0.send(Some(bytes.to_vec())).map_err(|_| io::ErrorKind::BrokenPipe)?;
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
            match self.chunks.recv() {
                Ok(Some(chunk)) => (self.chunk, self.at) = (chunk, 0),
                Ok(None) => self.done = true,
                Err(_) => return Err(io::Error::other(Upstream)),
            }
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
    fn what_goes_in_comes_out() {
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
    fn a_stream_that_was_cut_is_never_taken_for_whole() {
        let (mut writer, mut reader) = pipe();
        writer.write_all(b"half").unwrap();
        drop(writer);
        let mut out = Vec::new();
        assert!(reader.read_to_end(&mut out).unwrap_err().get_ref().unwrap().is::<Upstream>());
        let (mut writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
