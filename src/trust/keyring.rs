//! The keyring: the public keys that this host trusts, and the directories that hold them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::trust::error::TrustError;
use crate::trust::key::{KeyId, MAX_PEM, PublicKey};
use crate::util::dir::Dir;
use crate::util::dir::write::Durability;
use crate::util::fs::{self, Links, OpenError};
use crate::util::text::escape;
use crate::util::trusted::{self, TrustedFileError, TrustedUsers, WritableByOthers};

/// The directory of the keys that every user of this host trusts.
pub const SYSTEM_DIR: &str = "/etc/trivy-ferry/trusted";

/// One trusted key with the file that it came from.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// The file.
    pub path: PathBuf,
    /// The key.
    pub key: PublicKey,
    /// The streams that it is trusted for; `None` for all.
    pub streams: Option<Vec<String>>,
}

impl TrustedKey {
    /// The file name, which is also the name of the key.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn is_for(&self, stream: &str) -> bool {
        self.streams.as_ref().is_none_or(|streams| streams.iter().any(|name| name == stream))
    }

    /// Its name and its streams, for messages; `None` if it is trusted for all.
    fn limit(&self) -> Option<String> {
        let streams = escape(&self.streams.as_ref()?.join(", "));
        Some(format!("{} (trusted only for stream {streams})", escape(&self.name())))
    }
}

/// The trusted keys, and the number of them that must have signed a bundle.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: Vec<TrustedKey>,
    /// The number of different keys that must have signed; 0 means 1.
    min_signers: u32,
}

/// Returns the directories that hold trusted keys. Keys are added to the first: the user's own or, for root, the
/// system's.
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
    /// Reads the keys in these files or, if none are named, those in [`directories`].
    ///
    /// # Errors
    /// [`TrustError::NotAKey`] if a file is not a public key; [`TrustError::Writable`] if the file or a directory above
    /// it is writable by others; [`TrustError::File`] if it cannot be read;
    /// [`TrustError::NotANumber`] if the minimum number of signers of a directory is invalid;
    /// [`TrustError::NoTrustedKeys`] if there is no key.
    pub fn load(files: &[PathBuf]) -> Result<Self, TrustError> {
        let looked_in = directories();
        let keyring =
            if files.is_empty() { Self::from_directories(&looked_in)? } else { Self::from_files(files)? };
        if keyring.keys.is_empty() { Err(TrustError::NoTrustedKeys { looked_in }) } else { Ok(keyring) }
    }

    /// Returns the keyring with this minimum number of signers, or with that of the file beside the keys if it is
    /// higher. Only keys that are trusted for the stream count; if the stream is unknown, the keys
    /// of the stream with most keys count.
    ///
    /// # Errors
    /// [`TrustError::FewKeys`] if fewer keys are trusted.
    pub fn requiring(mut self, min_signers: Option<u32>, stream: Option<&str>) -> Result<Self, TrustError> {
        self.min_signers = self.min_signers.max(min_signers.unwrap_or(0));
        let wanted = self.min_signers();
        // With a single required signer, the bundle's own stream is checked later, with a clearer error.
        let stream = stream.filter(|_| wanted > 1);
        let have = match stream {
            Some(stream) => self.count_for(stream),
            None => {
                let named = self.keys.iter().filter_map(|trusted| trusted.streams.as_ref()).flatten();
                // No stream has an empty name, so only keys without a limit count for it.
                named.map(String::as_str).chain([""]).map(|name| self.count_for(name)).max().unwrap_or(0)
            }
        };
        if have < wanted as usize {
            let is_other = |trusted: &&TrustedKey| stream.is_none_or(|stream| !trusted.is_for(stream));
            let limited = self.keys.iter().filter(is_other).filter_map(TrustedKey::limit).collect();
            let stream = stream.map(str::to_owned);
            return Err(TrustError::FewKeys { wanted, have, stream, limited });
        }
        Ok(self)
    }

    /// Returns the number of different keys that are trusted for a stream.
    fn count_for(&self, stream: &str) -> usize {
        let trusted = self.keys.iter().filter(|trusted| trusted.is_for(stream));
        trusted.map(|trusted| trusted.key.id()).collect::<BTreeSet<KeyId>>().len()
    }

    /// Returns the keyring with exactly this minimum number of signers, ignoring the file beside the keys.
    ///
    /// # Errors
    /// [`TrustError::FewKeys`] if no stream has so many trusted keys.
    pub fn requiring_exactly(self, min_signers: u32) -> Result<Self, TrustError> {
        Keyring { min_signers, ..self }.requiring(None, None)
    }

    /// Returns the number of different keys that must have signed a bundle.
    pub fn min_signers(&self) -> u32 {
        self.min_signers.max(1)
    }

    /// Returns those of `keys` that are trusted for a stream.
    pub fn trusted_for(&self, stream: &str, keys: &[KeyId]) -> Vec<KeyId> {
        let is_trusted =
            |id: &&KeyId| self.keys.iter().any(|trusted| trusted.key.id() == **id && trusted.is_for(stream));
        keys.iter().filter(is_trusted).copied().collect()
    }

    /// Returns those of `keys` that are trusted only for other streams, as names with these streams, for messages.
    pub fn trusted_for_others(&self, stream: &str, keys: &[KeyId]) -> Vec<String> {
        let here = self.trusted_for(stream, keys);
        let is_other =
            |trusted: &&TrustedKey| keys.contains(&trusted.key.id()) && !here.contains(&trusted.key.id());
        self.keys.iter().filter(is_other).filter_map(TrustedKey::limit).collect()
    }

    /// Returns a keyring with one key that needs no file.
    pub fn of(key: &PublicKey) -> Self {
        let key = TrustedKey { path: PathBuf::new(), key: key.clone(), streams: None };
        Keyring { keys: vec![key], min_signers: 1 }
    }

    /// Reads the keys in these directories, which may be empty or missing.
    ///
    /// # Errors
    /// [`TrustError::NotAKey`] if a file is not a public key; [`TrustError::Writable`] if the file or a directory above
    /// it is writable by others; [`TrustError::File`] if it cannot be read;
    /// [`TrustError::NotANumber`] if the minimum number of signers of a directory is invalid.
    pub fn from_directories(directories: &[PathBuf]) -> Result<Self, TrustError> {
        let (mut files, mut min_signers) = (Vec::new(), 0);
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
            if names.iter().any(|name| name == MIN_SIGNERS) {
                // The stricter of two directories decides.
                min_signers = min_signers.max(read_min_signers(&directory.join(MIN_SIGNERS))?);
            }
        }
        files.sort();
        Ok(Keyring { min_signers, ..Self::from_files(&files)? })
    }

    fn from_files(files: &[PathBuf]) -> Result<Self, TrustError> {
        let keys = files
            .iter()
            .map(|path| {
                let file = trusted::open(path).map_err(|failed| not_opened(path, PUBLIC, failed))?;
                let (key, streams) = parse(path, file)?;
                Ok(TrustedKey { path: path.clone(), key, streams })
            })
            .collect::<Result<_, TrustError>>()?;
        Ok(Keyring { keys, min_signers: 0 })
    }

    /// The keys with their files.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter()
    }

    /// The keys alone.
    pub fn public_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().map(|trusted| &trusted.key)
    }

    /// The trusted key with this identifier.
    pub fn find(&self, id: KeyId) -> Option<&TrustedKey> {
        self.keys.iter().find(|trusted| trusted.key.id() == id)
    }
}

/// The kind of a trusted key's file, for messages.
const PUBLIC: &str = "an Ed25519 public key (PEM)";

/// Reads the file of a public key that is not trusted yet. It may be in any directory and writable by others.
///
/// # Errors
/// [`TrustError::File`] if the file cannot be read; [`TrustError::NotAKey`] if it is not a regular file or
/// not a public key.
pub fn read(path: &Path) -> Result<ParsedKey, TrustError> {
    match fs::open_regular(path, Links::Follow) {
        Ok(file) => parse(path, file),
        Err(OpenError::NotRegular(_)) => Err(not_opened(path, PUBLIC, TrustedFileError::NotAFile)),
        Err(OpenError::Io(error)) => Err(TrustError::File { path: path.into(), error }),
    }
}

/// The line before a trusted key that lists the streams that it is trusted for, separated by commas. Other tools
/// ignore text before the key.
const STREAMS: &str = "# streams:";
/// The file beside trusted keys that holds the minimum number of signers.
const MIN_SIGNERS: &str = "min-signers";
/// The highest minimum number of signers: the number of signatures that a bundle has room for.
pub const MOST_SIGNERS: u32 = crate::trust::envelope::MAX_SIGNATURES as u32;

/// Reads the minimum number of signers.
fn read_min_signers(path: &Path) -> Result<u32, TrustError> {
    let not = |why: String| TrustError::NotANumber { path: path.into(), why };
    let file = trusted::open(path).map_err(|failed| match failed {
        TrustedFileError::NotAFile => not("it is not a regular file".into()),
        other => not_opened(path, PUBLIC, other),
    })?;
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).map_err(|error| not(error.to_string()))?;
    let number = text.trim().parse().ok().filter(|number| (1..=MOST_SIGNERS).contains(number));
    number.ok_or_else(|| not(format!("it does not hold a number from 1 to {MOST_SIGNERS}")))
}

/// Writes the minimum number of signers into a directory of trusted keys.
///
/// # Errors
/// [`TrustError::Writable`] if the directory or one above it is writable by others; [`TrustError::File`] if the file
/// cannot be written.
pub fn require(directory: &Path, min_signers: u32) -> Result<PathBuf, TrustError> {
    let path = directory.join(MIN_SIGNERS);
    let dir = trusted_directory(directory, Some(0o755))?;
    dir.replace(MIN_SIGNERS, format!("{min_signers}\n").as_bytes(), 0o644, None, Durability::Synced)
        .map_err(|error| TrustError::File { path: path.clone(), error })?;
    Ok(path)
}

/// A key, and the streams that it is trusted for; `None` for all.
pub type ParsedKey = (PublicKey, Option<Vec<String>>);

fn parse(path: &Path, file: File) -> Result<ParsedKey, TrustError> {
    let not = |why: String| TrustError::NotAKey { path: path.into(), wanted: PUBLIC, why };
    let mut text = String::new();
    file.take(MAX_PEM).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => not("it is not text".into()),
        _ => TrustError::File { path: path.into(), error },
    })?;
    let key = PublicKey::from_pem(&text).map_err(not)?;
    let mut streams: Option<Vec<String>> = None;
    for line in text.lines().take_while(|line| !line.starts_with("-----BEGIN")).filter(|line| is_limit(line))
    {
        let listed = line.strip_prefix(STREAMS).filter(|_| streams.is_none());
        let listed =
            listed.ok_or_else(|| not(format!("only one line may name streams, as `{STREAMS} NAME`")))?;
        let names = listed.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        streams = Some(names.collect());
    }
    // An empty list must not mean all streams.
    if streams.as_ref().is_some_and(Vec::is_empty) {
        return Err(not(format!("its line {STREAMS:?} names no stream")));
    }
    Ok((key, streams))
}

/// Whether a line is meant to limit a key to streams. A misspelled limit must not be treated as no limit.
fn is_limit(line: &str) -> bool {
    let is_noise = |c: char| c.is_whitespace() || matches!(c, '#' | '\u{feff}');
    line.trim_start_matches(is_noise).to_lowercase().starts_with("stream")
}

/// Returns the error of a key file that could not be opened.
pub(crate) fn not_opened(path: &Path, wanted: &'static str, failed: TrustedFileError) -> TrustError {
    match failed {
        TrustedFileError::Untrusted(untrusted) => untrusted.into(),
        TrustedFileError::NotAFile => {
            let why = "it is not a regular file".into();
            TrustError::NotAKey { path: path.into(), wanted, why }
        }
        TrustedFileError::Io(error) => TrustError::File { path: path.into(), error },
    }
}

/// Opens a directory that holds keys. If `make` is a mode, a missing directory is created with it.
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

/// Adds a key to a directory as `NAME.pub`, trusted for these streams or, if there are none, for all. If the key is
/// there already, the streams are added to those that it is limited to; without streams, nothing changes.
///
/// # Errors
/// [`TrustError::Writable`] if the directory or one above it is writable by others; [`TrustError::NameTaken`] if
/// another key has that name; [`TrustError::File`] if the key cannot be written.
pub fn add(
    directory: &Path,
    name: &str,
    key: &PublicKey,
    streams: &[String],
) -> Result<TrustedKey, TrustError> {
    let file_name = format!("{name}.pub");
    let path = directory.join(&file_name);
    let dir = trusted_directory(directory, Some(0o755))?;
    let present = read(&path).ok().filter(|(present, _)| present == key);
    let mut streams = streams.to_vec();
    if let Some((_, Some(before))) = &present {
        streams.extend(before.iter().cloned());
    }
    streams.sort();
    streams.dedup();
    let limit =
        if streams.is_empty() { String::new() } else { format!("{STREAMS} {}\n", streams.join(", ")) };
    let text = format!("{limit}{}", key.to_pem());
    let written = if present.is_some() {
        dir.replace(&file_name, text.as_bytes(), 0o644, None, Durability::Synced)
    } else {
        dir.write_new(&file_name, text.as_bytes(), 0o644, Durability::Synced)
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => TrustError::NameTaken { path: path.clone() },
        _ => TrustError::File { path: path.clone(), error },
    })?;
    let streams = (!streams.is_empty()).then_some(streams);
    Ok(TrustedKey { path, key: key.clone(), streams })
}

/// Removes the file of a trusted key.
///
/// # Errors
/// [`TrustError::Writable`] if the directory or one above it is writable by others; [`TrustError::File`] if the file
/// cannot be removed.
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
        let path = add(&trusted, "laptop", &one, &[]).unwrap().path;
        assert_eq!(add(&trusted, "laptop", &one, &[]).unwrap().path, path, "adding again changes nothing");
        assert!(matches!(add(&trusted, "laptop", &two, &[]), Err(TrustError::NameTaken { .. })));
        let keyring = Keyring::from_directories(&[trusted, dir.path().join("missing")]).unwrap();
        assert_eq!(keyring.find(one.id()).unwrap().name(), "laptop.pub");
        assert!(keyring.find(two.id()).is_none());
    }

    #[test]
    fn a_key_that_is_writable_by_others_is_rejected() {
        let dir = crate::util::fs::tempdir().unwrap();
        let path = add(dir.path(), "k", &SigningKey::generate().unwrap().public(), &[]).unwrap().path;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = Keyring::load(&[path]).unwrap_err();
        assert!(matches!(error, TrustError::Writable { .. }), "{error}");
    }

    #[test]
    fn a_key_is_trusted_for_its_streams_and_a_minimum_number_must_sign() {
        let dir = crate::util::fs::tempdir().unwrap();
        let [one, two] = [(); 2].map(|()| SigningKey::generate().unwrap().public());
        add(dir.path(), "one", &one, &["weekly".into(), "lab".into()]).unwrap();
        add(dir.path(), "two", &two, &[]).unwrap();
        let load = || Keyring::from_directories(&[dir.path().to_path_buf()]);
        let ids = [one.id(), two.id()];
        let both = load().unwrap();
        assert_eq!(both.trusted_for("lab", &ids), ids);
        assert_eq!(both.trusted_for("default", &ids), [two.id()]);
        assert_eq!(both.min_signers(), 1);
        require(dir.path(), 2).unwrap();
        assert_eq!(load().unwrap().requiring(None, None).unwrap().min_signers(), 2);
        assert_eq!(
            load().unwrap().requiring(Some(1), None).unwrap().min_signers(),
            2,
            "the stricter decides"
        );
        assert!(matches!(
            load().unwrap().requiring(Some(3), None),
            Err(TrustError::FewKeys { wanted: 3, have: 2, .. })
        ));
        // Only keys of the stream count, and the others are named.
        assert!(load().unwrap().requiring(None, Some("lab")).is_ok());
        let few = load().unwrap().requiring(None, Some("default")).unwrap_err();
        assert_eq!(
            few.to_string(),
            "2 different keys must sign, and 1 is trusted here for stream \"default\"; there is also one.pub (trusted only for stream lab, weekly)"
        );
        assert!(load().unwrap().requiring(None, Some("any")).is_err());
        assert!(load().unwrap().requiring_exactly(1).unwrap().requiring(None, Some("any")).is_ok());
        // The same key under another name does not count twice.
        add(dir.path(), "one-again", &one, &[]).unwrap();
        assert!(load().unwrap().requiring(Some(3), None).is_err());
        assert_eq!(load().unwrap().trusted_for("default", &ids), ids);
        for bad in ["0", "two", "", "99"] {
            crate::util::fs::put(dir.path().join(MIN_SIGNERS), bad);
            assert!(load().is_err(), "{bad:?}");
        }
        require(dir.path(), 1).unwrap();
        crate::util::fs::put(dir.path().join("x.pub"), format!("# streams: ,\n{}", one.to_pem()));
        assert!(load().unwrap_err().to_string().contains("names no stream"));
    }

    #[test]
    fn keys_of_different_streams_are_not_counted_together() {
        let dir = crate::util::fs::tempdir().unwrap();
        for (name, stream) in [("one", "lab"), ("two", "weekly")] {
            add(dir.path(), name, &SigningKey::generate().unwrap().public(), &[stream.into()]).unwrap();
        }
        let load = || Keyring::from_directories(&[dir.path().to_path_buf()]).unwrap();
        let few = load().requiring_exactly(2).unwrap_err().to_string();
        assert!(few.contains("at most 1 is trusted here for one stream"), "{few}");
        assert!(few.contains("one.pub (trusted only for stream lab), two.pub"), "{few}");
        let third = SigningKey::generate().unwrap().public();
        add(dir.path(), "three", &third, &["weekly".into()]).unwrap();
        assert!(load().requiring_exactly(2).is_ok());
    }

    #[test]
    fn a_limit_is_never_widened_by_chance() {
        let dir = crate::util::fs::tempdir().unwrap();
        let key = SigningKey::generate().unwrap().public();
        let streams = |listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
            add(dir.path(), "one", &key, &listed).unwrap().streams.unwrap_or_default()
        };
        assert_eq!(streams(&["prod"]), ["prod"]);
        assert_eq!(streams(&[]), ["prod"], "adding it again without streams does not lift the limit");
        assert_eq!(streams(&["lab"]), ["lab", "prod"]);
        let file = dir.path().join("x.pub");
        for line in [
            "#streams: other",
            "# Streams: other",
            "# streams : other",
            "#  streams: other",
            " # streams: other",
            "\u{feff}# streams: other",
            "# stream: other",
            "# streams: a\n# streams: b",
        ] {
            crate::util::fs::put(&file, format!("{line}\n{}", key.to_pem()));
            let error = Keyring::load(std::slice::from_ref(&file)).unwrap_err();
            assert!(error.to_string().contains("only one line may name streams"), "{line:?}: {error}");
        }
        crate::util::fs::put(&file, format!("# the key of the lab's streams\n{}", key.to_pem()));
        assert!(Keyring::load(&[file]).is_ok());
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
