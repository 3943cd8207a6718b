//! Opens the input of `verify`, `import` and `serve`: one bundle, or directories that hold bundles and their
//! volumes among other files. It checks signatures, payloads and lengths, and leaves the content to the caller.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::bundle::{BundleError, UnverifiedBundle, VerifiedBundle, volumes};
use crate::error::Error;
use crate::intake::file_sets;
use crate::intake::rebuild::SCRATCH;

use crate::intake::file_sets::{Inputs, why_skipped};
use crate::intake::rebuild::{Rebuilt, RebuiltBundle, rebuild_bundle};
use crate::intake::skipped::{SkippedFile, SkippedFiles};
use crate::trust::keyring::Keyring;
use crate::util::fs::tempdir_in;
use crate::util::text::{escape, format_count};

/// The limit of bundles, each of which is an open file. The newest are kept. The limit is higher
/// than 4 years of weekly bundles.
const MAX_BUNDLES: usize = 256;

/// The limit of bytes of all their manifests, which are in memory.
const MAX_MANIFESTS: u64 = 4 << 20;
/// The limit of damaged bundles with a trusted signature that are named.
const MAX_DAMAGED: usize = 100;
/// The limit of bundles without a trusted signature that are named.
const MAX_UNSIGNED: usize = 20;

/// The opened bundles, and the problems of the others.
#[derive(Default)]
pub(crate) struct OpenedBundles {
    /// Bundles that a trusted key signed, the oldest first.
    pub(crate) bundles: Vec<VerifiedBundle>,
    /// Skipped files.
    pub(crate) ignored: Vec<SkippedFile>,
    /// Warnings for the operator, for example about a bundle that no trusted key signed: it may be an expected one.
    pub(crate) warnings: Vec<String>,
    /// Errors for the operator: bundles that are damaged or unreadable.
    pub(crate) damaged: Vec<BundleError>,
    /// The bundles that were rebuilt from parity.
    pub(crate) rebuilt: Vec<Rebuilt>,
    /// The errors of the bundles that could not be rebuilt.
    pub(crate) not_rebuilt: Vec<String>,
    /// The first bundles that no trusted key signed.
    pub(crate) untrusted: Vec<BundleError>,
    /// The number of further bundles that no trusted key signed.
    pub(crate) more_untrusted: usize,
    rebuilder: Option<Rebuilder>,
    /// The error that prevented a rebuild although the parity is sufficient, such as a full disk.
    hindered: Option<Error>,
}

/// Rebuilds bundles of these inputs.
struct Rebuilder {
    there: Rc<Inputs>,
    keyring: Keyring,
    /// The directory for rebuilt files, which is removed with this value.
    scratch: tempfile::TempDir,
}

impl Rebuilder {
    /// Rebuilds a bundle that is signed by a trusted key, if its parity is sufficient.
    fn rebuild(&self, key: &str) -> Result<Option<RebuiltBundle>, Error> {
        let name = |path: &Path| self.scratch.path().join(path.file_name().unwrap_or_default());
        rebuild_bundle(&self.there, key, &self.keyring, &name)
    }
}

/// Returns the path of the bundle with this index, for an error.
pub(crate) fn path_of(bundles: &[VerifiedBundle], index: usize) -> PathBuf {
    bundles.get(index).map_or_else(PathBuf::new, |bundle| bundle.path().into())
}

/// An error, and the bundle that caused it.
pub(crate) struct Blame {
    /// The index of the bundle; `None` if no bundle caused it.
    bundle: Option<usize>,
    error: Error,
}

impl Blame {
    /// Returns a function that records the bundle with this index as the cause of an error.
    pub(crate) fn on<E: Into<Error>>(bundle: usize) -> impl Fn(E) -> Blame {
        move |error| Blame { bundle: Some(bundle), error: error.into() }
    }
}

/// Records no bundle as the cause of the error.
impl<E: Into<Error>> From<E> for Blame {
    fn from(error: E) -> Self {
        Blame { bundle: None, error: error.into() }
    }
}

impl OpenedBundles {
    /// Calls `attempt` with all bundles. If it reports damage in a bundle, the bundle is rebuilt or removed and
    /// `attempt` is called again, so that a damaged bundle does not block a good one. A failed attempt must leave no
    /// changes. Returns the errors of the removed bundles with the result.
    ///
    /// # Errors
    /// [`Error::Bundle`] if the only bundle is damaged; every other error of `attempt`.
    pub(crate) fn without_damaged<T>(
        &mut self,
        mut attempt: impl FnMut(&[VerifiedBundle]) -> Result<T, Blame>,
    ) -> Result<(T, Vec<Error>), Error> {
        let mut damaged = Vec::new();
        loop {
            match attempt(&self.bundles) {
                Ok(done) => return Ok((done, damaged)),
                Err(Blame { bundle: Some(index), error: Error::Bundle(error) })
                    if self.replace_by_rebuilt(index, &error) => {}
                Err(Blame { bundle: Some(index), error: error @ Error::Bundle(_) })
                    if self.bundles.len() > 1 =>
                {
                    self.bundles.remove(index);
                    damaged.push(error);
                }
                Err(Blame { error: error @ Error::Bundle(_), .. }) => {
                    return Err(self.hindered.take().unwrap_or(error));
                }
                Err(Blame { error, .. }) => return Err(error),
            }
        }
    }

    /// Rebuilds an incomplete or damaged bundle from its parity.
    fn rebuild(&mut self, key: &str, error: &BundleError) -> Option<VerifiedBundle> {
        match self.rebuilder.as_ref()?.rebuild(key) {
            Ok(rebuilt) => {
                let rebuilt = rebuilt?;
                self.rebuilt.push(rebuilt.rebuilt(error));
                Some(rebuilt.bundle)
            }
            Err(why) => {
                self.not_rebuilt.push(escape(&why.to_string()));
                if matches!(why, Error::Destination { .. }) {
                    self.hindered.get_or_insert(why);
                }
                None
            }
        }
    }

    /// Replaces a damaged bundle with the one that is rebuilt from its parity. A rebuilt bundle that is damaged is not
    /// rebuilt again.
    fn replace_by_rebuilt(&mut self, index: usize, error: &BundleError) -> bool {
        let (Some(rebuilder), Some(bundle)) = (&self.rebuilder, self.bundles.get(index)) else {
            return false;
        };
        let made = bundle.path().starts_with(rebuilder.scratch.path());
        let Some(key) = file_sets::key(bundle.path()).filter(|_| !made) else { return false };
        let Some(rebuilt) = self.rebuild(&key, error) else { return false };
        self.bundles[index] = rebuilt;
        // If the head was swapped, the rebuilt bundle is another one, with another date.
        self.sort();
        true
    }

    /// Sorts the bundles, the oldest first.
    fn sort(&mut self) {
        self.bundles.sort_by_key(|bundle| (bundle.payload().created, bundle.identity()));
    }
}

/// Whether a file has a name that `export` chose: `STREAM-YYYYMMDDthhmmssz.tar`, possibly with a suffix that a
/// browser added.
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

/// Opens the bundles in the inputs and checks signatures, payloads and lengths, but not the content. If `scratch`
/// is given, incomplete bundles are rebuilt in that directory. The result removes the rebuilt files when it is
/// dropped.
///
/// # Errors
/// [`Error::Bundle`] if the only file is damaged or not signed by a trusted key, or no bundle in the
/// directories is usable; [`Error::Usage`] if the inputs hold no bundle; [`Error::Destination`] if a rebuild
/// from parity fails because of the disk; [`Error::Unexpected`] if a directory cannot be read or created.
pub(crate) fn open(
    inputs: &[PathBuf],
    keyring: &Keyring,
    scratch: Option<&Path>,
) -> Result<OpenedBundles, Error> {
    let mut there = Inputs::read(inputs)?;
    let skipped = std::mem::take(&mut there.ignored);
    let there = Rc::new(there);
    let mut opener = BundleOpener { skipped, ..BundleOpener::new(Rc::clone(&there), keyring) };
    let has_parity = there.with_parity().next().is_some();
    if let Some(scratch) = scratch.filter(|_| has_parity) {
        let scratch = tempdir_in(scratch, SCRATCH);
        let scratch =
            scratch.map_err(Error::unexpected("creating a directory for files rebuilt from parity"))?;
        let rebuilder = Rebuilder { there: Rc::clone(&there), keyring: keyring.clone(), scratch };
        opener.found.rebuilder = Some(rebuilder);
    }
    // Complete bundles are opened first, because rebuilding the others may take a long time.
    let may_be_rebuilt =
        |path: &Path| has_parity && file_sets::key(path).is_some_and(|key| !there.parity(&key).is_empty());
    let (mut later, mut failed) = (Vec::new(), Vec::new());
    for path in &there.bundles {
        if opener.is_known(path) {
            continue;
        }
        match opener.open(path) {
            Ok(bundle) => opener.keep(bundle),
            Err(_) if may_be_rebuilt(path) => later.push(path),
            Err(error) => failed.push((path, error)),
        }
    }
    for path in later {
        match opener.open(path).or_else(|error| opener.rebuild(path, error)) {
            Ok(bundle) => opener.keep(bundle),
            Err(error) => failed.push((path, error)),
        }
    }
    // A file that is a renamed volume is not a bundle, even if its name ends in `.tar`.
    failed.retain(|(path, _)| !there.is_renamed_volume(path));
    for (path, error) in failed {
        opener.sort_out(path, error)?;
    }
    there.not_named().for_each(|file| opener.skipped.add(file));
    for (key, error) in there.headless() {
        match opener.found.rebuild(key, &error) {
            Some(bundle) => opener.keep(bundle),
            None => opener.damaged(error),
        }
    }
    opener.finish(inputs)
}

/// The state while bundles are opened. Its size is limited, even if the inputs hold many or large unsigned
/// files.
struct BundleOpener<'k> {
    there: Rc<Inputs>,
    keyring: &'k Keyring,
    found: OpenedBundles,
    skipped: SkippedFiles,
    /// Device and inode of the opened files that have several names.
    files: HashSet<(u64, u64)>,
    /// The number of bundles that were dropped for newer ones.
    older: usize,
    /// Damaged bundles that no trusted key signed.
    unsigned: Vec<BundleError>,
    /// The number of damaged bundles that are not named.
    uncounted: usize,
}

impl<'k> BundleOpener<'k> {
    fn new(there: Rc<Inputs>, keyring: &'k Keyring) -> Self {
        BundleOpener {
            there,
            keyring,
            found: OpenedBundles::default(),
            skipped: SkippedFiles::default(),
            files: HashSet::new(),
            older: 0,
            unsigned: Vec::new(),
            uncounted: 0,
        }
    }

    /// Whether a path is another name of a file that was opened already.
    fn is_known(&mut self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let known = fs::symlink_metadata(path)
            .is_ok_and(|m| m.is_file() && m.nlink() > 1 && !self.files.insert((m.dev(), m.ino())));
        if known {
            let why = "another name of a file that was read already".into();
            self.skipped.add(SkippedFile { name: shown(path), why });
        }
        known
    }

    fn open(&self, path: &Path) -> Result<VerifiedBundle, BundleError> {
        let signed = UnverifiedBundle::open(path)?.signed(self.keyring)?;
        self.there.complete(signed)
    }

    fn rebuild(&mut self, path: &Path, error: BundleError) -> Result<VerifiedBundle, BundleError> {
        file_sets::key(path).and_then(|key| self.found.rebuild(&key, &error)).ok_or(error)
    }

    /// Keeps a bundle. Drops the oldest if there are too many, or their manifests take too much memory.
    fn keep(&mut self, bundle: VerifiedBundle) {
        let bundles = &mut self.found.bundles;
        bundles.push(bundle);
        let manifests: u64 = bundles.iter().map(VerifiedBundle::capacity).sum();
        if bundles.len() > MAX_BUNDLES || (manifests > MAX_MANIFESTS && bundles.len() > 1) {
            self.found.sort();
            drop(self.found.bundles.remove(0));
            self.older += 1;
        }
    }

    /// Records a file that cannot be used.
    ///
    /// # Errors
    /// The given error, if the user named this file and nothing else.
    fn sort_out(&mut self, path: &Path, error: BundleError) -> Result<(), Error> {
        if self.there.is_one_file {
            return Err(self.found.hindered.take().unwrap_or(error.into()));
        }
        match error {
            // A file with the name of a bundle is most likely a damaged bundle.
            error @ BundleError::NotABundle { .. } if is_named_as_bundle(path) => self.damaged(error),
            error @ (BundleError::NotAFile { .. } | BundleError::NotABundle { .. }) => {
                self.skipped.add(skipped_file(path, &error));
            }
            error @ BundleError::Untrusted { .. } => self.untrusted(path, error),
            error => self.damaged(error),
        }
        Ok(())
    }

    fn untrusted(&mut self, path: &Path, error: BundleError) {
        let ignored = skipped_file(path, &error);
        if self.found.untrusted.len() < MAX_UNSIGNED {
            self.found.warnings.push(format!(
                "{} was skipped, because it is {}. If its exporter has a new key, trust that key with `trivy-ferry trust add`",
                ignored.name, ignored.why
            ));
            self.found.untrusted.push(error);
        } else {
            self.found.more_untrusted += 1;
        }
        self.skipped.add(ignored);
    }

    /// Records a damaged bundle. The limits are separate, so that unsigned files cannot displace signed bundles.
    fn damaged(&mut self, error: BundleError) {
        let (list, most) = match error.is_signed() {
            true => (&mut self.found.damaged, MAX_DAMAGED),
            false => (&mut self.unsigned, MAX_UNSIGNED),
        };
        match list.len() < most {
            true => list.push(error),
            false => self.uncounted += 1,
        }
    }

    fn finish(self, inputs: &[PathBuf]) -> Result<OpenedBundles, Error> {
        let BundleOpener { mut found, mut skipped, older, mut unsigned, uncounted, .. } = self;
        found.damaged.append(&mut unsigned);
        if found.more_untrusted > 0 {
            let more = format_count(found.more_untrusted, "more file");
            found.warnings.push(format!("no trusted key signed {more}"));
        }
        if uncounted > 0 {
            found.warnings.push(format!("the input has {}", format_count(uncounted, "more damaged bundle")));
        }
        if older > 0 {
            let why = format!("older than the {} newest bundles", found.bundles.len());
            skipped.add(SkippedFile { name: format_count(older, "bundle"), why });
        }
        if !found.bundles.is_empty() || found.damaged.len() > 1 {
            found.sort();
            found.ignored = skipped.remarks();
            return Ok(found);
        }
        if let Some(error) = found.damaged.pop() {
            return Err(found.hindered.unwrap_or(error.into()));
        }
        let untrusted = found.untrusted.into_iter().next();
        Err(untrusted.map_or_else(|| no_bundle(inputs, skipped), Error::from))
    }
}

fn skipped_file(path: &Path, error: &BundleError) -> SkippedFile {
    let name = shown(path);
    let why = error.to_string();
    let why = why.strip_prefix(&format!("{} is ", path.display())).unwrap_or(&why).to_owned();
    SkippedFile { name, why: escape(&why) }
}

fn shown(path: &Path) -> String {
    escape(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Returns the error for inputs without a bundle.
pub(crate) fn no_bundle(inputs: &[PathBuf], skipped: SkippedFiles) -> Error {
    if inputs.is_empty() {
        return Error::usage("no bundle was named", "Name a bundle, or a directory that holds bundles.");
    }
    let all = skipped.len();
    let some: Vec<String> =
        skipped.list().iter().take(3).map(|file| format!("{}: {}", file.name, file.why)).collect();
    let seen = match all {
        0 => "it is empty; is the medium mounted there?".to_owned(),
        1..=3 => some.join("; "),
        _ => format!("{}; and {} more", some.join("; "), all - 3),
    };
    let hint = match inputs.iter().find_map(|input| directory_with_bundles(input)) {
        Some(directory) => {
            format!("Name the directory {}, which holds files named .tar.", directory.display())
        }
        None => "Name the file that `trivy-ferry export` wrote, or the directory that holds it.".into(),
    };
    let inputs: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
    Error::usage(format!("there is no bundle in {} ({seen})", inputs.join(" and ")), hint)
}

/// Returns a subdirectory that holds bundles, such as `/media/usb` for `/media`.
fn directory_with_bundles(input: &Path) -> Option<PathBuf> {
    /// Enough entries for a directory of mount points.
    const MAX: usize = 100;
    let list =
        |directory: &Path| fs::read_dir(directory).into_iter().flatten().take(MAX).filter_map(Result::ok);
    let is_bundle = |entry: fs::DirEntry| why_skipped(&entry.file_name().to_string_lossy()).is_none();
    list(input)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .find(|directory| list(directory).any(is_bundle))
}

/// Returns a warning if a trusted key is on the same medium as the bundle: such a key proves nothing by itself.
pub(crate) fn beside(keyring: &Keyring, input: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let directory = if input.is_dir() { input } else { input.parent()? };
    let directory =
        if directory.as_os_str().is_empty() { Path::new(".") } else { directory }.canonicalize().ok()?;
    let device = directory.metadata().ok()?.dev();
    let root = Path::new("/").metadata().ok()?.dev();
    let close = |path: &Path| {
        let Ok(path) = path.canonicalize() else { return false };
        let same_medium = path.metadata().is_ok_and(|metadata| metadata.dev() == device) && device != root;
        same_medium || path.parent() == Some(&directory)
    };
    let key = keyring.iter().find(|key| close(&key.path))?;
    Some(format!(
        "the key {} came with the bundle and proves nothing by itself. Compare its fingerprint ({}) over another channel, then trust it with `trivy-ferry trust add`",
        key.path.display(),
        key.key.id()
    ))
}
