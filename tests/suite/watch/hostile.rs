//! An attacker without a key can write to the inbox, but can only cause additional work: genuine
//! files are imported, no such file is lost, and every run ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::{HOUR, Sender, VOLUMES, reason, receiver, split};
use crate::forge::Host;

/// A length that takes longer to read than the 5 minutes that a run may take.
const HUGE: u64 = 1 << 42;

type Files = BTreeMap<String, Vec<u8>>;

fn named(files: &Files, end: &str) -> String {
    files.keys().find(|name| name.ends_with(end)).unwrap_or_else(|| panic!("{end}")).clone()
}

fn is_imported(host: &Host, date: &str) {
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
}

/// Writes a sparse file with a large length.
fn sparse(path: &Path, begin: &[u8], length: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(begin).unwrap();
    file.set_len(length).unwrap();
}

/// Returns a forged header of a parity file, for one file of this length in one shard.
fn forged_parity(length: u64) -> Vec<u8> {
    let begin = 4096;
    let text = serde_json::json!({
        "bundle": format!("sha256:{}", "0".repeat(64)), "files": [length], "shard": length, "parity": 1,
        "first": 0, "count": 1, "checksums": "0".repeat(16),
    });
    let mut text = text.to_string();
    let line = "trivy-ferry-parity-1 00004096 \n".len() + 64;
    text.extend(std::iter::repeat_n(' ', begin - line - text.len()));
    format!("trivy-ferry-parity-1 {begin:08} {}\n{text}", blake3::hash(text.as_bytes()).to_hex()).into_bytes()
}

/// Creates the files that a killed run had taken from the inbox.
fn leave_taken(host: &Host, files: &Files) {
    let taken = host.path("inbox/.trivy-ferry/taken-x");
    fs::create_dir_all(&taken).unwrap();
    for (name, bytes) in files {
        fs::write(taken.join(name), bytes).unwrap();
    }
}

/// Writes a bundle without one volume to the inbox. Returns this volume, the other files, and the
/// date of the database.
fn lacking_one(sender: &mut Sender, host: &Host) -> (Files, Files, String) {
    let (files, date) = sender.export(&["--volume-size", "48K"]);
    let [late, there] = split(&files, |name| name.ends_with(".tar.002"));
    host.put(&there);
    (late, there, date)
}

#[test]
fn a_file_is_not_lost_if_another_file_gets_its_name() {
    let mut sender = Sender::new();
    for more in [&[][..], VOLUMES] {
        let host = receiver(&sender);
        let (files, date) = sender.export(more);
        let files: Files = files.into_iter().filter(|(name, _)| !name.contains(".par.")).collect();
        // A run was killed after it had taken all files, and then other files got all names.
        host.watch(&[]).0.good();
        leave_taken(&host, &files);
        host.put(&files.into_keys().map(|name| (name, b"junk".to_vec())).collect());
        let (ran, report) = host.watch(&[]);
        assert_eq!(report["outcomes"][0]["outcome"], "processed", "{ran:#?}");
        is_imported(&host, &date);
    }
}

#[test]
fn large_sparse_files_are_not_read() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (first, _) = sender.export(&["--volume-size", "48K"]);
    host.put(&first);
    host.watch(&[]).0.good();
    sender.host.wait(2);
    let (files, date) = sender.export(&[]);
    host.put(&files);
    // A parity file that claims 128 GiB, with an old date in its name, and a volume of an imported
    // bundle.
    let par = host.path("inbox/a-20200101t000000z.par.001");
    sparse(&par, &forged_parity(HUGE), 4096 + HUGE);
    sparse(&host.path("inbox").join(named(&first, ".tar.001")), b"", HUGE);
    // To read all of this would take longer than the time limit of the test.
    let (_, report) = host.watch(&[]);
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
    is_imported(&host, &date);
    host.run(&["repair", "inbox", "--trust", "keys/exporter.pub"]);
}

#[test]
fn files_with_names_in_another_case_do_no_harm() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let junk = |files: &Files, twin: &dyn Fn(&str) -> String| -> Files {
        files.iter().map(|(name, bytes)| (twin(name), vec![0; bytes.len()])).collect()
    };
    let twins = |host: &Host, files: &Files| {
        for at in 0..8 {
            let twin = |name: &str| {
                let (begin, rest) = name.split_at(at);
                format!("{begin}{}{}", rest[..1].to_uppercase(), &rest[1..])
            };
            if twin("default-") != "default-" {
                host.put(&junk(files, &twin));
            }
        }
    };
    // The names are the same in another case, and each file has the right length.
    let (files, date) = sender.export(&["--volume-size", "48K"]);
    host.put(&files);
    twins(&host, &files);
    let (ran, report) = host.watch(&[]);
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{ran:#?}");
    is_imported(&host, &date);
    // A junk file has the name of an incomplete bundle. The bundle waits for its missing volume.
    let (late, there, date) = lacking_one(&mut sender, &host);
    let name = named(&there, ".tar.000");
    fs::write(host.path("inbox").join(name.strip_suffix(".000").unwrap()), "junk").unwrap();
    let (ran, report) = host.watch(&[]);
    let outcomes = report["outcomes"].as_array().unwrap();
    assert!(outcomes.len() == 1 && outcomes[0]["why"].as_str().unwrap().contains("is not a"), "{ran:#?}");
    let lacks = |row: &serde_json::Value| row["why"].as_str().unwrap().contains(".tar.002 is missing");
    assert!(report["waiting"].as_array().unwrap().iter().any(lacks), "{report:#}");
    host.put(&late);
    host.watch(&[]);
    is_imported(&host, &date);
    // This bundle has parity, but parity does not show which of the files is right.
    let (files, date) = sender.export(VOLUMES);
    let volume = named(&files, ".tar.001");
    host.put(&files.clone().into_iter().filter(|(name, _)| *name != volume).collect());
    let behind = files.into_iter().filter(|(name, _)| name.contains(".tar.00") && !name.ends_with("000"));
    twins(&host, &behind.collect());
    host.watch(&[]);
    is_imported(&host, &date);
}

#[test]
fn if_there_is_too_little_space_files_without_a_trusted_signature_are_quarantined_first() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (late, _, date) = lacking_one(&mut sender, &host);
    host.watch(&[]).0.good();
    for name in ["yy.tar.001", "zz.tar.001"] {
        sparse(&host.path("inbox").join(name), b"", HUGE);
    }
    let (ran, report) = host.watch(&["--max-waiting", "1G"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    let gone: Vec<&str> =
        report["outcomes"].as_array().unwrap().iter().map(|row| row["bundle"].as_str().unwrap()).collect();
    assert_eq!(gone, ["yy.tar", "zz.tar"], "{report:#}");
    host.put(&late);
    host.watch(&[]).0.good();
    is_imported(&host, &date);
}

#[test]
fn a_bundle_that_cannot_be_quarantined_stays_and_is_not_logged() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (late, there, date) = lacking_one(&mut sender, &host);
    host.watch(&[]).0.good();
    host.wait(2 * HOUR);
    fs::write(host.path("inbox/quarantine"), "in the way").unwrap();
    let ran =
        host.run(&host.watch_args(&["--give-up-after", "1h"]).iter().map(String::as_str).collect::<Vec<_>>());
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert!(there.keys().all(|name| host.path("inbox").join(name).exists()), "{ran:#?}");
    let log = fs::read_to_string(host.path("state/imports.jsonl")).unwrap_or_default();
    assert!(!log.contains("given-up"), "{log}");
    fs::remove_file(host.path("inbox/quarantine")).unwrap();
    host.put(&late);
    host.watch(&[]).0.good();
    is_imported(&host, &date);
}

#[test]
fn a_reason_is_kept_even_if_the_clock_was_ahead_before() {
    let host = Host::new();
    fs::create_dir_all(host.path("inbox/quarantine/20461122t000000000z-a.tar")).unwrap();
    fs::write(host.path("inbox/quarantine/20461122t000000000z-a.tar/reason.json"), "{}").unwrap();
    // The mode is the one that a watch sets, independent of the umask.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(host.path("inbox/quarantine"), mode).unwrap();
    fs::write(host.path("inbox/b.tar"), "rubbish").unwrap();
    let (_, report) = host.watch(&["--keep-quarantined", "1"]);
    let kept = report["outcomes"][0]["reason"].as_str().unwrap();
    assert!(host.path(kept).exists(), "{report:#}");
    assert_eq!(host.shelf("quarantine").len(), 1);
    assert_eq!(reason(&host.shelf("quarantine")[0])["bundle"], "b.tar");
}

#[test]
fn a_heartbeat_is_read_whatever_its_name_is() {
    use std::os::unix::ffi::OsStrExt;
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, _) = sender.export(&["--heartbeat"]);
    let name = named(&files, ".heartbeat.json");
    let odd = std::ffi::OsStr::from_bytes(b"\xff.heartbeat.json");
    fs::create_dir_all(host.path("inbox")).unwrap();
    fs::write(host.path("inbox").join(odd), &files[&name]).unwrap();
    let (ran, report) = host.watch(&[]);
    assert!(report["heartbeats"][0]["heard"].is_object(), "{ran:#?}");
}

#[test]
fn no_volume_is_removed_with_another_bundle_of_its_name() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (old, _) = sender.export(&[]);
    let (_, old_bytes) = old.iter().next().unwrap();
    sender.host.wait(2);
    let (used, _) = sender.export(&[]);
    host.put(&used);
    host.watch(&[]).0.good();
    let (_, used_bytes) = used.iter().next().unwrap();
    let link = |path: &Path| std::os::unix::fs::symlink("nowhere", path).unwrap();
    let junk = |path: &Path| fs::write(path, "junk").unwrap();
    let older = |path: &Path| fs::write(path, old_bytes).unwrap();
    let in_use = |path: &Path| fs::write(path, used_bytes).unwrap();
    let others: [&dyn Fn(&Path); 4] = [&link, &junk, &older, &in_use];
    for (number, other) in others.iter().enumerate() {
        for with_head in [false, true] {
            sender.host.wait(2);
            let (files, date) = sender.export(VOLUMES);
            let (head, lost) = (named(&files, ".tar.000"), named(&files, ".tar.003"));
            // Either the head arrives last, or the bundle lacks more volumes than its parity can
            // rebuild.
            let late = |name: &str| match with_head {
                true => name.contains(".par.") || name.ends_with(".tar.002"),
                false => name == head,
            };
            let [late, there] = split(&files, late);
            host.put(&there.into_iter().filter(|(name, _)| *name != lost).collect());
            other(&host.path("inbox").join(head.strip_suffix(".000").unwrap()));
            host.watch(&[]);
            host.put(&late);
            let (ran, report) = host.watch(&[]);
            let processed = |row: &serde_json::Value| row["outcome"] == "processed";
            assert!(
                report["outcomes"].as_array().unwrap().iter().any(processed),
                "{number} {with_head}: {ran:#?}"
            );
            is_imported(&host, &date);
            assert_eq!(host.inbox(), [""; 0], "{number} {with_head}: {report:#}");
        }
    }
}

#[test]
fn a_heartbeat_is_received_even_if_another_file_gets_its_name() {
    let mut sender = Sender::new();
    for again in [true, false] {
        let host = receiver(&sender);
        let (files, _) = sender.export(&["--heartbeat"]);
        let beats: Files = files.into_iter().filter(|(name, _)| name.ends_with(".heartbeat.json")).collect();
        host.watch(&[]).0.good();
        leave_taken(&host, &beats);
        if again {
            host.put(&beats);
        } else {
            // The only file is in a `beside-` directory.
            let beside = host.path("inbox/.trivy-ferry/beside-1");
            fs::rename(host.path("inbox/.trivy-ferry/taken-x"), beside).unwrap();
        }
        let (ran, report) = host.watch(&[]);
        let heard = report["heartbeats"].as_array().unwrap().iter().filter(|row| row["heard"].is_object());
        assert_eq!(heard.count(), 1, "{ran:#?}");
        assert!(fs::read_to_string(host.path("state/import-default.json")).unwrap().contains("heard"));
    }
}

#[test]
fn an_unusable_quarantine_does_not_prevent_imports() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, date) = sender.export(VOLUMES);
    let lost = named(&files, ".tar.003");
    host.put(&files.into_iter().filter(|(name, _)| *name != lost).collect());
    std::os::unix::fs::symlink("/tmp", host.path("inbox/quarantine")).unwrap();
    host.watch(&[]).0.good();
    is_imported(&host, &date);
}

/// Returns the lines of the log of imports.
fn log(host: &Host) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(host.path("state/imports.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn unsigned_files_are_quarantined_together_and_do_not_fill_the_log() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (old, _) = sender.export(&[]);
    sender.host.wait(2);
    let (files, date) = sender.export(&[]);
    let (_, bytes) = files.iter().next().unwrap();
    // A bundle with another signature: all other bytes are good.
    let at = bytes.windows(6).position(|window| window == b"\"sig\":").unwrap() + 8;
    let mut forged = bytes.clone();
    forged[at..at + 8].copy_from_slice(b"AAAAAAAA");
    let put_junk = |name: &str| {
        for number in 0..60 {
            fs::write(host.path("inbox").join(format!("{name}{number}.tar")), "rubbish").unwrap();
            fs::write(host.path("inbox").join(format!("forged-{name}{number}.tar")), &forged).unwrap();
            let beat = host.path("inbox").join(format!("{name}{number}.heartbeat.json"));
            fs::write(beat, "rubbish").unwrap();
        }
    };
    put_junk("a");
    host.put(&files);
    let (ran, report) = host.watch(&["--keep-quarantined", "100"]);
    assert_eq!(ran.code, 4, "{ran:#?}");
    is_imported(&host, &date);
    assert_eq!(host.inbox(), [""; 0]);
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(outcomes[0]["outcome"], "processed", "the signed bundle is handled first: {report:#}");
    assert!(outcomes.len() <= 24, "{report:#}");
    let together = outcomes.last().unwrap();
    let names = reason(host.path(together["reason"].as_str().unwrap()).parent().unwrap());
    assert!(names["bundles"].as_array().unwrap().len() > 90, "{names:#}");
    let kept: usize =
        host.shelf("quarantine").iter().map(|directory| super::names(directory).len() - 1).sum();
    assert_eq!(kept, 120, "no file is lost");
    let lines = log(&host);
    assert!(lines.len() <= 24, "{} lines", lines.len());
    let told = |line: &serde_json::Value| line["why"].as_str().is_some_and(|why| why.contains("more files"));
    assert!(lines.iter().any(told), "{lines:?}");
    // More unsigned files within the hour add no lines. A signed bundle that is rejected adds one.
    put_junk("b");
    let older = host.path("inbox/older.tar");
    fs::write(older, old.values().next().unwrap()).unwrap();
    host.watch(&[]);
    assert_eq!(host.inbox(), [""; 0]);
    let added = log(&host).split_off(lines.len());
    assert_eq!(added.len(), 1, "{added:?}");
    assert!(added[0]["identity"].is_string() && added[0]["event"] == "refused", "{added:?}");
}

#[test]
fn empty_files_with_similar_names_do_not_delay_an_import() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, date) = sender.export(&["--volume-size", "48K"]);
    host.put(&files);
    // There are many files without data whose names differ from the volumes only in their case.
    for (name, bytes) in files.iter().filter(|(name, _)| !name.ends_with(".000")) {
        for number in 1..200u32 {
            let letters = name.chars().enumerate().map(|(at, c)| match number >> at.min(31) & 1 {
                1 => c.to_ascii_uppercase(),
                _ => c,
            });
            let twin = host.path("inbox").join(letters.collect::<String>());
            if !twin.exists() {
                sparse(&twin, b"", bytes.len() as u64);
            }
        }
    }
    let (ran, report) = host.watch(&[]);
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{ran:#?}");
    is_imported(&host, &date);
}
