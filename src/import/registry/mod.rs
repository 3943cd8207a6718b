//! Imports into registries: compares the registry with the bundles, pushes the missing content, and reports the
//! results. This module does not depend on other targets.

use jiff::Timestamp;

use crate::bundle::{BundleError, VerifiedBundle};
use crate::dataset::Kind;
use crate::delivery::admission::{admit_all, conclude};
use crate::delivery::candidates::{candidates, newest};
use crate::delivery::context::DeliveryContext;
use crate::delivery::decision::{DecisionInput, decide};
use crate::delivery::ledger::TargetLedger;
use crate::delivery::registry_access::{
    ExistingContent, date_of, dated, existing_datasets, is_out, layers_of, name_all, read_content, undated,
    unread, version_of,
};
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport};
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::import::options::ImportOptions;
use crate::import::preview::check_content;
use crate::import::registry::push::{PushChoice, content, load_manifests, push_blobs, push_tags};
use crate::import::registry::push_images::ImagePusher;
use crate::import::run::ImportRun;
use crate::intake::open::path_of;
use crate::progress::Progress;
use crate::targets::TargetError;
use crate::targets::compat::Compat;
use crate::targets::registry::Registry;
use crate::trust::acceptance::Admission;

pub(crate) mod image_compat;
pub(crate) mod push;
pub(crate) mod push_images;

/// Imports into one registry, prefix or repository.
///
/// # Errors
/// If the registry cannot be reached, or the only bundle is damaged. The errors of single datasets are in the report.
pub(crate) fn push_bundles(
    run: &mut ImportRun<'_>,
    registry: &Registry<'_>,
    place: &RegistryPlace,
) -> Result<TargetReport, Error> {
    let ImportRun { options, context, progress, .. } = *run;
    let target = TargetId::Registry(place.clone());
    let mut ledger = run.ledger.for_target(&target);
    let ignored = run.found.ignored.clone();
    // No tag names anything new until the end, so the import can be retried without a damaged bundle.
    let ((mut report, pushed), damaged) = run.found.without_damaged(|bundles| {
        let mut report = TargetReport::new(target.clone(), context, ignored.clone());
        let admitted = admit_all(bundles, ledger.state(), context, &mut report);
        if report.bundles.is_empty() {
            return Ok((report, None));
        }
        let mut chosen = choose(options, place, bundles, &admitted, &mut report)?;
        load_manifests(options, bundles, &mut chosen)?;
        let asked = AskedRegistry { registry, context, progress, remembers: !options.dry_run };
        let chosen = asked.filter_chosen(&mut ledger, chosen, &mut report)?;
        if options.dry_run {
            let wanted: Vec<_> = chosen.iter().map(|choice| (choice.bundle, &choice.dataset)).collect();
            check_content(bundles, &wanted, progress)?;
            chosen.iter().for_each(|choice| report.set(&choice.dataset, DeliveryStatus::WouldPush, None));
            return Ok((report, None));
        }
        if !chosen.is_empty() {
            ledger.about_to_change(context.host.now)?;
        }
        let failed = push_blobs(registry, bundles, &chosen, progress)?;
        let complete = |choice: &PushChoice| !failed.contains_key(&choice.reference.to_string());
        let (chosen, without): (Vec<_>, Vec<_>) = chosen.into_iter().partition(complete);
        without.iter().for_each(|choice| report.set(&choice.dataset, DeliveryStatus::Failed, None));
        report.errors.extend(failed.into_values());
        Ok((report, Some((admitted, chosen))))
    })?;
    report.errors.splice(0..0, damaged);
    let Some((mut admitted, chosen)) = pushed else { return Ok(report) };
    let bundles = &run.found.bundles;
    for (index, (bundle, slot)) in bundles.iter().zip(&mut admitted).enumerate() {
        let Some(mut admission) = slot.take() else { continue };
        let mine: Vec<&PushChoice> = chosen.iter().filter(|choice| choice.bundle == index).collect();
        if mine.iter().any(|choice| choice.rollback) {
            report.rolls_back(bundle, &mut admission);
        }
        push_tags(registry, &mine, &admission, &mut report);
        *slot = Some(admission);
    }
    let pushes = ImagePusher { options, context, registry, place, bundles, progress };
    if let Err(error) = pushes.push_all(&mut admitted, &mut ledger, &mut report) {
        // The datasets are in place nevertheless.
        report.errors.push(error);
    }
    for (bundle, admission) in bundles.iter().zip(&admitted) {
        if let Some(admission) = admission {
            ledger.accept(bundle, admission, &report.installed, context);
        }
    }
    conclude(ledger, context, &mut report);
    report.existing = existing_datasets(place, registry, context.host.version, &report);
    Ok(report)
}

/// Chooses the newest version of each dataset and tag among the admitted bundles.
///
/// # Errors
/// If the name of a dataset is invalid as a repository.
fn choose(
    options: &ImportOptions,
    place: &RegistryPlace,
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
    report: &mut TargetReport,
) -> Result<Vec<PushChoice>, Error> {
    let mut placed = Vec::new();
    for candidate in candidates(bundles, admitted, &options.selection) {
        let dataset = &candidate.dataset;
        if dataset.name.kind() == Kind::Vex {
            if matches!(place, RegistryPlace::Registry { .. })
                && options.web_root.is_none()
                && !report.datasets.iter().any(|row| row.name == dataset.name)
            {
                report.datasets.push(DatasetResult::new(dataset, None, DeliveryStatus::NoPlace));
                report.advice.push(format!(
                    "{} is not pushed: Trivy fetches VEX repositories from web servers, not from registries; import it with --web-root.",
                    dataset.name
                ));
            }
            continue;
        }
        if let Some(reference) = place.repository(&dataset.name, &dataset.tag)? {
            if dataset.delta.is_some() {
                let path = path_of(bundles, candidate.bundle);
                let (name, target) = (dataset.name.to_string(), "a registry".into());
                let error = BundleError::NeedsLayer { path, dataset: name, target };
                report.fails(dataset, reference.to_string(), error.into());
                continue;
            }
            placed.push((reference.to_string(), reference, candidate));
        }
    }
    let mut chosen: Vec<PushChoice> = newest(placed)
        .into_iter()
        .map(|(reference, candidate)| PushChoice::new(reference, candidate))
        .collect();
    // If one repository gets several versions, the extra tags name the highest.
    for index in 0..chosen.len() {
        let version = |choice: &PushChoice| choice.dataset.tag.parse::<u64>().unwrap_or(0);
        let mine = &chosen[index];
        let beside = |other: &&PushChoice| {
            (other.reference.host(), other.reference.name()) == (mine.reference.host(), mine.reference.name())
        };
        if chosen.iter().filter(beside).all(|other| version(other) <= version(mine)) {
            chosen[index].tags.clone_from(&options.registry.extra_tag);
        }
    }
    Ok(chosen)
}

/// A registry, and the context in which its content is compared with the chosen datasets.
struct AskedRegistry<'a> {
    registry: &'a Registry<'a>,
    context: &'a DeliveryContext,
    progress: &'a dyn Progress,
    /// Whether dates that are found in the registry are recorded.
    remembers: bool,
}

/// The data that a registry has at the reference of a dataset.
struct Existing {
    /// The date of its build, if it is known.
    date: Option<Timestamp>,
    /// The minimum date: older data is not pushed.
    floor: Option<Timestamp>,
    /// Whether it may have another origin than the imports of this host.
    foreign: bool,
}

impl AskedRegistry<'_> {
    /// Drops the choices that are too old or already in place.
    fn filter_chosen(
        &self,
        ledger: &mut TargetLedger<'_>,
        chosen: Vec<PushChoice>,
        report: &mut TargetReport,
    ) -> Result<Vec<PushChoice>, Error> {
        let AskedRegistry { registry, context, .. } = *self;
        let mut left = Vec::new();
        for mut choice in chosen {
            let found = match registry.manifest(&choice.reference) {
                Ok(found) => found,
                // An unreachable host fails for all datasets; any other error concerns only this one.
                Err(error) if is_out(&error) => return Err(error.into()),
                Err(error) => {
                    report.fails(&choice.dataset, choice.reference.to_string(), error.into());
                    continue;
                }
            };
            let layers = found.as_deref().and_then(layers_of);
            choice.lost = layers.is_none() || layers != layers_of(&choice.manifest);
            let built = choice.dataset.contents.updated_at.or(date_of(&choice.manifest));
            report.warnings.extend(undated(&choice.dataset.reference(), &choice.tags, built));
            choice.tags = dated(&choice.tags, built);
            let existing = self.existing(ledger, &choice, found.as_deref(), report)?;
            let mut row = DatasetResult::new(&choice.dataset, existing.date, DeliveryStatus::Installing);
            row.reference = Some(choice.reference.to_string());
            row.extra_tags.clone_from(&choice.tags);
            let input = DecisionInput {
                dataset: &choice.dataset,
                repository: None,
                row,
                date: Some(choice.date),
                floor: existing.floor,
                vacant: found.is_none(),
                late: choice.late,
                otherwise: "not pushed",
                version: found.as_deref().filter(|_| choice.lost).and_then(version_of),
                foreign: existing.foreign,
            };
            let complete = match found.as_ref() == Some(&choice.manifest) {
                true => is_complete(registry, &choice),
                false => Ok(false),
            };
            match complete {
                Ok(complete) => {
                    if let Some(decision) = decide(context, ledger.state(), input, || Ok(complete), report)? {
                        (choice.known, choice.rollback) = (decision.known, decision.rollback);
                        left.push(choice);
                    }
                }
                Err(error) => report.fails(&choice.dataset, choice.reference.to_string(), error.into()),
            }
        }
        Ok(left)
    }

    /// Finds when the data in the registry was built. The date of a manifest is not enough: it is later than that of
    /// its content, and some tools set it to the time of the push.
    fn existing(
        &self,
        ledger: &mut TargetLedger<'_>,
        choice: &PushChoice,
        found: Option<&[u8]>,
        report: &mut TargetReport,
    ) -> Result<Existing, Error> {
        let unknown = |floor| Existing { date: None, floor, foreign: true };
        let Some(found) = found else { return Ok(unknown(None)) };
        let (dataset, candidate) = (&choice.dataset, choice.dataset.contents.updated_at);
        if !choice.lost {
            // The layers are the same, under another manifest, as with `--compat`.
            return Ok(Existing { date: candidate, floor: None, foreign: false });
        }
        let key = dataset.reference();
        let known = layers_of(found).and_then(|layers| ledger.date_of(&key, &layers));
        if known.is_some() {
            return Ok(Existing { date: known, floor: known, foreign: false });
        }
        let (kind, made) = (dataset.name.kind(), date_of(found));
        // Data that was built after the manifest was created is newer than the manifest's content.
        if !kind.is_large() || made.is_some_and(|made| candidate >= Some(made)) {
            return Ok(unknown(None));
        }
        match read_content(self.registry, &choice.reference, kind, found, self.progress) {
            Ok(ExistingContent::Built(others)) => {
                let date = Some(others.updated_at);
                if self.remembers {
                    ledger.dates(key, others)?;
                }
                Ok(Existing { date, floor: date, foreign: true })
            }
            Ok(ExistingContent::Unusable) => Ok(unknown(None)),
            Err(error) => {
                report.warnings.push(unread(&choice.reference, &error));
                Ok(unknown(made))
            }
        }
    }
}

/// Whether a registry has all blobs of a dataset, and all its tags name it.
fn is_complete(registry: &Registry<'_>, choice: &PushChoice) -> Result<bool, TargetError> {
    let compat = choice.compat.as_ref().map(|_| Compat::config());
    let compat = compat.map(|(digest, config)| (digest, config.len() as u64));
    let blobs = content(choice).map(|blob| (blob.digest, blob.size)).chain(compat);
    Ok(registry.has_all(&choice.reference, blobs)?
        && name_all(registry, &choice.reference, &choice.tags, &choice.manifest)?)
}
