//! Writes in a separate thread while the caller fetches and validates the next bytes, so that a slow medium
//! is never idle.
//!
//! This module depends on open files and offsets, but not on the format of a bundle.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::export::output::volume_files::VolumeFiles;

/// The size of one write in bytes. Media such as USB sticks are faster with few, long writes.
const CHUNK: usize = 1 << 20;
/// The maximum number of queued chunks.
const DEPTH: usize = 4;

/// A job of the thread. Jobs run in order.
enum Job {
    /// Writes bytes at an offset.
    Write(u64, Vec<u8>),
    /// Runs an action that depends on the earlier writes.
    Then(Box<dyn FnOnce() -> io::Result<()> + Send>),
}

/// Files that a separate thread writes. Errors are returned by a later write or by the flush.
pub(crate) struct WriteBehind {
    volume_files: VolumeFiles,
    /// The offset of the next chunk.
    at: u64,
    chunk: Vec<u8>,
    writer: Option<Writer>,
}

struct Writer {
    jobs: SyncSender<Job>,
    thread: JoinHandle<io::Result<()>>,
}

impl WriteBehind {
    /// Begins to write at offset 0.
    pub(crate) fn new(volume_files: VolumeFiles) -> Self {
        WriteBehind { volume_files, at: 0, chunk: Vec::new(), writer: None }
    }

    /// The files. Bytes that were not flushed may not be in them yet.
    pub(crate) fn volume_files(&self) -> &VolumeFiles {
        &self.volume_files
    }

    /// Flushes everything and returns the files.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn into_volume_files(mut self) -> io::Result<VolumeFiles> {
        self.flush()?;
        Ok(self.volume_files.clone())
    }

    /// Passes the chunk to the thread.
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        let count = chunk.len() as u64;
        self.hand_over(Job::Write(self.at, chunk))?;
        self.at += count;
        Ok(())
    }

    /// Runs an action after everything so far is in the files; does not run it if a write fails.
    ///
    /// # Errors
    /// If an earlier write or action failed.
    pub(crate) fn then(
        &mut self,
        action: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.send()?;
        self.hand_over(Job::Then(Box::new(action)))
    }

    fn hand_over(&mut self, job: Job) -> io::Result<()> {
        let volume_files = &self.volume_files;
        let writer = self.writer.get_or_insert_with(|| Writer::start(volume_files.clone()));
        if writer.jobs.send(job).is_err() {
            self.wait()?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    /// Waits until everything that was passed to the thread is written.
    fn wait(&mut self) -> io::Result<()> {
        let Some(Writer { jobs, thread }) = self.writer.take() else { return Ok(()) };
        drop(jobs);
        thread.join().map_err(|_| io::Error::other("the writing thread panicked"))?
    }
}

impl Writer {
    fn start(mut volume_files: VolumeFiles) -> Self {
        let (jobs, received) = sync_channel(DEPTH);
        let thread = std::thread::spawn(move || {
            received.into_iter().try_for_each(|job| match job {
                Job::Write(at, chunk) => {
                    volume_files.seek(SeekFrom::Start(at))?;
                    volume_files.write_all(&chunk)
                }
                Job::Then(action) => action(),
            })
        });
        Writer { jobs, thread }
    }
}

impl Write for WriteBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.reserve_exact(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.wait()
    }
}

impl Seek for WriteBehind {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.flush()?;
        self.at = self.volume_files.seek(to)?;
        Ok(self.at)
    }
}

impl Drop for WriteBehind {
    /// Waits, so that the files can be removed without a concurrent write.
    fn drop(&mut self) {
        let _ = self.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Two files, the first of which holds 1.5 chunks.
    fn volume_files(dir: &tempfile::TempDir) -> VolumeFiles {
        let file = |name: &str| {
            let path = dir.path().join(name);
            let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            (file, path)
        };
        let ((one, at), (two, there)) = (file("one"), file("two"));
        VolumeFiles::new(vec![(one, at, (CHUNK + CHUNK / 2) as u64), (two, there, 3 * CHUNK as u64)])
    }

    #[test]
    fn all_written_bytes_are_in_the_files_after_the_flush() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = WriteBehind::new(volume_files(&dir));
        let bytes: Vec<u8> = (0..3 * CHUNK + 17).map(|index| (index % 251) as u8).collect();
        for piece in bytes.chunks(99_991) {
            out.write_all(piece).unwrap();
        }
        out.seek(SeekFrom::Start(5)).unwrap();
        out.write_all(b"over").unwrap();
        let (one, dir_path) = (dir.path().join("one"), dir.path().join("then"));
        out.then(move || std::fs::write(dir_path, &std::fs::read(one)?[5..9])).unwrap();
        out.flush().unwrap();
        let mut wanted = bytes;
        wanted[5..9].copy_from_slice(b"over");
        let found =
            [std::fs::read(dir.path().join("one")).unwrap(), std::fs::read(dir.path().join("two")).unwrap()];
        assert!(found.concat() == wanted);
        assert_eq!(std::fs::read(dir.path().join("then")).unwrap(), b"over");
    }

    #[test]
    fn an_error_is_returned_by_the_flush_at_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "").unwrap();
        let read_only = VolumeFiles::new(vec![(File::open(&path).unwrap(), path, 10 * CHUNK as u64)]);
        let mut out = WriteBehind::new(read_only);
        let written = (0..20).try_for_each(|_| out.write_all(&[1; CHUNK / 2])).and_then(|()| out.flush());
        assert_eq!(written.unwrap_err().raw_os_error(), Some(9), "EBADF and nothing else");
    }
}
