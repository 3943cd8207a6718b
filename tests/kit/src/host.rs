//! The host of a user.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use tempfile::TempDir;

use crate::process::Run;

/// The directories of the system's own programs.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A directory that is a user's home, with an environment that is independent of the machine that runs the
/// tests. Paths are strings without spaces, so that tests can write command lines as users type them.
#[derive(Debug)]
pub struct Host {
    home: TempDir,
    program: PathBuf,
    tools: Option<String>,
    /// The seconds by which the clock of trivy-ferry is ahead.
    ahead: AtomicI64,
}

impl Host {
    /// Creates a host that has trivy-ferry (the program at this path) and no other tool.
    #[must_use]
    pub fn bare(program: impl Into<PathBuf>) -> Host {
        let home = tempfile::Builder::new().prefix("host").tempdir().unwrap();
        fs::create_dir(home.path().join("tmp")).unwrap();
        Host { home, program: program.into(), tools: None, ahead: AtomicI64::new(0) }
    }

    /// Creates a host that also has the real tools of a directory on its `PATH`.
    #[must_use]
    pub fn with(program: impl Into<PathBuf>, tools: &str) -> Host {
        Host { tools: Some(tools.into()), ..Host::bare(program) }
    }

    /// Creates a host with the real tools and without trivy-ferry.
    #[must_use]
    pub fn only_with(tools: &str) -> Host {
        Host::with("/nonexistent/trivy-ferry", tools)
    }

    /// Returns a path in its home.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.home.path().join(name)
    }

    /// Returns a path in its home as an argument of a command.
    #[must_use]
    pub fn at(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name).into_os_string().into_string().unwrap();
        assert!(!path.contains(char::is_whitespace), "command lines are split at spaces: {path}");
        path
    }

    /// Creates a directory in its home with its parents, and returns its path.
    pub fn dir(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        self.at(name)
    }

    /// Writes a file in its home, creates its parent directories, and returns its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Copies a program into its home, and returns its path.
    #[track_caller]
    pub fn install(&self, from: impl AsRef<Path>, name: &str) -> String {
        install(from, self.path(name));
        self.at(name)
    }

    /// Writes an executable script, and returns its path.
    #[track_caller]
    pub fn script(&self, name: &str, text: &str) -> String {
        let text = self.file(&format!("{name}.text"), text);
        let script = self.install(&text, name);
        fs::remove_file(text).unwrap();
        script
    }

    /// Returns a command with the environment of this host only.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let path =
            self.tools.as_ref().map_or_else(|| SYSTEM_PATH.into(), |tools| format!("{tools}:{SYSTEM_PATH}"));
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.home.path()).env("TMPDIR", self.path("tmp")).env("PATH", path);
        // Root's default state directory is the system's, which all hosts would share.
        command.env("TRIVY_FERRY_STATE_DIR", self.path("state"));
        // Tests provoke failures on purpose, so more retries would only take time.
        command.env("TRIVY_FERRY_RETRIES", "1");
        command.current_dir(self.home.path()).stdin(Stdio::null());
        command
    }

    /// Returns trivy-ferry without arguments. The version of the `trivy` that it finds changes its
    /// results, so it finds one only on a host with tools.
    #[must_use]
    pub fn program(&self) -> Command {
        let mut command = self.command(&self.program);
        command.env("PATH", self.tools.as_deref().unwrap_or("/nonexistent"));
        // A debug build reads this variable.
        command.env("TRIVY_FERRY_TEST_CLOCK", format!("{}s", self.ahead.load(Relaxed)));
        command
    }

    /// Advances the clock of all further runs of trivy-ferry.
    pub fn wait(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Relaxed);
    }

    /// Returns trivy-ferry with the arguments of a command line.
    #[must_use]
    pub fn ferry_command(&self, line: &str) -> Command {
        let mut command = self.program();
        command.args(line.split_whitespace());
        command
    }

    /// Runs trivy-ferry with the arguments of a command line.
    #[track_caller]
    pub fn ferry(&self, line: &str) -> Run {
        Run::of(&mut self.ferry_command(line), &format!("trivy-ferry {line}"))
    }

    /// Runs trivy-ferry.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.program().args(args), &format!("trivy-ferry {}", args.join(" ")))
    }

    /// Returns a shell line as a command.
    #[must_use]
    pub fn shell(&self, line: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        command
    }

    /// Runs a shell line.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Run {
        Run::of(&mut self.shell(line), line)
    }

    /// Returns a shell line as a command that runs as root in a private mount namespace. Arguments become its `"$@"`.
    ///
    /// # Panics
    /// If the tests may not mount, or the test is not marked.
    #[must_use]
    pub fn in_own_mounts(&self, line: &str) -> Command {
        crate::mounts::needs_mounts();
        let mut command = self.command("unshare");
        command.args(["--mount", "sh", "-c", line, "sh"]);
        command
    }

    /// Runs a shell line without a network, not even loopback.
    #[track_caller]
    pub fn offline(&self, line: &str) -> Run {
        let mut command = self.command("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        Run::of(command.args(["--net", "sh", "-c", line]), line)
    }

    /// Creates a key pair, and returns the paths of the private and the public file.
    #[track_caller]
    pub fn keygen(&self) -> (String, String) {
        self.ferry("keygen --name ferry").exits(0);
        (self.at("ferry.key"), self.at("ferry.pub"))
    }

    /// Exports into a new directory with the key of [`Host::keygen`], and returns the bundle's path.
    #[track_caller]
    pub fn export(&self, dir: &str, flags: &str) -> String {
        self.export_with(&self.at("ferry.key"), dir, flags)
    }

    /// Exports into a new directory with this key, and returns the bundle's path.
    #[track_caller]
    pub fn export_with(&self, key: &str, dir: &str, flags: &str) -> String {
        self.dir(dir);
        let run = self.ferry(&format!("export --format json --key {key} --output {dir} {flags}"));
        run.exits(0).json()["bundle"]["path"].as_str().unwrap().to_owned()
    }
}

/// Copies a program, and creates its parent directories.
///
/// A separate program copies it: a file that is open for writing cannot be executed, and a process that another test
/// starts at that moment would inherit the descriptor of this process.
///
/// # Panics
/// If it cannot be copied.
#[track_caller]
pub fn install(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut install = Command::new("install");
    install.args(["-D", "-m", "755"]).arg(from.as_ref()).arg(to.as_ref());
    assert!(install.status().unwrap().success(), "{install:?}");
}

/// Reads a file.
///
/// # Panics
/// If it cannot be read.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// Reads a text file.
///
/// # Panics
/// If it cannot be read or is not UTF-8.
#[track_caller]
pub fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8(read(path)).unwrap()
}

/// Reads a JSON file.
///
/// # Panics
/// If it cannot be read or is not JSON.
#[track_caller]
pub fn json_file(path: impl AsRef<Path>) -> serde_json::Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// Returns the relative paths of all files below a directory, sorted.
pub fn files(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = walkdir::WalkDir::new(&dir).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    let mut names: Vec<String> =
        files.map(|file| file.path().strip_prefix(&dir).unwrap().display().to_string()).collect();
    names.sort();
    names
}

/// Returns the names in a directory, sorted.
///
/// # Panics
/// If it cannot be read.
#[track_caller]
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.as_ref().display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Reads the files of a directory, by name.
///
/// # Panics
/// If a file cannot be read.
#[track_caller]
pub fn contents(dir: impl AsRef<Path>) -> BTreeMap<String, Vec<u8>> {
    let dir = dir.as_ref();
    names(dir).into_iter().map(|name| (name.clone(), read(dir.join(name)))).collect()
}
