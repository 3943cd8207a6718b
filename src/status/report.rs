//! What `status` found.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::dataset::MissingItem;
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::status::drift::DriftState;
use crate::trust::Rejection;
use crate::trust::state::{Failure, Origin, OthersData, Override, ReceivedHeartbeat, TargetState};
use crate::util::text::{escape, escape_line};

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
    /// The directory of the state.
    #[serde(serialize_with = "crate::util::text::serialize_optional_path")]
    pub state_dir: Option<PathBuf>,
    /// When it was looked at.
    #[serde(skip)]
    pub now: Timestamp,
    /// Where this user may not look.
    #[serde(skip)]
    pub unseen: Vec<Error>,
    /// Whether registries were asked.
    #[serde(skip)]
    pub asked: bool,
    /// When something of a stream was refused last, if nothing of it was accepted since.
    #[serde(skip)]
    pub(crate) last_refused: BTreeMap<String, Timestamp>,
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
    /// The last one of them.
    pub last_override: Option<Override>,
    /// The datasets, with their dates.
    pub datasets: Vec<ItemStatus>,
    /// What the files of a cache or a web root take, in bytes.
    pub disk: Option<u64>,
    /// When a run last worked on it, well or not.
    pub used: Option<Timestamp>,
    /// How that run failed here, if it did.
    pub failed: Option<Failure>,
    /// When its floors were reset, if nothing was accepted since.
    pub floors_reset: Option<Timestamp>,
    /// No run uses it any more: what is old or missing there is no error.
    pub retired: bool,
    /// Others were used since, so that it may be retired.
    #[serde(skip)]
    pub lags: bool,
    /// Anything of it is known that was accepted.
    #[serde(skip)]
    pub(crate) accepted: bool,
    /// Other streams use the same target.
    #[serde(skip)]
    pub(crate) shared: bool,
}

impl TargetStatus {
    /// Whether anything of it was ever accepted, or it is known why not.
    fn has_trace(&self) -> bool {
        self.accepted || self.failed.is_some() || self.floors_reset.is_some()
    }

    /// The command that retires it.
    pub(crate) fn forget_command(&self) -> String {
        let target = escape_line(&self.target.to_string());
        match self.shared {
            true => format!("trivy-ferry forget {target} --stream {}", escape(&self.stream)),
            false => format!("trivy-ferry forget {target}"),
        }
    }

    /// What to do about something at the target, which may be retired.
    pub(crate) fn hint(&self, hint: &str) -> String {
        if !self.lags {
            return hint.into();
        }
        format!("{hint} If no run uses it any more, retire it: {}", self.forget_command())
    }

    /// The last bundle that it accepted, in words.
    pub(crate) fn last_bundle(&self) -> String {
        match self.shared {
            true => format!("the last bundle of stream {}", escape(&self.stream)),
            false => "the last bundle".into(),
        }
    }

    /// The error of something at the target that may not be so.
    pub(crate) fn rejected(&self, rejection: Rejection, hint: &str) -> Error {
        let original = Error::from(rejection);
        Error::Restated {
            what: format!("{}: {original}", escape(&self.target.to_string())),
            hint: self.hint(hint),
            original: Box::new(original),
        }
    }
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
    /// Whether the newest bundle that it tells of, or a newer one, was accepted by every target of the stream that is
    /// neither retired nor failed; not if all failed.
    pub here: bool,
    /// The targets that have not accepted it, if others have.
    pub not_in: Vec<TargetId>,
}

/// Something that was rejected.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RecentRejection {
    /// When.
    pub at: Timestamp,
    /// The stream that was to be imported.
    #[serde(skip)]
    pub(crate) stream: String,
    /// The name of its file.
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
    /// made. Of a database that no bundle brought, its own date.
    #[serde(serialize_with = "crate::util::text::serialize_second")]
    pub accepted: Timestamp,
    /// The date of what the target holds now, where that was looked at and has one.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub in_use: Option<Timestamp>,
    /// Whether that is the date of a manifest: a registry holds something else, and no import has read when that was
    /// built.
    pub manifest_date: bool,
    /// Whether it is still in place.
    pub state: DriftState,
    /// The further tags that an import set in a registry, and that do not name it any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_tags: Vec<String>,
    /// After when it must not be used.
    pub expires: Option<Timestamp>,
    /// Where its exporter had it from, upstream's version, and who signed the bundle that brought it.
    pub source: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The trusted keys that signed its bundle, by the names that they have here.
    pub signers: Vec<String>,
    /// Those of them that are not trusted any more, as far as that is known.
    pub no_longer_trusted: Vec<String>,
    /// Where it came from.
    #[serde(skip)]
    pub origin: Option<Origin>,
    /// What others put in its place, as far as an import has read it.
    #[serde(skip)]
    pub(crate) others: Option<OthersData>,
}

impl ItemStatus {
    /// What a target's record says of a dataset. Nobody looked at it yet.
    pub(crate) fn of(name: &str, accepted: Timestamp, record: &TargetState) -> Self {
        let origin = record.origins.get(name);
        ItemStatus {
            name: name.to_owned(),
            accepted,
            in_use: None,
            manifest_date: false,
            state: DriftState::NotLookedAt,
            lost_tags: Vec::new(),
            expires: record.expires.get(name).copied(),
            source: origin.map(|origin| origin.source.clone()),
            version: origin.and_then(|origin| origin.version.clone()),
            signers: origin.map(|origin| origin.signers.clone()).unwrap_or_default(),
            no_longer_trusted: Vec::new(),
            origin: origin.cloned(),
            others: record.others.get(name).cloned(),
        }
    }
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
    #[serde(serialize_with = "crate::util::text::serialize_seconds")]
    pub datasets: BTreeMap<String, Timestamp>,
}

impl StatusReport {
    /// Nothing, looked at in a moment.
    pub(crate) fn at(now: Timestamp) -> Self {
        let (imports, exports, heartbeats, refused, errors) = Default::default();
        let (state_dir, unseen, asked, last_refused) = Default::default();
        StatusReport {
            imports,
            exports,
            heartbeats,
            refused,
            errors,
            state_dir,
            now,
            unseen,
            asked,
            last_refused,
        }
    }

    /// The targets that runs use.
    pub(crate) fn used(&self) -> impl Iterator<Item = &TargetStatus> {
        self.imports.iter().filter(|target| !target.retired)
    }

    /// The targets that runs use.
    pub(crate) fn used_mut(&mut self) -> impl Iterator<Item = &mut TargetStatus> {
        self.imports.iter_mut().filter(|target| !target.retired)
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        let is_traceless = !self.imports.iter().any(TargetStatus::has_trace);
        is_traceless && self.exports.is_empty() && self.heartbeats.is_empty()
    }

    /// Marks the targets that several streams use.
    pub(crate) fn mark_shared(&mut self) {
        let targets: Vec<TargetId> = self.imports.iter().map(|of| of.target.clone()).collect();
        for of in &mut self.imports {
            of.shared = targets.iter().filter(|target| **target == of.target).count() > 1;
        }
    }

    /// Whether a row speaks for its dataset at a target: of several streams, that which brought the newest.
    pub(crate) fn speaks(&self, target: &TargetStatus, row: &ItemStatus) -> bool {
        let rank = |stream: &str, row: &ItemStatus| {
            (row.state != DriftState::Superseded, row.accepted, stream.to_owned())
        };
        let own = rank(&target.stream, row);
        let others = self.used().filter(|of| of.target == target.target);
        !others
            .flat_map(|of| of.datasets.iter().map(move |row| (of, row)))
            .any(|(of, other)| other.name == row.name && rank(&of.stream, other) > own)
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
            for row in target.datasets.iter_mut().filter(|row| row.state.is_wrong()) {
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
