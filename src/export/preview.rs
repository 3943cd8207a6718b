//! `export --dry-run`: what an export would collect, from where and how large.

use std::collections::BTreeMap;

use crate::collect::best_source::BestSource;
use crate::collect::wanted::{self, WantedDataset};
use crate::collect::{self, images};
use crate::error::Error;
use crate::export::options::ExportOptions;
use crate::export::report::{ExportReport, ExportedDataset, ExportedImage};
use crate::export::rules::quorum;
use crate::progress::Progress;
use crate::source::Network;
use crate::util::clock;
use crate::util::text::escape;

/// Collects manifests and looks whether the layers are there, and writes nothing.
///
/// # Errors
/// If a source fails, or its data is too old.
pub(crate) fn preview(options: &ExportOptions, progress: &dyn Progress) -> Result<ExportReport, Error> {
    let network = &Network::new(options.remote.clone(), options.limits, progress)?;
    let wanted = &wanted::wanted(&options.sources, &options.vex, !options.image.is_empty())?;
    let mut best = BestSource::new(network, BTreeMap::new(), quorum(options), progress);
    let hosts = || {
        let mut hosts = network.hosts();
        // Those that would be asked if the ones before them failed.
        hosts.extend(wanted.iter().flat_map(WantedDataset::hosts));
        hosts
    };
    let collected = collect::collect(network, wanted, &mut best, progress).inspect_err(|_| {
        // It may be the firewall that is in the way, and this is for it.
        let hosts: Vec<String> = hosts().into_iter().collect();
        progress.info(&format!("A firewall must let through at least: {}", escape(&hosts.join(", "))));
    })?;
    let images = images::collect(&options.image, options.platform.as_ref(), network, progress)?;
    let now = clock::now();
    let mut report = ExportReport {
        dry_run: true,
        images: images.iter().map(|image| ExportedImage::new(&image.planned.image)).collect(),
        ..ExportReport::default()
    };
    for item in &collected {
        let date = item.planned.dataset.contents.updated_at.or(item.announced);
        if let Some(max_age) = &options.max_age {
            max_age.check(&item.planned.dataset.name, date, now)?;
        }
        report.datasets.push(ExportedDataset::new(&item.planned.dataset, date, &item.skipped, now));
        // Registries keep large layers elsewhere, and say where only when they are asked for one.
        if let Some(artifact) = &item.artifact
            && let Some(layer) = artifact.manifest.layers.first()
        {
            drop(network.blob(&artifact.source, layer)?);
        }
    }
    for (source, blob) in images.iter().filter_map(images::CollectedImage::first_blob) {
        drop(network.blob(source, blob)?);
    }
    report.hosts = hosts();
    Ok(report)
}
