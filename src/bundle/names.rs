//! The names of bundles, of the program beside them, and of files that are being written.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::util::text::format_stamp;

/// The suffix of a file that is being written. Readers skip such files.
pub(crate) const PARTIAL: &str = ".partial";
/// The name of the program that `export --with-self` puts beside the bundle.
pub(crate) const PROGRAM: &str = "trivy-ferry";
/// The name of the file with the digest of the program, in the form of `sha256sum`.
pub(crate) const PROGRAM_CHECKSUM: &str = "trivy-ferry.sha256";
/// The name of the signature of that file: the 64 bytes of an Ed25519 signature, as openssl writes and reads it.
pub(crate) const PROGRAM_SIGNATURE: &str = "trivy-ferry.sha256.sig";

/// Returns the name of a bundle if the user did not choose one.
pub(crate) fn default_name(stream: &str, created: Timestamp) -> String {
    format!("{stream}-{}.tar", format_stamp(created))
}

/// Returns the temporary path of a file.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(PARTIAL);
    path.with_file_name(name)
}

/// Returns the final path of a file that has a temporary one.
pub(crate) fn final_path(partial: &Path) -> Option<PathBuf> {
    let name = partial.file_name()?.to_str()?.strip_suffix(PARTIAL)?;
    Some(partial.with_file_name(name))
}
