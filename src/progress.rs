//! Progress: what the library tells whoever watches, and nothing about how it is shown.

use std::io::{self, Read};

/// Receives what a long step has done so far. The library calls it from any thread; the terminal
/// (or nothing at all) stands behind it.
pub trait Progress: Send + Sync {
    /// A step of `total` bytes begins. `what` names it for people, `from` says where the bytes
    /// come from (may be empty).
    fn begin(&self, what: &str, total: u64, from: &str) -> Box<dyn Step>;

    /// Something that is worth a line: a source that was skipped, a wait for a lock.
    fn info(&self, message: &str);

    /// Something that went wrong while work goes on, to be said also if only errors are wanted.
    fn warn(&self, message: &str) {
        self.info(message);
    }
}

/// One step under way; dropping it ends the step.
pub trait Step: Send {
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
}

/// A reader that tells how far it was read.
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

/// Shows nothing.
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
