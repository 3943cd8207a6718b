//! The entry of a bundle in the log of exports.
//!
//! This module maps a written bundle to an entry. It does not write the log.

use std::path::Path;

use crate::bundle::Payload;
use crate::export::report::WrittenBundle;
use crate::trust::export_log::{ExportLogEntry, SignedItem};
use crate::trust::signer::Signer;
use crate::util::clock;
use crate::util::text::escape;

/// Returns the entry of a bundle that was written.
pub(crate) fn entry(written: &WrittenBundle, payload: &Payload, signer: &dyn Signer) -> ExportLogEntry {
    let name = |path: &Path| escape(&path.file_name().unwrap_or_default().to_string_lossy());
    let dataset = |dataset: &crate::bundle::Dataset| SignedItem {
        name: dataset.reference(),
        source: dataset.source.clone(),
        digest: dataset.manifest.digest,
        updated_at: dataset.contents.updated_at,
        version: dataset.version.clone(),
    };
    let image = |image: &crate::bundle::Image| SignedItem {
        name: image.name.clone(),
        source: image.source.clone(),
        digest: image.manifest.digest,
        updated_at: None,
        version: None,
    };
    ExportLogEntry {
        at: clock::now(),
        stream: written.stream.clone(),
        identity: written.identity,
        created: written.created,
        expires: written.expires,
        sequence: written.sequence,
        files: written.files.iter().map(|path| name(path)).collect(),
        length: written.length,
        keyid: signer.public().id().hex(),
        datasets: payload.datasets.iter().map(dataset).collect(),
        images: payload.images.iter().map(image).collect(),
        missing: payload.missing.clone(),
        overrides: written.overrides.clone(),
        program: env!("CARGO_PKG_VERSION"),
    }
}
