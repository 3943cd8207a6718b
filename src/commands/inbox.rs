//! The input of verify, inspect, import and serve: one bundle, or folders in which bundles and their volumes
//! lie among whatever file managers and file systems leave there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::volumes::{self, Number};
use crate::bundle::{BundleError, SignedBundle, UnverifiedBundle, VerifiedBundle};
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

/// What lies there, by its names.
#[derive(Default)]
pub(super) struct Inputs {
    /// What may be a bundle or the head of one, in the order of the names.
    pub(super) bundles: Vec<PathBuf>,
    /// What may be a volume behind a head, by the bundle's name and its number.
    volumes: BTreeMap<(String, Number), Vec<PathBuf>>,
    /// What is none of our business.
    pub(super) ignored: Vec<Ignored>,
    /// Whether all of it is one file that the user named: whatever is wrong with it is said.
    pub(super) is_one_file: bool,
}

impl Inputs {
    /// Looks through folders, and takes files as they are.
    ///
    /// # Errors
    /// Where a folder cannot be read, and a file is a volume behind a head.
    pub(super) fn read(inputs: &[PathBuf]) -> Result<Self, Error> {
        let mut found = Inputs::default();
        let mut folders = 0;
        for input in inputs {
            if fs::metadata(input).is_ok_and(|metadata| metadata.is_dir()) {
                folders += 1;
                found.read_folder(input)?;
            } else if let ([_], Some(number)) = (inputs, behind_head(input)) {
                return Err(Error::usage(
                    format!("{} is volume {number} of a bundle", input.display()),
                    "Name its head, whose name ends in .tar.000, or the folder in which all volumes lie.",
                ));
            } else {
                found.take(input.clone());
            }
        }
        found.is_one_file = folders == 0 && found.bundles.len() == 1;
        found.bundles.sort();
        found.ignored.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn read_folder(&mut self, folder: &Path) -> Result<(), Error> {
        let failed = || {
            |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::PermissionDenied => Error::usage(
                    format!("the folder {} may not be read by this user", folder.display()),
                    "Run the command as a user who may, or mount the medium for this one.",
                ),
                _ => Error::unexpected(format!("reading the folder {}", folder.display()))(error),
            }
        };
        for entry in fs::read_dir(folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match why_ignored(&name) {
                Some(why) => self.ignored.push(Ignored { name: safe(&name), why: why.into() }),
                None => self.take(entry.path()),
            }
        }
        Ok(())
    }

    fn take(&mut self, path: PathBuf) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match volumes::parse_name(&name).filter(|(_, number)| *number != Number::HEAD) {
            Some((bundle, number)) => {
                self.volumes.entry((bundle.to_lowercase(), number)).or_default().push(path);
            }
            None => self.bundles.push(path),
        }
    }

    /// Puts a bundle together. Of a volume that lies there more than once, the one is taken that has the
    /// length which was signed.
    ///
    /// # Errors
    /// Where volumes are missing or damaged.
    pub(super) fn complete(&self, signed: SignedBundle) -> Result<VerifiedBundle, BundleError> {
        let head = signed.path().to_path_buf();
        let bundle = bundle_name(&head);
        let sizes: Vec<u64> = signed.payload().volumes.iter().map(|volume| volume.size).collect();
        signed.with_volumes(&|number| {
            let size = sizes.get(number.index()?);
            let found = self.volumes.get(&(bundle.clone()?, number)).map_or(&[][..], Vec::as_slice);
            let fits = |path: &&PathBuf| fs::metadata(path).ok().map(|m| m.len()).as_ref() == size;
            found.iter().find(fits).or(found.first()).cloned().or_else(|| volumes::beside(&head, number))
        })
    }

    /// Volumes whose head is not here.
    fn headless(&self) -> Vec<BundleError> {
        let heads: BTreeSet<String> = self.bundles.iter().filter_map(|path| bundle_name(path)).collect();
        let mut headless: BTreeMap<&str, (PathBuf, usize)> = BTreeMap::new();
        for ((bundle, _), paths) in self.volumes.iter().filter(|((bundle, _), _)| !heads.contains(bundle)) {
            let head = || paths[0].with_extension(Number::HEAD.to_string());
            headless.entry(bundle).or_insert_with(|| (head(), 0)).1 += 1;
        }
        headless.into_values().map(|(path, volumes)| BundleError::NoHead { path, volumes }).collect()
    }
}

/// The number of a volume behind a head, by its name.
fn behind_head(path: &Path) -> Option<Number> {
    let (_, number) = volumes::parse_name(path.file_name()?.to_str()?)?;
    Some(number).filter(|number| *number != Number::HEAD)
}

/// The name of a head's bundle, in small letters as FAT compares them.
fn bundle_name(head: &Path) -> Option<String> {
    let name = head.file_name()?.to_string_lossy().to_lowercase();
    volumes::parse_name(&name)
        .filter(|(_, number)| *number == Number::HEAD)
        .map(|(bundle, _)| bundle.to_owned())
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
    } else if !lower.ends_with(".tar") && volumes::parse_name(name).is_none() {
        Some("not named .tar")
    } else {
        None
    }
}

/// Whether a file bears a name as `export` gives it: `STREAM-YYYYMMDDthhmmssz.tar`, also with what
/// a browser puts behind it.
fn is_named_as_bundle(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = volumes::parse_name(&name).map_or(&name[..], |(bundle, _)| bundle);
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
/// For a single file whatever is wrong with it. For folders, where they hold no bundle that could be used.
pub(super) fn open(inputs: &[PathBuf], keyring: &Keyring) -> Result<Found, Error> {
    let mut there = Inputs::read(inputs)?;
    let ignored = std::mem::take(&mut there.ignored);
    let mut found = Found { ignored, ..Found::default() };
    let mut untrusted = None;
    let mut files = HashSet::new();
    let (mut older, mut unread) = (0, 0);
    found.damaged.extend(there.headless());
    for path in &there.bundles {
        let path = path.clone();
        use std::os::unix::fs::MetadataExt;
        // A second name of the same file adds nothing but an open file.
        if fs::symlink_metadata(&path)
            .is_ok_and(|m| m.is_file() && m.nlink() > 1 && !files.insert((m.dev(), m.ino())))
        {
            found.ignored.push(Ignored { name: shown(&path), why: "another name of a file above".into() });
            continue;
        }
        let opened = UnverifiedBundle::open(&path).and_then(|bundle| bundle.signed(keyring));
        match opened.and_then(|signed| there.complete(signed)) {
            Ok(bundle) => {
                found.bundles.push(bundle);
                if found.bundles.len() > MOST_BUNDLES {
                    found.bundles.sort_by_key(|bundle| (bundle.payload().created, bundle.identity()));
                    drop(found.bundles.remove(0));
                    older += 1;
                }
            }
            Err(error) if there.is_one_file => return Err(error.into()),
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
    Err(untrusted.map_or_else(|| no_bundle(inputs, &found.ignored), Error::from))
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
pub(super) fn no_bundle(inputs: &[PathBuf], ignored: &[Ignored]) -> Error {
    let some: Vec<String> =
        ignored.iter().take(3).map(|file| format!("{}: {}", file.name, file.why)).collect();
    let seen = match (some.len(), ignored.len()) {
        (0, _) => "it is empty: is the medium mounted there?".to_owned(),
        (_, 1..=3) => some.join("; "),
        (_, all) => format!("{}; and {} more", some.join("; "), all - 3),
    };
    let next = match inputs.iter().find_map(|input| folder_with_bundles(input)) {
        Some(folder) => format!("Name the folder itself: {} holds files named .tar.", folder.display()),
        None => "Name the file that `trivy-ferry export` wrote, or the folder that it lies in.".into(),
    };
    let inputs: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
    Error::usage(format!("there is no bundle in {} ({seen})", inputs.join(" and ")), next)
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
        for name in ["a.tar", "default-20261121t091500z (1).tar", "A.TAR", "a.tar.000", "A.TAR.017"] {
            assert_eq!(why_ignored(name), None, "{name}");
        }
        for name in ["._a.tar", "a.tar.partial", ".hidden.tar", "System Volume Information", "a.zip"] {
            assert!(why_ignored(name).is_some(), "{name}");
        }
    }
}
