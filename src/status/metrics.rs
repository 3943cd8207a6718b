//! Metrics for Prometheus: a file for the textfile collector of its node exporter. The metrics are times and not ages,
//! so that a file that is no longer updated contains nothing false.

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;

use crate::error::{Category, Error};
use crate::status::drift::DriftState;
use crate::status::report::{ItemStatus, StatusReport, TargetStatus};
use crate::util::clock;
use crate::util::dir::write::Durability;
use crate::util::dir::{Dir, FileMode};
use crate::util::text::escape_lines;

const RUN: &str = "trivy_ferry_last_run_timestamp_seconds";
const EXIT_CODE: &str = "trivy_ferry_last_exit_code";
const SUCCESS: &str = "trivy_ferry_last_success_timestamp_seconds";

/// A line in the file after a run that could not start. The next run that starts removes it.
const NOT_STARTED: &str = "# The last run could not start.";

/// The change in the metrics of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunNews {
    /// Nothing changes.
    None,
    /// A run has just ended.
    Ended(Result<(), Category>),
    /// A run could not start, or a watch could not continue.
    NotStarted(Category),
    /// A watch has started, which clears an earlier [`RunNews::NotStarted`].
    Started,
}

/// Replaces the file. Without a status, the metrics of targets are kept.
///
/// # Errors
/// If the file cannot be written, or is not a regular file.
pub(crate) fn write(file: &Path, status: Option<&StatusReport>, news: RunNews) -> Result<(), Error> {
    /// The maximum size of an earlier file that is read, in bytes.
    const MAX: u64 = 1 << 20;
    let name = file.file_name().unwrap_or_default();
    let directory =
        file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let dir = Dir::top(directory)?;
        // An earlier file that is unreadable or too large is ignored. Reading must not block on a FIFO.
        let earlier = dir.read_small(name, MAX).ok().flatten().unwrap_or_default();
        if dir.find(name)?.is_some_and(|entry| !entry.is_file()) {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        let text = text(status, news, &String::from_utf8_lossy(&earlier), clock::now());
        // The collector runs as another user.
        dir.replace_beside_others(name, text.as_bytes(), FileMode::Shared(0o644), None, Durability::Synced)
    };
    write().map_err(|error| Error::Destination {
        path: file.into(),
        what: format!("the metrics could not be written: {error}"),
        hint: "Check that the directory exists and is writable.".into(),
    })
}

/// Returns the text of the file. The metrics of earlier runs are taken from the earlier text.
fn text(status: Option<&StatusReport>, news: RunNews, earlier: &str, now: Timestamp) -> String {
    let mut families = Families(String::new());
    match status {
        Some(status) => {
            families.add_imports(status);
            families.add_heartbeats(status);
            families.add_missing(status);
            families.add_missing_items(status);
            families.add_exports(status);
        }
        None => families.keep_targets(earlier),
    }
    families.add_runs(news, earlier, now);
    families.0
}

/// A sample of a metric: its labels and its value.
type Sample = (String, String);

/// The text of the metrics so far.
struct Families(String);

impl Families {
    fn add_imports(&mut self, status: &StatusReport) {
        let (mut datasets, mut in_place, mut bundles) = (Vec::new(), Vec::new(), Vec::new());
        let (mut used, mut failed) = (Vec::new(), Vec::new());
        for target in &status.imports {
            used.extend(target.used.map(|used| (of_target(target), seconds(used))));
            // An alert for an unused target would never end.
            if target.retired {
                continue;
            }
            failed.push((of_target(target), u8::from(target.failed.is_some()).to_string()));
            for row in &target.datasets {
                let place = target.target.to_string();
                let labels =
                    labels(&[("stream", &target.stream), ("dataset", &row.name), ("target", &place)]);
                in_place.extend(is_in_place(row).map(|is| (labels.clone(), u8::from(is).to_string())));
                datasets.extend(date_in_use(row).map(|date| (labels, seconds(date))));
            }
            if let Some(bundle) = &target.bundle {
                bundles.push((of_target(target), seconds(bundle.created)));
            }
        }
        self.add(
            "trivy_ferry_dataset_updated_timestamp_seconds",
            "When upstream built the data in use; for data without a date, when its bundle was created; for data that others put into a registry, the date of its manifest if no import has read the data. Absent if the target holds no data, if it holds other data without a date, or if it lacks a tag of the data.",
            datasets,
        );
        self.add(
            "trivy_ferry_dataset_in_place",
            "Whether the target holds the imported data; absent if it was not checked.",
            in_place,
        );
        self.add(
            "trivy_ferry_bundle_created_timestamp_seconds",
            "When the last accepted bundle was created.",
            bundles,
        );
        self.add(
            "trivy_ferry_target_used_timestamp_seconds",
            "When a run last used the target, successfully or not.",
            used,
        );
        self.add("trivy_ferry_target_failed", "Whether the last run failed at the target.", failed);
    }

    fn add_heartbeats(&mut self, status: &StatusReport) {
        let heartbeats = &status.heartbeats;
        self.add(
            "trivy_ferry_heartbeat_timestamp_seconds",
            "When the last received heartbeat was created.",
            heartbeats.iter().map(|h| (of_stream(&h.stream), seconds(h.heard.created))),
        );
        self.add(
            "trivy_ferry_bundle_announced_timestamp_seconds",
            "When the newest bundle that a heartbeat announced was created.",
            heartbeats.iter().filter_map(|h| {
                let newest = h.heard.newest.as_ref()?;
                Some((of_stream(&h.stream), seconds(newest.created)))
            }),
        );
        self.add(
            "trivy_ferry_heartbeat_export_failed",
            "Whether the last received heartbeat reports a failed export.",
            heartbeats
                .iter()
                .map(|h| (of_stream(&h.stream), u8::from(h.heard.export == "failed").to_string())),
        );
    }

    fn add_missing(&mut self, status: &StatusReport) {
        let missing = |target: &TargetStatus| (of_target(target), target.missing.len().to_string());
        self.add(
            "trivy_ferry_bundles_missing",
            "Bundles that were never received.",
            status.used().map(missing),
        );
    }

    fn add_missing_items(&mut self, status: &StatusReport) {
        let of_bundle = |target: &TargetStatus| {
            let missing = target.bundle.as_ref()?.missing_items.len();
            Some((of_target(target), missing.to_string()))
        };
        self.add(
            "trivy_ferry_bundle_missing_items",
            "Datasets and images that the last bundle lacks, because its exporter could not get them.",
            status.used().filter_map(of_bundle),
        );
    }

    fn add_exports(&mut self, status: &StatusReport) {
        self.add(
            "trivy_ferry_export_created_timestamp_seconds",
            "When the last exported bundle was created.",
            status.exports.iter().map(|export| (of_stream(&export.stream), seconds(export.created))),
        );
    }

    /// Keeps all metrics of the earlier text except those of runs.
    fn keep_targets(&mut self, earlier: &str) {
        let of_runs = |line: &&str| {
            *line == NOT_STARTED || [RUN, EXIT_CODE, SUCCESS].iter().any(|name| line.contains(name))
        };
        for line in earlier.lines().filter(|line| !of_runs(line)) {
            let _ = writeln!(self.0, "{line}");
        }
    }

    /// Adds the metrics of the last run, from `news` or else from the earlier text.
    fn add_runs(&mut self, news: RunNews, earlier: &str, now: Timestamp) {
        let before = |name: &str| earlier.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let kept = |name: &str| before(name).filter(|value| value.parse::<f64>().is_ok()).map(str::to_owned);
        let was_not_started = earlier.lines().any(|line| line == NOT_STARTED);
        let (at, exit) = match news {
            RunNews::Ended(Ok(())) => (Some(seconds(now)), Some(0)),
            RunNews::Ended(Err(category)) | RunNews::NotStarted(category) => {
                (Some(seconds(now)), Some(category.exit_code()))
            }
            RunNews::Started if was_not_started => (None, Some(0)),
            RunNews::Started | RunNews::None => (None, None),
        };
        let exit = exit.map(|code| code.to_string()).or_else(|| kept(EXIT_CODE));
        let success = match news {
            RunNews::Ended(Ok(())) => Some(seconds(now)),
            _ => kept(SUCCESS),
        };
        let one = |value: Option<String>| value.map(|value| (String::new(), value));
        self.add(RUN, "When the last run ended.", one(at.or_else(|| kept(RUN))));
        self.add(EXIT_CODE, "The exit code of the last run.", one(exit));
        self.add(SUCCESS, "When the last successful import ended.", one(success));
        if matches!(news, RunNews::NotStarted(_)) || (news == RunNews::None && was_not_started) {
            let _ = writeln!(self.0, "{NOT_STARTED}");
        }
    }

    /// Adds a metric, if it has samples.
    fn add(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        }
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// Returns the date of the data in a target; `None` if there is no data, or if it has no date.
fn date_in_use(row: &ItemStatus) -> Option<Timestamp> {
    match is_in_place(row) {
        Some(false) => row.in_use,
        _ => Some(row.in_use.unwrap_or(row.accepted)),
    }
}

/// Whether a target holds the imported data; `None` if it was not checked, or if other data is
/// expected there.
fn is_in_place(row: &ItemStatus) -> Option<bool> {
    match row.state {
        DriftState::InPlace => Some(row.lost_tags.is_empty()),
        DriftState::Missing | DriftState::Differs | DriftState::Older | DriftState::Newer => Some(false),
        DriftState::Superseded | DriftState::NotAccepted | DriftState::NotLookedAt => None,
    }
}

fn seconds(time: Timestamp) -> String {
    time.as_second().to_string()
}

fn of_stream(stream: &String) -> String {
    labels(&[("stream", stream)])
}

fn of_target(target: &TargetStatus) -> String {
    labels(&[("stream", &target.stream), ("target", &target.target.to_string())])
}

/// Returns labels in the text format, with backslash, quote and line feed escaped.
fn labels(labels: &[(&str, &String)]) -> String {
    // Hidden characters could forge a line in a terminal that shows the file.
    let escape =
        |text: &str| escape_lines(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let odd = "a\"b\\c\nd".to_owned();
        assert_eq!(labels(&[("x", &odd)]), "{x=\"a\\\"b\\\\c\\nd\"}");
        assert!(!labels(&[("x", &"\u{1b}[2J\u{202e}".to_owned())]).contains(['\u{1b}', '\u{202e}']));
    }
}
