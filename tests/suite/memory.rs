//! The peak memory of each command under hostile input: at most 64 MiB.
//!
//! The values come from the kernel's own accounting (`ru_maxrss`, as `wait4` reports it for an
//! ended process), so no peak is missed between two measurements. Rust's standard library does not
//! offer it and the crate has no `unsafe`, so the tests run each command under GNU `time` (Debian's
//! package `time`), which `tests/run` installs. GNU `time` is small, and a process starts with the
//! peak of its parent process: a measurement in the test process itself would include the test's
//! own memory.
//!
//! To add a case, create hostile input (write it file by file, to save memory), and then call
//! `host.bounded(&["verify", "inbox", …])`. For a running server, use `peak::high_water`.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use test_kit::peak::Measured;
use trivy_ferry::bundle::{MANIFEST, PAYLOAD_TYPE};
use trivy_ferry::trust::key::SigningKey;

use crate::forge::{Bundle, Host, Part, days, header, hours};

#[test]
fn a_good_bundle_is_far_below_the_limit() {
    let host = Host::new();
    host.file("inbox/good.tar", Bundle::of(hours(-1), &Part::all(days(-1))).signed(&host.key));
    let verified = host.bounded(&["verify", "inbox", "--trust", "keys/exporter.pub"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(verified.out.contains("content as signed: "), "{verified:?}");
    assert!(verified.peak > 1 << 20, "something was measured: {verified:?}");
}

/// The largest manifest that is read, in bytes.
const MANIFEST_SIZE: usize = 1 << 20;

/// Returns the beginning of an unsigned bundle with a manifest of the maximum size.
fn head(envelope: &str) -> Vec<u8> {
    let mut file = header(MANIFEST, MANIFEST_SIZE as u64, b'0').to_vec();
    file.extend_from_slice(envelope.as_bytes());
    assert!(file.len() <= 512 + MANIFEST_SIZE, "{}", envelope.len());
    file.resize(512 + MANIFEST_SIZE, b' ');
    file.resize(file.len() + 1024, 0);
    file
}

fn envelope(payload: &str, signatures: &Value) -> String {
    let payload = STANDARD.encode(payload);
    json!({ "payloadType": PAYLOAD_TYPE.as_str(), "payload": payload, "signatures": signatures }).to_string()
}

/// Returns manifests without a trusted signature. Each costs memory or fills a terminal in a
/// different way.
fn junk() -> Vec<Vec<u8>> {
    let signature = json!([{ "keyid": "0".repeat(64), "sig": STANDARD.encode([1; 64]) }]);
    let long = "\u{1b}\u{202e}x".repeat(70_000);
    let few = |keyid: &str, count: usize| json!(vec![json!({ "keyid": keyid, "sig": "" }); count]);
    let of = |payload: Value| envelope(&payload.to_string(), &signature);
    let start = |more: Value| {
        let mut payload = json!({
            "format": 1, "producer": "x", "stream": "default", "created": "2026-11-21T09:15:00Z", "length": 1,
            "members": [], "datasets": [],
        });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(payload)
    };
    let member = json!({ "path": "blobs/x", "size": 1, "digest": format!("sha256:{}", "0".repeat(64)) });
    [
        envelope(&"x".repeat(700_000), &signature),
        envelope("{}", &few(&"k".repeat(120_000), 8)),
        envelope("{}", &few("k", 40_000)),
        envelope("{}", &few(&"\u{1b}[2J\u{202e}".repeat(20_000), 2)),
        format!("{{\"payloadType\":\"{}\"}}", "x".repeat(1_000_000)),
        format!("\"{}\"", "x".repeat(1_000_000)),
        "[".repeat(1_000_000),
        json!(vec![json!([]); 300_000]).to_string(),
        start(json!({ "requires": vec![""; 200_000] })),
        start(json!({ "requires": ["y".repeat(700_000)] })),
        start(json!({ "members": vec![member; 5000] })),
        start(json!({ "producer": long })),
        of(json!(vec![0; 300_000])),
        "\u{202e}".repeat(300_000),
    ]
    .iter()
    .map(|text| head(text))
    .collect()
}

/// Returns a host with a good bundle among 101 files of 1 MiB that no trusted key signed.
fn host_with_junk() -> Host {
    let host = Host::new();
    let good = Bundle::of(hours(-1), &Part::all(days(-1)));
    host.file("inbox/default-20261121t091500z.tar", good.signed(&host.key));
    let kinds = junk();
    for number in 0..101 {
        // Half of the files have names in the form of exported bundles.
        let name = match number % 2 {
            0 => format!("inbox/default-202611{:02}t{:06}z.tar", 1 + number % 28, number),
            _ => format!("inbox/x{number}.tar"),
        };
        host.file(&name, &kinds[number % kinds.len()]);
    }
    host
}

/// The maximum output in bytes. Errors of junk files must not fill a terminal or a log.
const MAX_SAID: usize = 256 << 10;

#[track_caller]
fn says_little(measured: &Measured) {
    let said = measured.out.len() + measured.err.len();
    assert!(said < MAX_SAID, "{said} bytes");
    let control = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!measured.out.contains(control) && !measured.err.contains(control));
}

const INTO: &[&str] =
    &["--trust", "keys/exporter.pub", "--cache-dir", "cache", "--state-dir", "state", "--data-home", "home"];

#[test]
fn unsigned_files_do_not_raise_the_memory_of_an_import() {
    let host = host_with_junk();
    for format in ["text", "json"] {
        let measured = host.bounded(&[&["import", "inbox", "--format", format], INTO].concat());
        says_little(&measured);
        assert_eq!(measured.code, 4, "{}", measured.err);
    }
    assert!(host.installed("cache", "db").is_some());
    let log = fs::read_to_string(host.path("state/imports.jsonl")).unwrap();
    assert!(log.contains("\"accepted\"") && log.len() < 64 << 10, "{}", log.len());
}

#[test]
fn unsigned_files_cost_verify_and_inspect_little_memory() {
    let host = host_with_junk();
    let trust = &["--trust", "keys/exporter.pub"][..];
    for command in ["verify", "inspect"] {
        for format in ["text", "json"] {
            let measured = host.bounded(&[&[command, "inbox", "--format", format], trust].concat());
            // The text of an unsigned manifest is shown, up to a limit.
            assert!(measured.out.len() + measured.err.len() < 4 << 20);
            if command == "verify" {
                says_little(&measured);
                assert!(measured.out.contains("default-20261121t091500z.tar"), "{}", measured.out);
            }
        }
    }
    // The user names one of these files alone.
    for (number, bytes) in junk().iter().enumerate() {
        let name = format!("alone/{number}.tar");
        host.file(&name, bytes);
        says_little(&host.bounded(&[&["verify", &name], trust].concat()));
        host.bounded(&[&["inspect", &name, "--format", "json"], trust].concat());
    }
}

#[test]
fn unsigned_files_cost_a_watch_little_memory() {
    let host = host_with_junk();
    let once = &["watch", "inbox", "--once", "--settle", "1ms", "--format", "json"];
    let measured = host.bounded(&[&once[..], INTO].concat());
    says_little(&measured);
    assert!(host.installed("cache", "db").is_some());
    assert!(!host.path("inbox/x1.tar").exists(), "the unsigned files were quarantined");
}

#[test]
fn large_manifests_under_a_trusted_key_are_not_all_kept() {
    let host = Host::new();
    for number in 0..64 {
        let mut bundle = Bundle::of(hours(-number - 1), &[Part::checks(&number.to_string())]);
        bundle.capacity = MANIFEST_SIZE;
        bundle.relist();
        let bundle = bundle.with("producer", "p".repeat(700_000));
        host.file(&format!("inbox/b{number}.tar"), bundle.signed(&host.key));
    }
    let verified = host.bounded(&["verify", "inbox", "--trust", "keys/exporter.pub"]);
    assert_eq!(verified.code, 0, "{}", verified.err);
    assert_eq!(verified.out.matches("content as signed: ").count(), 4, "{}", verified.out);
    let inspected = host.bounded(&["inspect", "inbox", "--trust", "keys/exporter.pub"]);
    assert_eq!(inspected.code, 0, "{}", inspected.err);
    assert!(inspected.out.contains("producer   ppp"), "{}", &inspected.out[..1000]);
    let imported = host.bounded(&[&["import", "inbox"], INTO].concat());
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert!(imported.out.contains("trivy-checks    installed"), "{}", imported.out);
}

#[test]
fn names_in_a_directory_cost_little_memory() {
    let host = Host::new();
    let forger = SigningKey::generate().unwrap();
    let good = Bundle::of(hours(-1), &Part::all(days(-1)));
    host.file("inbox/good.tar", good.signed(&host.key));
    let forged = Bundle::of(hours(-1), &[Part::checks("x")]).signed(&forger);
    for number in 0..3000 {
        host.file(&format!("inbox/{number}-{}.tar", "n".repeat(200)), &forged[..]);
        host.file(&format!("inbox/{number}-{}.other", "n".repeat(200)), "");
        host.file(&format!("inbox/{number}-{}.tar.007", "n".repeat(200)), "");
    }
    let measured = host.bounded(&[&["import", "inbox", "--format", "json"], INTO].concat());
    assert!(host.installed("cache", "db").is_some(), "{}", measured.err);
    assert!(measured.out.len() + measured.err.len() < 1 << 20);
}

#[test]
fn many_stray_volumes_cost_a_watch_little_memory() {
    let host = Host::new();
    let good = Bundle::of(hours(-1), &Part::all(days(-1)));
    host.file("inbox/good.tar", good.signed(&host.key));
    let long = "n".repeat(150);
    for number in 0..40_000 {
        host.file(&format!("inbox/{long}-{number}.tar.001"), "");
    }
    let once = &["watch", "inbox", "--once", "--settle", "1ms", "--format", "json"];
    let measured = host.bounded(&[&once[..], INTO].concat());
    assert!(host.installed("cache", "db").is_some(), "{}", measured.err);
    assert!(measured.out.len() + measured.err.len() < 1 << 20, "{}", measured.err.len());
    let measured = host.bounded(&["verify", "inbox", "--trust", "keys/exporter.pub"]);
    assert!(measured.out.len() + measured.err.len() < 1 << 20);
}
