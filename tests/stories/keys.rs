//! Keys: made once, trusted after a comparison, and worth nothing beside the bundle.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use crate::kit::{Host, Run, files, laid_out, text};

#[test]
fn keygen_never_overwrites() {
    let laptop = Host::bare();
    let (private, public) = laptop.keygen();
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o600);
    let before = (text(&private), text(&public));
    laptop.ferry("keygen --out ferry").exits(2).says("ferry.key");
    assert_eq!((text(&private), text(&public)), before);
    // Half a pair is somebody's pair.
    fs::remove_file(&private).unwrap();
    laptop.ferry("keygen --out ferry").exits(2).says("ferry.pub");
    assert_eq!(files(&laptop.at("")), ["ferry.pub"]);
    assert_eq!(text(&public), before.1);
}

#[test]
fn whatever_the_umask_the_public_key_is_for_all_and_the_private_one_for_nobody() {
    for umask in ["077", "000"] {
        let laptop = Host::bare();
        let ferry = env!("CARGO_BIN_EXE_trivy-ferry");
        laptop.sh(&format!("umask {umask}; {ferry} keygen --out ferry")).exits(0);
        let mode = |name: &str| fs::metadata(laptop.at(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("ferry.key"), mode("ferry.pub")), (0o600, 0o644));
    }
}

#[test]
fn no_key_yet() {
    let (laptop, station) = (Host::bare(), Host::bare());
    let out = laptop.folder("out");
    let flags = laid_out(&laptop);
    laptop
        .ferry(&format!("export --key missing.key --output {out} {flags}"))
        .exits(2)
        .says("missing.key")
        .says("trivy-ferry keygen");
    laptop.keygen();
    let bundle = laptop.export(&out, &flags);
    if !fs::exists("/etc/trivy-ferry/trusted").unwrap() {
        station.ferry(&format!("import {bundle} --cache-dir cache")).exits(2).says("trivy-ferry trust add");
    }
    // A key that somebody else made.
    let (_, other) = station.keygen();
    station.ferry(&format!("import {bundle} --cache-dir cache --trust {other}")).exits(4).says(&bundle);
    assert!(!fs::exists(station.at("cache/db")).unwrap());
}

/// An ordinary user of a host. For root, `trust` means the whole host's folder in /etc, which no
/// test may touch: then the tests run as somebody else, with a copy of the program that they can
/// reach.
struct User {
    host: Host,
    program: String,
}

impl User {
    const ID: u32 = 4567;

    fn new() -> User {
        let host = Host::bare();
        let program = host.at("trivy-ferry");
        fs::copy(env!("CARGO_BIN_EXE_trivy-ferry"), &program).unwrap();
        fs::set_permissions(host.at(""), fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(host.at(""), Some(Self::ID), Some(Self::ID)).unwrap();
        }
        User { host, program }
    }

    fn ferry(&self, line: &str) -> Run {
        let mut command = self.host.command(&self.program);
        command.env("PATH", "/nonexistent").env("XDG_CONFIG_HOME", self.host.at("config"));
        if rustix::process::geteuid().is_root() {
            command.uid(Self::ID).gid(Self::ID);
        }
        Run::of(command.args(line.split_whitespace()), &format!("trivy-ferry {line}"))
    }
}

#[test]
fn a_key_is_trusted_by_its_fingerprint_until_it_is_removed() {
    let laptop = Host::bare();
    let made = laptop.ferry("keygen --out laptop --format json").exits(0).json();
    let fingerprint = made["fingerprint"].as_str().unwrap().replace(' ', "");
    let bundle = laptop.export_with(&laptop.at("laptop.key"), &laptop.folder("out"), &laid_out(&laptop));
    let user = User::new();
    let public = user.host.at("laptop.pub");
    fs::copy(laptop.at("laptop.pub"), &public).unwrap();
    let carried = user.host.at("default.tar");
    fs::copy(bundle, &carried).unwrap();
    let verify = format!("verify {carried}");

    // Nobody is there to compare, so nothing is trusted.
    user.ferry(&format!("trust add {public}")).exits(2).says("--fingerprint");
    let wrong = fingerprint.replace(|c: char| c.is_ascii_digit(), "0");
    user.ferry(&format!("trust add {public} --fingerprint {wrong}")).exits(2).says("Do not trust it");
    user.ferry(&verify).exits(2);

    user.ferry(&format!("trust add {public} --fingerprint {fingerprint} --name monday")).exits(0);
    assert_eq!(files(&user.host.at("config")), ["trivy-ferry/trusted/monday.pub"]);
    user.ferry("trust list").exits(0).says("monday.pub").says(made["fingerprint"].as_str().unwrap());
    user.ferry(&verify).exits(0).says("trusted: monday.pub");

    user.ferry("trust remove tuesday").exits(2).says("trust list");
    user.ferry(&format!("trust add {public} --fingerprint {fingerprint} --name copy.pub")).exits(0);
    user.ferry("trust remove copy").exits(0).says("the same key is still trusted as monday.pub");
    user.ferry("trust remove monday").exits(0);
    user.ferry("trust list").exits(0).does_not_say("monday");
    user.ferry(&verify).exits(2);
}

#[test]
fn a_key_beside_the_bundle_earns_a_warning() {
    let (laptop, station) = (Host::bare(), Host::bare());
    let (_, public) = laptop.keygen();
    let stick = station.folder("stick");
    let bundle = laptop.export(&stick, &laid_out(&laptop));
    let beside = format!("{stick}/ferry.pub");
    fs::copy(&public, &beside).unwrap();
    for input in [&stick, &bundle] {
        station
            .ferry(&format!("import {input} --trust {beside} --cache-dir cache"))
            .exits(0)
            .says("proves nothing by itself");
    }
    // Elsewhere it is as good as any; but on a medium that is not the system's own, every folder
    // is "beside", and then this part would test nothing.
    let device = |path: &str| fs::metadata(path).unwrap().dev();
    if device(&stick) == device("/") {
        let line = format!("import {stick} --trust {public} --cache-dir cache");
        station.ferry(&line).exits(0).does_not_say("proves nothing by itself");
    }
}
