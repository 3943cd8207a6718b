//! Chooses the newest acceptable version of each dataset for a cache, and its place there.
//!
//! Reads bundles, the cache and the ledger; changes nothing.

use std::collections::BTreeMap;
use std::fs::File;

use jiff::Timestamp;

use crate::bundle::{Dataset, VerifiedBundle};
use crate::dataset::{Contents, Kind, catalogue, vex};
use crate::delivery::candidates::{DatasetCandidate, candidates, newest};
use crate::delivery::context::{DeliveryContext, HostContext};
use crate::delivery::decision::{DecisionInput, decide};
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport};
use crate::digest::Digest;
use crate::error::Error;
use crate::import::options::ImportOptions;
use crate::intake::open::Blame;
use crate::scanner::vex_config::Origin;
use crate::scanner::vex_entry::CarriedRepository;
use crate::targets::{Metadata, Slot, TargetError, View};
use crate::trust::acceptance::Admission;
use crate::trust::key::KeyId;
use crate::trust::state::TargetState;

/// A dataset of an admitted bundle, with its place in the cache.
pub(crate) struct CacheChoice {
    pub(crate) bundle: usize,
    pub(crate) dataset: Dataset,
    pub(crate) slot: Slot,
    pub(crate) vex_manifest: Vec<u8>,
    /// The date that is compared with the floor.
    date: Timestamp,
    /// Whether the data in its place is not kept as an earlier generation, because it is a damaged
    /// copy of the same version, or Trivy cannot read it.
    pub(crate) repairs: bool,
    /// Whether it was accepted here before.
    pub(crate) known: bool,
    /// Whether it is older than the installed data, and imported because of `--allow-rollback`.
    pub(crate) rollback: bool,
    /// The file that its delta is applied to, and the index of its base.
    pub(crate) base: Option<(usize, File)>,
    /// Whether its bundle was received after newer ones. Older datasets in it need no warning then.
    late: bool,
}

impl CacheChoice {
    /// The name of a VEX repository in the configuration of the scanner on this host.
    pub(crate) fn repository(&self) -> Option<String> {
        (self.dataset.name.kind() == Kind::Vex).then(|| self.slot.name().to_owned())
    }
}

/// Chooses the newest version of each dataset among the admitted bundles, and the checks that fit Trivy's version.
///
/// # Errors
/// If a bundle is damaged.
pub(crate) fn choose(
    options: &ImportOptions,
    cache: &View,
    host: &HostContext,
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
    report: &mut TargetReport,
) -> Result<Vec<CacheChoice>, Blame> {
    let manifests = vex_manifests(bundles, admitted)?;
    let mut placed = Vec::new();
    let mut other_checks = None;
    for candidate in candidates(bundles, admitted, &options.selection) {
        let dataset = &candidate.dataset;
        if dataset.name.kind() == Kind::TrivyChecks && dataset.tag != host.version.checks_tag() {
            other_checks = Some(candidate.dataset);
            continue;
        }
        let repository = carried(dataset).map(|carried| host.vex.name_for(&carried).to_owned());
        match cache.slot(&dataset.name, repository.as_deref().unwrap_or_default()) {
            Some(slot) => placed.push((slot.path().to_owned(), slot, candidate)),
            None if report.datasets.iter().any(|row| row.name == dataset.name) => {}
            None => report.datasets.push(DatasetResult::new(dataset, None, DeliveryStatus::NoPlace)),
        }
    }
    let chosen: Vec<CacheChoice> =
        newest(placed).into_iter().map(|(slot, candidate)| choice(slot, candidate, &manifests)).collect();
    if let Some(dataset) = other_checks.filter(|_| !chosen.iter().any(|c| c.slot.kind() == Kind::TrivyChecks))
    {
        report.warnings.push(format!(
            "the bundle contains trivy-checks {}, but Trivy {} needs {}: export with --trivy-version {}",
            dataset.tag,
            host.version,
            host.version.checks_tag(),
            host.version
        ));
        report.datasets.push(DatasetResult::new(&dataset, None, DeliveryStatus::NotWanted));
    }
    for name in &options.selection.only {
        if !chosen.iter().any(|choice| choice.dataset.name == *name) {
            report.errors.push(Error::usage(
                format!("no bundle here holds {name}, which --only requires"),
                "Bring a bundle that holds it: `trivy-ferry inspect` lists the content.",
            ));
        }
    }
    Ok(chosen)
}

fn choice(slot: Slot, candidate: DatasetCandidate, manifests: &[VexManifests]) -> CacheChoice {
    let DatasetCandidate { bundle, dataset, date, late } = candidate;
    let vex_manifest = vex_manifest(manifests, bundle, &dataset).unwrap_or_default().to_owned();
    let (repairs, known, rollback, base) = (false, false, false, None);
    CacheChoice { bundle, dataset, slot, vex_manifest, date, repairs, known, rollback, base, late }
}

/// Returns the entry of a dataset for Trivy's VEX configuration; `None` if it is not a VEX repository.
pub(crate) fn carried(dataset: &Dataset) -> Option<CarriedRepository> {
    let name = dataset.name.vex_repository()?;
    let url = match (name, dataset.vex_url()) {
        ("default", _) => catalogue::VEX_HUB.to_owned(),
        (_, Some(url)) => url.to_owned(),
        // It was exported from a directory. Trivy does not use this address, because updates are turned off.
        (other, None) => format!("https://{other}.invalid/"),
    };
    Some(CarriedRepository { name: name.into(), url, origin: None })
}

/// Returns the entries of all datasets of the admitted bundles for Trivy's VEX configuration, with their bundle, by the
/// digest of their manifest.
pub(crate) fn listed(
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
) -> Vec<(Digest, CarriedRepository)> {
    let admitted = bundles.iter().zip(admitted).filter(|(_, admission)| admission.is_some());
    admitted
        .flat_map(|(bundle, _)| {
            bundle.payload().datasets.iter().filter_map(|dataset| {
                let carried = carried(dataset)?;
                let origin = Origin {
                    stream: bundle.payload().stream.as_str().into(),
                    bundle: bundle.identity(),
                    keys: bundle.signers().iter().map(KeyId::hex).collect(),
                };
                // VEX Hub is in Trivy's default configuration, so it belongs to no bundle.
                let origin = (carried.name != "default").then_some(origin);
                Some((dataset.manifest.digest, CarriedRepository { origin, ..carried }))
            })
        })
        .collect()
}

/// The `vex-repository.json` files of a bundle, by member name.
pub(crate) type VexManifests = BTreeMap<String, Vec<u8>>;

/// Reads the `vex-repository.json` files of the admitted bundles.
///
/// # Errors
/// If a bundle is damaged; the error has the index of the bundle.
pub(crate) fn vex_manifests(
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
) -> Result<Vec<VexManifests>, Blame> {
    let mut manifests = Vec::new();
    for (index, (bundle, admission)) in bundles.iter().zip(admitted).enumerate() {
        if admission.is_none() {
            manifests.push(VexManifests::new());
            continue;
        }
        let layers = bundle.payload().datasets.iter().flat_map(|dataset| &dataset.layers);
        let wanted =
            layers.filter(|l| l.media_type == catalogue::VEX_MANIFEST_LAYER).map(|l| l.path()).collect();
        let read = bundle.small_members(&wanted, vex::MAX_MANIFEST);
        manifests.push(read.map_err(Blame::on(index))?);
    }
    Ok(manifests)
}

/// Returns the `vex-repository.json` of one dataset.
pub(crate) fn vex_manifest<'m>(
    manifests: &'m [VexManifests],
    bundle: usize,
    dataset: &Dataset,
) -> Option<&'m [u8]> {
    let manifests = manifests.get(bundle)?;
    dataset.layers.iter().find_map(|layer| manifests.get(&layer.path())).map(Vec::as_slice)
}

/// A cache, and a function that returns whether the cache holds exactly these contents.
pub(crate) type LookedAt<'c> =
    (&'c View, &'c dyn Fn(&Slot, &Contents, &Metadata) -> Result<bool, TargetError>);

/// Drops the choices that are too old or already in place.
///
/// # Errors
/// If the cache cannot be read.
pub(crate) fn filter_chosen(
    (cache, holds): LookedAt<'_>,
    state: &TargetState,
    context: &DeliveryContext,
    chosen: Vec<CacheChoice>,
    report: &mut TargetReport,
) -> Result<Vec<CacheChoice>, Error> {
    let mut left = Vec::new();
    for mut choice in chosen {
        let dataset = &choice.dataset;
        let installed = cache.installed(&choice.slot)?;
        let was = installed.as_ref().and_then(|installed| installed.updated_at);
        let input = DecisionInput {
            dataset,
            repository: choice.repository(),
            row: DatasetResult::new(dataset, was, DeliveryStatus::Installing),
            date: Some(choice.date),
            floor: was,
            vacant: installed.is_none(),
            late: choice.late,
            otherwise: "skipped",
            version: installed.as_ref().and_then(|installed| installed.version.clone()),
            foreign: false,
        };
        let same = || Ok(holds(&choice.slot, &dataset.contents, &metadata(&choice, &context.host))?);
        let Some(decision) = decide(context, state, input, same, report)? else { continue };
        choice.repairs = installed.as_ref().is_none_or(|have| match dataset.name.kind() {
            Kind::TrivyChecks => have.manifest_digest == Some(dataset.manifest.digest),
            // Data without a date may be a different version.
            _ => have.updated_at.is_some() && have.updated_at == dataset.contents.updated_at,
        });
        (choice.known, choice.rollback) = (decision.known, decision.rollback);
        left.push(choice);
    }
    Ok(left)
}

pub(crate) fn metadata(choice: &CacheChoice, host: &HostContext) -> Metadata {
    let downloaded_at = host.now;
    match choice.slot.kind() {
        Kind::TrivyDb | Kind::TrivyJavaDb => Metadata::Database { downloaded_at },
        Kind::TrivyChecks => Metadata::Checks {
            manifest_digest: choice.dataset.manifest.digest,
            major: choice.dataset.tag.parse().unwrap_or(0),
            version: choice.dataset.version.clone(),
            downloaded_at,
        },
        Kind::Vex => Metadata::Vex { manifest_json: choice.vex_manifest.clone(), updated_at: host.now },
    }
}
