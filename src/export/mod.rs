//! `export`: collects every wanted dataset, validates it, and writes one signed bundle.

pub(crate) mod drop_directory;
pub(crate) mod heartbeat;
pub(crate) mod log;
pub mod options;
pub(crate) mod output;
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
    /// An exporter with these options. They are checked when it runs.
    #[must_use]
    pub fn new(options: ExportOptions) -> Self {
        Exporter { options }
    }

    /// Collects what the options name, and writes a bundle that `signer` signs.
    ///
    /// # Errors
    /// If no bundle was written, for a source that a bundle need not hold does not keep the others from it: see
    /// [`ExportOptions::require`]. The error is of category [`Category::Usage`] for wrong options,
    /// [`Category::Source`] for a source that failed or served bad content, [`Category::Rejected`] for data
    /// that is too old, and [`Category::Target`] for a place that cannot be written. What is missing
    /// in the bundle, and what goes wrong after it was written, is in the report.
    ///
    /// [`Category::Usage`]: crate::Category::Usage
    /// [`Category::Source`]: crate::Category::Source
    /// [`Category::Rejected`]: crate::Category::Rejected
    /// [`Category::Target`]: crate::Category::Target
    pub fn run(&self, signer: &dyn Signer, progress: &dyn Progress) -> Result<ExportReport, Error> {
        self.run_with(&|| Ok(Box::new(signer)), progress)
    }

    /// Does the same with a key that is not open yet. `open` is called once the options have been checked, and before
    /// any source is asked.
    ///
    /// # Errors
    /// As [`Exporter::run`], and whatever `open` fails with.
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
            match (hook(command, "the export is over", false, &environment), &mut done) {
                (Ok(()), _) => {}
                (Err(error), Ok(report)) => report.errors.push(error),
                // The first error is the one that matters.
                (Err(error), Err(_)) => progress.warn(&format!("{error}. {}", error.hint())),
            }
        }
        done
    }

    /// Finds out what an export would collect, from where and how large, and writes nothing.
    ///
    /// # Errors
    /// As [`Exporter::run`].
    pub fn preview(&self, progress: &dyn Progress) -> Result<ExportReport, Error> {
        preview::preview(&self.options, progress)
    }
}
