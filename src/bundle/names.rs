//! The names of bundles, and the temporary ones that files have while they are written.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::util::text::format_stamp;

/// What a file has behind its name while it is written. Readers pass such files over.
pub(crate) const PARTIAL: &str = ".partial";

/// What a bundle is called if nobody chose a name.
pub(crate) fn default_name(stream: &str, created: Timestamp) -> String {
    format!("{stream}-{}.tar", format_stamp(created))
}

/// What a file is called while it is written.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(PARTIAL);
    path.with_file_name(name)
}

/// The name that a file gets at the end.
pub(crate) fn final_path(partial: &Path) -> Option<PathBuf> {
    let name = partial.file_name()?.to_str()?.strip_suffix(PARTIAL)?;
    Some(partial.with_file_name(name))
}
