//! Writes a file from its stream: undoes the page filter, and computes the content digest of the file.
//!
//! It is the inverse of [`crate::delta::stream`]. It does not know where the bytes come from, and does not compare the
//! digest.

use std::io::{self, Write};

use crate::content_digest::{ContentDigest, ContentHasher};
use crate::delta::bolt_filter::{self, PAGE};
use crate::delta::stream::Form;

/// The pages in memory.
const PAGES: usize = 256;

/// Takes the bytes of a stream and passes the bytes of the file on. [`FileWriter::finish`] writes the rest. After an
/// error the file is incomplete.
pub(crate) struct FileWriter<W> {
    /// The file.
    out: W,
    /// The form of its stream.
    form: Form,
    /// The digest of the bytes that were written.
    hasher: ContentHasher,
    /// The number of bytes that were written.
    length: u64,
    /// The filtered bytes that are not written yet. They begin on a page boundary.
    waiting: Vec<u8>,
    /// The index of the first page of `waiting`.
    index: u64,
}

impl<W: Write> FileWriter<W> {
    /// Creates a writer of a file whose stream has this form.
    pub(crate) fn new(out: W, form: Form) -> Self {
        let capacity = if form == Form::Bolt { PAGES * PAGE } else { 0 };
        let waiting = Vec::with_capacity(capacity);
        FileWriter { out, form, hasher: ContentHasher::new(), length: 0, waiting, index: 0 }
    }

    /// Writes the remaining bytes, and returns the content digest and the length of the file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn finish(mut self) -> io::Result<(ContentDigest, u64)> {
        self.drain()?;
        self.out.flush()?;
        Ok((self.hasher.finish(), self.length))
    }

    /// Restores and writes the waiting bytes. If the last page is incomplete, it has to be the end of the file.
    fn drain(&mut self) -> io::Result<()> {
        for page in self.waiting.chunks_mut(PAGE) {
            bolt_filter::undo(page, self.index);
            self.index += 1;
        }
        self.hasher.update(&self.waiting);
        self.length += self.waiting.len() as u64;
        let written = self.out.write_all(&self.waiting);
        self.waiting.clear();
        written
    }
}

impl<W: Write> Write for FileWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.form != Form::Bolt {
            let count = self.out.write(bytes)?;
            self.hasher.update(bytes.get(..count).ok_or(io::ErrorKind::InvalidData)?);
            self.length += count as u64;
            return Ok(count);
        }
        if self.waiting.len() == PAGES * PAGE {
            self.drain()?;
        }
        let room = (PAGES * PAGE).saturating_sub(self.waiting.len());
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        self.waiting.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Flushes the file. Pages that are not complete yet remain in memory.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::samples;

    #[test]
    fn the_written_file_is_the_file_of_the_stream() {
        for form in [Form::Plain, Form::Bolt] {
            for (pages, rest) in [(0, 0), (0, 9), (1, 0), (600, 77)] {
                let file = [samples::bolt(3, pages), samples::noise(4, rest)].concat();
                let stream = samples::stream(&file, form);
                let mut out = Vec::new();
                let mut writer = FileWriter::new(&mut out, form);
                let end = stream.length();
                stream
                    .for_each_piece(0..end, |piece, _| {
                        // Pieces of an odd length, so that pages are divided.
                        piece.chunks(10_007).for_each(|part| writer.write_all(part).unwrap());
                    })
                    .unwrap();
                let found = writer.finish().unwrap();
                assert_eq!(found, (ContentDigest::of(&file), file.len() as u64));
                assert!(out == file, "{form:?}, {pages} pages and {rest} bytes");
            }
        }
    }

    #[test]
    fn a_full_disk_is_an_error_in_both_forms() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for form in [Form::Plain, Form::Bolt] {
            let mut writer = FileWriter::new(Full, form);
            let result = writer.write_all(&[0; 5000]).and_then(|()| writer.finish());
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull, "{form:?}");
        }
    }
}
