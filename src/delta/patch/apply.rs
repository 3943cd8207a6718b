//! Applies a patch: decodes its frames and writes the new stream.
//!
//! The patch is untrusted. Its description is checked first, and all memory follows from it: a window (64 MiB), a
//! segment (32 MiB) and the window of the outer frame (8 MiB). zstd decodes a segment directly into a buffer of the
//! described length, so a frame cannot grow beyond it. zstd gets the frames in pieces, so no frame is in memory.
//!
//! With another base, the result is an error or another stream. The caller compares the digest.

use std::io::{self, Read, Write};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::description::{Invalid, MAX_SEGMENT, Patch, Segment, check};
use super::frame::{Expected, Fault, MAX_HEADER, check_header};
use crate::content_digest::{ContentDigest, ContentHasher};
use crate::delta::stream::Stream;

/// The length in bytes of the pieces of frames.
const CHUNK: usize = 128 << 10;
/// The largest window of the outer frame in bytes.
const MAX_OUTER_WINDOW: u64 = 8 << 20;

/// An error while a patch is applied. Segments are counted from 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The description of the patch is invalid.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The base cannot be read.
    #[error("cannot read the base of the patch: {0}")]
    Base(io::Error),
    /// The patch cannot be read.
    #[error("cannot read the patch: {0}")]
    Read(io::Error),
    /// The new stream cannot be written.
    #[error("cannot write the result of the patch: {0}")]
    Write(io::Error),
    /// zstd cannot allocate its state.
    #[error("not enough memory to decode the patch")]
    Memory,
    /// The outer frame is invalid.
    #[error("the outer frame of the patch is invalid: {0}")]
    Outer(Fault),
    /// The frame of a segment is invalid.
    #[error("the frame of segment {segment} of the patch is invalid: {fault}")]
    Segment {
        /// The number of the segment.
        segment: usize,
        /// The reason.
        fault: Fault,
    },
    /// A patch without an outer frame ends before its last frame.
    #[error("the patch is truncated")]
    Truncated,
    /// Other data follows the last frame of a patch without an outer frame.
    #[error("other data follows the last frame of the patch")]
    Trailing,
}

/// Writes the stream that a patch makes from a base, and returns the digest of the stream.
///
/// `base` is the base stream, or `None` if the patch is a compact form. `input` has the patch and nothing else.
/// The caller has checked the description against the signed length of the stream with [`check`].
///
/// # Errors
/// If the description is invalid, a frame is invalid or does not have the described length, there is less or more data
/// than the described frames, or reading or writing fails. Some of the stream may be written then.
pub(crate) fn apply(
    base: Option<&Stream>,
    patch: &Patch,
    input: &mut impl Read,
    out: &mut impl Write,
) -> Result<ContentDigest, ApplyError> {
    check(patch, base.map(Stream::length), patch.length())?;
    let mut frames = match base {
        Some(_) => Frames::Outer(OuterFrame::open(input, patch.frames)?),
        None => Frames::Bare(input),
    };
    let mut window = Vec::with_capacity(largest(patch, |segment| segment.base_length));
    let mut content = Vec::with_capacity(largest(patch, |segment| segment.length));
    let mut hasher = ContentHasher::new();
    for (number, segment) in (1..).zip(&patch.segments) {
        window.resize(size(segment.base_length), 0);
        if let Some(base) = base {
            base.read(&mut window, segment.base_offset).map_err(ApplyError::Base)?;
        }
        content.resize(size(segment.length), 0);
        decode(&mut frames, &window, (number, segment), &mut content)?;
        hasher.update(&content);
        out.write_all(&content).map_err(ApplyError::Write)?;
    }
    frames.finish()?;
    Ok(hasher.finish())
}

/// Returns the largest of the lengths of the segments, so that buffers are allocated once and with no spare room.
fn largest(patch: &Patch, length: impl Fn(&Segment) -> u32) -> usize {
    patch.segments.iter().map(|segment| size(length(segment))).max().unwrap_or(0)
}

/// Returns a checked length as the length of a buffer. On a platform on which it does not fit, decoding fails.
fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(0)
}

/// Decodes the frame of a segment. The content fills the buffer exactly.
fn decode(
    frames: &mut Frames<'_, impl Read>,
    window: &[u8],
    (number, segment): (usize, &Segment),
    content: &mut [u8],
) -> Result<(), ApplyError> {
    let invalid = |fault| ApplyError::Segment { segment: number, fault };
    let corrupt = |code| invalid(Fault::Corrupt(get_error_name(code)));
    let expected = Expected { content: segment.length.into(), window: MAX_SEGMENT.into() };
    let length = content.len();
    let mut context = DCtx::try_create().ok_or(ApplyError::Memory)?;
    // The decoder writes to the buffer itself, and keeps no window of its own.
    context.set_parameter(DParameter::StableOutBuffer(true)).map_err(corrupt)?;
    if !window.is_empty() {
        context.ref_prefix(window).map_err(corrupt)?;
    }
    let mut output = OutBuffer::around(content);
    let mut buffer = vec![0; CHUNK];
    let (mut left, mut is_first, mut is_complete) = (size(segment.frame_length), true, false);
    while left > 0 {
        let (chunk, _) = buffer.split_at_mut(left.min(CHUNK));
        frames.read_exact(chunk)?;
        left -= chunk.len();
        if std::mem::take(&mut is_first) {
            let start = chunk.get(..MAX_HEADER).unwrap_or(chunk);
            check_header(start, expected).map_err(invalid)?;
        }
        let mut input = InBuffer::around(chunk);
        while input.pos() < chunk.len() {
            if is_complete {
                return Err(invalid(Fault::Trailing));
            }
            is_complete = context.decompress_stream(&mut output, &mut input).map_err(corrupt)? == 0;
        }
    }
    match is_complete && output.pos() == length {
        true => Ok(()),
        false => Err(invalid(Fault::Truncated)),
    }
}

/// The concatenated frames of the segments.
enum Frames<'a, R> {
    /// The patch is these frames.
    Bare(&'a mut R),
    /// The patch is an outer frame of these frames.
    Outer(OuterFrame<'a, R>),
}

impl<R: Read> Frames<'_, R> {
    /// Fills a buffer with the next bytes of the frames.
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ApplyError> {
        match self {
            Frames::Outer(frame) => frame.read_exact(buffer),
            Frames::Bare(input) => match input.read_exact(buffer) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ApplyError::Truncated),
                result => result.map_err(ApplyError::Read),
            },
        }
    }

    /// Checks that there is no more data.
    fn finish(self) -> Result<(), ApplyError> {
        match self {
            Frames::Outer(frame) => frame.finish(),
            Frames::Bare(input) => match read_some(input, &mut [0])? {
                0 => Ok(()),
                _ => Err(ApplyError::Trailing),
            },
        }
    }
}

/// The outer frame, decoded while it is read.
struct OuterFrame<'a, R> {
    /// The patch.
    input: &'a mut R,
    /// The state of the decoder.
    context: DCtx<'static>,
    /// The bytes of the patch that were read last.
    buffer: Vec<u8>,
    /// The bytes in the buffer that are not decoded yet.
    waiting: std::ops::Range<usize>,
    /// Whether the end of the frame was decoded.
    is_complete: bool,
}

impl<'a, R: Read> OuterFrame<'a, R> {
    /// Reads and checks the header of a frame with this content size.
    fn open(input: &'a mut R, content: u64) -> Result<Self, ApplyError> {
        let mut buffer = vec![0; CHUNK];
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..MAX_HEADER).filter(|rest| !rest.is_empty()) {
            match read_some(input, rest)? {
                0 => break,
                count => filled += count,
            }
        }
        let expected = Expected { content, window: MAX_OUTER_WINDOW };
        check_header(buffer.get(..filled).unwrap_or_default(), expected).map_err(ApplyError::Outer)?;
        let context = DCtx::try_create().ok_or(ApplyError::Memory)?;
        Ok(OuterFrame { input, context, buffer, waiting: 0..filled, is_complete: false })
    }

    /// Fills a buffer with the next bytes of the content.
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ApplyError> {
        let length = buffer.len();
        let mut output = OutBuffer::around(buffer);
        while output.pos() < length {
            // The header has the described content size, so zstd reports a shorter content itself, as corruption.
            if self.is_complete {
                return Err(ApplyError::Outer(Fault::Truncated));
            }
            self.step(&mut output)?;
        }
        Ok(())
    }

    /// Decodes some of the waiting bytes, and reads more if zstd needs them.
    fn step(&mut self, output: &mut OutBuffer<'_, [u8]>) -> Result<(), ApplyError> {
        let before = output.pos();
        let waiting = self.buffer.get(self.waiting.clone()).unwrap_or_default();
        let mut input = InBuffer::around(waiting);
        let hint = self.context.decompress_stream(output, &mut input);
        let hint = hint.map_err(|code| ApplyError::Outer(Fault::Corrupt(get_error_name(code))))?;
        self.is_complete = hint == 0;
        self.waiting.start += input.pos();
        // zstd can have more content from earlier bytes, even if none are waiting.
        if self.waiting.is_empty() && !self.is_complete && output.pos() == before {
            self.waiting = 0..read_some(self.input, &mut self.buffer)?;
            if self.waiting.is_empty() {
                return Err(ApplyError::Outer(Fault::Truncated));
            }
        }
        Ok(())
    }

    /// Decodes the end of the frame, and checks that no data follows, neither inside of the frame nor after it.
    fn finish(mut self) -> Result<(), ApplyError> {
        while !self.is_complete {
            let mut more = [0];
            let mut output = OutBuffer::around(&mut more[..]);
            self.step(&mut output)?;
            if output.pos() > 0 {
                return Err(ApplyError::Outer(Fault::Trailing));
            }
        }
        match self.waiting.is_empty() && read_some(self.input, &mut [0])? == 0 {
            true => Ok(()),
            false => Err(ApplyError::Outer(Fault::Trailing)),
        }
    }
}

/// Reads some bytes of the patch. The result is 0 only at its end.
fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ApplyError> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(ApplyError::Read),
        }
    }
}
