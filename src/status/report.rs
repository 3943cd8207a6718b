//! The report of `status` as plain data. Other modules fill and print it.

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

/// The streams and targets of a host.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct StatusReport {
    /// The targets.
    pub imports: Vec<TargetStatus>,
    /// The streams that are exported here.
    pub exports: Vec<ExportStatus>,
    /// The streams of which heartbeats were received.
    pub heartbeats: Vec<HeartbeatStatus>,
    /// Recent rejections, the latest last.
    pub refused: Vec<RecentRejection>,
    /// The errors: old, missing or lost data, failed targets, missing heartbeats.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
    /// The state directory.
    #[serde(serialize_with = "crate::util::text::serialize_optional_path")]
    pub state_dir: Option<PathBuf>,
    /// The time from which ages are counted.
    #[serde(skip)]
    pub now: Timestamp,
    /// The errors of targets that could not be read.
    #[serde(skip)]
    pub unseen: Vec<Error>,
    /// Whether registries were checked.
    #[serde(skip)]
    pub asked: bool,
    /// The time of the last rejection in each stream in which nothing has been accepted since.
    #[serde(skip)]
    pub(crate) last_refused: BTreeMap<String, Timestamp>,
}

/// One target of one stream.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TargetStatus {
    /// The stream.
    pub stream: String,
    /// The target.
    pub target: TargetId,
    /// The newest bundle that was accepted.
    pub bundle: Option<AcceptedBundle>,
    /// The numbers of bundles that were never received.
    pub missing: Vec<u64>,
    /// The number of bundles that were admitted with an override.
    pub overrides: usize,
    /// The last override.
    pub last_override: Option<Override>,
    /// The datasets, with their dates.
    pub datasets: Vec<ItemStatus>,
    /// The total size of the files of a cache or a web root, in bytes.
    pub disk: Option<u64>,
    /// When a run last used it, successfully or not.
    pub used: Option<Timestamp>,
    /// The failure of that run at this target, if it failed.
    pub failed: Option<Failure>,
    /// When its floors were reset, if nothing has been accepted since.
    pub floors_reset: Option<Timestamp>,
    /// Whether runs no longer use it. Old or missing data there is no error.
    pub retired: bool,
    /// Whether other targets have been used since, so that it may be retired.
    #[serde(skip)]
    pub lags: bool,
    /// Whether it has accepted anything.
    #[serde(skip)]
    pub(crate) accepted: bool,
    /// Whether other streams use the same target.
    #[serde(skip)]
    pub(crate) shared: bool,
}

impl TargetStatus {
    /// Whether it has accepted anything, has failed, or has had its floors reset.
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

    /// Returns the hint of an error of this target. If it may be retired, the hint says how.
    pub(crate) fn hint(&self, hint: &str) -> String {
        if !self.lags {
            return hint.into();
        }
        let hint = hint.trim_end_matches('.');
        format!("{hint}; if runs no longer use it, retire it: `{}`", self.forget_command())
    }

    /// The last bundle that it accepted, for messages.
    pub(crate) fn last_bundle(&self) -> String {
        match self.shared {
            true => format!("the last bundle of stream {}", escape(&self.stream)),
            false => "the last bundle".into(),
        }
    }

    /// Returns the error of data at the target that is not acceptable.
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
    /// Its content.
    #[serde(flatten)]
    pub heard: ReceivedHeartbeat,
    /// Whether the announced bundle, or a newer one, was accepted by every target of the stream that is neither retired
    /// nor failed; `false` if all failed.
    pub here: bool,
    /// The targets that have not accepted it, if others have.
    pub not_in: Vec<TargetId>,
}

/// A rejected bundle or heartbeat.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RecentRejection {
    /// When it was rejected.
    pub at: Timestamp,
    /// The stream of the import.
    #[serde(skip)]
    pub(crate) stream: String,
    /// Its file name.
    pub bundle: Option<String>,
    /// The reason for the rejection.
    pub why: String,
    /// Whether trivy-ferry stopped waiting for it, because it could not be imported in time.
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
    /// Its number in the stream, if its exporter counts bundles.
    pub sequence: Option<u64>,
    /// The requested items that its exporter could not get.
    pub missing_items: Vec<MissingItem>,
}

/// A dataset, or an image.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ItemStatus {
    /// Its reference name, such as `trivy-db-2`.
    pub name: String,
    /// The date of the newest accepted version: when upstream built it or, if it has no date, when its bundle was
    /// created. For a database that no bundle contained, its own date.
    #[serde(serialize_with = "crate::util::text::serialize_second")]
    pub accepted: Timestamp,
    /// The date of the data that the target holds now, if it was checked and has a date.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub in_use: Option<Timestamp>,
    /// Whether `in_use` is the date of a manifest: the registry holds other data, and no import has
    /// read the build time of that data.
    pub manifest_date: bool,
    /// Its state at the target.
    pub state: DriftState,
    /// The extra tags that an import set in a registry, and that no longer name it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_tags: Vec<String>,
    /// When it expires.
    pub expires: Option<Timestamp>,
    /// The source from which its exporter fetched it.
    pub source: Option<String>,
    /// Its upstream version.
    pub version: Option<String>,
    /// The trusted keys that signed its bundle, by their names on this host.
    pub signers: Vec<String>,
    /// The signers that are no longer trusted, if that is known.
    pub no_longer_trusted: Vec<String>,
    /// Its record in the state.
    #[serde(skip)]
    pub origin: Option<Origin>,
    /// Data that others put in its place, if an import has read it.
    #[serde(skip)]
    pub(crate) others: Option<OthersData>,
}

impl ItemStatus {
    /// Returns the row of a dataset from a target's record, before it is checked.
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
    /// Its number in the stream.
    pub sequence: u64,
    /// The datasets, with their dates.
    #[serde(serialize_with = "crate::util::text::serialize_seconds")]
    pub datasets: BTreeMap<String, Timestamp>,
}

impl StatusReport {
    /// Returns an empty report with this time.
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

    /// The targets that are not retired.
    pub(crate) fn used(&self) -> impl Iterator<Item = &TargetStatus> {
        self.imports.iter().filter(|target| !target.retired)
    }

    /// The targets that are not retired.
    pub(crate) fn used_mut(&mut self) -> impl Iterator<Item = &mut TargetStatus> {
        self.imports.iter_mut().filter(|target| !target.retired)
    }

    /// Whether the state has no imports, exports or heartbeats.
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

    /// Whether a row represents its dataset at a target. If several streams use the target, it is the row with the
    /// newest data.
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

    /// Marks rows as superseded if another stream has installed the same dataset at the same target since.
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

/// Returns the outcome of an export as the end of a sentence.
pub(crate) fn exported(export: &str) -> String {
    match export {
        "written" => "the export wrote a bundle".into(),
        "unchanged" => "the export found nothing new".into(),
        "failed" => "the export failed".into(),
        other => format!("the export was {}", escape(other)),
    }
}
