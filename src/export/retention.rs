//! `--keep`: removes older bundles of an exporter.
//!
//! Only bundles of this stream that the same key signed are removed, and never the last bundle that holds a
//! dataset: if trivy-java-db is carried once a month, it must not be gone after a week.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::bundle::volumes::{VolumeNumber, beside, parse_name};
use crate::bundle::{Payload, UnverifiedBundle, parity};
use crate::error::Error;
use crate::export::output::is_named_for;
use crate::trust::key::PublicKey;
use crate::util::fs;

/// Removes a stream's bundles in a directory that are older than the newest `keep`. `newest` is the creation
/// date of the newest bundle. Returns the removed bundles.
///
/// # Errors
/// If the directory cannot be read, or if a file cannot be removed.
pub(crate) fn retain(
    directory: &Path,
    stream: &str,
    key: &PublicKey,
    newest: Timestamp,
    keep: usize,
) -> Result<Vec<PathBuf>, Error> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| {
            Error::Destination {
            path,
            what: format!("older bundles could not be removed: {error}"),
            hint: "Remove older bundles by hand, or check the permissions of the directory: the new bundle was written.".into(),
        }
        }
    };
    let mut bundles: Vec<(Timestamp, PathBuf, usize, BTreeSet<String>)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        if is_named_for(&entry.file_name().to_string_lossy(), stream) {
            // A bundle of another key or stream, an incomplete one, or one with a later date is not removed,
            // and does not count as kept.
            let opened = UnverifiedBundle::open(&entry.path());
            if let Some(payload) = opened.ok().and_then(|bundle| bundle.signed_by(key))
                && payload.stream.to_string() == stream
                && payload.created <= newest
            {
                bundles.push((payload.created, entry.path(), payload.volumes.len(), content(&payload)));
            }
        }
    }
    bundles.sort_by(|one, other| other.cmp(one));
    let mut kept = BTreeSet::new();
    let mut removed = Vec::new();
    for (index, (_, path, volumes, content)) in bundles.into_iter().enumerate() {
        if index < keep || !content.is_subset(&kept) {
            kept.extend(content);
            continue;
        }
        // The head volume is removed last: without it, the owner of the others would be unknown.
        let behind = (0..volumes).map_while(|index| beside(&path, VolumeNumber::at(index)?));
        for volume in behind.chain(parity_of(&path)) {
            match fs::remove_file(&volume) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(&volume)(error));
                }
                _ => {}
            }
        }
        fs::remove_file(&path).map_err(failed(&path))?;
        removed.push(path);
    }
    Ok(removed)
}

/// The parity files beside a bundle.
fn parity_of(head: &Path) -> impl Iterator<Item = PathBuf> {
    let name = head.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bundle = parse_name(&name).map_or(name.clone(), |(bundle, _)| bundle.to_owned());
    let path = move |number| head.with_file_name(parity::name(&bundle, number));
    (1..).map(path).take_while(|path| path.symlink_metadata().is_ok())
}

/// The names of the datasets and images in a bundle.
fn content(payload: &Payload) -> BTreeSet<String> {
    let datasets = payload.datasets.iter().map(|dataset| dataset.reference());
    datasets.chain(payload.images.iter().map(|image| image.name.clone())).collect()
}
