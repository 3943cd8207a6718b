//! Damaged and hostile bundles: every kind of damage to every member, invalid payloads with a valid
//! signature, and files that are not bundles. Each is rejected with its exit code and a
//! message of two sentences, and the cache does not change.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use test_kit::process::Run;
use trivy_ferry::content_digest::ContentDigest;
use trivy_ferry::dataset::check::UnpackLimits;
use trivy_ferry::dataset::vex::{self, ArchiveFormat};
use trivy_ferry::dataset::{Discard, Kind};
use trivy_ferry::digest::Digest;
use trivy_ferry::trust::key::SigningKey;

use crate::forge::{
    self, Archive, Bundle, Host, Part, Snapshot, Span, days, fix_checksum, header, hours, zeros,
};

/// Returns a host that has imported a bundle of 3 days ago.
fn host() -> Host {
    let host = Host::new();
    let old = Bundle::of(days(-3), &Part::all(days(-3)));
    host.import(&host.file("old.tar", old.signed(&host.key)), &[]).good();
    host
}

fn newer() -> Bundle {
    Bundle::of(days(-1), &Part::all(days(-1)))
}

/// Asserts that `verify` and `import` reject a file, and that nothing has changed.
#[track_caller]
fn both_reject(host: &Host, before: &Snapshot, path: &Path, code: i32, words: &[&str]) -> Run {
    let name = path.file_name().unwrap().to_str().unwrap();
    let words = [words, &[name]].concat();
    host.verify(path, &[]).harmless().fails_with(code, &words);
    let ran = host.import(path, &[]);
    ran.harmless().fails_with(code, &words);
    assert_eq!(host.snapshot(), *before, "{ran:#?}");
    assert!(host.staged("cache").is_empty(), "{:?}", host.staged("cache"));
    ran
}

/// Asserts that a good bundle is imported after all rejected files.
#[track_caller]
fn then_all_is_well(host: &Host) {
    let path = host.file("then.tar", newer().signed(&host.key));
    let ran = host.import(&path, &[]);
    ran.good();
    assert_eq!(ran.out.matches("installed").count(), 4, "{ran:#?}");
}

#[test]
fn the_forge_creates_valid_bundles() {
    let host = Host::new();
    let path = host.file("good.tar", newer().signed(&host.key));
    host.verify(&path, &[]).good().prints("good: 14 members").prints("trivy-db-2, trivy-java-db-1");
    host.import(&path, &[]).good().prints("first import").prints("installed");
}

/// Changes a member's header and corrects its checksum.
fn reheaded(file: &[u8], span: &Span, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut file = file.to_vec();
    let header = &mut file[span.start..span.content];
    change(header);
    fix_checksum(header);
    file
}

fn flipped(file: &[u8], at: usize, bit: u32) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at] ^= 1 << (bit % 8);
    file
}

/// Returns pseudorandom offsets and bits that are the same in every run.
fn places(seed: usize, from: usize, to: usize) -> Vec<(usize, u32)> {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let drawn = (0..2).map(|_| (from + next() % (to - from), next() as u32));
    drawn.collect::<Vec<_>>().into_iter().chain([(from, 0), (to - 1, 7)]).collect()
}

/// A description of the damage, and the damaged file.
type Damaged = (String, Vec<u8>);

/// Returns all kinds of damage to one member of a file.
fn damages(file: &[u8], spans: &[Span], index: usize) -> Vec<Damaged> {
    [
        moved(file, spans, index),
        with_flips(file, &spans[index], index),
        reheaded_all(file, &spans[index]),
        resized(file, &spans[index]),
    ]
    .concat()
}

/// Returns files with a member that is truncated, removed, doubled or swapped with the next one.
fn moved(file: &[u8], spans: &[Span], index: usize) -> Vec<Damaged> {
    let span = &spans[index];
    let (before, this, after) = (&file[..span.start], &file[span.start..span.end], &file[span.end..]);
    let mut damaged = vec![
        ("cut at its header".to_owned(), before.to_vec()),
        ("cut inside its header".into(), file[..span.start + 300].to_vec()),
        ("cut inside".into(), file[..span.content + span.size / 2].to_vec()),
        ("removed".into(), [before, after].concat()),
        ("doubled".into(), [before, this, this, after].concat()),
    ];
    if let Some(next) = spans.get(index + 1) {
        let swapped = [before, &file[next.start..next.end], this, &file[next.end..]].concat();
        damaged.push(("swapped with the next".into(), swapped));
    }
    damaged
}

/// Returns files with a flipped bit in a member's header, content or padding.
fn with_flips(file: &[u8], span: &Span, index: usize) -> Vec<Damaged> {
    let mut damaged = Vec::new();
    for (at, bit) in places(index, span.start, span.content) {
        damaged.push((format!("header bit flipped at {}", at - span.start), flipped(file, at, bit)));
    }
    // Only the payload and the signature in the envelope are protected. The unsigned key hint may
    // have any value.
    let content = if index == 0 {
        span.content + 20..span.content + 2000
    } else {
        span.content..span.content + span.size
    };
    for (at, bit) in places(index, content.start, content.end) {
        damaged.push((format!("bit flipped at {}", at - span.content), flipped(file, at, bit)));
    }
    if span.content + span.size < span.end {
        for (at, bit) in places(index, span.content + span.size, span.end) {
            damaged.push((format!("padding bit flipped at {at}"), flipped(file, at, bit)));
        }
    }
    damaged
}

/// Returns files with another name, type, mode or owner in a member's header.
fn reheaded_all(file: &[u8], span: &Span) -> Vec<Damaged> {
    let mut damaged = Vec::new();
    let names =
        ["../x", "/etc/cron.d/x", "blobs/sha256/../../../x", "", &span.name.to_uppercase(), "Sha256sums"];
    for name in names.iter().filter(|name| **name != span.name) {
        let renamed = reheaded(file, span, |header| {
            header[..100].fill(0);
            header[..name.len()].copy_from_slice(name.as_bytes());
        });
        damaged.push((format!("renamed to {name:?}"), renamed));
    }
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'x', b'g', b'L', b'S', 0] {
        let retyped = reheaded(file, span, |header| {
            header[156] = kind;
            header[157..166].copy_from_slice(b"/etc/pass");
        });
        damaged.push((format!("of type {kind:?}"), retyped));
    }
    damaged.push((
        "with another mode".into(),
        reheaded(file, span, |header| header[100..107].copy_from_slice(b"0004755")),
    ));
    damaged.push((
        "with another owner".into(),
        reheaded(file, span, |header| header[265..269].copy_from_slice(b"root")),
    ));
    damaged
}

/// Returns files with a longer or shorter member whose header has the new size. Only the signed
/// payload shows the damage.
fn resized(file: &[u8], span: &Span) -> Vec<Damaged> {
    let (before, after) = (&file[..span.start], &file[span.end..]);
    let mut damaged = Vec::new();
    for (what, size) in [("grown by a byte", span.size + 1), ("grown by a block", span.size + 512)] {
        let mut content = file[span.content..span.content + span.size].to_vec();
        content.resize(size, b' ');
        content.resize(size.next_multiple_of(512), 0);
        let head = header(&span.name, size as u64, b'0');
        damaged.push((what.into(), [before, &head, &content, after].concat()));
    }
    damaged.push(("with a size of 0".into(), [before, &header(&span.name, 0, b'0'), after].concat()));
    damaged
}

/// Tests every kind of damage to every second member of the bundle. A second test covers the other
/// half, so that both run in parallel.
fn every_damage(half: usize) {
    let host = host();
    let before = host.snapshot();
    let bundle = newer();
    let (file, spans) = (bundle.signed(&host.key), bundle.spans());
    assert_eq!(spans.last().unwrap().end + 1024, file.len());
    assert!(spans.len() >= 14);
    let mut cases = 0;
    for index in (half..spans.len()).step_by(2) {
        for (what, damaged) in damages(&file, &spans, index) {
            let what = format!("{} {what}", spans[index].name);
            if damaged == file {
                panic!("{what} is no damage");
            }
            let path = host.file("bundle.tar", &damaged);
            let (verified, imported) = (host.verify(&path, &[]), host.import(&path, &[]));
            for ran in [&verified, &imported] {
                assert_eq!(ran.code, 4, "{what}: {ran:#?}");
                ran.harmless().fails_with(4, &["bundle.tar"]);
            }
            assert_eq!(host.snapshot(), before, "{what}");
            assert!(host.staged("cache").is_empty(), "{what}");
            cases += 1;
        }
    }
    assert!(cases > 200, "{cases}");
    then_all_is_well(&host);
}

#[test]
fn damage_to_even_members_is_rejected() {
    every_damage(0);
}

#[test]
fn damage_to_odd_members_is_rejected() {
    every_damage(1);
}

#[test]
fn additional_and_missing_bytes_are_rejected() {
    let host = host();
    let before = host.snapshot();
    let file = newer().signed(&host.key);
    let end = file.len() - 1024;
    let longer = |extra: &[u8]| [&file[..], extra].concat();
    let mut dirty_end = file.clone();
    dirty_end[end + 700] = 1;
    for (damaged, word) in [
        (longer(&[0]), "1 bytes more"),
        (longer(&[0; 512]), "512 bytes more"),
        (longer(&[0; 8192]), "8192 bytes more"),
        (longer(b"#!/bin/sh\n"), "10 bytes more"),
        (longer(&file), "bytes more"),
        (file[..end].to_vec(), "ends after"),
        (file[..end + 512].to_vec(), "ends after"),
        (file[..file.len() - 1].to_vec(), "ends after"),
        (dirty_end, "two blocks of zeros"),
        (Vec::new(), "ends after 0 bytes"),
        (vec![0; 10240], "first member"),
        (file[..511].to_vec(), "ends after 511 bytes"),
    ] {
        both_reject(&host, &before, &host.file("bundle.tar", damaged), 4, &[word]);
    }
    then_all_is_well(&host);
}

#[test]
fn a_manifest_that_is_too_large_is_never_read() {
    let host = host();
    let before = host.snapshot();
    // The size in the header is 100 MB. The sparse file has that size, so that a read would be
    // possible.
    let path = host.file("sparse.tar", header("manifest.dsse.json", 100_000_000, b'0'));
    fs::File::options().write(true).open(&path).unwrap().set_len(100_020_000).unwrap();
    let ran = both_reject(&host, &before, &path, 4, &["claims 100000000 bytes", "limit: 1048576"]);
    assert!(ran.peak < 32 << 10, "{ran:#?}");
    // The size is not a number, or is in the form for large numbers.
    for size in [&b"zzzzzzzzzzz\0"[..], b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b"77777777777\0"] {
        let mut head = header("manifest.dsse.json", 512, b'0');
        head[124..136].copy_from_slice(size);
        fix_checksum(&mut head);
        both_reject(
            &host,
            &before,
            &host.file("huge.tar", [&head[..], &[b' '; 4096]].concat()),
            4,
            &["limit: "],
        );
    }
    // A correctly signed bundle of 1,000,000 members, whose list is too large for an envelope.
    let mut many = newer();
    many.edit(|payload| {
        let member = payload["members"][3].clone();
        payload["members"] = Value::Array(vec![member; 1_000_000]);
    });
    many.capacity = many.envelope(&[many.signature(&host.key)]).len().next_multiple_of(512);
    let ran =
        both_reject(&host, &before, &host.file("many.tar", many.signed(&host.key)), 4, &["limit: 1048576"]);
    assert!(ran.peak < 32 << 10, "{ran:#?}");
    // A list of members that is as long as possible is rejected because of the members.
    let mut some = newer();
    some.edit(|payload| {
        let member = payload["members"][1].clone();
        payload["members"].as_array_mut().unwrap().extend(vec![member; 5000]);
    });
    some.capacity = (1 << 20) - 512;
    both_reject(&host, &before, &host.file("some.tar", some.signed(&host.key)), 4, &["twice"]);
    then_all_is_well(&host);
}

#[test]
fn an_array_in_place_of_an_envelope_or_a_signature_is_rejected() {
    let host = host();
    let before = host.snapshot();
    let bundle = newer();
    let signature = bundle.signature(&host.key);
    let array = json!([signature["keyid"], signature["sig"]]);
    let path = host.file("bundle.tar", bundle.file(std::slice::from_ref(&array)));
    both_reject(&host, &before, &path, 4, &["invalid type: sequence"]);
    let envelope: Value = serde_json::from_slice(&bundle.envelope(&[signature])).unwrap();
    let all = json!([envelope["payloadType"], envelope["payload"], envelope["signatures"]]).to_string();
    let mut file = bundle.signed(&host.key);
    file[512..512 + bundle.capacity].fill(b' ');
    file[512..512 + all.len()].copy_from_slice(all.as_bytes());
    both_reject(&host, &before, &host.file("bundle.tar", file), 4, &["invalid type: sequence"]);
    then_all_is_well(&host);
}

/// A change to a payload.
type Change = fn(&mut Value);

/// A description, the change to the payload, and a word of the error.
type Lie = (&'static str, Change, &'static str);

/// Payloads with another format version or an invalid form.
const OF_FORM: &[Lie] = &[
    ("required feature", |p| p["requires"] = json!(["deltas", "x-1"]), "needs \"x-1\""),
    ("feature that no dataset needs", |p| p["requires"] = json!(["deltas"]), "requires [\"deltas\"]"),
    ("delta without its word", |p| p["datasets"][0]["delta"] = json!({"files": []}), "its datasets need"),
    ("feature with escapes", |p| p["requires"] = json!(["\u{1b}[2J\u{202e}"]), "\\\\u{1b}"),
    ("format 2", |p| p["format"] = json!(2), "format version 2"),
    ("format 0", |p| p["format"] = json!(0), "format version 0"),
    ("no format", |p| drop(p.as_object_mut().unwrap().remove("format")), "format"),
    ("an array", |p| *p = json!([1, 2]), "rules"),
    (
        "a member as an array",
        |p| {
            let member = &p["members"][3];
            p["members"][3] = json!([member["path"], member["size"], member["digest"]]);
        },
        "invalid type: sequence",
    ),
    (
        "a blob as an array",
        |p| {
            let blob = &p["datasets"][0]["config"];
            p["datasets"][0]["config"] = json!([blob["mediaType"], blob["digest"], blob["size"]]);
        },
        "invalid type: sequence",
    ),
    ("a stream with a path", |p| p["stream"] = json!("../default"), "not a valid stream name"),
    ("no time", |p| p["created"] = json!("yesterday"), "rules"),
];

/// Members and lengths that break the rules.
const OF_MEMBERS: &[Lie] = &[
    ("a path twice", |p| p["members"][4] = p["members"][3].clone(), "twice"),
    (
        "a path with ..",
        |p| p["members"][3]["path"] = json!("blobs/../../etc/passwd"),
        "is not a valid member name",
    ),
    ("an absolute path", |p| p["members"][3]["path"] = json!("/etc/passwd"), "is not a valid member name"),
    ("a backslash", |p| p["members"][3]["path"] = json!("blobs\\x"), "is not a valid member name"),
    ("an empty path", |p| p["members"][3]["path"] = json!(""), "is not a valid member name"),
    (
        "a path with escapes",
        |p| p["members"][3]["path"] = json!("\u{1b}]0;x\u{7}"),
        "is not a valid member name",
    ),
    ("a long path", |p| p["members"][3]["path"] = json!("x".repeat(101)), "does not fit tar"),
    (
        "a manifest among members",
        |p| p["members"][3]["path"] = json!("manifest.dsse.json"),
        "is not a valid member name",
    ),
    ("a stray member", |p| p["members"][1]["path"] = json!("autorun.inf"), "oci-layout"),
    ("a size of 2^64-1", |p| p["members"][5]["size"] = json!(u64::MAX), "bytes does not fit tar"),
    ("a size of 2^64", |p| p["members"][5]["size"] = json!(18_446_744_073_709_551_616.0), "rules"),
    ("a negative size", |p| p["members"][5]["size"] = json!(-1), "rules"),
    (
        "all sizes at the limit",
        |p| p["members"].as_array_mut().unwrap().iter_mut().for_each(|m| m["size"] = json!((8u64 << 30) - 1)),
        "not listed with its size",
    ),
    ("a length too small", |p| p["length"] = json!(p["length"].as_u64().unwrap() - 512), "its length is"),
    ("a length of 2^64-1", |p| p["length"] = json!(u64::MAX), "its length is"),
    ("no members", |p| p["members"] = json!([]), "SHA256SUMS"),
    (
        "an upper-case digest",
        |p| p["members"][3]["digest"] = json!(format!("sha256:{}", "A".repeat(64))),
        "not a sha256 digest",
    ),
];

/// Datasets that break the rules.
const OF_DATASETS: &[Lie] = &[
    ("no datasets", |p| p["datasets"] = json!([]), "0 datasets"),
    ("a dataset twice", |p| p["datasets"][3] = p["datasets"][2].clone(), "twice"),
    (
        "a database twice",
        |p| {
            p["datasets"][3] = p["datasets"][0].clone();
            p["datasets"][3]["tag"] = json!("3");
        },
        "two datasets",
    ),
    ("an unknown dataset", |p| p["datasets"][0]["name"] = json!("trivy-malware"), "not a valid dataset name"),
    (
        "a dataset with a path",
        |p| p["datasets"][0]["name"] = json!("vex-../../x"),
        "not a valid dataset name",
    ),
    ("a tag with a path", |p| p["datasets"][0]["tag"] = json!("../../2"), "has the tag"),
    ("a directory with ..", |p| p["datasets"][3]["subdir"] = json!("../x"), "not a plain relative path"),
    (
        "a dataset of tomorrow",
        |p| p["datasets"][0]["contents"]["updated_at"] = json!(hours(2)),
        "dated more than 24 hours after the bundle",
    ),
    (
        "16 EiB of content",
        |p| p["datasets"][0]["contents"]["files"][0]["size"] = json!(u64::MAX),
        "unpacks to",
    ),
    (
        "a layer too many",
        |p| p["datasets"][0]["layers"] = json!([p["datasets"][0]["layers"][0], p["datasets"][0]["config"]]),
        "2 layers",
    ),
    ("no layer", |p| p["datasets"][0]["layers"] = json!([]), "0 layers"),
    ("another media type", |p| p["datasets"][2]["layers"][0]["mediaType"] = json!("text/html"), "of type"),
    ("no contents", |p| p["datasets"][0]["contents"]["files"] = json!([]), "does not describe"),
];

/// Signs a bundle for each change, and asserts that a host that trusts the key rejects it.
fn rejects_lies(lies: &[Lie], code: i32) {
    let host = host();
    let before = host.snapshot();
    for (what, change, word) in lies {
        let mut bundle = newer();
        bundle.edit(change);
        let path = host.file("lying.tar", bundle.signed(&host.key));
        println!("{what}");
        both_reject(&host, &before, &path, code, &[word]);
        // Anyone can create an unsigned bundle, so `inspect` must handle it safely, too.
        let unsigned = host.file("lying.tar", bundle.file(&[]));
        let ran = host.run(&["inspect", unsigned.to_str().unwrap()]);
        assert!([0, 4].contains(&ran.code), "{what}: {ran:#?}");
        ran.harmless();
    }
    then_all_is_well(&host);
}

#[test]
fn a_payload_of_another_form_is_rejected_despite_a_valid_signature() {
    rejects_lies(OF_FORM, 4);
}

#[test]
fn a_payload_with_invalid_members_is_rejected_despite_a_valid_signature() {
    rejects_lies(OF_MEMBERS, 4);
}

#[test]
fn a_payload_with_invalid_datasets_is_rejected_despite_a_valid_signature() {
    rejects_lies(OF_DATASETS, 4);
}

/// A payload with a late date breaks no rule of the format.
#[test]
fn a_payload_dated_far_in_the_future_is_rejected_for_its_date() {
    rejects_lies(&[("the latest time", |p| p["created"] = json!("9999-12-30T22:00:00Z"), "9999")], 5);
}

/// Wrong descriptions of contents: another file, another date, another size, fewer files.
const UNTRUTHS: [(&str, Change); 10] = [
    ("another file", |p| {
        p["datasets"][0]["contents"]["files"][1]["digest"] = json!(ContentDigest::of(b"other"))
    }),
    ("another date", |p| p["datasets"][0]["contents"]["updated_at"] = json!(days(-2))),
    ("a smaller file", |p| p["datasets"][1]["contents"]["files"][1]["size"] = json!(512)),
    ("a larger file", |p| p["datasets"][1]["contents"]["files"][1]["size"] = json!(1 << 20)),
    ("another schema", |p| p["datasets"][0]["contents"]["schema"] = json!(3)),
    ("another tree", |p| p["datasets"][2]["contents"]["tree"]["digest"] = json!(ContentDigest::of(b"other"))),
    ("fewer files", |p| p["datasets"][2]["contents"]["tree"]["files"] = json!(1)),
    ("more files", |p| p["datasets"][3]["contents"]["tree"]["files"] = json!(9)),
    ("another directory", |p| p["datasets"][3]["subdir"] = json!("elsewhere")),
    ("the date of VEX", |p| p["datasets"][3]["contents"]["updated_at"] = json!(days(-2))),
];

#[test]
fn contents_that_differ_from_the_signed_ones_are_rejected() {
    let host = host();
    let before = host.snapshot();
    for (what, change) in UNTRUTHS {
        let mut bundle = newer();
        bundle.edit(change);
        println!("{what}");
        both_reject(
            &host,
            &before,
            &host.file("untrue.tar", bundle.signed(&host.key)),
            4,
            &["does not contain the signed"],
        );
    }
    then_all_is_well(&host);
}

/// Users trust these checksums.
#[test]
fn checksums_that_do_not_match_the_members_are_rejected() {
    let host = host();
    let before = host.snapshot();
    let mut sums = newer();
    let digit = sums.members[0].1[0];
    sums.members[0].1[0] = if digit == b'0' { b'1' } else { b'0' };
    let digest = json!(Digest::of(&sums.members[0].1));
    sums.edit(|payload| payload["members"][0]["digest"] = digest);
    both_reject(
        &host,
        &before,
        &host.file("sums.tar", sums.signed(&host.key)),
        4,
        &["SHA256SUMS does not match"],
    );
    then_all_is_well(&host);
}

#[test]
fn strange_forms_of_a_payload_are_harmless() {
    let host = host();
    let before = host.snapshot();
    let with = |payload: Vec<u8>| Bundle { payload, ..newer() };
    let deep = |field: &str, depth: usize| {
        let text = String::from_utf8(newer().payload).unwrap();
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        text.replacen('{', &format!("{{\"{field}\":{nested},"), 1).into_bytes()
    };
    for (payload, word) in [
        (b"".to_vec(), "EOF"),
        (b"null".to_vec(), "rules"),
        (b"\xff\xfe".to_vec(), "rules"),
        (b"<!doctype html>".to_vec(), "rules"),
        ([newer().payload, b"{}".to_vec()].concat(), "trailing"),
        (deep("requires", 200), "rules"),
        (deep("requires", 3000), "rules"),
    ] {
        both_reject(&host, &before, &host.file("strange.tar", with(payload).signed(&host.key)), 4, &[word]);
    }
    // Deep nesting in an unknown field is skipped without recursion.
    let mut deepest = newer();
    deepest.capacity = (1 << 20) - 512;
    deepest.relist();
    let text = String::from_utf8(deepest.payload).unwrap();
    let nested = format!("{{\"later\":{}1{},", "[".repeat(300_000), "]".repeat(300_000));
    deepest.payload = text.replacen('{', &nested, 1).into();
    host.verify(&host.file("deep.tar", deepest.signed(&host.key)), &[]).good();
    let twice = String::from_utf8(newer().payload).unwrap().replacen('{', "{\"format\":1,", 1);
    both_reject(
        &host,
        &before,
        &host.file("twice.tar", with(twice.into()).signed(&host.key)),
        4,
        &["duplicate field"],
    );
    // A later version may add such fields.
    let mut later = newer().with("later", json!({"a": [1, {"b": null}]}));
    later.edit(|payload| payload["datasets"][0]["later"] = json!(true));
    let path = host.file("later.tar", later.signed(&host.key));
    host.verify(&path, &[]).good();
    host.import(&path, &[]).good();
}

#[test]
fn only_signatures_of_trusted_keys_count() {
    let host = host();
    let before = host.snapshot();
    let (bundle, mine) = (newer(), &host.key);
    let (stranger, successor) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let sign = |key: &SigningKey| bundle.signature(key);
    let file = |name: &str, signatures: &[Value]| host.file(name, bundle.file(signatures));
    let claiming = |mut signature: Value, key: &SigningKey| {
        signature["keyid"] = json!(key.public().id().hex());
        signature
    };
    let other = Bundle::of(days(-2), &Part::all(days(-2)));
    let elsewhere =
        Bundle { payload_type: "application/vnd.trivy-ferry.other.v1+json".into(), ..bundle.clone() };
    let mut malleable = sign(mine);
    malleable["sig"] = json!("A".repeat(86) + "==");
    for (what, signatures, word) in [
        ("no signature", vec![], "no signature"),
        ("an unknown key", vec![sign(&stranger)], "claims the key"),
        ("an unknown key with our ID", vec![claiming(sign(&stranger), mine)], "its signature is invalid"),
        ("two unknown keys", vec![sign(&stranger), sign(&successor)], "claims the keys"),
        ("one of another payload", vec![other.signature(mine)], "its signature is invalid"),
        ("one of another kind of document", vec![elsewhere.signature(mine)], "its signature is invalid"),
        ("zeros", vec![malleable], "its signature is invalid"),
        ("nine", vec![sign(mine); 9], "more than 8 elements"),
        ("not base64", vec![json!({"keyid": "x", "sig": "@@@@"})], "base64"),
        (
            "escapes in a key ID",
            vec![json!({"keyid": "\u{1b}[31mx\u{202e}", "sig": ""})],
            "not signed by a trusted key",
        ),
    ] {
        println!("{what}");
        both_reject(&host, &before, &file("bundle.tar", &signatures), 4, &[word]);
    }
    // The document is of another type, but correctly signed.
    let path = host.file("other.tar", elsewhere.signed(mine));
    both_reject(&host, &before, &path, 4, &["payload is of type"]);

    // One signature by a trusted key among others is sufficient, whatever key ID it has.
    let good = [
        ("a second by an unknown key", vec![sign(&stranger), sign(mine)]),
        ("with the ID of an unknown key", vec![claiming(sign(mine), &stranger)]),
        ("key IDs swapped", vec![claiming(sign(mine), &stranger), claiming(sign(&stranger), mine)]),
        ("eight", vec![sign(mine); 8]),
        ("without a key ID", vec![json!({"sig": sign(mine)["sig"]})]),
    ];
    for (what, signatures) in good {
        println!("{what}");
        let ran = host.verify(&file("bundle.tar", &signatures), &[]);
        ran.good();
        assert_eq!(ran.out.matches("trusted: exporter.pub").count(), 1, "{ran:#?}");
    }

    // A key is rotated in three steps: the old key signs, both keys sign, the new key signs.
    let old_key = host.at("keys/exporter.pub");
    let new_key = host.trust("successor", &successor.public());
    let both = file("both.tar", &[sign(mine), sign(&successor)]);
    for trusted in [&old_key, &new_key] {
        host.verify(&both, &["--trust", trusted]).good();
    }
    let ran = host.verify(&both, &["--trust", &format!("{old_key},{new_key}")]);
    ran.good().prints("exporter.pub").prints("successor.pub");
    let only_new = file("new.tar", &[sign(&successor)]);
    host.verify(&only_new, &["--trust", &old_key]).fails_with(4, &["new.tar", "trust add"]);
    host.import(&only_new, &["--trust", &new_key]).good();
}

#[test]
fn nothing_is_verified_without_a_usable_key() {
    let host = host();
    let before = host.snapshot();
    let path = host.file("bundle.tar", newer().signed(&host.key));
    let bundle = path.to_str().unwrap();
    let (cache, state) = (host.at("cache"), host.at("state"));
    // No key is configured. Some hosts have keys for all users in `/etc`, and this part is
    // skipped there.
    if !Path::new("/etc/trivy-ferry/trusted").exists() {
        let ran = host.run(&["import", bundle, "--cache-dir", &cache, "--state-dir", &state]);
        ran.fails_with(2, &["no key is trusted", "trust add", "--trust"]);
        host.run(&["verify", bundle]).fails_with(2, &["no key is trusted"]);
    }
    host.file("keys/private.pub", host.key.to_pem(None).unwrap().as_bytes());
    host.file("keys/page.pub", "<html>login</html>");
    host.file("keys/binary.pub", [0xff, 0xfe, 0x00]);
    host.file("keys/empty.pub", "");
    host.file("keys/rsa.pub", "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----\n");
    host.file("keys/zero.pub", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n");
    for (name, word) in [
        ("missing.pub", "missing.pub"),
        ("private.pub", "private key"),
        ("page.pub", "PEM"),
        ("binary.pub", "not text"),
        ("empty.pub", "PEM"),
        ("rsa.pub", "Ed25519"),
        ("zero.pub", "key is"),
    ] {
        let key = host.at(format!("keys/{name}"));
        host.import(&path, &["--trust", &key]).harmless().fails_with(2, &[name, word]);
        host.verify(&path, &["--trust", &key]).fails_with(2, &[name]);
    }
    host.import(&host.path("nowhere.tar"), &[]).fails_with(2, &["nowhere.tar"]);
    assert_eq!(host.snapshot(), before);
    then_all_is_well(&host);
}

/// Returns the true contents of a database's layer, for layers that contain more.
fn database() -> trivy_ferry::dataset::Contents {
    Part::db(days(-1)).dataset.contents
}

#[test]
fn unpacking_a_bomb_with_a_valid_signature_stops_at_the_signed_size() {
    let host = host();
    let before = host.snapshot();
    let database_size = forge::bolt().len() as u64;
    let db = || {
        Archive::new()
            .file("trivy.db", &forge::bolt())
            .file("metadata.json", &forge::metadata_json(2, days(-1)))
    };
    const GIB: u64 = 1 << 30;
    // 32 GiB of zeros in 32 MiB. Decompressing all of it takes a long time.
    let zeros = zeros(32);
    let bomb = |mut start: Vec<u8>| {
        start.extend_from_slice(&zeros);
        start
    };
    let layers: Vec<(&str, Vec<u8>)> = vec![
        (
            "a database larger than signed",
            bomb(Archive::new().entry(b'0', "trivy.db", 32 * GIB, b"").open_end()),
        ),
        (
            "a database of the signed size, and zeros after it",
            bomb(Archive::new().entry(b'0', "trivy.db", database_size, b"").open_end()),
        ),
        ("zeros after the end", bomb(db().pack())),
        ("a directory with a size", bomb(Archive::new().entry(b'5', "x/", 32 * GIB, b"").open_end())),
        ("a comment without end", bomb(Archive::new().entry(b'g', "x", 32 * GIB, b"").open_end())),
        ("a name without end", bomb(Archive::new().entry(b'L', "x", 32 * GIB, b"").open_end())),
        ("an unknown entry", bomb(Archive::new().entry(b'Z', "x", 32 * GIB, b"").open_end())),
        ("a size of 2^63", bomb(Archive::new().entry(b'0', "trivy.db", 1 << 63, b"").open_end())),
    ];
    for (what, layer) in layers {
        let bundle = Bundle::of(days(-1), &[Part::saying("trivy-db", "2", layer, database())]);
        rejected_bomb(&host, &before, what, &bundle);
    }
    // Checks and VEX are first written to a separate file and then unpacked. Other files in a VEX
    // archive are skipped, and the same limit of processor time applies.
    let checks = Part::checks("x").dataset.contents;
    let layer = bomb(Archive::new().entry(b'0', "policies/x.rego", 32 * GIB, b"").open_end());
    let bundle = Bundle::of(days(-1), &[Part::saying("trivy-checks", "2", layer, checks)]);
    rejected_bomb(&host, &before, "checks", &bundle);
    let vex = Part::vex(days(-1)).dataset.contents;
    for (what, kind, name) in [
        ("VEX", b'0', "vexhub-main/x.json"),
        ("beside VEX", b'0', "elsewhere/x.json"),
        ("a link beside VEX", b'2', "elsewhere/link"),
    ] {
        let layer = bomb(Archive::new().entry(kind, name, 32 * GIB, b"").open_end());
        let bundle = Bundle::of(days(-1), &[Part::vex_saying(layer, "vexhub-main", vex.clone())]);
        rejected_bomb(&host, &before, what, &bundle);
    }
    then_all_is_well(&host);
}

#[track_caller]
fn rejected_bomb(host: &Host, before: &Snapshot, what: &str, bundle: &Bundle) {
    println!("{what}");
    let path = host.file("bomb.tar", bundle.signed(&host.key));
    let ran = both_reject(host, before, &path, 4, &["does not contain the signed"]);
    println!("  {} KiB, {:?}", ran.peak, ran.busy);
    assert!(ran.busy < forge::inflating(8), "{what}: {ran:#?}");
}

#[test]
fn layers_with_entries_other_than_safe_files_are_rejected() {
    let host = host();
    let before = host.snapshot();
    let contents = Part::checks("x").dataset.contents;
    let good = || Archive::new().file("policies/docker/lib/sample.rego", b"package lib.sample\n");
    for (what, layer, word) in [
        ("a path outside", good().file("../../../etc/x", b"x").pack(), "unsafe name"),
        ("an absolute name", good().file("/etc/x", b"x").pack(), "unsafe name"),
        ("a symbolic link", good().entry(b'2', "policies/x", 0, b"").pack(), "link"),
        ("a hard link", good().entry(b'1', "policies/x", 0, b"").pack(), "link"),
        ("a device", good().entry(b'3', "policies/x", 0, b"").pack(), "entry of type"),
        ("a FIFO", good().entry(b'6', "policies/x", 0, b"").pack(), "entry of type"),
        ("a name twice", good().file("policies/docker/lib/sample.rego", b"").pack(), "twice"),
        ("a file that is a directory", good().file("policies/docker/lib/sample.rego/x", b"").pack(), "twice"),
        ("escapes in a name", good().file("policies/\u{1b}[2J", b"x").pack(), "unsafe name"),
        ("not gzip", b"plain text".to_vec(), "gzipped tar"),
        ("a cut archive", good().pack()[..60].to_vec(), "gzipped tar"),
    ] {
        println!("{what}");
        let bundle = Bundle::of(days(-1), &[Part::saying("trivy-checks", "2", layer, contents.clone())]);
        both_reject(&host, &before, &host.file("bundle.tar", bundle.signed(&host.key)), 4, &[word]);
    }
    // The archive is good, but the signed directory in it has no repository.
    let archive = forge::vex_archive("a/b", days(-1));
    let limits = UnpackLimits::of(Kind::Vex);
    let contents =
        vex::unpack(ArchiveFormat::TarGzip, std::io::Cursor::new(&archive), "a/b", limits, &mut Discard);
    let bundle = Bundle::of(days(-1), &[Part::vex_saying(archive, "a", contents.unwrap())]);
    both_reject(&host, &before, &host.file("bundle.tar", bundle.signed(&host.key)), 4, &["directories"]);
    then_all_is_well(&host);
}

/// Creates files that are not bundles. Returns the name, the exit code and a word of the error for
/// each.
fn no_bundles(host: &Host, directory: &str) -> Vec<(&'static str, i32, &'static str)> {
    let good = host.file("elsewhere.tar", newer().signed(&host.key));
    let at = |name: &str| host.path(directory).join(name);
    fs::create_dir_all(host.path(directory)).unwrap();
    mknodat(CWD, at("fifo.tar"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    symlink(&good, at("link.tar")).unwrap();
    symlink("/nonexistent", at("dangling.tar")).unwrap();
    fs::create_dir(at("directory.tar")).unwrap();
    // The socket stays after its listener is closed.
    UnixListener::bind(at("socket.tar")).unwrap();
    fs::write(at("empty.tar"), "").unwrap();
    fs::write(at("page.tar"), "<!DOCTYPE html><html><title>Login</title>".repeat(100)).unwrap();
    fs::write(at("short.tar"), &fs::read(&good).unwrap()[..600]).unwrap();
    let stranger = SigningKey::generate().unwrap();
    fs::write(at("stranger.tar"), newer().signed(&stranger)).unwrap();
    vec![
        ("fifo.tar", 4, "a FIFO"),
        ("link.tar", 4, "a symbolic link"),
        ("dangling.tar", 4, "a symbolic link"),
        ("directory.tar", 2, "it is empty"),
        ("socket.tar", 4, "a socket"),
        ("empty.tar", 4, "ends after 0 bytes"),
        ("page.tar", 4, "its first member is not"),
        ("short.tar", 4, "a damaged manifest: the file ends after 600 bytes"),
        ("stranger.tar", 4, "not signed by a trusted key"),
    ]
}

#[test]
fn files_that_are_not_bundles_are_rejected_with_their_kind() {
    let host = host();
    let before = host.snapshot();
    for (name, code, word) in no_bundles(&host, "things") {
        println!("{name}");
        both_reject(&host, &before, &host.path("things").join(name), code, &[word]);
        let ran = host.run(&["inspect", host.path("things").join(name).to_str().unwrap()]);
        if name == "stranger.tar" {
            ran.exits(0).prints("NOT VERIFIED").prints("not signed by a trusted key");
        } else {
            ran.fails_with(code, &[name, word]);
        }
    }
    for device in ["/dev/null", "/dev/zero"] {
        host.import(Path::new(device), &[]).fails_with(4, &[device, "a device"]);
    }
    assert_eq!(host.snapshot(), before);
    then_all_is_well(&host);
}

#[test]
fn other_files_in_a_directory_are_listed_and_the_good_bundle_is_imported() {
    let host = host();
    let things = no_bundles(&host, "inbox");
    for name in ["._bundle.tar", ".hidden.tar", "late.tar.partial", "notes.txt", "System Volume Information"]
    {
        host.file(&format!("inbox/{name}"), "x");
    }
    // If the directory contains only such files, this is reported as an error.
    let before = host.snapshot();
    let inbox = host.path("inbox");
    fs::remove_file(inbox.join("stranger.tar")).unwrap();
    // A file that was truncated inside its manifest may be an expected bundle, so it is an error
    // and never skipped.
    let ran = host.import(&inbox, &[]);
    ran.exits(4).warns("empty.tar has a damaged manifest").warns("short.tar has a damaged manifest");
    for cut in ["empty.tar", "short.tar"] {
        fs::remove_file(inbox.join(cut)).unwrap();
    }
    host.import(&inbox, &[]).fails_with(2, &["there is no bundle in", "and 8 more"]);
    assert_eq!(host.snapshot(), before);
    let stranger = SigningKey::generate().unwrap();
    host.file("inbox/stranger.tar", newer().signed(&stranger));
    host.import(&inbox, &[]).fails_with(4, &["stranger.tar", "trust add"]);

    // A browser added the number to this name, and a file manager changed the extension to upper
    // case.
    host.file("inbox/default-20261121t091500z (1).TAR", newer().signed(&host.key));
    for ran in [host.verify(&inbox, &[]), host.import(&inbox, &[])] {
        ran.good().harmless();
        for (name, _, word) in things.iter().filter(|(name, ..)| !["empty.tar", "short.tar"].contains(name)) {
            let word = if *name == "directory.tar" { "a directory" } else { word };
            let line = ran.out.lines().find(|line| line.starts_with(&format!("skipped: {name}: ")));
            assert!(line.is_some_and(|line| line.contains(word)), "{name} {word}: {ran:#?}");
        }
        for why in ["metadata of macOS", "hidden", "an unfinished copy", "not named .tar"] {
            assert!(ran.out.contains(why), "{why}: {ran:#?}");
        }
    }
    assert_ne!(host.snapshot(), before);
}

#[test]
fn escapes_never_reach_a_terminal() {
    let host = Host::new();
    let nasty = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}evil\u{0}\r\n";
    let mut bundle = newer().with("producer", nasty);
    bundle.edit(|payload| {
        for dataset in payload["datasets"].as_array_mut().unwrap() {
            // The source of a VEX repository is written to the configuration of scanners.
            if dataset["name"] != "vex-hub" {
                dataset["source"] = json!(nasty);
            }
            dataset["version"] = json!(nasty);
        }
    });
    let mut layout = newer();
    layout.edit(|payload| payload["datasets"][0]["manifest"]["mediaType"] = json!(nasty));
    for (bundle, name) in [(bundle, "nasty.tar"), (layout, "type.tar")] {
        let good = host.file(name, bundle.signed(&host.key));
        host.verify(&good, &[]).good().harmless();
        let key = host.at("keys/exporter.pub");
        host.run(&["inspect", good.to_str().unwrap(), "--trust", &key]).good().harmless();
        host.import(&good, &["--allow-rollback"]).good().harmless();
        // The same bundle without a signature.
        let unsigned = host.file(&format!("unsigned-{name}"), bundle.file(&[]));
        host.run(&["inspect", unsigned.to_str().unwrap()]).good().harmless();
    }
    // Text of a payload in errors.
    for (change, code) in [
        (json!({"stream": nasty}), 4),
        (json!({"requires": [nasty]}), 4),
        (json!({"created": nasty}), 4),
        (json!({nasty: 1, "format": nasty}), 4),
    ] {
        let mut bundle = newer();
        bundle.edit(|payload| {
            change.as_object().unwrap().iter().for_each(|(key, value)| payload[key] = value.clone())
        });
        let path = host.file("error.tar", bundle.signed(&host.key));
        host.import(&path, &[]).harmless().fails_with(code, &["error.tar"]);
        host.verify(&path, &[]).harmless().fails_with(code, &["error.tar"]);
        host.run(&["inspect", path.to_str().unwrap()]).harmless();
    }
}

#[test]
fn names_of_files_on_a_medium_are_escaped_as_well() {
    let host = Host::new();
    let nasty = "\u{1b}[2J\u{9b}31m\u{202e}x";
    let inbox = host.path("inbox");
    let key = host.at("keys/exporter.pub");
    let file = newer().signed(&host.key);
    host.file(&format!("inbox/{nasty}.txt"), "x");
    host.file(&format!("inbox/page{nasty}.tar"), "<html>");
    host.file(&format!("inbox/cut{nasty}.tar"), &file[..file.len() - 512]);
    let everyone = |code: i32| {
        let ran = host.import(&inbox, &[]);
        assert_eq!(ran.harmless().code, code, "{ran:#?}");
        let ran = host.verify(&inbox, &[]);
        assert_eq!(ran.harmless().code, code, "{ran:#?}");
        host.run(&["inspect", inbox.to_str().unwrap(), "--trust", &key]).harmless();
    };
    everyone(4);
    host.file(&format!("inbox/good{nasty}.tar"), &file);
    everyone(4);
    host.import(&inbox.join(format!("cut{nasty}.tar")), &[]).harmless().fails_with(4, &["\\u{1b}[2J"]);
    let ran = host.verify(&inbox.join(format!("good{nasty}.tar")), &[]);
    ran.good().harmless();
}
