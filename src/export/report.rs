//! What an export did.
//!
//! Plain data: knows neither how it came about nor how it is printed.

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
use crate::export::output::Parity;
use crate::util::text::format_age;

/// What an export did.
#[derive(Debug, Serialize, Default)]
#[non_exhaustive]
pub struct ExportReport {
    /// What it came to.
    pub result: ExportResult,
    /// Nothing was written.
    pub dry_run: bool,
    /// Upstream has nothing new: nothing was written.
    pub unchanged: bool,
    /// The bundle that was written.
    pub bundle: Option<WrittenBundle>,
    /// The datasets.
    pub datasets: Vec<ExportedDataset>,
    /// The images.
    pub images: Vec<ExportedImage>,
    /// What was to be carried and could not be had: the errors say the same. The bundle was written without it.
    pub missing: Vec<MissingItem>,
    /// The hosts that a dry run found to be asked, in the order of the alphabet.
    pub hosts: BTreeSet<String>,
    /// What was put into the folder of --drop.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub dropped: Vec<PathBuf>,
    /// The heartbeat.
    #[serde(serialize_with = "crate::util::text::serialize_optional_path")]
    pub heartbeat: Option<PathBuf>,
    /// Older bundles that --keep did not keep.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub removed: Vec<PathBuf>,
    /// What the operator has to know.
    pub warnings: Vec<String>,
    /// What could not be had, and what went wrong after the bundle was written.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// What an export came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExportResult {
    /// A bundle with everything was written.
    Written,
    /// A bundle was written, and something is missing in it.
    Incomplete,
    /// Upstream has nothing new: nothing was written.
    Unchanged,
    /// Nothing was to be written.
    #[default]
    DryRun,
}

impl ExportReport {
    /// Adds what is missing.
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
    /// Where it was fetched from.
    pub source: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The bytes of all its blobs.
    pub size: u64,
    /// How many manifests it has, with those of its platforms.
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
    /// Its file, or that of its head.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// All its files: the only one, or the head and its volumes.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub files: Vec<PathBuf>,
    /// The parity beside it.
    pub parity: Option<WrittenParity>,
    /// Its bytes, with all volumes.
    pub length: u64,
    /// The digest of its payload.
    pub identity: Digest,
    /// The fingerprint of the key that signed it.
    pub fingerprint: String,
    /// Its stream.
    pub stream: String,
    /// When it was created.
    pub created: Timestamp,
    /// After when importers reject it.
    pub expires: Option<Timestamp>,
    /// Its number in the stream; none without a state directory.
    pub sequence: Option<u64>,
    /// The flags without which it would not have been written.
    pub overrides: Vec<String>,
    /// Whether it was read back from its medium and compared.
    pub read_back: bool,
    /// On a file system of its own, as a stick is.
    #[serde(skip)]
    pub on_medium: bool,
}

/// The parity beside a bundle.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WrittenParity {
    /// The files.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub files: Vec<PathBuf>,
    /// The length of a shard in bytes.
    pub shard: u64,
    /// How many damaged shards can be made good.
    pub shards: usize,
    /// How many lost files, whichever they are.
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
    /// Where it was fetched from.
    pub source: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The bytes of all its blobs.
    pub size: u64,
    /// Upstream's version, if it has one.
    pub version: Option<String>,
    /// When upstream built it, if it says so.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub updated_at: Option<Timestamp>,
    /// The sources that were not taken, and why.
    #[serde(rename = "passed_over")]
    pub skipped: Vec<SkippedSource>,
    /// Its age, for people.
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
