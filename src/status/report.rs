//! What `status` found.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::dataset::MissingItem;
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::status::drift::DriftState;
use crate::trust::state::{Origin, ReceivedHeartbeat};
use crate::util::text::escape;

/// What a host knows of its streams.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct StatusReport {
    /// The targets.
    pub imports: Vec<TargetStatus>,
    /// The streams that are exported here.
    pub exports: Vec<ExportStatus>,
    /// The streams of which heartbeats came.
    pub heartbeats: Vec<HeartbeatStatus>,
    /// What was rejected lately, the latest last.
    pub refused: Vec<RecentRejection>,
    /// What is old, missing or lost.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
    /// When it was looked at.
    #[serde(skip)]
    pub now: Timestamp,
    /// Where this user may not look.
    #[serde(skip)]
    pub unseen: Vec<Error>,
    /// Whether registries were asked.
    #[serde(skip)]
    pub asked: bool,
}

/// What one target has of one stream.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TargetStatus {
    /// The stream.
    pub stream: String,
    /// The target.
    pub target: TargetId,
    /// The newest bundle that was accepted.
    pub bundle: Option<AcceptedBundle>,
    /// The numbers of bundles that never came.
    pub missing: Vec<u64>,
    /// How many bundles were admitted against the rules.
    pub overrides: usize,
    /// The datasets, with their dates.
    pub datasets: Vec<ItemStatus>,
    /// What the files of a cache or a web root take, in bytes.
    pub disk: Option<u64>,
}

/// The last heartbeat of a stream.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct HeartbeatStatus {
    /// The stream.
    pub stream: String,
    /// What it said.
    #[serde(flatten)]
    pub heard: ReceivedHeartbeat,
    /// Whether the newest bundle that it tells of was accepted by every target of the stream.
    pub here: bool,
}

/// Something that was rejected.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RecentRejection {
    /// When.
    pub at: Timestamp,
    /// The newest bundle that was accepted.
    pub bundle: Option<String>,
    /// Why.
    pub why: String,
    /// It never became whole.
    pub given_up: bool,
}

/// The newest bundle that was accepted.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct AcceptedBundle {
    /// The digest of its payload.
    pub identity: Digest,
    /// When it was created.
    pub created: Timestamp,
    /// Its number in the stream, if its exporter keeps count.
    pub sequence: Option<u64>,
    /// What its exporter was to carry and could not get.
    pub missing_items: Vec<MissingItem>,
}

/// A dataset, or an image.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ItemStatus {
    /// Its reference name, such as `trivy-db-2`.
    pub name: String,
    /// The newest that was accepted: when upstream built it, or where it has no date, when its bundle was
    /// made.
    pub accepted: Timestamp,
    /// The date of what the target holds now, where that was looked at and has one.
    pub in_use: Option<Timestamp>,
    /// Whether it is still in place.
    pub state: DriftState,
    /// After when it must not be used.
    pub expires: Option<Timestamp>,
    /// Where its exporter had it from, upstream's version, and who signed the bundle that brought it.
    pub source: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The trusted keys that signed its bundle, by the names that they have here.
    pub signers: Vec<String>,
    /// Where it came from.
    #[serde(skip)]
    pub origin: Option<Origin>,
}

/// The last bundle of a stream that was exported here.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ExportStatus {
    /// The stream.
    pub stream: String,
    /// The digest of its payload.
    pub identity: Digest,
    /// When it was created.
    pub created: Timestamp,
    /// Its number in the stream, if its exporter keeps count.
    pub sequence: u64,
    /// The datasets, with their dates.
    pub datasets: BTreeMap<String, Timestamp>,
}

impl StatusReport {
    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.imports.is_empty() && self.exports.is_empty() && self.heartbeats.is_empty()
    }

    /// What another stream has put into the same place since is as it should be.
    pub(crate) fn accept_superseded(&mut self) {
        let good = |target: &TargetStatus| {
            let rows = target.datasets.iter().filter(|row| row.state == DriftState::InPlace);
            let target = target.target.clone();
            rows.map(move |row| (target.clone(), row.name.clone(), row.accepted)).collect::<Vec<_>>()
        };
        let good: Vec<(TargetId, String, Timestamp)> = self.imports.iter().flat_map(good).collect();
        for target in &mut self.imports {
            for row in target.datasets.iter_mut().filter(|row| row.state.hint(&row.name).is_some()) {
                let is_later = |(place, name, accepted): &(TargetId, String, Timestamp)| {
                    (place, name) == (&target.target, &row.name) && *accepted >= row.accepted
                };
                if good.iter().any(is_later) {
                    row.state = DriftState::Superseded;
                }
            }
        }
    }
}

/// What an export came to, as a sentence's end.
pub(crate) fn exported(export: &str) -> String {
    match export {
        "written" => "the export wrote a bundle".into(),
        "unchanged" => "the export found nothing new".into(),
        "failed" => "the export failed".into(),
        other => format!("the export was {}", escape(other)),
    }
}
