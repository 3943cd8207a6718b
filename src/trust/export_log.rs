//! The log of exports: records the bundles that this host signed, the keys, and the sources of the
//! data. It has one line of JSON per bundle, and is append-only.
//!
//! The log is in the state directory. No decision depends on it.

use jiff::Timestamp;
use serde::Serialize;

use crate::dataset::MissingItem;
use crate::digest::Digest;
use crate::trust::TrustError;
use crate::trust::log::append_lines;
use crate::util::dir::Dir;

/// The file name, in the state directory.
pub const NAME: &str = "exports.jsonl";

/// A line of the log: a bundle that was signed.
#[derive(Debug, Clone, Serialize)]
pub struct ExportLogEntry {
    /// When the line was written, by this host's clock.
    pub at: Timestamp,
    /// Its stream.
    pub stream: String,
    /// The sha256 of its signed payload.
    pub identity: Digest,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its number in the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The names of its files: the single file, or the head volume and the other volumes.
    pub files: Vec<String>,
    /// Its size in bytes, with all volumes.
    pub length: u64,
    /// The key that signed it: the sha256 of the public key.
    pub keyid: String,
    /// The datasets in it.
    pub datasets: Vec<SignedItem>,
    /// The images in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<SignedItem>,
    /// The requested items that it lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingItem>,
    /// The flags without which it would not have been written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// The version of the program that wrote it.
    pub program: &'static str,
}

/// A dataset or an image that was signed.
#[derive(Debug, Clone, Serialize)]
pub struct SignedItem {
    /// Its reference name, such as `trivy-db-2`, or the name of an image.
    pub name: String,
    /// The source from which it was fetched.
    pub source: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// When upstream built it, if known.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::util::text::serialize_optional_second"
    )]
    pub updated_at: Option<Timestamp>,
    /// The upstream version, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The log file, `exports.jsonl`.
#[derive(Debug)]
pub struct ExportLog {
    dir: Dir,
    mode: u32,
}

impl ExportLog {
    /// Returns the log in a state directory. The file is created with this mode.
    pub(super) fn of(dir: Dir, mode: u32) -> Self {
        ExportLog { dir, mode }
    }

    /// Appends a line and syncs.
    ///
    /// # Errors
    /// [`TrustError::File`] if the log is not a regular file, or cannot be written or synced.
    pub fn append(&self, entry: &ExportLogEntry) -> Result<(), TrustError> {
        let line = |_: u64, lines: &mut Vec<u8>| {
            serde_json::to_writer(&mut *lines, entry)?;
            lines.push(b'\n');
            Ok(())
        };
        append_lines(&self.dir, NAME, self.mode, line)
            .map_err(|error| TrustError::File { path: self.dir.at(NAME), error })
    }
}
