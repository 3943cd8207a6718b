//! `export`: collects the selected datasets, validates them, and writes one signed bundle.
//!
//! This module depends on sources, bundles and destinations, but not on the command line or the
//! terminal.

pub(crate) mod base_store;
pub(crate) mod delta;
pub(crate) mod drop_directory;
pub(crate) mod heartbeat;
pub(crate) mod log;
pub mod options;
pub(crate) mod output;
pub(crate) mod own_program;
pub(crate) mod preview;
pub(crate) mod report;
pub(crate) mod resumed_blob;
pub(crate) mod retention;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod stream;

use crate::error::Error;
use crate::export::options::ExportOptions;
use crate::export::report::ExportReport;
use crate::export::run::{OpenSigner, collect_and_write};
use crate::hint::Hint;
use crate::hook::hook;
use crate::progress::Progress;
use crate::trust::signer::Signer;

/// Collects datasets from their sources and writes them as one signed bundle.
#[derive(Clone)]
pub struct Exporter {
    options: ExportOptions,
}

impl Exporter {
    /// Creates an exporter with these options. They are validated when it runs.
    #[must_use]
    pub fn new(options: ExportOptions) -> Self {
        Exporter { options }
    }

    /// Collects the selected datasets and images, and writes a bundle that `signer` signs.
    ///
    /// # Errors
    /// If no bundle was written: an error of category [`Category::Usage`] for wrong options,
    /// [`Category::Source`] for a source that failed or served bad content, [`Category::Rejected`] for data
    /// that is too old, and [`Category::Target`] for a place that cannot be written. If the bundle was
    /// written, the report holds the missing items (see [`ExportOptions::require`]) and later errors.
    ///
    /// [`Category::Usage`]: crate::Category::Usage
    /// [`Category::Source`]: crate::Category::Source
    /// [`Category::Rejected`]: crate::Category::Rejected
    /// [`Category::Target`]: crate::Category::Target
    pub fn run(&self, signer: &dyn Signer, progress: &dyn Progress) -> Result<ExportReport, Error> {
        self.run_with(&|| Ok(Box::new(signer)), progress)
    }

    /// Does the same as [`Exporter::run`] with a key that is not open yet. `open` is called after the options
    /// are validated and before any source is contacted.
    ///
    /// # Errors
    /// If `open` fails, or if no bundle was written, as in [`Exporter::run`].
    pub fn run_with(&self, open: &OpenSigner<'_>, progress: &dyn Progress) -> Result<ExportReport, Error> {
        let mut done = collect_and_write(&self.options, open, progress);
        if let Some(command) = &self.options.exec_after {
            let (result, bundle) = match &done {
                Ok(ExportReport { bundle: Some(bundle), .. }) => {
                    ("written", bundle.path.display().to_string())
                }
                Ok(_) => ("unchanged", String::new()),
                Err(_) => ("failed", String::new()),
            };
            let missing = done.as_ref().map_or(&[][..], |report| &report.missing);
            let missing: Vec<&str> = missing.iter().map(|item| item.name.as_str()).collect();
            let environment = [
                ("TRIVY_FERRY_RESULT", result.to_owned()),
                ("TRIVY_FERRY_BUNDLE", bundle),
                ("TRIVY_FERRY_MISSING", missing.join(" ")),
            ];
            match (hook(command, "the export has ended", false, &environment), &mut done) {
                (Ok(()), _) => {}
                (Err(error), Ok(report)) => report.errors.push(error),
                // The first error is the one that matters.
                (Err(error), Err(_)) => progress.warn(&format!("{error}. {}", error.hint())),
            }
        }
        done
    }

    /// Reports the items that an export would collect, with their sources and sizes, and writes nothing.
    ///
    /// # Errors
    /// If the options are wrong, if a source fails, if its data is too old, or if the output has no room.
    pub fn preview(&self, progress: &dyn Progress) -> Result<ExportReport, Error> {
        preview::preview(&self.options, progress)
    }
}
