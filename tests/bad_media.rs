//! Media that fail: what is carried is what was written, or somebody knows that it is not.
#![allow(missing_docs, clippy::unwrap_used)]

mod forge;

use std::fs;
use std::process::Command;

use forge::upstream::Upstream;
use forge::{Host, Ran};

/// A byte in the middle of the large layer of [`upstream`].
const BAD_BYTE: &str = "3000000";

fn upstream() -> Upstream {
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 5_000_000);
    upstream
}

/// Whether what only root can do with tools of the system may be tried.
fn all() -> bool {
    let all = std::env::var_os("TRIVY_FERRY_E2E").is_some_and(|value| value == "1");
    if !all {
        println!("skipped: set TRIVY_FERRY_E2E=1, as tests/run does");
    }
    all
}

/// A host whose `medium.so` fails where it is preloaded.
fn host() -> Host {
    let host = Host::new();
    host.file("exporter.key", host.key.to_pem(None).unwrap().as_bytes());
    fs::create_dir_all(host.path("stick")).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/media/medium.c");
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

/// On a stick that loses a byte.
fn failing(host: &Host, upstream: &Upstream, more: &[&str]) -> Ran {
    let mut command = export(host, upstream, more);
    command.env("LD_PRELOAD", host.path("medium.so")).env("BAD_BYTE", BAD_BYTE);
    forge::run(command)
}

#[test]
fn what_is_read_back_is_what_was_written() {
    let (host, upstream) = (host(), upstream());
    let ran = failing(&host, &upstream, &["--verify-after-write"]);
    ran.refused(7, &["what was read back is not what was written", "Do not trust this medium"]);
    assert_eq!(fs::read_dir(host.path("stick")).unwrap().count(), 0, "nothing is left there");
    let ran = forge::run(export(&host, &upstream, &["--verify-after-write"]));
    ran.good();
    assert!(ran.out.contains("Checked, signed, synced, read back: "), "{ran:#?}");
    host.verify(&host.path("stick"), &[]).good();
    // Without it nobody on this side knows; the other side does.
    fs::remove_dir_all(host.path("stick")).unwrap();
    fs::create_dir(host.path("stick")).unwrap();
    failing(&host, &upstream, &[]).good();
    host.verify(&host.path("stick"), &[]).refused(4, &[]);
}

#[test]
fn it_is_read_from_the_medium_and_not_from_memory() {
    if !all() {
        return;
    }
    let (host, upstream) = (host(), upstream());
    let run = |more: &[&str]| {
        // The mount goes with the shell that made it.
        let line = "truncate -s 64M stick.img && mkfs.ext4 -q -F stick.img && mount -o loop stick.img stick && \
                    LD_PRELOAD=./medium.so BAD_IMAGE=./stick.img \"$@\"";
        let export = export(&host, &upstream, more);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", line, "sh"]).arg(export.get_program()).args(export.get_args());
        command.current_dir(host.path(".")).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", host.path("home")).env("TMPDIR", host.path("tmp")).env("BAD_BYTE", BAD_BYTE);
        forge::run(command)
    };
    run(&[]).good();
    run(&["--verify-after-write"]).refused(7, &["what was read back is not what was written"]);
}
