//! Validation of the content before an export signs it: documents that Trivy cannot read,
//! repositories that an importer would reject, and databases that have become small or empty.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use test_kit::process::Run;
use trivy_ferry::dataset::check::UnpackLimits;
use trivy_ferry::dataset::vex::{self, ArchiveFormat};
use trivy_ferry::dataset::{Contents, Discard, Kind};
use trivy_ferry::digest::Digest;

use crate::forge::upstream::Upstream;
use crate::forge::{Archive, Bundle, Host, Part, days, manifest_of, metadata_json};

const OPENVEX: &str = r#"{"@context":"https://openvex.dev/ns/v0.2.0","@id":"x","statements":[]}"#;
const CSAF: &str = r#"{"document":{"category":"csaf_vex","csaf_version":"2.0"}}"#;
const CYCLONEDX: &str = r#"{"bomFormat":"CycloneDX","vulnerabilities":[]}"#;
/// The pointer that Git LFS stores in place of a file (git-lfs, `docs/spec.md`).
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 109948522\n";

fn exporter() -> Host {
    let host = Host::new();
    host.write_key();
    host
}

/// Writes a VEX repository into a directory: its documents, with their formats in the index.
fn repository(host: &Host, name: &str, documents: &[(&str, &str, &str)], date: Option<&str>) -> String {
    let directory = host.path(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join("pkg")).unwrap();
    let version = json!({"spec_version": "0.1", "locations": [{"url": "https://vex.example/vex.tar.gz"}], "update_interval": "24h"});
    let manifest = json!({"name": name, "description": "", "versions": [version]});
    fs::write(directory.join("vex-repository.json"), manifest.to_string()).unwrap();
    let package = |(index, (path, format, content)): (usize, &(&str, &str, &str))| {
        if !content.is_empty() {
            fs::write(directory.join(path), content).unwrap();
        }
        let mut package = json!({"id": format!("pkg:oci/p{index}"), "location": path});
        if !format.is_empty() {
            package["format"] = json!(format);
        }
        package
    };
    let packages: Vec<Value> = documents.iter().enumerate().map(package).collect();
    let mut index = json!({"packages": packages});
    if let Some(date) = date {
        index["updated_at"] = json!(date);
    }
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    format!("--vex=corp={}", directory.display())
}

fn export(host: &Host, vex: &str, more: &[&str]) -> Run {
    host.wait(2);
    let args =
        ["export", "--key", "exporter.key", "--output", "out", "--only", "vex-corp", vex, "--format", "json"];
    host.run(&[&args[..], &["--state-dir", "exported"], more].concat())
}

fn report(run: &Run) -> Value {
    serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run}"))
}

fn bundle(host: &Host, run: &Run) -> std::path::PathBuf {
    host.path(report(run.exits(0))["bundle"]["path"].as_str().unwrap())
}

/// Documents as in rancher/vexhub's archive (its `.gitattributes` lists
/// `reports/rancher.openvex.json` for Git LFS; harvester/harvester pull request 10676), and other
/// documents that Trivy cannot read.
#[test]
fn documents_that_trivy_cannot_read_are_counted_and_named() {
    let host = exporter();
    let good: Vec<(String, &str, &str)> = (0..9).map(|n| (format!("pkg/{n}.json"), "", OPENVEX)).collect();
    let good: Vec<(&str, &str, &str)> =
        good.iter().map(|(path, format, text)| (path.as_str(), *format, *text)).collect();
    for (format, content, word) in [
        ("", POINTER, "pkg/bad.json is a Git LFS pointer"),
        ("openvex", "", "pkg/bad.json is missing"),
        ("", "<html>", "pkg/bad.json is not a JSON document"),
        ("", r#"{"statements":["#, "pkg/bad.json is not a JSON document"),
        ("", r#"{"message":"Not Found"}"#, "pkg/bad.json is not a VEX document"),
        ("", CSAF, "is CSAF, but the index does not say so"),
        ("", r#"{"statements":[{"status":"fixed"}],"Statements":[]}"#, "pkg/bad.json has a key twice"),
        ("csaf", r#"{"document":{"csaf_version":"2.0"},"Document":null}"#, "pkg/bad.json has a key twice"),
        ("csaf", OPENVEX, "the index says CSAF"),
        ("", CYCLONEDX, "is CycloneDX"),
        ("spdx", OPENVEX, "has a format in the index that Trivy does not support"),
    ] {
        let bad = ("pkg/bad.json", format, content);
        // If 1 of 10 documents is bad, the repository is exported with a warning.
        let few = repository(&host, "few", &[&good[..], &[bad]].concat(), Some("2026-01-15T06:00:00Z"));
        let run = export(&host, &few, &["--stream", "few"]);
        let warning = report(run.exits(0))["warnings"][0].as_str().unwrap().to_owned();
        assert!(warning.contains("1 of its 10 packages") && warning.contains(word), "{warning}");
        // If 1 of 3 documents or all are bad, the repository is not exported.
        for some in [&good[..2], &[]] {
            let many = repository(&host, "many", &[some, &[bad]].concat(), None);
            let run = export(&host, &many, &["--stream", "many"]);
            let word = if some.is_empty() && content.is_empty() { "none of their documents" } else { word };
            run.fails_with(3, &[word]);
        }
    }
    let csaf = repository(
        &host,
        "csaf",
        &[
            ("pkg/a.json", "csaf", CSAF),
            ("./pkg//b.json", "openvex", OPENVEX),
            // Trivy reads documents with Go's `encoding/json`, which ignores the case of keys.
            ("pkg/c.json", "", r#"{"@Context":"https://openvex.dev/ns/v0.2.0","Statements":[]}"#),
            ("pkg/d.json", "csaf", r#"{"Document":{"CSAF_Version":"2.0"}}"#),
        ],
        None,
    );
    let run = export(&host, &csaf, &["--stream", "csaf"]);
    assert_eq!(report(run.exits(0))["warnings"], json!([]));
    // With `--accept`, the operator can export a repository with bad documents.
    let broken = repository(&host, "broken", &[("pkg/a.json", "", POINTER)], None);
    export(&host, &broken, &["--stream", "broken"]).fails_with(3, &["--accept vex-corp"]);
    let run = export(&host, &broken, &["--stream", "broken", "--accept", "vex-corp"]);
    host.import(&bundle(&host, &run), &["--stream", "broken", "--data-home", "home"]).exits(0);
}

/// The specification of VEX repositories (aquasecurity/vex-repo-spec) allows an index without
/// `updated_at`, or with `null`.
#[test]
fn a_repository_without_a_date_is_imported_into_every_target() {
    let host = exporter();
    fs::create_dir(host.path("web")).unwrap();
    let documents = [("pkg/a.json", "", OPENVEX)];
    let vex = repository(&host, "vex", &documents, None);
    for step in 0..2 {
        // The file changes in the same second as the export.
        fs::write(host.path("vex/pkg/a.json"), OPENVEX.replace("\"x\"", &format!("\"{step}\""))).unwrap();
        let run = export(&host, &vex, &[]);
        let bundle = bundle(&host, &run);
        assert_eq!(report(&run)["datasets"][0]["updated_at"], Value::Null);
        host.verify(&bundle, &[]).exits(0);
        host.import(&bundle, &["--data-home", "home"]).exits(0).prints("installed");
        let web = ["--web-root", "web", "--web-url", "https://web.example/vex", "--state-dir", "web-state"];
        let key = host.at("keys/exporter.pub");
        let more = [&["import", bundle.to_str().unwrap(), "--trust", &key][..], &web].concat();
        host.run(&more).exits(0).prints("installed");
        host.run(&["status", "--state-dir", &host.at("state")]).exits(0);
    }
    // The age of the repository is unknown, and a warning says so.
    let judged = report(&export(&host, &vex, &["--max-age", "vex-corp=1d"]));
    assert!(judged["warnings"].to_string().contains("it has no date"), "{judged:#}");
    // The date is in the same second as the export, and has a fraction.
    let now = jiff::Timestamp::now().to_string();
    let vex = repository(&host, "vex", &documents, Some(&now));
    let args = ["export", "--key", "exporter.key", "--output", "now.tar", "--only", "vex-corp", &vex];
    host.run(&[&args[..], &["--state-dir", "another"]].concat()).exits(0);
    // Older exporters used the date of the files. Such bundles are valid.
    let archive = Archive::new().file("v/index.json", br#"{"packages":[]}"#).pack();
    let unpacked = vex::unpack(
        ArchiveFormat::TarGzip,
        std::io::Cursor::new(&archive),
        "v",
        UnpackLimits::of(Kind::Vex),
        &mut Discard,
    );
    let contents = Contents { updated_at: Some(days(-2)), ..unpacked.unwrap() };
    let undated = Bundle::of(days(0), &[Part::vex_saying(archive, "v", contents)]);
    let undated = host.bundle("undated.tar", &undated);
    host.verify(&undated, &[]).exits(0);
    let cache = ["--data-home", "home", "--state-dir", "old-state"];
    let key = host.at("keys/exporter.pub");
    let import = ["import", undated.to_str().unwrap(), "--trust", &key, "--cache-dir", "old-cache"];
    host.run(&[&import[..], &cache].concat()).exits(0).prints("installed");
    // If the date in the index differs from the signed date, the content is rejected.
    let mut old = Bundle::of(days(0), &[Part::vex(days(-1))]);
    old.edit(|payload| {
        let contents = &mut payload["datasets"][0]["contents"];
        contents["updated_at"] = json!(days(-2));
    });
    let old = host.bundle("old.tar", &old);
    host.verify(&old, &[]).fails_with(4, &["its date is", "instead of the signed"]);
}

fn database(buckets: u16, filler: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for transaction in [1u64, 2] {
        let mut meta = vec![0u8; 4096];
        meta[..8].copy_from_slice(&(transaction - 1).to_le_bytes());
        meta[8..10].copy_from_slice(&4u16.to_le_bytes());
        let body = &mut meta[16..80];
        body[..4].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
        body[4..8].copy_from_slice(&2u32.to_le_bytes());
        body[8..12].copy_from_slice(&4096u32.to_le_bytes());
        body[16..24].copy_from_slice(&2u64.to_le_bytes());
        body[40..48].copy_from_slice(&3u64.to_le_bytes());
        body[48..56].copy_from_slice(&transaction.to_le_bytes());
        let sum = body[..56].iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        body[56..].copy_from_slice(&sum.to_le_bytes());
        file.extend(meta);
    }
    let mut root = vec![0u8; 4096];
    root[..8].copy_from_slice(&2u64.to_le_bytes());
    root[8..10].copy_from_slice(&2u16.to_le_bytes());
    root[10..12].copy_from_slice(&buckets.to_le_bytes());
    file.extend(root);
    file.extend(vec![0; filler]);
    file
}

/// Publishes a trivy-db that is newer than the previous one.
fn publish(upstream: &Upstream, generation: i64, buckets: u16, filler: usize) {
    let date = days(-3) + jiff::SignedDuration::from_mins(generation);
    let layer = Archive::new()
        .file("trivy.db", &database(buckets, filler))
        .file("metadata.json", &metadata_json(2, date))
        .pack();
    let manifest = manifest_of(Kind::TrivyDb.layer_media_type().unwrap(), &layer, Some(date));
    upstream.put("/v2/db/manifests/1", manifest);
    upstream.put(&format!("/v2/db/blobs/{}", Digest::of(&layer)), layer);
}

#[test]
fn a_smaller_database_causes_a_warning_and_a_much_smaller_one_is_rejected() {
    let host = exporter();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    let export = |more: &[&str]| {
        host.wait(2);
        host.export(&upstream, &[&["--only", "trivy-db,trivy-checks"], more].concat())
    };
    publish(&upstream, 1, 90, 900_000);
    assert_eq!(report(export(&[]).exits(0))["warnings"], json!([]));
    // A loss of 1/10 causes a warning.
    publish(&upstream, 2, 80, 900_000);
    let warned = report(export(&[]).exits(0));
    let warning = warned["warnings"][0].as_str().unwrap();
    assert!(warning.contains("80 buckets, but had 90"), "{warned:#}");
    // A loss of 1/3 of the buckets or bytes, or a valid database without buckets, is an error.
    for (buckets, filler, word) in [
        (50, 900_000, "50 buckets, but had 80"),
        (80, 500_000, "bytes, but had"),
        (0, 0, "it holds no buckets"),
    ] {
        publish(&upstream, 3, buckets, filler);
        export(&[]).fails_with(5, &[word, "--accept trivy-db"]);
        // If `--require` does not name this database, the bundle is written without it, because
        // another source may have good data.
        let run = export(&["--require", "trivy-checks"]);
        let incomplete = report(run.exits(5));
        assert_eq!(
            (&incomplete["result"], &incomplete["missing"][0]["name"]),
            (&json!("incomplete"), &json!("trivy-db"))
        );
    }
    // With `--accept`, the smaller database is exported. Later databases are compared with it.
    publish(&upstream, 4, 30, 400_000);
    let accepted = report(export(&["--accept", "trivy-db"]).exits(0));
    assert!(accepted["warnings"][0].as_str().unwrap().contains("signed because of --accept"), "{accepted:#}");
    let state = test_kit::host::json_file(host.path("state/export-default.json"));
    assert_eq!(state["overrides"][0]["flags"], json!(["--accept trivy-db"]), "{state:#}");
    assert_eq!(accepted["bundle"]["overrides"], json!(["--accept trivy-db"]), "{accepted:#}");
    publish(&upstream, 5, 30, 400_000);
    assert_eq!(report(export(&[]).exits(0))["warnings"], json!([]));
    // An empty database is rejected even if there is no earlier one.
    publish(&upstream, 6, 0, 0);
    export(&["--stream", "new"]).fails_with(5, &["it holds no buckets"]);
}

#[test]
fn a_smaller_vex_repository_is_reported_as_well() {
    let host = exporter();
    let documents: Vec<(String, &str, &str)> =
        (0..30).map(|n| (format!("pkg/{n}.json"), "", OPENVEX)).collect();
    let documents: Vec<(&str, &str, &str)> =
        documents.iter().map(|(path, format, text)| (path.as_str(), *format, *text)).collect();
    let with = |count: usize, more: &[&str]| {
        let vex = repository(&host, "vex", &documents[..count], None);
        export(&host, &vex, more)
    };
    with(30, &[]).exits(0);
    let warned = report(with(27, &[]).exits(0));
    assert!(warned["warnings"][0].as_str().unwrap().contains("27 packages, but had 30"), "{warned:#}");
    with(18, &[]).fails_with(5, &["18 packages, but had 27", "--accept vex-corp"]);
    with(0, &[]).fails_with(5, &["0 packages"]);
    with(18, &["--accept", "vex-corp"]).exits(0);
    with(18, &[]).exits(0);
}

/// GitLab's archive has the commit in the name of its directory.
#[test]
fn a_pattern_in_a_location_is_resolved_in_the_web_root() {
    let host = exporter();
    fs::create_dir(host.path("web")).unwrap();
    for (location, directory, said) in
        [("//*", "vex-main-0a1b2c3d", false), ("//vex", "vex-main", true), ("", "vex-main", true)]
    {
        let upstream = Upstream::new(|_, _| None);
        upstream.publish(1, 1000);
        let url = format!("{}://{}/vex.tar.gz{location}", upstream.scheme, upstream.host);
        let version = json!({"spec_version": "0.1", "locations": [{"url": url}], "update_interval": "24h"});
        let manifest = json!({"name": "x", "description": "", "versions": [version]});
        upstream.put("/.well-known/vex-repository.json", manifest.to_string());
        upstream.put("/vex.tar.gz", crate::forge::vex_archive(directory, days(-3)));
        host.wait(2);
        let run = host.export(&upstream, &["--only", "vex-hub", "--stream", "a"]);
        let bundle = bundle(&host, &run);
        let warnings = report(&run)["warnings"].to_string();
        assert_eq!(warnings.contains("which Trivy itself would not find"), said, "{warnings}");
        host.verify(&bundle, &[]).exits(0);
        let cache = [
            "--stream",
            "a",
            "--data-home",
            "home",
            "--web-root",
            "web",
            "--web-url",
            "https://w.example/vex",
        ];
        host.import(&bundle, &cache).exits(0);
        let copied = fs::read_to_string(host.path("web/vex-hub/.well-known/vex-repository.json")).unwrap();
        assert!(copied.contains(&format!("//{directory}")), "{copied}");
    }
}

/// A database that was repacked on a Mac and pushed to a registry (trivy issue 6829).
#[test]
fn a_database_that_was_packed_on_a_mac_is_exported_and_imported() {
    let host = exporter();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    let date = days(-2);
    let layer = Archive::new()
        .file("._trivy.db", b"\0\x05\x16\x07\0\x02")
        .file("trivy.db", &database(9, 1000))
        .file("._metadata.json", b"\0\x05\x16\x07\0\x02")
        .file("metadata.json", &metadata_json(2, date))
        .pack();
    let manifest = manifest_of(Kind::TrivyDb.layer_media_type().unwrap(), &layer, Some(date));
    upstream.put("/v2/db/manifests/1", manifest);
    upstream.put(&format!("/v2/db/blobs/{}", Digest::of(&layer)), layer);
    let run = host.export(&upstream, &["--only", "trivy-db"]);
    let bundle = bundle(&host, &run);
    let warnings = report(&run)["warnings"].to_string();
    assert!(warnings.contains("packed on macOS") && warnings.contains("._trivy.db"), "{warnings}");
    host.import(&bundle, &[]).exits(0);
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&host.path("cache/db")), ["metadata.json", "trivy.db"]);
}
