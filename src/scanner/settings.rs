//! Settings with which Trivy uses the imported data in a cache and does not access the network.
//!
//! They depend only on the cache, the version of Trivy and the installed datasets. The flags of each
//! subcommand come from `trivy SUBCOMMAND --help` of v0.74.0. Trivy fails on an unknown flag, such as in
//! `trivy config --skip-db-update`, but every subcommand accepts the environment variables.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::dataset::catalogue::TrivyVersion;
use crate::scanner::yaml::quoted;
use crate::targets::error::{At, TargetError};
use crate::util::dir::write::Durability;
use crate::util::dir::{self, Dir, FileMode, parent_owner};

/// The variables that trivy-ferry writes to an environment file. A file with others belongs to the operator.
const OUR_VARIABLES: [&str; 15] = [
    "TRIVY_CACHE_DIR",
    "TRIVY_SKIP_DB_UPDATE",
    "TRIVY_SKIP_JAVA_DB_UPDATE",
    "TRIVY_SKIP_CHECK_UPDATE",
    "TRIVY_OFFLINE_SCAN",
    "TRIVY_VEX",
    "TRIVY_SKIP_VEX_REPO_UPDATE",
    "TRIVY_SKIP_VERSION_CHECK",
    "TRIVY_DISABLE_TELEMETRY",
    "TRIVY_CACHE_BACKEND",
    "XDG_DATA_HOME",
    "TRIVY_DB_REPOSITORY",
    "TRIVY_JAVA_DB_REPOSITORY",
    "TRIVY_CHECKS_BUNDLE_REPOSITORY",
    "TRIVY_INSECURE",
];

/// The beginning of a file that trivy-ferry wrote.
pub(crate) const OURS: &[u8] = b"# Written by trivy-ferry:";

/// The installed datasets of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstalledData {
    /// trivy-db.
    pub db: bool,
    /// trivy-java-db.
    pub java_db: bool,
    /// trivy-checks.
    pub checks: bool,
    /// At least one VEX repository.
    pub vex: bool,
}

/// The properties of the scanning user that change settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scanner {
    /// Whether the scanner cannot write to the cache directory.
    pub read_only_cache: bool,
    /// The directory for `XDG_DATA_HOME`, which contains `.trivy/vex/repository.yaml`, if the scanner's home
    /// is read-only. Used only with VEX.
    pub data_home: Option<PathBuf>,
}

/// Scanner settings in several forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The flags for each subcommand.
    pub lines: Vec<TrivyCommand>,
    /// Environment variables with their values, for every subcommand.
    pub environment: Vec<(String, String)>,
    /// The text of a `trivy.yaml`.
    pub config: String,
    /// Files for other scanners, which are written beside it.
    pub files: Vec<ConfigFile>,
    /// Further hints, a sentence each.
    pub advice: Vec<String>,
    /// Notes that only some scanners need.
    pub notes: Vec<String>,
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub text: String,
}

/// One subcommand with its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrivyCommand {
    /// An environment variable that the command needs because there is no flag for it.
    pub environment: Option<(&'static str, String)>,
    /// The name as typed after `trivy`: `image`, `server`. Client mode is `image --server URL`.
    pub subcommand: &'static str,
    /// The flags, each one argument; a value follows after `=` or as the next element.
    pub flags: Vec<String>,
}

impl TrivyCommand {
    /// Returns the complete command, quoted for a shell.
    pub fn command(&self) -> String {
        let variable = self.assignment();
        let space = if variable.is_empty() { "" } else { " " };
        format!("{variable}{space}trivy {} {}", self.subcommand, self.arguments())
    }

    /// Returns the environment variable, quoted for a shell: `XDG_DATA_HOME=/srv/trivy`, or nothing.
    pub fn assignment(&self) -> String {
        let variable = self.environment.as_ref();
        variable.map_or_else(String::new, |(name, value)| format!("{name}={}", shell(value)))
    }

    /// Returns the flags, quoted for a shell.
    pub fn arguments(&self) -> String {
        let flags: Vec<String> = self.flags.iter().map(|flag| shell(flag)).collect();
        flags.join(" ")
    }
}

/// The datasets that a subcommand uses (Trivy v0.74.0, `--help` of each).
pub(crate) struct Subcommand {
    pub(crate) name: &'static str,
    pub(crate) db: bool,
    pub(crate) java: bool,
    pub(crate) checks: bool,
    /// Whether it has `--offline-scan`, `--vex` and `--cache-backend`.
    pub(crate) scans: bool,
    /// The minor version of Trivy since which `--skip-version-check` and `--disable-telemetry`
    /// exist.
    pub(crate) version_check: Option<u32>,
}

const fn scanner(name: &'static str, checks: bool) -> Subcommand {
    Subcommand { name, db: true, java: true, checks, scans: true, version_check: Some(63) }
}

pub(crate) const SUBCOMMANDS: [Subcommand; 10] = [
    scanner("image", true),
    scanner("fs", true),
    scanner("rootfs", true),
    scanner("repo", true),
    scanner("sbom", false),
    scanner("vm", false),
    scanner("k8s", true),
    // `config` lacked the two flags in 0.63.0 (Trivy pull request #8951 added them).
    Subcommand {
        name: "config",
        db: false,
        java: false,
        checks: true,
        scans: false,
        version_check: Some(64),
    },
    Subcommand { name: "server", db: true, java: false, checks: false, scans: false, version_check: None },
    // The server uses trivy-db; the client uses trivy-java-db, trivy-checks and VEX.
    Subcommand { db: false, ..scanner("image --server URL", true) },
];

/// Returns the settings for a cache directory.
///
/// `--skip-db-update` and `--skip-java-db-update` appear only if the database is installed, because Trivy fails
/// otherwise. `--skip-check-update` always appears: without checks in the cache, Trivy uses its built-in ones, and
/// with the flag it does so immediately.
pub fn settings(
    cache_dir: &Path,
    version: TrivyVersion,
    in_place: InstalledData,
    scanner: &Scanner,
) -> Settings {
    let since = |minor| version.major > 0 || version.minor >= minor;
    let cache = cache_dir.display().to_string();
    let memory = scanner.read_only_cache;
    let lines = SUBCOMMANDS
        .iter()
        .map(|subcommand| {
            let mut flags = vec!["--cache-dir".to_owned(), cache.clone()];
            let mut add = |wanted: bool, flag: &str| {
                if wanted {
                    flags.extend(flag.split(' ').map(str::to_owned));
                }
            };
            add(in_place.db && subcommand.db, "--skip-db-update");
            add(in_place.java_db && subcommand.java, "--skip-java-db-update");
            add(subcommand.checks, "--skip-check-update");
            add(subcommand.scans, "--offline-scan");
            add(in_place.vex && subcommand.scans, "--vex repo --skip-vex-repo-update");
            add(subcommand.version_check.is_some_and(since), "--skip-version-check --disable-telemetry");
            add(memory && subcommand.scans, "--cache-backend memory");
            let home = scanner.data_home.as_ref().filter(|_| in_place.vex && subcommand.scans);
            let environment = home.map(|home| ("XDG_DATA_HOME", home.display().to_string()));
            TrivyCommand { environment, subcommand: subcommand.name, flags }
        })
        .collect();
    Settings {
        lines,
        environment: environment(&cache, since(63), in_place, scanner),
        config: config(&cache, since(63), in_place, memory),
        files: Vec::new(),
        advice: advice(in_place, scanner),
        notes: notes(in_place, scanner),
    }
}

fn environment(
    cache: &str,
    version_check: bool,
    in_place: InstalledData,
    scanner: &Scanner,
) -> Vec<(String, String)> {
    let mut variables = vec![("TRIVY_CACHE_DIR".to_owned(), cache.to_owned())];
    let mut add = |wanted: bool, name: &str, value: &str| {
        if wanted {
            variables.push((name.into(), value.into()));
        }
    };
    add(in_place.db, "TRIVY_SKIP_DB_UPDATE", "true");
    add(in_place.java_db, "TRIVY_SKIP_JAVA_DB_UPDATE", "true");
    add(true, "TRIVY_SKIP_CHECK_UPDATE", "true");
    add(true, "TRIVY_OFFLINE_SCAN", "true");
    add(in_place.vex, "TRIVY_VEX", "repo");
    add(in_place.vex, "TRIVY_SKIP_VEX_REPO_UPDATE", "true");
    add(version_check, "TRIVY_SKIP_VERSION_CHECK", "true");
    add(version_check, "TRIVY_DISABLE_TELEMETRY", "true");
    add(scanner.read_only_cache, "TRIVY_CACHE_BACKEND", "memory");
    if let (true, Some(home)) = (in_place.vex, &scanner.data_home) {
        add(true, "XDG_DATA_HOME", &home.display().to_string());
    }
    variables
}

/// Returns the text of a `trivy.yaml`. The keys are those of `trivy --generate-default-config` of
/// v0.74.0 (`pkg/flag`: `ConfigName`).
fn config(cache: &str, version_check: bool, in_place: InstalledData, memory: bool) -> String {
    let mut text = String::from_utf8_lossy(OURS).into_owned()
        + " Trivy uses the imported data and does not access the network.\ncache:\n";
    let mut line = |wanted: bool, line: &str| {
        if wanted {
            text.push_str(line);
            text.push('\n');
        }
    };
    line(true, &format!("  dir: {}", quoted(cache)));
    line(memory, "  backend: memory");
    line(in_place.db || in_place.java_db, "db:");
    line(in_place.db, "  skip-update: true");
    line(in_place.java_db, "  java-skip-update: true");
    line(true, "rego:\n  skip-check-update: true");
    line(true, "scan:\n  offline: true");
    line(version_check, "  skip-version-check: true\n  disable-telemetry: true");
    line(in_place.vex, "vulnerability:\n  vex:\n    - repo\n  skip-vex-repo-update: true");
    text
}

fn advice(in_place: InstalledData, scanner: &Scanner) -> Vec<String> {
    let mut advice = Vec::new();
    if !in_place.db {
        advice
            .push("No trivy-db is installed: vulnerability scans fail offline until one is imported.".into());
    }
    if !in_place.java_db {
        advice.push(
            "No trivy-java-db is installed: scans that find a JAR file fail offline until one is imported."
                .into(),
        );
    }
    if !in_place.checks {
        advice.push("No trivy-checks are installed: Trivy uses its built-in checks.".into());
    }
    if let (true, Some(home)) = (in_place.vex, &scanner.data_home) {
        advice.push(format!(
            "Set XDG_DATA_HOME={} in the environment of scans: --vex repo finds its configuration there, and a trivy.yaml cannot set it.",
            shell(&home.display().to_string())
        ));
    }
    advice
}

fn notes(in_place: InstalledData, scanner: &Scanner) -> Vec<String> {
    let mut notes = Vec::new();
    if !scanner.read_only_cache {
        notes.push(
            "A scanner that cannot write to the cache directory needs --cache-backend memory as well.".into(),
        );
    }
    if in_place.vex && scanner.data_home.is_none() {
        notes.push("If the scanner's home is read-only, --vex repo needs XDG_DATA_HOME set to a directory with .trivy/vex/repository.yaml.".into());
    }
    notes
}

/// Returns the command that sets the variables of an environment file in a shell.
pub(crate) fn command_to_load(path: &Path) -> String {
    let text = path.display().to_string();
    // Without a slash, a shell searches `PATH`.
    let text = if text.contains('/') { text } else { format!("./{text}") };
    format!("set -a; . {}; set +a", shell(&text))
}

/// Quotes an argument for a shell if necessary.
fn shell(argument: &str) -> String {
    if argument.bytes().all(plain) && !argument.is_empty() {
        return argument.into();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// Whether a shell and every reader of environment files accept a byte without quotes.
fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+:@,%=".contains(&byte)
}

impl Settings {
    /// Writes the environment as lines `KEY=value` that systemd's `EnvironmentFile`, GitLab's
    /// dotenv reports and Compose's `env_file` all read: no comment, no quotes, no empty line. An
    /// existing file is replaced only if all its variables are ones that trivy-ferry writes.
    ///
    /// # Errors
    /// [`TargetError::Value`] if a path has spaces or quotes; [`TargetError::Exists`] if the
    /// existing file has other variables; [`TargetError::Symlink`] or [`TargetError::NotAFile`] if
    /// it is a link or another kind of file; [`TargetError::NoDirectory`] if its directory does not
    /// exist; else the error of the system, converted by [`TargetError::io`].
    pub fn write_env(&self, path: &Path) -> Result<(), TargetError> {
        let mut text = String::new();
        for (name, value) in &self.environment {
            if value.is_empty() || !value.bytes().all(plain) {
                let (name, value) = (name.clone(), value.clone());
                return Err(TargetError::Value { path: path.into(), name, value });
            }
            text.push_str(&format!("{name}={value}\n"));
        }
        let ours = |held: &[u8]| {
            let held = String::from_utf8_lossy(held);
            held.lines()
                .all(|line| line.split_once('=').is_some_and(|(name, _)| OUR_VARIABLES.contains(&name)))
        };
        let directory =
            path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        write(directory, path, text.as_bytes(), |held| match ours(held) {
            true => Ok(()),
            false => Err(TargetError::Exists {
                path: path.into(),
                what: "has variables that trivy-ferry did not write",
                advice: "Name another file with --write-env.",
            }),
        })
    }

    /// Writes `trivy.yaml` into a directory and returns the path of the file. An existing file is
    /// replaced only with `force`, or if trivy-ferry wrote it.
    ///
    /// # Errors
    /// [`TargetError::Exists`] if trivy-ferry did not write the existing file and `force` is not
    /// set; [`TargetError::Symlink`] or [`TargetError::NotAFile`] if it is a link or another kind
    /// of file; [`TargetError::NoDirectory`] if the directory does not exist; else the error of the
    /// system, converted by [`TargetError::io`].
    pub fn write_config(&self, dir: &Path, force: bool) -> Result<PathBuf, TargetError> {
        ConfigFile { name: "trivy.yaml", text: self.config.clone() }.write(dir, force)
    }
}

/// Checks whether a `trivy.yaml` may be written into a directory, so that a run can fail early.
///
/// # Errors
/// [`TargetError::Exists`] if trivy-ferry did not write the existing file and `force` is not set.
pub fn may_write_config(dir: &Path, force: bool) -> Result<(), TargetError> {
    const NAME: &str = "trivy.yaml";
    if force {
        return Ok(());
    }
    // Other errors are reported when the file is written.
    let Ok(directory) = Dir::top(dir) else { return Ok(()) };
    let mut begin = Vec::new();
    match directory
        .open_file(NAME)
        .map(|file| file.map(|file| file.take(OURS.len() as u64).read_to_end(&mut begin)))
    {
        Ok(Some(Ok(_))) if begin != OURS => Err(not_ours(dir.join(NAME))),
        _ => Ok(()),
    }
}

fn not_ours(path: PathBuf) -> TargetError {
    TargetError::Exists {
        path,
        what: "was not written by trivy-ferry",
        advice: "Name another directory with --write-config, or replace it with --force.",
    }
}

impl ConfigFile {
    /// Writes the file into a directory and returns the path of the file. An existing file is
    /// replaced only with `force`, or if trivy-ferry wrote it.
    ///
    /// # Errors
    /// [`TargetError::Exists`] if trivy-ferry did not write the existing file and `force` is not
    /// set; [`TargetError::Symlink`] or [`TargetError::NotAFile`] if it is a link or another kind
    /// of file; [`TargetError::NoDirectory`] if the directory does not exist; else the error of the
    /// system, converted by [`TargetError::io`].
    pub fn write(&self, dir: &Path, force: bool) -> Result<PathBuf, TargetError> {
        let path = dir.join(self.name);
        write(dir, &path, self.text.as_bytes(), |have| match force || have.starts_with(OURS) {
            true => Ok(()),
            false => Err(not_ours(path.clone())),
        })?;
        Ok(path)
    }
}

/// Replaces a file atomically and keeps its mode and owner. A link is not followed.
fn write(
    directory: &Path,
    path: &Path,
    bytes: &[u8],
    may_replace: impl Fn(&[u8]) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| TargetError::Io {
        doing: "write",
        path: path.into(),
        error: io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"),
    })?;
    let dir = Dir::top(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TargetError::NoDirectory { path: directory.into() },
        _ => TargetError::io("open the directory", directory, error),
    })?;
    replace(&dir, name, bytes, may_replace)
}

/// Replaces a file in an open directory as [`write()`] does.
pub(crate) fn replace(
    dir: &Dir,
    name: &str,
    bytes: &[u8],
    may_replace: impl Fn(&[u8]) -> Result<(), TargetError>,
) -> Result<(), TargetError> {
    const MAX: u64 = 1 << 20;
    let path = dir.at(name);
    let (mode, owner) = match dir.find(name).at("look it up", &path)? {
        None => (FileMode::Shared(0o644), parent_owner(dir).at("look it up", dir.path())?),
        Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
        Some(entry) if !entry.is_file() => return Err(TargetError::NotAFile { path }),
        Some(entry) => {
            may_replace(&dir.read_small(name, MAX).at("read", &path)?.unwrap_or_default())?;
            (FileMode::Exactly(entry.mode & 0o777), (dir::euid() == 0).then_some(entry.owner))
        }
    };
    dir.replace_beside_others(name, bytes, mode, owner, Durability::Synced).at("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: InstalledData = InstalledData { db: true, java_db: true, checks: true, vex: true };

    fn of(version: &str, in_place: InstalledData) -> Settings {
        settings(Path::new("/c"), version.parse().unwrap(), in_place, &Scanner::default())
    }

    fn flags(settings: &Settings, subcommand: &str) -> String {
        settings.lines.iter().find(|line| line.subcommand == subcommand).unwrap().flags.join(" ")
    }

    #[test]
    fn each_subcommand_gets_the_flags_that_it_has() {
        let new = of("0.74.0", ALL);
        assert_eq!(
            flags(&new, "image"),
            "--cache-dir /c --skip-db-update --skip-java-db-update --skip-check-update --offline-scan --vex repo --skip-vex-repo-update --skip-version-check --disable-telemetry"
        );
        assert_eq!(
            flags(&new, "config"),
            "--cache-dir /c --skip-check-update --skip-version-check --disable-telemetry"
        );
        assert_eq!(flags(&new, "server"), "--cache-dir /c --skip-db-update");
        assert!(!flags(&new, "sbom").contains("check-update"));
        assert!(!flags(&new, "image --server URL").contains("--skip-db-update"));
        assert_eq!(flags(&of("0.63", ALL), "config"), "--cache-dir /c --skip-check-update");
        assert!(!flags(&of("0.62", ALL), "image").contains("telemetry"));
        assert!(!of("0.62", ALL).config.contains("telemetry"));
    }

    #[test]
    fn updates_of_missing_datasets_are_not_skipped() {
        let none = of("0.74", InstalledData::default());
        assert_eq!(
            flags(&none, "image"),
            "--cache-dir /c --skip-check-update --offline-scan --skip-version-check --disable-telemetry"
        );
        assert!(none.advice.iter().any(|advice| advice.contains("No trivy-db")), "{:?}", none.advice);
    }

    #[test]
    fn a_read_only_scanner_gets_memory_and_a_data_home() {
        let scanner = Scanner { read_only_cache: true, data_home: Some("/data".into()) };
        let settings = settings(Path::new("/c c"), TrivyVersion::newest(), ALL, &scanner);
        assert!(flags(&settings, "image").ends_with("--cache-backend memory"));
        assert!(settings.environment.contains(&("XDG_DATA_HOME".into(), "/data".into())));
        assert!(settings.config.contains("  dir: \"/c c\"\n  backend: memory\n"), "{}", settings.config);
        assert!(
            settings.lines[0].command().contains("--cache-dir '/c c' "),
            "{}",
            settings.lines[0].command()
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.env");
        assert!(matches!(settings.write_env(&path), Err(TargetError::Value { .. })));
    }

    #[test]
    fn only_files_that_trivy_ferry_wrote_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let settings = of("0.74", ALL);
        let env = dir.path().join("settings.env");
        settings.write_env(&env).unwrap();
        settings.write_env(&env).unwrap();
        let text = std::fs::read_to_string(&env).unwrap();
        assert!(text.starts_with("TRIVY_CACHE_DIR=/c\nTRIVY_SKIP_DB_UPDATE=true\n"), "{text}");
        settings.write_env(&env).unwrap();
        std::fs::write(&env, "TRIVY_CACHE_DIR=/c\nTRIVY_SERVER=http://s\n").unwrap();
        assert!(matches!(settings.write_env(&env), Err(TargetError::Exists { .. })));
        std::fs::write(&env, "PATH=/bin\n").unwrap();
        assert!(matches!(settings.write_env(&env), Err(TargetError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&env).unwrap(), "PATH=/bin\n");

        let config = settings.write_config(dir.path(), false).unwrap();
        settings.write_config(dir.path(), false).unwrap();
        std::fs::write(&config, "severity: HIGH\n").unwrap();
        assert!(matches!(settings.write_config(dir.path(), false), Err(TargetError::Exists { .. })));
        settings.write_config(dir.path(), true).unwrap();
        std::fs::remove_file(&config).unwrap();
        std::os::unix::fs::symlink(&env, &config).unwrap();
        assert!(matches!(settings.write_config(dir.path(), true), Err(TargetError::Symlink { .. })));
        assert_eq!(std::fs::read_to_string(&env).unwrap(), "PATH=/bin\n", "the link was not followed");
    }
}
