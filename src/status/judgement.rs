//! The errors of `status`: targets that failed or are empty, data that is missing, old or expired, and missing
//! heartbeats. Uses only the report, and reads no targets.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::dataset::DatasetRef;
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::status::drift::DriftState;
use crate::status::report::{HeartbeatStatus, ItemStatus, StatusReport, TargetStatus};
use crate::trust::Rejection;
use crate::trust::max_age::MaxAge;
use crate::trust::state::Failure;
use crate::util::age::Age;
use crate::util::text::{escape, format_minute};

/// The hint if the last bundle or heartbeat was rejected.
const REFUSED: &str =
    "See `refused` in the output of `trivy-ferry status`: the last bundle or heartbeat was not accepted";

/// Returns an error for each target that failed or is empty, and for each dataset that does not
/// match the imported data, is too old or has expired.
pub(crate) fn unfit(status: &StatusReport, max_age: Option<&MaxAge>) -> Vec<Error> {
    let mut errors = Vec::new();
    for target in status.used() {
        errors.extend(without_data(status, target));
        for row in &target.datasets {
            errors.extend(unfit_row(status, target, row, max_age));
        }
    }
    errors
}

/// Returns an error about a target.
fn destination(target: &TargetStatus, what: String, hint: &str) -> Error {
    Error::Destination { path: PathBuf::from(target.target.to_string()), what, hint: target.hint(hint) }
}

/// Returns an error if a target failed, or if nothing was imported into it.
fn without_data(status: &StatusReport, target: &TargetStatus) -> Option<Error> {
    if let Some(Failure { since, why, .. }) = &target.failed {
        let what = format!("every import has failed since {}: {why}", format_minute(*since));
        return Some(destination(
            target,
            what,
            "Fix the reported problem: the next successful import into the target clears this error; `trivy-ferry forget TARGET` removes a target that was a mistake.",
        ));
    }
    if target.accepted {
        return None;
    }
    if let Some(reset) = target.floors_reset {
        let what = format!(
            "its floors were reset on {}, and no bundle has been accepted since",
            format_minute(reset)
        );
        return Some(destination(target, what, "Import a bundle: it is treated as the first."));
    }
    let stream = escape(&target.stream);
    let what = format!("nothing of stream {stream:?} was imported into it yet");
    let has_other = status.used().any(|other| other.target == target.target && other.accepted);
    let see = "See `refused` in the output for the reason why no bundle was accepted";
    let hint = match has_other {
        true => format!("{see}; if the target is only for other streams, run `{}`.", target.forget_command()),
        false => format!("{see}."),
    };
    Some(destination(target, what, &hint))
}

/// Returns the errors of a dataset or an image.
fn unfit_row(
    status: &StatusReport,
    target: &TargetStatus,
    row: &ItemStatus,
    max_age: Option<&MaxAge>,
) -> Vec<Error> {
    let mut errors = Vec::new();
    let newer = match status.last_refused.contains_key(&target.stream) {
        true => format!("{REFUSED}; if it cannot be used, bring a newer bundle."),
        false => "Bring a newer bundle: scans miss vulnerabilities found since.".into(),
    };
    let rejected = |rejection| target.rejected(rejection, &newer);
    // If several streams use a target, one of them is enough to report the error.
    let speaks = status.speaks(target, row);
    if let Some(hint) = row.state.hint(&row.name, &target.last_bundle()).filter(|_| speaks) {
        errors.push(destination(target, format!("{} does not match the imported data", row.name), &hint));
    }
    for tag in &row.lost_tags {
        let what = format!("the tag {} no longer names the {} that was imported", escape(tag), row.name);
        let hint = format!("Import {} again, with --extra-tag, to set the tag again.", target.last_bundle());
        errors.push(destination(target, what, &hint));
    }
    // If the target was not checked, the older data of another stream may be in place.
    if speaks || row.state == DriftState::NotLookedAt {
        let name = row.name.parse::<DatasetRef>().ok().map(|dataset| dataset.name);
        if let (Some(max_age), Some(name)) = (max_age, &name) {
            let date = row.in_use.unwrap_or(row.accepted);
            errors.extend(max_age.check(name, Some(date), status.now).err().map(rejected));
        }
    }
    if let Some(expires) = row.expires.filter(|expires| *expires < status.now) {
        errors.push(rejected(Rejection::Expired { bundle: row.name.clone(), expires }));
    }
    errors
}

/// Returns an error for each stream whose last heartbeat, or the bundle that it announces, is overdue.
pub(crate) fn silent(status: &StatusReport, most: Age) -> Vec<Error> {
    let mut streams: Vec<&str> = status.used().map(|target| target.stream.as_str()).collect();
    streams.extend(status.heartbeats.iter().map(|heartbeat| heartbeat.stream.as_str()));
    streams.sort_unstable();
    streams.dedup();
    let is_over = |since: Timestamp| status.now.duration_since(since) > most.duration();
    let mut errors = Vec::new();
    for stream in streams {
        let heartbeat = status.heartbeats.iter().find(|heartbeat| heartbeat.stream == stream);
        let refused = status.last_refused.get(stream);
        // A clock that was fast, on either host, must not hide missing heartbeats.
        let last = heartbeat.map(|heartbeat| heartbeat.heard.created.min(heartbeat.heard.received));
        if last.is_none_or(is_over) {
            let was_heard_since =
                heartbeat.is_some_and(|heartbeat| refused.is_some_and(|at| *at <= heartbeat.heard.received));
            let rejection = Rejection::Silent { stream: stream.to_owned(), last };
            let otherwise = "if that is not the cause, check that the diode or the gateway works, and that the exporter runs with --heartbeat.";
            errors.push(after_refusal(refused.is_some() && !was_heard_since, rejection, otherwise));
        }
        if let Some((heartbeat, created)) =
            overdue(status, heartbeat).filter(|(_, created)| is_over(*created))
        {
            let not_in = heartbeat.not_in.iter().map(TargetId::to_string).collect();
            let rejection = Rejection::NotHere { stream: stream.to_owned(), created, not_in };
            errors.push(after_refusal(
                refused.is_some(),
                rejection,
                "if that was another bundle, send this one again.",
            ));
        }
    }
    errors
}

/// Returns the heartbeat that announces a bundle which some target has not accepted, and the
/// creation time of the bundle. `None` if all targets failed: their failures are reported, and the
/// bundle may have been received.
fn overdue<'h>(
    status: &StatusReport,
    heartbeat: Option<&'h HeartbeatStatus>,
) -> Option<(&'h HeartbeatStatus, Timestamp)> {
    let heartbeat = heartbeat.filter(|heartbeat| !heartbeat.here)?;
    let mut targets = status.used().filter(|target| target.stream == heartbeat.stream).peekable();
    if targets.peek().is_some() && targets.all(|target| target.failed.is_some()) {
        return None;
    }
    Some((heartbeat, heartbeat.heard.newest.as_ref()?.created))
}

/// Returns the error of a heartbeat or bundle that was not received. If the last file was rejected,
/// the hint mentions that first.
fn after_refusal(is_refused: bool, rejection: Rejection, otherwise: &str) -> Error {
    let original = Error::from(rejection);
    if !is_refused {
        return original;
    }
    let hint = format!("{REFUSED}; {otherwise}");
    Error::Restated { what: original.to_string(), hint, original: Box::new(original) }
}
