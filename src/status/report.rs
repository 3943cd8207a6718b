//! What `status` found.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::status::drift::State;
use crate::trust::state::{Heard, Origin};
use crate::util::text::safe;

/// What a host knows of its streams.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) imports: Vec<Target>,
    pub(crate) exports: Vec<Export>,
    pub(crate) heartbeats: Vec<Heartbeat>,
    /// What was refused lately, the latest last; empty in what [`look`](crate::status::look) gives.
    pub(crate) refused: Vec<Refused>,
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub(crate) errors: Vec<Error>,
    #[serde(skip)]
    pub(crate) now: Timestamp,
    /// Where this user may not look.
    #[serde(skip)]
    pub(crate) unseen: Vec<Error>,
    /// Whether registries were asked.
    #[serde(skip)]
    pub(crate) asked: bool,
}

/// What one target has of one stream.
#[derive(Serialize)]
pub(crate) struct Target {
    pub(crate) stream: String,
    pub(crate) target: TargetId,
    pub(crate) bundle: Option<Bundle>,
    /// The numbers of bundles that never came.
    pub(crate) missing: Vec<u64>,
    /// How many bundles were admitted against the rules.
    pub(crate) overrides: usize,
    pub(crate) datasets: Vec<Row>,
    /// What the files of a cache or a web root take, in bytes; `None` in what [`look`](crate::status::look) gives.
    pub(crate) disk: Option<u64>,
}

/// The last heartbeat of a stream.
#[derive(Serialize)]
pub(crate) struct Heartbeat {
    pub(crate) stream: String,
    #[serde(flatten)]
    pub(crate) heard: Heard,
    /// Whether the newest bundle that it tells of was accepted by every target of the stream.
    pub(crate) here: bool,
}

/// Something that was refused.
#[derive(Serialize)]
pub(crate) struct Refused {
    pub(crate) at: Timestamp,
    pub(crate) bundle: Option<String>,
    pub(crate) why: String,
    /// It never became whole.
    pub(crate) given_up: bool,
}

/// The newest bundle that was accepted.
#[derive(Serialize)]
pub(crate) struct Bundle {
    pub(crate) identity: Digest,
    pub(crate) created: Timestamp,
    pub(crate) sequence: Option<u64>,
}

/// A dataset, or an image.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// The newest that was accepted: when upstream built it, or where it has no date, when its bundle was
    /// made.
    pub(crate) accepted: Timestamp,
    /// The date of what the target holds now, where that was looked at and has one.
    pub(crate) in_use: Option<Timestamp>,
    pub(crate) state: State,
    pub(crate) expires: Option<Timestamp>,
    /// Where its exporter had it from, upstream's version, and who signed the bundle that brought it.
    pub(crate) source: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) signers: Vec<String>,
    #[serde(skip)]
    pub(crate) origin: Option<Origin>,
}

/// The last bundle of a stream that was exported here.
#[derive(Serialize)]
pub(crate) struct Export {
    pub(crate) stream: String,
    pub(crate) identity: Digest,
    pub(crate) created: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) datasets: BTreeMap<String, Timestamp>,
}

impl Status {
    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.imports.is_empty() && self.exports.is_empty() && self.heartbeats.is_empty()
    }

    /// What another stream has put into the same place since is as it should be.
    pub(crate) fn pass_over_superseded(&mut self) {
        let good = |target: &Target| {
            let rows = target.datasets.iter().filter(|row| row.state == State::InPlace);
            let target = target.target.clone();
            rows.map(move |row| (target.clone(), row.name.clone(), row.accepted)).collect::<Vec<_>>()
        };
        let good: Vec<(TargetId, String, Timestamp)> = self.imports.iter().flat_map(good).collect();
        for target in &mut self.imports {
            for row in target.datasets.iter_mut().filter(|row| row.state.next(&row.name).is_some()) {
                let is_later = |(place, name, accepted): &(TargetId, String, Timestamp)| {
                    (place, name) == (&target.target, &row.name) && *accepted >= row.accepted
                };
                if good.iter().any(is_later) {
                    row.state = State::Superseded;
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
        other => format!("the export was {}", safe(other)),
    }
}
