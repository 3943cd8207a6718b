//! The state: what this host accepted and exported before.
//!
//! Small JSON files in a folder of their own, written atomically. Never inside Trivy's cache,
//! which `trivy clean` deletes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::keyring::{private, private_to_owner};
use crate::dataset::Contents;
use crate::digest::Digest;
use crate::held_lock::HeldLock;

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
    /// After when what is in place must not be used any more, by reference name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expires: BTreeMap<String, Timestamp>,
    /// Bundles that were admitted against the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// When something was about to change of which the operator's command has not been told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_due: Option<Timestamp>,
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
    /// Where its exporter had it from.
    pub source: String,
    /// Upstream's version, where it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The trusted keys that signed the bundle, by the names that they had here.
    pub signers: Vec<String>,
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
}

/// A bundle that was admitted against the rules.
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
pub struct Heard {
    /// When it was made, by the exporter's clock.
    pub created: Timestamp,
    /// When it came, by this host's.
    pub received: Timestamp,
    /// What the export came to: `written`, `unchanged` or `failed`.
    pub export: String,
    /// The newest bundle that the exporter has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Accepted>,
}

/// What one stream's targets accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// The last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Heard>,
    /// By target, such as `cache:/var/cache/trivy`.
    pub targets: BTreeMap<String, TargetState>,
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
    /// It was to be put into a folder of `--drop`, and has not been yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_drop: bool,
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

/// The folder that holds the state. While it lives, no other run uses the same side of it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: HeldLock,
}

impl StateDir {
    /// Finds, makes and locks the folder: the one given, else `$STATE_DIRECTORY` (systemd's), else
    /// the XDG state directory's, else (root, or no home) [`SYSTEM_DIR`].
    ///
    /// # Errors
    /// Where none can be written, others can write it, or another run holds it for a minute.
    pub fn open(given: Option<&Path>, side: Side) -> Result<Self, TrustError> {
        let candidates = given.map_or_else(candidates, |path| vec![path.to_path_buf()]);
        for path in &candidates {
            // Nothing is opened in a folder that others could have prepared.
            if path.is_dir() {
                private(path)?;
            }
            match lock(path, side) {
                Ok(file) => {
                    private(path)?;
                    return Ok(StateDir { path: path.clone(), _lock: HeldLock::on(file) });
                }
                Err(e) if unwritable(&e) && given.is_none() => {}
                Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                    return Err(TrustError::StateHeld { path: path.clone() });
                }
                Err(error) => return Err(TrustError::File { path: path.clone(), error }),
            }
        }
        Err(TrustError::NoStateDir { tried: candidates })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was imported from a stream.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood.
    pub fn imports(&self, stream: &str) -> Result<ImportState, TrustError> {
        Ok(self.read("import", stream)?.unwrap_or_default())
    }

    /// Writes down what was imported from a stream.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save_imports(&self, stream: &str, state: &ImportState) -> Result<(), TrustError> {
        self.write("import", stream, state)
    }

    /// The last export of a stream.
    ///
    /// # Errors
    /// As for [`StateDir::imports`].
    pub fn exports(&self, stream: &str) -> Result<Option<ExportState>, TrustError> {
        self.read("export", stream)
    }

    /// Writes down the last export of a stream.
    ///
    /// # Errors
    /// As for [`StateDir::save_imports`].
    pub fn save_exports(&self, stream: &str, state: &ExportState) -> Result<(), TrustError> {
        self.write("export", stream, state)
    }

    fn file(&self, kind: &str, stream: &str) -> PathBuf {
        self.path.join(format!("{kind}-{stream}.json"))
    }

    fn read<T: DeserializeOwned>(&self, kind: &str, stream: &str) -> Result<Option<T>, TrustError> {
        let path = self.file(kind, stream);
        if path.exists() {
            private(&path)?;
        }
        StateView { path: self.path.clone() }.read(kind, stream)
    }

    fn write(&self, kind: &str, stream: &str, body: &impl Serialize) -> Result<(), TrustError> {
        let path = self.file(kind, stream);
        let document = Document { format: FORMAT, stream: stream.to_owned(), body };
        // One name for all: the lock keeps other runs out, and a killed run leaves one file at most.
        let new = self.path.join("new.tmp");
        let write = || -> std::io::Result<()> {
            let mut bytes = serde_json::to_vec_pretty(&document)?;
            bytes.push(b'\n');
            match fs::remove_file(&new) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            fs::File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| TrustError::File { path: path.clone(), error })
    }
}

/// A look at the state without its lock: files are replaced as a whole, so that each is one moment's.
#[derive(Debug)]
pub struct StateView {
    path: PathBuf,
}

impl StateView {
    /// Finds the folder, as [`StateDir::open`] would. `None` where there is none yet.
    ///
    /// # Errors
    /// Where others can write it.
    pub fn find(given: Option<&Path>) -> Result<Option<Self>, TrustError> {
        let candidates = given.map_or_else(candidates, |path| vec![path.to_path_buf()]);
        let Some(path) = candidates.into_iter().find(|path| path.is_dir()) else { return Ok(None) };
        private_to_owner(&path)?;
        Ok(Some(StateView { path }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The streams of which something is remembered, and whether of imports or of exports.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn streams(&self, side: Side) -> Result<Vec<String>, TrustError> {
        let kind = if side == Side::Export { "export-" } else { "import-" };
        let failed = |error| TrustError::File { path: self.path.clone(), error };
        let mut streams = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let stream = name.strip_prefix(kind).and_then(|rest| rest.strip_suffix(".json"));
            streams.extend(stream.map(str::to_owned));
        }
        streams.sort();
        Ok(streams)
    }

    /// As [`StateDir::imports`].
    ///
    /// # Errors
    /// As there.
    pub fn imports(&self, stream: &str) -> Result<ImportState, TrustError> {
        Ok(self.read("import", stream)?.unwrap_or_default())
    }

    /// As [`StateDir::exports`].
    ///
    /// # Errors
    /// As there.
    pub fn exports(&self, stream: &str) -> Result<Option<ExportState>, TrustError> {
        self.read("export", stream)
    }

    fn read<T: DeserializeOwned>(&self, kind: &str, stream: &str) -> Result<Option<T>, TrustError> {
        let path = self.path.join(format!("{kind}-{stream}.json"));
        let failed = |error| TrustError::File { path: path.clone(), error };
        let file = match fs::File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        private_to_owner(&path)?;
        let mut bytes = Vec::new();
        file.take(MAX_STATE).read_to_end(&mut bytes).map_err(failed)?;
        let bad = |why: String| TrustError::State { path: path.clone(), why };
        let document: Document<T> = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if document.format != FORMAT || document.stream != stream {
            return Err(bad(format!("it is of format {} and stream {:?}", document.format, document.stream)));
        }
        Ok(Some(document.body))
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

/// Makes the folder where it is missing and takes its lock, waiting up to a minute.
fn lock(path: &Path, side: Side) -> std::io::Result<fs::File> {
    const TRIES: u32 = 600;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path.join(side.lock()))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(100)),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::ResourceBusy.into())
}

fn unwritable(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn state_is_kept_by_stream_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
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
    fn damaged_or_foreign_state_is_an_error_and_never_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let open = StateDir::open(Some(dir.path()), Side::Import).unwrap();
        let file = dir.path().join("import-default.json");
        fs::write(&file, "{}").unwrap();
        assert!(matches!(open.imports("default"), Err(TrustError::State { .. })));
        fs::write(&file, r#"{"format":1,"stream":"other","targets":{}}"#).unwrap();
        assert!(matches!(open.imports("default"), Err(TrustError::State { .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(open.imports("default"), Err(TrustError::Writable { .. })));
    }

    #[test]
    fn a_folder_that_others_can_write_holds_no_state() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateDir::open(Some(dir.path()), Side::Import), Err(TrustError::Writable { .. })));
    }
}
