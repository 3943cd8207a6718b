//! Lost or damaged volumes are rebuilt from parity, and the result must match the signed digests.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use test_kit::host::contents;
use test_kit::process::Run;
use trivy_ferry::trust::key::SigningKey;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Host};

const MIB: usize = 1 << 20;

/// The content of a directory, by name.
type Directory = BTreeMap<String, Vec<u8>>;

fn host() -> Host {
    let host = Host::new();
    host.write_key();
    host
}

impl Host {
    /// Exports into `out`.
    fn export_volumes(&self, generation: u64, more: &[&str]) -> Run {
        let upstream = Upstream::new(|_, _| None);
        upstream.publish(generation, 5 * MIB);
        let mut command = self.command();
        command.args(["export", "--key", "exporter.key", "--output", "out", "--state-dir", "exported"]);
        command.args(upstream.flags()).args(more);
        let ran = forge::run(command);
        ran.good();
        ran
    }

    fn out(&self) -> Directory {
        contents(self.path("out"))
    }

    fn put_out(&self, directory: &Directory) {
        fs::remove_dir_all(self.path("out")).unwrap();
        fs::create_dir(self.path("out")).unwrap();
        for (name, bytes) in directory {
            fs::write(self.path("out").join(name), bytes).unwrap();
        }
    }

    fn repair(&self) -> Run {
        self.run(&["repair", "out", "--trust", "keys/exporter.pub"])
    }

    fn import_anew(&self) -> Run {
        for directory in ["cache", "state"] {
            let _ = fs::remove_dir_all(self.path(directory));
        }
        self.import(&self.path("out"), &[])
    }
}

fn named(directory: &Directory, end: &str) -> String {
    directory
        .keys()
        .find(|name| name.ends_with(end))
        .unwrap_or_else(|| panic!("{end}: {:?}", directory.keys()))
        .clone()
}

/// Returns a directory with one changed file. A file without bytes is removed.
fn with(directory: &Directory, end: &str, change: impl FnOnce(&mut Vec<u8>)) -> Directory {
    let mut directory = directory.clone();
    let name = named(&directory, end);
    let bytes = directory.get_mut(&name).unwrap();
    change(bytes);
    if bytes.is_empty() {
        directory.remove(&name);
    }
    directory
}

#[test]
#[ignore = "tools"]
fn a_full_disk_during_a_rebuild_does_not_damage_a_bundle() {
    let host = host();
    host.export_volumes(60, VOLUMES);
    let good = host.out();
    fs::create_dir(host.path("state")).unwrap();
    let run = |size: &str, command_name: &[&str]| {
        let line = format!("mount -t tmpfs -o size={size},mode=700 tmpfs state && \"$@\"");
        let mut command = host.in_own_mounts(&line);
        command.arg(host.command().get_program());
        command.args(command_name).args(["--cache-dir", "cache", "--state-dir", "state"]);
        command.args(["--trust", "keys/exporter.pub", "--data-home", "home"]);
        forge::run(command)
    };
    let watch = ["watch", "out", "--once", "--settle", "1ms"];
    for bad in [with(&good, ".tar.003", Vec::clear), with(&good, ".tar.003", |bytes| bytes[9] ^= 1)] {
        host.put_out(&bad);
        let ran = run("800k", &["import", "out"]);
        ran.fails_with(7, &["state: ", ".tar.003 cannot be rebuilt there: no storage space", "Free space"]);
        run("800k", &watch).exits(7).prints("waits").prints("no storage space");
        let there = |name: &String| host.path("out").join(name).exists();
        assert!(bad.keys().all(there), "nothing was quarantined");
        run("8m", &watch).good().prints("processed");
        assert!(!bad.keys().any(there));
        let _ = fs::remove_dir_all(host.path("cache"));
    }
}

const VOLUMES: &[&str] = &["--volume-size", "1M", "--parity", "30%"];

#[test]
fn every_lost_or_damaged_volume_is_rebuilt() {
    let host = host();
    let said = host.export_volumes(60, VOLUMES);
    assert!(said.out.contains("parity file") && said.out.contains("lost file"), "{said:#?}");
    let good = host.out();
    host.repair().good();
    assert!(host.out() == good, "complete files are not changed");
    let other = Host::with_key(&host.key);
    other.file("exporter.key", host.key.to_pem(None).unwrap().as_bytes());
    other.export_volumes(120, VOLUMES);
    let others = other.out();
    for end in [".tar.000", ".tar.001", ".tar.003", ".tar.006"] {
        let length = good[&named(&good, end)].len();
        let swapped = others[&named(&others, end)].clone();
        let damaged: Vec<Directory> = vec![
            with(&good, end, Vec::clear),
            with(&good, end, |bytes| bytes.truncate(length / 2)),
            with(&good, end, |bytes| bytes.extend(b"more")),
            with(&good, end, |bytes| bytes[0] ^= 1),
            with(&good, end, |bytes| bytes[length - 1] ^= 1),
            with(&good, end, |bytes| *bytes = swapped),
        ];
        for (change, bad) in damaged.iter().enumerate() {
            host.put_out(bad);
            // An import rebuilds the volume temporarily, and does not change the medium.
            let ran = host.import_anew();
            ran.good();
            let name = named(&good, end);
            println!("{end}, {change}");
            ran.warns("rebuilt from parity").warns(&name);
            assert!(host.out() == *bad, "{end}, {change}");
            assert!(host.installed("cache", "db").is_some());
            let left: Vec<_> =
                fs::read_dir(host.path("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with("mended")), "{left:?}");
            let ran = host.repair();
            ran.good();
            assert!(
                ran.out.contains("is complete again") && ran.out.contains(&name),
                "{end}, {change}: {ran:#?}"
            );
            assert!(host.out() == good, "{end}, {change}");
        }
    }
}

#[test]
fn a_bundle_in_one_file_is_rebuilt_in_its_bad_ranges() {
    let host = host();
    host.export_volumes(60, &["--parity", "5%"]);
    let good = host.out();
    for places in [vec![100], vec![2_000_000, 5_000_000], vec![1000, 1_000_000, 2_000_000, 3_000_000]] {
        let bad = with(&good, ".tar", |bytes| places.iter().for_each(|at| bytes[*at] ^= 1));
        host.put_out(&bad);
        host.import_anew().exits(0).warns("rebuilt from parity");
        assert!(host.out() == bad);
        host.repair().good();
        assert!(host.out() == good);
    }
    // If the whole file is lost, parity of 5% is not sufficient.
    let name = named(&good, ".tar");
    host.put_out(&with(&good, ".tar", Vec::clear));
    host.import_anew().fails_with(6, &[]);
    host.repair().fails_with(6, &[&name, "shards are lost, and the parity can rebuild"]);
}

#[test]
fn a_bundle_with_too_little_parity_is_named_and_skipped() {
    let host = host();
    host.export_volumes(60, &["--volume-size", "1M", "--parity", "10%"]);
    let good = host.out();
    let bad = with(&with(&good, ".tar.002", Vec::clear), ".tar.004", Vec::clear);
    host.put_out(&bad);
    host.repair().fails_with(
        6,
        &["shards are lost, and the parity can rebuild", "Copy the missing or damaged volumes again"],
    );
    let ran = host.import_anew();
    ran.fails_with(6, &[&named(&good, ".tar.002"), &named(&good, ".tar.004"), "are missing"]);
    assert_eq!(host.installed("cache", "db"), None);
    assert!(host.out() == bad, "nothing is left behind");
    // A newer good bundle in the same directory is imported, and nothing was rebuilt.
    host.wait(2);
    host.export_volumes(120, &[]);
    assert_eq!(host.import_anew().code, 6);
    let log = fs::read_to_string(host.path("state/imports.jsonl")).unwrap();
    assert!(log.contains("accepted") && !log.contains("repaired"), "{log}");
}

#[test]
fn parity_is_not_trusted() {
    let host = host();
    host.export_volumes(60, VOLUMES);
    let good = host.out();
    // An attacker without the key creates a bundle with the same names, and its parity.
    let forger = Host::new();
    let key = SigningKey::generate().unwrap();
    forger.file("exporter.key", key.to_pem(None).unwrap().as_bytes());
    forger.export_volumes(120, VOLUMES);
    let forged = forger.out();
    let end_of = |name: &str| name.split_once('.').unwrap().1.to_owned();
    let mut mixed = good.clone();
    let parities: Vec<String> = good.keys().filter(|name| name.contains(".par.")).cloned().collect();
    for name in &parities {
        mixed.insert(name.clone(), forged[&named(&forged, &end_of(name))].clone());
    }
    // Complete volumes are not changed, even if parity differs.
    host.put_out(&mixed);
    host.import_anew().good();
    let ran = host.repair();
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert!(host.out() == mixed);
    // A lost volume is only rebuilt if the result matches the signed digest.
    let lost = with(&mixed, ".tar.002", Vec::clear);
    host.put_out(&lost);
    assert_ne!(host.import_anew().code, 0);
    assert_eq!(host.installed("cache", "db"), None);
    assert_ne!(host.repair().code, 0);
    assert!(host.out() == lost);
    // A completely forged set is rejected because of its signature.
    host.put_out(&with(&forged, ".tar.002", Vec::clear));
    let ran = host.import_anew();
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert_ne!(host.repair().code, 0);
    // The true parity is found beside forged parity.
    let mut both = with(&good, ".tar.002", Vec::clear);
    both.insert(parities[0].replace(".par.001", ".par.900"), forged[&named(&forged, ".par.001")].clone());
    host.put_out(&both);
    host.import_anew().exits(0).warns("rebuilt from parity");
}

#[test]
fn a_head_that_was_signed_again_stays() {
    let host = host();
    host.export_volumes(60, VOLUMES);
    let good = host.out();
    let other = SigningKey::generate().unwrap();
    host.file("other.key", other.to_pem(None).unwrap().as_bytes());
    let head = format!("out/{}", named(&good, ".tar.000"));
    host.run(&["sign", &head, "--key", "other.key", "--trust", "keys/exporter.pub"]).good();
    let signed = host.out();
    assert!(signed != good);
    host.repair().good();
    assert!(host.out() == signed, "the second signature is still there");
    host.put_out(&with(&signed, ".tar.003", Vec::clear));
    host.repair().good();
    assert!(host.out() == signed);
}

#[test]
fn parity_is_removed_together_with_its_bundle() {
    let host = host();
    host.export_volumes(60, VOLUMES);
    let first: Vec<PathBuf> = host.out().keys().map(PathBuf::from).collect();
    host.wait(2);
    host.export_volumes(120, &[VOLUMES, &["--keep", "1", "--verify-after-write"]].concat());
    let left: Vec<PathBuf> = host.out().keys().map(PathBuf::from).collect();
    assert!(!left.iter().any(|name| first.contains(name)), "{left:?}");
    assert!(left.iter().any(|name| name.to_str().unwrap().contains(".par.001")), "{left:?}");
    host.run(&["repair", "keys", "--trust", "keys/exporter.pub"])
        .fails_with(2, &["there are no parity files"]);
}

/// ISO 9660 without extensions, kiosks and mail gateways rename parity files and heads in the same
/// way as volumes.
#[test]
fn renamed_parity_files_are_assigned_to_renamed_heads() {
    let host = host();
    host.export_volumes(60, VOLUMES);
    let good = host.out();
    let all = |name: &str| {
        let number = name.rsplit('.').next().unwrap();
        if name.contains(".par.") {
            format!("DEFAULT_.P{}", &number[1..])
        } else {
            format!("DEFAULT_.{number}")
        }
    };
    let head =
        |name: &str| if name.ends_with(".tar.000") { "DEFAULT_.000;1".into() } else { name.to_owned() };
    let parity = |name: &str| if name.contains(".par.") { format!("{name}.txt") } else { name.to_owned() };
    type Rename<'r> = &'r dyn Fn(&str) -> String;
    for (what, rename) in [("all", &all as Rename<'_>), ("head", &head), ("parity", &parity)] {
        let lost = named(&good, ".tar.003");
        let renamed: Directory = good
            .iter()
            .filter(|(name, _)| **name != lost)
            .map(|(name, bytes)| (rename(name), bytes.clone()))
            .collect();
        host.put_out(&renamed);
        println!("{what}");
        host.import_anew().good().warns("rebuilt from parity").warns(&lost);
        assert!(host.out() == renamed, "{what}");
        // This also works if only the head is named.
        let head = host.path("out").join(rename(&named(&good, ".tar.000")));
        let _ = fs::remove_dir_all(host.path("state"));
        host.import(&head, &[]).good().warns("rebuilt from parity");
        host.repair().good().prints("is complete again").prints(&lost);
        assert!(host.out()[&lost] == good[&lost], "{what}");
        host.import_anew().good().does_not_say("from parity").does_not_say("ignored");
        fs::remove_file(&head).unwrap();
        let ran = host.import_anew();
        match what {
            // Volumes and parity have kept their names.
            "head" => ran.good().warns("rebuilt from parity").warns(&named(&good, ".tar.000")),
            _ => ran.exits(6).warns("is missing; other files of the same bundle"),
        };
    }
    // A damaged bundle in one file.
    let _ = fs::remove_dir_all(host.path("exported"));
    host.put_out(&Directory::new());
    host.export_volumes(60, &["--parity", "5%"]);
    let bad = with(&host.out(), ".tar", |bytes| bytes[2_000_000] ^= 1);
    let rename = |name: &String| if name.ends_with(".tar") { "A.BIN".into() } else { "B.BIN".to_owned() };
    host.put_out(&bad.iter().map(|(name, bytes)| (rename(name), bytes.clone())).collect());
    host.import_anew().good().warns("rebuilt from parity");
    host.repair().good().prints("is complete again").prints("A.BIN");
    host.import_anew().good().does_not_say("from parity");
}
