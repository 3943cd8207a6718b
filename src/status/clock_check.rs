//! Whether this host's clock is behind what this host has accepted, was offered or has written down itself.
//!
//! An age is worth nothing then: data of last week looks new.

use jiff::{SignedDuration, Timestamp};

use crate::error::Error;
use crate::trust::Rejection;
use crate::trust::acceptance::CLOCK_TOLERANCE;
use crate::trust::log::LogEntry;
use crate::trust::state::ImportState;
use crate::util::text::escape;

/// How far this host's clock may have gone back since it wrote something down.
const OWN_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// Something that is dated, and by whose clock.
struct Dated {
    at: Timestamp,
    what: String,
    own: bool,
}

impl Dated {
    fn is_ahead_of(&self, now: Timestamp) -> bool {
        let tolerance = if self.own { OWN_TOLERANCE } else { CLOCK_TOLERANCE };
        self.at.duration_since(now) > tolerance
    }
}

/// Returns what is furthest ahead of this host's clock, as an error, if that is further than clocks may differ; and
/// the time from which ages are counted.
pub(crate) fn check(
    imports: &[(String, ImportState)],
    log: &[LogEntry],
    now: Timestamp,
) -> (Timestamp, Option<Error>) {
    let mut all = Vec::new();
    // Only the last line: what an earlier one says of a clock that was ahead may have been put right since.
    let last = log.last().filter(|entry| !is_followed_by_heartbeat(entry, imports));
    all.extend(last.map(|entry| Dated {
        at: entry.at,
        what: "the last line of imports.jsonl".into(),
        own: true,
    }));
    for (stream, imports) in imports {
        of_stream(stream, imports, log, &mut all);
    }
    let furthest =
        all.into_iter().filter(|dated| dated.is_ahead_of(now)).max_by_key(|dated| (dated.own, dated.at));
    match furthest {
        Some(Dated { at, what, own }) => {
            (at, Some(Rejection::ClockBehind { now, what, evidence: at, own }.into()))
        }
        None => (now, None),
    }
}

/// Whether a heartbeat came after a line of the log, by the exporter's dates: then the time of its arrival says what
/// this host's clock said last.
fn is_followed_by_heartbeat(entry: &LogEntry, imports: &[(String, ImportState)]) -> bool {
    let heard = imports.iter().filter(|(stream, _)| *stream == entry.stream);
    let mut heard = heard.filter_map(|(_, imports)| imports.heard.as_ref());
    heard.any(|heard| entry.created.is_some_and(|created| created <= heard.created))
}

/// Adds the dates of a stream: of what was accepted, and of what came last and was refused for its date.
fn of_stream(stream: &str, imports: &ImportState, log: &[LogEntry], all: &mut Vec<Dated>) {
    let shown = escape(stream);
    let used = imports.targets.values().filter(|target| target.forgotten.is_none());
    let last = used.filter_map(|target| Some(target.last.as_ref()?.created)).max();
    all.extend(last.map(|at| Dated { at, what: format!("the last bundle of stream {shown:?}"), own: false }));
    let mut signed = log.iter().filter(|entry| entry.stream == stream && entry.created.is_some());
    let signed = signed.next_back().and_then(|entry| Some((entry, entry.created?)));
    if let Some(heard) = &imports.heard {
        let what = format!("the last heartbeat of stream {shown:?}");
        all.push(Dated { at: heard.created, what: what.clone(), own: false });
        // A bundle that came afterwards says what this host's clock said last.
        if signed.is_none_or(|(_, created)| created <= heard.created) {
            all.push(Dated { at: heard.received, what: format!("the arrival of {what}"), own: true });
        }
    }
    let Some((entry, at)) = signed else { return };
    // What was accepted afterwards says that the clock is right now.
    if imports.heard.as_ref().is_none_or(|heard| heard.received < entry.at) {
        let name = entry.bundle.as_deref().map_or_else(String::new, |name| format!(" ({})", escape(name)));
        all.push(Dated { at, what: format!("what came last for stream {shown:?}{name}"), own: false });
    }
}
