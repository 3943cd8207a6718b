//! The state: what this host accepted and exported before.
//!
//! It consists of small JSON files in a directory of their own, which are replaced as a whole. It is never
//! in Trivy's cache, because `trivy clean` deletes that.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dataset::{Contents, MissingItem};
use crate::digest::Digest;
use crate::trust::error::TrustError;
use crate::trust::export_log::ExportLog;
use crate::trust::log::Log;
use crate::util::dir::write::Durability;
use crate::util::dir::{Dir, DirEntry};
use crate::util::file_lock::HeldLock;
use crate::util::text::escape;
use crate::util::trusted::{TrustedUsers, WritableByOthers};

/// Where state lies for root, and where there is no home.
pub const SYSTEM_DIR: &str = "/var/lib/trivy-ferry";
/// The largest state file that is read, in bytes.
const MAX_STATE: u64 = 8 << 20;
/// The version of the files' form.
const FORMAT: u32 = 1;

/// What one target accepted from one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetState {
    /// The newest bundle that was accepted: the floor for the creation time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Accepted>,
    /// The identities of accepted bundles, oldest first.
    #[serde(default)]
    pub seen: Vec<Digest>,
    /// The number up to which was counted: that of the newest bundle, also where an older one was
    /// admitted after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// The sequence numbers that never came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<u64>,
    /// The newest date accepted of each dataset, by reference name.
    #[serde(default)]
    pub floors: BTreeMap<String, Timestamp>,
    /// Where what is in place came from, by reference name; empty where an older program wrote this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
    /// What others put in a dataset's place, by reference name: read once, since a database has no other date.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, OthersData>,
    /// The image tags that trivy-ferry set in a registry, by reference: `HOST/REPOSITORY:TAG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, SetTag>,
    /// After when what is in place must not be used any more, by reference name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expires: BTreeMap<String, Timestamp>,
    /// Bundles that were admitted against the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// When something was about to change of which the operator's command has not been told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_due: Option<Timestamp>,
    /// When a run last worked on the target, well or not, by this host's clock; none where an older program
    /// wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// The other targets of that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// How that run failed here, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When `forget` retired the target. The next run that works on it takes that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
    /// When the floors were reset, after a key was stolen: until something is accepted, what the target holds is no
    /// floor either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors_reset: Option<Timestamp>,
}

/// How a target failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Since when every run has failed there.
    pub since: Timestamp,
    /// When the last one did.
    pub at: Timestamp,
    /// What it said.
    pub why: String,
}

/// Where a dataset or an image came from, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The bundle that brought it: the sha256 of its signed payload.
    pub bundle: Digest,
    /// The digest of its manifest; none where an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The digests of a dataset's layers, which a registry has under whatever manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    /// What a dataset holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The name that the scanner here has for a VEX repository in a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Where a target has an image; none for a dataset, and where an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Where its exporter had it from.
    pub source: String,
    /// Upstream's version, where it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The trusted keys that signed the bundle, by the names that they had here.
    pub signers: Vec<String>,
}

/// Data at a target that no import of this host put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OthersData {
    /// The digest of its layer.
    pub layer: Digest,
    /// When it was built, as its content says.
    pub updated_at: Timestamp,
}

/// What trivy-ferry set an image tag to. Only a tag that still names it may be replaced without a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTag {
    /// The digest of the manifest that the tag was set to. It is written down before the push, so that a
    /// run that is killed after it still knows the tag.
    pub manifest: Digest,
    /// The digest that was set before; present only while a push is not known to have ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// The image that it was set for: another image does not inherit the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl SetTag {
    /// Whether a tag names what trivy-ferry set it to.
    pub fn is(&self, found: Digest) -> bool {
        self.manifest == found || self.before == Some(found)
    }
}

/// A bundle that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The sha256 of its signed payload.
    pub identity: Digest,
    /// When it was created.
    pub created: Timestamp,
    /// After when it must not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its number in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What its exporter was to carry and could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_items: Vec<MissingItem>,
}

/// A bundle that was admitted or signed against the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// When.
    pub at: Timestamp,
    /// Which bundle.
    pub identity: Digest,
    /// By which flags.
    pub flags: Vec<String>,
}

/// The last heartbeat of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedHeartbeat {
    /// When it was made, by the exporter's clock.
    pub created: Timestamp,
    /// When it came, by this host's.
    pub received: Timestamp,
    /// What the export came to: `written`, `unchanged` or `failed`.
    pub export: String,
    /// The newest bundle that the exporter has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Accepted>,
    /// What the export was to carry and could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingItem>,
}

/// What one stream's targets accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// The last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<ReceivedHeartbeat>,
    /// By target, such as `cache:/var/cache/trivy`.
    pub targets: BTreeMap<String, TargetState>,
}

/// How much a dataset held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSize {
    /// The bytes of its files.
    pub bytes: u64,
    /// Its entries, if they could be counted: buckets, artifacts, checks or packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// What the last export of a stream was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportState {
    /// The sha256 of the last payload.
    pub identity: Digest,
    /// Its creation time.
    pub created: Timestamp,
    /// Its number.
    pub sequence: u64,
    /// The newest date signed of each dataset, by reference name.
    pub floors: BTreeMap<String, Timestamp>,
    /// The manifests of all that it holds, by reference name; empty where an older program wrote this.
    #[serde(default)]
    pub manifests: BTreeMap<String, Digest>,
    /// How much each dataset held when it was signed last, by reference name; empty where an older program wrote this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, DatasetSize>,
    /// Bundles that were signed against the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// It was to be put into a folder of `--drop`, and has not been yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_drop: bool,
}

/// What tells a file of a newer version.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Document<T> {
    format: u32,
    stream: String,
    #[serde(flatten)]
    body: T,
}

/// Which half of the state a run works with. Each has a lock of its own: an export that takes an
/// hour keeps no import waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What was imported.
    Import,
    /// What was exported.
    Export,
    /// The turn of the operator's command after an import.
    Hook,
}

impl Side {
    fn lock(self) -> &'static str {
        match self {
            Side::Import => "import.lock",
            Side::Export => "export.lock",
            Side::Hook => "hook.lock",
        }
    }
}

/// The directory of the state, judged and open.
#[derive(Debug)]
struct Place {
    dir: Dir,
    trust: TrustedUsers,
    entry: DirEntry,
    /// What leads here and can be changed by others, for a user who is not root.
    warnings: Vec<WritableByOthers>,
}

impl Place {
    /// Opens a directory, and makes it if `make` is set. For root, what leads there must be as
    /// trustworthy as the directory: whoever can rename it can turn the next import into a first one.
    ///
    /// # Errors
    /// [`TrustError::Writable`] if another user can change the directory, or for root also what leads
    /// there; [`TrustError::File`] if it cannot be opened or made.
    fn open(path: &Path, make: bool) -> Result<Self, TrustError> {
        let failed = |error| TrustError::File { path: path.into(), error };
        let (dir, warnings) =
            TrustedUsers::own().with_groups().directory(path, make.then_some(0o700)).map_err(failed)?;
        let entry = dir.entry().map_err(failed)?;
        let trust =
            if make { TrustedUsers::own() } else { TrustedUsers::of_owner(entry.owner) }.with_groups();
        trust.judge(path, &entry)?;
        if rustix::process::geteuid().is_root()
            && let Some(untrusted) = warnings.first()
        {
            return Err(untrusted.clone().into());
        }
        Ok(Place { dir, trust, entry, warnings })
    }

    /// The mode of a new file. Those who share the directory may replace it.
    fn mode(&self) -> u32 {
        if self.trust.shares(&self.entry) { 0o660 } else { 0o600 }
    }

    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> TrustError {
        let path = self.dir.at(name);
        move |error| TrustError::File { path, error }
    }

    fn export_log(&self) -> Result<ExportLog, TrustError> {
        Ok(ExportLog::of(self.dir.try_clone().map_err(self.failed(""))?, self.mode()))
    }

    fn log(&self) -> Result<Log, TrustError> {
        Ok(Log::of(self.dir.try_clone().map_err(self.failed(""))?, self.mode()))
    }

    fn warnings(&self) -> Vec<String> {
        let text = |untrusted: &WritableByOthers| {
            format!(
                "others can change {untrusted}, which leads to the state: what this host accepted before can be taken away"
            )
        };
        self.warnings.iter().map(text).collect()
    }

    fn read<T: DeserializeOwned>(&self, kind: &str, stream: &str) -> Result<Option<T>, TrustError> {
        let name = file_name(kind, stream);
        let path = self.dir.at(&name);
        let Some(file) = self.dir.open_file(&name).map_err(self.failed(&name))? else { return Ok(None) };
        let entry = DirEntry::of_file(&file).map_err(self.failed(&name))?;
        self.trust.judge_in(&self.entry, &path, &entry)?;
        let mut bytes = Vec::new();
        file.take(MAX_STATE).read_to_end(&mut bytes).map_err(self.failed(&name))?;
        let bad = |why: String| TrustError::State { path: path.clone(), why };
        // The number first: what a newer version has changed need not look like anything that is known here.
        let head: Head = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if head.format > FORMAT {
            return Err(TrustError::NewerState { path, format: head.format, known: FORMAT });
        }
        let document: Document<T> = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if document.format != FORMAT || document.stream != stream {
            return Err(bad(format!(
                "it is of format {} and stream {:?}",
                document.format,
                escape(&document.stream)
            )));
        }
        Ok(Some(document.body))
    }

    fn write(&self, kind: &str, stream: &str, body: &impl Serialize) -> Result<(), TrustError> {
        let name = file_name(kind, stream);
        let document = Document { format: FORMAT, stream: stream.to_owned(), body };
        let write = || -> io::Result<()> {
            let mut bytes = serde_json::to_vec_pretty(&document)?;
            bytes.push(b'\n');
            self.dir.replace(&name, &bytes, self.mode(), None, Durability::Synced)
        };
        write().map_err(self.failed(&name))
    }
}

fn file_name(kind: &str, stream: &str) -> String {
    format!("{kind}-{stream}.json")
}

/// The directory that holds the state. While it lives, no other run uses the same side of it.
#[derive(Debug)]
pub struct StateDir {
    place: Place,
    _lock: HeldLock,
}

impl StateDir {
    /// Finds, makes and locks the directory: the one given, else `$STATE_DIRECTORY` (systemd's), else
    /// the XDG state directory's, else (root, or no home) [`SYSTEM_DIR`].
    ///
    /// # Errors
    /// [`TrustError::NoStateDir`] if no directory can be written; [`TrustError::Writable`] if another user
    /// can change it, or for root also what leads there; [`TrustError::StateHeld`] if another run holds it
    /// for a minute; [`TrustError::File`] if the given directory cannot be written, or the system does not
    /// lock it.
    pub fn open(given: Option<&Path>, side: Side) -> Result<Self, TrustError> {
        StateDir::open_telling(given, side, &|_| {})
    }

    /// As [`StateDir::open`]; `waits` is told the directory, once and at once, if another run holds it.
    ///
    /// # Errors
    /// As there.
    pub fn open_telling(given: Option<&Path>, side: Side, waits: &dyn Fn(&Path)) -> Result<Self, TrustError> {
        let candidates = given.map_or_else(candidates, |path| vec![path.to_path_buf()]);
        for path in &candidates {
            let locked = Place::open(path, true).and_then(|place| {
                let lock = lock(&place, side, waits).map_err(|error| match error.kind() {
                    io::ErrorKind::ResourceBusy => TrustError::StateHeld { path: path.clone() },
                    _ => TrustError::File { path: path.clone(), error },
                })?;
                Ok(StateDir { place, _lock: HeldLock::on(lock) })
            });
            match locked {
                Err(TrustError::File { error, .. }) if unwritable(&error) && given.is_none() => {}
                other => return other,
            }
        }
        Err(TrustError::NoStateDir { tried: candidates })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.place.dir.path()
    }

    /// What is worth a warning about the place of the state.
    pub fn warnings(&self) -> Vec<String> {
        self.place.warnings()
    }

    /// The log of imports that lies beside the state.
    ///
    /// # Errors
    /// [`TrustError::File`] if the system gives no further file descriptor.
    pub fn log(&self) -> Result<Log, TrustError> {
        self.place.log()
    }

    /// The log of exports that lies beside the state.
    ///
    /// # Errors
    /// [`TrustError::File`] if the system gives no further file descriptor.
    pub fn export_log(&self) -> Result<ExportLog, TrustError> {
        self.place.export_log()
    }

    /// What was imported from a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if another user can change
    /// it; [`TrustError::State`] if it is not a state of this stream.
    pub fn imports(&self, stream: &str) -> Result<ImportState, TrustError> {
        Ok(self.place.read(IMPORT, stream)?.unwrap_or_default())
    }

    /// Writes down what was imported from a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be written or synced.
    pub fn save_imports(&self, stream: &str, state: &ImportState) -> Result<(), TrustError> {
        self.place.write(IMPORT, stream, state)
    }

    /// The last export of a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if another user can change
    /// it; [`TrustError::State`] if it is not a state of this stream.
    pub fn exports(&self, stream: &str) -> Result<Option<ExportState>, TrustError> {
        self.place.read(EXPORT, stream)
    }

    /// Writes down the last export of a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be written or synced.
    pub fn save_exports(&self, stream: &str, state: &ExportState) -> Result<(), TrustError> {
        self.place.write(EXPORT, stream, state)
    }
}

const IMPORT: &str = "import";
const EXPORT: &str = "export";

/// A look at the state without its lock: files are replaced as a whole, so that each is one moment's.
#[derive(Debug)]
pub struct StateView {
    place: Place,
    /// The place that was looked at first, if there is none.
    instead_of: Option<PathBuf>,
}

impl StateView {
    /// Finds the directory, as [`StateDir::open`] would. `None` if there is none yet.
    ///
    /// # Errors
    /// [`TrustError::Writable`] if another user can change the directory, or for root also what leads
    /// there; [`TrustError::File`] if it cannot be opened.
    pub fn find(given: Option<&Path>) -> Result<Option<Self>, TrustError> {
        let candidates = given.map_or_else(candidates, |path| vec![path.to_path_buf()]);
        for path in &candidates {
            match Place::open(path, false) {
                Ok(place) => {
                    let instead_of = candidates.first().filter(|first| *first != path).cloned();
                    return Ok(Some(StateView { place, instead_of }));
                }
                Err(TrustError::File { error, .. }) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.place.dir.path()
    }

    /// What is worth a warning about the place of the state.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.place.warnings();
        warnings.extend(self.instead_of.as_ref().map(|first| {
            format!(
                "the state is read from {}, because there is no {}",
                self.path().display(),
                first.display()
            )
        }));
        warnings
    }

    /// As [`StateDir::log`].
    ///
    /// # Errors
    /// [`TrustError::File`] if the system gives no further file descriptor.
    pub fn log(&self) -> Result<Log, TrustError> {
        self.place.log()
    }

    /// The streams of which something is remembered, and whether of imports or of exports.
    ///
    /// # Errors
    /// [`TrustError::File`] if the directory cannot be listed.
    pub fn streams(&self, side: Side) -> Result<Vec<String>, TrustError> {
        let kind = if side == Side::Export { EXPORT } else { IMPORT };
        let names = self.place.dir.list().map_err(self.place.failed(""))?;
        let stream = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            let stream = name.strip_prefix(kind)?.strip_prefix('-')?.strip_suffix(".json");
            stream.map(str::to_owned)
        };
        let mut streams: Vec<String> = names.iter().filter_map(stream).collect();
        streams.sort();
        Ok(streams)
    }

    /// As [`StateDir::imports`].
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if another user can change
    /// it; [`TrustError::State`] if it is not a state of this stream.
    pub fn imports(&self, stream: &str) -> Result<ImportState, TrustError> {
        Ok(self.place.read(IMPORT, stream)?.unwrap_or_default())
    }

    /// As [`StateDir::exports`].
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if another user can change
    /// it; [`TrustError::State`] if it is not a state of this stream.
    pub fn exports(&self, stream: &str) -> Result<Option<ExportState>, TrustError> {
        self.place.read(EXPORT, stream)
    }
}

fn candidates() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut candidates = Vec::new();
    // systemd lists several folders separated by colons; the first is ours.
    if let Some(given) = variable("STATE_DIRECTORY").and_then(|list| std::env::split_paths(&list).next()) {
        candidates.push(given);
    }
    if !rustix::process::geteuid().is_root() {
        let home = || variable("HOME").map(|home| home.join(".local/state"));
        if let Some(xdg) = variable("XDG_STATE_HOME").or_else(home).filter(|dir| dir.is_absolute()) {
            candidates.push(xdg.join("trivy-ferry"));
        }
    } else if let Some(xdg) = variable("XDG_STATE_HOME").filter(|dir| dir.is_absolute()) {
        candidates.push(xdg.join("trivy-ferry"));
    }
    candidates.push(PathBuf::from(SYSTEM_DIR));
    candidates
}

/// What is said while another run holds the state.
pub(crate) fn waits_for(state: &Path) -> String {
    format!("Waiting for another run, which holds the state in {}, for up to 60 s …", state.display())
}

/// Takes the lock of one side, waiting up to a minute.
fn lock(place: &Place, side: Side, waits: &dyn Fn(&Path)) -> io::Result<File> {
    const TRIES: u32 = 600;
    // Open for writing, as NFS wants it for an exclusive lock.
    let (file, _) = place.dir.append(side.lock(), place.mode())?;
    for attempt in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                if attempt == 0 {
                    waits(place.dir.path());
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    is_missing(error) || matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn state_is_kept_by_stream_and_read_back() {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = dir.path().join("new/state");
        let mut state = ImportState::default();
        state.targets.entry("cache:/x".into()).or_default().seen.push(Digest::of(b"x"));
        {
            let open = StateDir::open(Some(&path), Side::Import).unwrap();
            assert_eq!(open.imports("default").unwrap(), ImportState::default());
            open.save_imports("default", &state).unwrap();
        }
        let open = StateDir::open(Some(&path), Side::Import).unwrap();
        assert_eq!(open.imports("default").unwrap(), state);
        assert_eq!(open.imports("other").unwrap(), ImportState::default());
        assert_eq!(open.exports("default").unwrap(), None);
    }

    #[test]
    fn what_a_tag_was_set_to_is_kept_and_older_files_have_none() {
        let dir = crate::util::fs::tempdir().unwrap();
        let open = StateDir::open(Some(dir.path()), Side::Import).unwrap();
        let file = dir.path().join("import-default.json");
        // As versions before `--image` wrote it.
        let digest = Digest::of(b"a");
        let older = format!(
            r#"{{"format":1,"stream":"default","targets":{{"registry:r/p":{{"seen":[],
            "floors":{{"image:a/b:1":"2026-11-21T09:00:00Z"}},
            "origins":{{"image:a/b:1":{{"bundle":"{digest}","manifest":"{digest}","source":"x","signers":[]}}}}}}}}}}"#
        );
        fs::write(&file, older).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut state = open.imports("default").unwrap();
        let target = state.targets.get_mut("registry:r/p").unwrap();
        assert!(target.images.is_empty() && target.origins["image:a/b:1"].reference.is_none());
        let set =
            SetTag { manifest: digest, before: Some(Digest::of(b"b")), image: Some("ghcr.io/a/b:1".into()) };
        assert!(set.is(digest) && set.is(Digest::of(b"b")) && !set.is(Digest::of(b"c")));
        target.images.insert("r/p/h/a/b:1".into(), set);
        open.save_imports("default", &state).unwrap();
        assert_eq!(open.imports("default").unwrap(), state);
    }

    #[test]
    fn damaged_or_foreign_state_is_an_error_and_never_a_fresh_start() {
        let dir = crate::util::fs::tempdir().unwrap();
        let open = StateDir::open(Some(dir.path()), Side::Import).unwrap();
        let file = dir.path().join("import-default.json");
        crate::util::fs::put(&file, "{}");
        assert!(matches!(open.imports("default"), Err(TrustError::State { .. })));
        crate::util::fs::put(&file, r#"{"format":1,"stream":"other","targets":{}}"#);
        assert!(matches!(open.imports("default"), Err(TrustError::State { .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(open.imports("default"), Err(TrustError::Writable { .. })));
    }

    #[test]
    fn a_directory_that_others_can_write_holds_no_state() {
        let dir = crate::util::fs::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateDir::open(Some(dir.path()), Side::Import), Err(TrustError::Writable { .. })));
    }
}
