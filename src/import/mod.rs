//! `import`: verifies bundles, decides what is acceptable, and takes it to each target.

pub(crate) mod cache;
pub(crate) mod cache_choice;
pub(crate) mod cache_finish;
pub(crate) mod heartbeat;
pub(crate) mod log;
pub(crate) mod push;
pub(crate) mod push_images;
pub(crate) mod registry;
pub(crate) mod web_root;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::Dataset;
use crate::cli::Outcome;
use crate::cli::args::{Acceptance, Import, ImportBundles};
use crate::dataset::Kind;
use crate::delivery::context::{Host, Setup};
use crate::delivery::image_pattern;
use crate::delivery::ledger::Memory;
use crate::delivery::registry_access::Registries;
use crate::delivery::report::{self, Report, Row, Status, Target};
use crate::delivery::settings::{self, places_for_settings};
use crate::error::Error;
use crate::hint::Hint;
use crate::hook::hook;
use crate::import::log::{Beforehand, Entries};
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
use crate::trust::acceptance::Policy;
use crate::trust::keyring::Keyring;
use crate::trust::state::{Side, StateDir};
use crate::util::clock;

/// What became of all targets.
#[derive(Serialize)]
struct Reports {
    targets: Vec<Report>,
    warnings: Vec<String>,
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        report::write_all(f, &self.targets)
    }
}

pub(crate) fn run(args: &ImportBundles, progress: &dyn Progress) -> Result<Outcome, Error> {
    let Some(folder) = &args.staging else {
        return run_on(&args.import, &args.bundle, args.restore, progress);
    };
    let staging = Staging::open(folder, &args.bundle)?;
    staging.take(&args.bundle, progress)?;
    match run_on(&args.import, &[staging.path().to_path_buf()], false, progress) {
        Ok(mut outcome) => {
            outcome.errors.extend(staging.clear(&imported(&outcome.json)).err());
            Ok(outcome)
        }
        Err(error) if matches!(&error, Error::Bundle(bad) if bad.is_incomplete()) => {
            let next = "Bring the medium on which it is, and run the same command with it; what came so far was copied.";
            Err(Error::Restated { what: error.to_string(), next: next.into(), code: error.exit_code() })
        }
        failed => failed,
    }
}

/// The file names of the bundles that every target of a report has accepted, and needs no more.
fn imported(report: &serde_json::Value) -> Vec<String> {
    let targets = report["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has_failed = |target: &serde_json::Value| {
        let rows = target["datasets"].as_array().into_iter().chain(target["images"].as_array()).flatten();
        rows.into_iter().any(|row| row["status"] == "failed")
    };
    if targets.iter().any(has_failed) {
        return Vec::new();
    }
    let bundles = targets.iter().filter_map(|target| target["bundles"].as_array()).flatten();
    let name = |bundle: &serde_json::Value| {
        Some(Path::new(bundle["path"].as_str()?).file_name()?.to_string_lossy().into_owned())
    };
    bundles.filter_map(name).collect()
}

/// Imports what lies in some places, or goes back to what was there before.
pub(crate) fn run_on(
    args: &Import,
    inputs: &[PathBuf],
    restore: bool,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let done = import_and_tell(args, inputs, restore, progress);
    let code = match &done {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => error.exit_code(),
    };
    write_metrics(args, Some(code), progress);
    done
}

/// Writes the metrics, where they are wanted. `code` is the exit code of an import that has just ended.
pub(crate) fn write_metrics(args: &Import, code: Option<u8>, progress: &dyn Progress) {
    let Some(file) = &args.metrics else { return };
    let looked = status::look(args.state_dir.as_deref(), Depth::Dates);
    let written = looked.and_then(|status| metrics::write(file, &status, code));
    if let Err(error) = written {
        progress.alarm(&format!("{error}. {}", error.hint()));
    }
}

fn import_and_tell(
    args: &Import,
    inputs: &[PathBuf],
    restore: bool,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let mut beforehand = Beforehand::default();
    let mut done = import(args, inputs, restore, &mut beforehand, progress);
    let mut entries = Entries::new(args.acceptance.stream.as_str(), inputs);
    entries.beforehand(&beforehand);
    match &done {
        Ok((reports, _)) => reports.iter().for_each(|report| entries.target(report)),
        Err(error) => entries.failed(error),
    }
    if let Err(error) = entries.write(args.state_dir.as_deref()) {
        match done.as_mut().map(|(reports, _)| reports.first_mut()) {
            Ok(Some(report)) => report.errors.push(error.into()),
            // What kept the import from its state is said once.
            Err(other) if other.to_string() == error.to_string() => {}
            _ => progress.alarm(&format!("{error}. {}", error.hint())),
        }
    }
    // Also where nothing could be imported: what changed in an earlier run is still to be told.
    let told = if args.exec_after.is_some() { call(args) } else { Ok(None) };
    let last = done.as_mut().ok().and_then(|(reports, _)| reports.last_mut());
    match (told, last) {
        (Ok(None), _) => {}
        (Ok(Some(advice)), Some(report)) => report.advice.push(advice),
        (Err(error), Some(report)) => report.errors.push(error),
        (Ok(Some(advice)), None) => progress.note(&advice),
        (Err(error), None) => progress.note(&format!("{error}. {}", error.hint())),
    }
    let (reports, warnings) = done?;
    outcome(reports, warnings)
}

/// What the operator's command follows.
const INSTALLED: &str = "the data is installed";

/// Calls the operator's command where something has changed of which it was not told, and strikes
/// that off when it went well. Nothing is locked meanwhile but its own turn: the command may scan,
/// or import into another cache.
fn call(args: &Import) -> Result<Option<String>, Error> {
    let Some(command) = &args.exec_after else { return Ok(None) };
    let memory = || open_memory(args);
    if memory()?.due().is_empty() {
        return Ok(None);
    }
    // Two runs at once must not call it twice for one change.
    let turn = match StateDir::open(args.state_dir.as_deref(), Side::Hook) {
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
fn import(
    args: &Import,
    inputs: &[PathBuf],
    restore: bool,
    beforehand: &mut Beforehand,
    progress: &dyn Progress,
) -> Result<(Vec<Report>, Vec<String>), Error> {
    places_for_settings(&args.settings)?;
    let elsewhere = !args.registry.places.is_empty() || args.web_root.is_some();
    let into_cache = args.cache_dir.is_some() || restore || !elsewhere;
    let (cache, mut warnings) = match into_cache {
        true => cache_dir(args).map(|(dir, findings)| (Some(dir), findings))?,
        false => (None, Vec::new()),
    };
    let targets =
        args.registry.places.len() + usize::from(cache.is_some()) + usize::from(args.web_root.is_some());
    settings::check(args, targets)?;
    check_places(args)?;
    let host = host(args)?;
    let policy = policy(&args.acceptance);
    if inputs.is_empty() {
        let setup =
            Setup { host, keyring: Keyring::default(), policy, max_age: args.acceptance.max_age.clone() };
        let Some(dir) = cache else {
            return Err(Error::usage("there is no cache to go back in", "Name it with --cache-dir DIR."));
        };
        // Only a command that is to be told needs a memory here.
        let mut memory = match args.exec_after {
            Some(_) => Some(open_memory(args)?),
            None => None,
        };
        let report = cache::restore(args, &setup, &dir, memory.as_mut(), progress)?;
        return Ok((vec![report], warnings));
    }
    let keyring = Keyring::load(&args.keys.trust)?;
    warnings.extend(inputs.iter().find_map(|input| beside(&keyring, input)));
    let setup = Setup { host, keyring, policy, max_age: args.acceptance.max_age.clone() };
    let mut memory = open_memory(args)?;
    warnings.extend(memory.warnings());
    let mut found = open::open(inputs, &setup.keyring, Some(memory.scratch()?))?;
    let (misspelled, unmatched) =
        image_pattern::unmatched(args.image.iter().map(|wanted| &wanted.pattern), &found.bundles);
    warnings.extend(unmatched);
    warnings.append(&mut found.warnings);
    let damaged: Vec<Error> = found.damaged.drain(..).map(Error::from).collect();
    let registries = Registries::new(&args.registry)?;
    let mut reports = Vec::new();
    if let Some(dir) = &cache {
        let done = cache::run(args, &setup, dir, &mut found, &mut memory, progress);
        let goes = |_: &Dataset| Some(String::new());
        reports.push(or_failed(done, || Target::Cache(dir.clone()), goes, &found, args, &setup));
    }
    if let Some(registry) = &registries.to_push() {
        for place in &args.registry.places {
            let done = registry::run(args, &setup, registry, place, &mut found, &mut memory, progress);
            registries.take_notes().iter().for_each(|note| progress.note(note));
            let goes = |dataset: &Dataset| match dataset.name.kind() {
                Kind::Vex => None,
                _ => Some(place.repository(&dataset.name, &dataset.tag).ok()??.to_string()),
            };
            reports.push(or_failed(done, || Target::Registry(place.to_string()), goes, &found, args, &setup));
        }
    }
    if let (Some(dir), Some(url)) = (&args.web_root, &args.web_url) {
        let done = web_root::run(args, &setup, dir, url, &mut found, &mut memory);
        let goes = |dataset: &Dataset| (dataset.name.kind() == Kind::Vex).then(|| url.of(&dataset.name));
        reports.push(or_failed(done, || Target::Web(dir.clone()), goes, &found, args, &setup));
    }
    let way = settings::Way {
        insecure: &|host| registries.is_insecure(host),
        login: &|host| registries.has_login(host),
        own_ca: args.registry.connection.cacert.is_some(),
        config: args.settings.write_config.as_deref(),
    };
    settings::settings(args, &setup, &way, &mut reports);
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

fn open_memory(args: &Import) -> Result<Memory<'_>, Error> {
    let state = StateDir::open(args.state_dir.as_deref(), Side::Import)?;
    Memory::open(state, args.acceptance.stream.as_str(), args.exec_after.is_some())
}

/// A target that failed as a whole does not keep the others from theirs. `goes` says where a dataset
/// would have gone.
fn or_failed(
    done: Result<Report, Error>,
    target: impl Fn() -> Target,
    goes: impl Fn(&Dataset) -> Option<String>,
    found: &Found,
    args: &Import,
    setup: &Setup,
) -> Report {
    done.unwrap_or_else(|error| {
        let mut report = Report::new(target(), setup, Vec::new());
        // Of each the newest, as it would have been.
        let newest = found.bundles.iter().rev().flat_map(|bundle| &bundle.payload().datasets);
        for dataset in newest.filter(|dataset| args.selection.wants(&dataset.name)) {
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

/// The outcome. A single error that left nothing in place is the whole of it.
fn outcome(mut reports: Vec<Report>, warnings: Vec<String>) -> Result<Outcome, Error> {
    if let [report] = reports.as_mut_slice()
        && report.errors.len() == 1
        && !report.has_something_in_place()
    {
        return Err(report.errors.swap_remove(0));
    }
    let reports = Reports { targets: reports, warnings };
    let outcome = Outcome::done(&reports);
    let mut warnings = report::warnings(&reports.targets);
    warnings.extend(reports.warnings);
    let errors = reports.targets.into_iter().flat_map(|report| report.errors).collect();
    Ok(Outcome { warnings, errors, ..outcome })
}

fn host(args: &Import) -> Result<Host, Error> {
    let absolute =
        |home: &PathBuf| std::path::absolute(home).map_err(Error::unexpected("finding --data-home"));
    let data_home = args.data_home.as_ref().map(absolute).transpose()?;
    Ok(Host {
        now: clock::now(),
        version: args.trivy_version.unwrap_or_else(trivy_version),
        vex: data_home.clone().map_or_else(VexConfig::read, |home| VexConfig::read_at(Some(home)))?,
        data_home,
    })
}

fn cache_dir(args: &Import) -> Result<(PathBuf, Vec<String>), Error> {
    match &args.cache_dir {
        Some(dir) => Ok((dir.clone(), Vec::new())),
        None => {
            let dir = default_cache_dir()?;
            let findings = default_cache_dir_findings(&dir);
            Ok((dir, findings))
        }
    }
}

pub(crate) fn policy(acceptance: &Acceptance) -> Policy {
    Policy {
        stream: acceptance.stream.to_string(),
        allow_rollback: acceptance.overrides.allow_rollback,
        allow_future: acceptance.overrides.time.allow_future,
        allow_expired: acceptance.overrides.time.allow_expired,
    }
}
