//! What an export says at its end, for people and for programs.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{Dataset, Image};
use crate::collect::artifact::PassedOver;
use crate::digest::Digest;
use crate::error::Error;
use crate::export::output::Parity;
use crate::util::text::age;

#[derive(Serialize, Default)]
pub(crate) struct Report {
    pub(crate) dry_run: bool,
    /// Upstream has nothing new: nothing was written.
    pub(crate) unchanged: bool,
    pub(crate) bundle: Option<Written>,
    pub(crate) datasets: Vec<Row>,
    pub(crate) images: Vec<ImageRow>,
    /// The hosts that a dry run found to be asked, in the order of the alphabet.
    pub(crate) hosts: BTreeSet<String>,
    /// What was put into the folder of --drop.
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) dropped: Vec<PathBuf>,
    /// The heartbeat.
    #[serde(serialize_with = "crate::util::text::maybe_path")]
    pub(crate) heartbeat: Option<PathBuf>,
    /// Older bundles that --keep did not keep.
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) removed: Vec<PathBuf>,
    pub(crate) warnings: Vec<String>,
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub(crate) errors: Vec<Error>,
}

#[derive(Serialize)]
pub(crate) struct ImageRow {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) manifests: usize,
}

impl ImageRow {
    pub(crate) fn new(image: &Image) -> Self {
        ImageRow {
            name: image.name.clone(),
            source: image.source.clone(),
            digest: image.manifest.digest,
            size: image.size(),
            manifests: image.manifests.len() + 1,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Written {
    #[serde(serialize_with = "crate::util::text::path")]
    pub(crate) path: PathBuf,
    /// All its files: the only one, or the head and its volumes.
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) files: Vec<PathBuf>,
    pub(crate) parity: Option<ParityRow>,
    pub(crate) length: u64,
    pub(crate) identity: Digest,
    pub(crate) fingerprint: String,
    pub(crate) stream: String,
    pub(crate) created: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) sequence: Option<u64>,
    /// Whether it was read back from its medium and compared.
    pub(crate) read_back: bool,
    /// On a file system of its own, as a stick is.
    #[serde(skip)]
    pub(crate) on_medium: bool,
}

/// The parity beside a bundle.
#[derive(Serialize)]
pub(crate) struct ParityRow {
    #[serde(serialize_with = "crate::util::text::paths")]
    pub(crate) files: Vec<PathBuf>,
    /// The length of a shard in bytes.
    pub(crate) shard: u64,
    /// How many damaged shards can be made good.
    pub(crate) shards: usize,
    /// How many lost files, whichever they are.
    pub(crate) lost_files: usize,
}

impl ParityRow {
    pub(crate) fn new(parity: &Parity) -> Self {
        ParityRow {
            files: parity.names.clone(),
            shard: parity.shape.shard(),
            shards: parity.shape.parity(),
            lost_files: parity.shape.lost_files(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) tag: String,
    pub(crate) source: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) version: Option<String>,
    pub(crate) updated_at: Option<Timestamp>,
    /// The sources that were not taken, and why.
    pub(crate) passed_over: Vec<PassedOver>,
    #[serde(skip)]
    pub(crate) age: Option<String>,
}

impl Row {
    pub(crate) fn new(
        dataset: &Dataset,
        updated_at: Option<Timestamp>,
        passed_over: &[PassedOver],
        now: Timestamp,
    ) -> Self {
        Row {
            name: dataset.name.to_string(),
            tag: dataset.tag.clone(),
            source: dataset.source.clone(),
            digest: dataset.manifest.digest,
            size: dataset.blobs().map(|blob| blob.size).sum(),
            version: dataset.version.clone(),
            updated_at,
            passed_over: passed_over.to_vec(),
            age: updated_at.map(|date| age(date, now)),
        }
    }
}
