//! Makes a patch: divides the new stream into segments, and compresses each with a window of the base as its prefix.
//!
//! The same streams always give the same bytes, if the version of libzstd is the same: there is one thread, and
//! `DeterministicRefPrefix` makes the result independent of the addresses of the buffers.
//!
//! The largest buffers are a window (64 MiB) and the copy of the segment inside zstd (32 MiB). The segment is passed to
//! zstd in pieces, and the frames go to a file, so that no segment or frame is in memory twice.

use std::io::{self, Read, Seek, Write};
use std::ops::Range;

use tempfile::SpooledTempFile;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, get_error_name};

use super::description::{Invalid, MAX_SEGMENT, MAX_SEGMENTS, MAX_WINDOW, Patch, Segment, check};
use crate::delta::stream::{PIECE, Stream};
use crate::delta::window::Index;

/// The parameters of the frames of segments. Higher levels take 20 times as long, and are larger for hashes.
const INNER: [CParameter; 6] = [
    CParameter::CompressionLevel(9),
    CParameter::WindowLog(27),
    CParameter::EnableLongDistanceMatching(true),
    CParameter::ContentSizeFlag(true),
    CParameter::ChecksumFlag(false),
    CParameter::DeterministicRefPrefix(true),
];
/// The parameters of the outer frame.
const OUTER: [CParameter; 4] = [
    CParameter::CompressionLevel(19),
    CParameter::WindowLog(23),
    CParameter::ContentSizeFlag(true),
    CParameter::ChecksumFlag(false),
];
/// The bytes of frames that are in memory before they go to a temporary file.
const SPOOL: usize = 4 << 20;

/// An error while a patch is made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// The new stream needs too many segments.
    #[error("{0} bytes are too many for a patch")]
    TooLong(u64),
    /// The base cannot be read.
    #[error("cannot read the base of the patch: {0}")]
    Base(io::Error),
    /// The new stream cannot be read.
    #[error("cannot read the new content of the patch: {0}")]
    New(io::Error),
    /// The temporary file for the frames fails.
    #[error("cannot use a temporary file for the patch: {0}")]
    Spool(io::Error),
    /// The patch cannot be written.
    #[error("cannot write the patch: {0}")]
    Write(io::Error),
    /// zstd fails.
    #[error("cannot compress the patch: {0}")]
    Zstd(&'static str),
    /// The description of the patch breaks the rules for patches.
    #[error("cannot make a valid patch: {0}")]
    Invalid(#[from] Invalid),
}

/// The lengths of segments and windows, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The length of all segments but the last.
    pub(super) segment: u32,
    /// The largest length of a window.
    pub(super) window: u32,
}

/// Writes a patch that makes the new stream from the base, and returns its description.
///
/// Without a base, the patch is the compact form of the new stream: its frames without an outer frame, because a second
/// compression takes long and saves nothing there.
///
/// # Errors
/// If a stream cannot be read, the patch cannot be written, a temporary file fails, or the new stream is longer than
/// 32 GiB.
pub(crate) fn make(base: Option<&Stream>, new: &Stream, out: &mut impl Write) -> Result<Patch, MakeError> {
    make_with(base, new, out, Sizes { segment: MAX_SEGMENT, window: MAX_WINDOW })
}

/// Writes a patch with segments and windows of these lengths.
pub(super) fn make_with(
    base: Option<&Stream>,
    new: &Stream,
    out: &mut impl Write,
    sizes: Sizes,
) -> Result<Patch, MakeError> {
    let segments = new.length().div_ceil(sizes.segment.into());
    if usize::try_from(segments).map_or(true, |segments| segments > MAX_SEGMENTS) {
        return Err(MakeError::TooLong(new.length()));
    }
    let patch = match base {
        None => write_frames(None, new, &mut Out { out, failed: MakeError::Write }, sizes)?,
        Some(base) => {
            // The header of the outer frame has the length of all frames, which is known only at the end.
            let mut spool = SpooledTempFile::new(SPOOL);
            let mut frames = Out { out: &mut spool, failed: MakeError::Spool };
            let patch = write_frames(Some(base), new, &mut frames, sizes)?;
            spool.rewind().map_err(MakeError::Spool)?;
            let mut out = Out { out, failed: MakeError::Write };
            let read = |piece: &mut [u8], _| spool.read_exact(piece).map_err(MakeError::Spool);
            compress(&OUTER, &[], 0..patch.frames, read, &mut out)?;
            patch
        }
    };
    check(&patch, base.map(Stream::length), new.length())?;
    Ok(patch)
}

/// A writer, with the error that it causes.
struct Out<'a, W> {
    /// The writer.
    out: &'a mut W,
    /// Converts an error of the writer.
    failed: fn(io::Error) -> MakeError,
}

/// Writes the frames of all segments.
fn write_frames(
    base: Option<&Stream>,
    new: &Stream,
    out: &mut Out<'_, impl Write>,
    sizes: Sizes,
) -> Result<Patch, MakeError> {
    let base = base.map(|base| Base::new(base, sizes.window)).transpose()?;
    let mut patch = Patch { frames: 0, segments: Vec::new() };
    let mut window = Vec::with_capacity(base.as_ref().map_or(0, |base| base.largest_window(sizes)));
    let mut start = 0;
    while start < new.length() {
        let range = start..new.length().min(start + u64::from(sizes.segment));
        let base_offset = match &base {
            Some(base) => base.read_window(new, range.clone(), &mut window)?,
            None => 0,
        };
        let read = |piece: &mut [u8], offset| new.read(piece, offset).map_err(MakeError::New);
        let frame = compress(&INNER, &window, range.clone(), read, out)?;
        patch.segments.push(Segment {
            length: short(range.end - range.start),
            base_offset,
            base_length: short(window.len() as u64),
            frame_length: short(frame),
        });
        patch.frames = patch.frames.saturating_add(frame);
        start = range.end;
    }
    Ok(patch)
}

/// Returns a length as it is in the description. One that is too large becomes one that [`check`] rejects.
fn short(length: u64) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A base, and the index by which its windows are chosen.
struct Base<'a> {
    /// The base stream.
    stream: &'a Stream,
    /// The anchors of the base.
    index: Index,
}

impl<'a> Base<'a> {
    /// Reads a base, for windows of at most this length in bytes.
    fn new(stream: &'a Stream, window: u32) -> Result<Self, MakeError> {
        let index = Index::new(stream, window.into()).map_err(MakeError::Base)?;
        Ok(Base { stream, index })
    }

    /// Returns the largest length in bytes that a window can have.
    fn largest_window(&self, sizes: Sizes) -> usize {
        usize::try_from(self.stream.length().min(sizes.window.into())).unwrap_or(0)
    }

    /// Fills a buffer with the window for a segment, and returns the offset of the window.
    fn read_window(&self, new: &Stream, segment: Range<u64>, window: &mut Vec<u8>) -> Result<u64, MakeError> {
        let range = self.index.window(new, segment).map_err(MakeError::New)?;
        window.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
        self.stream.read(window, range.start).map_err(MakeError::Base)?;
        Ok(range.start)
    }
}

/// Writes one zstd frame of the bytes of a range, and returns its length. `read` fills a buffer from an offset on.
fn compress(
    parameters: &[CParameter],
    prefix: &[u8],
    range: Range<u64>,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), MakeError>,
    out: &mut Out<'_, impl Write>,
) -> Result<u64, MakeError> {
    let mut context = CCtx::try_create().ok_or(MakeError::Zstd("not enough memory"))?;
    for parameter in parameters {
        context.set_parameter(*parameter).map_err(zstd_error)?;
    }
    // zstd writes the size into the header, and allocates no more than it needs for this size.
    context.set_pledged_src_size(Some(range.end - range.start)).map_err(zstd_error)?;
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(zstd_error)?;
    }
    let mut buffer = vec![0; PIECE];
    let mut compressed = vec![0; CCtx::out_size()];
    let (mut offset, mut written) = (range.start, 0);
    loop {
        let left = usize::try_from(range.end - offset).unwrap_or(PIECE);
        let (piece, _) = buffer.split_at_mut(left.min(PIECE));
        read(piece, offset)?;
        offset += piece.len() as u64;
        let is_last = offset == range.end;
        written += compress_piece(&mut context, piece, is_last, &mut compressed, out)?;
        if is_last {
            return Ok(written);
        }
    }
}

/// Compresses the next bytes of a frame, and returns the number of bytes that were written.
fn compress_piece(
    context: &mut CCtx<'_>,
    piece: &[u8],
    is_last: bool,
    compressed: &mut [u8],
    out: &mut Out<'_, impl Write>,
) -> Result<u64, MakeError> {
    let directive = if is_last { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_continue };
    let mut input = InBuffer::around(piece);
    let mut written = 0;
    loop {
        let mut output = OutBuffer::around(&mut *compressed);
        let waiting = context.compress_stream2(&mut output, &mut input, directive).map_err(zstd_error)?;
        let bytes = output.as_slice();
        out.out.write_all(bytes).map_err(out.failed)?;
        written += bytes.len() as u64;
        // At the end, everything has to be written. Before it, zstd may keep compressed bytes.
        if input.pos() == piece.len() && (!is_last || waiting == 0) {
            return Ok(written);
        }
    }
}

/// Converts an error code of zstd.
fn zstd_error(code: usize) -> MakeError {
    MakeError::Zstd(get_error_name(code))
}
