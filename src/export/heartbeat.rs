//! `--heartbeat`: an export says that it is alive, whatever it came to.

use std::path::{Path, PathBuf};

use crate::bundle::Stream;
use crate::bundle::heartbeat::{ExportOutcome, Heartbeat, NewestBundle};
use crate::dataset::MissingItem;
use crate::error::Error;
use crate::export::drop_directory::put_new;
use crate::trust::signer::Signer;
use crate::trust::state::ExportState;
use crate::util::{clock, fs};

/// Puts a heartbeat into a folder, and takes away what is left there of the stream's earlier ones: they say
/// nothing that this one does not. Says where it is.
///
/// # Errors
/// Where nobody signs, or the folder cannot be written.
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
    // After the newest bundle, whatever this host's clock says: it was made after it.
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
        what: format!("the heartbeat could not be put there: {error}"),
        hint: "Make room or mend the folder; the next export sends another.".into(),
    })?;
    for path in earlier {
        let _ = fs::remove_file(path);
    }
    Ok(path)
}
