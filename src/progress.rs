//! The interface through which the library reports progress. The caller decides how it is shown.

use std::io::{self, Read};

/// Receives the progress of long steps, and messages. The library calls it from any thread.
pub trait Progress: Send + Sync {
    /// Begins a step of `total` bytes. `what` names it for users; `from` is the source of the bytes (may be empty).
    fn begin(&self, what: &str, total: u64, from: &str) -> Box<dyn Step>;

    /// Reports an event, such as a skipped source or a wait for a lock.
    fn info(&self, message: &str);

    /// Reports a problem that does not end the operation. It is shown even if only errors are wanted.
    fn warn(&self, message: &str) {
        self.info(message);
    }
}

/// A step. Dropping it ends the step.
pub trait Step: Send {
    /// Adds processed bytes.
    fn advance(&self, bytes: u64);
}

/// A reader that reports its progress.
pub(crate) struct Counted<R> {
    reader: R,
    step: Box<dyn Step>,
}

impl<R> Counted<R> {
    pub(crate) fn new(reader: R, step: Box<dyn Step>) -> Self {
        Counted { reader, step }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.step.advance(count as u64);
        Ok(count)
    }
}

/// A [`Progress`] that shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64, _: &str) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn info(&self, _: &str) {}
}

impl Step for Silent {
    fn advance(&self, _: u64) {}
}
