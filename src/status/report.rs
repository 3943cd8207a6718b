//! What `status` found.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::digest::Digest;
use crate::error::Error;
use crate::status::drift::State;
use crate::trust::state::{Heard, Origin};
use crate::util::text::{age, line, moment, safe, size, stamp};

/// What a host knows of its streams.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) imports: Vec<Target>,
    pub(crate) exports: Vec<Export>,
    pub(crate) heartbeats: Vec<Heartbeat>,
    /// What was refused lately, the latest last; empty in what [`look`] gives.
    pub(crate) refused: Vec<Refused>,
    pub(crate) errors: Vec<serde_json::Value>,
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
    pub(crate) target: String,
    pub(crate) bundle: Option<Bundle>,
    /// The numbers of bundles that never came.
    pub(crate) missing: Vec<u64>,
    /// How many bundles were admitted against the rules.
    pub(crate) overrides: usize,
    pub(crate) datasets: Vec<Row>,
    /// What the files of a cache or a web root take, in bytes; `None` in what [`look`] gives.
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

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for target in &self.imports {
            writeln!(f, "{}   stream {}", line(&target.target), safe(&target.stream))?;
            if let Some(bundle) = &target.bundle {
                let number = bundle.sequence.map_or_else(String::new, |number| format!(", number {number}"));
                let ago = age(bundle.created, self.now);
                writeln!(f, "  last bundle      {} ({ago} ago){number}", moment(bundle.created))?;
            }
            for row in &target.datasets {
                let what = row.state.said();
                let date = if what.is_empty() { Some(row.accepted) } else { row.in_use };
                let date = dated(date, self.now);
                let expired = row.expires.is_some_and(|expires| expires < self.now);
                let expired = if expired { "EXPIRED" } else { "" };
                let text = format!("  {:<16} {date}  {what}{expired}", safe(&row.name));
                writeln!(f, "{}", text.trim_end())?;
                // Where something else came from, nobody knows.
                if let Some(source) = row.source.as_ref().filter(|_| what.is_empty()) {
                    let version = row.version.iter().map(|version| format!(" {}", safe(version)));
                    let version: String = version.collect();
                    let signers = safe(&row.signers.join(" and "));
                    writeln!(f, "  {:<16} from {}{version}, signed by {signers}", "", safe(source))?;
                }
            }
            let is_unasked = |row: &Row| row.state == State::NotLookedAt;
            if target.target.starts_with("registry:") && target.datasets.iter().any(is_unasked) {
                let why = if self.asked { "it did not say" } else { "--registries asks it" };
                writeln!(f, "  not asked        whether it still has them: {why}")?;
            }
            if !target.missing.is_empty() {
                let missing: Vec<String> = target.missing.iter().take(20).map(u64::to_string).collect();
                writeln!(f, "  never came       {} bundles: {}", target.missing.len(), missing.join(", "))?;
            }
            if target.overrides > 0 {
                writeln!(f, "  against rules    {} bundles were admitted by a flag", target.overrides)?;
            }
            if let Some(disk) = target.disk {
                writeln!(f, "  on the disk      {}", size(disk))?;
            }
        }
        for heartbeat in &self.heartbeats {
            let heard = &heartbeat.heard;
            writeln!(f, "heartbeat  stream {}", safe(&heartbeat.stream))?;
            let ago = age(heard.created, self.now);
            writeln!(
                f,
                "  last made        {} ({ago} ago): {}",
                moment(heard.created),
                exported(&heard.export)
            )?;
            if let (Some(newest), false) = (&heard.newest, heartbeat.here) {
                let number = newest.sequence.map_or_else(String::new, |number| format!(", number {number}"));
                let name = format!("{}-{}", safe(&heartbeat.stream), stamp(newest.created));
                writeln!(f, "  not here yet     {name}{number}")?;
            }
        }
        for refused in &self.refused {
            let bundle = refused.bundle.iter().map(|bundle| format!("{}: ", safe(bundle)));
            let bundle: String = bundle.collect();
            let what = if refused.given_up { "given up" } else { "refused" };
            writeln!(f, "{what:<10} {} {bundle}{}", moment(refused.at), safe(&refused.why))?;
        }
        for export in &self.exports {
            writeln!(f, "exported   stream {}", safe(&export.stream))?;
            let ago = age(export.created, self.now);
            writeln!(
                f,
                "  last bundle      {} ({ago} ago), number {}",
                moment(export.created),
                export.sequence
            )?;
            for (name, date) in &export.datasets {
                writeln!(f, "  {:<16} {}", safe(name), dated(Some(*date), self.now))?;
            }
        }
        Ok(())
    }
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
        let good: Vec<(String, String, Timestamp)> = self.imports.iter().flat_map(good).collect();
        for target in &mut self.imports {
            for row in target.datasets.iter_mut().filter(|row| row.state.next(&row.name).is_some()) {
                let is_later = |(place, name, accepted): &(String, String, Timestamp)| {
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

pub(crate) fn dated(date: Option<Timestamp>, now: Timestamp) -> String {
    date.map_or_else(|| "-".into(), |date| format!("{} ({} old)", moment(date), age(date, now)))
}
