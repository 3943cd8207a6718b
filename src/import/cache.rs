//! Imports into Trivy's cache: the chosen datasets are staged, then activated. This module does not
//! depend on other targets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;

use crate::bundle::{BundleError, Dataset, VerifiedBundle};
use crate::dataset::Name;
use crate::dataset::catalogue::VEX_HUB;
use crate::delivery::admission::{admit_all, watch_expiry};
use crate::delivery::context::{DeliveryContext, HostContext};
use crate::delivery::ledger::Ledger;
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport};
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::import::cache_choice::{CacheChoice, choose, filter_chosen, listed, metadata};
use crate::import::cache_finish::{self, ImportedVex};
use crate::import::options::ImportOptions;
use crate::import::run::ImportRun;
use crate::intake::open::{Blame, path_of};
use crate::intake::receiver::Receiver;
use crate::intake::unpack::unpack_bundle;
use crate::progress::Progress;
use crate::scanner::vex_config::VexConfig;
use crate::scanner::vex_entry::CarriedRepository;
use crate::targets::{Cache, CacheOptions, HARBOR_OWNER, Layout, Slot, Stage, TargetError};
use crate::trust::acceptance::Admission;
use crate::trust::state::TargetState;
use crate::util::text::escape;

/// The verified datasets that are ready to be activated.
struct Prepared {
    chosen: Vec<CacheChoice>,
    /// The stages of each bundle; `None` if staging failed.
    stages: Vec<Option<Vec<Stage>>>,
}

/// Imports into a cache. Everything is verified and staged before anything is activated.
///
/// # Errors
/// If the cache cannot be used, or the only bundle is damaged. The errors of single datasets are in the report.
pub(crate) fn install_bundles(run: &mut ImportRun<'_>, dir: &Path) -> Result<TargetReport, Error> {
    let ImportRun { options, context, progress, .. } = *run;
    let mut cache = open_cache(options, dir, progress)?;
    let harbors = harbor_context(options, context, cache.dir())?;
    let context = harbors.as_ref().unwrap_or(context);
    let host = &context.host;
    let target = TargetId::Cache(cache.dir().into());
    let mut ledger = run.ledger.for_target(&target);
    let ignored = run.found.ignored.clone();
    let ((mut report, prepared), damaged) = run.found.without_damaged(|bundles| {
        let mut report = TargetReport::new(target.clone(), context, ignored.clone());
        let admitted = admit_all(bundles, ledger.state(), context, &mut report);
        if report.bundles.is_empty() {
            return Ok((report, None));
        }
        let preparing =
            Preparing { options, context, cache: &cache, state: ledger.state(), bundles, progress };
        let prepared = preparing.prepare(&admitted, &mut report)?;
        Ok((report, Some((admitted, prepared))))
    })?;
    report.errors.splice(0..0, damaged);
    let Some((admitted, Prepared { chosen, stages })) = prepared else { return Ok(report) };
    let bundles = &run.found.bundles;
    let listed = listed(bundles, &admitted);
    let brought = ImportedVex { stream: &context.policy.stream, keyring: &context.keyring, listed };
    if !chosen.is_empty() {
        ledger.about_to_change(host.now)?;
    }
    for (index, ((bundle, admission), stages)) in bundles.iter().zip(admitted).zip(stages).enumerate() {
        let (Some(mut admission), Some(stages)) = (admission, stages) else { continue };
        if chosen.iter().any(|choice| choice.rollback && choice.bundle == index) {
            report.rolls_back(bundle, &mut admission);
        }
        install(&mut cache, stages, &chosen, &admission, &mut report);
        ledger.accept(bundle, &admission, &report.installed, context);
    }
    watch_expiry(ledger.state(), context, &mut report);
    if let Err(error) = ledger.finish(report.has_changed()) {
        report.errors.push(error);
    }
    report.advice.extend(of_images(options, bundles));
    cache_finish::finish(options, &mut cache, host, Some(&brought), &mut report);
    Ok(report)
}

/// Returns the advice about images if the run has no registry for them.
pub(crate) fn of_images(options: &ImportOptions, bundles: &[VerifiedBundle]) -> Option<String> {
    /// The number of images that the advice names.
    const NAMED: usize = 3;
    if !options.registry.places.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> =
        bundles.iter().flat_map(|bundle| &bundle.payload().images).map(|image| image.name.as_str()).collect();
    let named: Vec<String> = names.iter().take(NAMED).map(|name| escape(name)).collect();
    let more = match names.len() {
        0 => return None,
        count if count > NAMED => format!(" and {} more", count - NAMED),
        _ => String::new(),
    };
    Some(format!(
        "The images in this bundle are for a registry ({}{more}): import them with --registry and --image.",
        named.join(", ")
    ))
}

/// Returns the context for Harbor's adapter, which has its own home in a container. Only its cache is
/// persistent, so Trivy's VEX configuration is in the cache. `None` for other layouts.
///
/// # Errors
/// If Trivy's VEX configuration cannot be read.
pub(crate) fn harbor_context(
    options: &ImportOptions,
    context: &DeliveryContext,
    cache: &Path,
) -> Result<Option<DeliveryContext>, Error> {
    if options.layout != Layout::Harbor || options.data_home.is_some() {
        return Ok(None);
    }
    let owner = options.owner.unwrap_or(HARBOR_OWNER);
    let vex = VexConfig::read_at(Some(cache.to_path_buf()))?.owned_by(Some(owner));
    let host = HostContext { now: context.host.now, version: context.host.version, vex, data_home: None };
    Ok(Some(DeliveryContext::new(host, context.keyring.clone(), &options.acceptance)))
}

fn open_cache<'p>(
    options: &ImportOptions,
    dir: &Path,
    progress: &'p dyn Progress,
) -> Result<Cache<'p>, Error> {
    let options = CacheOptions {
        dir: dir.into(),
        layout: options.layout,
        owner: options.owner,
        keep_previous: options.keep_previous,
    };
    Ok(Cache::open(options, progress)?)
}

/// The inputs for the preparation of an import.
struct Preparing<'a, 'p> {
    options: &'a ImportOptions,
    context: &'a DeliveryContext,
    cache: &'a Cache<'p>,
    state: &'a TargetState,
    bundles: &'a [VerifiedBundle],
    progress: &'a dyn Progress,
}

impl Preparing<'_, '_> {
    /// Chooses the datasets that the cache lacks, and stages them.
    fn prepare(&self, admitted: &[Option<Admission>], report: &mut TargetReport) -> Result<Prepared, Blame> {
        let Preparing { options, context, cache, state, bundles, progress } = *self;
        let host = &context.host;
        let chosen = choose(options, cache, host, bundles, admitted, report)?;
        let holds = |slot: &Slot, contents: &_, fresh: &_| cache.holds(slot, contents, fresh);
        let chosen = filter_chosen((cache, &holds), state, context, chosen, report)?;
        let chosen = self.with_bases(chosen, report)?;
        let incoming: Vec<(Slot, u64, u64)> = chosen
            .iter()
            .map(|c| {
                (
                    c.slot.clone(),
                    c.dataset.contents.unpacked_size(),
                    c.dataset.contents.file_count() + c.dataset.contents.directory_count(),
                )
            })
            .collect();
        cache.preflight(&incoming)?;
        let mut stages = Vec::new();
        for (index, bundle) in bundles.iter().enumerate() {
            let choices: Vec<&CacheChoice> = chosen.iter().filter(|choice| choice.bundle == index).collect();
            let mut staging = Staging { cache, choices: &choices, host, stages: Vec::new() };
            let unpacked =
                if choices.is_empty() { Ok(()) } else { unpack_bundle(bundle, &mut staging, progress) };
            match unpacked {
                Ok(()) => stages.push(Some(staging.stages)),
                Err(error @ Error::Bundle(_)) => return Err(Blame::on(index)(error)),
                // The other bundles are still imported.
                Err(error) => {
                    report.errors.push(error);
                    stages.push(None);
                }
            }
        }
        Ok(Prepared { chosen, stages })
    }
}

impl Preparing<'_, '_> {
    /// Finds the file that each delta is applied to. Drops the choices without one: the other datasets are imported
    /// all the same.
    fn with_bases(
        &self,
        chosen: Vec<CacheChoice>,
        report: &mut TargetReport,
    ) -> Result<Vec<CacheChoice>, Error> {
        let mut left = Vec::new();
        for mut choice in chosen {
            let Some(delta) = &choice.dataset.delta else {
                left.push(choice);
                continue;
            };
            choice.base = self.cache.base(&choice.slot, &delta.versions())?;
            if choice.base.is_some() {
                left.push(choice);
                continue;
            }
            report.set(&choice.dataset, DeliveryStatus::Failed, None);
            report.errors.push(Error::Bundle(BundleError::NoBase {
                path: path_of(self.bundles, choice.bundle),
                dataset: choice.dataset.name.to_string(),
                target: self.cache.dir().display().to_string(),
                bases: delta.dates(),
            }));
        }
        Ok(left)
    }
}

/// Stages the chosen datasets of one bundle.
struct Staging<'a, 'p> {
    cache: &'a Cache<'p>,
    choices: &'a [&'a CacheChoice],
    host: &'a HostContext,
    stages: Vec<Stage>,
}

impl Staging<'_, '_> {
    fn choice(&self, dataset: &Dataset) -> Option<&CacheChoice> {
        self.choices.iter().copied().find(|choice| choice.dataset.reference() == dataset.reference())
    }
}

impl Receiver for Staging<'_, '_> {
    type Sink = Stage;

    fn wants(&self, dataset: &Dataset) -> bool {
        self.choice(dataset).is_some()
    }

    fn base(&self, dataset: &Dataset) -> io::Result<Option<(usize, File)>> {
        let base = self.choice(dataset).and_then(|choice| choice.base.as_ref());
        base.map(|(index, file)| Ok((*index, file.try_clone()?))).transpose()
    }

    fn temporary(&self) -> io::Result<File> {
        self.cache.temporary()
    }

    fn sink(&mut self, dataset: &Dataset) -> Result<Stage, Error> {
        let gone = || Error::unexpected("staging")(io::Error::other("a dataset that was not chosen"));
        let choice = self.choice(dataset).ok_or_else(gone)?;
        let stage = self.cache.stage(&choice.slot, metadata(choice, self.host))?;
        Ok(if choice.repairs { stage.discards_replaced() } else { stage })
    }

    fn failed(&self, dataset: &Dataset, error: io::Error) -> Error {
        let slot = self.choice(dataset).map_or_else(String::new, |choice| choice.slot.path().to_owned());
        match error.downcast::<TargetError>() {
            Ok(error) => error.into(),
            Err(error) => TargetError::io("write", self.cache.dir().join(slot), error).into(),
        }
    }

    fn complete(&mut self, _: &Dataset, sink: Stage) -> Result<(), Error> {
        self.stages.push(sink);
        Ok(())
    }
}

/// Activates the stages of one bundle.
fn install(
    cache: &mut Cache<'_>,
    stages: Vec<Stage>,
    chosen: &[CacheChoice],
    admission: &Admission,
    report: &mut TargetReport,
) {
    if stages.is_empty() {
        return;
    }
    let (activated, failed) = match cache.activate(stages) {
        Ok(activated) => (activated, Vec::new()),
        Err(not_all) => (not_all.activated, not_all.failed),
    };
    let choice = |slot: &Slot| chosen.iter().find(|choice| choice.slot == *slot);
    for done in &activated {
        let Some(choice) = choice(&done.slot) else { continue };
        let back = admission.seen && choice.known;
        let status = if back { DeliveryStatus::Restored } else { DeliveryStatus::Installed };
        report.installs(&choice.dataset, choice.repository(), status, Some(done.how));
    }
    for (slot, error) in failed {
        if let Some(choice) = choice(&slot) {
            report.set(&choice.dataset, DeliveryStatus::Failed, None);
        }
        report.errors.push(error.into());
    }
}

/// Restores the kept earlier generation of each selected dataset (`--restore`).
///
/// # Errors
/// If the cache or the state cannot be used, or no earlier generation is kept.
pub(crate) fn restore(
    options: &ImportOptions,
    context: &DeliveryContext,
    dir: &Path,
    ledger: Option<&mut Ledger>,
    progress: &dyn Progress,
) -> Result<TargetReport, Error> {
    let mut cache = open_cache(options, dir, progress)?;
    let harbors = harbor_context(options, context, cache.dir())?;
    let context = harbors.as_ref().unwrap_or(context);
    let host = &context.host;
    let mut report = TargetReport::new(TargetId::Cache(cache.dir().into()), context, Vec::new());
    let mut ledger = ledger.map(|ledger| ledger.for_target(&report.target));
    if let Some(ledger) = &mut ledger {
        ledger.about_to_change(host.now)?;
    }
    let mut slots = BTreeMap::new();
    for name in [Name::trivy_db(), Name::trivy_java_db(), Name::trivy_checks()] {
        slots.extend(cache.slot(&name, "").map(|slot| (slot.path().to_owned(), (name, slot))));
    }
    // VEX repositories are named as in the scanner's configuration. Each is restored only once, because a second
    // restore would undo the first.
    let kept = cache.kept_vex()?;
    let known = host.vex.entries().iter().map(|entry| entry.name.as_str());
    for repository in known.chain(["default"]).chain(kept.iter().map(String::as_str)) {
        let hub = CarriedRepository { name: "default".into(), url: VEX_HUB.into(), origin: None };
        let as_carried = if host.vex.name_for(&hub) == repository { "default" } else { repository };
        let Ok(name) = Name::vex(as_carried) else {
            if kept.iter().any(|kept| kept == repository) {
                report.warnings.push(format!(
                    "the VEX repository {} stays as it is: no bundle can contain a repository with this name",
                    escape(repository)
                ));
            }
            continue;
        };
        slots.extend(cache.slot(&name, repository).map(|slot| (slot.path().to_owned(), (name, slot))));
    }
    for (name, slot) in slots.into_values().filter(|(name, _)| options.selection.wants(name)) {
        let was = cache.installed(&slot)?.and_then(|installed| installed.updated_at);
        match cache.restore_previous(&slot) {
            Ok(None) => {}
            Ok(Some(activated)) => {
                let now = cache.installed(&slot)?.and_then(|installed| installed.updated_at);
                report.datasets.push(DatasetResult::went_back(&name, now, was, activated.how));
            }
            Err(error) => report.errors.push(error.into()),
        }
    }
    if let Some(Err(error)) = ledger.map(|ledger| ledger.finish(report.has_changed())) {
        report.errors.push(error);
    }
    if report.datasets.is_empty() && report.errors.is_empty() {
        return Err(Error::usage(
            format!("no earlier generation is kept in {}", cache.dir().display()),
            "Import an older bundle with --allow-rollback instead.",
        ));
    }
    report.warnings.push("to undo this, import the newest bundle, or use --restore again".into());
    cache_finish::finish(options, &mut cache, host, None, &mut report);
    Ok(report)
}
