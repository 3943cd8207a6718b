//! `export --dry-run`: reports the items that an export would collect, with their sources and sizes.
//!
//! This module reads from sources and writes nothing.

use std::collections::BTreeMap;

use crate::bundle::writer::BundleInfo;
use crate::collect::artifact::CollectedDataset;
use crate::collect::best_source::BestSource;
use crate::collect::requirement::Requirements;
use crate::collect::wanted::{self, WantedDataset};
use crate::collect::{self, images};
use crate::error::Error;
use crate::export::options::ExportOptions;
use crate::export::output::Destination;
use crate::export::report::{ExportReport, ExportedDataset, ExportedImage};
use crate::export::rules::{Verdict, examine, quorum};
use crate::export::run::plan;
use crate::progress::Progress;
use crate::source::Network;
use crate::util::clock;
use crate::util::text::escape;

/// Collects manifests, checks that the layers exist and that the output has room for them, and writes
/// nothing.
///
/// # Errors
/// If a required source fails, if its data is too old, or if the output has no room.
pub(crate) fn preview(options: &ExportOptions, progress: &dyn Progress) -> Result<ExportReport, Error> {
    let network = &Network::new(options.remote.clone(), options.limits.begin(), progress)?;
    let wanted = &wanted::wanted(&options.sources, &options.vex, !options.image.is_empty())?;
    let mut best = BestSource::new(network, BTreeMap::new(), quorum(options), progress);
    let hosts = || {
        let mut hosts = network.hosts();
        // An export contacts these if the sources before them fail.
        hosts.extend(wanted.iter().flat_map(WantedDataset::hosts));
        hosts
    };
    let requirements = &Requirements::new(&options.require, &options.accept, wanted)?;
    let mut missing = Vec::new();
    let collected = collect::collect(network, wanted, requirements, &mut missing, &mut best, progress);
    let collected = collected.inspect_err(|_| {
        // A firewall may be the reason, so list the hosts that it must allow.
        let hosts: Vec<String> = hosts().into_iter().collect();
        progress.info(&format!("A firewall must allow at least: {}", escape(&hosts.join(", "))));
    })?;
    let platform = options.platform.as_ref();
    let images = images::collect(&options.image, platform, requirements, &mut missing, network, progress)?;
    if collected.is_empty() && images.is_empty() && !missing.is_empty() {
        return Err(missing.remove(0).error);
    }
    let now = clock::now();
    let mut report = ExportReport {
        dry_run: true,
        images: images.iter().map(|image| ExportedImage::new(&image.planned.image)).collect(),
        ..ExportReport::default()
    };
    let room = match options.output.is_empty() {
        true => Ok(()),
        false => check_room(options, &collected, &images),
    };
    for item in collected {
        let dataset = &item.planned.dataset;
        let date = dataset.contents.updated_at.or(item.announced);
        let max_age = options.max_age.as_ref();
        let young = max_age.map_or(Ok(()), |max_age| max_age.check(&dataset.name, date, now));
        let examined = young.map_err(Error::from).and_then(|()| match &item.examination {
            Some(found) => examine(options, dataset, found, None),
            None => Ok(Verdict::default()),
        });
        report.warnings.extend(examined.iter().flat_map(|verdict| verdict.warnings.clone()));
        match examined.and_then(|_| layer_is_there(&item, network)) {
            Ok(()) => report.datasets.push(ExportedDataset::new(dataset, date, &item.skipped, now)),
            Err(error) => missing.push(requirements.without_dataset(&item.wanted, error)?),
        }
    }
    for image in &images {
        let Some((source, blob)) = image.first_blob() else { continue };
        if let Err(error) = network.blob(source, blob).map(drop) {
            missing.push(requirements.without_image(&image.planned.image.name, error.into())?);
        }
    }
    room?;
    report.hosts = hosts();
    Ok(report.without(missing))
}

/// Requests the large layer. Registries store layers on other hosts, and reveal these only for such a
/// request.
fn layer_is_there(item: &CollectedDataset, network: &Network<'_>) -> Result<(), Error> {
    let layer =
        item.artifact.as_ref().and_then(|artifact| Some((artifact, artifact.manifest.layers.first()?)));
    match layer {
        Some((artifact, layer)) => Ok(network.blob(&artifact.source, layer).map(drop)?),
        None => Ok(()),
    }
}

/// Checks that the output has room for the bundle and its parity files.
fn check_room(
    options: &ExportOptions,
    collected: &[CollectedDataset],
    images: &[images::CollectedImage],
) -> Result<(), Error> {
    let destination = Destination::new(&options.output, options.stream.as_str())?;
    let volume_size = destination.volume_size(options.volume_size);
    let info = BundleInfo {
        stream: options.stream.clone(),
        created: clock::now(),
        expires: None,
        sequence: None,
        previous: None,
        volume_size,
        missing: Vec::new(),
    };
    let plan = plan(info, collected, images)?;
    destination.check_room(&plan, options.parity.map(|percent| (percent, volume_size)))
}
