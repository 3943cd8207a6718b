//! Private keys and passphrases in memory: they cannot be read from a core dump or from `/proc`.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use test_kit::host::names;
use test_kit::needs_root;
use test_kit::process::{ended, wait_for};

use crate::forge::{self, Bundle, Host, Part, days};

/// The user that runs the program if root runs the test, because root may read everything.
const NOBODY: u32 = 65534;

/// A running program. It is killed when dropped.
struct Running(Child);

impl Running {
    /// Ends the program in the same way as a crash with a core dump. It does not use SIGQUIT, which
    /// processes in the background ignore.
    fn abort(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.0), Signal::ABORT).unwrap();
        ended(&mut self.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Changes the owner of a host's files to the user that runs the program.
fn give(path: &Path) {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    for entry in entries {
        if entry.is_dir() { give(&entry) } else { chown(entry, Some(NOBODY), Some(NOBODY)).unwrap() }
    }
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

/// Returns the same command for another user, with permission to write a core dump into its
/// directory.
fn by_nobody(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().unwrap()).uid(NOBODY).gid(NOBODY);
    shell
}

/// Starts an export that has read its key and waits for a registry that never responds.
fn waiting_export(host: &Host) -> (Running, TcpStream) {
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    host.file("keys/exporter.key", host.key.to_pem(None).unwrap().as_bytes());
    fs::set_permissions(host.path("keys/exporter.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = host.command();
    command.args(["export", "--key", &host.at("keys/exporter.key"), "--output", &host.at("out")]);
    command.args(["--only", "trivy-db", "--plain-http"]);
    command.arg(format!("--db-repository={}/db:2", registry.local_addr().unwrap()));
    give(&host.path(""));
    let child = Running(by_nobody(&command).spawn().unwrap());
    // The export connects to the registry only after it has read its key.
    registry.set_nonblocking(true).unwrap();
    let connection = wait_for("a connection", || registry.accept().ok()).0;
    (child, connection)
}

#[test]
#[ignore = "tools"]
fn no_core_dump_holds_a_key() {
    needs_root();
    let host = Host::new();
    let (mut child, _connection) = waiting_export(&host);
    let proc = format!("/proc/{}", child.0.id());
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    // A limit of 1, not of 0, prevents a core dump to a program in `kernel.core_pattern`.
    assert_eq!(limit.split_whitespace().next(), Some("1"), "{limits}");
    // In `/proc`, a process that is not dumpable belongs to root, so its user cannot read its
    // memory.
    assert_eq!(fs::metadata(format!("{proc}/mem")).unwrap().uid(), 0);
    for file in ["mem", "environ", "maps"] {
        let read = Command::new("head")
            .args(["-c", "1", &format!("{proc}/{file}")])
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        let error = String::from_utf8(read.unwrap().stderr).unwrap();
        assert!(error.contains("Permission denied"), "{file}: {error}");
    }
    let status = child.abort();
    assert!(status.signal() == Some(Signal::ABORT.as_raw()) && !status.core_dumped(), "{status:?}");
    let cores: Vec<String> =
        names(host.path("")).into_iter().filter(|name| name.starts_with("core")).collect();
    assert!(cores.is_empty(), "{cores:?}");
}

#[test]
#[ignore = "tools"]
fn a_key_and_a_passphrase_are_read_from_descriptors() {
    needs_root();
    // A process that is not dumpable still reads its own descriptors.
    let host = Host::new();
    let pem = host.key.to_pem(Some("right")).unwrap();
    host.file("keys/exporter.key", pem.as_bytes());
    let bundle = host.file("b.tar", Bundle::of(days(-1), &[Part::db(days(-1))]).signed(&host.key));
    let other = trivy_ferry::trust::key::SigningKey::generate().unwrap();
    host.file("keys/other.key", other.to_pem(Some("right")).unwrap().as_bytes());
    give(&host.path(""));
    let mut command = host.command();
    command.args(["sign", bundle.to_str().unwrap(), "--trust", &host.at("keys/exporter.pub")]);
    command.args(["--key", "/dev/fd/3", "--passphrase-file", "/dev/fd/4"]);
    let mut shell = by_nobody(&command);
    let line = format!("exec \"$0\" \"$@\" 3<{} 4<pass", host.at("keys/other.key"));
    host.file("pass", "right\n");
    let words: Vec<_> = shell.get_args().skip(2).map(ToOwned::to_owned).collect();
    let mut with = Command::new("/bin/sh");
    with.arg("-c").arg(line).args(words).current_dir(host.path("")).uid(NOBODY).gid(NOBODY);
    with.env_clear().envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell = with;
    let ran = forge::run(shell);
    ran.good();
    assert!(ran.out.contains(&other.public().id().fingerprint()), "{ran:#?}");
}
