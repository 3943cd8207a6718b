//! State directories and inboxes of earlier versions, kept as files. This version must be able to
//! use them.
//!
//! `TRIVY_FERRY_MAKE_GOLDEN=NAME` writes `fixtures/state/NAME` with the program under test if that
//! directory does not exist, and never replaces it. A version without `exports.jsonl`, without the
//! record of failures and runs per target, and without `missing` in heartbeats wrote `v0`. A
//! version with them wrote `v1`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use test_kit::host::{files, json_file, text};
use test_kit::registry::Registry;
use trivy_ferry::bundle::Heartbeat;
use trivy_ferry::bundle::heartbeat::{ExportOutcome, NewestBundle};

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days};

/// The placeholders in the files for the home and the registry of the host that created them.
const HOME: &str = "/srv/golden";
const REGISTRY: &str = "registry.example:5000";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/state").join(name)
}

fn time(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

fn bundle(made: &str, number: u64) -> Bundle {
    Bundle::of(time(made), &Part::all(time("2026-01-14T06:00:00Z"))).with("sequence", number)
}

/// Writes the files of a long operation: three targets, a gap, an override, a heartbeat, an inbox
/// with all kinds of files, and the state of an exporter.
fn make(golden: &Path) {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    host.write_key();
    fs::create_dir(host.path("www")).unwrap();
    let place = format!("{}/p", registry.host);
    let targets =
        ["--registry", &place, "--plain-http", "--web-root", "www", "--web-url", "https://vex.example"];
    host.import(&host.bundle("b.tar", &bundle("2026-01-15T09:00:00Z", 1)), &targets).good();
    let third = bundle("2026-01-17T09:00:00Z", 3);
    host.import(&host.bundle("b.tar", &third), &targets).good();
    let back = bundle("2026-01-16T12:00:00Z", 9);
    host.import(&host.bundle("b.tar", &back), &[&targets[..], &["--allow-rollback"]].concat()).good();
    host.import(&host.bundle("b.tar", &bundle("2026-01-18T09:00:00Z", 10)), &targets).good();
    let watch = |code: i32| {
        let args = ["watch", "inbox", "--once", "--settle", "1ms", "--trust", "keys/exporter.pub"];
        host.run(&[&args[..], &["--cache-dir", "cache", "--state-dir", "state"]].concat()).exits(code);
    };
    let newest = bundle("2026-01-19T09:00:00Z", 11);
    let identity = newest.identity().parse().unwrap();
    let announced = NewestBundle { identity, created: time("2026-01-19T09:00:00Z"), sequence: 11 };
    let made = time("2026-01-19T09:05:00Z");
    let heartbeat = Heartbeat::new("default".parse().unwrap(), made, ExportOutcome::Written, Some(announced));
    host.file(&format!("inbox/{}", heartbeat.file_name()), heartbeat.signed(&host.key).unwrap());
    host.bundle("inbox/default-20260119t090000z.tar", &newest);
    let parts = Part::all(time("2026-01-20T06:00:00Z"));
    let mut damaged = Bundle::of(time("2026-01-20T09:00:00Z"), &parts).with("sequence", 12).signed(&host.key);
    let last = damaged.len() - 1200;
    damaged[last] ^= 1;
    host.file("inbox/default-20260120t090000z.tar", damaged);
    watch(4);
    // This bundle waits for its volumes.
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 2_000_000);
    let flags = ["--output", "inbox", "--volume-size", "1M"];
    host.export(&upstream, &flags).good();
    fs::remove_file(
        host.path("inbox")
            .join(files(host.path("inbox")).into_iter().find(|name| name.ends_with(".001")).unwrap()),
    )
    .unwrap();
    watch(0);
    let replace =
        |text: String| text.replace(&host.at(""), &format!("{HOME}/")).replace(&registry.host, REGISTRY);
    for (from, to) in [("state", "state"), ("inbox", "inbox")] {
        for name in files(host.path(from)) {
            // Lock files have no content, and bundles are tested elsewhere.
            if name.ends_with(".json") || name.ends_with(".jsonl") {
                let path = golden.join(to).join(&name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, replace(text(host.path(from).join(&name)))).unwrap();
            }
        }
    }
}

/// Returns a host with the files, at a later time.
fn host(golden: &Path) -> Host {
    let host = Host::new();
    for name in files(golden) {
        host.file(&name, text(golden.join(&name)).replace(HOME, host.at("").trim_end_matches('/')));
    }
    let mode =
        |path: PathBuf, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(host.path("state"), 0o700);
    files(host.path("state")).iter().for_each(|name| mode(host.path("state").join(name), 0o600));
    for own in [".trivy-ferry", "processed", "quarantine"] {
        mode(host.path("inbox").join(own), 0o700);
    }
    host
}

fn status(host: &Host) -> Value {
    host.run(&["status", "--state-dir", "state", "--format", "json"]).json()
}

#[test]
fn the_state_of_an_earlier_version_is_still_used() {
    let wanted = std::env::var("TRIVY_FERRY_MAKE_GOLDEN").map(|name| golden(&name));
    if let Ok(wanted) = wanted
        && !wanted.exists()
    {
        make(&wanted);
    }
    for name in ["v0", "v1"] {
        continues_with(&golden(name));
    }
}

fn continues_with(golden: &Path) {
    let host = host(golden);
    let said = status(&host);
    let names: Vec<&str> =
        said["imports"].as_array().unwrap().iter().map(|target| target["target"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[0].starts_with("cache:") && names[1].starts_with("registry:registry.example"), "{names:?}");
    let cache = &said["imports"][0];
    assert_eq!((&cache["bundle"]["sequence"], &cache["overrides"]), (&11.into(), &1.into()), "{said:#}");
    assert_eq!(cache["missing"][0], 2, "{said:#}");
    assert_eq!(said["heartbeats"][0]["newest"]["sequence"], 11, "{said:#}");
    assert_eq!(said["exports"][0]["sequence"], 1, "{said:#}");
    // Floors and gaps still apply, and the inbox is still watched.
    let older = host.bundle("b.tar", &bundle("2026-01-14T12:00:00Z", 12));
    host.import(&older, &[]).exits(5).warns("before the last one accepted (2026-01-19");
    let late = host.bundle("b.tar", &bundle("2026-01-16T09:00:00Z", 2));
    // The cache of that host does not exist here, and checks of an older bundle must not be
    // installed.
    host.import(&late, &[]).exits(5).prints("late: newer bundles").warns("trivy-checks-2 is missing here");
    host.bundle("inbox/default-20260121t090000z.tar", &bundle("2026-01-21T09:00:00Z", 13));
    let args = ["watch", "inbox", "--once", "--settle", "1ms", "--trust", "keys/exporter.pub"];
    host.run(&[&args[..], &["--cache-dir", "cache", "--state-dir", "state"]].concat()).good();
    let said = status(&host);
    assert_eq!(said["imports"][0]["bundle"]["sequence"], 13, "{said:#}");
    // The log keeps its earlier lines.
    let (log, old) = (text(host.path("state/imports.jsonl")), text(golden.join("state/imports.jsonl")));
    assert!(log.starts_with(&old.replace(HOME, host.at("").trim_end_matches('/'))));
    // The exporter continues the numbers, and signs no older data.
    host.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(2, 1000);
    let report = host.export(&upstream, &[]).good().json();
    assert_eq!(report["bundle"]["sequence"], 2);
    let before = fs::read_to_string(golden.join("state/exports.jsonl")).unwrap_or_default();
    assert_eq!(text(host.path("state/exports.jsonl")).lines().count(), before.lines().count() + 1);
}

/// A later version may add fields, so an unknown field is not damage.
#[test]
fn unknown_fields_are_no_damage() {
    let host = host(&golden("v1"));
    for name in ["state/import-default.json", "state/export-default.json"] {
        let path = host.path(name);
        let mut state = json_file(&path);
        state["later"] = serde_json::json!({ "x": [1] });
        if let Some(targets) = state["targets"].as_object_mut() {
            targets.values_mut().for_each(|target| target["later"] = 1.into());
        }
        fs::write(&path, state.to_string()).unwrap();
    }
    assert_eq!(status(&host)["imports"].as_array().unwrap().len(), 3);
    assert!(days(0) > time("2026-01-20T09:00:00Z"));
}
