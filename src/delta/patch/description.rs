//! The description of a patch, and its rules. It is part of the signed payload. This module reads no patch.

use serde::{Deserialize, Serialize};
use zstd::zstd_safe::compress_bound;

/// The largest length of a segment in bytes. `make` uses this length for all segments but the last.
pub(crate) const MAX_SEGMENT: u32 = 32 << 20;
/// The largest length of a window in bytes.
pub(crate) const MAX_WINDOW: u32 = 64 << 20;
/// The largest number of segments of a patch.
pub(crate) const MAX_SEGMENTS: usize = 1024;

/// A part of the new stream. In JSON it is `[length, base offset, base length, frame length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, u32, u32)", into = "(u32, u64, u32, u32)")]
pub struct Segment {
    /// The length of the segment in bytes.
    pub length: u32,
    /// The offset of its window in the base stream.
    pub base_offset: u64,
    /// The length of its window in bytes. If it is 0, the segment is compressed without a prefix.
    pub base_length: u32,
    /// The length of its zstd frame in bytes.
    pub frame_length: u32,
}

impl From<(u32, u64, u32, u32)> for Segment {
    fn from((length, base_offset, base_length, frame_length): (u32, u64, u32, u32)) -> Self {
        Segment { length, base_offset, base_length, frame_length }
    }
}

impl From<Segment> for (u32, u64, u32, u32) {
    fn from(segment: Segment) -> Self {
        (segment.length, segment.base_offset, segment.base_length, segment.frame_length)
    }
}

/// The description of a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// The sum of the lengths of the frames in bytes, which is also the content size of the outer frame.
    pub frames: u64,
    /// The segments in the order of the stream.
    pub segments: Vec<Segment>,
}

impl Patch {
    /// Returns the sum of the lengths of the segments in bytes.
    pub fn length(&self) -> u64 {
        sum(self.segments.iter().map(|segment| segment.length))
    }
}

/// Adds lengths in bytes. A sum that does not fit is the largest number, which no limit accepts.
fn sum(lengths: impl Iterator<Item = u32>) -> u64 {
    lengths.fold(0, |sum: u64, length| sum.saturating_add(length.into()))
}

/// The reason why the description of a patch is invalid. Segments are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// There are too many segments.
    #[error("the patch has {0} segments (limit: {MAX_SEGMENTS})")]
    Segments(usize),
    /// A segment is empty or too long.
    #[error("segment {segment} of the patch has {length} bytes (limit: 1 to {MAX_SEGMENT})")]
    SegmentLength {
        /// The number of the segment.
        segment: usize,
        /// Its length in bytes.
        length: u32,
    },
    /// A window is too long.
    #[error("segment {segment} of the patch uses {length} bytes of the base (limit: {MAX_WINDOW})")]
    WindowLength {
        /// The number of the segment.
        segment: usize,
        /// The length of its window in bytes.
        length: u32,
    },
    /// A window is not inside the base.
    #[error("segment {segment} of the patch uses bytes after the end of the base")]
    OutsideBase {
        /// The number of the segment.
        segment: usize,
    },
    /// A patch without a base has a window.
    #[error("segment {segment} of the patch uses a base, but the patch has none")]
    NoBase {
        /// The number of the segment.
        segment: usize,
    },
    /// A frame is empty, or longer than zstd makes it for any content.
    #[error("the frame of segment {segment} of the patch has {length} bytes (limit: 1 to {limit})")]
    FrameLength {
        /// The number of the segment.
        segment: usize,
        /// The length of its frame in bytes.
        length: u32,
        /// The largest possible length.
        limit: usize,
    },
    /// The frames have another length together.
    #[error("the frames of the patch have {found} bytes, but the patch is described with {expected}")]
    Frames {
        /// The sum in the description.
        expected: u64,
        /// The sum of the lengths.
        found: u64,
    },
    /// The segments have another length together than the stream.
    #[error("the segments of the patch have {found} bytes, but the stream has {expected}")]
    Length {
        /// The length of the stream in bytes.
        expected: u64,
        /// The sum of the lengths.
        found: u64,
    },
}

/// Checks the description of a patch before memory is allocated for it or anything is read.
///
/// `base` is the length of the base stream, if the patch has a base. `stream` is the length of the new stream.
///
/// # Errors
/// If a number is outside of its limits, a window is not inside the base, or a sum is different. The first reason is
/// returned.
pub(crate) fn check(patch: &Patch, base: Option<u64>, stream: u64) -> Result<(), Invalid> {
    if patch.segments.len() > MAX_SEGMENTS {
        return Err(Invalid::Segments(patch.segments.len()));
    }
    for (number, segment) in (1..).zip(&patch.segments) {
        check_segment(number, segment, base)?;
    }
    let frames = sum(patch.segments.iter().map(|segment| segment.frame_length));
    if frames != patch.frames {
        return Err(Invalid::Frames { expected: patch.frames, found: frames });
    }
    match patch.length() {
        length if length == stream => Ok(()),
        length => Err(Invalid::Length { expected: stream, found: length }),
    }
}

/// Checks the description of a segment with this number.
fn check_segment(number: usize, segment: &Segment, base: Option<u64>) -> Result<(), Invalid> {
    let Segment { length, base_offset, base_length, frame_length } = *segment;
    if !(1..=MAX_SEGMENT).contains(&length) {
        return Err(Invalid::SegmentLength { segment: number, length });
    }
    if base_length > MAX_WINDOW {
        return Err(Invalid::WindowLength { segment: number, length: base_length });
    }
    match base {
        None if base_offset > 0 || base_length > 0 => return Err(Invalid::NoBase { segment: number }),
        None => {}
        Some(base) => {
            let end = base_offset.checked_add(base_length.into());
            if end.is_none_or(|end| end > base) {
                return Err(Invalid::OutsideBase { segment: number });
            }
        }
    }
    let limit = usize::try_from(length).map_or(0, compress_bound);
    match usize::try_from(frame_length) {
        Ok(found) if (1..=limit).contains(&found) => Ok(()),
        _ => Err(Invalid::FrameLength { segment: number, length: frame_length, limit }),
    }
}
