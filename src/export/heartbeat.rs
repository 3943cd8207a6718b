//! `--heartbeat`: an export reports that it ran, and its result.
//!
//! This module depends on the record of a stream's last export and the directory for heartbeats,
//! but not on the collecting and writing of bundles.

use std::path::{Path, PathBuf};

use crate::bundle::Stream;
use crate::bundle::heartbeat::{ExportOutcome, Heartbeat, NewestBundle};
use crate::dataset::MissingItem;
use crate::error::Error;
use crate::export::drop_directory::put_new;
use crate::trust::signer::Signer;
use crate::trust::state::ExportState;
use crate::util::{clock, fs};

/// Writes a heartbeat to a directory and removes the earlier ones of the stream, which it replaces. Returns
/// its path.
///
/// # Errors
/// If it cannot be signed, or if the directory cannot be written.
pub(crate) fn send(
    directory: &Path,
    stream: &Stream,
    (export, missing): (ExportOutcome, &[MissingItem]),
    last: Option<&ExportState>,
    signer: &dyn Signer,
) -> Result<PathBuf, Error> {
    let newest = last.map(|last| NewestBundle {
        identity: last.identity,
        created: last.created,
        sequence: last.sequence,
    });
    // The heartbeat is newer than the newest bundle, even if this host's clock is behind.
    let now = clock::now_in_seconds();
    let created = last.map_or(now, |last| now.max(last.created));
    let heartbeat =
        Heartbeat { missing: missing.to_vec(), ..Heartbeat::new(stream.clone(), created, export, newest) };
    let bytes = heartbeat.signed(signer)?;
    let path = directory.join(heartbeat.file_name());
    let earlier: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| Heartbeat::is_named_for(&entry.file_name().to_string_lossy(), stream.as_str()))
        .map(|entry| entry.path())
        .filter(|earlier| *earlier != path)
        .collect();
    put_new(&path, &mut &bytes[..]).map_err(|error| Error::Destination {
        path: path.clone(),
        what: format!("the heartbeat could not be written: {error}"),
        hint: "Free space or repair the directory; the next export writes a new heartbeat.".into(),
    })?;
    for path in earlier {
        let _ = fs::remove_file(path);
    }
    Ok(path)
}
