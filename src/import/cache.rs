//! Importing into Trivy's cache: chosen datasets are staged, then switched.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::bundle::{Dataset, VerifiedBundle};
use crate::dataset::Name;
use crate::dataset::catalogue::VEX_HUB;
use crate::delivery::admission::{admit_all, watch_expiry};
use crate::delivery::context::{Host, Setup};
use crate::delivery::ledger::Memory;
use crate::delivery::report::{Report, Row, Status, Target};
use crate::error::Error;
use crate::import::cache_choice::{Choice, choose, listed, metadata, sift};
use crate::import::cache_finish::{self, Brought};
use crate::import::options::ImportOptions;
use crate::intake::open::Found;
use crate::intake::unpack::{Receiver, unload};
use crate::progress::Progress;
use crate::scanner::vex_entry::Carried;
use crate::targets::{Cache, CacheOptions, Slot, Stage, TargetError};
use crate::trust::acceptance::Admission;
use crate::trust::state::TargetState;
use crate::util::text::safe;

/// Everything that is to be put in place, and all of it verified.
struct Prepared {
    chosen: Vec<Choice>,
    /// By bundle; none where a target failed.
    stages: Vec<Option<Vec<Stage>>>,
}

/// Imports into a cache: everything is verified and staged before anything is switched.
pub(crate) fn run(
    options: &ImportOptions,
    setup: &Setup,
    dir: &Path,
    found: &mut Found,
    memory: &mut Memory<'_>,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let host = &setup.host;
    let mut cache = open_cache(options, dir, progress)?;
    let target = Target::Cache(cache.dir().into());
    memory.of(&target.to_string());
    let ignored = found.ignored.clone();
    let ((mut report, prepared), damaged) = found.without_damaged(|bundles| {
        let mut report = Report::new(target.clone(), setup, ignored.clone());
        let admitted = admit_all(bundles, memory.state(), setup, &mut report);
        if report.sources.is_empty() {
            return Ok((report, None));
        }
        let prepared =
            prepare(options, &cache, memory.state(), setup, bundles, &admitted, &mut report, progress)?;
        Ok((report, Some((admitted, prepared))))
    })?;
    report.errors.splice(0..0, damaged);
    let Some((admitted, Prepared { chosen, stages })) = prepared else { return Ok(report) };
    let brought = Brought {
        stream: &setup.policy.stream,
        keyring: &setup.keyring,
        listed: listed(&found.bundles, &admitted),
    };
    if !chosen.is_empty() {
        memory.about_to_change(host.now)?;
    }
    for (index, ((bundle, admission), stages)) in found.bundles.iter().zip(admitted).zip(stages).enumerate() {
        let (Some(mut admission), Some(stages)) = (admission, stages) else { continue };
        if chosen.iter().any(|choice| choice.rollback && choice.bundle == index) {
            report.rolls_back(bundle, &mut admission);
        }
        install(&mut cache, stages, &chosen, &admission, &mut report);
        memory.accept(bundle, &admission, &report, host.now);
    }
    watch_expiry(memory.state(), setup, &mut report);
    memory.save(&mut report);
    let images = found.bundles.iter().any(|bundle| !bundle.payload().images.is_empty());
    if images && options.registry.places.is_empty() {
        report.advice.push(
            "The images in this bundle are for a registry: import it with --registry and --image.".into(),
        );
    }
    cache_finish::finish(options, &mut cache, host, Some(&brought), &mut report);
    Ok(report)
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

/// Chooses, and stages what was chosen. An error that one bundle is to blame for comes with its
/// index.
#[allow(clippy::too_many_arguments)] // One call; a struct would only rename them.
fn prepare(
    options: &ImportOptions,
    cache: &Cache<'_>,
    memory: &TargetState,
    setup: &Setup,
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
    report: &mut Report,
    progress: &dyn Progress,
) -> Result<Prepared, (Option<usize>, Error)> {
    let host = &setup.host;
    let chosen = choose(options, cache, host, bundles, admitted, report)?;
    let chosen = sift(cache, memory, setup, chosen, report).map_err(|error| (None, error))?;
    let incoming: Vec<(Slot, u64, u64)> = chosen
        .iter()
        .map(|c| {
            (
                c.slot.clone(),
                c.dataset.contents.unpacked_size(),
                c.dataset.contents.file_count() + c.dataset.contents.folder_count(),
            )
        })
        .collect();
    cache.preflight(&incoming).map_err(|error| (None, error.into()))?;
    let mut stages = Vec::new();
    for (index, bundle) in bundles.iter().enumerate() {
        let choices: Vec<&Choice> = chosen.iter().filter(|choice| choice.bundle == index).collect();
        let mut staging = Staging { cache, choices: &choices, host, stages: Vec::new() };
        let unloaded = if choices.is_empty() { Ok(()) } else { unload(bundle, &mut staging, progress) };
        match unloaded {
            Ok(()) => stages.push(Some(staging.stages)),
            Err(error @ Error::Bundle(_)) => return Err((Some(index), error)),
            // What came with the other bundles is good all the same.
            Err(error) => {
                report.errors.push(error);
                stages.push(None);
            }
        }
    }
    Ok(Prepared { chosen, stages })
}

/// Stages the chosen datasets of one bundle.
struct Staging<'a, 'p> {
    cache: &'a Cache<'p>,
    choices: &'a [&'a Choice],
    host: &'a Host,
    stages: Vec<Stage>,
}

impl Staging<'_, '_> {
    fn choice(&self, dataset: &Dataset) -> Option<&Choice> {
        self.choices.iter().copied().find(|choice| choice.dataset.reference() == dataset.reference())
    }
}

impl Receiver for Staging<'_, '_> {
    type Sink = Stage;

    fn wants(&self, dataset: &Dataset) -> bool {
        self.choice(dataset).is_some()
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

/// Switches what one bundle brought.
fn install(
    cache: &mut Cache<'_>,
    stages: Vec<Stage>,
    chosen: &[Choice],
    admission: &Admission,
    report: &mut Report,
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
        let status = if back { Status::Restored } else { Status::Installed };
        report.set(&choice.dataset, status, Some(done.how));
    }
    for (slot, error) in failed {
        if let Some(choice) = choice(&slot) {
            report.set(&choice.dataset, Status::Failed, None);
        }
        report.errors.push(error.into());
    }
}

/// `--restore`: every wanted dataset goes back to its kept generation.
pub(crate) fn restore(
    options: &ImportOptions,
    setup: &Setup,
    dir: &Path,
    mut memory: Option<&mut Memory<'_>>,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let host = &setup.host;
    let mut cache = open_cache(options, dir, progress)?;
    let mut report = Report::new(Target::Cache(cache.dir().into()), setup, Vec::new());
    if let Some(memory) = &mut memory {
        memory.of(&report.target.to_string());
        memory.about_to_change(host.now)?;
    }
    let mut slots = BTreeMap::new();
    for name in [Name::trivy_db(), Name::trivy_java_db(), Name::trivy_checks()] {
        slots.extend(cache.slot(&name, "").map(|slot| (slot.path().to_owned(), (name, slot))));
    }
    // VEX repositories lie under the names that this site has for them. Each once: going back twice
    // is going nowhere.
    let kept = cache.kept_vex()?;
    let known = host.vex.entries().iter().map(|entry| entry.name.as_str());
    for repository in known.chain(["default"]).chain(kept.iter().map(String::as_str)) {
        let hub = Carried { name: "default".into(), url: VEX_HUB.into(), origin: None };
        let as_carried = if host.vex.name_for(&hub) == repository { "default" } else { repository };
        let Ok(name) = Name::vex(as_carried) else {
            if kept.iter().any(|kept| kept == repository) {
                report.warnings.push(format!(
                    "the VEX repository {} stays as it is: its name here is none that a bundle can carry",
                    safe(repository)
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
                report.rows.push(Row::went_back(&name, now, was, activated.how));
            }
            Err(error) => report.errors.push(error.into()),
        }
    }
    if let Some(memory) = memory {
        memory.save(&mut report);
    }
    if report.rows.is_empty() && report.errors.is_empty() {
        return Err(Error::usage(
            format!("no earlier generation is kept in {}", cache.dir().display()),
            "Import an older bundle with --allow-rollback instead.",
        ));
    }
    report.warnings.push("importing the newest bundle, or --restore once more, undoes this".into());
    cache_finish::finish(options, &mut cache, host, None, &mut report);
    Ok(report)
}
