//! Checks whether the keys that signed the data in use are still trusted.

use std::path::{Path, PathBuf};

use crate::status::report::StatusReport;
use crate::trust::keyring::{Keyring, directories};
use crate::trust::state::KeptKey;
use crate::util::text::escape;

/// Marks the signers that are no longer trusted. If their directories cannot be read, none is marked.
pub(crate) fn mark_untrusted(status: &mut StatusReport) {
    // If another user imported, the keys were in that user's directory.
    let mut looked_in = directories();
    let rows = status.imports.iter().flat_map(|target| &target.datasets);
    for key in rows.filter_map(|row| row.origin.as_ref()).flat_map(|origin| &origin.keys) {
        if let Some(directory) = Path::new(&key.file).parent().map(PathBuf::from)
            && !looked_in.contains(&directory)
        {
            looked_in.push(directory);
        }
    }
    let Ok(keyring) = Keyring::from_directories(&looked_in) else { return };
    let trusted: Vec<String> = keyring.iter().map(|trusted| trusted.key.id().hex()).collect();
    for row in status.imports.iter_mut().flat_map(|target| &mut target.datasets) {
        let kept = row.origin.iter().flat_map(|origin| &origin.keys);
        row.no_longer_trusted = kept.filter(|key| !trusted.contains(&key.keyid)).map(name).collect();
    }
}

/// Returns the name that the key has among the signers.
fn name(key: &KeptKey) -> String {
    escape(&Path::new(&key.file).file_name().unwrap_or_default().to_string_lossy())
}
