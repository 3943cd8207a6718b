//! A failing source does not prevent the export of other data: the bundle is written without the
//! data of this source, both sides report this, and the operator can require datasets.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};
use test_kit::files::Fault;
use test_kit::process::Run;
use trivy_ferry::dataset::Kind;
use trivy_ferry::digest::Digest;

use crate::forge::upstream::Upstream;
use crate::forge::{Archive, Host, manifest_of};

/// Returns the `vex-repository.json` in the form of ActiveState/advisories: a location is the text
/// of a Python object.
fn unreadable() -> Vec<u8> {
    let location = "RepositoryLocation(url='https://advisories.example/vex.tar.gz')";
    let version = json!({"spec_version": "0.1", "locations": [location], "update_interval": "24h"});
    json!({"name": "x", "description": "", "versions": [version]}).to_string().into_bytes()
}

fn exporter() -> Host {
    let host = Host::new();
    host.write_key();
    host
}

fn bundle_of(host: &Host, report: &Value) -> PathBuf {
    host.path(report["bundle"]["path"].as_str().unwrap())
}

fn names(rows: &Value) -> Vec<String> {
    let name = |row: &Value| row["name"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(name).collect()
}

fn status(host: &Host, more: &[&str]) -> Run {
    host.run(&[&["status", "--state-dir", "state"], more].concat())
}

/// A broken hub beside good ones: ActiveState/advisories (its `vex-repository.json`),
/// kubewarden/sbomscanner issue 46 (several hubs in use).
#[test]
fn a_bundle_is_written_without_the_data_of_a_failing_source_and_both_sides_report_it() {
    let host = exporter();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    upstream.put("/.well-known/vex-repository.json", unreadable());
    let run = host.export(&upstream, &["--if-changed"]);
    let report: Value =
        serde_json::from_str(run.exits(3).warns("vex-hub is missing from the bundle").out.as_str()).unwrap();
    assert_eq!(report["result"], "incomplete");
    assert_eq!(names(&report["missing"]), ["vex-hub"]);
    assert!(report["missing"][0]["why"].as_str().unwrap().contains("vex-repository.json"), "{report:#}");
    assert_eq!(report["errors"][0]["exit_code"], 3);
    assert_eq!(names(&report["datasets"]), ["trivy-db", "trivy-java-db", "trivy-checks"]);

    // The missing dataset is in the signed payload, and every command of the other side shows it.
    let bundle = bundle_of(&host, &report);
    let key = host.at("keys/exporter.pub");
    let inspected = host.run(&["inspect", bundle.to_str().unwrap(), "--trust", &key, "--format", "json"]);
    let payload = &serde_json::from_str::<Value>(&inspected.out).unwrap()["bundles"][0]["payload"];
    assert_eq!(
        (&payload["missing"][0]["name"], &payload["missing"][0]["tag"]),
        (&"vex-hub".into(), &"0.1".into())
    );
    host.run(&["inspect", bundle.to_str().unwrap(), "--trust", &key]).prints("missing vex-hub-0.1");
    host.verify(&bundle, &[]).exits(0).prints("missing: vex-hub-0.1");
    let imported = host.import(&bundle, &["--format", "json"]);
    let imported: Value = serde_json::from_str(&imported.exits(0).out).unwrap();
    let target = &imported["targets"][0];
    assert_eq!(names(&target["bundles"][0]["missing_items"]), ["vex-hub"]);
    assert!(target["warnings"][0].as_str().unwrap().contains("lacks vex-hub-0.1"), "{target:#}");
    status(&host, &[]).prints("not in it        vex-hub-0.1: ");
    let log = fs::read_to_string(host.path("state/imports.jsonl")).unwrap();
    assert!(log.contains(r#""missing":["vex-hub-0.1"]"#), "{log}");

    // On the next night, nothing is new, no bundle is written, and the source still fails.
    host.wait(2);
    let again: Value = serde_json::from_str(&host.export(&upstream, &["--if-changed"]).exits(3).out).unwrap();
    assert_eq!((&again["result"], &again["bundle"]), (&"unchanged".into(), &Value::Null));
    assert_eq!(names(&again["missing"]), ["vex-hub"]);

    // The dataset is available again, which counts as new data.
    upstream.publish_vex(1);
    let whole: Value = serde_json::from_str(&host.export(&upstream, &["--if-changed"]).exits(0).out).unwrap();
    assert_eq!((&whole["result"], whole["datasets"].as_array().unwrap().len()), (&"written".into(), 4));
    host.import(&bundle_of(&host, &whole), &[]).exits(0);
    assert!(!status(&host, &[]).exits(0).out.contains("not in it"));

    // The dataset is missing again, and the last bundle has all other data.
    host.wait(2);
    upstream.put("/.well-known/vex-repository.json", unreadable());
    let third: Value = serde_json::from_str(&host.export(&upstream, &["--if-changed"]).exits(3).out).unwrap();
    assert_eq!(third["result"], "unchanged", "{third:#}");
}

#[test]
fn if_one_dataset_fails_at_any_time_the_others_are_written() {
    let blob = |name: &'static str| {
        move |_: u64, path: &str| {
            path.starts_with(&format!("/v2/{name}/blobs/")).then_some(Fault::Status(403, None))
        }
    };
    let manifest = |_: u64, path: &str| (path == "/v2/java/manifests/1").then_some(Fault::Status(404, None));
    let archive = |_: u64, path: &str| (path == "/vex.tar.gz").then_some(Fault::Page);
    type Break = fn(&Upstream);
    let nothing: Break = |_| {};
    let rubbish: Break = |upstream| upstream.publish_rubbish_java_db(1);
    let no_checks: Break = |upstream| upstream.put("/v2/checks/manifests/1", "<html>");
    let cases: [(Upstream, Break, &[&str], i32, &str); 8] = [
        (Upstream::new(manifest), nothing, &[], 3, "trivy-java-db"),
        (Upstream::new(blob("java")), nothing, &[], 3, "trivy-java-db"),
        (Upstream::new(blob("checks")), nothing, &[], 3, "trivy-checks"),
        (Upstream::new(archive), nothing, &[], 3, "vex-hub"),
        // These errors are detected only when the layer is written.
        (Upstream::new(|_, _| None), rubbish, &[], 3, "trivy-java-db"),
        (Upstream::new(|_, _| None), no_checks, &[], 3, "trivy-checks"),
        // These datasets must not be signed.
        (Upstream::new(|_, _| None), nothing, &["--max-age", "trivy-java-db=1h"], 5, "trivy-java-db"),
        (
            Upstream::new(|_, _| None),
            nothing,
            &["--image", "127.0.0.1:1/an/image:1"],
            3,
            "127.0.0.1:1/an/image:1",
        ),
    ];
    for (upstream, spoil, more, code, name) in cases {
        let host = exporter();
        upstream.publish(1, 1000);
        spoil(&upstream);
        let run = host.export(&upstream, &[&["--retries", "0", "--output", "out"], more].concat());
        let report: Value = serde_json::from_str(&run.exits(code).out).unwrap();
        assert_eq!(
            (names(&report["missing"]), &report["result"]),
            (vec![name.to_owned()], &"incomplete".into()),
            "{run}"
        );
        let datasets = names(&report["datasets"]);
        assert!(datasets.contains(&"trivy-db".into()) && !datasets.contains(&name.into()), "{run}");
        host.verify(&bundle_of(&host, &report), &[]).exits(0).prints(&format!("missing: {name}"));
        assert_eq!(fs::read_dir(host.path("out")).unwrap().count(), 1, "nothing else is left there");
    }
}

/// Trivy needs another major version of the checks than the source has. If the source fails or its
/// content must not be signed, the dataset is missing under the requested tag. It is not fetched
/// again if another dataset fails later.
#[test]
fn checks_under_another_tag_are_missing_under_the_requested_tag() {
    let host = exporter();
    let fetched = Arc::new(AtomicU32::new(0));
    let count = fetched.clone();
    let upstream = Upstream::new(move |_, path| {
        count.fetch_add(u32::from(path == "/v2/checks/manifests/1"), Relaxed);
        None
    });
    upstream.publish(1, 1000);
    let library = || Archive::new().file("policies/docker/lib/x.rego", b"package lib.x\n");
    let checks = |most: u32| {
        let add =
            |archive: Archive, n: u32| archive.file(&format!("policies/docker/{n}.rego"), b"package x\n");
        let layer = (0..most).fold(library(), add).pack();
        let manifest = manifest_of(Kind::TrivyChecks.layer_media_type().unwrap(), &layer, None);
        upstream.put("/v2/checks/manifests/1", manifest);
        upstream.put(&format!("/v2/checks/blobs/{}", Digest::of(&layer)), layer);
    };
    let export = |code: i32| {
        host.wait(2);
        fetched.store(0, Relaxed);
        let report: Value = serde_json::from_str(&host.export(&upstream, &[]).exits(code).out).unwrap();
        let tag = |row: &Value| format!("{}-{}", row["name"].as_str().unwrap(), row["tag"].as_str().unwrap());
        let missing: Vec<String> = report["missing"].as_array().unwrap().iter().map(tag).collect();
        (missing, fetched.load(Relaxed))
    };
    checks(9);
    assert_eq!(export(0), (vec![], 1));
    checks(3);
    upstream.publish_rubbish_java_db(2);
    let both = vec!["trivy-checks-2".to_owned(), "trivy-java-db-1".to_owned()];
    assert_eq!(export(5), (both.clone(), 1));
    upstream.put("/v2/checks/manifests/1", "<html>");
    assert_eq!(export(3), (both, 1));
}

#[test]
fn datasets_can_be_required() {
    let db_is_down = |_: u64, path: &str| path.starts_with("/v2/db/").then_some(Fault::Status(404, None));
    let upstream = Upstream::new(db_is_down);
    upstream.publish(1, 1000);
    let written = |host: &Host| fs::read_dir(host.path("out")).unwrap().count();
    let host = exporter();
    host.export(&upstream, &[]).exits(3);
    host.export(&upstream, &["--require", "trivy-java-db,trivy-db"]).exits(3);
    host.export(&upstream, &["--require", "all"]).exits(3);
    host.export(&upstream, &["--require", "vex-corp"]).exits(2).warns("--require names vex-corp");
    host.export(&upstream, &["--require", "trivy-db", "--skip", "trivy-db"]).exits(2);
    // An unknown name in `--accept` is an error as well, because it may be misspelled.
    for (name, more) in [
        ("vex-corp", &[][..]),
        ("trivy-db", &["--skip", "trivy-db"]),
        ("trivy-java-db", &["--only", "trivy-db", "--dry-run"]),
    ] {
        let run = host.export(&upstream, &[&["--accept", name], more].concat());
        run.exits(2).warns(&format!("--accept names {name}, which this export does not carry"));
    }
    assert_eq!(written(&host), 0);
    // A dry run reports the same, and writes nothing.
    let dry: Value =
        serde_json::from_str(&host.export(&upstream, &["--require", "vex-hub", "--dry-run"]).exits(3).out)
            .unwrap();
    assert_eq!((names(&dry["missing"]), &dry["result"]), (vec!["trivy-db".to_owned()], &"dry-run".into()));
    let run = host.export(&upstream, &["--require", "vex-hub"]);
    let report: Value = serde_json::from_str(&run.exits(3).out).unwrap();
    assert_eq!(names(&report["datasets"]), ["trivy-java-db", "trivy-checks", "vex-hub"]);
    // A dataset that is not selected is not required.
    host.wait(2);
    host.export(&upstream, &["--skip", "trivy-db"]).exits(0);
    // No bundle is written without any dataset.
    host.export(&upstream, &["--only", "trivy-db", "--require", "trivy-db"]).exits(3);
    let vex_is_down = |_: u64, path: &str| path.contains("vex").then_some(Fault::Status(500, None));
    let other = Upstream::new(vex_is_down);
    other.publish(1, 1000);
    host.export(&other, &["--only", "vex-hub", "--retries", "0"]).exits(3);
    assert_eq!(written(&host), 2);
}

#[test]
fn the_command_at_the_end_and_the_heartbeat_report_missing_datasets() {
    let host = exporter();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    upstream.put("/.well-known/vex-repository.json", unreadable());
    let note = "echo \"$TRIVY_FERRY_RESULT:$TRIVY_FERRY_MISSING:$TRIVY_FERRY_BUNDLE\" >>heard";
    let flags =
        ["--if-changed", "--heartbeat", "--keep", "1", "--exec-after", note, "--state-dir", "exported"];
    let export = || {
        let mut command = host.command();
        command
            .args(["export", "--key", "exporter.key", "--output", "out"])
            .args(upstream.flags())
            .args(flags);
        crate::forge::run(command)
    };
    export().exits(3);
    export().exits(3);
    let heard = fs::read_to_string(host.path("heard")).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert!(lines[0].starts_with("written:vex-hub:out/default-"), "{heard}");
    assert_eq!(lines[1], "unchanged:vex-hub:");
    let inbox = ["watch", "out", "--once", "--settle", "1ms", "--cache-dir", "cache", "--state-dir", "state"];
    let watched = host.run(&[&inbox[..], &["--trust", "keys/exporter.pub", "--data-home", "home"]].concat());
    watched.exits(0).prints("without vex-hub-0.1");
    status(&host, &[]).prints("could not get    vex-hub-0.1: ");
    let json: Value = serde_json::from_str(&status(&host, &["--format", "json"]).out).unwrap();
    assert_eq!(names(&json["heartbeats"][0]["missing"]), ["vex-hub"]);
    assert_eq!(names(&json["imports"][0]["bundle"]["missing_items"]), ["vex-hub"]);
}

/// A scanner that has the documents of a repository keeps using them if the repository's source
/// fails. Otherwise, the findings that they suppress would reappear.
#[test]
fn a_repository_that_is_missing_once_stays_in_use() {
    let host = exporter();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    let corp = Upstream::new(|_, _| None);
    corp.publish_vex(1);
    let vex = format!("--vex=corp={}://{}", corp.scheme, corp.host);
    let carry = || {
        host.wait(2);
        let run = host.export(&upstream, &[vex.as_str()]);
        let report: Value = serde_json::from_str(&run.out).unwrap();
        host.import(&bundle_of(&host, &report), &["--data-home", "home"]).exits(0);
        let entries = fs::read_to_string(host.path("home/.trivy/vex/repository.yaml")).unwrap();
        (run.code, entries.contains(&corp.host))
    };
    assert_eq!(carry(), (0, true));
    corp.put("/.well-known/vex-repository.json", unreadable());
    assert_eq!(carry(), (3, true), "the repository is missing, but still requested");
    // If the operator no longer requests the repository, it is removed.
    host.wait(2);
    let report: Value = serde_json::from_str(&host.export(&upstream, &[]).exits(0).out).unwrap();
    host.import(&bundle_of(&host, &report), &["--data-home", "home"]).exits(0);
    let entries = fs::read_to_string(host.path("home/.trivy/vex/repository.yaml")).unwrap();
    assert!(!entries.contains(&corp.host), "{entries}");
}
