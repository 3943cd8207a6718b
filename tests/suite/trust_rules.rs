//! Rules of trust: several required signatures, keys for some streams only, the log of exports, and
//! the reset of floors after a key was stolen.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use test_kit::host::text;
use test_kit::process::Run;
use trivy_ferry::trust::key::SigningKey;
use trivy_ferry::trust::state::{Side, StateDir};

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days, hours};

/// Returns a host that trusts its exporter and a second key, and has the second private key.
fn two_keys() -> (Host, SigningKey) {
    let (host, second) = (Host::new(), SigningKey::generate().unwrap());
    let path = host.file("second.key", second.to_pem(None).unwrap().as_bytes());
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    host.trust("second", &second.public());
    (host, second)
}

const BOTH: [&str; 2] = ["--trust", "keys/exporter.pub,keys/second.pub"];

#[test]
fn a_bundle_needs_the_required_number_of_signatures() {
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
    assert!(!bundle.exists(), "the bundle is in quarantine");
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(days(-2))));
    // A copy of the same key under another name does not count, and more signatures than keys
    // cannot be required.
    host.trust("again", &host.key.public());
    host.import(&bundle, &["--trust", "keys/exporter.pub,keys/again.pub", "--min-signers", "2"])
        .fails_with(2, &["2 different keys must sign, and 1 is trusted here"]);
    let again = "keys/exporter.pub,keys/again.pub,keys/second.pub";
    host.import(&bundle, &["--trust", again, "--min-signers", "2"]).exits(4);
    host.run(&["sign", "b.tar", "--key", "second.key", "--trust", "keys/exporter.pub"]).good();
    host.verify(&bundle, &two).good();
    host.import(&bundle, &two).good();
}

/// Rules beside the keys apply to every command that uses these keys.
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
            &[
                "belongs to stream \"default\"",
                "is not trusted for this stream: second.pub (trusted only for stream lab",
            ],
        )
        .warns("trust add FILE --stream default");
    import("default", &host.key).good();
    trusted("min-signers", "2\n");
    import("weekly", &host.key).exits(4).warns("2 are required");
    host.run(&["trust", "list"]).prints("signatures of 2 trusted keys");
    // A second signature counts only if its key is trusted for the stream.
    let both_sign = |stream: &str| -> Run {
        let bundle = Bundle::of(hours(-1), &Part::all(days(-1))).with("stream", stream);
        host.file("b.tar", bundle.signed(&host.key));
        host.run(&["sign", "b.tar", "--key", "second.key", "--trust", "keys/exporter.pub"]).good();
        let args = ["import", "b.tar", "--cache-dir", "cache", "--state-dir", "state", "--stream", stream];
        host.run(&args)
    };
    both_sign("weekly").exits(0);
    // If too few keys are trusted for a stream, no bundle can be accepted, and all commands report
    // this at once.
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
    // If enough keys are trusted, the message names the key whose signature does not count, and the
    // next step.
    trusted("third.pub", &SigningKey::generate().unwrap().public().to_pem());
    let named = [
        "is signed by 1 key trusted for stream \"monthly\", but 2 are required",
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
    host.run(&[&watch[..], &BOTH].concat()).prints("skipped").prints("is not trusted");
}

#[test]
fn every_written_bundle_adds_a_line_to_the_log() {
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
    // An export without new data and a failed export add no line.
    sender.export(&upstream, &["--if-changed"]).good();
    sender.export(&upstream, &["--max-age", "1m"]).fails();
    assert_eq!(text(sender.path("state/exports.jsonl")), before);
    // The line names the missing datasets and all volumes.
    upstream.publish(2, 3_000_000);
    upstream.put("/vex.tar.gz", "no archive");
    sender.export(&upstream, &["--volume-size", "1M"]).exits(3);
    let line = log().pop().unwrap();
    assert!(line["missing"][0]["name"].as_str().unwrap().starts_with("vex"), "{line:#}");
    assert!(line["files"].as_array().unwrap().len() > 2, "{line:#}");
    assert!(text(sender.path("state/exports.jsonl")).starts_with(&before), "earlier lines do not change");
}

/// `trust remove` changes the keys of the whole host if root runs it, so the test calls the next
/// step directly.
#[test]
fn floors_can_be_reset_after_a_key_was_stolen() {
    let host = Host::new();
    let thief = SigningKey::generate().unwrap();
    let true_bundle = |age: i64| Bundle::of(hours(age), &Part::all(days(-2)));
    host.import(&host.bundle("b.tar", &true_bundle(-30)), &[]).good();
    // The dates of the bundle and its data are 20 h ahead, which is still accepted.
    host.trust("stolen", &thief.public());
    let forged = Bundle::of(hours(20), &Part::all(hours(20)));
    host.import(&host.file("b.tar", forged.signed(&thief)), &["--trust", "keys/stolen.pub"]).good();
    let refused = host.import(&host.bundle("b.tar", &true_bundle(-1)), &[]);
    refused.exits(5).warns("before the last one accepted");
    let reset = trivy_ferry::reset_floors(Some(&host.path("state")), thief.public().id()).unwrap();
    assert_eq!(reset.len(), 1);
    let line = text(host.path("state/imports.jsonl")).lines().last().unwrap().to_owned();
    assert!(line.contains("floors-reset") && line.contains(&thief.public().id().hex()), "{line}");
    // Until the next import, no data can be reported as good.
    host.run(&["status", "--state-dir", "state"]).fails();
    host.import(&host.path("b.tar"), &[]).exits(0).prints("installed");
    host.run(&["status", "--state-dir", "state"]).good();
    // After that, the rules apply again.
    host.import(&host.path("b.tar"), &[]).good();
    host.import(&host.bundle("b.tar", &true_bundle(-30)), &[]).exits(5);
    assert!(StateDir::open(Some(&host.path("state")), Side::Import).is_ok());
}

/// Adds a key to the user's own directory of trusted keys.
fn keep(host: &Host, name: &str, key: &SigningKey) -> std::path::PathBuf {
    let file = host.file(&format!("xdg-config/trivy-ferry/trusted/{name}"), key.public().to_pem());
    for directory in file.ancestors().skip(1).take(3) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// Imports with the keys in the directory instead of the keys of a flag.
fn import_kept(host: &Host, bundle: &std::path::Path) -> Run {
    let bundle = bundle.to_str().unwrap();
    host.run(&["import", bundle, "--cache-dir", "cache", "--state-dir", "state", "--data-home", "home"])
}

#[test]
fn a_signature_by_a_key_that_is_no_longer_trusted_is_reported() {
    let host = Host::new();
    let status = || host.run(&["status", "--state-dir", "state"]);
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-3), &Part::all(days(-2))));
    // A flag named the key, so later commands cannot know whether it is trusted.
    host.import(&bundle, &[]).good();
    status().good().prints("signed by exporter.pub").does_not_say("no longer trusted");
    let kept = keep(&host, "trusted-by-this-test.pub", &host.key);
    import_kept(&host, &bundle).good();
    status().good().prints("signed by trusted-by-this-test.pub").does_not_say("no longer trusted");
    // A renamed file still has the same key.
    fs::rename(&kept, kept.with_file_name("renamed-by-this-test.pub")).unwrap();
    status().good().does_not_say("no longer trusted");
    fs::rename(kept.with_file_name("renamed-by-this-test.pub"), &kept).unwrap();
    host.run(&["trust", "remove", "trusted-by-this-test"]).exits(0);
    status().good().prints("signed by trusted-by-this-test.pub (no longer trusted)");
    let json = host.run(&["status", "--state-dir", "state", "--format", "json"]).json();
    assert_eq!(
        json["imports"][0]["datasets"][0]["no_longer_trusted"],
        serde_json::json!(["trusted-by-this-test.pub"])
    );
    // Another key gets the name of the file. Then the file becomes invalid, so that the trusted
    // keys are unknown.
    let kept = keep(&host, "trusted-by-this-test.pub", &SigningKey::generate().unwrap());
    status().good().prints("signed by trusted-by-this-test.pub (no longer trusted)");
    fs::write(&kept, "rubbish").unwrap();
    status().good().does_not_say("no longer trusted");
    fs::remove_dir_all(kept.parent().unwrap()).unwrap();
    status().good().prints("signed by trusted-by-this-test.pub (no longer trusted)");
}

/// The state belongs to another user, is writable by others, or is damaged: the key is only removed
/// if the floors can be reset.
#[test]
fn a_key_is_removed_with_its_floors_or_not_at_all() {
    let host = Host::new();
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-3), &Part::all(days(-2))));
    let kept = keep(&host, "trusted-by-this-test.pub", &host.key);
    import_kept(&host, &bundle).good();
    let state = host.path("state");
    let file = state.join("import-default.json");
    let good = fs::read(&file).unwrap();
    let mode = |mode: u32| fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
    let remove =
        || host.run(&["trust", "remove", "trusted-by-this-test", "--reset-floors", "--state-dir", "state"]);
    for is_open in [true, false] {
        match is_open {
            true => mode(0o777),
            false => fs::write(&file, "rubbish").unwrap(),
        }
        remove().fails_with(2, &["no key was removed", "trust reset-floors"]);
        host.run(&["trust", "reset-floors", "--state-dir", "state"]).fails();
        mode(0o700);
        assert!(kept.exists());
        fs::write(&file, &good).unwrap();
    }
    remove().exits(0).prints("floors reset: cache:").prints("no longer trusted");
    assert!(!kept.exists());
    // The owner of the state only resets the floors.
    fs::write(&file, &good).unwrap();
    let ran = host.run(&["trust", "reset-floors", "--state-dir", "state"]);
    ran.good().prints("floors reset: cache:").prints("stream default");
    let line = text(host.path("state/imports.jsonl")).lines().last().unwrap().to_owned();
    assert!(line.contains("floors-reset") && line.contains("trust reset-floors"), "{line}");
    host.run(&["status", "--state-dir", "state"]).exits(7).warns("its floors were reset on");
    host.run(&["trust", "reset-floors", "--state-dir", "nowhere"])
        .fails_with(2, &["nothing was imported here"]);
    assert!(!host.path("nowhere").exists());
    // If there is no state, the key is removed, and a message says that no floors were reset.
    keep(&host, "trusted-by-this-test.pub", &host.key);
    host.run(&["trust", "remove", "trusted-by-this-test", "--reset-floors", "--state-dir", "nowhere"])
        .exits(0)
        .warns("no floors were reset");
}
