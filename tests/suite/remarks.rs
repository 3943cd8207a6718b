//! Messages: they are correct, appear once, and say nothing that the user knows already.

use std::fs;

use serde_json::Value;
use test_kit::answers;
use test_kit::process::Run;
use test_kit::registry::Registry;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Bundle, Host, Part, days, hours};
use crate::status::with_images;

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
fn errors_name_their_target() {
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
    // A bundle that all targets reject for the same reason is reported once.
    let older = host.bundle("b.tar", &Bundle::of(hours(-9), &Part::all(days(-2))));
    let newer = host.bundle("c.tar", &Bundle::of(hours(-1), &Part::all(days(-2))));
    let (a, b) = (Registry::new(|_| None), Registry::new(|_| None));
    let places = [&a, &b].map(|registry| format!("{}/p", registry.host));
    let to = ["--registry", &places[0], "--registry", &places[1], "--plain-http"];
    host.import(&newer, &to).good();
    let run = host.import(&older, &to);
    run.exits(5);
    assert_eq!(run.err.matches("before the last one accepted").count(), 1, "{run}");
    // A problem of one of two targets names the target. The rejections are more severe and decide
    // the exit code.
    status(&host, &["--max-age", "1h"]).exits(7).warns(&format!("registry:{}: trivy-db of", places[0]));
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
        // All other fields may have another form.
        state["targets"] = "elsewhere".into();
        state["floors"] = Value::Null;
        fs::write(&path, state.to_string()).unwrap();
    }
    let words = ["is of format 2", "supports formats up to 1", "Use the newer trivy-ferry"];
    host.import(&bundle, &[]).fails_with(2, &words).does_not_say("next import");
    status(&host, &[]).fails_with(2, &words);
    sender.export(&upstream, &[]).fails_with(2, &words);
    // The message for a damaged state describes the effect on this side.
    fs::write(sender.path("state/export-default.json"), "{").unwrap();
    sender.export(&upstream, &[]).exits(2).warns("the next export then numbers").does_not_say("next import");
    fs::write(host.path("state/import-default.json"), "{").unwrap();
    host.import(&bundle, &[]).exits(2).warns("the next import is then treated as the first");
}

/// A copy of a bundle was damaged, and then the same bundle arrives under another name.
#[test]
fn a_damaged_copy_is_no_longer_reported_after_the_bundle_was_imported() {
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

/// A user who has run `repair` or `verify` must not be advised to run it.
#[test]
fn a_command_does_not_advise_users_to_run_it() {
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
fn a_lower_sequence_number_is_reported() {
    let host = Host::new();
    for (made, number) in [(-9, 7), (-8, 8)] {
        let bundle = Bundle::of(hours(made), &Part::all(days(-2))).with("sequence", number);
        host.import(&host.bundle("b.tar", &bundle), &[]).exits(0).does_not_say("the exporter lost its state");
    }
    for (made, number) in [(-7, 8), (-6, 3)] {
        let bundle = Bundle::of(hours(made), &Part::all(days(-2))).with("sequence", number);
        let path = host.bundle("b.tar", &bundle);
        host.import(&path, &[]).exits(0).prints(&format!("number {number} after number 8"));
        // The number is reported only for a new bundle.
        host.import(&path, &[]).exits(0).does_not_say("after number");
    }
    let bundle = Bundle::of(hours(-5), &Part::all(days(-2))).with("sequence", 4);
    host.import(&host.bundle("b.tar", &bundle), &[]).exits(0).does_not_say("after number");
}

#[test]
fn a_public_key_on_the_medium_is_not_reported() {
    let host = Host::new();
    let bundle = Bundle::of(hours(-2), &Part::all(days(-2)));
    host.bundle("stick/b.tar", &bundle);
    host.file("stick/FERRY.PUB", host.key.public().to_pem());
    host.file("stick/notes.txt", "x");
    let stick = host.path("stick");
    host.import(&stick, &[]).exits(0).prints("skipped: notes.txt").does_not_say("FERRY.PUB");
    host.verify(&stick, &[]).exits(0).prints("skipped: notes.txt").does_not_say("FERRY.PUB");
    // If the medium has no other file, the key is named.
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

/// The output says so if a run uses another state directory than usual, because each of two states
/// lacks the records of the other.
#[test]
fn another_state_directory_is_named() {
    let host = Host::new();
    host.write_key();
    host.bundle("b.tar", &Bundle::of(hours(-2), &Part::all(days(-2))));
    host.file("no-directory", "x");
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    let run = |args: &[&str], state: Option<&str>| {
        let mut command = host.command();
        command.args(args).env_remove("TRIVY_FERRY_STATE_DIR");
        if let Some(state) = state {
            command.env("STATE_DIRECTORY", host.path(state));
        }
        forge::run(command)
    };
    let import = ["import", "b.tar", "--trust", "keys/exporter.pub", "--cache-dir", "cache"];
    let flags = upstream.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let export = [&["export", "--key", "exporter.key", "--output", "out"][..], &flags].concat();
    let used = host.at("xdg-state/trivy-ferry");
    for (args, says) in [
        (&import[..], "the state is kept in"),
        (&export, "the state is kept in"),
        (&["status"], "the state is read from"),
    ] {
        run(args, None).exits(0).does_not_say("the state is");
        host.wait(2);
        run(args, Some("no-directory/state"))
            .exits(0)
            .warns(&format!("{says} {used}"))
            .warns("no-directory/state");
        host.wait(2);
    }
    // If the directory can be created, it is the default. Before it exists, `status` reads another
    // one.
    run(&["status"], Some("made")).exits(0).warns("the state is read from");
    run(&import, Some("made")).exits(0).does_not_say("the state is");
    run(&["status"], Some("made")).exits(0).does_not_say("the state is").prints(&host.at("made"));
}

#[test]
fn images_that_a_cache_cannot_hold_are_mentioned() {
    let host = Host::new();
    let says =
        "The images in this bundle are for a registry (quay.example/tools/x:1, quay.example/tools/y:1)";
    let bundle = host.bundle("b.tar", &with_images(Bundle::of(hours(-2), &Part::all(days(-2)))));
    host.import(&bundle, &["--dry-run"]).exits(0).prints("trivy-db        would install");
    for _ in 0..2 {
        host.import(&bundle, &[]).exits(0).prints(says).prints("--image");
    }
    // Images are not mentioned if the run also imports into a registry, or if there are none.
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    host.import(&bundle, &["--registry", &place, "--plain-http", "--image", "*"])
        .exits(0)
        .does_not_say("are for a registry");
    let without = host.bundle("c.tar", &Bundle::of(hours(-1), &Part::all(days(-2))));
    host.import(&without, &[]).exits(0).does_not_say("are for a registry");
}

/// Trivy's databases have dates in nanoseconds (trivy-db, `pkg/metadata`), and VEX repositories in
/// microseconds. Only `inspect` shows the dates of the signed payload.
#[test]
fn dates_in_json_are_whole_seconds() {
    let host = Host::new();
    let fraction = jiff::SignedDuration::new(0, 123_456_789);
    let whole = |run: &Run| {
        let mut found = Vec::new();
        fractions(&run.json(), &mut found);
        assert!(found.is_empty(), "{found:?}\n{run}");
    };
    for (number, days_ago) in [(1, -5), (2, -3)] {
        let built = days(days_ago) + fraction;
        let bundle = Bundle::of(days(days_ago + 1), &Part::all(built)).with("sequence", number);
        let path = host.bundle("b.tar", &bundle);
        whole(host.import(&path, &["--format", "json"]).exits(0));
        whole(status(&host, &["--format", "json"]).exits(0));
        whole(host.verify(&path, &["--format", "json"]).exits(0));
        let registry = Registry::new(|_| None);
        let place = format!("{}/p", registry.host);
        whole(host.import(&path, &["--registry", &place, "--plain-http", "--format", "json"]).exits(0));
    }
}

/// Adds the dates of data that have a fraction of a second.
fn fractions(json: &Value, found: &mut Vec<String>) {
    const DATES: [&str; 5] = ["updated_at", "next_update", "was", "accepted", "in_use"];
    for (name, value) in json.as_object().into_iter().flatten() {
        let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if time.is_some_and(|time| DATES.contains(&name.as_str()) && time.subsec_nanosecond() != 0) {
            found.push(format!("{name}: {value}"));
        }
        fractions(value, found);
    }
    json.as_array().into_iter().flatten().for_each(|value| fractions(value, found));
}
