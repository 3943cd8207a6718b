//! The lines that a run adds to the log of imports. This module depends on reports and errors, and
//! decides nothing.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::bundle::{BundleError, UnverifiedBundle};
use crate::delivery::admitted::AdmittedBundle;
use crate::delivery::report::{DatasetResult, DeliveryStatus, ImageResult, TargetReport};
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::rebuild::Rebuilt;
use crate::trust::TrustError;
use crate::trust::log::{Event, LogEntry, LoggedDataset, LoggedKey};
use crate::trust::state::StateView;
use crate::util::clock;
use crate::util::text::{escape, format_count};

/// Findings about the inputs, before any target is used.
#[derive(Default)]
pub(crate) struct InputFindings {
    /// The files that were rebuilt from parity, for each bundle.
    pub(crate) repaired: Vec<Rebuilt>,
    /// The errors of files that were skipped because no trusted key signed them.
    pub(crate) untrusted: Vec<BundleError>,
    /// The number of further such files.
    pub(crate) more_untrusted: usize,
}

/// The entries of one run.
pub(crate) struct RunEntries<'r> {
    stream: &'r str,
    inputs: &'r [PathBuf],
    now: Timestamp,
    entries: Vec<LogEntry>,
}

impl<'r> RunEntries<'r> {
    /// Returns an empty list.
    pub(crate) fn new(stream: &'r str, inputs: &'r [PathBuf]) -> Self {
        RunEntries { stream, inputs, now: clock::now(), entries: Vec::new() }
    }

    /// Adds the findings about the inputs.
    pub(crate) fn beforehand(&mut self, beforehand: &InputFindings) {
        for what in &beforehand.repaired {
            let entry = self.entry(Event::Repaired).because(&self.shortened(&what.to_string()));
            self.entries.push(entry);
        }
        for error in &beforehand.untrusted {
            self.rejected(error, None);
        }
        if beforehand.more_untrusted > 0 {
            let more = format_count(beforehand.more_untrusted, "more file");
            let why = format!("no trusted key signed {more}");
            self.entries.push(self.entry(Event::Rejected).because(&why).unsigned());
        }
    }

    /// Adds the result of one target.
    pub(crate) fn target(&mut self, report: &TargetReport) {
        let target = report.target.to_string();
        if let Some(why) = &report.new_failure {
            let entry = self.entry(Event::Failed).because(&self.shortened(why));
            self.entries.push(LogEntry { target: Some(target.clone()), ..entry });
        }
        for (source, why) in &report.rejected {
            let why = self.shortened(why);
            let entry = self.of(Event::Rejected, &target, source).because(&why);
            self.entries.push(entry);
        }
        for error in &report.errors {
            if let Error::Bundle(bad) = error
                && !bad.is_incomplete()
            {
                self.rejected(bad, Some(&target));
            }
        }
        for source in &report.bundles {
            let row =
                |row: &DatasetResult| Some((format!("{}-{}", row.name, row.tag), row.status, row.digest?));
            let image = |row: &ImageResult| (row.name.clone(), row.status, row.digest);
            let all = report.datasets.iter().filter_map(row).chain(report.images.iter().map(image));
            let mine: Vec<_> = all.filter(|(name, _, digest)| source.has(name, *digest)).collect();
            let has_failed = |status: DeliveryStatus| {
                matches!(status, DeliveryStatus::Failed | DeliveryStatus::Installing)
            };
            // Items that were not requested do not count as success or failure.
            let mut tried =
                mine.iter().filter(|(_, status, _)| *status != DeliveryStatus::NotRequested).peekable();
            let all_failed = tried.peek().is_some() && tried.all(|(_, status, _)| has_failed(*status));
            let event = if all_failed { Event::Failed } else { Event::Accepted };
            let logged = |(name, status, digest): (String, DeliveryStatus, Digest)| LoggedDataset {
                name,
                status: status.key(),
                digest,
            };
            let datasets = mine.into_iter().map(logged).collect();
            let entry = LogEntry { datasets, ..self.of(event, &target, source) };
            self.entries.push(entry);
        }
        let went_back: Vec<String> = report
            .datasets
            .iter()
            .filter(|row| row.digest.is_none())
            .map(|row| row.name.to_string())
            .collect();
        if report.bundles.is_empty() && self.inputs.is_empty() && !went_back.is_empty() {
            let entry = self.entry(Event::Restored).because(&went_back.join(", "));
            self.entries.push(LogEntry { target: Some(target), ..entry });
        }
    }

    /// Adds an error that ended the run before any target was used.
    pub(crate) fn failed(&mut self, error: &Error) {
        match error {
            Error::Bundle(bad) if bad.is_incomplete() || bad.is_usage() => {}
            Error::Bundle(bad) => self.rejected(bad, None),
            Error::Rejected(rejection) => {
                let entry = self.entry(Event::Rejected).because(&escape(&rejection.to_string()));
                self.entries.push(entry);
            }
            _ => {}
        }
    }

    /// Appends the lines to the log.
    ///
    /// # Errors
    /// If the state directory cannot be opened, or the log cannot be written.
    pub(crate) fn write(self, state_dir: Option<&Path>) -> Result<(), TrustError> {
        match StateView::find(state_dir)? {
            Some(state) if !self.entries.is_empty() => state.log()?.append(&self.entries),
            _ => Ok(()),
        }
    }

    /// Adds a bundle that could not be verified.
    fn rejected(&mut self, bad: &BundleError, target: Option<&str>) {
        let entry = self.entry(Event::Rejected).because(&self.shortened(&escape(&bad.to_string())));
        let bundle = bad.path().and_then(Path::file_name).map(|name| escape(&name.to_string_lossy()));
        let unsigned = !bad.is_signed();
        // With the identity, a signed bundle can be found again under another file name.
        let head = bad.path().filter(|_| !unsigned).and_then(|path| UnverifiedBundle::open(path).ok());
        let identity = head.map(|head| head.identity());
        self.entries.push(LogEntry {
            target: target.map(str::to_owned),
            bundle,
            identity,
            unsigned,
            ..entry
        });
    }

    fn entry(&self, event: Event) -> LogEntry {
        LogEntry::new(self.now, event, self.stream)
    }

    fn of(&self, event: Event, target: &str, source: &AdmittedBundle) -> LogEntry {
        let key = |signer: &crate::intake::signer::SignerInfo| LoggedKey {
            name: signer.name.clone(),
            keyid: signer.keyid.clone(),
        };
        LogEntry {
            target: Some(target.to_owned()),
            bundle: Some(source.name.clone()),
            identity: Some(source.identity),
            created: Some(source.created),
            sequence: source.sequence,
            signers: source.signers.iter().map(key).collect(),
            overrides: source.overrides.iter().map(|flag| (*flag).to_owned()).collect(),
            missing: source.missing_items.iter().map(ToString::to_string).collect(),
            ..self.entry(event)
        }
    }

    /// Removes the paths of the input directories, which mean nothing later.
    fn shortened(&self, text: &str) -> String {
        let directories = self.inputs.iter().filter(|input| input.is_dir());
        directories
            .fold(text.to_owned(), |text, directory| text.replace(&format!("{}/", directory.display()), ""))
    }
}
