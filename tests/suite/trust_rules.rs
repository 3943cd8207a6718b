//! Two who must agree, a key for one stream alone, what was signed, and what follows when a key was stolen.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use test_kit::host::text;
use test_kit::process::Run;
use trivy_ferry::trust::key::SigningKey;
use trivy_ferry::trust::state::{Side, StateDir};

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days, hours};

/// A host that trusts its exporter and a second key, whose private half is there too.
fn two_keys() -> (Host, SigningKey) {
    let (host, second) = (Host::new(), SigningKey::generate().unwrap());
    let path = host.file("second.key", second.to_pem(None).unwrap().as_bytes());
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    host.trust("second", &second.public());
    (host, second)
}

const BOTH: [&str; 2] = ["--trust", "keys/exporter.pub,keys/second.pub"];

#[test]
fn as_many_keys_must_have_signed_as_are_required() {
    let (host, _) = two_keys();
    let bundle = host.bundle("inbox/b.tar", &Bundle::of(hours(-2), &Part::all(days(-2))));
    let two = [&BOTH[..], &["--min-signers", "2"]].concat();
    let before = host.snapshot();
    host.import(&bundle, &two)
        .fails_with(4, &["is signed by 1 trusted key", "2 are required", "trivy-ferry sign"]);
    host.verify(&bundle, &two).fails_with(4, &["2 are required"]);
    assert!(host.snapshot() == before || !host.path("cache/db").exists());
    let serve = ["serve", "inbox", "--listen", "127.0.0.1:0", "--state-dir", "state"];
    host.run(&[&serve[..], &two].concat()).exits(4).warns("2 are required");
    let watch =
        ["watch", "inbox", "--once", "--settle", "1ms", "--state-dir", "state", "--cache-dir", "cache"];
    host.run(&[&watch[..], &two].concat()).exits(4).prints("2 are required");
    assert!(!bundle.exists(), "it is in quarantine");
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(days(-2))));
    // The same key under another name is no second one, and more keys than there are cannot sign.
    host.trust("again", &host.key.public());
    host.import(&bundle, &["--trust", "keys/exporter.pub,keys/again.pub", "--min-signers", "2"])
        .fails_with(2, &["2 different keys must sign, and 1 is trusted here"]);
    let again = "keys/exporter.pub,keys/again.pub,keys/second.pub";
    host.import(&bundle, &["--trust", again, "--min-signers", "2"]).exits(4);
    host.run(&["sign", "b.tar", "--key", "second.key", "--trust", "keys/exporter.pub"]).good();
    host.verify(&bundle, &two).good();
    host.import(&bundle, &two).good();
}

/// What is kept beside the keys holds for every command that uses these keys.
#[test]
fn the_number_and_the_streams_are_kept_beside_the_keys() {
    let (host, second) = two_keys();
    let trusted = |name: &str, text: &str| host.file(&format!("xdg-config/trivy-ferry/trusted/{name}"), text);
    trusted("exporter.pub", &host.key.public().to_pem());
    trusted("second.pub", &format!("# streams: lab, weekly\n{}", second.public().to_pem()));
    let listed = host.run(&["trust", "list"]);
    listed.exits(0).prints("only for stream lab, weekly");
    let import = |stream: &str, key: &SigningKey| -> Run {
        let bundle = Bundle::of(hours(-2), &Part::all(days(-2))).with("stream", stream);
        let bundle = host.file("b.tar", bundle.signed(key));
        let args = ["import", bundle.to_str().unwrap(), "--cache-dir", "cache", "--state-dir", "state"];
        host.run(&[&args[..], &["--stream", stream]].concat())
    };
    import("lab", &second).good();
    import("default", &second)
        .fails_with(
            4,
            &["is of stream \"default\"", "is not trusted: second.pub (trusted only for stream lab"],
        )
        .warns("trust add FILE --stream default");
    import("default", &host.key).good();
    trusted("min-signers", "2\n");
    import("weekly", &host.key).exits(4).warns("2 are required");
    host.run(&["trust", "list"]).prints("signatures of 2 different keys");
    // A second signature counts only where its key is trusted for the stream.
    let both_sign = |stream: &str| -> Run {
        let bundle = Bundle::of(hours(-1), &Part::all(days(-1))).with("stream", stream);
        host.file("b.tar", bundle.signed(&host.key));
        host.run(&["sign", "b.tar", "--key", "second.key", "--trust", "keys/exporter.pub"]).good();
        let args = ["import", "b.tar", "--cache-dir", "cache", "--state-dir", "state", "--stream", stream];
        host.run(&args)
    };
    both_sign("weekly").exits(0);
    // Where too few keys are trusted for a stream, nothing can be accepted: that is said at once, by all commands.
    let few = [
        "2 different keys must sign, and 1 is trusted here for stream \"monthly\"",
        "there is also second.pub (trusted only for stream lab, weekly)",
        "trust add FILE --stream",
    ];
    both_sign("monthly").fails_with(2, &few);
    host.run(&["verify", "b.tar", "--stream", "monthly"]).fails_with(2, &few);
    let target = ["--cache-dir", "cache", "--state-dir", "state", "--stream", "monthly"];
    host.run(&[&["watch", "inbox", "--once"][..], &target].concat()).fails_with(2, &few);
    let serve = ["serve", "inbox", "--listen", "127.0.0.1:0", "--state-dir", "state", "--stream", "monthly"];
    host.run(&serve).fails_with(2, &few);
    // Where there are enough, the key is named whose signature does not count, and what can be done about it.
    trusted("third.pub", &SigningKey::generate().unwrap().public().to_pem());
    let named = [
        "is signed by 1 key trusted for stream \"monthly\", and 2 are required",
        "it is also signed by second.pub (trusted only for stream lab, weekly)",
        "trust add FILE --stream monthly",
    ];
    both_sign("monthly").fails_with(4, &named);
    host.run(&["verify", "b.tar"]).fails_with(4, &named);
    trusted("second.pub", &second.public().to_pem());
    both_sign("monthly").exits(0);
    trusted("min-signers", "many");
    import("weekly", &host.key).exits(2).warns("min-signers");
}

#[test]
fn a_heartbeat_counts_only_for_the_streams_of_its_key() {
    let (host, second) = two_keys();
    let sender = Host::with_key(&second);
    sender.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    sender.export(&upstream, &["--heartbeat", "--stream", "default"]).good();
    host.file("keys/second.pub", format!("# streams: lab\n{}", second.public().to_pem()));
    host.sh(&format!("cp {}/*.heartbeat.json inbox/", sender.at("out"))).good();
    let watch =
        ["watch", "inbox", "--once", "--settle", "1ms", "--state-dir", "state", "--cache-dir", "cache"];
    host.run(&[&watch[..], &BOTH].concat()).prints("passed over").prints("is not trusted");
}

#[test]
fn every_export_leaves_a_line() {
    let sender = Host::new();
    sender.write_key();
    let upstream = Upstream::new(|_, _| None);
    let log = || -> Vec<Value> {
        text(sender.path("state/exports.jsonl"))
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    upstream.publish(1, 1000);
    let first = sender.export(&upstream, &[]).good().json();
    let before = text(sender.path("state/exports.jsonl"));
    let line = &log()[0];
    for field in ["identity", "created", "sequence", "length", "stream"] {
        assert_eq!(line[field], first["bundle"][field], "{field}");
    }
    assert_eq!(line["keyid"], sender.key.public().id().hex());
    assert!(first["bundle"]["path"].as_str().unwrap().ends_with(line["files"][0].as_str().unwrap()));
    let datasets = line["datasets"].as_array().unwrap();
    assert_eq!(datasets.len(), 4, "{line:#}");
    let db = datasets.iter().find(|row| row["name"] == "trivy-db-2").unwrap();
    assert!(db["source"].as_str().unwrap().contains("/db:1") && db["updated_at"].is_string(), "{db:#}");
    // Nothing new leaves none, and neither does an export that fails.
    sender.export(&upstream, &["--if-changed"]).good();
    sender.export(&upstream, &["--max-age", "1m"]).fails();
    assert_eq!(text(sender.path("state/exports.jsonl")), before);
    // What is not in it is named, and volumes are, all of them.
    upstream.publish(2, 3_000_000);
    upstream.put("/vex.tar.gz", "no archive");
    sender.export(&upstream, &["--volume-size", "1M"]).exits(3);
    let line = log().pop().unwrap();
    assert!(line["missing"][0]["name"].as_str().unwrap().starts_with("vex"), "{line:#}");
    assert!(line["files"].as_array().unwrap().len() > 2, "{line:#}");
    assert!(text(sender.path("state/exports.jsonl")).starts_with(&before), "what was written stays");
}

/// As root, `trust remove` works on the keys of the whole host, so that the step after it is called by itself.
#[test]
fn after_a_stolen_key_no_date_of_it_stands() {
    let host = Host::new();
    let thief = SigningKey::generate().unwrap();
    let true_bundle = |age: i64| Bundle::of(hours(age), &Part::all(days(-2)));
    host.import(&host.bundle("b.tar", &true_bundle(-30)), &[]).good();
    // Dated as far ahead as is believed, in a bundle and in the data.
    host.trust("stolen", &thief.public());
    let forged = Bundle::of(hours(20), &Part::all(hours(20)));
    host.import(&host.file("b.tar", forged.signed(&thief)), &["--trust", "keys/stolen.pub"]).good();
    let refused = host.import(&host.bundle("b.tar", &true_bundle(-1)), &[]);
    refused.exits(5).warns("before the last one accepted");
    let reset = trivy_ferry::reset_floors(Some(&host.path("state")), thief.public().id()).unwrap();
    assert_eq!(reset.len(), 1);
    let line = text(host.path("state/imports.jsonl")).lines().last().unwrap().to_owned();
    assert!(line.contains("floors-reset") && line.contains(&thief.public().id().hex()), "{line}");
    // Until something comes, there is nothing that could be called good.
    host.run(&["status", "--state-dir", "state"]).fails();
    host.import(&host.path("b.tar"), &[]).exits(0).prints("installed");
    host.run(&["status", "--state-dir", "state"]).good();
    // From now on, the rules hold again.
    host.import(&host.path("b.tar"), &[]).good();
    host.import(&host.bundle("b.tar", &true_bundle(-30)), &[]).exits(5);
    assert!(StateDir::open(Some(&host.path("state")), Side::Import).is_ok());
}
