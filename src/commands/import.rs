//! `import`: verifies bundles, decides what is acceptable, and puts it into Trivy's cache.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::choice::{Choice, choose, floor_date, metadata, sift};
use super::import_report::{Report, Row, Source, Status};
use super::inbox::Ignored;
use super::unload::{Receiver, unload};
use super::verify::candidate;
use super::{Outcome, after, inbox};
use crate::bundle::{Dataset, VerifiedBundle};
use crate::cli::{Import, Layout as CliLayout};
use crate::dataset::Name;
use crate::dataset::catalogue::{TrivyVersion, VEX_HUB};
use crate::error::Error;
use crate::progress::Progress;
use crate::target::place::{default_cache_dir, default_cache_dir_findings};
use crate::target::vex_config::{Carried, VexConfig};
use crate::target::{Cache, CacheOptions, Layout, Owner, Slot, Stage, TargetError};
use crate::trust::Refusal;
use crate::trust::acceptance::{Admission, Policy, admit, present, record};
use crate::trust::keyring::Keyring;
use crate::trust::state::{Side, StateDir, TargetState};

/// Everything that is to be put in place, and all of it verified.
struct Prepared {
    chosen: Vec<Choice>,
    /// By bundle; none where a target failed.
    stages: Vec<Option<Vec<Stage>>>,
}

/// Everything about this host that decides.
pub(super) struct Host {
    pub(super) now: Timestamp,
    pub(super) version: TrivyVersion,
    pub(super) vex: VexConfig,
    /// The scanner's XDG_DATA_HOME, where one was named; absolute.
    pub(super) data_home: Option<PathBuf>,
}

pub(super) fn run(args: &Import, progress: &dyn Progress) -> Result<Outcome, Error> {
    let (dir, mut warnings) = cache_dir(args)?;
    places_for_settings(args)?;
    let absolute =
        |home: &PathBuf| std::path::absolute(home).map_err(Error::unexpected("finding --data-home"));
    let data_home = args.data_home.as_ref().map(absolute).transpose()?;
    let host = Host {
        now: Timestamp::now(),
        version: args
            .trivy_version
            .unwrap_or_else(|| after::installed_trivy().unwrap_or_else(TrivyVersion::newest)),
        vex: data_home.clone().map_or_else(VexConfig::read, |home| VexConfig::read_at(Some(home)))?,
        data_home,
    };
    let Some(input) = &args.bundle else { return restore(args, &dir, &host, progress) };
    let keyring = Keyring::load(&args.keys.trust)?;
    warnings.extend(beside(&keyring, input));
    let mut found = inbox::open(input, &keyring)?;
    warnings.append(&mut found.warnings);
    let state = StateDir::open(args.state_dir.as_deref(), Side::Import)?;
    let mut imports = state.imports(args.stream.as_str())?;
    let mut cache = open_cache(args, &dir, progress)?;
    let target = format!("cache:{}", cache.dir().display());
    let memory = imports.targets.entry(target.clone()).or_default();

    let policy = policy(args);
    let mut damaged: Vec<Error> = found.damaged.drain(..).map(Error::from).collect();
    let (mut report, admitted, prepared) = loop {
        let mut report = Report::new(&cache, &host, args, found.ignored.clone());
        let admitted = admit_all(&mut found.bundles, memory, &policy, &host, &keyring, &mut report);
        if report.sources.is_empty() {
            report.errors.splice(0..0, damaged);
            return report.outcome();
        }
        match prepare(args, &cache, memory, &host, &mut found.bundles, &admitted, &mut report, progress) {
            Ok(prepared) => break (report, admitted, prepared),
            // Damage deep inside one bundle must not keep out the good one beside it. Nothing of
            // this attempt is in place yet: the next one does without the damaged bundle.
            Err((Some(index), error @ Error::Bundle(_))) if found.bundles.len() > 1 => {
                found.bundles.remove(index);
                damaged.push(error);
            }
            Err((_, error)) => return Err(error),
        }
    };
    report.errors.splice(0..0, damaged);
    let Prepared { chosen, stages } = prepared;
    // Written down before anything changes: a run that is killed after the change and before the
    // command leaves the next run to call it.
    let was_due = memory.hook_due;
    if args.exec_after.is_some() && !chosen.is_empty() {
        memory.hook_due = Some(host.now);
        state.save_imports(args.stream.as_str(), &imports)?;
    }
    let memory = imports.targets.entry(target.clone()).or_default();
    for (index, ((bundle, admission), stages)) in found.bundles.iter().zip(admitted).zip(stages).enumerate() {
        let (Some(mut admission), Some(stages)) = (admission, stages) else { continue };
        let candidate = candidate(bundle);
        if chosen.iter().any(|choice| choice.rollback && choice.bundle == index) {
            admission.rolls_back();
            report.admitted_by(bundle, &admission);
        }
        install(&mut cache, stages, &chosen, &admission, &mut report);
        // Only what is in place now, and what was in place before, counts as accepted.
        let accepted = bundle.payload().datasets.iter().filter(|dataset| report.is_in_place(dataset));
        let accepted = accepted.map(|dataset| (dataset.reference(), floor_date(dataset, candidate.created)));
        record(memory, &candidate, &admission, accepted.collect::<Vec<_>>(), host.now);
    }
    expiry(args, memory, &host, &mut report);
    if report.changed().count() == 0 {
        memory.hook_due = was_due;
    }
    // The data is in place whatever becomes of the memory, and the report must say so.
    if let Err(error) = state.save_imports(args.stream.as_str(), &imports) {
        report.errors.push(error.into());
    }
    warnings.append(&mut report.warnings);
    report.warnings = warnings;
    let hook_due = imports.targets.get(&target).and_then(|memory| memory.hook_due);
    after::finish(args, &mut cache, &host, &mut report);
    // The command may scan, or import into another cache: nothing is locked while it runs.
    drop((cache, state));
    if let Some(due) = hook_due {
        announce(args, &target, due, &mut report);
    }
    report.outcome()
}

/// Calls the operator's command, and strikes it off when it went well.
fn announce(args: &Import, target: &str, due: Timestamp, report: &mut Report) {
    if !after::hook(args, report) {
        return;
    }
    let strike_off = || {
        let state = StateDir::open(args.state_dir.as_deref(), Side::Import)?;
        let mut imports = state.imports(args.stream.as_str())?;
        // Another run may have changed something since: then its own command is due.
        match imports.targets.get_mut(target) {
            Some(memory) if memory.hook_due == Some(due) => memory.hook_due = None,
            _ => return Ok(()),
        }
        state.save_imports(args.stream.as_str(), &imports)
    };
    if let Err(error) = strike_off() {
        report.errors.push(error.into());
    }
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

/// The folders for the settings must be there: better to hear of it before than after.
fn places_for_settings(args: &Import) -> Result<(), Error> {
    let parent =
        |file: &PathBuf| file.parent().filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_path_buf);
    for folder in [args.write_env.as_ref().and_then(parent), args.write_config.clone()].into_iter().flatten()
    {
        if !folder.is_dir() {
            return Err(Error::usage(
                format!("there is no folder {} to write settings to", folder.display()),
                "Make it first, or name another.",
            ));
        }
    }
    Ok(())
}

fn open_cache<'p>(args: &Import, dir: &Path, progress: &'p dyn Progress) -> Result<Cache<'p>, Error> {
    let options = CacheOptions {
        dir: dir.into(),
        layout: match args.layout {
            CliLayout::Trivy => Layout::Trivy,
            CliLayout::Harbor => Layout::Harbor,
        },
        owner: args.owner.as_deref().map(owner).transpose()?,
        keep_previous: args.keep_previous > 0,
    };
    Ok(Cache::open(options, progress)?)
}

fn owner(text: &str) -> Result<Owner, Error> {
    let wrong = || Error::usage(format!("{text:?} is no owner"), "Write --owner UID or UID:GID, in numbers.");
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok(Owner { uid: uid.parse().map_err(|_| wrong())?, gid: gid.parse().map_err(|_| wrong())? })
}

fn policy(args: &Import) -> Policy {
    Policy {
        stream: args.stream.to_string(),
        allow_rollback: args.overrides.allow_rollback,
        allow_future: args.overrides.time.allow_future,
        allow_expired: args.overrides.time.allow_expired,
    }
}

/// A trusted key that came with the bundle proves nothing by itself.
fn beside(keyring: &Keyring, input: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let folder = if input.is_dir() { input } else { input.parent()? };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.canonicalize().ok()?;
    let device = folder.metadata().ok()?.dev();
    let root = Path::new("/").metadata().ok()?.dev();
    let close = |path: &Path| {
        let Ok(path) = path.canonicalize() else { return false };
        let same_medium = path.metadata().is_ok_and(|metadata| metadata.dev() == device) && device != root;
        same_medium || path.parent() == Some(&folder)
    };
    let key = keyring.iter().find(|key| close(&key.path))?;
    Some(format!(
        "the key {} lies beside the bundle and proves nothing by itself: compare its fingerprint ({}) over another channel, then `trivy-ferry trust add` it",
        key.path.display(),
        key.key.id()
    ))
}

/// Judges every bundle; what is refused stands in the report.
fn admit_all(
    bundles: &mut [VerifiedBundle],
    memory: &TargetState,
    policy: &Policy,
    host: &Host,
    keyring: &Keyring,
    report: &mut Report,
) -> Vec<Option<Admission>> {
    let mut admitted = Vec::new();
    let several = bundles.iter().any(|bundle| bundle.payload().stream.as_str() == policy.stream);
    // Bundles of one folder are judged in the order of their creation, each after the one before.
    let before = memory;
    let mut memory = memory.clone();
    let mut refused = Vec::new();
    for bundle in bundles.iter() {
        let candidate = candidate(bundle);
        match admit(&candidate, &memory, policy, host.now) {
            Ok(mut admission) => {
                // A second copy in the folder is not what earlier imports accepted.
                admission.seen = before.seen.contains(&candidate.identity);
                record(&mut memory, &candidate, &admission, [], host.now);
                report.sources.push(Source::new(bundle, &admission, keyring, host.now));
                admitted.push(Some(admission));
            }
            // Another stream's bundle on the same medium is somebody else's.
            Err(refusal @ Refusal::Stream { .. }) if several => {
                report.ignored.push(Ignored { name: bundle.name(), why: refusal.to_string() });
                admitted.push(None);
            }
            Err(refusal) => {
                refused.push((candidate.created, bundle.name(), refusal));
                admitted.push(None);
            }
        }
    }
    let good = bundles.iter().zip(&admitted).filter(|(_, admission)| admission.is_some());
    let newest = good.map(|(bundle, _)| bundle.payload().created).max();
    for (created, name, refusal) in refused {
        // Last month's bundle may stay on the stick: what is in use is newer.
        let surpassed = newest.is_some_and(|newest| created < newest);
        match refusal {
            Refusal::Rollback { .. } | Refusal::Expired { .. } if surpassed => {
                report.ignored.push(Ignored { name, why: format!("{refusal}; a newer bundle is here") });
            }
            refusal => report.errors.push(refusal.into()),
        }
    }
    admitted
}

/// Chooses, and stages what was chosen. An error that one bundle is to blame for comes with its
/// index.
#[allow(clippy::too_many_arguments)] // One call; a struct would only rename them.
fn prepare(
    args: &Import,
    cache: &Cache<'_>,
    memory: &TargetState,
    host: &Host,
    bundles: &mut [VerifiedBundle],
    admitted: &[Option<Admission>],
    report: &mut Report,
    progress: &dyn Progress,
) -> Result<Prepared, (Option<usize>, Error)> {
    let chosen = choose(args, cache, host, bundles, admitted, report)?;
    let chosen = sift(args, cache, memory, host, chosen, report).map_err(|error| (None, error))?;
    let incoming: Vec<(Slot, u64, u64)> = chosen
        .iter()
        .map(|c| (c.slot.clone(), c.dataset.contents.unpacked_size(), c.dataset.contents.file_count()))
        .collect();
    cache.preflight(&incoming).map_err(|error| (None, error.into()))?;
    let mut stages = Vec::new();
    for (index, bundle) in bundles.iter_mut().enumerate() {
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

/// What is installed may have passed its exporter's date while nothing newer came.
fn expiry(args: &Import, memory: &TargetState, host: &Host, report: &mut Report) {
    let expires = memory.last.as_ref().and_then(|last| last.expires);
    if let Some(expires) = expires.filter(|expires| *expires <= present(host.now, memory))
        && !args.overrides.time.allow_expired
    {
        let already =
            report.errors.iter().any(|error| matches!(error, Error::Refused(Refusal::Expired { .. })));
        if !already {
            report.errors.push(Refusal::InstalledExpired { stream: args.stream.to_string(), expires }.into());
        }
    }
}

/// `--restore`: every wanted dataset goes back to its kept generation.
fn restore(args: &Import, dir: &Path, host: &Host, progress: &dyn Progress) -> Result<Outcome, Error> {
    let mut cache = open_cache(args, dir, progress)?;
    let mut report = Report::new(&cache, host, args, Vec::new());
    let mut slots = BTreeMap::new();
    for name in [Name::trivy_db(), Name::trivy_java_db(), Name::trivy_checks()] {
        slots.extend(cache.slot(&name, "").map(|slot| (slot.path().to_owned(), (name, slot))));
    }
    // VEX repositories lie under the names that this site has for them. Each once: going back twice
    // is going nowhere.
    for repository in host.vex.entries().iter().map(|entry| entry.name.as_str()).chain(["default"]) {
        let hub = Carried { name: "default".into(), url: VEX_HUB.into() };
        let known = if host.vex.name_for(&hub) == repository { "default" } else { repository };
        let Ok(name) = Name::vex(known) else { continue };
        slots.extend(cache.slot(&name, repository).map(|slot| (slot.path().to_owned(), (name, slot))));
    }
    for (name, slot) in slots.into_values().filter(|(name, _)| args.selection.wants(name)) {
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
    if report.rows.is_empty() && report.errors.is_empty() {
        return Err(Error::usage(
            format!("no earlier generation is kept in {}", cache.dir().display()),
            "Import an older bundle with --allow-rollback instead.",
        ));
    }
    report.warnings.push("importing the newest bundle, or --restore once more, undoes this".into());
    after::finish(args, &mut cache, host, &mut report);
    drop(cache);
    if !report.rows.is_empty() {
        after::hook(args, &mut report);
    }
    report.outcome()
}
