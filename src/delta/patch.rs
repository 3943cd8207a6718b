//! A patch: what makes a new stream from a base stream, or from nothing.
//!
//! The new stream is divided into segments of at most 32 MiB. Each segment is one zstd frame, compressed with a window
//! of the base as its prefix. The frames are concatenated. If there is a base, the result is compressed a second
//! time in an outer frame: zstd writes some bytes for each block of 128 KiB even if nothing changed, and these bytes
//! compress well.
//!
//! `Patch` describes the frames and is part of the signed payload. Segments have no position of their own: each
//! begins at the end of the previous one, so they can neither overlap nor leave a gap. The frames are untrusted. They
//! are decoded within limits that follow from the description (`check`). Whether the result is accepted depends
//! only on its digest.
//!
//! `make()` writes patches, `apply()` reads them. Neither knows about files, rows, bundles or signatures.

mod apply;
mod description;
mod frame;
mod make;
#[cfg(test)]
mod tests;

pub(crate) use apply::{ApplyError, apply};
pub(crate) use description::check;
pub use description::{Patch, Segment};
pub(crate) use make::make;
