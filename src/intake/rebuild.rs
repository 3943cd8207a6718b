//! Rebuilds a bundle from its parity. The result is accepted only if a trusted key signed it. The caller
//! compares its content with the signed digests.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::bundle::names::default_name;
use crate::bundle::parity::{self, ParityFile, RebuildError};
use crate::bundle::volumes::{self, VolumeNumber};
use crate::bundle::{BundleError, UnverifiedBundle, VerifiedBundle, open_regular};
use crate::error::Error;
use crate::intake::file_sets::{Inputs, key};
use crate::intake::namesakes;
use crate::trust::keyring::Keyring;
use crate::util::fs::{self, Links, free};
use crate::util::text::escape;

/// The limit of different parities that are tried for one bundle. More than one is an attack or a mix-up.
const MAX_KINDS: usize = 4;

/// A rebuilt bundle. Its content is not verified yet.
pub(crate) struct RebuiltBundle {
    /// The bundle.
    pub(crate) bundle: VerifiedBundle,
    /// Its rebuilt files: their paths, and the paths of the files that they replace.
    pub(crate) made: Vec<(PathBuf, PathBuf)>,
    /// The number of bad shards.
    pub(crate) shards: usize,
}

/// Files that were rebuilt from parity, and the reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The names of the files.
    pub files: Vec<String>,
    /// The error that made the rebuild necessary.
    pub error: String,
}

impl fmt::Display for Rebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let were = if self.files.len() == 1 { "was" } else { "were" };
        write!(f, "{} {were} rebuilt from parity: {}", escape(&self.files.join(", ")), escape(&self.error))
    }
}

impl RebuiltBundle {
    /// Describes the rebuilt files. `error` is the reason for the rebuild.
    pub(crate) fn rebuilt(&self, error: &BundleError) -> Rebuilt {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Rebuilt { files: self.made.iter().map(|(_, of)| name(of)).collect(), error: error.to_string() }
    }
}

/// Rebuilds a bundle. `place` returns the path for the file that replaces the one at the given path; an existing
/// file at that path is removed. `None` if there is no parity, or nothing to rebuild.
///
/// # Errors
/// [`BundleError::BeyondParity`] if the parity is not sufficient, or claims more than the disk can hold;
/// another [`Error::Bundle`] if no trusted key signed the rebuilt bundle; [`Error::Destination`] if
/// the disk fails or is full.
pub(crate) fn rebuild_bundle(
    there: &Inputs,
    of: &str,
    keyring: &Keyring,
    place: &dyn Fn(&Path) -> PathBuf,
) -> Result<Option<RebuiltBundle>, Error> {
    let mut kinds: Vec<Vec<ParityFile>> = Vec::new();
    for path in there.parity(of).iter().filter(|path| !is_hollow(path)) {
        let Ok(file) = ParityFile::open(path) else { continue };
        match kinds.iter().position(|kind| kind[0].is_of(&file)) {
            Some(kind) => kinds[kind].push(file),
            None if kinds.len() < MAX_KINDS => kinds.push(vec![file]),
            None => {}
        }
    }
    // If several were mixed up, the one with the most files is most likely the right one.
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.len()));
    let mut failed = None;
    for kind in &kinds {
        match from(there, of, kind, keyring, place) {
            Ok(rebuilt) => return Ok(rebuilt),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

fn from(
    there: &Inputs,
    of: &str,
    parity: &[ParityFile],
    keyring: &Keyring,
    place: &dyn Fn(&Path) -> PathBuf,
) -> Result<Option<RebuiltBundle>, Error> {
    let remains = Remains::find(there, of, keyring, &parity[0]);
    let mut making = Making { remains: &remains, place, made: Vec::new(), claimed: 0 };
    let rebuilt = parity::rebuild(parity, &remains.open(), &mut |index| making.create(index));
    let mut made = making.made;
    let rebuilt = rebuilt.map_err(|failed| {
        remove(&made);
        remains.failed(failed, made.last())
    })?;
    // If a signature was added after the export, the rebuilt head differs only in its signatures. Keep the newer one.
    if let (Some(Some(head)), Some(first)) = (remains.found.first(), made.first())
        && first.index == 0
        && is_newer_head(head, &first.path, keyring)
    {
        remove(&made[..1]);
        made.remove(0);
    }
    if made.is_empty() {
        return Ok(None);
    }
    let bundle = remains.completed(&made, keyring).inspect_err(|_| remove(&made))?;
    let made = made.into_iter().map(|made| (made.path, made.stands_for)).collect();
    Ok(Some(RebuiltBundle { bundle, made, shards: rebuilt.shards }))
}

/// The existing files of a bundle that has parity.
struct Remains<'a> {
    /// Its files in order; `None` for missing ones.
    found: Vec<Option<PathBuf>>,
    /// Whether a trusted key has signed the lengths of the files.
    is_trusted: bool,
    parity: &'a ParityFile,
}

impl<'a> Remains<'a> {
    fn find(there: &Inputs, of: &str, keyring: &Keyring, parity: &'a ParityFile) -> Self {
        let lengths = parity.shape().files();
        if let Some(found) = there.trusted_files(of, keyring, lengths) {
            return Remains { found, is_trusted: true, parity };
        }
        let mut found = there.files(of, lengths);
        found.iter_mut().for_each(|file| drop(file.take_if(|file| is_hollow(file))));
        Remains { found, is_trusted: false, parity }
    }

    fn open(&self) -> Vec<Option<File>> {
        let open = |path: &PathBuf| open_regular(path).ok().map(|(file, _)| file);
        self.found.iter().map(|path| path.as_ref().and_then(open)).collect()
    }

    /// Returns the path of a file. For a missing one, returns the path that it would have beside the parity.
    fn path(&self, index: usize) -> Option<PathBuf> {
        self.found[index].clone().or_else(|| self.beside(index))
    }

    fn beside(&self, index: usize) -> Option<PathBuf> {
        let beside = self.parity.path();
        let name = beside.file_name()?.to_string_lossy();
        // If the parity was renamed, the file gets the name that an export gives it.
        let exported = || {
            let head = UnverifiedBundle::open(self.found.first()?.as_ref()?).ok()?;
            let payload = head.claims().ok()?;
            Some(default_name(payload.stream.as_str(), payload.created))
        };
        let bundle = parity::parse_name(&name).or_else(exported).unwrap_or_else(|| format!("{name}.tar"));
        let number = index.checked_sub(1).map_or(Some(VolumeNumber::HEAD), VolumeNumber::at)?;
        let name = if self.found.len() == 1 { bundle } else { volumes::name(&bundle, number) };
        Some(beside.with_file_name(name))
    }

    /// Opens the bundle with the rebuilt files in place of the bad or missing ones.
    fn completed(&self, made: &[Made], keyring: &Keyring) -> Result<VerifiedBundle, BundleError> {
        let path = |index: usize| {
            let made = made.iter().find(|made| made.index == index).map(|made| made.path.clone());
            made.or_else(|| self.found.get(index).cloned().flatten())
        };
        let head = path(0).unwrap_or_default();
        let signed = UnverifiedBundle::open(&head)?.signed(keyring)?;
        signed.with_volumes(&|number| path(number.index()? + 1))
    }

    /// Returns the error for a failed rebuild. `last` is the file that was begun last.
    fn failed(&self, failed: RebuildError, last: Option<&Made>) -> Error {
        let path = self.found.iter().flatten().next().cloned().or_else(|| self.beside(0)).unwrap_or_default();
        match failed {
            RebuildError::TooMuch { .. } => {
                BundleError::BeyondParity { path, why: failed.to_string() }.into()
            }
            // An unsigned parity file that claims too much is a fault of the parity, not of the disk.
            RebuildError::Io(error) if !self.is_trusted && error.kind() == io::ErrorKind::StorageFull => {
                let why = "its parity claims more bytes than the disk has room for".into();
                BundleError::BeyondParity { path, why }.into()
            }
            RebuildError::Io(error) => {
                let (at, of) = last.map_or((&path, &path), |last| (&last.path, &last.stands_for));
                let directory = at.ancestors().skip(1).find(|directory| !is_scratch(directory)).unwrap_or(at);
                let name = of.file_name().unwrap_or_default().to_string_lossy();
                Error::Destination {
                    path: directory.to_path_buf(),
                    what: format!("{} cannot be rebuilt there: {error}", escape(&name)),
                    hint: "Free space there, or copy the missing or damaged volumes again.".into(),
                }
            }
        }
    }
}

/// Creates the files that are rebuilt.
struct Making<'a> {
    remains: &'a Remains<'a>,
    place: &'a dyn Fn(&Path) -> PathBuf,
    made: Vec<Made>,
    /// The sum of their lengths, as the parity claims them.
    claimed: u64,
}

/// A file that was rebuilt, or begun.
struct Made {
    index: usize,
    path: PathBuf,
    /// The path of the file that it replaces.
    stands_for: PathBuf,
}

impl Making<'_> {
    fn create(&mut self, index: usize) -> io::Result<File> {
        let stands_for = self.remains.path(index).ok_or(io::ErrorKind::InvalidInput)?;
        let path = (self.place)(&stands_for);
        let _ = fs::remove_file(&path);
        self.made.push(Made { index, path: path.clone(), stands_for });
        self.claimed = self.remains.parity.shape().files()[index].saturating_add(self.claimed);
        let free = free(path.parent().unwrap_or(Path::new(".")))?;
        // Lengths that only the parity claims may be forged, so they must not fill the disk.
        if self.claimed > if self.remains.is_trusted { free } else { free / 2 } {
            return Err(io::ErrorKind::StorageFull.into());
        }
        fs::create_new(&path, 0o644)
    }
}

fn remove(made: &[Made]) {
    made.iter().for_each(|made| drop(fs::remove_file(&made.path)));
}

/// Whether a directory is a temporary one of this run, whose name would not help the user.
fn is_scratch(directory: &Path) -> bool {
    directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH))
}

/// Whether the file is sparse. Such a file takes no space on the disk but may take hours to read.
fn is_hollow(path: &Path) -> bool {
    open_regular(path).is_ok_and(|(file, length)| namesakes::is_hollow(&file, length))
}

/// Whether both heads are signed by trusted keys and have the same payload and the same bytes after the manifest.
fn is_newer_head(head: &Path, other: &Path, keyring: &Keyring) -> bool {
    let signed = |path: &Path| UnverifiedBundle::open(path).and_then(|bundle| bundle.signed(keyring)).ok();
    let (Some(one), Some(two)) = (signed(head), signed(other)) else { return false };
    let same = || -> std::io::Result<bool> {
        let open = |path| fs::open_regular(path, Links::Refuse);
        let (one, two) = (open(head)?, open(other)?);
        let (mut at, length) = (signed(head).map_or(0, |bundle| bundle.start()), two.metadata()?.len());
        let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        while at < length {
            let count = left.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
            one.read_exact_at(&mut left[..count], at)?;
            two.read_exact_at(&mut right[..count], at)?;
            if left[..count] != right[..count] {
                return Ok(false);
            }
            at += count as u64;
        }
        Ok(one.metadata()?.len() == length)
    };
    one.payload() == two.payload() && same().unwrap_or(false)
}

/// Returns the path that messages name for a bundle, which may be that of its parity.
pub(crate) fn shown(there: &Inputs, of: &str) -> PathBuf {
    let same = |path: &&PathBuf| key(path).as_deref() == Some(of);
    let first = there.bundles.iter().find(same).or(there.parity(of).first());
    first.cloned().unwrap_or_default()
}

/// The prefix of the directory for rebuilt files.
pub(crate) const SCRATCH: &str = "mended-";
