//! `status`: how old is what is in use here, what came last, and is it still there.

pub(crate) mod drift;
pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod report;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::dataset::DatasetRef;
use crate::delivery::registry_access::{RegistryAccess, is_out};
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::intake::file_sets;
use crate::progress::Progress;
use crate::remote::RemoteOptions;
use crate::status::drift::{Depth, DriftState};
use crate::status::options::StatusOptions;
use crate::status::report::{
    AcceptedBundle, ExportStatus, HeartbeatStatus, ItemStatus, RecentRejection, StatusReport, TargetStatus,
};
use crate::trust::Rejection;
use crate::trust::log::{Event, LogEntry};
use crate::trust::max_age::MaxAge;
use crate::trust::state::{ImportState, Side, StateView, TargetState};
use crate::util::age::Age;
use crate::util::clock;

/// For how long a refusal is shown.
const LATELY: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// How many refusals are shown, the latest.
const MAX_REJECTIONS: usize = 20;

/// Reads what this host remembers, and looks whether it is still in place.
///
/// # Errors
/// If nothing is remembered, or the state cannot be read. What is old, missing or lost is in the report.
pub fn status(options: &StatusOptions, progress: &dyn Progress) -> Result<StatusReport, Error> {
    let state = StateView::find(options.state_dir.as_deref())?;
    let warnings = state.iter().flat_map(StateView::warnings);
    warnings.for_each(|warning| progress.warn(&warning));
    let mut status = look_at_state(state.as_ref(), Depth::Content)?;
    status.refused = recent_rejections(state.as_ref(), status.now)?;
    let mut errors = std::mem::take(&mut status.unseen);
    if status.is_empty() {
        let error = Error::usage(
            "nothing was imported or exported here that this user knows of",
            "Name the folder with --state-dir, or run the command as the user who imports.",
        );
        if status.refused.is_empty() {
            return Err(error);
        }
        errors.push(error);
    }
    if let Some(remote) = &options.registries {
        errors.extend(ask_registries(&mut status, remote, progress)?);
    }
    status.accept_superseded();
    for target in &mut status.imports {
        target.disk = disk(&target.target);
    }
    errors.extend(unfit(&status, options.max_age.as_ref()));
    if let Some(most) = options.max_silence {
        errors.extend(silent(&status, most));
    }
    status.errors = errors;
    if let Some(file) = &options.metrics {
        metrics::write(file, &status, None)?;
    }
    Ok(status)
}

/// Returns an error for each dataset that is not what was imported, too old or expired.
fn unfit(status: &StatusReport, max_age: Option<&MaxAge>) -> Vec<Error> {
    let mut errors = Vec::new();
    for target in &status.imports {
        for row in &target.datasets {
            if let Some(hint) = row.state.hint(&row.name) {
                errors.push(Error::Destination {
                    path: PathBuf::from(target.target.to_string()),
                    what: format!("{} is not what was imported", row.name),
                    hint: hint.into(),
                });
            }
            let name = row.name.parse::<DatasetRef>().ok().map(|dataset| dataset.name);
            if let (Some(max_age), Some(name)) = (max_age, &name) {
                let date = row.in_use.unwrap_or(row.accepted);
                errors.extend(max_age.check(name, Some(date), status.now).err().map(Error::from));
            }
            if let Some(expires) = row.expires.filter(|expires| *expires < status.now) {
                let dataset = row.name.clone();
                errors.push(Rejection::Expired { bundle: dataset, expires }.into());
            }
        }
    }
    errors
}

/// Returns an error for each stream whose last heartbeat, or the bundle that it announces, is overdue.
fn silent(status: &StatusReport, most: Age) -> Vec<Error> {
    let mut streams: Vec<&str> = status.imports.iter().map(|target| target.stream.as_str()).collect();
    streams.extend(status.heartbeats.iter().map(|heartbeat| heartbeat.stream.as_str()));
    streams.sort_unstable();
    streams.dedup();
    let is_over = |since: Timestamp| status.now.duration_since(since) > most.duration();
    let mut errors = Vec::new();
    for stream in streams {
        let heartbeat = status.heartbeats.iter().find(|heartbeat| heartbeat.stream == stream);
        // A clock that was ahead, here or there, must not hide silence.
        let last = heartbeat.map(|heartbeat| heartbeat.heard.created.min(heartbeat.heard.received));
        if last.is_none_or(is_over) {
            errors.push(Rejection::Silent { stream: stream.to_owned(), last }.into());
        }
        let lost = heartbeat.filter(|heartbeat| !heartbeat.here);
        let lost = lost.and_then(|heartbeat| heartbeat.heard.newest.as_ref()).map(|newest| newest.created);
        if let Some(created) = lost.filter(|created| is_over(*created)) {
            errors.push(Rejection::NotHere { stream: stream.to_owned(), created }.into());
        }
    }
    errors
}

/// Asks the registries what they hold. Says which could not be asked.
fn ask_registries(
    status: &mut StatusReport,
    remote: &RemoteOptions,
    progress: &dyn Progress,
) -> Result<Vec<Error>, Error> {
    let place = |target: &TargetStatus| match &target.target {
        TargetId::Registry(place) => Some(place.clone()),
        _ => None,
    };
    let places: Vec<RegistryPlace> = status.imports.iter().filter_map(place).collect();
    let registries = RegistryAccess::to(&places, remote)?;
    let Some(registry) = registries.to_read() else { return Ok(Vec::new()) };
    status.asked = true;
    let mut errors = Vec::new();
    for target in &mut status.imports {
        let Some(place) = place(target) else { continue };
        for row in &mut target.datasets {
            match drift::in_registry(&registry, &place, &row.name, row.origin.as_ref()) {
                Ok((state, in_use)) => (row.state, row.in_use) = (state, in_use),
                Err(error) => {
                    let is_out = is_out(&error);
                    errors.push(error.into());
                    if is_out {
                        break;
                    }
                }
            }
        }
        registries.take_warnings().iter().for_each(|warning| progress.info(warning));
    }
    Ok(errors)
}

/// Reads what is remembered, and looks at caches and web roots.
pub(crate) fn look(state_dir: Option<&Path>, depth: Depth) -> Result<StatusReport, Error> {
    look_at_state(StateView::find(state_dir)?.as_ref(), depth)
}

fn look_at_state(state: Option<&StateView>, depth: Depth) -> Result<StatusReport, Error> {
    let now = clock::now();
    let (mut imports, mut exports, mut heartbeats, mut unseen) = Default::default();
    let (refused, errors, asked) = Default::default();
    let Some(state) = state else {
        return Ok(StatusReport { imports, exports, heartbeats, refused, errors, now, unseen, asked });
    };
    for stream in state.streams(Side::Import)? {
        let ImportState { heard, targets } = state.imports(&stream)?;
        if let Some(heard) = heard {
            let newest = heard.newest.as_ref().map(|newest| newest.identity);
            let has = |of: &TargetState| newest.is_none_or(|newest| of.seen.contains(&newest));
            let here = !targets.is_empty() && targets.values().all(has);
            heartbeats.push(HeartbeatStatus { stream: stream.clone(), heard, here });
        }
        for (target, of) in targets {
            let Ok(target) = target.parse();
            imports.push(look_at(&stream, target, &of, depth, &mut unseen));
        }
    }
    for stream in state.streams(Side::Export)? {
        if let Some(last) = state.exports(&stream)? {
            let (identity, created, sequence) = (last.identity, last.created, last.sequence);
            exports.push(ExportStatus { stream, identity, created, sequence, datasets: last.floors });
        }
    }
    Ok(StatusReport { imports, exports, heartbeats, refused, errors, now, unseen, asked })
}

/// What was rejected or given up within [`LATELY`], and not accepted since.
fn recent_rejections(state: Option<&StateView>, now: Timestamp) -> Result<Vec<RecentRejection>, Error> {
    let Some(state) = state else { return Ok(Vec::new()) };
    let mut latest: Vec<RecentRejection> = Vec::new();
    for LogEntry { at, event, bundle, why, .. } in state.log()?.latest()? {
        match event {
            Event::Rejected | Event::GivenUp if now.duration_since(at) < LATELY => {
                let (why, given_up) = (why.unwrap_or_default(), event == Event::GivenUp);
                latest.push(RecentRejection { at, bundle, why, given_up });
            }
            Event::Accepted => latest.retain(|refused| !is_same(&refused.bundle, &bundle)),
            _ => {}
        }
    }
    latest.drain(..latest.len().saturating_sub(MAX_REJECTIONS));
    Ok(latest)
}

/// Whether two files' names are of one bundle.
fn is_same(one: &Option<String>, other: &Option<String>) -> bool {
    let key = |name: &Option<String>| file_sets::key(Path::new(name.as_ref()?));
    one.is_some() && key(one) == key(other)
}

fn look_at(
    stream: &str,
    target: TargetId,
    of: &TargetState,
    depth: Depth,
    unseen: &mut Vec<Error>,
) -> TargetStatus {
    let row = |(reference, accepted): (&String, &Timestamp)| {
        let origin = of.origins.get(reference);
        let (state, in_use) =
            drift::on_disk(&target, reference, *accepted, origin, depth).unwrap_or_else(|error| {
                unseen.push(error.into());
                (DriftState::NotLookedAt, None)
            });
        ItemStatus {
            name: reference.clone(),
            accepted: *accepted,
            in_use,
            state,
            expires: of.expires.get(reference).copied(),
            source: origin.map(|origin| origin.source.clone()),
            version: origin.and_then(|origin| origin.version.clone()),
            signers: origin.map(|origin| origin.signers.clone()).unwrap_or_default(),
            origin: origin.cloned(),
        }
    };
    let datasets = of.floors.iter().map(row).collect();
    TargetStatus {
        stream: stream.into(),
        target,
        bundle: of.last.as_ref().map(|last| AcceptedBundle {
            identity: last.identity,
            created: last.created,
            sequence: last.sequence,
            missing_items: last.missing_items.clone(),
        }),
        missing: of.missing.clone(),
        overrides: of.overrides.len(),
        datasets,
        disk: None,
    }
}

/// What the files of a cache or a web root take, in bytes. `None` where there is no such folder.
fn disk(target: &TargetId) -> Option<u64> {
    let directory = target.directory()?;
    directory.is_dir().then(|| {
        let files = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
        let files = files.filter_map(|entry| entry.metadata().ok()).filter(|metadata| metadata.is_file());
        files.map(|metadata| metadata.len()).sum()
    })
}
