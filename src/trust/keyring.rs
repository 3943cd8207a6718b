//! The keyring: the public keys that this host trusts, and where they lie.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::error::TrustError;
use super::key::{KeyId, MAX_PEM, PublicKey};

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
    /// A file that is no public key or that others can change, and a keyring that stays empty.
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
    /// As for [`Keyring::load`], an empty keyring excepted.
    pub fn from_directories(directories: &[PathBuf]) -> Result<Self, TrustError> {
        let mut files = Vec::new();
        for directory in directories {
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(TrustError::File { path: directory.clone(), error }),
            };
            private(directory)?;
            for entry in entries {
                let path = entry.map_err(|error| TrustError::File { path: directory.clone(), error })?.path();
                if path.extension().is_some_and(|extension| extension == "pub") {
                    files.push(path);
                }
            }
        }
        files.sort();
        Self::from_files(&files)
    }

    fn from_files(files: &[PathBuf]) -> Result<Self, TrustError> {
        let keys = files
            .iter()
            .map(|path| {
                private(path)?;
                Ok(TrustedKey { path: path.clone(), key: read(path)? })
            })
            .collect::<Result<_, _>>()?;
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

/// Reads a public key's file.
///
/// # Errors
/// Where there is none, or where it holds something else.
pub fn read(path: &Path) -> Result<PublicKey, TrustError> {
    let not =
        |why: String| TrustError::NotAKey { path: path.into(), wanted: "an Ed25519 public key (PEM)", why };
    let file = |error| TrustError::File { path: path.into(), error };
    let mut text = String::new();
    // A FIFO would keep us waiting for its other end.
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let reader = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(file)?;
    if !reader.metadata().map_err(file)?.is_file() {
        return Err(not("it is not a regular file; name the .pub file itself".into()));
    }
    reader.take(MAX_PEM).read_to_string(&mut text).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => not("it is not text".into()),
        _ => file(e),
    })?;
    PublicKey::from_pem(&text).map_err(not)
}

/// Adds a key to a folder as `NAME.pub`.
///
/// # Errors
/// Where the folder cannot be written, or another key has that name.
pub fn add(directory: &Path, name: &str, key: &PublicKey) -> Result<PathBuf, TrustError> {
    let path = directory.join(format!("{name}.pub"));
    let file = |error| TrustError::File { path: path.clone(), error };
    fs::create_dir_all(directory).map_err(file)?;
    private(directory)?;
    if read(&path).is_ok_and(|present| present == *key) {
        return Ok(path);
    }
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
    let mut writer = match opened {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(TrustError::NameTaken { path });
        }
        other => other.map_err(file)?,
    };
    writer.write_all(key.to_pem().as_bytes()).and_then(|()| writer.sync_all()).map_err(file)?;
    Ok(path)
}

/// Nothing may rest on what another user can change.
pub(super) fn private(path: &Path) -> Result<(), TrustError> {
    let owners = [0, rustix::process::geteuid().as_raw()];
    private_to(path, &owners)
}

/// The same for who only looks: root may look at what belongs to another user alone.
pub(super) fn private_to_owner(path: &Path) -> Result<(), TrustError> {
    let me = rustix::process::geteuid().as_raw();
    let owner = fs::metadata(path).map_or(0, |metadata| metadata.uid());
    private_to(path, &[0, if me == 0 { owner } else { me }])
}

fn private_to(path: &Path, owners: &[u32]) -> Result<(), TrustError> {
    let metadata = fs::metadata(path).map_err(|error| TrustError::File { path: path.into(), error })?;
    // A group of one's own, with the user's number, is what many systems give every user. Any other
    // may have members.
    let own_group = owners.contains(&metadata.gid());
    let forbidden = if own_group { 0o002 } else { 0o022 };
    let why = if metadata.mode() & forbidden != 0 {
        format!("mode {:04o}", metadata.mode() & 0o7777)
    } else if !owners.contains(&metadata.uid()) {
        format!("owned by user {}", metadata.uid())
    } else {
        return Ok(());
    };
    Err(TrustError::Writable { path: path.into(), why })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::key::SigningKey;
    use super::*;

    #[test]
    fn keys_are_added_once_and_found() {
        let dir = tempfile::tempdir().unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        let path = add(dir.path(), "k", &SigningKey::generate().unwrap().public()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = Keyring::load(&[path]).unwrap_err();
        assert!(matches!(error, TrustError::Writable { .. }), "{error}");
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pub");
        fs::write(&path, b"\xff\xfe not a key").unwrap();
        assert!(Keyring::load(std::slice::from_ref(&path)).unwrap_err().to_string().contains("x.pub"));
        assert!(matches!(Keyring::load(&[dir.path().join("none")]), Err(TrustError::File { .. })));
    }
}
