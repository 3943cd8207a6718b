//! `import`: verifies bundles, decides what is acceptable, and takes it to each target.

pub(crate) mod cache;
pub(crate) mod cache_choice;
pub(crate) mod cache_finish;
pub(crate) mod heartbeat;
pub(crate) mod log;
pub(crate) mod options;
pub(crate) mod push;
pub(crate) mod push_images;
pub(crate) mod registry;
pub(crate) mod web_root;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::Dataset;
use crate::dataset::Kind;
use crate::delivery::admitted::Source;
use crate::delivery::context::{Host, Setup};
use crate::delivery::image_pattern;
use crate::delivery::ledger::Memory;
use crate::delivery::registry_access::Registries;
use crate::delivery::report::{Report, Row, Status, Target};
use crate::delivery::settings::{self, places_for_settings};
use crate::error::{Error, gravest};
use crate::hint::Hint;
use crate::hook::hook;
use crate::import::log::{Beforehand, Entries};
use crate::import::options::ImportOptions;
use crate::import::push_images::check_places;
use crate::intake::open::{self, Found, beside};
use crate::intake::staging::Staging;
use crate::progress::Progress;
use crate::scanner::default_cache::{default_cache_dir, default_cache_dir_findings};
use crate::scanner::installed::trivy_version;
use crate::scanner::vex_config::VexConfig;
use crate::status::drift::Depth;
use crate::status::{self, metrics};
use crate::trust::TrustError;
use crate::trust::keyring::Keyring;
use crate::trust::state::{Side, StateDir};
use crate::util::clock;

/// What became of all targets.
#[derive(Serialize)]
#[non_exhaustive]
pub(crate) struct ImportReport {
    /// The targets, each with its datasets, warnings and errors.
    pub(crate) targets: Vec<Report>,
    /// What the operator has to know beside that.
    pub(crate) warnings: Vec<String>,
    /// What went wrong after all targets were done.
    #[serde(skip)]
    pub(crate) errors: Vec<Error>,
}

impl ImportReport {
    /// All errors, those of the targets first.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Error> {
        self.targets.iter().flat_map(|target| &target.errors).chain(&self.errors)
    }

    /// The same, without the report.
    pub(crate) fn into_errors(self) -> Vec<Error> {
        self.targets.into_iter().flat_map(|target| target.errors).chain(self.errors).collect()
    }

    /// The file names of the bundles that every target has accepted, and needs no more.
    fn imported(&self) -> Vec<String> {
        let has_failed = |target: &Report| {
            let rows = target.rows.iter().map(|row| row.status);
            let all = rows.chain(target.images.iter().map(|image| image.status));
            all.into_iter().any(|status| matches!(status, Status::Failed | Status::Installing))
        };
        if self.targets.iter().any(has_failed) {
            return Vec::new();
        }
        let bundles = self.targets.iter().flat_map(|target| &target.sources);
        let name = |source: &Source| Some(source.path.file_name()?.to_string_lossy().into_owned());
        bundles.filter_map(name).collect()
    }
}

/// Imports bundles whose volumes come on several media, one after the other: copies what is there into a
/// directory, and imports it once it is complete.
///
/// # Errors
/// As [`import`]; a bundle is incomplete until its last volume has come.
pub(crate) fn import_staged(
    options: &ImportOptions,
    staging: &Path,
    inputs: &[PathBuf],
    progress: &dyn Progress,
) -> Result<ImportReport, Error> {
    let staging = Staging::open(staging, inputs)?;
    staging.take(inputs, progress)?;
    match import(options, &[staging.path().to_path_buf()], progress) {
        Ok(mut report) => {
            let cleared = staging.clear(&report.imported());
            report.errors.extend(cleared.err());
            Ok(report)
        }
        Err(error) if matches!(&error, Error::Bundle(bad) if bad.is_incomplete()) => {
            let next = "Bring the medium on which it is, and run the same command with it; what came so far was copied.";
            Err(Error::Restated { what: error.to_string(), next: next.into(), code: error.exit_code() })
        }
        failed => failed,
    }
}

/// Imports what lies in some places.
///
/// # Errors
/// If nothing could be imported at all, or the single target failed as a whole.
pub(crate) fn import(
    options: &ImportOptions,
    inputs: &[PathBuf],
    progress: &dyn Progress,
) -> Result<ImportReport, Error> {
    with_metrics(options, progress, || import_and_tell(options, inputs, false, progress))
}

/// Goes back to what was in the cache before the last import.
///
/// # Errors
/// If no earlier generation is kept.
pub(crate) fn restore(options: &ImportOptions, progress: &dyn Progress) -> Result<ImportReport, Error> {
    with_metrics(options, progress, || import_and_tell(options, &[], true, progress))
}

fn with_metrics(
    options: &ImportOptions,
    progress: &dyn Progress,
    import: impl FnOnce() -> Result<ImportReport, Error>,
) -> Result<ImportReport, Error> {
    let done = import();
    let code = match &done {
        Ok(report) => gravest(report.errors()),
        Err(error) => error.exit_code(),
    };
    write_metrics(options, Some(code), progress);
    done
}

/// Writes the metrics, where they are wanted. `code` is the exit code of an import that has just ended.
pub(crate) fn write_metrics(options: &ImportOptions, code: Option<u8>, progress: &dyn Progress) {
    let Some(file) = &options.metrics else { return };
    let looked = status::look(options.state_dir.as_deref(), Depth::Dates);
    let written = looked.and_then(|status| metrics::write(file, &status, code));
    if let Err(error) = written {
        progress.alarm(&format!("{error}. {}", error.hint()));
    }
}

fn import_and_tell(
    options: &ImportOptions,
    inputs: &[PathBuf],
    restore: bool,
    progress: &dyn Progress,
) -> Result<ImportReport, Error> {
    let mut beforehand = Beforehand::default();
    let mut done = deliver(options, inputs, restore, &mut beforehand, progress);
    let mut entries = Entries::new(options.acceptance.stream.as_str(), inputs);
    entries.beforehand(&beforehand);
    match &done {
        Ok((reports, _)) => reports.iter().for_each(|report| entries.target(report)),
        Err(error) => entries.failed(error),
    }
    if let Err(error) = entries.write(options.state_dir.as_deref()) {
        match done.as_mut().map(|(reports, _)| reports.first_mut()) {
            Ok(Some(report)) => report.errors.push(error.into()),
            // What kept the import from its state is said once.
            Err(other) if other.to_string() == error.to_string() => {}
            _ => progress.alarm(&format!("{error}. {}", error.hint())),
        }
    }
    // Also where nothing could be imported: what changed in an earlier run is still to be told.
    let told = if options.exec_after.is_some() { call(options) } else { Ok(None) };
    let last = done.as_mut().ok().and_then(|(reports, _)| reports.last_mut());
    match (told, last) {
        (Ok(None), _) => {}
        (Ok(Some(advice)), Some(report)) => report.advice.push(advice),
        (Err(error), Some(report)) => report.errors.push(error),
        (Ok(Some(advice)), None) => progress.note(&advice),
        (Err(error), None) => progress.note(&format!("{error}. {}", error.hint())),
    }
    let (reports, warnings) = done?;
    report_of(reports, warnings)
}

/// What the operator's command follows.
const INSTALLED: &str = "the data is installed";

/// Calls the operator's command where something has changed of which it was not told, and strikes
/// that off when it went well. Nothing is locked meanwhile but its own turn: the command may scan,
/// or import into another cache.
fn call(options: &ImportOptions) -> Result<Option<String>, Error> {
    let Some(command) = &options.exec_after else { return Ok(None) };
    let memory = || open_memory(options);
    if memory()?.due().is_empty() {
        return Ok(None);
    }
    // Two runs at once must not call it twice for one change.
    let turn = match StateDir::open(options.state_dir.as_deref(), Side::Hook) {
        Err(TrustError::StateHeld { .. }) => {
            let what = "another run's has not ended for a minute".into();
            return Err(Error::Hook { done: INSTALLED, again: true, command: command.clone(), what });
        }
        turn => turn?,
    };
    let due = memory()?.due();
    if due.is_empty() {
        return Ok(None);
    }
    hook(command, INSTALLED, true, &[])?;
    memory()?.told(&due)?;
    drop(turn);
    Ok(Some(format!("Done after the import: {command}")))
}

/// Takes what is acceptable to each target.
fn deliver(
    options: &ImportOptions,
    inputs: &[PathBuf],
    restore: bool,
    beforehand: &mut Beforehand,
    progress: &dyn Progress,
) -> Result<(Vec<Report>, Vec<String>), Error> {
    places_for_settings(&options.settings)?;
    let elsewhere = !options.registry.places.is_empty() || options.web_root.is_some();
    let into_cache = options.cache_dir.is_some() || restore || !elsewhere;
    let (cache, mut warnings) = match into_cache {
        true => cache_dir(options).map(|(dir, findings)| (Some(dir), findings))?,
        false => (None, Vec::new()),
    };
    let targets = options.registry.places.len()
        + usize::from(cache.is_some())
        + usize::from(options.web_root.is_some());
    let one_site = settings::is_one(&options.registry.places, options.cache_dir.is_some());
    settings::check(one_site, &options.settings, targets)?;
    check_places(options)?;
    let host = host(options)?;
    if restore {
        let setup = Setup::new(host, Keyring::default(), &options.acceptance);
        let Some(dir) = cache else {
            return Err(Error::usage("there is no cache to go back in", "Name it with --cache-dir DIR."));
        };
        // Only a command that is to be told needs a memory here.
        let mut memory = match options.exec_after {
            Some(_) => Some(open_memory(options)?),
            None => None,
        };
        let report = cache::restore(options, &setup, &dir, memory.as_mut(), progress)?;
        return Ok((vec![report], warnings));
    }
    let keyring = Keyring::load(&options.trust)?;
    warnings.extend(inputs.iter().find_map(|input| beside(&keyring, input)));
    let setup = Setup::new(host, keyring, &options.acceptance);
    let mut memory = open_memory(options)?;
    warnings.extend(memory.warnings());
    let mut found = open::open(inputs, &setup.keyring, Some(memory.scratch()?))?;
    let (misspelled, unmatched) =
        image_pattern::unmatched(options.image.iter().map(|wanted| &wanted.pattern), &found.bundles);
    warnings.extend(unmatched);
    warnings.append(&mut found.warnings);
    let damaged: Vec<Error> = found.damaged.drain(..).map(Error::from).collect();
    let registries = Registries::new(&options.registry)?;
    let mut reports = Vec::new();
    if let Some(dir) = &cache {
        let done = cache::run(options, &setup, dir, &mut found, &mut memory, progress);
        let goes = |_: &Dataset| Some(String::new());
        reports.push(or_failed(done, || Target::Cache(dir.clone()), goes, &found, options, &setup));
    }
    if let Some(registry) = &registries.to_push() {
        for place in &options.registry.places {
            let done = registry::run(options, &setup, registry, place, &mut found, &mut memory, progress);
            registries.take_notes().iter().for_each(|note| progress.note(note));
            let goes = |dataset: &Dataset| match dataset.name.kind() {
                Kind::Vex => None,
                _ => Some(place.repository(&dataset.name, &dataset.tag).ok()??.to_string()),
            };
            reports.push(or_failed(
                done,
                || Target::Registry(place.to_string()),
                goes,
                &found,
                options,
                &setup,
            ));
        }
    }
    if let (Some(dir), Some(url)) = (&options.web_root, &options.web_url) {
        let done = web_root::run(options, &setup, dir, url, &mut found, &mut memory);
        let goes = |dataset: &Dataset| (dataset.name.kind() == Kind::Vex).then(|| url.of(&dataset.name));
        reports.push(or_failed(done, || Target::Web(dir.clone()), goes, &found, options, &setup));
    }
    let way = settings::Way {
        insecure: &|host| registries.is_insecure(host),
        login: &|host| registries.has_login(host),
        own_ca: options.registry.remote.ca_cert.is_some(),
        config: options.settings.write_config.as_deref(),
    };
    settings::settings(one_site, &options.settings, &setup, &way, &mut reports);
    beforehand.repaired.clone_from(&found.mended);
    beforehand.untrusted = std::mem::take(&mut found.untrusted);
    beforehand.more_untrusted = found.more_untrusted;
    warnings.append(&mut found.mended);
    warnings.append(&mut found.not_mended);
    // What was damaged or missing to begin with is no target's fault.
    if let Some(first) = reports.first_mut() {
        first.errors.splice(0..0, damaged);
        first.errors.extend(misspelled);
    }
    Ok((reports, warnings))
}

fn open_memory(options: &ImportOptions) -> Result<Memory<'_>, Error> {
    let state = StateDir::open(options.state_dir.as_deref(), Side::Import)?;
    Memory::open(state, options.acceptance.stream.as_str(), options.exec_after.is_some())
}

/// A target that failed as a whole does not keep the others from theirs. `goes` says where a dataset
/// would have gone.
fn or_failed(
    done: Result<Report, Error>,
    target: impl Fn() -> Target,
    goes: impl Fn(&Dataset) -> Option<String>,
    found: &Found,
    options: &ImportOptions,
    setup: &Setup,
) -> Report {
    done.unwrap_or_else(|error| {
        let mut report = Report::new(target(), setup, Vec::new());
        // Of each the newest, as it would have been.
        let newest = found.bundles.iter().rev().flat_map(|bundle| &bundle.payload().datasets);
        for dataset in newest.filter(|dataset| options.selection.wants(&dataset.name)) {
            let known = report.rows.iter().any(|row| row.name == dataset.name && row.tag == dataset.tag);
            if let (Some(place), false) = (goes(dataset), known) {
                let mut row = Row::new(dataset, None, Status::Failed);
                row.reference = Some(place).filter(|place| !place.is_empty());
                report.rows.push(row);
            }
        }
        report.errors.push(error);
        report.failed = true;
        report
    })
}

/// The report. A single error that left nothing in place is the whole of it.
fn report_of(mut reports: Vec<Report>, warnings: Vec<String>) -> Result<ImportReport, Error> {
    if let [report] = reports.as_mut_slice()
        && report.errors.len() == 1
        && !report.has_something_in_place()
    {
        return Err(report.errors.swap_remove(0));
    }
    Ok(ImportReport { targets: reports, warnings, errors: Vec::new() })
}

fn host(options: &ImportOptions) -> Result<Host, Error> {
    let absolute =
        |home: &PathBuf| std::path::absolute(home).map_err(Error::unexpected("finding --data-home"));
    let data_home = options.data_home.as_ref().map(absolute).transpose()?;
    Ok(Host {
        now: clock::now(),
        version: options.trivy_version.unwrap_or_else(trivy_version),
        vex: data_home.clone().map_or_else(VexConfig::read, |home| VexConfig::read_at(Some(home)))?,
        data_home,
    })
}

fn cache_dir(options: &ImportOptions) -> Result<(PathBuf, Vec<String>), Error> {
    match &options.cache_dir {
        Some(dir) => Ok((dir.clone(), Vec::new())),
        None => {
            let dir = default_cache_dir()?;
            let findings = default_cache_dir_findings(&dir);
            Ok((dir, findings))
        }
    }
}
