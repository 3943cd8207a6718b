//! Imports into a web root: writes the VEX repositories of the bundles as files for a web server. This module does
//! not depend on other targets.

use std::collections::BTreeSet;
use std::path::Path;

use crate::bundle::{BundleError, VerifiedBundle};
use crate::dataset::catalogue::VEX_SPEC;
use crate::dataset::vex::ArchiveFormat;
use crate::dataset::vex_copy::{self, Record};
use crate::dataset::{DatasetRef, Kind};
use crate::delivery::admission::{admit_all, conclude};
use crate::delivery::candidates::{DatasetCandidate, candidates, newest};
use crate::delivery::context::DeliveryContext;
use crate::delivery::decision::{AcceptedDataset, DecisionInput, decide};
use crate::delivery::report::{DatasetResult, DeliveryStatus, ExistingDataset, TargetReport};
use crate::delivery::target_id::TargetId;
use crate::delivery::web_url::WebUrl;
use crate::error::Error;
use crate::import::cache::of_images;
use crate::import::cache_choice::{vex_manifest, vex_manifests};
use crate::import::options::ImportOptions;
use crate::import::preview::check_content;
use crate::import::run::ImportRun;
use crate::intake::open::{Blame, path_of};
use crate::progress::Progress;
use crate::targets::TargetError;
use crate::targets::web_root::{VexCopy, WebRoot};
use crate::trust::acceptance::Admission;
use crate::trust::state::TargetState;
use crate::util::text::escape;

/// A VEX repository to copy.
struct CopyChoice {
    candidate: DatasetCandidate,
    copy: VexCopy,
    record: Record,
    decision: AcceptedDataset,
    /// Whether the same data was in place, served under another URL.
    repointed: bool,
}

/// Imports into the web root `dir`, which is served under `url`.
///
/// # Errors
/// If the directory cannot be used, or the only bundle is damaged. The errors of single repositories are in the report.
pub(crate) fn publish_bundles(
    run: &mut ImportRun<'_>,
    dir: &Path,
    url: &WebUrl,
) -> Result<TargetReport, Error> {
    let ImportRun { options, context, progress, .. } = *run;
    let root = match options.dry_run {
        true => WebRoot::look(dir)?,
        false => WebRoot::open(dir, options.keep_previous)?,
    };
    let target = TargetId::WebRoot(root.path().to_path_buf());
    let mut ledger = run.ledger.for_target(&target);
    let ignored = run.found.ignored.clone();
    // Nothing points at staged files, so the import can be retried without a damaged bundle.
    let ((mut report, staged), damaged) = run.found.without_damaged(|bundles| {
        let mut report = TargetReport::new(target.clone(), context, ignored.clone());
        let admitted = admit_all(bundles, ledger.state(), context, &mut report);
        if report.bundles.is_empty() {
            return Ok((report, None));
        }
        let chosen = choose(options, url, bundles, &admitted, &mut report)?;
        // A bundle need not contain the datasets of an earlier one.
        if chosen.is_empty() && root.repositories()?.is_empty() {
            report.errors.push(Error::usage(
                "no bundle here holds a VEX repository for the web root",
                "Bring a bundle that holds one (`trivy-ferry inspect` lists the content), or omit --web-root.",
            ));
        }
        let chosen = filter_chosen(&root, url, ledger.state(), context, chosen, &mut report)?;
        root.preflight(&chosen.iter().map(|choice| &choice.copy).collect::<Vec<_>>())?;
        if options.dry_run {
            would_install(bundles, &chosen, progress, &mut report)?;
            return Ok((report, None));
        }
        if !chosen.is_empty() {
            ledger.about_to_change(context.host.now)?;
        }
        for (index, bundle) in bundles.iter().enumerate() {
            stage(&root, bundle, chosen.iter().filter(|choice| choice.candidate.bundle == index).collect())
                .map_err(Blame::on(index))?;
        }
        Ok((report, Some((admitted, chosen))))
    })?;
    report.errors.splice(0..0, damaged);
    let Some((admitted, chosen)) = staged else { return Ok(report) };
    for (index, (bundle, admission)) in run.found.bundles.iter().zip(admitted).enumerate() {
        let Some(mut admission) = admission else { continue };
        let mine: Vec<&CopyChoice> =
            chosen.iter().filter(|choice| choice.candidate.bundle == index).collect();
        if mine.iter().any(|choice| choice.decision.rollback) {
            report.rolls_back(bundle, &mut admission);
        }
        activate(&root, &mine, &admission, &mut report);
        ledger.accept(bundle, &admission, &report.installed, context);
    }
    conclude(ledger, context, &mut report);
    add_existing(&root, url, &mut report)?;
    if options.cache_dirs.is_empty() {
        report.advice.extend(of_images(options, &run.found.bundles));
    }
    if url.is_plain() && report.changed().count() > 0 {
        report.advice.push(
            "VEX documents hide findings, and over http:// an attacker on the network path can forge them: use https:// instead."
                .into(),
        );
    }
    Ok(report)
}

/// Verifies the repositories that would be copied, for a dry run.
fn would_install(
    bundles: &[VerifiedBundle],
    chosen: &[CopyChoice],
    progress: &dyn Progress,
    report: &mut TargetReport,
) -> Result<(), Blame> {
    let wanted: Vec<_> =
        chosen.iter().map(|choice| (choice.candidate.bundle, &choice.candidate.dataset)).collect();
    check_content(bundles, &wanted, progress)?;
    wanted.iter().for_each(|(_, dataset)| report.set(dataset, DeliveryStatus::WouldInstall, None));
    Ok(())
}

/// Adds the VEX repositories of earlier imports to the report.
fn add_existing(root: &WebRoot, url: &WebUrl, report: &mut TargetReport) -> Result<(), Error> {
    for name in root.repositories()? {
        if !report.in_place().any(|row| row.name == name) {
            let reference = url.of(&name);
            report.existing.push(ExistingDataset { dataset: DatasetRef::new(name, VEX_SPEC), reference });
        }
    }
    Ok(())
}

/// Activates the staged copies of one bundle.
fn activate(root: &WebRoot, mine: &[&CopyChoice], admission: &Admission, report: &mut TargetReport) {
    for choice in mine {
        let dataset = &choice.candidate.dataset;
        match root.activate(&choice.copy) {
            Ok(()) => {
                let is_back = admission.seen && choice.decision.known && !choice.repointed;
                let status = if is_back { DeliveryStatus::Restored } else { DeliveryStatus::Installed };
                report.installs(dataset, None, status, None);
            }
            Err(error) => {
                report.errors.push(error.into());
                report.set(dataset, DeliveryStatus::Failed, None);
            }
        }
    }
}

/// Chooses the newest version of each VEX repository among the admitted bundles, with its copy.
///
/// # Errors
/// If a bundle is damaged, or the manifest of a repository is invalid.
fn choose(
    options: &ImportOptions,
    url: &WebUrl,
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
    report: &mut TargetReport,
) -> Result<Vec<CopyChoice>, Blame> {
    let manifests = vex_manifests(bundles, admitted)?;
    let mut placed = Vec::new();
    let mut others: BTreeSet<String> = BTreeSet::new();
    for candidate in candidates(bundles, admitted, &options.selection) {
        if candidate.dataset.name.kind() != Kind::Vex {
            others.insert(candidate.dataset.name.to_string());
            continue;
        }
        let upstream = vex_manifest(&manifests, candidate.bundle, &candidate.dataset);
        let copy = copy(&candidate, url, upstream).map_err(|why| {
            let path = path_of(bundles, candidate.bundle);
            let why = format!("{}: {}", candidate.dataset.reference(), escape(&why));
            Blame::on(candidate.bundle)(BundleError::Payload { path, why: why.into() })
        })?;
        placed.push((candidate.dataset.name.to_string(), copy, candidate));
    }
    // No advice if the same run imports them into another target.
    if options.cache_dirs.is_empty() && options.registry.places.is_empty() && !others.is_empty() {
        let others = others.into_iter().collect::<Vec<_>>().join(", ");
        report
            .advice
            .push(format!("A web root does not get {others}: import them with --registry or --cache-dir."));
    }
    let decision = AcceptedDataset { known: false, rollback: false };
    let choice =
        |((copy, record), candidate)| CopyChoice { candidate, copy, record, decision, repointed: false };
    Ok(newest(placed).into_iter().map(choice).collect())
}

/// Returns the copy of a dataset. The error is the end of a sentence.
fn copy(
    candidate: &DatasetCandidate,
    url: &WebUrl,
    upstream: Option<&[u8]>,
) -> Result<(VexCopy, Record), String> {
    let dataset = &candidate.dataset;
    let (Some(layer), Some(upstream)) = (dataset.content_layer(), upstream) else {
        return Err("it has no archive or no manifest".into());
    };
    let format = ArchiveFormat::by_media_type(&layer.media_type);
    let subdir = dataset.subdir.as_ref().map_or("", |subdir| subdir.as_str()).to_owned();
    let archive = format!("{}/{}", url.of(&dataset.name), vex_copy::archive_name(format, &subdir));
    let location = vex_copy::location(&archive, &subdir)
        .ok_or_else(|| format!("the directory {subdir:?} cannot be part of a URL"))?;
    let record = Record { archive: layer.digest, updated_at: candidate.date };
    let manifest = vex_copy::point_at(upstream, &location, &record)?;
    let name = dataset.name.clone();
    Ok((VexCopy { name, digest: layer.digest, size: layer.size, format, subdir, manifest }, record))
}

/// Drops the choices that are too old or already in place.
fn filter_chosen(
    root: &WebRoot,
    url: &WebUrl,
    state: &TargetState,
    context: &DeliveryContext,
    chosen: Vec<CopyChoice>,
    report: &mut TargetReport,
) -> Result<Vec<CopyChoice>, Error> {
    let mut left = Vec::new();
    for mut choice in chosen {
        let found = root.manifest(&choice.candidate.dataset.name)?;
        let record = found.as_deref().and_then(vex_copy::record);
        let was = record.as_ref().map(|record| record.updated_at);
        let same_archive = record.is_some_and(|record| record.archive == choice.record.archive);
        let at = found.as_deref().and_then(vex_copy::location_of);
        let moved = at.filter(|at| Some(at) != vex_copy::location_of(&choice.copy.manifest).as_ref());
        choice.repointed = same_archive && moved.is_some();
        let mut row = DatasetResult::new(&choice.candidate.dataset, was, DeliveryStatus::Installing);
        row.reference = Some(url.of(&choice.candidate.dataset.name));
        let input = DecisionInput {
            dataset: &choice.candidate.dataset,
            repository: None,
            row,
            date: Some(choice.candidate.date),
            floor: was,
            vacant: found.is_none(),
            late: choice.candidate.late,
            otherwise: "skipped",
            version: None,
            foreign: false,
        };
        let same = || Ok(root.holds(&choice.copy)?);
        if let Some(decision) = decide(context, state, input, same, report)? {
            choice.decision = decision;
            if let Some(moved) = moved {
                report.warnings.push(format!(
                    "{} was served at {} until now, and scanners keep using that URL until you run `trivy clean --vex-repo` on their hosts",
                    choice.candidate.dataset.name,
                    escape(&moved)
                ));
            }
            left.push(choice);
        }
    }
    Ok(left)
}

/// Stages the archives of one bundle.
fn stage(root: &WebRoot, bundle: &VerifiedBundle, mine: Vec<&CopyChoice>) -> Result<(), Error> {
    let path = bundle.path().to_path_buf();
    for choice in mine {
        let archive = bundle.blob(choice.record.archive)?;
        root.stage(&choice.copy, archive).map_err(|error| match error.downcast::<TargetError>() {
            Ok(error) => Error::from(error),
            Err(error) => BundleError::from_io(&path, error).into(),
        })?;
    }
    Ok(())
}
