//! The input of verify, inspect and import: one bundle, or a folder in which bundles lie among
//! whatever file managers and file systems leave there.

use std::collections::HashSet;
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

/// How many bundles of a folder are looked at, the newest: each is an open file. Years of weekly
/// bundles are fewer.
const MOST_BUNDLES: usize = 256;
/// How many passed-over files are named.
const MOST_IGNORED: usize = 100;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Bundles that a trusted key signed, the oldest first.
    pub(super) bundles: Vec<VerifiedBundle>,
    /// Files that are none of our business.
    pub(super) ignored: Vec<Ignored>,
    /// What somebody should know: a bundle that no trusted key signed may be one that was waited for.
    pub(super) warnings: Vec<String>,
    /// Bundles that somebody should look at: signed by a trusted key and damaged, or unreadable.
    pub(super) damaged: Vec<BundleError>,
}

impl Found {
    /// Attempts something with all bundles, and again without each that turns out to be damaged deep
    /// inside: it must not keep out the good one beside it. An attempt says by index which bundle is to
    /// blame, and leaves nothing in place where it fails. What was damaged comes with the result.
    ///
    /// # Errors
    /// What no bundle is to blame for, and damage to the only bundle.
    pub(super) fn without_damaged<T>(
        &mut self,
        mut attempt: impl FnMut(&[VerifiedBundle]) -> Result<T, (Option<usize>, Error)>,
    ) -> Result<(T, Vec<Error>), Error> {
        let mut damaged = Vec::new();
        loop {
            match attempt(&self.bundles) {
                Ok(done) => return Ok((done, damaged)),
                Err((Some(index), error @ Error::Bundle(_))) if self.bundles.len() > 1 => {
                    self.bundles.remove(index);
                    damaged.push(error);
                }
                Err((_, error)) => return Err(error),
            }
        }
    }
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
    let failed = || {
        |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Error::usage(
                format!("the folder {} may not be read by this user", input.display()),
                "Run the command as a user who may, or mount the medium for this one.",
            ),
            _ => Error::unexpected(format!("reading the folder {}", input.display()))(error),
        }
    };
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

/// So many names that nobody would read them become one line.
pub(super) fn some(mut ignored: Vec<Ignored>) -> Vec<Ignored> {
    let more = ignored.len().saturating_sub(MOST_IGNORED);
    if more > 0 {
        ignored.truncate(MOST_IGNORED);
        ignored.push(Ignored {
            name: format!("{more} more"),
            why: "not named here, because they are many".into(),
        });
    }
    ignored
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

/// Whether a file bears a name as `export` gives it: `STREAM-YYYYMMDDthhmmssz.tar`, also with what
/// a browser puts behind it.
fn is_named_as_bundle(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let Some((_, date)) = name.rsplit_once('-') else { return false };
    let pattern = b"00000000t000000z";
    date.len() > pattern.len()
        && date.bytes().zip(pattern).all(|(c, wanted)| match wanted {
            b'0' => c.is_ascii_digit(),
            letter => c == *letter,
        })
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
    let mut files = HashSet::new();
    let (mut older, mut unread) = (0, 0);
    for path in paths {
        use std::os::unix::fs::MetadataExt;
        // A second name of the same file adds nothing but an open file.
        if fs::symlink_metadata(&path)
            .is_ok_and(|m| m.is_file() && m.nlink() > 1 && !files.insert((m.dev(), m.ino())))
        {
            found.ignored.push(Ignored { name: shown(&path), why: "another name of a file above".into() });
            continue;
        }
        match UnverifiedBundle::open(&path).and_then(|bundle| bundle.verify(keyring)) {
            Ok(bundle) => {
                found.bundles.push(bundle);
                if found.bundles.len() > MOST_BUNDLES {
                    found.bundles.sort_by_key(|bundle| (bundle.payload().created, bundle.identity()));
                    drop(found.bundles.remove(0));
                    older += 1;
                }
            }
            Err(error) if !is_folder => return Err(error.into()),
            // Something that bears a bundle's name and is none was one, most likely.
            Err(error @ BundleError::NotABundle { .. }) if is_named_as_bundle(&path) => {
                found.damaged.push(error);
            }
            Err(error @ (BundleError::NotAFile { .. } | BundleError::NotABundle { .. })) => {
                found.ignored.push(ignore(&path, &error));
            }
            Err(error @ BundleError::Untrusted { .. }) => {
                let ignored = ignore(&path, &error);
                found.warnings.push(format!(
                    "{} was passed over, because it is {}: if its exporter has a new key, `trivy-ferry trust add` it",
                    ignored.name, ignored.why
                ));
                found.ignored.push(ignored);
                untrusted.get_or_insert(error);
            }
            Err(error) => found.damaged.push(error),
        }
        // Each is a sentence of its own on the terminal.
        if found.damaged.len() > MOST_IGNORED {
            found.damaged.pop();
            unread += 1;
        }
    }
    if unread > 0 {
        found.warnings.push(format!("{unread} more files here are damaged bundles as well"));
    }
    if older > 0 {
        let why = format!("older than the {MOST_BUNDLES} newest bundles here");
        found.ignored.push(Ignored { name: format!("{older} bundles"), why });
    }
    if !found.bundles.is_empty() {
        found.bundles.sort_by_key(|bundle| (bundle.payload().created, bundle.identity()));
        found.ignored = some(found.ignored);
        found.warnings.truncate(MOST_IGNORED);
        return Ok(found);
    }
    match found.damaged.len() {
        0 => {}
        1 => return Err(found.damaged.swap_remove(0).into()),
        _ => {
            found.ignored = some(found.ignored);
            return Ok(found);
        }
    }
    Err(untrusted.map_or_else(|| no_bundle(input, &found.ignored), Error::from))
}

fn ignore(path: &Path, error: &BundleError) -> Ignored {
    let name = shown(path);
    let why = error.to_string();
    let why = why.strip_prefix(&format!("{} is ", path.display())).unwrap_or(&why).to_owned();
    Ignored { name, why: safe(&why) }
}

fn shown(path: &Path) -> String {
    safe(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// The folder holds nothing to work with.
pub(super) fn no_bundle(input: &Path, ignored: &[Ignored]) -> Error {
    let some: Vec<String> =
        ignored.iter().take(3).map(|file| format!("{}: {}", file.name, file.why)).collect();
    let seen = match (some.len(), ignored.len()) {
        (0, _) => "it is empty: is the medium mounted there?".to_owned(),
        (_, 1..=3) => some.join("; "),
        (_, all) => format!("{}; and {} more", some.join("; "), all - 3),
    };
    let next = match folder_with_bundles(input) {
        Some(folder) => format!("Name the folder itself: {} holds files named .tar.", folder.display()),
        None => "Name the file that `trivy-ferry export` wrote, or the folder that it lies in.".into(),
    };
    Error::usage(format!("there is no bundle in {} ({seen})", input.display()), next)
}

/// A folder in this one that looks like the medium that was meant: `/media/usb` for `/media`.
fn folder_with_bundles(input: &Path) -> Option<PathBuf> {
    /// Enough for what lies in a folder of mount points.
    const MOST: usize = 100;
    let list = |folder: &Path| fs::read_dir(folder).into_iter().flatten().take(MOST).filter_map(Result::ok);
    let is_bundle = |entry: fs::DirEntry| why_ignored(&entry.file_name().to_string_lossy()).is_none();
    list(input)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .find(|folder| list(folder).any(is_bundle))
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
