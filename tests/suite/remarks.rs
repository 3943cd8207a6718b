//! What people are told: nothing that is wrong, nothing twice, and nothing that they know already.

use std::fs;

use serde_json::Value;
use test_kit::answers;
use test_kit::process::Run;
use test_kit::registry::Registry;

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days, hours};

fn status(host: &Host, more: &[&str]) -> Run {
    host.run(&[&["status", "--state-dir", "state"], more].concat())
}

#[test]
fn an_export_without_a_bundle_names_its_heartbeat() {
    let sender = Host::new();
    sender.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    let args = ["export", "--key", "exporter.key", "--output", "out", "--if-changed", "--heartbeat"];
    let flags = upstream.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    sender.run(&[&args[..], &flags].concat()).exits(0).prints("Heartbeat: out/default-");
    sender.wait(2);
    let again = sender.run(&[&args[..], &flags].concat());
    again
        .exits(0)
        .prints("no bundle was written")
        .prints("Heartbeat: out/")
        .does_not_say("Nothing was written");
}

#[test]
fn errors_say_whose_they_are() {
    let host = Host::new();
    let refusing = |code: u16| Registry::new(move |_| Some(answers::status(code)));
    let (one, other) = (refusing(403), refusing(403));
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(days(-2))));
    let places = [&one, &other].map(|registry| format!("{}/p", registry.host));
    let to = ["--registry", &places[0], "--registry", &places[1], "--plain-http"];
    let run = host.import(&bundle, &to);
    run.exits(7);
    for place in &places {
        assert!(run.err.contains(place), "{run}");
    }
    // What is refused by all targets alike is said once.
    let older = host.bundle("b.tar", &Bundle::of(hours(-9), &Part::all(days(-2))));
    let newer = host.bundle("c.tar", &Bundle::of(hours(-1), &Part::all(days(-2))));
    let (a, b) = (Registry::new(|_| None), Registry::new(|_| None));
    let places = [&a, &b].map(|registry| format!("{}/p", registry.host));
    let to = ["--registry", &places[0], "--registry", &places[1], "--plain-http"];
    host.import(&newer, &to).good();
    let run = host.import(&older, &to);
    run.exits(5);
    assert_eq!(run.err.matches("before the last one accepted").count(), 1, "{run}");
    // What is too old at one of two names the one.
    status(&host, &["--max-age", "1h"]).exits(5).warns(&format!("registry:{}: trivy-db is of", places[0]));
}

#[test]
fn state_of_a_newer_version_is_named_as_such() {
    let host = Host::new();
    let bundle = host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(days(-2))));
    host.import(&bundle, &[]).good();
    let sender = Host::new();
    sender.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    sender.export(&upstream, &[]).good();
    for (host, name) in [(&host, "state/import-default.json"), (&sender, "state/export-default.json")] {
        let path = host.path(name);
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        state["format"] = 2.into();
        // Nothing else need look as it does today.
        state["targets"] = "elsewhere".into();
        state["floors"] = Value::Null;
        fs::write(&path, state.to_string()).unwrap();
    }
    let words = ["is of format 2", "knows formats up to 1", "Use the newer trivy-ferry"];
    host.import(&bundle, &[]).fails_with(2, &words).does_not_say("next import");
    status(&host, &[]).fails_with(2, &words);
    sender.export(&upstream, &[]).fails_with(2, &words);
    // What is damaged says what that means on this side.
    fs::write(sender.path("state/export-default.json"), "{").unwrap();
    sender.export(&upstream, &[]).exits(2).warns("the next export then begins").does_not_say("next import");
    fs::write(host.path("state/import-default.json"), "{").unwrap();
    host.import(&bundle, &[]).exits(2).warns("the next import is then treated as the first");
}

/// A copy that was cut off and the same bundle under another name: it has come, whatever the file is called.
#[test]
fn a_bad_copy_is_no_refusal_once_the_bundle_has_come() {
    for spoil in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3000),
        |bytes: &mut Vec<u8>| {
            let last = bytes.len() - 1200;
            bytes[last] ^= 1;
        },
    ] {
        let host = Host::new();
        let bundle = Bundle::of(hours(-2), &Part::all(days(-2)));
        let mut bytes = bundle.signed(&host.key);
        spoil(&mut bytes);
        host.import(&host.file("copied-by-hand.tar", bytes), &[]).exits(4);
        host.import(&host.bundle("other.tar", &Bundle::of(hours(-3), &Part::all(days(-3)))), &[]).good();
        status(&host, &[]).exits(0).prints("refused").prints("copied-by-hand.tar");
        host.import(&host.bundle("b.tar", &bundle), &[]).good();
        status(&host, &[]).good().does_not_say("refused");
    }
}

/// Whoever has run `repair` or `verify` needs no advice to run it.
#[test]
fn nobody_is_advised_to_do_what_was_just_done() {
    let host = Host::new();
    let whole = Bundle::of(hours(-2), &Part::all(days(-2))).signed(&host.key);
    let cut = host.file("cut.tar", &whole[..whole.len() - 3000]);
    host.verify(&cut, &[]).exits(4).warns("`trivy-ferry repair`").does_not_say("`trivy-ferry verify`");
    let repair = |path: &str| host.run(&["repair", path, "--trust", "keys/exporter.pub"]);
    repair("cut.tar").fails().does_not_say("`trivy-ferry repair`");
    let sender = Host::with_key(&host.key);
    sender.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 3_000_000);
    sender.export(&upstream, &["--volume-size", "1M"]).good();
    let lost =
        test_kit::host::names(sender.path("out")).into_iter().find(|name| name.ends_with(".001")).unwrap();
    fs::remove_file(sender.path("out").join(lost)).unwrap();
    host.verify(&sender.path("out"), &[]).exits(6).warns(".001").does_not_say("`trivy-ferry verify`");
    repair(&sender.at("out")).fails().does_not_say("`trivy-ferry repair`");
}

#[test]
fn numbers_that_go_back_are_a_remark() {
    let host = Host::new();
    for (made, number) in [(-9, 7), (-8, 8)] {
        let bundle = Bundle::of(hours(made), &Part::all(days(-2))).with("sequence", number);
        host.import(&host.bundle("b.tar", &bundle), &[]).exits(0).does_not_say("the exporter lost its state");
    }
    for (made, number) in [(-7, 8), (-6, 3)] {
        let bundle = Bundle::of(hours(made), &Part::all(days(-2))).with("sequence", number);
        let path = host.bundle("b.tar", &bundle);
        host.import(&path, &[]).exits(0).prints(&format!("number {number} after number 8"));
        // Only where it is new.
        host.import(&path, &[]).exits(0).does_not_say("after number");
    }
    let bundle = Bundle::of(hours(-5), &Part::all(days(-2))).with("sequence", 4);
    host.import(&host.bundle("b.tar", &bundle), &[]).exits(0).does_not_say("after number");
}

#[test]
fn a_public_key_on_the_medium_is_no_remark() {
    let host = Host::new();
    let bundle = Bundle::of(hours(-2), &Part::all(days(-2)));
    host.bundle("stick/b.tar", &bundle);
    host.file("stick/FERRY.PUB", host.key.public().to_pem());
    host.file("stick/notes.txt", "x");
    let stick = host.path("stick");
    host.import(&stick, &[]).exits(0).prints("ignored: notes.txt").does_not_say("FERRY.PUB");
    host.verify(&stick, &[]).exits(0).prints("ignored: notes.txt").does_not_say("FERRY.PUB");
    // Where nothing else lies, it is what was found.
    fs::remove_file(stick.join("b.tar")).unwrap();
    host.import(&stick, &[]).exits(2).warns("FERRY.PUB");
}

#[test]
fn status_says_which_state_it_reads_and_by_which_clock() {
    let host = Host::new();
    host.import(&host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(days(-2)))), &[]).good();
    status(&host, &[]).exits(0).prints("state      ").prints(" UTC (2 d old)").prints(" UTC (2 h ago)");
    let json = status(&host, &["--format", "json"]).json();
    assert_eq!(json["state_dir"], host.at("state"));
}
