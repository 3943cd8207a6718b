//! `export --delta`, and imports of such bundles.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use test_kit::process::Run;
use test_kit::registry::Registry;

use crate::forge::Host;
use crate::forge::upstream::Upstream;

/// An exporter whose upstream changes a little with each generation, and an importer on the same host.
struct Site {
    host: Host,
    upstream: Upstream,
}

impl Site {
    fn new() -> Site {
        let host = Host::new();
        host.write_key();
        fs::create_dir_all(host.path("out")).unwrap();
        Site { host, upstream: Upstream::new(|_, _| None) }
    }

    /// Exports a generation, and returns the bundle and the report.
    fn export(&self, generation: u64, more: &[&str]) -> (PathBuf, Value) {
        self.upstream.publish_similar(generation);
        let run = self.host.export(&self.upstream, &[&["--delta"], more].concat());
        run.good();
        let report: Value = serde_json::from_str(&run.out).unwrap();
        (self.host.path(report["bundle"]["path"].as_str().unwrap()), report)
    }

    fn import(&self, bundle: &Path, more: &[&str]) -> Run {
        self.host.import(bundle, &[more, &["--format", "json"]].concat())
    }

    /// Returns the database in a cache.
    fn database(&self, cache: &str) -> Vec<u8> {
        fs::read(self.host.path(cache).join("db/trivy.db")).unwrap()
    }
}

/// Returns the status of trivy-db in the report of an import.
fn status(run: &Run) -> String {
    let report: Value = serde_json::from_str(&run.out).unwrap();
    let rows = report["targets"][0]["datasets"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "trivy-db").unwrap();
    row["status"].as_str().unwrap().to_owned()
}

#[test]
fn a_database_is_made_from_the_version_in_the_cache() {
    let site = Site::new();
    let (first, report) = site.export(0, &[]);
    assert_eq!(report["deltas"], serde_json::json!([]), "the first bundle carries it whole");
    site.import(&first, &[]).good();
    let whole = fs::metadata(&first).unwrap().len();
    for generation in 1..4 {
        let (bundle, report) = site.export(generation, &[]);
        let datasets: Vec<&Value> =
            report["deltas"].as_array().unwrap().iter().map(|row| &row["dataset"]).collect();
        assert_eq!(datasets, ["trivy-db-2", "trivy-java-db-1"], "{report:#}");
        assert_eq!(report["deltas"][0]["bases"], generation);
        let size = fs::metadata(&bundle).unwrap().len();
        assert!(size < whole / 5, "{size} of {whole} bytes");
        let run = site.import(&bundle, &[]);
        run.good();
        assert_eq!(status(&run), "installed");
        // An importer that installs the database whole has the same bytes.
        let (again, _) = Site { host: Host::new(), upstream: Upstream::new(|_, _| None) }.whole(generation);
        assert!(site.database("cache") == again, "generation {generation}");
        assert!(fs::read(site.host.path("cache/java-db/trivy-java.db")).unwrap() == crate::forge::sqlite());
        // The same bundle changes nothing.
        let run = site.import(&bundle, &[]);
        run.good();
        assert_eq!(status(&run), "unchanged");
    }
}

impl Site {
    /// Returns the database of a generation, as a bundle without deltas installs it, and the length of that bundle.
    fn whole(self, generation: u64) -> (Vec<u8>, u64) {
        self.host.write_key();
        fs::create_dir_all(self.host.path("out")).unwrap();
        self.upstream.publish_similar(generation);
        let run = self.host.export(&self.upstream, &[]);
        run.good();
        let report: Value = serde_json::from_str(&run.out).unwrap();
        let bundle = self.host.path(report["bundle"]["path"].as_str().unwrap());
        self.host.import(&bundle, &[]).good();
        (self.database("cache"), fs::metadata(&bundle).unwrap().len())
    }
}

#[test]
fn an_importer_that_missed_bundles_still_finds_a_base() {
    let site = Site::new();
    let (first, _) = site.export(0, &[]);
    site.import(&first, &[]).good();
    for generation in 1..6 {
        site.export(generation, &[]);
    }
    let (last, report) = site.export(6, &[]);
    assert_eq!(report["deltas"][0]["bases"], 6);
    site.import(&last, &[]).good();
    // The kept generation is a base too.
    let newest = site.database("cache");
    fs::write(site.host.path("cache/db/trivy.db"), b"another program wrote this").unwrap();
    let run = site.import(&last, &[]);
    run.good();
    assert!(site.database("cache") == newest);
}

#[test]
fn without_a_base_only_the_other_datasets_are_imported() {
    let site = Site::new();
    site.export(0, &[]);
    let (bundle, _) = site.export(1, &[]);
    let run = site.import(&bundle, &[]);
    assert_eq!(run.code, 6, "{run:#?}");
    assert_eq!(status(&run), "failed");
    assert!(run.out.contains("holds none of the versions"), "{run:#?}");
    assert!(!site.host.path("cache/db").exists());
    assert!(site.host.path("cache/vex").exists());
    // A bundle that carries it whole helps.
    let (whole, _) = site.export(2, &["--full-every", "1"]);
    site.import(&whole, &[]).good();
    let (next, report) = site.export(3, &[]);
    assert_eq!(report["deltas"][0]["bases"], 3);
    site.import(&next, &[]).good();
}

#[test]
fn registries_and_servers_need_the_layer() {
    let site = Site::new();
    site.export(0, &[]);
    let (bundle, _) = site.export(1, &[]);
    let registry = Registry::new(|_| None);
    let (key, state) = (site.host.at("keys/exporter.pub"), site.host.at("state"));
    let place = format!("{}/mirror", registry.host);
    let bundle = bundle.to_str().unwrap();
    let args =
        ["import", bundle, "--trust", &key, "--state-dir", &state, "--plain-http", "--registry", &place];
    let run = site.host.run(&args);
    assert_eq!(run.code, 6, "{run:#?}");
    assert!(run.err.contains("carried as a difference, which a registry cannot take"), "{run:#?}");
    assert_eq!(registry.tags().len(), 1, "the checks are pushed");
    let args = ["serve", bundle, "--trust", &key, "--state-dir", &state, "--listen", "127.0.0.1:0"];
    let run = site.host.run(&args);
    assert_eq!(run.code, 6, "{run:#?}");
}

#[test]
fn a_bundle_with_differences_is_verified_inspected_and_split() {
    let site = Site::new();
    let (first, _) = site.export(0, &[]);
    site.import(&first, &[]).good();
    let (bundle, _) = site.export(1, &["--parity", "20%"]);
    site.host.verify(&bundle, &[]).good();
    let run = site.host.run(&["inspect", bundle.to_str().unwrap()]);
    run.good();
    assert!(run.out.contains("not in this bundle") && run.out.contains("patch of"), "{run:#?}");
    // One damaged byte anywhere is found, and nothing is changed.
    let bytes = fs::read(&bundle).unwrap();
    let before = site.host.snapshot();
    for at in (1000..bytes.len()).step_by(bytes.len() / 23) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let bad = site.host.file("bad/b.tar", bad);
        let run = site.import(&bad, &[]);
        assert_eq!(run.code, 4, "byte {at}: {run:#?}");
        assert!(site.host.snapshot() == before, "byte {at}");
    }
}
