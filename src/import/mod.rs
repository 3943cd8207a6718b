//! `import`: verifies bundles, decides which datasets and images are acceptable, and delivers these to each
//! target.

pub(crate) mod cache;
pub(crate) mod cache_choice;
pub(crate) mod cache_finish;
pub(crate) mod deliver;
pub(crate) mod heartbeat;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod preview;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod web_root;

use std::path::{Path, PathBuf};

use crate::error::{Category, Error};
use crate::hint::Hint;
use crate::hook::hook;
use crate::import::deliver::{Deliveries, Task, deliver, open_ledger};
use crate::import::log::{InputFindings, RunEntries};
use crate::import::options::ImportOptions;
use crate::import::report::ImportReport;
use crate::intake::staging::Staging;
use crate::progress::Progress;
use crate::status;
use crate::status::drift::Depth;
use crate::status::metrics::{self, RunNews};
use crate::trust::TrustError;
use crate::trust::state::{Side, StateDir};
use crate::util::text::program_of;

/// Imports bundles into Trivy's cache, registries and a web root.
#[derive(Clone)]
pub struct Importer {
    options: ImportOptions,
}

impl Importer {
    /// Returns an importer with these options. They are validated when it runs.
    #[must_use]
    pub fn new(options: ImportOptions) -> Self {
        Importer { options }
    }

    /// Imports bundles. Each input is a bundle, or a directory that holds bundles and their volumes.
    ///
    /// The newest acceptable version of each dataset is imported. Everything else is skipped, and the report says why.
    ///
    /// # Errors
    /// If the options contradict each other, no key is trusted, or no input holds a bundle. If nothing was imported
    /// into the only target because of a single error, that error is returned: its category is
    /// [`Category::Verification`] for a bundle that is damaged or not signed by a trusted key,
    /// [`Category::Incomplete`] for one that lacks volumes, [`Category::Rejected`] for one that is not
    /// acceptable, [`Category::Target`] for a target that failed. In any other case the errors are in the report.
    pub fn run(&self, inputs: &[PathBuf], progress: &dyn Progress) -> Result<ImportReport, Error> {
        self.with_metrics(|| self.import(Task::Import(inputs), progress), progress)
    }

    /// Imports a bundle whose volumes are on several media: copies the volumes in the inputs into the directory
    /// `staging`, and imports the bundle when it is complete.
    ///
    /// # Errors
    /// If a volume cannot be copied, or [`Importer::run`] fails for the directory. The category is
    /// [`Category::Incomplete`] until the last volume is copied.
    pub fn run_staged(
        &self,
        staging: &Path,
        inputs: &[PathBuf],
        progress: &dyn Progress,
    ) -> Result<ImportReport, Error> {
        self.with_metrics(|| self.stage_and_import(staging, inputs, progress), progress)
    }

    fn stage_and_import(
        &self,
        staging: &Path,
        inputs: &[PathBuf],
        progress: &dyn Progress,
    ) -> Result<ImportReport, Error> {
        let staging = Staging::open(staging, inputs)?;
        staging.take(inputs, progress)?;
        match self.import(Task::Import(&[staging.path().to_path_buf()]), progress) {
            Ok(mut report) => {
                let cleared = staging.clear(&report.imported());
                report.errors_at_the_end.extend(cleared.err());
                Ok(report)
            }
            Err(error) if error.category() == Category::Incomplete => {
                let hint = "Bring a medium with a missing volume, and run the same command with it: the volumes found so far were copied.";
                let what = error.to_string();
                Err(Error::Restated { what, hint: hint.into(), original: Box::new(error) })
            }
            failed => failed,
        }
    }

    /// Restores the content of the cache from before the last import.
    ///
    /// # Errors
    /// If no earlier generation is kept, or the cache cannot be used.
    pub fn restore(&self, progress: &dyn Progress) -> Result<ImportReport, Error> {
        self.with_metrics(|| self.import(Task::Restore, progress), progress)
    }

    /// Returns the scanner settings for the datasets in the targets; imports nothing. The report is that of an import
    /// without bundles.
    ///
    /// # Errors
    /// If a target cannot be read, or has nothing for scanners.
    pub fn settings(&self) -> Result<ImportReport, Error> {
        settings::settings(&self.options)
    }

    /// Writes into the metrics that a run could not start, or a watch could not continue. A dry run writes none.
    pub(crate) fn note_no_start(&self, error: &Error, progress: &dyn Progress) {
        if !self.options.dry_run {
            self.write_metrics(RunNews::NotStarted(error.category()), progress);
        }
    }

    fn with_metrics(
        &self,
        run: impl FnOnce() -> Result<ImportReport, Error>,
        progress: &dyn Progress,
    ) -> Result<ImportReport, Error> {
        let done = run();
        if !self.options.dry_run {
            let failed = match &done {
                Ok(report) => report.gravest(),
                Err(error) => Some(error.category()),
            };
            self.write_metrics(RunNews::Ended(failed.map_or(Ok(()), Err)), progress);
        }
        done
    }

    /// Writes the metrics, if a file is given for them.
    pub(crate) fn write_metrics(&self, news: RunNews, progress: &dyn Progress) {
        let Some(file) = &self.options.metrics else { return };
        let looked = status::look(self.options.state_dir.as_deref(), Depth::Dates);
        // The result of the run is written even if the state cannot be read.
        let written = metrics::write(file, looked.as_ref().ok(), news);
        for error in looked.err().into_iter().chain(written.err()) {
            progress.warn(&format!("{error}. {}", error.hint()));
        }
    }

    fn import(&self, task: Task<'_>, progress: &dyn Progress) -> Result<ImportReport, Error> {
        if !self.options.dry_run {
            return self.import_and_tell(task, progress);
        }
        let mut done = deliver(&self.options, task, &mut InputFindings::default(), progress)?;
        if let Some(last) = done.targets.last_mut() {
            last.advice.push("This was a dry run: nothing was installed or recorded.".into());
        }
        report_of(done)
    }

    /// Imports, writes the log, and runs the operator's command, in this order. The last two are done even if the
    /// import failed.
    fn import_and_tell(&self, task: Task<'_>, progress: &dyn Progress) -> Result<ImportReport, Error> {
        let options = &self.options;
        let mut beforehand = InputFindings::default();
        let mut done = deliver(options, task, &mut beforehand, progress);
        let mut entries = RunEntries::new(options.acceptance.stream.as_str(), task.inputs());
        entries.beforehand(&beforehand);
        match &done {
            Ok(delivered) => delivered.targets.iter().for_each(|report| entries.target(report)),
            Err(error) => entries.failed(error),
        }
        if let Err(error) = entries.write(options.state_dir.as_deref()) {
            match done.as_mut().map(|delivered| delivered.targets.first_mut()) {
                Ok(Some(report)) => report.errors.push(error.into()),
                // The import failed with the same error of the state; it is shown once.
                Err(other) if other.to_string() == error.to_string() => {}
                _ => progress.warn(&format!("{error}. {}", error.hint())),
            }
        }
        // The command may still have to run for changes of an earlier run.
        let told = if options.exec_after.is_some() { call(options, progress) } else { Ok(None) };
        let last = done.as_mut().ok().and_then(|delivered| delivered.targets.last_mut());
        match (told, last) {
            (Ok(None), _) => {}
            (Ok(Some(advice)), Some(report)) => report.advice.push(advice),
            (Err(error), Some(report)) => report.errors.push(error),
            (Ok(Some(advice)), None) => progress.info(&advice),
            (Err(error), None) => progress.info(&format!("{error}. {}", error.hint())),
        }
        report_of(done?)
    }
}

/// The work that was done before the operator's command, for its errors.
const INSTALLED: &str = "the data is installed";

/// Runs the operator's command if there are changes for which it has not run yet, and records that it has run if it
/// succeeds. Only its own lock is held meanwhile, so the command may scan, or import into another cache.
fn call(options: &ImportOptions, progress: &dyn Progress) -> Result<Option<String>, Error> {
    let Some(command) = &options.exec_after else { return Ok(None) };
    let ledger = || open_ledger(options, progress);
    if ledger()?.due().is_empty() {
        return Ok(None);
    }
    // Two runs at the same time must not run it twice for one change.
    let turn = match StateDir::open(options.state_dir.as_deref(), Side::Hook) {
        Err(TrustError::StateHeld { .. }) => {
            let what = "the command of another run is still running after 60 s".into();
            return Err(Error::Hook { done: INSTALLED, retried: true, command: program_of(command), what });
        }
        turn => turn?,
    };
    let due = ledger()?.due();
    if due.is_empty() {
        return Ok(None);
    }
    hook(command, INSTALLED, true, &[])?;
    ledger()?.told(&due)?;
    drop(turn);
    Ok(Some(format!("Ran after the import: {}", program_of(command))))
}

/// Returns the report, or its only error if there is one target and nothing was installed.
fn report_of(delivered: Deliveries) -> Result<ImportReport, Error> {
    let Deliveries { mut targets, warnings, repaired } = delivered;
    if let [report] = targets.as_mut_slice()
        && report.errors.len() == 1
        && !report.has_something_in_place()
    {
        return Err(report.errors.swap_remove(0));
    }
    Ok(ImportReport { targets, warnings, repaired, errors_at_the_end: Vec::new() })
}
