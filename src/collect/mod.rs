//! Collects datasets from their sources: those that an export or a mirror selects, with everything that is
//! known about them before the large layers are read.
//!
//! This module handles sources and datasets. It writes no bundle, and does not depend on the destination.

pub(crate) mod artifact;
pub(crate) mod best_source;
pub mod images;
pub mod options;
pub(crate) mod quorum;
pub mod registry_mirror;
pub mod requirement;
pub(crate) mod validate;
pub(crate) mod wanted;

use crate::collect::artifact::{CollectedDataset, vex_repository};
use crate::collect::best_source::BestSource;
use crate::collect::requirement::{MissingSource, Requirements};
use crate::collect::wanted::WantedDataset;
use crate::error::Error;
use crate::progress::Progress;
use crate::source::Network;

/// Resolves every dataset, and fetches and validates the small ones. Adds a dataset to `missing` if no source
/// has it in a usable form and the bundle does not require it; skips datasets that `missing` already holds.
///
/// # Errors
/// If a required dataset is not available in a usable form: the error of [`BestSource::collect`], or for a
/// VEX repository [`Error::Source`] if it cannot be fetched and [`Error::Content`] if Trivy could not use it.
pub(crate) fn collect(
    network: &Network<'_>,
    wanted: &[WantedDataset],
    requirements: &Requirements<'_>,
    missing: &mut Vec<MissingSource>,
    best: &mut BestSource<'_>,
    progress: &dyn Progress,
) -> Result<Vec<CollectedDataset>, Error> {
    let mut collected = Vec::new();
    for item in wanted {
        let dataset = item.dataset();
        if missing.iter().any(|missing| missing.is(&dataset)) {
            continue;
        }
        let done = match item {
            WantedDataset::Artifact(artifact) => best.collect(artifact),
            WantedDataset::Vex { name, source } => vex_repository(network, name, source),
        };
        network.take_warnings().iter().for_each(|warning| progress.warn(warning));
        match done {
            Ok(found) => collected.push(found),
            Err(error) => missing.push(requirements.without_dataset(&dataset, error)?),
        }
    }
    Ok(collected)
}
