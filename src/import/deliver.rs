//! The delivery of an import: opens the bundles once, and imports them into each target in turn.
//! This module neither writes the log nor runs the operator's command.

use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;

use crate::bundle::Dataset;
use crate::dataset::Kind;
use crate::delivery::context::{DeliveryContext, HostContext};
use crate::delivery::image_pattern;
use crate::delivery::ledger::Ledger;
use crate::delivery::options::SettingsOptions;
use crate::delivery::registry_access::RegistryAccess;
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport};
use crate::delivery::settings::{self, places_for_settings};
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::import::log::InputFindings;
use crate::import::options::ImportOptions;
use crate::import::registry::push_images::check_places;
use crate::import::run::ImportRun;
use crate::import::{cache, preview, registry, web_root};
use crate::intake::open::{self, OpenedBundles, beside};
use crate::intake::rebuild::Rebuilt;
use crate::progress::Progress;
use crate::scanner::default_cache::{default_cache_dir, default_cache_dir_findings};
use crate::scanner::installed::trivy_version;
use crate::scanner::vex_config::VexConfig;
use crate::trust::keyring::Keyring;
use crate::trust::state::{Side, StateDir, waits_for};
use crate::util::clock;
use crate::util::text::escape;

/// The task of an import.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task<'t> {
    /// Imports the bundles in these inputs.
    Import(&'t [PathBuf]),
    /// Restores the content of the cache from before the last import.
    Restore,
}

impl<'t> Task<'t> {
    /// Returns the inputs.
    pub(crate) fn inputs(self) -> &'t [PathBuf] {
        match self {
            Task::Import(inputs) => inputs,
            Task::Restore => &[],
        }
    }
}

/// The results of all targets.
pub(crate) struct Deliveries {
    pub(crate) targets: Vec<TargetReport>,
    pub(crate) warnings: Vec<String>,
    pub(crate) repaired: Vec<Rebuilt>,
}

/// Imports the acceptable content into each target. Findings about the inputs themselves are added to `beforehand`.
///
/// # Errors
/// If the options contradict each other; if the keys, the state or the default cache cannot be
/// used; or if there is nothing to import. The errors of a target are in its report.
pub(crate) fn deliver(
    options: &ImportOptions,
    task: Task<'_>,
    beforehand: &mut InputFindings,
    progress: &dyn Progress,
) -> Result<Deliveries, Error> {
    places_for_settings(&options.settings)?;
    options.check()?;
    let elsewhere = !options.registry.places.is_empty() || options.web_root.is_some();
    let into_cache = !options.cache_dirs.is_empty() || matches!(task, Task::Restore) || !elsewhere;
    let (caches, warnings) = if into_cache { cache_dirs(options)? } else { (Vec::new(), Vec::new()) };
    let targets = options.registry.places.len() + caches.len() + usize::from(options.web_root.is_some());
    let shared_settings =
        settings::can_share_settings(&options.registry.places, !options.cache_dirs.is_empty());
    settings::check(shared_settings, &options.settings, targets)?;
    check_places(options)?;
    let host = host(options)?;
    let mut delivered = match task {
        Task::Restore => restore(options, host, &caches, progress)?,
        Task::Import(inputs) => import(options, inputs, host, &caches, beforehand, progress)?,
    };
    delivered.warnings.splice(0..0, warnings);
    Ok(delivered)
}

fn restore(
    options: &ImportOptions,
    host: HostContext,
    caches: &[PathBuf],
    progress: &dyn Progress,
) -> Result<Deliveries, Error> {
    let context = DeliveryContext::new(host, Keyring::default(), &options.acceptance);
    // The ledger is needed only for the operator's command.
    let mut ledger = match options.exec_after {
        Some(_) => Some(open_ledger(options, progress)?),
        None => None,
    };
    let mut targets = Vec::new();
    for dir in caches {
        let report = cache::restore(options, &context, dir, ledger.as_mut(), progress);
        targets.push(match (report, caches) {
            (Err(error), [_]) => return Err(error),
            (Err(error), _) => {
                let mut report = TargetReport::new(TargetId::Cache(dir.clone()), &context, Vec::new());
                (report.failed, report.errors) = (true, vec![error]);
                report
            }
            (Ok(report), _) => report,
        });
    }
    Ok(Deliveries { targets, warnings: Vec::new(), repaired: Vec::new() })
}

fn import(
    options: &ImportOptions,
    inputs: &[PathBuf],
    host: HostContext,
    caches: &[PathBuf],
    beforehand: &mut InputFindings,
    progress: &dyn Progress,
) -> Result<Deliveries, Error> {
    // Waiting for caches and other runs counts toward the same deadline.
    let registries = RegistryAccess::new(&options.registry, Instant::now())?;
    let stream = options.acceptance.stream.as_str();
    let keyring = Keyring::load(&options.trust)?.requiring(options.min_signers, Some(stream))?;
    let mut warnings: Vec<String> =
        inputs.iter().find_map(|input| beside(&keyring, input)).into_iter().collect();
    let context = DeliveryContext::new(host, keyring, &options.acceptance);
    let mut ledger = open_ledger(options, progress)?;
    warnings.extend(ledger.warnings());
    let mut found = open::open(inputs, &context.keyring, Some(ledger.scratch()?))?;
    let (misspelled, unmatched) =
        image_pattern::unmatched(options.image.iter().map(|wanted| &wanted.pattern), &found.bundles);
    warnings.extend(unmatched);
    warnings.append(&mut found.warnings);
    let damaged: Vec<Error> = found.damaged.drain(..).map(Error::from).collect();
    let run = ImportRun { options, context: &context, found: &mut found, ledger: &mut ledger, progress };
    let mut targets = each_target(run, caches, &registries);
    if !options.dry_run {
        note_run(&mut ledger, &mut targets, context.host.now);
    }
    let access = settings::ScannerAccess {
        insecure: &|host| registries.is_insecure(host),
        login: &|host| registries.has_login(host),
        own_ca: options.registry.remote.ca_cert.is_some(),
        config: options.settings.write_config.as_deref(),
    };
    let shared_settings =
        settings::can_share_settings(&options.registry.places, !options.cache_dirs.is_empty());
    let nowhere = SettingsOptions::default();
    let write = if options.dry_run { &nowhere } else { &options.settings };
    settings::settings(shared_settings, write, &context, &access, &mut targets);
    if options.dry_run && !options.image.is_empty() {
        warnings.push("a dry run does not look at images".into());
    }
    let repaired = std::mem::take(&mut found.rebuilt);
    beforehand.repaired.clone_from(&repaired);
    beforehand.untrusted = std::mem::take(&mut found.untrusted);
    beforehand.more_untrusted = found.more_untrusted;
    warnings.extend(repaired.iter().map(Rebuilt::to_string));
    warnings.append(&mut found.not_rebuilt);
    // Errors of the inputs belong to no target. They are shown once, with the first target.
    if let Some(first) = targets.first_mut() {
        first.errors.splice(0..0, damaged);
        first.errors.extend(misspelled);
    }
    Ok(Deliveries { targets, warnings, repaired })
}

/// Imports into one target after the other. If one fails, continues with the others.
fn each_target(mut run: ImportRun<'_>, caches: &[PathBuf], registries: &RegistryAccess) -> Vec<TargetReport> {
    let options = run.options;
    let mut reports = Vec::new();
    for dir in caches {
        let done = match options.dry_run {
            true => preview::of_cache(&mut run, dir),
            false => cache::install_bundles(&mut run, dir),
        };
        let goes = |_: &Dataset| Some(String::new());
        reports.push(or_failed(done, || TargetId::Cache(without_links(dir)), goes, &run));
    }
    if let Some(registry) = &registries.to_push(run.progress) {
        for place in &options.registry.places {
            let done = registry::push_bundles(&mut run, registry, place);
            registries.take_warnings().iter().for_each(|warning| run.progress.warn(warning));
            let goes = |dataset: &Dataset| match dataset.name.kind() {
                Kind::Vex => None,
                _ => Some(place.repository(&dataset.name, &dataset.tag).ok()??.to_string()),
            };
            reports.push(or_failed(done, || TargetId::Registry(place.clone()), goes, &run));
        }
    }
    if let (Some(dir), Some(url)) = (&options.web_root, &options.web_url) {
        let done = web_root::publish_bundles(&mut run, dir, url);
        let goes = |dataset: &Dataset| (dataset.name.kind() == Kind::Vex).then(|| url.of(&dataset.name));
        reports.push(or_failed(done, || TargetId::WebRoot(without_links(dir)), goes, &run));
    }
    reports
}

/// Records which targets the run used, and how it failed there, so that a target that never worked is recorded too.
/// Targets for which there were only bundles of other streams are not recorded.
pub(crate) fn note_run(ledger: &mut Ledger, reports: &mut [TargetReport], now: Timestamp) {
    let why = |report: &TargetReport| report.failure().map(|error| escape(&error.to_string()));
    let mut touched: Vec<&mut TargetReport> =
        reports.iter_mut().filter(|report| !report.is_of_other_streams()).collect();
    let worked_on: Vec<_> = touched.iter().map(|report| (report.target.clone(), why(report))).collect();
    match ledger.note_run(worked_on.clone(), now) {
        Ok(news) => {
            for ((report, (_, why)), is_news) in touched.iter_mut().zip(worked_on).zip(news) {
                report.new_failure = why.filter(|_| is_news);
            }
        }
        Err(error) => {
            if let Some(last) = reports.last_mut() {
                last.errors.push(error);
            }
        }
    }
}

/// Returns the path of a directory, with symbolic links resolved in the part that exists.
fn without_links(dir: &Path) -> PathBuf {
    let Ok(whole) = std::path::absolute(dir) else { return dir.to_path_buf() };
    let there = whole.ancestors().find_map(|above| Some((above.canonicalize().ok()?, above)));
    match there.as_ref().and_then(|(real, above)| Some((real, whole.strip_prefix(above).ok()?))) {
        Some((real, rest)) if rest.as_os_str().is_empty() => real.clone(),
        Some((real, rest)) => real.join(rest),
        None => whole,
    }
}

/// Opens the ledger of the stream.
///
/// # Errors
/// If the state cannot be used.
pub(crate) fn open_ledger(options: &ImportOptions, progress: &dyn Progress) -> Result<Ledger, Error> {
    let waits = |path: &Path| progress.info(&waits_for(path));
    let state = StateDir::open_telling(options.state_dir.as_deref(), Side::Import, &waits)?;
    Ledger::open(state, options.acceptance.stream.as_str(), options.exec_after.is_some())
}

/// Turns the failure of a target into a report, so that the import continues with the other
/// targets. `goes` returns the reference that a dataset would have at the target.
fn or_failed(
    done: Result<TargetReport, Error>,
    target: impl Fn() -> TargetId,
    goes: impl Fn(&Dataset) -> Option<String>,
    run: &ImportRun<'_>,
) -> TargetReport {
    let ImportRun { options, context, .. } = *run;
    let found: &OpenedBundles = run.found;
    done.unwrap_or_else(|error| {
        let mut report = TargetReport::new(target(), context, Vec::new());
        // The newest version of each dataset would have been imported.
        let newest = found.bundles.iter().rev().flat_map(|bundle| &bundle.payload().datasets);
        for dataset in newest.filter(|dataset| options.selection.wants(&dataset.name)) {
            let known = report.datasets.iter().any(|row| row.is(&dataset.dataset_ref()));
            if let (Some(place), false) = (goes(dataset), known) {
                let mut row = DatasetResult::new(dataset, None, DeliveryStatus::Failed);
                row.reference = Some(place).filter(|place| !place.is_empty());
                report.datasets.push(row);
            }
        }
        report.errors.push(error);
        report.failed = true;
        report
    })
}

/// Returns the properties of this host and its scanner.
///
/// # Errors
/// If Trivy's VEX configuration cannot be read.
pub(crate) fn host(options: &ImportOptions) -> Result<HostContext, Error> {
    let absolute =
        |home: &PathBuf| std::path::absolute(home).map_err(Error::unexpected("finding --data-home"));
    let data_home = options.data_home.as_ref().map(absolute).transpose()?;
    Ok(HostContext {
        now: clock::now(),
        version: options.trivy_version.unwrap_or_else(trivy_version),
        vex: data_home.clone().map_or_else(VexConfig::read, |home| VexConfig::read_at(Some(home)))?,
        data_home,
    })
}

/// Returns the caches without duplicates, and warnings about the default one.
///
/// # Errors
/// If none is named, and Trivy's default cache directory cannot be determined.
pub(crate) fn cache_dirs(options: &ImportOptions) -> Result<(Vec<PathBuf>, Vec<String>), Error> {
    if options.cache_dirs.is_empty() {
        let dir = default_cache_dir()?;
        let findings = default_cache_dir_findings(&dir);
        return Ok((vec![dir], findings));
    }
    let mut dirs: Vec<PathBuf> = Vec::new();
    let place = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    for dir in &options.cache_dirs {
        if !dirs.iter().any(|other| place(other) == place(dir)) {
            dirs.push(dir.clone());
        }
    }
    Ok((dirs, Vec::new()))
}
