//! `status`: how old is what is in use here, what came last, and is it still there.

pub(crate) mod drift;
pub(crate) mod metrics;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::{Outcome, args};
use crate::dataset::name_and_tag;
use crate::delivery::registry_access::{Registries, is_out};
use crate::delivery::registry_place::Place;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets;
use crate::progress::Progress;
use crate::status::drift::{Depth, State};
use crate::trust::Refusal;
use crate::trust::log::{Entry, Event};
use crate::trust::state::{Heard, ImportState, Origin, Side, StateView, TargetState};
use crate::util::clock;
use crate::util::text::{age, line, moment, safe, size, stamp};

/// For how long a refusal is shown.
const LATELY: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
/// How many refusals are shown, the latest.
const MOST_REFUSED: usize = 20;

/// What a host knows of its streams.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) imports: Vec<Target>,
    pub(crate) exports: Vec<Export>,
    pub(crate) heartbeats: Vec<Heartbeat>,
    /// What was refused lately, the latest last; empty in what [`look`] gives.
    refused: Vec<Refused>,
    errors: Vec<serde_json::Value>,
    #[serde(skip)]
    now: Timestamp,
    /// Where this user may not look.
    #[serde(skip)]
    unseen: Vec<Error>,
    /// Whether registries were asked.
    #[serde(skip)]
    asked: bool,
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
    disk: Option<u64>,
}

/// The last heartbeat of a stream.
#[derive(Serialize)]
pub(crate) struct Heartbeat {
    pub(crate) stream: String,
    #[serde(flatten)]
    pub(crate) heard: Heard,
    /// Whether the newest bundle that it tells of was accepted by every target of the stream.
    here: bool,
}

/// Something that was refused.
#[derive(Serialize)]
struct Refused {
    at: Timestamp,
    bundle: Option<String>,
    why: String,
    /// It never became whole.
    given_up: bool,
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
    state: State,
    expires: Option<Timestamp>,
    /// Where its exporter had it from, upstream's version, and who signed the bundle that brought it.
    source: Option<String>,
    version: Option<String>,
    signers: Vec<String>,
    #[serde(skip)]
    origin: Option<Origin>,
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

/// What an export came to, as a sentence's end.
pub(crate) fn exported(export: &str) -> String {
    match export {
        "written" => "the export wrote a bundle".into(),
        "unchanged" => "the export found nothing new".into(),
        "failed" => "the export failed".into(),
        other => format!("the export was {}", safe(other)),
    }
}

fn dated(date: Option<Timestamp>, now: Timestamp) -> String {
    date.map_or_else(|| "-".into(), |date| format!("{} ({} old)", moment(date), age(date, now)))
}

pub(crate) fn run(args: &args::Status, progress: &dyn Progress) -> Result<Outcome, Error> {
    let state = StateView::find(args.state_dir.as_deref())?;
    let warnings = state.iter().flat_map(StateView::warnings);
    warnings.for_each(|warning| progress.alarm(&warning));
    let mut status = look_at_state(state.as_ref(), Depth::Content)?;
    status.refused = refused(state.as_ref(), status.now)?;
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
    if args.registries {
        errors.extend(ask_registries(&mut status, &args.connection, progress)?);
    }
    status.pass_over_superseded();
    for target in &mut status.imports {
        target.disk = disk(&target.target);
        for row in &target.datasets {
            if let Some(next) = row.state.next(&row.name) {
                errors.push(Error::Destination {
                    path: PathBuf::from(&target.target),
                    what: format!("{} is not what was imported", row.name),
                    next: next.into(),
                });
            }
            let name = name_and_tag(&row.name).map(|(name, _)| name);
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
    if let Some(most) = args.max_silence {
        let mut streams: Vec<&str> = status.imports.iter().map(|target| target.stream.as_str()).collect();
        streams.extend(status.heartbeats.iter().map(|heartbeat| heartbeat.stream.as_str()));
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            let heartbeat = status.heartbeats.iter().find(|heartbeat| heartbeat.stream == stream);
            // A clock that was ahead, here or there, must not hide silence.
            let last = heartbeat.map(|heartbeat| heartbeat.heard.created.min(heartbeat.heard.received));
            let is_over = |since: Timestamp| status.now.duration_since(since) > most.duration();
            if last.is_none_or(is_over) {
                errors.push(Refusal::Silent { stream: stream.to_owned(), last }.into());
            }
            let lost = heartbeat.filter(|heartbeat| !heartbeat.here);
            let lost =
                lost.and_then(|heartbeat| heartbeat.heard.newest.as_ref()).map(|newest| newest.created);
            if let Some(created) = lost.filter(|created| is_over(*created)) {
                errors.push(Refusal::NotHere { stream: stream.to_owned(), created }.into());
            }
        }
    }
    status.errors = errors.iter().map(Error::to_json).collect();
    if let Some(file) = &args.metrics {
        metrics::write(file, &status, None)?;
    }
    Ok(Outcome { errors, ..Outcome::done(&status) })
}

/// Asks the registries what they hold. Says which could not be asked.
fn ask_registries(
    status: &mut Status,
    connection: &args::Connection,
    progress: &dyn Progress,
) -> Result<Vec<Error>, Error> {
    let place = |target: &Target| target.target.strip_prefix("registry:")?.parse::<Place>().ok();
    let places: Vec<Place> = status.imports.iter().filter_map(place).collect();
    let registries = Registries::to(&places, connection)?;
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
        registries.take_notes().iter().for_each(|note| progress.note(note));
    }
    Ok(errors)
}

impl Status {
    /// Whether nothing is remembered.
    fn is_empty(&self) -> bool {
        self.imports.is_empty() && self.exports.is_empty() && self.heartbeats.is_empty()
    }

    /// What another stream has put into the same place since is as it should be.
    fn pass_over_superseded(&mut self) {
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

/// Reads what is remembered, and looks at caches and web roots.
pub(crate) fn look(state_dir: Option<&Path>, depth: Depth) -> Result<Status, Error> {
    look_at_state(StateView::find(state_dir)?.as_ref(), depth)
}

fn look_at_state(state: Option<&StateView>, depth: Depth) -> Result<Status, Error> {
    let now = clock::now();
    let (mut imports, mut exports, mut heartbeats, mut unseen) = Default::default();
    let (refused, errors, asked) = Default::default();
    let Some(state) = state else {
        return Ok(Status { imports, exports, heartbeats, refused, errors, now, unseen, asked });
    };
    for stream in state.streams(Side::Import)? {
        let ImportState { heard, targets } = state.imports(&stream)?;
        if let Some(heard) = heard {
            let newest = heard.newest.as_ref().map(|newest| newest.identity);
            let has = |of: &TargetState| newest.is_none_or(|newest| of.seen.contains(&newest));
            let here = !targets.is_empty() && targets.values().all(has);
            heartbeats.push(Heartbeat { stream: stream.clone(), heard, here });
        }
        for (target, of) in targets {
            imports.push(look_at(&stream, &target, &of, depth, &mut unseen));
        }
    }
    for stream in state.streams(Side::Export)? {
        if let Some(last) = state.exports(&stream)? {
            let (identity, created, sequence) = (last.identity, last.created, last.sequence);
            exports.push(Export { stream, identity, created, sequence, datasets: last.floors });
        }
    }
    Ok(Status { imports, exports, heartbeats, refused, errors, now, unseen, asked })
}

/// What was refused or given up within [`LATELY`], and not accepted since.
fn refused(state: Option<&StateView>, now: Timestamp) -> Result<Vec<Refused>, Error> {
    let Some(state) = state else { return Ok(Vec::new()) };
    let mut latest: Vec<Refused> = Vec::new();
    for Entry { at, event, bundle, why, .. } in state.log()?.latest()? {
        match event {
            Event::Refused | Event::GivenUp if now.duration_since(at) < LATELY => {
                let (why, given_up) = (why.unwrap_or_default(), event == Event::GivenUp);
                latest.push(Refused { at, bundle, why, given_up });
            }
            Event::Accepted => latest.retain(|refused| !is_same(&refused.bundle, &bundle)),
            _ => {}
        }
    }
    latest.drain(..latest.len().saturating_sub(MOST_REFUSED));
    Ok(latest)
}

/// Whether two files' names are of one bundle.
fn is_same(one: &Option<String>, other: &Option<String>) -> bool {
    let key = |name: &Option<String>| file_sets::key(Path::new(name.as_ref()?));
    one.is_some() && key(one) == key(other)
}

fn look_at(stream: &str, target: &str, of: &TargetState, depth: Depth, unseen: &mut Vec<Error>) -> Target {
    let row = |(reference, accepted): (&String, &Timestamp)| {
        let origin = of.origins.get(reference);
        let (state, in_use) =
            drift::on_disk(target, reference, *accepted, origin, depth).unwrap_or_else(|error| {
                unseen.push(error.into());
                (State::NotLookedAt, None)
            });
        Row {
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
        disk: None,
    }
}

/// What the files of a cache or a web root take, in bytes. `None` where there is no such folder.
fn disk(target: &str) -> Option<u64> {
    let folder = Path::new(target.strip_prefix("cache:").or(target.strip_prefix("web:"))?);
    folder.is_dir().then(|| {
        let files = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok);
        let files = files.filter_map(|entry| entry.metadata().ok()).filter(|metadata| metadata.is_file());
        files.map(|metadata| metadata.len()).sum()
    })
}
