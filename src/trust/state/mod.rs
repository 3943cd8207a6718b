//! The state: the record of the bundles that this host accepted and exported before.
//!
//! It consists of small JSON files in their own directory, which are replaced atomically. It is never in Trivy's
//! cache, because `trivy clean` deletes that. This module does not depend on bundles, archives
//! or networks.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::trust::error::TrustError;
use crate::trust::export_log::ExportLog;
use crate::trust::log::Log;
use crate::util::dir::write::Durability;
use crate::util::dir::{Dir, DirEntry};
use crate::util::file_lock::HeldLock;
use crate::util::text::escape;
use crate::util::trusted::{TrustedUsers, WritableByOthers};

mod records;

pub use records::{
    Accepted, DatasetSize, ExportState, Failure, ImportState, KeptKey, Origin, OthersData, Override,
    ReceivedHeartbeat, SetTag, TargetState,
};

/// The state directory of root, and of users without a home.
pub const SYSTEM_DIR: &str = "/var/lib/trivy-ferry";
/// The largest state file that is read, in bytes.
const MAX_STATE: u64 = 8 << 20;
/// The format version of the files.
const FORMAT: u32 = 1;

/// The format version alone, which detects a file of a newer program.
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

/// The part of the state that a run uses. Each has its own lock, so that no import waits for a long export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The imports.
    Import,
    /// The exports.
    Export,
    /// The operator's command after an import.
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

/// The open state directory, whose permissions are checked.
#[derive(Debug)]
struct Place {
    dir: Dir,
    trust: TrustedUsers,
    entry: DirEntry,
    /// The directories above that are writable by others. For root, these are an error.
    warnings: Vec<WritableByOthers>,
}

impl Place {
    /// Opens a directory, and creates it if `make` is set. For root, the directories above must not be writable by
    /// others either: renaming the state directory would make the next import a first one.
    ///
    /// # Errors
    /// [`TrustError::Writable`] if the directory or, for root, one above it is writable by others;
    /// [`TrustError::File`] if it cannot be opened or created.
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

    /// The mode of a new file. The group that shares the directory may replace it.
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
                "{untrusted} is above the state directory and writable by others, who could remove the record of earlier imports; make it owned and writable only by root or yourself"
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
        // The version is parsed first: a newer format may have a form that does not parse here.
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
        let write = || -> io::Result<bool> {
            let mut bytes = serde_json::to_vec_pretty(&document)?;
            bytes.push(b'\n');
            // A file that is too large to be read again must not replace a readable one.
            if bytes.len() as u64 > MAX_STATE {
                return Ok(false);
            }
            self.dir.replace(&name, &bytes, self.mode(), None, Durability::Synced)?;
            Ok(true)
        };
        match write().map_err(self.failed(&name))? {
            true => Ok(()),
            false => Err(TrustError::StateFull { path: self.dir.at(&name), most: MAX_STATE }),
        }
    }
}

fn file_name(kind: &str, stream: &str) -> String {
    format!("{kind}-{stream}.json")
}

/// The locked state directory. While this value exists, no other run uses the same side of the state.
#[derive(Debug)]
pub struct StateDir {
    place: Place,
    /// The preferred directory, if it cannot be written.
    instead_of: Option<PathBuf>,
    _lock: HeldLock,
}

impl StateDir {
    /// Finds, creates and locks the directory: the given one, else `$STATE_DIRECTORY` (set by systemd), else the one in
    /// the XDG state directory, else (for root, or without a home) [`SYSTEM_DIR`].
    ///
    /// # Errors
    /// [`TrustError::NoStateDir`] if no directory can be written; [`TrustError::Writable`] if the directory or, for
    /// root, one above it is writable by others; [`TrustError::StateHeld`] if another run holds it for 60 s;
    /// [`TrustError::File`] if the given directory cannot be written or locked.
    pub fn open(given: Option<&Path>, side: Side) -> Result<Self, TrustError> {
        StateDir::open_telling(given, side, &|_| {})
    }

    /// Opens the directory as [`StateDir::open`] does, and calls `waits` with its path once if another run holds it.
    ///
    /// # Errors
    /// [`TrustError::NoStateDir`] if no directory can be written; [`TrustError::Writable`] if the directory or, for
    /// root, one above it is writable by others; [`TrustError::StateHeld`] if another run holds it for 60 s;
    /// [`TrustError::File`] if the given directory cannot be written or locked.
    pub fn open_telling(given: Option<&Path>, side: Side, waits: &dyn Fn(&Path)) -> Result<Self, TrustError> {
        let candidates = given.map_or_else(candidates, |path| vec![path.to_path_buf()]);
        for path in &candidates {
            let locked = Place::open(path, true).and_then(|place| {
                let lock = lock(&place, side, waits).map_err(|error| match error.kind() {
                    io::ErrorKind::ResourceBusy => TrustError::StateHeld { path: path.clone() },
                    _ => TrustError::File { path: path.clone(), error },
                })?;
                let instead_of = candidates.first().filter(|first| *first != path).cloned();
                Ok(StateDir { place, instead_of, _lock: HeldLock::on(lock) })
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

    /// Returns the warnings about the place of the state.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.place.warnings();
        warnings.extend(self.instead_of.as_ref().map(|first| {
            format!(
                "the state is kept in {}, because {} cannot be written",
                self.path().display(),
                first.display()
            )
        }));
        warnings
    }

    /// The log of imports in this directory.
    ///
    /// # Errors
    /// [`TrustError::File`] if the system has no free file descriptor.
    pub fn log(&self) -> Result<Log, TrustError> {
        self.place.log()
    }

    /// The log of exports in this directory.
    ///
    /// # Errors
    /// [`TrustError::File`] if the system has no free file descriptor.
    pub fn export_log(&self) -> Result<ExportLog, TrustError> {
        self.place.export_log()
    }

    /// Reads the record of imports from a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if it is writable by others;
    /// [`TrustError::State`] if it is not a state of this stream; [`TrustError::NewerState`] if a
    /// newer version of the program wrote it.
    pub fn imports(&self, stream: &str) -> Result<ImportState, TrustError> {
        Ok(self.place.read(IMPORT, stream)?.unwrap_or_default())
    }

    /// Saves the record of imports from a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be written or synced; [`TrustError::StateFull`] if it would be larger
    /// than the size limit.
    pub fn save_imports(&self, stream: &str, state: &ImportState) -> Result<(), TrustError> {
        self.place.write(IMPORT, stream, state)
    }

    /// Reads the last export of a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if it is writable by others;
    /// [`TrustError::State`] if it is not a state of this stream; [`TrustError::NewerState`] if a
    /// newer version of the program wrote it.
    pub fn exports(&self, stream: &str) -> Result<Option<ExportState>, TrustError> {
        self.place.read(EXPORT, stream)
    }

    /// Saves the last export of a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be written or synced; [`TrustError::StateFull`] if it would be larger
    /// than the size limit.
    pub fn save_exports(&self, stream: &str, state: &ExportState) -> Result<(), TrustError> {
        self.place.write(EXPORT, stream, state)
    }
}

const IMPORT: &str = "import";
const EXPORT: &str = "export";

/// Read access to the state without its lock. Files are replaced atomically, so each is consistent.
#[derive(Debug)]
pub struct StateView {
    place: Place,
    /// The preferred directory, if it does not exist.
    instead_of: Option<PathBuf>,
}

impl StateView {
    /// Finds the directory as [`StateDir::open`] does. `None` if there is none yet.
    ///
    /// # Errors
    /// [`TrustError::Writable`] if the directory or, for root, one above it is writable by others;
    /// [`TrustError::File`] if it cannot be opened.
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

    /// Returns the warnings about the place of the state.
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

    /// The log of imports in this directory.
    ///
    /// # Errors
    /// [`TrustError::File`] if the system has no free file descriptor.
    pub fn log(&self) -> Result<Log, TrustError> {
        self.place.log()
    }

    /// Returns the streams that have a state of this side.
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

    /// Reads the record of imports from a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if it is writable by others;
    /// [`TrustError::State`] if it is not a state of this stream; [`TrustError::NewerState`] if a
    /// newer version of the program wrote it.
    pub fn imports(&self, stream: &str) -> Result<ImportState, TrustError> {
        Ok(self.place.read(IMPORT, stream)?.unwrap_or_default())
    }

    /// Reads the last export of a stream.
    ///
    /// # Errors
    /// [`TrustError::File`] if the file cannot be read; [`TrustError::Writable`] if it is writable by others;
    /// [`TrustError::State`] if it is not a state of this stream; [`TrustError::NewerState`] if a
    /// newer version of the program wrote it.
    pub fn exports(&self, stream: &str) -> Result<Option<ExportState>, TrustError> {
        self.place.read(EXPORT, stream)
    }
}

fn candidates() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut candidates = Vec::new();
    // systemd lists several directories separated by colons. The first is for the state.
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

/// Returns the message that is shown while another run holds the state.
pub(crate) fn waits_for(state: &Path) -> String {
    format!("Waiting for another run, which holds the state in {}, for up to 60 s …", state.display())
}

/// Takes the lock of one side, waiting up to 60 s.
fn lock(place: &Place, side: Side, waits: &dyn Fn(&Path)) -> io::Result<File> {
    const TRIES: u32 = 600;
    // For an exclusive lock, NFS requires a file that is open for writing.
    let (file, _) = place.dir.append(side.lock(), place.mode())?;
    for attempt in 0..TRIES {
        match file.try_lock() {
            Ok(()) => {
                log::debug!("locked {}", place.dir.at(side.lock()).display());
                return Ok(file);
            }
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
    use crate::digest::Digest;

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
    fn a_state_that_could_not_be_read_again_is_not_written() {
        let dir = crate::util::fs::tempdir().unwrap();
        let open = StateDir::open(Some(dir.path()), Side::Import).unwrap();
        let mut state = ImportState::default();
        state.targets.entry("cache:/x".into()).or_default().seen.push(Digest::of(b"x"));
        open.save_imports("default", &state).unwrap();
        let mut large = state.clone();
        large.targets.entry("cache:/y".into()).or_default().beside = vec!["z".repeat(1000); 8400];
        let error = open.save_imports("default", &large).unwrap_err();
        assert!(matches!(error, TrustError::StateFull { .. }), "{error}");
        assert_eq!(open.imports("default").unwrap(), state, "the file is as it was");
    }

    #[test]
    fn the_manifest_of_a_set_tag_is_kept_and_older_files_have_none() {
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
    fn a_state_directory_that_is_writable_by_others_is_rejected() {
        let dir = crate::util::fs::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateDir::open(Some(dir.path()), Side::Import), Err(TrustError::Writable { .. })));
    }
}
