//! `status`: shows the age of the data in use, the last bundle, and whether the data is still in
//! place. Changes nothing but the metrics file.

pub(crate) mod clock_check;
pub(crate) mod drift;
pub(crate) mod floors;
pub(crate) mod forget;
pub(crate) mod judgement;
pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod report;
pub(crate) mod retired;
pub(crate) mod signers;
pub(crate) mod unaccepted;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use crate::bundle::Heartbeat;
use crate::delivery::registry_access::{RegistryAccess, is_out};
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets;
use crate::progress::Progress;
use crate::remote::RemoteOptions;
use crate::status::drift::{DateOf, Depth, DriftState, KnownData};
use crate::status::metrics::RunNews;
use crate::status::options::StatusOptions;
use crate::status::report::{
    AcceptedBundle, ExportStatus, HeartbeatStatus, ItemStatus, RecentRejection, StatusReport, TargetStatus,
};
use crate::status::retired::usage;
use crate::trust::log::{Event, LogEntry};
use crate::trust::state::{Accepted, ImportState, ReceivedHeartbeat, Side, StateView, TargetState};
use crate::util::clock;

/// The time for which a rejection is shown.
const LATELY: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// The number of latest sequence numbers that are checked for missing bundles.
const COUNTED: u64 = 100;
/// The maximum number of latest rejections that are shown.
const MAX_REJECTIONS: usize = 20;

/// Reads the state of this host, and checks whether the imported data is still in place.
///
/// # Errors
/// If the state has no imports or exports, or cannot be read. Errors about old or missing data are in the report.
pub fn status(options: &StatusOptions, progress: &dyn Progress) -> Result<StatusReport, Error> {
    let state = StateView::find(options.state_dir.as_deref())?;
    let warnings = state.iter().flat_map(StateView::warnings);
    warnings.for_each(|warning| progress.warn(&warning));
    let imports = all_imports(state.as_ref())?;
    let mut status = look_at_state(state.as_ref(), &imports, Depth::Content, options.target.as_deref())?;
    let mut errors = std::mem::take(&mut status.unseen);
    if let Some(state) = &state {
        let log = state.log()?.latest()?;
        let (present, behind) = clock_check::check(&imports, &log, status.now);
        errors.extend(behind);
        status.now = present;
        let accepted = last_accepted(&log);
        let refused = recent_rejections(log, &status.heartbeats, present);
        for RecentRejection { at, stream, .. } in &refused {
            if accepted.get(stream).is_none_or(|accepted| accepted < at) {
                status.last_refused.insert(stream.clone(), *at);
            }
        }
        if options.target.is_none() {
            status.refused = refused;
        }
    }
    if status.is_empty() {
        let error = nothing_known(&imports);
        if status.refused.is_empty() {
            return Err(error);
        }
        errors.push(error);
    }
    if let Some(remote) = &options.registries {
        errors.extend(ask_registries(&mut status, remote, progress)?);
    }
    status.accept_superseded();
    errors.extend(unjudged(&status, options));
    signers::mark_untrusted(&mut status);
    for target in status.used_mut() {
        target.disk = disk(&target.target);
    }
    errors.extend(judgement::unfit(&status, options.max_age.as_ref()));
    if let Some(max_age) = &options.max_age {
        errors.extend(unaccepted::absent(&status, max_age));
    }
    if let Some(most) = options.max_silence {
        errors.extend(judgement::silent(&status, most));
    }
    status.errors = errors;
    if let Some(file) = &options.metrics {
        metrics::write(file, Some(&status), RunNews::None)?;
    }
    Ok(status)
}

/// Returns an error if `--max-age` was given and no target is in use. Otherwise, an exporting host
/// would look healthy.
fn unjudged(status: &StatusReport, options: &StatusOptions) -> Option<Error> {
    let is_vain = options.max_age.is_some() && status.used().next().is_none();
    is_vain.then(|| {
        Error::usage(
            "--max-age checks imported data, but no import target is in use on this host",
            "On an exporting host, use `export --max-age` and watch its exit code.",
        )
    })
}

/// Returns the error of a host that has nothing to show.
fn nothing_known(imports: &[(String, ImportState)]) -> Error {
    let mut targets = imports.iter().flat_map(|(_, imports)| imports.targets.values()).peekable();
    if targets.peek().is_some() && targets.all(|of| of.forgotten.is_some()) {
        return Error::usage(
            "every target of this host was retired with `trivy-ferry forget`",
            "`status` shows a target again after the next import into it.",
        );
    }
    Error::usage(
        "nothing was imported or exported here, according to this user's state",
        "Name the state directory with --state-dir, or run the command as the user who imports.",
    )
}

/// Returns the time at which the last bundle of each stream was accepted, according to the log.
fn last_accepted(log: &[LogEntry]) -> BTreeMap<String, Timestamp> {
    let accepted = log.iter().filter(|entry| entry.event == Event::Accepted);
    accepted.map(|entry| (entry.stream.clone(), entry.at)).collect()
}

/// Checks the data in the registries. Returns the errors of those that could not be checked.
fn ask_registries(
    status: &mut StatusReport,
    remote: &RemoteOptions,
    progress: &dyn Progress,
) -> Result<Vec<Error>, Error> {
    let place = |target: &TargetStatus| match &target.target {
        TargetId::Registry(place) => Some(place.clone()),
        _ => None,
    };
    let places: Vec<RegistryPlace> = status.used().filter_map(place).collect();
    let registries = RegistryAccess::to(&places, remote)?;
    let Some(registry) = registries.to_read(progress) else { return Ok(Vec::new()) };
    status.asked = true;
    let mut errors = Vec::new();
    for target in status.used_mut() {
        let Some(place) = place(target) else { continue };
        for row in &mut target.datasets {
            let known = KnownData { origin: row.origin.as_ref(), others: row.others.as_ref() };
            let looked = drift::in_registry(&registry, &place, &row.name, known).and_then(|found| {
                let origin = row.origin.as_ref().filter(|_| found.0 == DriftState::InPlace);
                let lost = origin.map(|origin| drift::lost_tags(&registry, &place, &row.name, origin));
                Ok((found, lost.transpose()?.unwrap_or_default()))
            });
            match looked {
                Ok(((state, in_use), lost_tags)) => {
                    row.lost_tags = lost_tags;
                    row.state = state;
                    row.in_use = in_use.map(|(date, _)| date);
                    row.manifest_date = in_use.is_some_and(|(_, of)| of == DateOf::Manifest);
                }
                Err(error) => {
                    let is_out = is_out(&error);
                    errors.push(error.into());
                    if is_out {
                        break;
                    }
                }
            }
        }
        registries.take_warnings().iter().for_each(|warning| progress.warn(warning));
    }
    Ok(errors)
}

/// Reads the state, and checks caches and web roots.
///
/// # Errors
/// If the state cannot be read.
pub(crate) fn look(state_dir: Option<&Path>, depth: Depth) -> Result<StatusReport, Error> {
    let state = StateView::find(state_dir)?;
    look_at_state(state.as_ref(), &all_imports(state.as_ref())?, depth, None)
}

/// Reads the state of each imported stream.
fn all_imports(state: Option<&StateView>) -> Result<Vec<(String, ImportState)>, Error> {
    let Some(state) = state else { return Ok(Vec::new()) };
    let read = |stream: String| {
        let imports = state.imports(&stream)?;
        Ok((stream, imports))
    };
    state.streams(Side::Import)?.into_iter().map(read).collect()
}

/// Checks all targets, or only the wanted one.
fn look_at_state(
    state: Option<&StateView>,
    imports: &[(String, ImportState)],
    depth: Depth,
    wanted: Option<&str>,
) -> Result<StatusReport, Error> {
    let mut status = StatusReport::at(clock::now());
    let Some(state) = state else { return Ok(status) };
    status.state_dir = Some(state.path().to_path_buf());
    let (mut known, mut was_forgotten) = (Vec::new(), false);
    for (stream, imports) in imports {
        let count = status.imports.len();
        for (name, of) in &imports.targets {
            let Ok(target) = name.parse::<TargetId>();
            let is_wanted = wanted.is_none_or(|wanted| target.is_called(wanted));
            if of.forgotten.is_some() {
                was_forgotten |= is_wanted;
                continue;
            }
            if !is_wanted {
                known.push(name.clone());
                continue;
            }
            let usage = usage(name, &imports.targets, status.now);
            let mut look = look_at(stream, target, of, depth, &mut status.unseen);
            // A target that the user names is shown in full even if it is retired.
            (look.retired, look.lags) = (usage.retired && wanted.is_none(), usage.lags);
            status.imports.push(look);
        }
        let of_stream = &status.imports[count..];
        // If all targets of a stream are retired, its heartbeats do not matter.
        let is_given_up = !imports.targets.is_empty() && of_stream.is_empty();
        let is_shown = !is_given_up && (wanted.is_none() || !of_stream.is_empty());
        if let Some(heard) = imports.heard.as_ref().filter(|_| is_shown) {
            status.heartbeats.push(heartbeat(stream.clone(), heard, imports, of_stream));
        }
    }
    status.mark_shared();
    unaccepted::add(&mut status, imports);
    if let Some(wanted) = wanted {
        return match status.imports.is_empty() {
            true if was_forgotten => Err(forget::retired(wanted)),
            true => Err(forget::unknown(wanted, &known)),
            false => Ok(status),
        };
    }
    for stream in state.streams(Side::Export)? {
        if let Some(last) = state.exports(&stream)? {
            let (identity, created, sequence) = (last.identity, last.created, last.sequence);
            status.exports.push(ExportStatus { stream, identity, created, sequence, datasets: last.floors });
        }
    }
    Ok(status)
}

/// Compares a heartbeat with the targets in use. Failed targets are not compared: they may have accepted the bundle
/// without holding its data, and their failure is reported.
fn heartbeat(
    stream: String,
    heard: &ReceivedHeartbeat,
    imports: &ImportState,
    targets: &[TargetStatus],
) -> HeartbeatStatus {
    let has = |of: &TargetState| {
        of.failure.is_none()
            && heard.newest.as_ref().is_none_or(|newest| {
                // A bundle that was created later has newer data.
                let is_later = |last: &Accepted| last.created >= newest.created;
                of.seen.contains(&newest.identity) || of.last.as_ref().is_some_and(is_later)
            })
    };
    let judged = || targets.iter().filter(|target| !target.retired && target.failed.is_none());
    let lacks = |target: &&TargetStatus| !imports.targets.get(&target.target.to_string()).is_some_and(has);
    let lack: Vec<_> = judged().filter(lacks).map(|target| target.target.clone()).collect();
    let here = lack.is_empty() && judged().next().is_some();
    // If no target has the bundle, it was not received at all.
    let not_in = if imports.targets.values().any(has) { lack } else { Vec::new() };
    HeartbeatStatus { stream, heard: heard.clone(), here, not_in }
}

/// Returns the bundles and heartbeats that were rejected or given up within [`LATELY`] and not
/// accepted since. A heartbeat counts as accepted if a later one of its stream was received.
fn recent_rejections(
    log: Vec<LogEntry>,
    heartbeats: &[HeartbeatStatus],
    now: Timestamp,
) -> Vec<RecentRejection> {
    let mut latest: Vec<(Option<Digest>, RecentRejection)> = Vec::new();
    let was_heard_since = |stream: &str, at: Timestamp| {
        heartbeats.iter().any(|heartbeat| heartbeat.stream == stream && heartbeat.heard.received >= at)
    };
    for LogEntry { at, event, stream, bundle, identity, why, heartbeat, .. } in log {
        // Earlier versions logged only the name.
        let is_heartbeat = heartbeat || bundle.as_ref().is_some_and(|name| Heartbeat::is_named(name));
        if is_heartbeat && was_heard_since(&stream, at) {
            continue;
        }
        match event {
            Event::Rejected | Event::GivenUp if now.duration_since(at) < LATELY => {
                let (why, given_up) = (why.unwrap_or_default(), event == Event::GivenUp);
                // Each target and each run adds its own line to the log.
                latest.retain(|(_, other)| {
                    (&other.bundle, &other.why, other.given_up) != (&bundle, &why, given_up)
                });
                latest.push((identity, RecentRejection { at, stream, bundle, why, given_up }));
            }
            // It was accepted under this name, or as another copy.
            Event::Accepted => latest.retain(|(refused_identity, refused)| {
                !is_same(&refused.bundle, &bundle)
                    && (refused_identity.is_none() || *refused_identity != identity)
            }),
            _ => {}
        }
    }
    let mut latest: Vec<RecentRejection> = latest.into_iter().map(|(_, refused)| refused).collect();
    latest.drain(..latest.len().saturating_sub(MAX_REJECTIONS));
    latest
}

/// Whether two file names belong to the same bundle.
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
        ItemStatus { state, in_use, ..ItemStatus::of(reference, *accepted, of) }
    };
    let datasets = of.floors.iter().map(row).collect();
    TargetStatus {
        stream: stream.into(),
        target,
        bundle: of.last.as_ref().filter(|_| of.failure.is_none() || !of.floors.is_empty()).map(|last| {
            AcceptedBundle {
                identity: last.identity,
                created: last.created,
                sequence: last.sequence,
                missing_items: last.missing_items.clone(),
            }
        }),
        missing: lately_missing(of),
        overrides: of.overrides.len(),
        last_override: of.overrides.last().cloned(),
        datasets,
        disk: None,
        used: of.used,
        failed: of.failure.clone(),
        floors_reset: of.floors_reset,
        retired: false,
        lags: false,
        accepted: !of.floors.is_empty() || (of.last.is_some() && of.failure.is_none()),
        shared: false,
    }
}

/// Returns the missing bundles among the last [`COUNTED`]: older losses say nothing about the link today.
fn lately_missing(of: &TargetState) -> Vec<u64> {
    let newest = of.counted.or(of.last.as_ref().and_then(|last| last.sequence));
    let first = newest.unwrap_or(0).saturating_sub(COUNTED);
    of.missing.iter().copied().filter(|number| *number > first).collect()
}

/// Returns the total size of the files of a cache or a web root, in bytes. `None` if there is no such directory.
fn disk(target: &TargetId) -> Option<u64> {
    let directory = target.directory()?;
    directory.is_dir().then(|| {
        let files = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
        let files = files.filter_map(|entry| entry.metadata().ok()).filter(|metadata| metadata.is_file());
        files.map(|metadata| metadata.len()).sum()
    })
}
