//! The input of verify, inspect, import and serve: one bundle, or folders in which bundles and their volumes
//! lie among whatever file managers and file systems leave there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(super) use super::inputs::Ignored;
use super::inputs::{self, Inputs, why_ignored};
use super::mend::{Mended, mend};
use crate::bundle::volumes;
use crate::bundle::{BundleError, UnverifiedBundle, VerifiedBundle};
use crate::error::Error;
use crate::text::safe;
use crate::trust::keyring::Keyring;

/// How many bundles of a folder are looked at, the newest: each is an open file. Years of weekly
/// bundles are fewer.
const MOST_BUNDLES: usize = 256;
/// How the folder for what was made whole begins.
pub(super) const SCRATCH: &str = "mended-";
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
    /// What was made whole from its parity, a sentence's end for each bundle.
    pub(super) mended: Vec<String>,
    /// What could not be, likewise.
    pub(super) not_mended: Vec<String>,
    /// Bundles that no trusted key signed, the first of them.
    pub(super) untrusted: Vec<BundleError>,
    mender: Option<Mender>,
    /// Why something could not be made whole for which there is enough parity: no fault of the bundle.
    hindered: Option<Error>,
}

/// What it takes to make a bundle whole.
struct Mender {
    there: Rc<Inputs>,
    keyring: Keyring,
    /// Where what was made lies as long as this lives.
    scratch: tempfile::TempDir,
}

impl Mender {
    /// Makes a bundle whole that is signed by a trusted key, where its parity is enough.
    fn mend(&self, key: &str) -> Result<Option<Mended>, Error> {
        let name = |path: &Path| self.scratch.path().join(path.file_name().unwrap_or_default());
        mend(&self.there, key, &self.keyring, &name)
    }
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
                Err((Some(index), Error::Bundle(error))) if self.mend(index, &error) => {}
                Err((Some(index), error @ Error::Bundle(_))) if self.bundles.len() > 1 => {
                    self.bundles.remove(index);
                    damaged.push(error);
                }
                Err((_, error @ Error::Bundle(_))) => return Err(self.hindered.take().unwrap_or(error)),
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// What parity makes of a bundle that is not whole, or turned out to be damaged.
    fn make_whole(&mut self, key: &str, error: &BundleError) -> Option<VerifiedBundle> {
        match self.mender.as_ref()?.mend(key) {
            Ok(mended) => {
                let mended = mended?;
                self.mended.push(mended.said(error));
                Some(mended.bundle)
            }
            Err(why) => {
                self.not_mended.push(safe(&why.to_string()));
                if matches!(why, Error::Destination { .. }) {
                    self.hindered.get_or_insert(why);
                }
                None
            }
        }
    }

    /// Puts what parity makes of it in the place of a bundle that turned out to be damaged. Once: what was
    /// made and is damaged is not made again.
    fn mend(&mut self, index: usize, error: &BundleError) -> bool {
        let (Some(mender), Some(bundle)) = (&self.mender, self.bundles.get(index)) else { return false };
        let made = bundle.path().starts_with(mender.scratch.path());
        let Some(key) = inputs::key(bundle.path()).filter(|_| !made) else { return false };
        let Some(whole) = self.make_whole(&key, error) else { return false };
        self.bundles[index] = whole;
        // It may be another bundle than the head said: a head was swapped.
        self.sort();
        true
    }

    /// The oldest first.
    fn sort(&mut self) {
        self.bundles.sort_by_key(|bundle| (bundle.payload().created, bundle.identity()));
    }
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

/// Opens what is there and checks signatures, payloads and lengths; the content is still to come. What parity
/// makes whole is written into the folder `scratch`, where there is one, and lies there as long as the result lives.
///
/// # Errors
/// For a single file whatever is wrong with it. For folders, where they hold no bundle that could be used.
pub(super) fn open(inputs: &[PathBuf], keyring: &Keyring, scratch: Option<&Path>) -> Result<Found, Error> {
    let mut there = Inputs::read(inputs)?;
    let mut found = Found { ignored: std::mem::take(&mut there.ignored), ..Found::default() };
    let there = Rc::new(there);
    let has_parity = there.with_parity().next().is_some();
    if let Some(scratch) = scratch.filter(|_| has_parity) {
        let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(scratch);
        let scratch = scratch.map_err(Error::unexpected("making a folder for what parity makes whole"))?;
        found.mender = Some(Mender { there: Rc::clone(&there), keyring: keyring.clone(), scratch });
    }
    let mut files = HashSet::new();
    let (mut older, mut unread) = (0, 0);
    for (key, error) in there.headless() {
        match found.make_whole(key, &error) {
            Some(bundle) => found.bundles.push(bundle),
            None => found.damaged.push(error),
        }
    }
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
        let whole = opened.and_then(|signed| there.complete(signed));
        let mended = |error: BundleError| {
            inputs::key(&path).and_then(|key| found.make_whole(&key, &error)).ok_or(error)
        };
        match whole.or_else(mended) {
            Ok(bundle) => {
                found.bundles.push(bundle);
                if found.bundles.len() > MOST_BUNDLES {
                    found.sort();
                    drop(found.bundles.remove(0));
                    older += 1;
                }
            }
            Err(error) if there.is_one_file => return Err(found.hindered.unwrap_or(error.into())),
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
                if found.untrusted.len() < MOST_IGNORED {
                    found.untrusted.push(error);
                }
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
        found.sort();
        found.ignored = some(found.ignored);
        found.warnings.truncate(MOST_IGNORED);
        return Ok(found);
    }
    match found.damaged.len() {
        0 => {}
        1 => return Err(found.hindered.unwrap_or(found.damaged.swap_remove(0).into())),
        _ => {
            found.ignored = some(found.ignored);
            return Ok(found);
        }
    }
    let untrusted = std::mem::take(&mut found.untrusted).into_iter().next();
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
