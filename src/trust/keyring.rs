//! The keyring: the public keys that this host trusts, and the directories that hold them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::trust::error::TrustError;
use crate::trust::key::{KeyId, MAX_PEM, PublicKey};
use crate::util::dir::Dir;
use crate::util::dir::write::Durability;
use crate::util::fs::{self, Links, OpenError};
use crate::util::trusted::{self, TrustedFileError, TrustedUsers, WritableByOthers};

/// Where an administrator puts the keys that every user of this host trusts.
pub const SYSTEM_DIR: &str = "/etc/trivy-ferry/trusted";

/// One trusted key with the file that it came from.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// The file.
    pub path: PathBuf,
    /// The key.
    pub key: PublicKey,
}

impl TrustedKey {
    /// The file's name, as people call the key.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The set of keys of which one must have signed.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: Vec<TrustedKey>,
}

/// The folders that hold trusted keys, the first to be preferred for adding: the user's own, and
/// for root the system's.
pub fn directories() -> Vec<PathBuf> {
    let system = PathBuf::from(SYSTEM_DIR);
    let own = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| {
            std::env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(|home| PathBuf::from(home).join(".config"))
        })
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("trivy-ferry/trusted"));
    match own {
        Some(own) if rustix::process::geteuid().is_root() => vec![system, own],
        Some(own) => vec![own, system],
        None => vec![system],
    }
}

impl Keyring {
    /// The keys in these files, or where none are named, those in [`directories`].
    ///
    /// # Errors
    /// [`TrustError::NotAKey`] if a file is not a public key; [`TrustError::Writable`] if another user can
    /// change it, its directory or what leads there; [`TrustError::File`] if it cannot be read;
    /// [`TrustError::NoTrustedKeys`] if there is no key.
    pub fn load(files: &[PathBuf]) -> Result<Self, TrustError> {
        let looked_in = directories();
        let keyring =
            if files.is_empty() { Self::from_directories(&looked_in)? } else { Self::from_files(files)? };
        if keyring.keys.is_empty() { Err(TrustError::NoTrustedKeys { looked_in }) } else { Ok(keyring) }
    }

    /// One key that need not be in any file.
    pub fn of(key: &PublicKey) -> Self {
        Keyring { keys: vec![TrustedKey { path: PathBuf::new(), key: key.clone() }] }
    }

    /// The keys in these folders, which may be empty or missing.
    ///
    /// # Errors
    /// [`TrustError::NotAKey`] if a file is not a public key; [`TrustError::Writable`] if another user can
    /// change it, its directory or what leads there; [`TrustError::File`] if it cannot be read.
    pub fn from_directories(directories: &[PathBuf]) -> Result<Self, TrustError> {
        let mut files = Vec::new();
        for directory in directories {
            let failed = |error| TrustError::File { path: directory.clone(), error };
            let dir = match trusted_directory(directory, None) {
                Err(TrustError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let names = dir.list().map_err(failed)?;
            let keys =
                names.iter().map(Path::new).filter(|name| name.extension().is_some_and(|e| e == "pub"));
            files.extend(keys.map(|name| directory.join(name)));
        }
        files.sort();
        Self::from_files(&files)
    }

    fn from_files(files: &[PathBuf]) -> Result<Self, TrustError> {
        let keys = files
            .iter()
            .map(|path| {
                let file = trusted::open(path).map_err(|failed| not_opened(path, PUBLIC, failed))?;
                Ok(TrustedKey { path: path.clone(), key: parse(path, file)? })
            })
            .collect::<Result<_, TrustError>>()?;
        Ok(Keyring { keys })
    }

    /// The keys with their files.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter()
    }

    /// The keys alone.
    pub fn public_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().map(|trusted| &trusted.key)
    }

    /// The trusted key of this identity.
    pub fn find(&self, id: KeyId) -> Option<&TrustedKey> {
        self.keys.iter().find(|trusted| trusted.key.id() == id)
    }
}

/// What a file of a trusted key holds, in words.
const PUBLIC: &str = "an Ed25519 public key (PEM)";

/// Reads the file of a public key that is not trusted yet, wherever it lies and whoever can change it.
///
/// # Errors
/// [`TrustError::File`] if the file cannot be read; [`TrustError::NotAKey`] if it is not a regular file or
/// not a public key.
pub fn read(path: &Path) -> Result<PublicKey, TrustError> {
    match fs::open_regular(path, Links::Follow) {
        Ok(file) => parse(path, file),
        Err(OpenError::NotRegular(_)) => Err(not_opened(path, PUBLIC, TrustedFileError::NotAFile)),
        Err(OpenError::Io(error)) => Err(TrustError::File { path: path.into(), error }),
    }
}

fn parse(path: &Path, file: File) -> Result<PublicKey, TrustError> {
    let not = |why: String| TrustError::NotAKey { path: path.into(), wanted: PUBLIC, why };
    let mut text = String::new();
    file.take(MAX_PEM).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => not("it is not text".into()),
        _ => TrustError::File { path: path.into(), error },
    })?;
    PublicKey::from_pem(&text).map_err(not)
}

/// The error of a key's file that was not opened.
pub(crate) fn not_opened(path: &Path, wanted: &'static str, failed: TrustedFileError) -> TrustError {
    match failed {
        TrustedFileError::Untrusted(untrusted) => untrusted.into(),
        TrustedFileError::NotAFile => {
            let why = "it is not a regular file; name the key's file itself".into();
            TrustError::NotAKey { path: path.into(), wanted, why }
        }
        TrustedFileError::Io(error) => TrustError::File { path: path.into(), error },
    }
}

/// Opens a directory that holds keys. With `make`, a mode, it is made if it is missing.
fn trusted_directory(path: &Path, make: Option<u32>) -> Result<Dir, TrustError> {
    let failed = |error| TrustError::File { path: path.into(), error };
    let trust = TrustedUsers::own();
    let (dir, on_the_way) = trust.directory(path, make).map_err(failed)?;
    if let Some(untrusted) = on_the_way.into_iter().next() {
        return Err(untrusted.into());
    }
    trust.judge(path, &dir.entry().map_err(failed)?)?;
    Ok(dir)
}

/// Adds a key to a directory as `NAME.pub`.
///
/// # Errors
/// [`TrustError::Writable`] if another user can change the directory or what leads there;
/// [`TrustError::NameTaken`] if another key has that name; [`TrustError::File`] if the key cannot be
/// written.
pub fn add(directory: &Path, name: &str, key: &PublicKey) -> Result<PathBuf, TrustError> {
    let file_name = format!("{name}.pub");
    let path = directory.join(&file_name);
    let failed = |error| TrustError::File { path: path.clone(), error };
    let dir = trusted_directory(directory, Some(0o755))?;
    if read(&path).is_ok_and(|present| present == *key) {
        return Ok(path);
    }
    let written = dir.write_new(&file_name, key.to_pem().as_bytes(), 0o644, Durability::Synced);
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => TrustError::NameTaken { path: path.clone() },
        _ => failed(error),
    })?;
    Ok(path)
}

/// Removes the file of a trusted key.
///
/// # Errors
/// [`TrustError::Writable`] if another user can change the directory or what leads there;
/// [`TrustError::File`] if the file cannot be removed.
pub fn remove(key: &TrustedKey) -> Result<(), TrustError> {
    let failed = |error| TrustError::File { path: key.path.clone(), error };
    let directory = key.path.parent().unwrap_or(Path::new("."));
    let dir = trusted_directory(directory, None)?;
    dir.remove(key.path.file_name().unwrap_or_default()).and_then(|()| dir.sync()).map_err(failed)
}

impl From<WritableByOthers> for TrustError {
    fn from(untrusted: WritableByOthers) -> Self {
        let why = untrusted.why();
        TrustError::Writable { path: untrusted.path, why }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use std::fs;

    use super::*;
    use crate::trust::key::SigningKey;

    #[test]
    fn keys_are_added_once_and_found() {
        let dir = crate::util::fs::tempdir().unwrap();
        let trusted = dir.path().join("a/trusted");
        let (one, two) = (SigningKey::generate().unwrap().public(), SigningKey::generate().unwrap().public());
        let path = add(&trusted, "laptop", &one).unwrap();
        assert_eq!(add(&trusted, "laptop", &one).unwrap(), path, "adding again changes nothing");
        assert!(matches!(add(&trusted, "laptop", &two), Err(TrustError::NameTaken { .. })));
        let keyring = Keyring::from_directories(&[trusted, dir.path().join("missing")]).unwrap();
        assert_eq!(keyring.find(one.id()).unwrap().name(), "laptop.pub");
        assert!(keyring.find(two.id()).is_none());
    }

    #[test]
    fn a_key_that_others_can_change_is_no_key() {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = add(dir.path(), "k", &SigningKey::generate().unwrap().public()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = Keyring::load(&[path]).unwrap_err();
        assert!(matches!(error, TrustError::Writable { .. }), "{error}");
    }

    #[test]
    fn other_files_are_rejected_by_name() {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = dir.path().join("x.pub");
        crate::util::fs::put(&path, b"\xff\xfe not a key");
        assert!(Keyring::load(std::slice::from_ref(&path)).unwrap_err().to_string().contains("x.pub"));
        assert!(matches!(Keyring::load(&[dir.path().join("none")]), Err(TrustError::File { .. })));
    }
}
