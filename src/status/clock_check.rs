//! Detects that this host's clock is behind the dates of accepted or rejected files, or of log
//! entries.
//!
//! With a slow clock, ages are meaningless: last week's data looks new. This module uses only the
//! state and the log, no targets.

use jiff::{SignedDuration, Timestamp};

use crate::error::Error;
use crate::trust::Rejection;
use crate::trust::acceptance::CLOCK_TOLERANCE;
use crate::trust::log::LogEntry;
use crate::trust::state::ImportState;
use crate::util::text::escape;

/// The maximum time by which this host's clock may be behind a time that it recorded itself.
const OWN_TOLERANCE: SignedDuration = SignedDuration::from_hours(1);

/// A date, with the thing that it belongs to and whether this host's own clock set it.
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

/// Returns the time from which ages are counted, and an error if a date is further ahead of this
/// host's clock than the tolerance. The error names the date that is furthest ahead.
pub(crate) fn check(
    imports: &[(String, ImportState)],
    log: &[LogEntry],
    now: Timestamp,
) -> (Timestamp, Option<Error>) {
    let mut all = Vec::new();
    // Only the last line counts: a clock that was fast at an earlier line may have been corrected since.
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

/// Whether a heartbeat was received after a line of the log, by the exporter's dates. If so, the time of its receipt is
/// the latest reading of this host's clock.
fn is_followed_by_heartbeat(entry: &LogEntry, imports: &[(String, ImportState)]) -> bool {
    let heard = imports.iter().filter(|(stream, _)| *stream == entry.stream);
    let mut heard = heard.filter_map(|(_, imports)| imports.heard.as_ref());
    heard.any(|heard| entry.created.is_some_and(|created| created <= heard.created))
}

/// Adds the dates of a stream: those of the last accepted bundle and heartbeat, and that of the last signed file, even
/// if it was rejected for its date.
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
        // A bundle that was received later has the latest reading of this host's clock.
        if signed.is_none_or(|(_, created)| created <= heard.created) {
            all.push(Dated { at: heard.received, what: format!("the arrival of {what}"), own: true });
        }
    }
    let Some((entry, at)) = signed else { return };
    // A heartbeat that was accepted later shows that the clock is correct now.
    if imports.heard.as_ref().is_none_or(|heard| heard.received < entry.at) {
        let name = entry.bundle.as_deref().map_or_else(String::new, |name| format!(" ({})", escape(name)));
        all.push(Dated { at, what: format!("the last signed file for stream {shown:?}{name}"), own: false });
    }
}
