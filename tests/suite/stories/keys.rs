//! Keys are created once, and trusted after a comparison. A key beside the bundle proves nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;

use test_kit::artifact::laid_out;
use test_kit::host::{Host, files, text};
use test_kit::process::Run;

use crate::forge::PROGRAM;
use crate::stories::bare;

#[test]
fn keygen_never_overwrites() {
    let laptop = bare();
    let (private, public) = laptop.keygen();
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o600);
    let before = (text(&private), text(&public));
    laptop.ferry("keygen --name ferry").exits(2).warns("ferry.key");
    assert_eq!((text(&private), text(&public)), before);
    // One file of a pair is not replaced either.
    fs::remove_file(&private).unwrap();
    laptop.ferry("keygen --name ferry").exits(2).warns("ferry.pub");
    assert_eq!(files(laptop.at("")), ["ferry.pub"]);
    assert_eq!(text(&public), before.1);
}

#[test]
fn with_any_umask_all_users_can_read_the_public_key_and_only_its_owner_the_private_key() {
    for umask in ["077", "000"] {
        let laptop = bare();
        let ferry = PROGRAM;
        laptop.sh(&format!("umask {umask}; {ferry} keygen --name ferry")).exits(0);
        let mode = |name: &str| fs::metadata(laptop.at(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("ferry.key"), mode("ferry.pub")), (0o600, 0o644));
    }
}

/// A bundle may contain private images, so the operator decides who can read the copies.
#[test]
fn the_files_of_an_export_are_as_private_as_the_umask_says() {
    for (umask, mode) in [("077", 0o600), ("022", 0o644)] {
        let laptop = bare();
        laptop.keygen();
        let (upstream, out, drop) = (laid_out(&laptop), laptop.dir("out"), laptop.dir("drop"));
        let export = format!("export --key ferry.key {upstream} --output {out} --drop {drop} --heartbeat");
        laptop.sh(&format!("umask {umask}; {PROGRAM} {export}")).exits(0);
        let handed_on = files(&drop);
        assert!(handed_on.len() >= 2, "a bundle and a heartbeat: {handed_on:?}");
        for name in handed_on {
            let found = fs::metadata(format!("{drop}/{name}")).unwrap().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
    }
}

#[test]
fn without_a_trusted_key_the_error_names_the_next_step() {
    let (laptop, importer) = (bare(), bare());
    let out = laptop.dir("out");
    let flags = laid_out(&laptop);
    laptop
        .ferry(&format!("export --key missing.key --output {out} {flags}"))
        .exits(2)
        .warns("missing.key")
        .warns("trivy-ferry keygen");
    laptop.keygen();
    let bundle = laptop.export(&out, &flags);
    if !fs::exists("/etc/trivy-ferry/trusted").unwrap() {
        importer.ferry(&format!("import {bundle} --cache-dir cache")).exits(2).warns("trivy-ferry trust add");
    }
    // The key of another exporter.
    let (_, other) = importer.keygen();
    importer.ferry(&format!("import {bundle} --cache-dir cache --trust {other}")).exits(4).warns(&bundle);
    assert!(!fs::exists(importer.at("cache/db")).unwrap());
}

/// An ordinary user of a host. For root, `trust` uses the system's directory in `/etc`, which tests
/// must not change. So the tests run as another user, with a copy of the program that this user can
/// read.
struct User {
    host: Host,
    program: String,
}

impl User {
    const ID: u32 = 4567;

    fn new() -> User {
        let host = bare();
        let program = host.install(PROGRAM, "trivy-ferry");
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
    let laptop = bare();
    let made = laptop.ferry("keygen --name laptop --format json").exits(0).json();
    let fingerprint = made["fingerprint"].as_str().unwrap().replace(' ', "");
    let bundle = laptop.export_with(&laptop.at("laptop.key"), &laptop.dir("out"), &laid_out(&laptop));
    let user = User::new();
    let public = user.host.at("laptop.pub");
    fs::copy(laptop.at("laptop.pub"), &public).unwrap();
    let carried = user.host.at("default.tar");
    fs::copy(bundle, &carried).unwrap();
    let verify = format!("verify {carried}");

    // Without a terminal to compare the fingerprint, nothing is trusted.
    user.ferry(&format!("trust add {public}")).exits(2).warns("--fingerprint");
    let wrong = fingerprint.replace(|c: char| c.is_ascii_digit(), "0");
    user.ferry(&format!("trust add {public} --fingerprint {wrong}")).exits(2).warns("Do not trust it");
    user.ferry(&verify).exits(2);

    user.ferry(&format!("trust add {public} --fingerprint {fingerprint} --name monday")).exits(0);
    assert_eq!(files(user.host.at("config")), ["trivy-ferry/trusted/monday.pub"]);
    user.ferry("trust list").exits(0).prints("monday.pub").prints(made["fingerprint"].as_str().unwrap());
    user.ferry(&verify).exits(0).prints("trusted: monday.pub");

    // The key is trusted only for streams other than the bundle's. Adding it again does not
    // extend the trust to all streams. `trust require` does not accept more signatures than
    // there are keys.
    let again = format!("trust add {public} --fingerprint {fingerprint} --name monday");
    user.ferry(&format!("{again} --stream weekly --stream lab"))
        .exits(0)
        .prints("only for stream lab, weekly");
    user.ferry(&again).exits(0).prints("only for stream lab, weekly");
    user.ferry(&verify).exits(4).warns("is not trusted");
    user.ferry(&format!("{again} --stream default")).exits(0).prints("only for stream default, lab, weekly");
    user.ferry(&verify).exits(0);
    user.ferry("trust remove monday").exits(0);
    user.ferry(&again).exits(0).does_not_say("only for");
    user.ferry(&verify).exits(0);
    user.ferry("trust require 2").exits(2).warns("2 different keys must sign, and 1 is trusted");
    user.ferry("trust require 1").exits(0);

    // Removing one of two required keys warns that every bundle is rejected, and `trust require` resolves it.
    let other = laptop.ferry("keygen --name second --format json").exits(0).json();
    let other = other["fingerprint"].as_str().unwrap().replace(' ', "");
    fs::copy(laptop.at("second.pub"), user.host.at("second.pub")).unwrap();
    user.ferry(&format!("trust add {} --fingerprint {other}", user.host.at("second.pub"))).exits(0);
    user.ferry("trust require 2").exits(0);
    user.ferry(&verify).exits(4).warns("2 are required");
    let removed = user.ferry("trust remove second --format json").exits(0).json();
    let warned = removed["warnings"][0].as_str().unwrap();
    assert!(warned.starts_with("every bundle is rejected from now on"), "{warned}");
    user.ferry("trust require 2").exits(2).warns("1 is trusted here").warns("trust require");
    user.ferry("trust require 1").exits(0);
    user.ferry(&verify).exits(0);

    user.ferry("trust remove tuesday").exits(2).warns("trust list");
    user.ferry(&format!("trust add {public} --fingerprint {fingerprint} --name copy.pub")).exits(0);
    user.ferry("trust remove copy").exits(0).warns("the same key is still trusted as monday.pub");
    user.ferry("trust remove monday --reset-floors").exits(0);
    user.ferry("trust list").exits(0).does_not_say("monday");
    user.ferry(&verify).exits(2);
}

#[test]
fn a_key_beside_the_bundle_causes_a_warning() {
    let (laptop, importer) = (bare(), bare());
    let (_, public) = laptop.keygen();
    let medium = importer.dir("stick");
    let bundle = laptop.export(&medium, &laid_out(&laptop));
    let beside = format!("{medium}/ferry.pub");
    fs::copy(&public, &beside).unwrap();
    for input in [&medium, &bundle] {
        importer
            .ferry(&format!("import {input} --trust {beside} --cache-dir cache"))
            .exits(0)
            .warns("proves nothing by itself");
    }
    // In another directory, it is trusted without a warning. But on a separate medium, every directory counts as
    // "beside", and then this cannot be tested.
    let device = |path: &str| fs::metadata(path).unwrap().dev();
    if device(&medium) == device("/") {
        let line = format!("import {medium} --trust {public} --cache-dir cache");
        importer.ferry(&line).exits(0).does_not_say("proves nothing by itself");
    }
}

#[test]
fn a_key_is_rotated_without_rejected_bundles() {
    let exporter = bare();
    let (old, old_public) = exporter.keygen();
    exporter.ferry("keygen --name next").exits(0);
    let (next, next_public) = (exporter.at("next.key"), exporter.at("next.pub"));
    let bundle = exporter.export_with(&old, &exporter.dir("out"), &laid_out(&exporter));
    let length = fs::metadata(&bundle).unwrap().len();
    let verify = |public: &str| exporter.ferry(&format!("verify {bundle} --trust {public}"));
    verify(&old_public).exits(0);
    verify(&next_public).exits(4);
    // With both signatures, importers that trust either key accept the bundle.
    let sign = format!("sign {bundle} --key {next} --trust {old_public}");
    exporter.ferry(&sign).exits(0).prints("Verified, signed, synced").prints("Payload sha256:");
    verify(&old_public).exits(0);
    verify(&next_public).exits(0);
    assert_eq!(fs::metadata(&bundle).unwrap().len(), length);
    let inspected = exporter.ferry(&format!("inspect {bundle} --trust {next_public} --format json"));
    inspected.exits(0);
    assert_eq!(inspected.json()["bundles"][0]["claimed_keyids"].as_array().unwrap().len(), 2);
    // Signing again changes nothing.
    let before = fs::read(&bundle).unwrap();
    exporter.ferry(&sign).exits(0).prints("Signed by this key before");
    assert_eq!(fs::read(&bundle).unwrap(), before);
    // A bundle without a trusted signature and a damaged bundle are not signed.
    exporter.ferry("keygen --name third").exits(0);
    let third = format!("sign {bundle} --key third.key --trust third.pub");
    exporter.ferry(&third).exits(4);
    let mut damaged = before.clone();
    let at = damaged.len() - 3000;
    damaged[at] ^= 1;
    fs::write(&bundle, &damaged).unwrap();
    exporter.ferry(&format!("sign {bundle} --key third.key --trust {old_public}")).exits(4);
    assert_eq!(fs::read(&bundle).unwrap(), damaged, "nothing was written");
    // There is space for 8 signatures.
    fs::write(&bundle, &before).unwrap();
    for number in 3..=9 {
        exporter.ferry(&format!("keygen --name key{number}")).exits(0);
        let run = exporter.ferry(&format!("sign {bundle} --key key{number}.key --trust {old_public}"));
        match number {
            9 => drop(run.exits(2).warns("8 signatures")),
            _ => drop(run.exits(0)),
        }
    }
    verify(&exporter.at("key8.pub")).exits(0);
}

#[test]
fn a_command_can_sign_with_a_key_that_trivy_ferry_cannot_read() {
    let exporter = bare();
    let (key, public) = exporter.keygen();
    exporter.ferry("keygen --name other").exits(0);
    exporter.dir("out");
    let flags = laid_out(&exporter);
    let export = |command: &str, public: &str| {
        let line = format!("export --output out --signer-key {public} {flags}");
        let mut export = exporter.ferry_command(&line);
        export.args(["--signer", command]).env("PATH", "/usr/bin:/bin");
        Run::of(&mut export, &line)
    };
    let openssl = format!("openssl pkeyutl -sign -rawin -inkey {key} -in \"$TRIVY_FERRY_PAE\"");
    export(&openssl, &public).exits(0).prints("Signed by");
    exporter.ferry(&format!("verify out --trust {public}")).exits(0);
    let bundles = || files(exporter.at("out")).iter().filter(|name| name.ends_with(".tar")).count();
    assert_eq!(bundles(), 1);
    // The output is used only if it is a signature of the named key.
    export(&openssl, &exporter.at("other.pub")).exits(2).warns("is not a signature of the key");
    export("false", &public).exits(2).warns("`false` did not sign: it ended with exit code 1");
    export("echo rubbish", &public).exits(2).warns("printed 8 bytes");
    assert_eq!(bundles(), 1);
    assert!(files(exporter.at("tmp")).is_empty(), "the data to sign is not left in TMPDIR");
    // `--key` and `--signer` exclude each other, and `--signer` needs `--signer-key`.
    exporter.ferry(&format!("export --output out --key {key} --signer x --signer-key {public}")).exits(2);
    exporter.ferry("export --output out --signer x").exits(2);
}
