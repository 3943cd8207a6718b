//! The log for auditors: the bundles, the times of their imports, their signers, and the overrides.

use std::fs;

use serde_json::Value;
use trivy_ferry::trust::key::SigningKey;

use crate::forge::{Bundle, Host, Part, days, hours};

impl Host {
    fn log_text(&self) -> String {
        fs::read_to_string(self.path("state/imports.jsonl")).unwrap()
    }

    fn log(&self) -> Vec<Value> {
        self.log_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the line that an import of these bytes adds to the log.
    fn logged(&self, bytes: impl AsRef<[u8]>, more: &[&str]) -> Value {
        let path = self.file("inbox/b.tar", bytes);
        let before = if self.path("state/imports.jsonl").exists() { self.log_text() } else { String::new() };
        self.import(&path, more);
        let after = self.log_text();
        assert!(after.starts_with(&before), "earlier lines do not change");
        let mut added: Vec<Value> =
            after[before.len()..].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(added.len(), 1, "{added:?}");
        added.remove(0)
    }
}

#[test]
fn every_import_adds_a_line() {
    let host = Host::new();
    let first = Bundle::of(hours(-5), &Part::all(days(-2))).with("sequence", 1);
    let line = host.logged(first.signed(&host.key), &[]);
    assert_eq!(line["event"], "accepted");
    assert_eq!(line["identity"], first.identity());
    assert_eq!((&line["stream"], &line["sequence"]), (&"default".into(), &1.into()));
    assert_eq!(line["signers"][0]["keyid"], host.key.public().id().hex());
    assert_eq!(line["signers"][0]["name"], "exporter.pub");
    assert!(line["target"].as_str().unwrap().starts_with("cache:/"));
    assert!(line["at"].as_str().unwrap() >= hours(-1).to_string().as_str());
    let datasets = line["datasets"].as_array().unwrap();
    assert!(datasets.iter().any(|row| row["name"] == "trivy-db-2" && row["status"] == "installed"));
    assert!(line.get("overrides").is_none());
    // The line of a rejected bundle has its identity, its signer and the reason.
    let older = Bundle::of(hours(-9), &Part::all(days(-3)));
    let line = host.logged(older.signed(&host.key), &[]);
    assert_eq!((&line["event"], &line["identity"]), (&"refused".into(), &older.identity().into()));
    assert_eq!(line["signers"][0]["name"], "exporter.pub");
    assert!(line["why"].as_str().unwrap().contains("before the last one accepted"), "{line}");
    // The line has the override.
    let line = host.logged(older.signed(&host.key), &["--allow-rollback"]);
    assert_eq!((&line["event"], &line["overrides"]), (&"accepted".into(), &vec!["--allow-rollback"].into()));
    // A forged and a damaged bundle, whose identities are unknown.
    let forger = SigningKey::generate().unwrap();
    let line = host.logged(first.signed(&forger), &[]);
    assert_eq!((&line["event"], line.get("identity")), (&"refused".into(), None));
    assert_eq!(line["bundle"], "b.tar");
    assert!(line["why"].as_str().unwrap().contains("b.tar"), "{line}");
    let mut damaged = Bundle::of(hours(-1), &Part::all(days(-1))).signed(&host.key);
    let last = damaged.len() - 1200;
    damaged[last] ^= 1;
    let line = host.logged(damaged, &[]);
    assert_eq!(line["event"], "refused");
    assert!(line["why"].as_str().unwrap().contains("does not match the signed manifest"), "{line}");
}

#[test]
fn files_beside_a_good_bundle_are_logged_too() {
    let host = Host::new();
    let good = Bundle::of(hours(-5), &Part::all(days(-2)));
    host.file("inbox/good.tar", good.signed(&host.key));
    host.file("inbox/forged.tar", good.signed(&SigningKey::generate().unwrap()));
    host.import(&host.path("inbox"), &[]).good();
    let events: Vec<String> =
        host.log().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["refused", "accepted"]);
    assert!(
        host.log()[0]["why"].as_str().unwrap().starts_with("forged.tar is not signed"),
        "{:?}",
        host.log()
    );
    // A restore has no bundle, and is logged as well.
    host.file("inbox/good.tar", Bundle::of(hours(-4), &Part::all(days(-1))).signed(&host.key));
    host.import(&host.path("inbox"), &[]).good();
    let restore =
        ["import", "--restore", "--cache-dir", "cache", "--state-dir", "state", "--data-home", "data"];
    host.run(&restore).good();
    let last = host.log().pop().unwrap();
    assert_eq!(last["event"], "went-back");
    assert!(last["why"].as_str().unwrap().contains("trivy-db"), "{last}");
}

#[test]
fn a_log_that_cannot_be_written_is_reported_and_does_not_stop_the_import() {
    let host = Host::new();
    let bundle = host.file("b.tar", Bundle::of(hours(-5), &Part::all(days(-2))).signed(&host.key));
    fs::create_dir_all(host.path("state/imports.jsonl")).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(host.path("state"), private).unwrap();
    host.import(&bundle, &[]).exits(2).warns("imports.jsonl cannot be used");
    assert!(host.installed("cache", "db").is_some());
}
