//! `status`: how old is what is in use here, what came last, and is it still there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::{Outcome, metrics};
use crate::cli;
use crate::dataset::{Kind, Name};
use crate::digest::Digest;
use crate::error::Error;
use crate::progress::Progress;
use crate::target::cache::{Cache, Layout};
use crate::text::{age, line, moment, safe};
use crate::trust::Refusal;
use crate::trust::state::{Side, StateView, TargetState};

/// What a host knows of its streams.
#[derive(Serialize)]
pub(super) struct Status {
    pub(super) imports: Vec<Target>,
    pub(super) exports: Vec<Export>,
    errors: Vec<serde_json::Value>,
    #[serde(skip)]
    now: Timestamp,
}

/// What one target has of one stream.
#[derive(Serialize)]
pub(super) struct Target {
    pub(super) stream: String,
    pub(super) target: String,
    pub(super) bundle: Option<Bundle>,
    /// The numbers of bundles that never came.
    pub(super) missing: Vec<u64>,
    /// How many bundles were admitted against the rules.
    pub(super) overrides: usize,
    pub(super) datasets: Vec<Row>,
}

/// The newest bundle that was accepted.
#[derive(Serialize)]
pub(super) struct Bundle {
    pub(super) identity: Digest,
    pub(super) created: Timestamp,
    pub(super) sequence: Option<u64>,
}

/// A dataset, or an image.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// The newest that was accepted: when upstream built it, or where it has no date, when its bundle was
    /// made.
    pub(super) accepted: Timestamp,
    /// The date of what is in a cache now.
    pub(super) in_use: Option<Timestamp>,
    state: State,
    expires: Option<Timestamp>,
}

/// What a look at the target found.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    InPlace,
    Missing,
    Differs,
    /// Only the databases and checks of a cache are looked at.
    NotLookedAt,
}

/// The last bundle of a stream that was exported here.
#[derive(Serialize)]
pub(super) struct Export {
    pub(super) stream: String,
    pub(super) identity: Digest,
    pub(super) created: Timestamp,
    pub(super) sequence: u64,
    pub(super) datasets: BTreeMap<String, Timestamp>,
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
                let (date, what) = match row.state {
                    State::Missing => ("-".into(), "MISSING: it was imported and is not there"),
                    State::Differs => (dated(row.in_use, self.now), "DIFFERS from what was imported"),
                    State::InPlace | State::NotLookedAt => (dated(Some(row.accepted), self.now), ""),
                };
                let expired = row.expires.is_some_and(|expires| expires < self.now);
                let expired = if expired { "EXPIRED" } else { "" };
                let text = format!("  {:<16} {date}  {what}{expired}", safe(&row.name));
                writeln!(f, "{}", text.trim_end())?;
            }
            if !target.missing.is_empty() {
                let missing: Vec<String> = target.missing.iter().take(20).map(u64::to_string).collect();
                writeln!(f, "  never came       {} bundles: {}", target.missing.len(), missing.join(", "))?;
            }
            if target.overrides > 0 {
                writeln!(f, "  against rules    {} bundles were admitted by a flag", target.overrides)?;
            }
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

fn dated(date: Option<Timestamp>, now: Timestamp) -> String {
    date.map_or_else(|| "-".into(), |date| format!("{} ({} old)", moment(date), age(date, now)))
}

pub(super) fn run(args: &cli::Status, _: &dyn Progress) -> Result<Outcome, Error> {
    let mut status = look(args.state_dir.as_deref())?.ok_or_else(|| {
        Error::usage(
            "nothing was imported or exported here that this user knows of",
            "Name the folder with --state-dir, or run the command as the user who imports.",
        )
    })?;
    let mut errors: Vec<Error> = Vec::new();
    for target in &status.imports {
        for row in &target.datasets {
            if matches!(row.state, State::Missing | State::Differs) {
                errors.push(Error::Destination {
                    path: PathBuf::from(&target.target),
                    what: format!("{} is not what was imported", row.name),
                    next: "Import the last bundle again: it brings back what is missing.".into(),
                });
            }
            let name = name_of(&row.name);
            if let (Some(max_age), Some(name)) = (&args.max_age, &name) {
                let date = row.in_use.unwrap_or(row.accepted);
                errors.extend(max_age.check(name, Some(date), status.now).err().map(Error::from));
            }
            if let Some(expires) = row.expires.filter(|expires| *expires < status.now) {
                let dataset = row.name.clone();
                errors.push(Refusal::Expired { bundle: dataset, expires }.into());
            }
        }
    }
    status.errors = errors.iter().map(Error::to_json).collect();
    if let Some(file) = &args.metrics {
        metrics::write(file, &status, None)?;
    }
    Ok(Outcome { errors, ..Outcome::done(&status) })
}

/// Reads what is remembered, and looks at caches. `None` where nothing is remembered.
pub(super) fn look(state_dir: Option<&Path>) -> Result<Option<Status>, Error> {
    let Some(state) = StateView::find(state_dir)? else { return Ok(None) };
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    for stream in state.streams(Side::Import)? {
        for (target, of) in state.imports(&stream)?.targets {
            imports.push(look_at(&stream, &target, &of));
        }
    }
    for stream in state.streams(Side::Export)? {
        if let Some(last) = state.exports(&stream)? {
            let (identity, created, sequence) = (last.identity, last.created, last.sequence);
            exports.push(Export { stream, identity, created, sequence, datasets: last.floors });
        }
    }
    if imports.is_empty() && exports.is_empty() {
        return Ok(None);
    }
    Ok(Some(Status { imports, exports, errors: Vec::new(), now: Timestamp::now() }))
}

fn look_at(stream: &str, target: &str, of: &TargetState) -> Target {
    let cache = target.strip_prefix("cache:").map(Path::new);
    let row = |(reference, accepted): (&String, &Timestamp)| {
        let (state, in_use) = match (cache, name_of(reference)) {
            (Some(dir), Some(name)) => in_cache(dir, &name, *accepted),
            _ => (State::NotLookedAt, None),
        };
        Row {
            name: reference.clone(),
            accepted: *accepted,
            in_use,
            state,
            expires: of.expires.get(reference).copied(),
        }
    };
    Target {
        stream: stream.into(),
        target: target.into(),
        bundle: of.last.as_ref().map(|last| Bundle {
            identity: last.identity,
            created: last.created,
            sequence: last.sequence,
        }),
        missing: of.missing.clone(),
        overrides: of.overrides.len(),
        datasets: of.floors.iter().map(row).collect(),
    }
}

/// What a cache holds of a dataset now. VEX repositories have names there that the scanner gives them, and
/// are not looked at.
fn in_cache(dir: &Path, name: &Name, accepted: Timestamp) -> (State, Option<Timestamp>) {
    if name.kind() == Kind::Vex {
        return (State::NotLookedAt, None);
    }
    let installed = Cache::inspect(dir, Layout::Trivy).ok().flatten().and_then(|view| {
        let slot = view.slot(name, "")?;
        view.installed(&slot).ok().flatten()
    });
    match installed {
        None => (State::Missing, None),
        Some(installed) if !name.kind().is_large() => (State::InPlace, installed.updated_at),
        Some(installed) if installed.updated_at == Some(accepted) => (State::InPlace, installed.updated_at),
        Some(installed) => (State::Differs, installed.updated_at),
    }
}

/// The dataset's name in a reference name: `trivy-db` in `trivy-db-2`.
fn name_of(reference: &str) -> Option<Name> {
    reference.rsplit_once('-').and_then(|(name, _)| name.parse().ok())
}
