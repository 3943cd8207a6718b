//! `--keep`: which of the bundles that an exporter wrote may go.
//!
//! Only what the same key has signed for this stream; and never the last bundle that holds a dataset,
//! or where Java travels once a month there would be none of it after a week.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::bundle::volumes::{VolumeNumber, beside, parse_name};
use crate::bundle::{Payload, UnverifiedBundle, parity};
use crate::error::Error;
use crate::export::output::is_named_for;
use crate::trust::key::PublicKey;
use crate::util::fs;

/// Removes what is older than the newest `keep` bundles of a stream in a folder, of which the one that was
/// created at `newest` is the last. Says which.
///
/// # Errors
/// Where the folder cannot be read or a file not be removed.
pub(crate) fn retain(
    directory: &Path,
    stream: &str,
    key: &PublicKey,
    newest: Timestamp,
    keep: usize,
) -> Result<Vec<PathBuf>, Error> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| Error::Destination {
            path,
            what: format!("older bundles could not be removed: {error}"),
            hint: "The new bundle is there; remove older ones by hand, or check who may write there.".into(),
        }
    };
    let mut bundles: Vec<(Timestamp, PathBuf, usize, BTreeSet<String>)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        if is_named_for(&entry.file_name().to_string_lossy(), stream) {
            // What this key has not signed, is another stream's, cut off or dated later is not ours to
            // remove, and nothing to rely on.
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
        // The head last: without it, nobody would know whose the others are.
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

/// What a bundle holds, by name.
fn content(payload: &Payload) -> BTreeSet<String> {
    let datasets = payload.datasets.iter().map(|dataset| dataset.reference());
    datasets.chain(payload.images.iter().map(|image| image.name.clone())).collect()
}
