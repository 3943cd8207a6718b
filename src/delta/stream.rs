//! A stream: the bytes that the segments of a patch make, read at any position.
//!
//! The stream of a database of bbolt is the file with filtered pages, which is as long as the file. The stream of any
//! other file is the file itself. The rows of a Java database are first written to a temporary file, which is a plain
//! stream. This module does not know what the bytes mean, and writes nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::delta::bolt_filter::{self, PAGE};

/// The length in bytes of the pieces in which a stream is read from start to end.
pub(crate) const PIECE: usize = 1 << 20;

/// How a stream follows from its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// The stream is the file.
    #[serde(rename = "plain")]
    Plain,
    /// The stream is the file after the filter `bbolt-4k`.
    #[serde(rename = "bbolt-4k")]
    Bolt,
    /// The stream is the rows of a `trivy-java.db`, which are read into a temporary file first.
    #[serde(rename = "java-rows-1")]
    JavaRows,
}

/// An open file that is read as a stream. Its length is the length of the file when it was opened.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The file. It is never written.
    file: File,
    /// The length in bytes.
    length: u64,
    /// How the stream follows from the file.
    form: Form,
}

impl Form {
    /// All forms.
    const ALL: [Form; 3] = [Form::Plain, Form::Bolt, Form::JavaRows];

    /// Returns its name in the payload of a bundle.
    pub fn name(self) -> &'static str {
        match self {
            Form::Plain => "plain",
            Form::Bolt => "bbolt-4k",
            Form::JavaRows => "java-rows-1",
        }
    }

    /// Returns the form with this name.
    pub fn named(name: &str) -> Option<Form> {
        Form::ALL.into_iter().find(|form| form.name() == name)
    }
}

impl Stream {
    /// Creates a stream of a file. The position of the file has no effect, and does not change.
    ///
    /// # Errors
    /// If the length of the file cannot be determined.
    pub(crate) fn new(file: File, form: Form) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Stream { file, length, form })
    }

    /// Returns its form.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Returns the length of the stream in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills a buffer with the bytes of the stream from an offset on.
    ///
    /// # Errors
    /// If the file cannot be read, or the stream ends before the buffer is full.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = u64::try_from(buffer.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.form {
            Form::Plain | Form::JavaRows => self.file.read_exact_at(buffer, offset),
            Form::Bolt => self.read_filtered(buffer, offset),
        }
    }

    /// Fills a buffer with filtered bytes. The range is inside the stream, and may begin and end inside of pages.
    fn read_filtered(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let size = PAGE as u64;
        // The conversion cannot fail, because the remainder is less than PAGE.
        let skip = usize::try_from(offset % size).unwrap_or(0);
        let head = if skip == 0 { 0 } else { (PAGE - skip).min(buffer.len()) };
        let (head, rest) = buffer.split_at_mut(head);
        self.read_part(head, offset / size, skip)?;
        let (body, tail) = rest.split_at_mut(rest.len() / PAGE * PAGE);
        let first = offset.div_ceil(size);
        self.file.read_exact_at(body, first * size)?;
        let mut index = first;
        for page in body.chunks_exact_mut(PAGE) {
            bolt_filter::apply(page, index);
            index += 1;
        }
        self.read_part(tail, index, 0)
    }

    /// Fills a buffer with a part of a filtered page. The page is read completely, because the filter needs it.
    fn read_part(&self, part: &mut [u8], index: u64, skip: usize) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let start = index * PAGE as u64;
        let length = usize::try_from(self.length - start).unwrap_or(PAGE).min(PAGE);
        let mut page = [0; PAGE];
        let (page, _) = page.split_at_mut(length);
        self.file.read_exact_at(page, start)?;
        bolt_filter::apply(page, index);
        let found = page.get(skip..).and_then(|page| page.get(..part.len()));
        part.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Passes the bytes of a range to a function, in pieces of at most [`PIECE`] bytes, with the offset of each piece.
    ///
    /// # Errors
    /// If [`Stream::read`] fails.
    pub(crate) fn for_each_piece(
        &self,
        range: std::ops::Range<u64>,
        mut take: impl FnMut(&[u8], u64),
    ) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut offset = range.start;
        while offset < range.end {
            let left = usize::try_from(range.end - offset).unwrap_or(PIECE);
            let (piece, _) = buffer.split_at_mut(left.min(PIECE));
            self.read(piece, offset)?;
            take(piece, offset);
            offset += piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Stream {
    /// Returns the content digest of the stream. For filtered pages it is not the digest of the file.
    pub(crate) fn digest(&self) -> io::Result<crate::content_digest::ContentDigest> {
        let mut hasher = crate::content_digest::ContentHasher::new();
        self.for_each_piece(0..self.length, |piece, _| hasher.update(piece))?;
        Ok(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content_digest::ContentDigest;
    use crate::delta::samples;

    /// The filtered bytes of a file, computed at once.
    fn filtered(file: &[u8]) -> Vec<u8> {
        let mut bytes = file.to_vec();
        for (index, page) in (0..).zip(bytes.chunks_mut(PAGE)) {
            bolt_filter::apply(page, index);
        }
        bytes
    }

    #[test]
    fn a_plain_stream_is_the_file() {
        let bytes = samples::noise(1, 5000);
        let stream = samples::stream(&bytes, Form::Plain);
        let mut found = vec![0; 1000];
        stream.read(&mut found, 3000).unwrap();
        assert!(found == bytes[3000..4000]);
        assert_eq!(stream.digest().unwrap(), ContentDigest::of(&bytes));
    }

    #[test]
    fn reading_beyond_the_end_is_an_error() {
        for form in [Form::Plain, Form::Bolt] {
            let stream = samples::stream(&samples::bolt(1, 2), form);
            for offset in [8192, 8190, u64::MAX] {
                let error = stream.read(&mut [0; 3], offset).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset}");
            }
            stream.read(&mut [], 8192).unwrap();
        }
    }

    #[test]
    fn the_digest_of_filtered_pages_is_the_digest_of_the_stream() {
        let file = [samples::bolt(1, 300), samples::noise(2, 77)].concat();
        let stream = samples::stream(&file, Form::Bolt);
        assert_eq!(stream.digest().unwrap(), ContentDigest::of(&filtered(&file)));
        assert_ne!(stream.digest().unwrap(), ContentDigest::of(&file));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_range_has_the_bytes_of_the_filtered_file(
            pages in 0..4u64, rest in 0..100usize,
            one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()
        ) {
            let file = [samples::bolt(7, pages), samples::noise(8, rest)].concat();
            let stream = samples::stream(&file, Form::Bolt);
            let (one, other) = (one.index(file.len() + 1), other.index(file.len() + 1));
            let range = one.min(other)..one.max(other);
            let mut found = vec![0; range.len()];
            stream.read(&mut found, range.start as u64).unwrap();
            prop_assert!(found == filtered(&file)[range]);
        }
    }
}
