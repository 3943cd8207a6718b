//! Failing media: the written data is correct, or the export or the import reports the damage.

use std::fs;
use std::process::Command;

use test_kit::host::names;
use test_kit::process::Run;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Bundle, Host, Part, days, hours};

/// The offset of a byte in the middle of the large layer of [`upstream`].
const BAD_BYTE: &str = "3000000";

fn upstream() -> Upstream {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 5_000_000);
    upstream
}

/// Returns a host with `medium.so`. A preloaded `medium.so` makes the medium fail.
fn host() -> Host {
    let host = Host::new();
    host.write_key();
    fs::create_dir_all(host.path("stick")).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/media/medium.c");
    let library = host.path("medium.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).status();
    assert!(built.unwrap().success());
    host
}

fn export(host: &Host, upstream: &Upstream, more: &[&str]) -> Command {
    let mut command = host.command();
    command.args(["export", "--key", "exporter.key", "--output", "stick", "--state-dir", "state"]);
    command.args(upstream.flags()).args(more);
    command
}

/// Exports to a medium that damages one byte.
fn failing(host: &Host, upstream: &Upstream, more: &[&str]) -> Run {
    let mut command = export(host, upstream, more);
    command.env("LD_PRELOAD", host.path("medium.so")).env("BAD_BYTE", BAD_BYTE);
    forge::run(command)
}

#[test]
fn the_written_data_is_read_back_and_compared() {
    let (host, upstream) = (host(), upstream());
    let ran = failing(&host, &upstream, &["--verify-after-write"]);
    ran.fails_with(7, &["the data read back from the medium differs", "Use another medium"]);
    assert_eq!(fs::read_dir(host.path("stick")).unwrap().count(), 0, "nothing is left there");
    let ran = forge::run(export(&host, &upstream, &["--verify-after-write"]));
    ran.good();
    assert!(ran.out.contains("validated, signed, synced, read back."), "{ran:#?}");
    host.verify(&host.path("stick"), &[]).good();
    // Without the flag, the export does not notice the damage, but `verify` on the other side does.
    fs::remove_dir_all(host.path("stick")).unwrap();
    fs::create_dir(host.path("stick")).unwrap();
    failing(&host, &upstream, &[]).good();
    host.verify(&host.path("stick"), &[]).fails_with(4, &[]);
}

#[test]
#[ignore = "tools"]
fn the_data_is_read_back_from_the_medium_and_not_from_memory() {
    let (host, upstream) = (host(), upstream());
    let run = |more: &[&str]| {
        // The mount ends with the shell.
        let line = "truncate -s 64M stick.img && mkfs.ext4 -q -F stick.img && mount -o loop stick.img stick && \
                    LD_PRELOAD=./medium.so BAD_IMAGE=./stick.img \"$@\"";
        let export = export(&host, &upstream, more);
        let mut command = host.in_own_mounts(line);
        command.arg(export.get_program()).args(export.get_args()).env("BAD_BYTE", BAD_BYTE);
        forge::run(command)
    };
    run(&[]).good();
    run(&["--verify-after-write"]).fails_with(7, &["the data read back from the medium differs"]);
}

/// Runs the program, and makes one system call on these files fail, selected by name and number.
/// With a `+` after the number, all later calls fail as well.
fn with_fault(host: &Host, call: &str, error: &str, when: &str, files: &[&str], args: &[String]) -> Run {
    let mut command = Command::new("strace");
    command.current_dir(host.path(".")).args(["-f", "-qq", "-o", "/dev/null"]);
    for file in files {
        command.args(["-P", &host.at(file)]);
    }
    command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:error={error}:when={when}")]);
    command.arg(env!("CARGO_BIN_EXE_trivy-ferry")).args(args);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", host.path("home"));
    command.env("TMPDIR", host.path("tmp")).env("TRIVY_FERRY_RETRIES", "0");
    forge::run(command)
}

#[test]
#[ignore = "tools"]
fn a_medium_that_fails_or_is_pulled_at_any_read_leaves_the_old_data() {
    let host = Host::new();
    let bundle = |age| Bundle::of(hours(age), &Part::all(days(age)));
    host.import(&host.file("old.tar", bundle(-3).signed(&host.key)), &[]).good();
    host.file("stick/b.tar", bundle(-1).signed(&host.key));
    let args =
        ["import", "stick", "--cache-dir", "cache", "--state-dir", "state", "--trust", "keys/exporter.pub"];
    let args: Vec<String> =
        [&args[..], &["--data-home", "home"]].concat().iter().map(|arg| (*arg).into()).collect();
    for (error, and_after) in [("EIO", ""), ("ENODEV", "+")] {
        let before = host.snapshot();
        let mut fault = 1;
        loop {
            let when = format!("{fault}{and_after}");
            let ran = with_fault(&host, "pread64", error, &when, &["stick/b.tar"], &args);
            if ran.code == 0 {
                break;
            }
            // The error names the file, and the hint names the next step.
            ran.fails_with(4, &["stick/b.tar could not be read", "Copy it again"]);
            assert!(host.snapshot() == before, "read {when} failed, and something changed");
            fault += 1;
            assert!(fault < 500, "the import never succeeds");
        }
        assert!(fault > 20, "{fault} reads");
        assert_eq!(host.installed("cache", "db").unwrap(), days(-1).to_string());
        // Restore the initial state for the next error.
        fs::remove_dir_all(host.path("cache")).unwrap();
        fs::remove_dir_all(host.path("state")).unwrap();
        host.import(&host.path("old.tar"), &[]).good();
    }
}

#[test]
#[ignore = "tools"]
fn a_medium_that_fails_at_any_write_has_no_incomplete_bundle() {
    let (host, upstream) = (host(), Upstream::new(|_, _| None));
    upstream.publish(0, 9_000_000);
    let args = ["export", "--key", "exporter.key", "--output", "stick/b.tar", "--state-dir", "state"];
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).chain(upstream.flags()).collect();
    let medium = || names(host.path("stick"));
    let mut failed = 0;
    for call in ["write,pwrite64", "fsync", "rename,renameat,renameat2"] {
        for fault in 1.. {
            let files = ["stick/b.tar.partial", "stick/b.tar.plan.partial", "stick/b.tar", "stick"];
            let ran = with_fault(&host, call, "EIO", &fault.to_string(), &files, &args);
            if ran.code == 0 {
                host.verify(&host.path("stick/b.tar"), &[]).good();
                fs::remove_file(host.path("stick/b.tar")).unwrap();
                break;
            }
            failed += 1;
            assert!(matches!(ran.code, 1 | 7), "{call} {fault}: {ran:#?}");
            assert!(ran.err.contains("stick"), "{call} {fault}: {ran:#?}");
            // A file with the name of a bundle is complete: only the last sync, after the rename,
            // may have failed.
            if medium().contains(&"b.tar".to_owned()) {
                host.verify(&host.path("stick/b.tar"), &[]).good();
                fs::remove_file(host.path("stick/b.tar")).unwrap();
            }
            assert!(fault < 300, "the export never succeeds");
        }
    }
    assert!(failed > 8, "{failed}");
}
