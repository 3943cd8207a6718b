//! The report of an export.
//!
//! This module is plain data. It neither runs the export nor prints the report.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{Dataset, Image};
use crate::collect::artifact::SkippedSource;
use crate::collect::requirement::{self, MissingSource};
use crate::dataset::MissingItem;
use crate::digest::Digest;
use crate::error::Error;
use crate::export::delta::ExportedDelta;
use crate::export::output::Parity;
use crate::util::text::format_age;

/// The report of an export.
#[derive(Debug, Serialize, Default)]
#[non_exhaustive]
pub struct ExportReport {
    /// The result.
    pub result: ExportResult,
    /// Whether nothing was written because of `--dry-run`.
    pub dry_run: bool,
    /// Whether nothing was written because upstream has nothing new.
    pub unchanged: bool,
    /// The bundle that was written.
    pub bundle: Option<WrittenBundle>,
    /// The datasets.
    pub datasets: Vec<ExportedDataset>,
    /// The databases that the bundle carries as differences.
    pub deltas: Vec<ExportedDelta>,
    /// The images.
    pub images: Vec<ExportedImage>,
    /// The items that the bundle was written without because their sources failed. `errors` holds the
    /// reasons.
    pub missing: Vec<MissingItem>,
    /// The hosts that an export contacts, from a dry run.
    pub hosts: BTreeSet<String>,
    /// The copies in the directory of `--drop`.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub dropped: Vec<PathBuf>,
    /// The program that was put beside the bundle, its digest and the signature.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub program: Vec<PathBuf>,
    /// The heartbeat.
    #[serde(serialize_with = "crate::util::text::serialize_optional_path")]
    pub heartbeat: Option<PathBuf>,
    /// Older bundles that `--keep` removed.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub removed: Vec<PathBuf>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// The errors of sources that failed, and errors after the bundle was written.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// The result of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExportResult {
    /// A complete bundle was written.
    Written,
    /// A bundle was written, but items are missing from it.
    Incomplete,
    /// Nothing was written because upstream has nothing new.
    Unchanged,
    /// Nothing was written because of `--dry-run`.
    #[default]
    DryRun,
}

impl ExportReport {
    /// Adds the missing items.
    pub(crate) fn without(mut self, missing: Vec<MissingSource>) -> Self {
        self.missing = requirement::items(&missing);
        self.errors.splice(0..0, missing.into_iter().map(MissingSource::into_error));
        self
    }
}

/// An image that a bundle carries.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ExportedImage {
    /// Its name.
    pub name: String,
    /// The source that it was fetched from.
    pub source: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The size of all its blobs in bytes.
    pub size: u64,
    /// The number of its manifests, including those of its platforms.
    pub manifests: usize,
}

impl ExportedImage {
    pub(crate) fn new(image: &Image) -> Self {
        ExportedImage {
            name: image.name.clone(),
            source: image.source.clone(),
            digest: image.manifest.digest,
            size: image.size(),
            manifests: image.manifests.len() + 1,
        }
    }
}

/// A bundle that was written.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WrittenBundle {
    /// Its file, or its head volume.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// All its files: the only one, or the head volume and the others.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub files: Vec<PathBuf>,
    /// Its parity files.
    pub parity: Option<WrittenParity>,
    /// Its size in bytes, including all volumes.
    pub length: u64,
    /// The digest of its payload.
    pub identity: Digest,
    /// The fingerprint of the key that signed it.
    pub fingerprint: String,
    /// Its stream.
    pub stream: String,
    /// The date of its creation.
    pub created: Timestamp,
    /// The date after which importers reject it.
    pub expires: Option<Timestamp>,
    /// Its number in the stream; `None` without a state directory.
    pub sequence: Option<u64>,
    /// The override flags that it needed to be written.
    pub overrides: Vec<String>,
    /// Whether it was read back from the medium and compared.
    pub read_back: bool,
    /// Whether it is on a separate file system, such as a USB stick.
    #[serde(skip)]
    pub on_medium: bool,
}

/// The parity files of a bundle.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WrittenParity {
    /// The files.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub files: Vec<PathBuf>,
    /// The length of a shard in bytes.
    pub shard: u64,
    /// The number of damaged shards that can be rebuilt.
    pub shards: usize,
    /// The number of lost files that can be rebuilt.
    pub lost_files: usize,
}

impl WrittenParity {
    pub(crate) fn new(parity: &Parity) -> Self {
        WrittenParity {
            files: parity.names.clone(),
            shard: parity.shape.shard(),
            shards: parity.shape.parity(),
            lost_files: parity.shape.lost_files(),
        }
    }
}

/// A dataset that a bundle carries.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ExportedDataset {
    /// Its name.
    pub name: String,
    /// Its tag.
    pub tag: String,
    /// The source that it was fetched from.
    pub source: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The size of all its blobs in bytes.
    pub size: u64,
    /// Upstream's version, if it has one.
    pub version: Option<String>,
    /// The date when upstream built it, if known.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub updated_at: Option<Timestamp>,
    /// The sources that were skipped, with the reasons.
    #[serde(rename = "passed_over")]
    pub skipped: Vec<SkippedSource>,
    /// Its age, for printing.
    #[serde(skip)]
    pub age: Option<String>,
}

impl ExportedDataset {
    pub(crate) fn new(
        dataset: &Dataset,
        updated_at: Option<Timestamp>,
        skipped: &[SkippedSource],
        now: Timestamp,
    ) -> Self {
        ExportedDataset {
            name: dataset.name.to_string(),
            tag: dataset.tag.clone(),
            source: dataset.source.clone(),
            digest: dataset.manifest.digest,
            size: dataset.blobs().map(|blob| blob.size).sum(),
            version: dataset.version.clone(),
            updated_at,
            skipped: skipped.to_vec(),
            age: updated_at.map(|date| format_age(date, now)),
        }
    }
}
