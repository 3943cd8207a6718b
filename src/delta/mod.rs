//! Deltas between two versions of a file.
//!
//! A file is sent as a stream (`stream`): the file itself, the file with filtered pages (`bolt_filter`), or the
//! rows of a database. A patch (`patch`) makes the new stream from the base stream, segment by segment. `window`
//! chooses the part of the base that each segment refers to. `file_writer` turns the new stream into the file.

pub(crate) mod bolt_filter;
pub(crate) mod file_writer;
pub(crate) mod java;
pub mod patch;
pub mod stream;
pub(crate) mod window;

#[cfg(test)]
mod samples;
