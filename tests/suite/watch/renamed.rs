//! A gateway or a disc without long names renames volumes. They are handled as if they had kept
//! their names.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::{HOUR, Sender, VOLUMES, receiver};
use crate::forge::Host;

/// Returns another name for a file of the kind `tar` or `par` with a number. The head has number 0,
/// and parity files follow the volumes.
type Rename = fn(&str, usize) -> String;

/// Unrelated names, names of duplicates on Windows, names with an additional extension, and ISO
/// 9660.
const KINDS: &[(&str, Rename)] = &[
    ("plain", |_, number| if number % 2 == 0 { format!("Y{number}") } else { format!("Y{number}.bin") }),
    ("counted", |what, number| format!("DEFAULT_({number}).{what}.{number:03}")),
    ("ended", |what, number| match what {
        "tar" => format!("file.tar.{number:03}.tar"),
        _ => format!("file.par.{number:03}.txt"),
    }),
    ("iso", |_, number| format!("DEFAULT_.{number:03};1")),
];

/// Exports a bundle in volumes. Returns its files by number, with the parity at the end.
fn numbered(sender: &mut Sender, more: &[&str]) -> (BTreeMap<usize, Vec<u8>>, String) {
    let (files, date) = sender.export(more);
    let is_parity = |name: &str| name.contains(".par.");
    let (parity, volumes): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| is_parity(name));
    let all = volumes.into_iter().chain(parity).map(|(_, bytes)| bytes);
    (all.enumerate().collect(), date)
}

fn put<'f>(host: &Host, rename: Rename, files: impl IntoIterator<Item = (&'f usize, &'f Vec<u8>)>) {
    for (number, bytes) in files {
        let what = if bytes.starts_with(b"trivy-ferry-parity-1") { "par" } else { "tar" };
        fs::write(host.path("inbox").join(rename(what, *number)), bytes).unwrap();
    }
}

fn is_processed(host: &Host, report: &Value, date: &str, what: &str) {
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{what}: {report:#}");
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()), "{what}");
    assert_eq!(host.inbox(), [""; 0], "{what}");
    assert!(host.shelf("quarantine").is_empty(), "{what}");
}

#[test]
fn a_lost_volume_of_a_renamed_bundle_is_rebuilt_from_parity() {
    for (kind, rename) in KINDS {
        let mut sender = Sender::new();
        let host = receiver(&sender);
        let (mut files, date) = numbered(&mut sender, VOLUMES);
        files.remove(&1);
        put(&host, *rename, &files);
        let (ran, report) = host.watch(&[]);
        ran.good();
        assert!(ran.err.contains("repaired "), "{kind}: {ran:#?}");
        is_processed(&host, &report, &date, kind);
    }
}

#[test]
fn renamed_volumes_are_quarantined_with_their_head_and_put_back() {
    for (kind, rename) in KINDS {
        for late in ["late.bin", "LATE_(9).tar.009", "z.tar.001.tar"] {
            let what = &format!("{kind}, {late}");
            let mut sender = Sender::new();
            let host = receiver(&sender);
            let (mut files, date) = numbered(&mut sender, &VOLUMES[..2]);
            let lost = files.remove(&1).unwrap();
            put(&host, *rename, &files);
            let (ran, report) = host.watch(&["--give-up-after", "1h"]);
            ran.good();
            assert_eq!(report["waiting"].as_array().unwrap().len(), 1, "{what}: {report:#}");
            assert!(report["waiting"][0]["why"].as_str().unwrap().contains(".tar.001"), "{what}: {report:#}");
            host.wait(2 * HOUR);
            let (ran, report) = host.watch(&["--give-up-after", "1h"]);
            assert_eq!(ran.code, 6, "{what}: {ran:#?}");
            assert_eq!(report["outcomes"].as_array().unwrap().len(), 1, "{what}: {report:#}");
            assert_eq!(host.inbox(), [""; 0], "{what}");
            fs::write(host.path("inbox").join(late), &lost).unwrap();
            let (ran, report) = host.watch(&[]);
            ran.good();
            assert!(ran.err.contains("back "), "{what}: {ran:#?}");
            is_processed(&host, &report, &date, what);
        }
    }
}

#[test]
fn a_renamed_good_copy_replaces_a_damaged_volume() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    for late in ["late.bin", "LATE_(9).tar.009"] {
        let (files, date) = sender.export(&VOLUMES[..2]);
        let mut damaged = files.clone();
        let second = files.keys().find(|name| name.ends_with(".tar.002")).unwrap();
        damaged.get_mut(second).unwrap()[100] ^= 1;
        host.put(&damaged);
        assert_eq!(host.watch(&[]).0.code, 4);
        // There are two copies, of which one is not needed.
        fs::write(host.path("inbox").join(late), &files[second]).unwrap();
        fs::write(host.path("inbox/twin.bin"), &files[second]).unwrap();
        let (ran, report) = host.watch(&[]);
        ran.good();
        assert_eq!(host.inbox(), [second.as_str(), "twin.bin"], "files that the bundle does not need stay");
        host.inbox().iter().for_each(|name| fs::remove_file(host.path("inbox").join(name)).unwrap());
        is_processed(&host, &report, &date, late);
    }
}

#[test]
fn a_late_head_is_combined_with_its_quarantined_volumes() {
    for (kind, rename) in KINDS {
        let mut sender = Sender::new();
        let host = receiver(&sender);
        let (mut files, date) = numbered(&mut sender, &VOLUMES[..2]);
        let head = files.remove(&0).unwrap();
        put(&host, *rename, &files);
        host.watch(&["--give-up-after", "1h"]);
        host.wait(2 * HOUR);
        host.watch(&["--give-up-after", "1h"]);
        fs::write(host.path("inbox/head"), &head).unwrap();
        let (ran, report) = host.watch(&[]);
        ran.good();
        is_processed(&host, &report, &date, kind);
    }
}

#[test]
fn renamed_volumes_count_for_max_waiting() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (mut files, _) = numbered(&mut sender, &VOLUMES[..2]);
    files.remove(&1);
    put(&host, KINDS[0].1, &files);
    let (ran, report) = host.watch(&["--max-waiting", "100K"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    assert!(report["outcomes"][0]["why"].as_str().unwrap().contains("exceed --max-waiting"), "{report:#}");
    assert_eq!(host.inbox(), [""; 0]);
}

#[test]
fn files_with_unknown_names_that_belong_to_no_bundle_stay() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, _) = numbered(&mut sender, &VOLUMES[..2]);
    let length = files[&1].len();
    // A volume without its head, and many files of the same size.
    fs::write(host.path("inbox/Y1"), &files[&1]).unwrap();
    for number in 0..200 {
        fs::write(host.path(format!("inbox/f{number}.bin")), vec![number; length]).unwrap();
    }
    let before = host.inbox();
    host.watch(&["--give-up-after", "1h"]).0.good();
    host.wait(2 * HOUR);
    let (ran, report) = host.watch(&["--give-up-after", "1h", "--max-waiting", "10K"]);
    ran.good();
    assert_eq!((&report["outcomes"], &report["waiting"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(host.inbox(), before);
    // A head without its volumes is quarantined alone, and the other files do not prevent imports.
    let (next, date) = numbered(&mut sender, &VOLUMES[..2]);
    fs::write(host.path("inbox/head"), &next[&0]).unwrap();
    host.watch(&["--give-up-after", "1h"]).0.good();
    host.wait(2 * HOUR);
    assert_eq!(host.watch(&["--give-up-after", "1h"]).0.code, 6);
    assert_eq!(host.inbox(), before);
    put(&host, |_, number| format!("DEFAULT_.{number:03}"), &next);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
    assert_eq!(host.inbox(), before);
}
