//! The choice of an import: of each dataset the newest that is acceptable, and where it belongs.
//!
//! Looks at bundles, the cache and the memory; changes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::fate::{Judged, decide};
use super::import::{Host, Setup};
use super::import_report::{Report, Row, Status};
use crate::bundle::{BundleError, Dataset, VerifiedBundle};
use crate::cli::Import;
use crate::dataset::{Kind, catalogue, vex};
use crate::error::Error;
use crate::target::vex_config::Carried;
use crate::target::{Cache, Metadata, Slot};
use crate::trust::acceptance::Admission;
use crate::trust::state::TargetState;

/// A dataset of an admitted bundle, with the place where it belongs.
pub(super) struct Choice {
    pub(super) bundle: usize,
    pub(super) dataset: Dataset,
    pub(super) slot: Slot,
    pub(super) vex_manifest: Vec<u8>,
    /// By which the floor is judged.
    date: Option<Timestamp>,
    /// What is in its place is no generation to go back to: the same data with a fault, or nothing
    /// that Trivy could read.
    pub(super) repairs: bool,
    /// It was accepted here before.
    pub(super) known: bool,
    /// It is older than what was there, and taken all the same.
    pub(super) rollback: bool,
    /// Its bundle came after newer ones: that most of it is older is no news.
    late: bool,
}

/// The date by which a dataset is older or newer than another. What carries none of its own, as
/// checks do, is dated by its bundle: else a bundle seen long ago would put its old checks over
/// the new ones.
pub(super) fn floor_date(dataset: &Dataset, created: Timestamp) -> Option<Timestamp> {
    dataset.contents.updated_at.or(Some(created))
}

/// Of each dataset the newest among the admitted bundles, and the one that suits the Trivy here.
pub(super) fn choose(
    args: &Import,
    cache: &Cache<'_>,
    host: &Host,
    bundles: &mut [VerifiedBundle],
    admitted: &[Option<Admission>],
    report: &mut Report,
) -> Result<Vec<Choice>, (Option<usize>, Error)> {
    let mut chosen: BTreeMap<String, Choice> = BTreeMap::new();
    let mut other_checks = None;
    for (index, bundle) in bundles.iter_mut().enumerate() {
        let Some(Some(admission)) = admitted.get(index) else { continue };
        let manifests = vex_manifests(bundle).map_err(|error| (Some(index), error.into()))?;
        for dataset in &bundle.payload().datasets {
            if !args.selection.wants(&dataset.name) {
                continue;
            }
            if dataset.name.kind() == Kind::TrivyChecks && dataset.tag != host.version.checks_tag() {
                other_checks = Some(dataset.clone());
                continue;
            }
            let repository = carried(dataset).map(|carried| host.vex.name_for(&carried).to_owned());
            let Some(slot) = cache.slot(&dataset.name, repository.as_deref().unwrap_or_default()) else {
                if !report.rows.iter().any(|row| row.name == dataset.name) {
                    report.rows.push(Row::new(dataset, None, Status::NoPlace));
                }
                continue;
            };
            let newer = |have: &Choice| dataset.contents.updated_at >= have.dataset.contents.updated_at;
            if chosen.get(slot.path()).is_none_or(newer) {
                let manifest = dataset.layers.iter().find_map(|layer| manifests.get(&layer.path()));
                let vex_manifest = manifest.cloned().unwrap_or_default();
                let (dataset, slot) = (dataset.clone(), slot.clone());
                let place = slot.path().to_owned();
                let date = floor_date(&dataset, bundle.payload().created);
                chosen.insert(
                    place,
                    Choice {
                        bundle: index,
                        dataset,
                        slot,
                        vex_manifest,
                        date,
                        repairs: false,
                        known: false,
                        rollback: false,
                        late: admission.superseded,
                    },
                );
            }
        }
    }
    if let Some(dataset) =
        other_checks.filter(|_| !chosen.values().any(|c| c.slot.kind() == Kind::TrivyChecks))
    {
        report.warnings.push(format!(
            "the bundle carries trivy-checks {} and Trivy {} wants {}: export with --trivy-version {}",
            dataset.tag,
            host.version,
            host.version.checks_tag(),
            host.version
        ));
        report.rows.push(Row::new(&dataset, None, Status::NotWanted));
    }
    for name in &args.selection.only {
        if !chosen.values().any(|choice| choice.dataset.name == *name) {
            report.errors.push(Error::usage(
                format!("no bundle here holds {name}, which --only asks for"),
                "Bring a bundle that holds it: `trivy-ferry inspect` shows what is in one.",
            ));
        }
    }
    Ok(chosen.into_values().collect())
}

/// What Trivy's VEX configuration should know of a dataset.
pub(super) fn carried(dataset: &Dataset) -> Option<Carried> {
    let name = dataset.name.vex_repository()?;
    let url = match name {
        "default" => catalogue::VEX_HUB.to_owned(),
        _ if dataset.source.starts_with("http") => dataset.source.clone(),
        // It came from a folder: Trivy never asks this address while it is told not to update.
        other => format!("https://{other}.invalid/"),
    };
    Some(Carried { name: name.into(), url })
}

/// The vex-repository.json files of a bundle, by member name.
pub(super) fn vex_manifests(bundle: &mut VerifiedBundle) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
    let layers = bundle.payload().datasets.iter().flat_map(|dataset| &dataset.layers);
    let wanted = layers.filter(|l| l.media_type == catalogue::VEX_MANIFEST_LAYER).map(|l| l.path()).collect();
    bundle.small_members(&wanted, vex::MAX_MANIFEST)
}

/// Leaves out what is too old, and what is in place already.
pub(super) fn sift(
    cache: &Cache<'_>,
    memory: &TargetState,
    setup: &Setup,
    chosen: Vec<Choice>,
    report: &mut Report,
) -> Result<Vec<Choice>, Error> {
    let mut left = Vec::new();
    for mut choice in chosen {
        let dataset = &choice.dataset;
        let installed = cache.installed(&choice.slot)?;
        let was = installed.as_ref().and_then(|installed| installed.updated_at);
        let judged = Judged {
            row: Row::new(dataset, was, Status::Installing),
            date: choice.date,
            floor: was,
            vacant: installed.is_none(),
            late: choice.late,
            otherwise: "left alone",
        };
        let same = || Ok(cache.holds(&choice.slot, &dataset.contents, &metadata(&choice, &setup.host))?);
        let Some(taken) = decide(setup, memory, judged, same, report)? else { continue };
        choice.repairs = installed.as_ref().is_none_or(|have| match dataset.name.kind() {
            Kind::TrivyChecks => have.manifest_digest == Some(dataset.manifest.digest),
            _ => have.updated_at == dataset.contents.updated_at,
        });
        (choice.known, choice.rollback) = (taken.known, taken.rollback);
        left.push(choice);
    }
    Ok(left)
}

pub(super) fn metadata(choice: &Choice, host: &Host) -> Metadata {
    let downloaded_at = host.now;
    match choice.slot.kind() {
        Kind::TrivyDb | Kind::TrivyJavaDb => Metadata::Database { downloaded_at },
        Kind::TrivyChecks => Metadata::Checks {
            manifest_digest: choice.dataset.manifest.digest,
            major: choice.dataset.tag.parse().unwrap_or(0),
            downloaded_at,
        },
        Kind::Vex => Metadata::Vex { manifest_json: choice.vex_manifest.clone(), updated_at: host.now },
    }
}
