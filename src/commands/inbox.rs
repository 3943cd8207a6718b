//! The input of verify, inspect and import: one bundle, or a folder in which bundles lie among
//! whatever file managers and file systems leave there.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::{BundleError, UnverifiedBundle, VerifiedBundle};
use crate::error::Error;
use crate::text::safe;
use crate::trust::keyring::Keyring;

/// A file that was passed over, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Ignored {
    /// Its name.
    pub(super) name: String,
    /// Why it was passed over.
    pub(super) why: String,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Bundles that a trusted key signed, the oldest first.
    pub(super) bundles: Vec<VerifiedBundle>,
    /// Files that are none of our business.
    pub(super) ignored: Vec<Ignored>,
    /// Bundles that somebody should look at: signed by a trusted key and damaged, or unreadable.
    pub(super) damaged: Vec<BundleError>,
}

/// The paths that may be bundles, and the files that are none.
///
/// # Errors
/// Where a folder cannot be read.
pub(super) fn paths(input: &Path) -> Result<(Vec<PathBuf>, Vec<Ignored>), Error> {
    let is_folder = fs::metadata(input).is_ok_and(|metadata| metadata.is_dir());
    if !is_folder {
        return Ok((vec![input.to_path_buf()], Vec::new()));
    }
    let failed = || Error::unexpected(format!("reading the folder {}", input.display()));
    let (mut paths, mut ignored) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(input).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match why_ignored(&name) {
            Some(why) => ignored.push(Ignored { name: safe(&name), why: why.into() }),
            None => paths.push(entry.path()),
        }
    }
    paths.sort();
    ignored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((paths, ignored))
}

/// Why a file's name says that it is no bundle. `name (1).tar`, as browsers make it, is fine.
fn why_ignored(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    if name.starts_with("._") {
        Some("left by macOS")
    } else if lower.ends_with(".partial") {
        Some("an unfinished copy or export")
    } else if name.starts_with('.') {
        Some("hidden")
    } else if !lower.ends_with(".tar") {
        Some("not named .tar")
    } else {
        None
    }
}

/// Opens what is there and checks signatures, payloads and lengths; the content is still to come.
///
/// # Errors
/// For a single file whatever is wrong with it. For a folder, where it holds no bundle that could
/// be used.
pub(super) fn open(input: &Path, keyring: &Keyring) -> Result<Found, Error> {
    let is_folder = fs::metadata(input).is_ok_and(|metadata| metadata.is_dir());
    let (paths, ignored) = paths(input)?;
    let mut found = Found { ignored, ..Found::default() };
    let mut untrusted = None;
    for path in paths {
        match UnverifiedBundle::open(&path).and_then(|bundle| bundle.verify(keyring)) {
            Ok(bundle) => found.bundles.push(bundle),
            Err(error) if !is_folder => return Err(error.into()),
            Err(error @ (BundleError::NotAFile { .. } | BundleError::NotABundle { .. })) => {
                found.ignored.push(ignore(&path, &error));
            }
            Err(error @ BundleError::Untrusted { .. }) => {
                found.ignored.push(ignore(&path, &error));
                untrusted.get_or_insert(error);
            }
            Err(error) => found.damaged.push(error),
        }
    }
    if !found.bundles.is_empty() {
        found.bundles.sort_by_key(|bundle| (bundle.payload().created, bundle.identity()));
        return Ok(found);
    }
    match found.damaged.len() {
        0 => {}
        1 => return Err(found.damaged.swap_remove(0).into()),
        _ => return Ok(found),
    }
    Err(untrusted.map_or_else(|| no_bundle(input, &found.ignored), Error::from))
}

fn ignore(path: &Path, error: &BundleError) -> Ignored {
    let name = safe(&path.file_name().unwrap_or_default().to_string_lossy());
    let why = error.to_string();
    let why = why.strip_prefix(&format!("{} is ", path.display())).unwrap_or(&why).to_owned();
    Ignored { name, why: safe(&why) }
}

/// The folder holds nothing to work with.
pub(super) fn no_bundle(input: &Path, ignored: &[Ignored]) -> Error {
    let some: Vec<String> =
        ignored.iter().take(3).map(|file| format!("{}: {}", file.name, file.why)).collect();
    let seen = match (some.len(), ignored.len()) {
        (0, _) => "it is empty".to_owned(),
        (_, 1..=3) => some.join("; "),
        (_, all) => format!("{}; and {} more", some.join("; "), all - 3),
    };
    Error::usage(
        format!("there is no bundle in {} ({seen})", input.display()),
        "Name the file that `trivy-ferry export` wrote, or the folder that it lies in.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_none_of_our_business() {
        for name in ["a.tar", "default-20261121t091500z (1).tar", "A.TAR"] {
            assert_eq!(why_ignored(name), None, "{name}");
        }
        for name in ["._a.tar", "a.tar.partial", ".hidden.tar", "System Volume Information", "a.zip"] {
            assert!(why_ignored(name).is_some(), "{name}");
        }
    }
}
