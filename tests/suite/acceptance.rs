//! Decisions of the importer about valid bundles, tested through the command line: rollback,
//! equivocation, dates in the future, expiry, streams, gaps, ages, state and restore.
//!
//! The bundles are well formed and signed by a trusted key. Only their metadata differs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use test_kit::process::Run;

use crate::forge::{self, Bundle, Host, Part, days, hours};

/// Returns a bundle whose data is as old as the bundle.
fn bundle(created: Timestamp) -> Bundle {
    Bundle::of(created, &Part::all(created))
}

/// Returns such a bundle with a sequence number.
fn numbered(created: Timestamp, sequence: u64) -> Bundle {
    bundle(created).with("sequence", sequence)
}

fn date(of: Timestamp) -> Option<String> {
    Some(of.to_string())
}

#[test]
fn only_the_first_import_is_reported_as_such() {
    let host = Host::new();
    let ran = host.import(&host.bundle("one.tar", &bundle(days(-3))), &[]);
    ran.good().prints("first import of this stream into this target");
    let ran = host.import(&host.bundle("two.tar", &bundle(days(-2))), &[]);
    ran.good();
    assert!(!ran.out.contains("first import"), "{ran:#?}");
    // Each cache has its own state.
    let ran = host.import_to("cache-2", &host.path("two.tar"), &[]);
    ran.good().prints("first import of this stream into this target");
}

#[test]
fn an_older_bundle_needs_an_override_which_is_recorded() {
    let host = Host::new();
    let (old, new) = (bundle(days(-5)), bundle(days(-2)));
    host.import(&host.bundle("new.tar", &new), &[]).good();
    let before = host.snapshot();
    let path = host.bundle("old.tar", &old);
    host.import(&path, &[]).fails_with(5, &["old.tar", "before the last one accepted", "--allow-rollback"]);
    assert_eq!(host.snapshot(), before);
    // `verify` does not read the state of this host, so it accepts the bundle.
    host.verify(&path, &[]).good();

    let ran = host.import(&path, &["--allow-rollback"]);
    ran.good().prints("accepted only because of --allow-rollback; this is recorded");
    assert_eq!(host.installed("cache", "db"), date(days(-5)));
    let state = host.state("default");
    assert_eq!(state["overrides"][0]["flags"], json!(["--allow-rollback"]));
    assert_eq!(state["overrides"][0]["identity"], json!(old.identity()));
    assert_eq!(state["last"]["identity"], json!(old.identity()));
    assert_eq!(state["floors"]["trivy-db-2"], json!(days(-5)));

    // The override lowered the floor. A bundle above the new floor is accepted, and one below it is
    // rejected.
    host.import(&host.bundle("between.tar", &bundle(days(-4))), &[]).good();
    assert_eq!(host.installed("cache", "db"), date(days(-4)));
    let ran = host.import(&host.bundle("oldest.tar", &bundle(days(-6))), &[]);
    ran.fails_with(5, &["oldest.tar", "--allow-rollback"]);
    assert_eq!(host.installed("cache", "db"), date(days(-4)));
}

#[test]
fn only_the_first_of_two_bundles_with_one_creation_time_is_accepted() {
    let host = Host::new();
    let created = days(-2);
    host.import(&host.bundle("one.tar", &bundle(created)), &[]).good();
    let before = host.snapshot();
    let twin = bundle(created).with("producer", "another exporter");
    let path = host.bundle("twin.tar", &twin);
    host.import(&path, &[])
        .fails_with(5, &["twin.tar", "same creation time as the last", "--allow-rollback"]);
    assert_eq!(host.snapshot(), before);
    host.import(&path, &["--allow-rollback"]).good().prints("--allow-rollback");
    // If both are in one directory, the first is imported and the error is the same.
    let other = Host::new();
    other.bundle("inbox/one.tar", &bundle(created));
    other.bundle("inbox/twin.tar", &twin);
    other
        .import(&other.path("inbox"), &[])
        .exits(5)
        .prints("installed")
        .warns("same creation time as the last");
    assert_eq!(other.state("default")["seen"].as_array().unwrap().len(), 1);
}

#[test]
fn a_bundle_dated_in_the_future_is_rejected_and_raises_no_floor() {
    let host = Host::new();
    let future = bundle(hours(25));
    let path = host.bundle("future.tar", &future);
    for ran in [host.import(&path, &[]), host.verify(&path, &[])] {
        ran.fails_with(5, &["future.tar", "more than 24 h after this host's clock", "--allow-future"]);
    }
    assert!(!host.path("cache/db").exists());
    // Both the bundle and its data are dated a year ahead.
    let far = host.bundle("far.tar", &bundle(days(365)));
    host.import(&far, &["--allow-future"]).good().prints("because of --allow-future");
    host.verify(&far, &["--allow-future"]).good();
    let state = host.state("default");
    assert!(state["last"].is_null(), "{state:#}");
    assert_eq!(state["floors"], json!({}), "{state:#}");
    assert_eq!(state["overrides"][0]["flags"], json!(["--allow-future"]));
    // Neither the state nor the installed data of that import prevents an import of current data.
    host.import(&host.bundle("today.tar", &bundle(hours(-1))), &[]).good();
    assert_eq!(host.installed("cache", "db"), date(hours(-1)));
    // Clocks may differ by up to 24 h.
    host.import(&host.bundle("nearly.tar", &bundle(hours(23))), &[]).good();
}

#[test]
fn expired_bundles_are_rejected_and_the_expiry_of_installed_data_is_checked() {
    let host = Host::new();
    let expired = bundle(days(-3)).with("expires", hours(-1));
    let path = host.bundle("expired.tar", &expired);
    for ran in [host.import(&path, &[]), host.verify(&path, &[])] {
        ran.fails_with(5, &["expired.tar", "expired", "--allow-expired"]);
    }
    assert!(!host.path("cache/db").exists());
    let ran = host.import(&path, &["--allow-expired"]);
    ran.good().prints("because of --allow-expired");
    host.verify(&path, &["--allow-expired"]).good();
    assert_eq!(host.state("default")["last"]["expires"], json!(hours(-1)));
    // Without the override, every later run fails, with the same bundle and with an older one.
    host.import(&path, &[]).fails_with(5, &["expired.tar", "--allow-expired"]);
    let older = bundle(days(-4)).with("sequence", 3);
    host.import(&host.bundle("older.tar", &older), &[]).fails_with(5, &["older.tar"]);
    host.import(&path, &["--allow-expired"]).good();

    // If a bundle expires after its import, the next run uses its expiry date.
    let host = Host::new();
    let soon = hours(1);
    let path = host.bundle("soon.tar", &bundle(days(-3)).with("expires", soon));
    host.import(&path, &[]).good();
    host.wait(2 * 3600);
    let before = host.snapshot();
    host.import(&path, &[]).fails_with(5, &["expired", "--allow-expired"]);
    assert_eq!(host.snapshot(), before);
    // A late bundle without an expiry date does not suppress the error.
    let late = host.bundle("late.tar", &bundle(days(-4)));
    host.import(&late, &["--allow-rollback"]).good();
    let newer = host.bundle("newer.tar", &bundle(days(-1)));
    host.import(&newer, &[]).good();
    assert!(host.state("default")["last"]["expires"].is_null(), "a newer bundle clears the date");
}

#[test]
fn a_late_bundle_does_not_clear_the_expiry_of_installed_data() {
    let host = Host::new();
    host.import(&host.bundle("1.tar", &numbered(days(-5), 1)), &[]).good();
    let soon = hours(1);
    host.import(&host.bundle("3.tar", &numbered(days(-3), 3).with("expires", soon)), &[]).good();
    host.wait(2 * 3600);
    let ran = host.import(&host.bundle("2.tar", &numbered(days(-4), 2)), &[]);
    ran.exits(5).warns("the installed data of stream").warns("--allow-expired");
    let ran = host.import(&host.path("2.tar"), &["--allow-expired"]);
    ran.good();
}

#[test]
fn a_bundle_of_another_stream_is_rejected() {
    let host = Host::new();
    host.import(&host.bundle("one.tar", &bundle(days(-3))), &[]).good();
    let before = host.snapshot();
    let lab = host.bundle("lab.tar", &bundle(days(-1)).with("stream", "lab"));
    let ran = host.import(&lab, &[]);
    ran.fails_with(5, &["lab.tar", "stream \"lab\"", "stream \"default\"", "--stream"]);
    assert_eq!(host.snapshot(), before);
    host.verify(&lab, &["--stream", "default"]).fails_with(5, &["\"lab\"", "--stream"]);
    host.verify(&lab, &[]).good();
    // With `--stream`, it is accepted and gets its own state. The state of the first stream does
    // not change.
    host.import(&lab, &["--stream", "lab"]).good().prints("first import of this stream into this target");
    assert_eq!(host.state("lab")["seen"].as_array().unwrap().len(), 1);
    assert_eq!(host.state("default")["seen"].as_array().unwrap().len(), 1);
    // Other bundles in a directory are skipped, and the one of the right stream is imported.
    let other = Host::new();
    other.bundle("inbox/lab.tar", &bundle(days(-1)).with("stream", "lab"));
    other.bundle("inbox/mine.tar", &bundle(days(-2)));
    let ran = other.import(&other.path("inbox"), &[]);
    ran.good().prints("installed").prints("skipped: lab.tar: lab.tar belongs to stream");
    assert_eq!(other.installed("cache", "db"), date(days(-2)));
}

#[test]
fn a_gap_is_reported_and_a_late_bundle_that_fills_it_causes_no_warning() {
    let host = Host::new();
    host.import(&host.bundle("1.tar", &numbered(days(-8), 1)), &[]).good();
    let ran = host.import(&host.bundle("5.tar", &numbered(days(-4), 5)), &[]);
    ran.good().prints("bundles number 2 to 4 of this stream were never received here");
    assert_eq!(host.state("default")["missing"], json!([2, 3, 4]));
    let ran = host.import(&host.bundle("7.tar", &numbered(days(-2), 7)), &[]);
    ran.good().prints("bundle number 6 of this stream was never received here");
    // Bundle number 3 arrives late.
    let late = host.bundle("3.tar", &numbered(days(-6), 3));
    let ran = host.import(&late, &[]);
    ran.good().prints("late: newer bundles of this stream arrived before");
    assert_eq!(host.installed("cache", "db"), date(days(-2)), "the newest data stays");
    assert_eq!(host.state("default")["missing"], json!([2, 4, 6]));
    assert_eq!(host.state("default")["last"]["sequence"], json!(7));
    // The same bundle is known already. Another bundle with the same number is rejected.
    host.import(&late, &[]).good();
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    let second = numbered(days(-6), 3).with("producer", "again");
    host.import(&host.bundle("3b.tar", &second), &[]).fails_with(5, &["3b.tar", "--allow-rollback"]);
    // Sequence numbers can have any size.
    let last = host.bundle("last.tar", &numbered(days(-1), u64::MAX));
    host.import(&last, &[]).good().prints("bundles number 8 to 18446744073709551614");
    assert!(host.state("default")["missing"].as_array().unwrap().len() <= 256);
    // One exporter has lost its sequence number, and one does not number its bundles.
    host.import(&host.bundle("again.tar", &numbered(hours(-3), 1)), &[]).good();
    let ran = host.import(&host.bundle("none.tar", &bundle(hours(-2))), &[]);
    ran.good();
    assert!(!ran.out.contains("never received"), "{ran:#?}");
}

#[test]
fn one_older_dataset_in_a_newer_bundle_is_skipped() {
    let host = Host::new();
    host.import(&host.bundle("one.tar", &bundle(days(-3))), &[]).good();
    let mixed = Bundle::of(days(-1), &[Part::db(days(-1)), Part::java_db(days(-5)), Part::checks("new")]);
    let path = host.bundle("mixed.tar", &mixed);
    let ran = host.import(&path, &[]);
    ran.good().prints("trivy-java-db   skipped").warns("was skipped").warns("--allow-rollback");
    assert_eq!(host.installed("cache", "db"), date(days(-1)));
    assert_eq!(host.installed("cache", "java-db"), date(days(-3)));
    assert_eq!(host.state("default")["floors"]["trivy-java-db-1"], json!(days(-3)));

    // With the override, the older dataset is imported, the override is recorded, and the floor is
    // lowered.
    let ran = host.import(&path, &["--allow-rollback"]);
    ran.good().prints("accepted only because of --allow-rollback");
    assert_eq!(host.installed("cache", "java-db"), date(days(-5)));
    let state = host.state("default");
    assert_eq!(state["floors"]["trivy-java-db-1"], json!(days(-5)), "{state:#}");
    assert_eq!(state["floors"]["trivy-db-2"], json!(days(-1)));
    assert_eq!(state["overrides"][0]["flags"], json!(["--allow-rollback"]));
    // A dataset between the two dates is then newer than the installed one.
    let between = Bundle::of(hours(-2), &[Part::java_db(days(-4))]);
    host.import(&host.bundle("between.tar", &between), &[]).good();
    assert_eq!(host.installed("cache", "java-db"), date(days(-4)));
    // The flag is not an override if nothing is older.
    host.import(&host.bundle("next.tar", &bundle(hours(-1))), &["--allow-rollback"]).good();
    assert_eq!(host.state("default")["overrides"].as_array().unwrap().len(), 1);
}

#[test]
fn a_rollback_to_a_known_bundle_is_recorded_too() {
    let host = Host::new();
    let old = bundle(days(-5));
    let path = host.bundle("old.tar", &old);
    host.import(&path, &[]).good();
    host.import(&host.bundle("new.tar", &bundle(days(-2))), &[]).good();
    // The bundle was accepted before, so it is not an error and changes nothing. This includes the
    // checks, which have no date.
    let settled = host.snapshot();
    let ran = host.import(&path, &[]);
    ran.good().prints("trivy-db        skipped").prints("trivy-checks    skipped");
    let same = |path: &&String| path.starts_with("cache/");
    assert!(settled.0.keys().filter(same).all(|path| settled.0[path] == host.snapshot().0[path]));
    host.import(&path, &["--allow-rollback"]).good().prints("because of --allow-rollback");
    assert_eq!(host.installed("cache", "db"), date(days(-5)));
    let state = host.state("default");
    assert_eq!(state["floors"]["trivy-db-2"], json!(days(-5)), "{state:#}");
    assert_eq!(state["last"]["identity"], json!(old.identity()));
}

#[test]
fn without_state_the_installed_data_is_the_floor() {
    let host = Host::new();
    host.import(&host.bundle("new.tar", &bundle(days(-2))), &[]).good();
    fs::remove_dir_all(host.path("state")).unwrap();
    let ran = host.import(&host.bundle("old.tar", &bundle(days(-5))), &[]);
    ran.good().prints("first import").prints("trivy-db        skipped").prints("trivy-java-db   skipped");
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    // Data that Trivy downloaded counts as well, even if other datasets are missing.
    let other = Host::new();
    other.file("cache/db/trivy.db", forge::bolt());
    other.file("cache/db/metadata.json", forge::metadata_json(2, days(-1)));
    let ran = other.import(&other.bundle("old.tar", &bundle(days(-5))), &[]);
    ran.good().prints("trivy-db        skipped").prints("trivy-java-db   installed");
    // A date far in the future is not a floor, and the latest possible date causes no error.
    for date in ["2090-01-01T00:00:00Z", "9999-12-30T22:00:00Z"] {
        let other = Host::new();
        other.file("cache/db/trivy.db", forge::bolt());
        let metadata = json!({"Version": 2, "UpdatedAt": date, "NextUpdate": date, "DownloadedAt": date});
        other.file("cache/db/metadata.json", metadata.to_string());
        let only_java = other.bundle("java.tar", &Bundle::of(days(-2), &[Part::java_db(days(-2))]));
        other.import(&only_java, &[]).good();
        other.import(&other.bundle("all.tar", &bundle(days(-1))), &[]).good();
        assert_eq!(other.installed("cache", "db"), self::date(days(-1)));
    }
}

#[test]
fn without_state_a_date_ahead_of_the_clock_is_ignored_and_reported() {
    let host = Host::new();
    host.file("cache/db/trivy.db", forge::bolt());
    host.file("cache/db/metadata.json", forge::metadata_json(2, days(30)));
    let ran = host.import(&host.bundle("one.tar", &bundle(days(-1))), &[]);
    ran.good()
        .warns("the date of trivy-db-2 at the target")
        .warns("more than 24 h ahead")
        .warns("was ignored");
    assert_eq!(host.installed("cache", "db"), date(days(-1)));
}

/// Returns a bundle with checks of a version.
fn checks(created: Timestamp, version: &str) -> Bundle {
    let mut part = Part::checks(version);
    part.dataset.version = Some(version.into());
    Bundle::of(created, &[part])
}

#[test]
fn without_state_the_version_of_the_installed_checks_is_the_floor() {
    let host = Host::new();
    let installed = |host: &Host| {
        let text = fs::read(host.path("cache/policy/metadata.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["Version"].clone()
    };
    host.import(&host.bundle("new.tar", &checks(days(-2), "2.10.0")), &[]).good();
    fs::remove_dir_all(host.path("state")).unwrap();
    let old = host.bundle("old.tar", &checks(days(-5), "2.9.0"));
    let ran = host.import(&old, &[]);
    ran.good()
        .warns("trivy-checks-2 2.9.0 was skipped")
        .warns("the target has version 2.10.0")
        .warns("--allow-rollback");
    assert_eq!(installed(&host), "2.10.0");
    fs::remove_dir_all(host.path("state")).unwrap();
    host.import(&old, &["--allow-rollback"]).good();
    assert_eq!(installed(&host), "2.9.0");
    // With the state, the dates of the bundles are compared again, and not the versions.
    host.import(&host.bundle("newer.tar", &checks(days(-1), "2.8.9")), &[]).good();
    assert_eq!(installed(&host), "2.8.9");
}

#[test]
fn a_parent_of_the_state_that_is_writable_by_others_is_an_error_for_root_and_a_warning_otherwise() {
    let host = Host::new();
    let path = host.bundle("one.tar", &bundle(days(-2)));
    fs::create_dir(host.path("shared")).unwrap();
    let mode = |mode| fs::set_permissions(host.path("shared"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    let (bundle, cache, key) = (path.to_str().unwrap(), host.at("cache"), host.at("keys/exporter.pub"));
    let state = host.at("shared/state");
    let args = ["import", bundle, "--cache-dir", &cache, "--trust", &key, "--state-dir", &state];
    let ran = host.run(&args);
    if rustix::process::geteuid().is_root() {
        ran.fails_with(2, &["shared is writable by others", "mode 0777"]);
    } else {
        ran.good().warns("is above the state directory and writable by others").warns("shared (mode 0777)");
    }
    // In a sticky directory, other users cannot rename its entries.
    mode(0o1777);
    let ran = host.run(&args);
    ran.good();
    assert!(!ran.out.contains("above the state directory"), "{ran:#?}");
    // trivy-ferry trusts a directory that a group of its user shares, but never if it runs as
    // root. Root is not in group 4242.
    let group = rustix::process::geteuid().is_root().then_some(4242);
    std::os::unix::fs::chown(host.path("shared"), None, group).unwrap();
    mode(0o2775);
    let ran = host.run(&args);
    match rustix::process::geteuid().is_root() {
        true => drop(ran.fails_with(2, &["shared is writable by others", "mode 2775"])),
        false => drop(ran.good()),
    }
}

#[test]
fn an_import_rejects_datasets_that_are_older_than_max_age() {
    let host = Host::new();
    let parts = [Part::db(days(-5)), Part::java_db(days(-20)), Part::checks("c")];
    let path = host.bundle("aged.tar", &Bundle::of(days(-1), &parts));
    let ran = host.import(&path, &["--max-age", "3d"]);
    ran.exits(5)
        .prints("trivy-db        refused")
        .prints("trivy-java-db   installed")
        .warns("5 d old")
        .warns("--max-age allows 3 d")
        .warns("--skip trivy-db");
    assert!(!host.path("cache/db").exists());
    let ran = host.import(&path, &["--max-age", "trivy-db=7d,trivy-java-db=14d"]);
    ran.exits(5).prints("trivy-java-db   refused");
    assert_eq!(host.installed("cache", "db"), date(days(-5)));
    let ran = host.import(&path, &["--max-age", "trivy-db=1w,trivy-java-db=3w"]);
    ran.good().prints("unchanged");
    rejected_by_clap(&host.import(&path, &["--max-age", "3y"]));
    rejected_by_clap(&host.import(&path, &["--max-age", "db=3d"]));
    // Without `--max-age`, old data only causes a warning.
    let fresh = Host::new();
    let ran = fresh.import(&fresh.bundle("aged.tar", &Bundle::of(days(-1), &parts)), &[]);
    ran.good().warns("trivy-java-db is 20 d old");
}

/// Asserts that the argument parser rejected a flag, with its own form of message and exit code 2.
#[track_caller]
fn rejected_by_clap(run: &Run) {
    run.exits(2);
    assert!(run.err.starts_with("error: invalid value"), "{run}");
}

#[test]
fn an_export_rejects_data_that_is_older_than_max_age_before_it_writes_anything() {
    let host = Host::new();
    host.write_key();
    let packed = forge::db_layer(days(-5));
    let kind = trivy_ferry::dataset::Kind::TrivyDb;
    let manifest = forge::manifest(kind.layer_media_type().unwrap(), &packed);
    let source = forge::image_layout(&host.path("layout"), "2", &manifest, &[b"{}", &packed]);
    let (key, out, state) = (host.at("exporter.key"), host.at("out"), host.at("state"));
    let export = |age: &str| {
        let args = ["export", "--key", &key, "--output", &out, "--state-dir", &state, "--only", "trivy-db"];
        host.run(&[&args[..], &["--db-repository", &source, "--max-age", age]].concat())
    };
    export("3d").fails_with(5, &["trivy-db", "5 d old", "--max-age allows 3 d", "--skip trivy-db"]);
    assert_eq!(fs::read_dir(host.path("out")).unwrap().count(), 0, "nothing is left behind");
    export("trivy-java-db=3d").good();
    export("6d").good();
}

#[test]
fn damaged_state_is_an_error_and_not_treated_as_missing() {
    let host = Host::new();
    host.import(&host.bundle("new.tar", &bundle(days(-2))), &[]).good();
    let file = host.path("state/import-default.json");
    let good = fs::read(&file).unwrap();
    let old = host.bundle("old.tar", &bundle(days(-5)));
    for damage in [
        good[..good.len() / 2].to_vec(),
        Vec::new(),
        b"{}".to_vec(),
        vec![0; good.len()],
        String::from_utf8(good.clone()).unwrap().replace("\"default\"", "\"other\"").into_bytes(),
    ] {
        fs::write(&file, &damage).unwrap();
        let before = host.snapshot();
        host.import(&old, &[]).fails_with(2, &["import-default.json", "cannot be read", "move it away"]);
        assert_eq!(host.snapshot(), before);
    }
    fs::write(&file, &good).unwrap();
    host.import(&old, &[]).fails_with(5, &["old.tar"]);
}

#[test]
fn files_that_are_writable_by_others_are_not_trusted() {
    let host = Host::new();
    let path = host.bundle("one.tar", &bundle(days(-2)));
    let mode =
        |path: &str, mode| fs::set_permissions(host.path(path), fs::Permissions::from_mode(mode)).unwrap();
    host.import(&path, &[]).good();
    let before = host.snapshot();
    mode("state", 0o777);
    host.import(&path, &[]).fails_with(2, &["state is writable by others", "mode 0777", "chmod"]);
    mode("state", 0o700);
    mode("state/import-default.json", 0o666);
    host.import(&path, &[]).fails_with(2, &["import-default.json is writable by others", "chmod"]);
    mode("state/import-default.json", 0o600);
    mode("keys/exporter.pub", 0o606);
    host.import(&path, &[]).fails_with(2, &["exporter.pub is writable by others", "chmod"]);
    host.verify(&path, &[]).fails_with(2, &["exporter.pub is writable by others"]);
    mode("keys/exporter.pub", 0o644);
    // Any user could add a key to this directory of keys.
    fs::create_dir_all(host.path("xdg-config/trivy-ferry/trusted")).unwrap();
    mode("xdg-config/trivy-ferry/trusted", 0o777);
    host.run(&["verify", path.to_str().unwrap()]).fails_with(2, &["trusted is writable by others"]);
    assert_eq!(host.snapshot(), before);
    // The state directory is a file.
    host.file("a-file", "x");
    let (bundle, cache, key) = (path.to_str().unwrap(), host.at("cache"), host.at("keys/exporter.pub"));
    let state = host.at("a-file");
    let ran = host.run(&["import", bundle, "--cache-dir", &cache, "--trust", &key, "--state-dir", &state]);
    ran.fails_with(2, &["a-file"]);
    host.import(&path, &[]).good();
}

#[test]
fn a_damaged_newer_bundle_does_not_prevent_the_import_of_a_good_older_one() {
    let good = bundle(days(-3));
    let newer = bundle(days(-1));
    let host = Host::new();
    let file = newer.signed(&host.key);
    // The damage is detected at the beginning, in the middle or at the very end.
    let flip = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 1;
        file
    };
    // The result is valid base64 of other data.
    let other_letter = |at: usize| {
        let mut file = file.clone();
        file[at] = if file[at] == b'a' { b'b' } else { b'a' };
        file
    };
    let spans = newer.spans();
    let inside = |index: usize| flip(spans[index].content + spans[index].size / 2);
    let cases = [
        ("cut", file[..file.len() - 600].to_vec(), "ends after"),
        ("a small member", inside(3), "index.json"),
        ("a layer", inside(spans.len() - 1), "does not match"),
        ("another layer", inside(spans.len() - 2), "does not match"),
        ("checks or VEX", inside(spans.len() - 4), "does not match"),
        ("the end", flip(file.len() - 1), "two blocks of zeros"),
        ("the manifest", other_letter(900), "its signature is invalid"),
    ];
    for (what, damaged, word) in cases {
        println!("{what}");
        let host = Host::with_key(&host.key);
        host.bundle("inbox/a-good.tar", &good);
        host.file("inbox/b-damaged.tar", &damaged);
        host.verify(&host.path("inbox"), &[])
            .exits(4)
            .prints("a-good.tar")
            .prints("good: 14 members")
            .warns("b-damaged.tar")
            .warns(word);
        let ran = host.import(&host.path("inbox"), &[]);
        ran.exits(4).warns("b-damaged.tar").warns(word);
        assert_eq!(ran.out.matches(" installed").count(), 4, "{ran:#?}");
        assert_eq!(host.installed("cache", "db"), date(days(-3)));
        assert_eq!(host.installed("cache", "java-db"), date(days(-3)));
        assert!(host.staged("cache").is_empty(), "{:?}", host.staged("cache"));
        let state = host.state("default");
        assert_eq!(state["seen"], json!([good.identity()]), "the damaged bundle was not accepted");
        // After it is copied again, it is imported.
        host.file("inbox/b-damaged.tar", &file);
        host.import(&host.path("inbox"), &[]).good();
        assert_eq!(host.installed("cache", "db"), date(days(-1)));
    }
}

#[test]
fn an_unreadable_file_with_the_name_of_a_bundle_is_an_error() {
    let host = Host::new();
    host.bundle("inbox/default-20260101t000000z.tar", &bundle(days(-3)));
    let mut zeroed = bundle(days(-1)).signed(&host.key);
    zeroed[..4096].fill(0);
    host.file("inbox/default-20260102t000000z (1).tar", &zeroed);
    host.file("inbox/backup.tar", &zeroed);
    for ran in [host.import(&host.path("inbox"), &[]), host.verify(&host.path("inbox"), &[])] {
        ran.exits(4).prints("default-20260101t000000z.tar").prints("skipped: backup.tar");
        assert!(ran.err.contains("default-20260102t000000z (1).tar is not a trivy-ferry bundle"), "{ran:#?}");
    }
    assert_eq!(host.installed("cache", "db"), date(days(-3)));
    // A bundle of another key may be the expected one, because its exporter may have a new key.
    let host = Host::new();
    host.bundle("inbox/one.tar", &bundle(days(-3)));
    host.file("inbox/two.tar", bundle(days(-1)).signed(&Host::new().key));
    for ran in [host.import(&host.path("inbox"), &[]), host.verify(&host.path("inbox"), &[])] {
        ran.good().warns("warning: two.tar was skipped").warns("new key");
    }
}

#[test]
fn a_rejected_bundle_is_skipped_if_a_newer_one_is_imported() {
    let host = Host::new();
    host.import(&host.bundle("first.tar", &bundle(days(-5))), &[]).good();
    host.bundle("inbox/older-than-the-first.tar", &bundle(days(-9)));
    host.bundle("inbox/expired.tar", &bundle(days(-4)).with("expires", days(-3)));
    host.bundle("inbox/new.tar", &bundle(days(-1)));
    for _ in 0..2 {
        let ran = host.import(&host.path("inbox"), &[]);
        ran.good()
            .prints("skipped: older-than-the-first.tar: ")
            .prints("skipped: expired.tar: ")
            .prints("a newer bundle was found");
        assert_eq!(host.installed("cache", "db"), date(days(-1)));
    }
    host.verify(&host.path("inbox"), &[]).good().prints("skipped: expired.tar");
    // Each is still rejected if it is the only or the newest bundle.
    host.import(&host.path("inbox/expired.tar"), &[]).fails_with(5, &["expired.tar", "--allow-expired"]);
    fs::remove_file(host.path("inbox/new.tar")).unwrap();
    let ran = host.import(&host.path("inbox"), &[]);
    assert_eq!(ran.code, 5, "{ran:#?}");
}

#[test]
fn a_switch_in_the_environment_is_yes_or_no_and_nothing_else() {
    let host = Host::new();
    let new = host.bundle("new.tar", &bundle(days(-2)));
    let import = |variable: &str, value: &str, bundle: &Path| {
        fs::create_dir_all(host.path("cache/fanal")).unwrap();
        let mut command = host.command();
        command.env(variable, value).args(["import", "--cache-dir", &host.at("cache")]);
        command
            .args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")])
            .arg(bundle);
        forge::run(command)
    };
    let clear = "TRIVY_FERRY_CLEAR_SCAN_CACHE";
    for value in ["never", "maybe", "2"] {
        let ran = import(clear, value, &new);
        assert_eq!(ran.code, 2, "{ran:#?}");
    }
    for value in ["", "0", "no", "False"] {
        import(clear, value, &new).good();
        assert!(host.path("cache/fanal").exists(), "{value}");
    }
    import(clear, "yes", &new).good();
    assert!(!host.path("cache/fanal").exists());
    // No environment variable can set an override, because it would apply to every later run.
    let old = host.bundle("old.tar", &bundle(days(-5)));
    assert_eq!(import("TRIVY_FERRY_ALLOW_ROLLBACK", "yes", &old).code, 5);
}

#[test]
fn the_newest_version_of_each_dataset_in_a_directory_is_imported() {
    let host = Host::new();
    host.bundle("inbox/weekly.tar", &Bundle::of(days(-1), &[Part::db(days(-1)), Part::checks("weekly")]));
    host.bundle("inbox/monthly.tar", &Bundle::of(days(-9), &Part::all(days(-9))));
    let ran = host.import(&host.path("inbox"), &[]);
    ran.good();
    assert_eq!(host.installed("cache", "db"), date(days(-1)));
    assert_eq!(host.installed("cache", "java-db"), date(days(-9)));
    assert_eq!(ran.out.matches(" installed").count(), 4, "{ran:#?}");
    assert_eq!(host.state("default")["seen"].as_array().unwrap().len(), 2);
}

#[test]
fn restore_swaps_back_and_forth() {
    let host = Host::new();
    host.import(&host.bundle("old.tar", &bundle(days(-5))), &[]).good();
    host.import(&host.bundle("new.tar", &bundle(days(-2))), &[]).good();
    let cache = host.at("cache");
    let restore =
        |more: &[&str]| host.run(&[&["import", "--restore", "--cache-dir", &cache][..], more].concat());
    restore(&[])
        .good()
        .exits(0)
        .prints("trivy-db        restored")
        .prints("trivy-checks    restored")
        .prints("vex-hub         restored");
    assert_eq!(host.installed("cache", "db"), date(days(-5)));
    assert_eq!(host.installed("cache", "java-db"), date(days(-5)));
    restore(&[]).good();
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    restore(&["--only", "trivy-db"]).good();
    assert_eq!(host.installed("cache", "db"), date(days(-5)));
    assert_eq!(host.installed("cache", "java-db"), date(days(-2)));
    // A new import of the newest bundle restores the other datasets, and reports this.
    let ran = host.import(&host.path("new.tar"), &[]);
    ran.good().prints("trivy-db        restored").prints("trivy-java-db   unchanged");
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    // There is no earlier generation to restore.
    let other = Host::new();
    let (cache, bundle) = (other.at("cache"), other.bundle("one.tar", &bundle(days(-2))));
    other
        .run(&["import", "--restore", "--cache-dir", &cache])
        .fails_with(2, &["no earlier generation", &cache]);
    other.import(&bundle, &[]).good();
    other.run(&["import", "--restore", "--cache-dir", &cache]).fails_with(2, &["no earlier generation"]);
}

#[test]
fn no_generation_is_kept_if_keep_previous_is_zero() {
    let host = Host::new();
    let keep_none = ["--keep-previous", "0"];
    host.import(&host.bundle("1.tar", &bundle(days(-5))), &[]).good();
    host.import(&host.bundle("2.tar", &bundle(days(-4))), &[]).good();
    let kept = || host.snapshot().0.keys().filter(|path| path.contains("/previous/")).count();
    assert!(kept() > 8, "{}", kept());
    host.import(&host.bundle("3.tar", &bundle(days(-3))), &keep_none).good();
    assert_eq!(kept(), 0);
    let cache = host.at("cache");
    host.run(&["import", "--restore", "--cache-dir", &cache]).fails_with(2, &["no earlier generation"]);
    assert_eq!(host.installed("cache", "db"), date(days(-3)));
}

#[test]
fn only_and_skip_select_the_datasets() {
    let host = Host::new();
    let path = host.bundle("one.tar", &bundle(days(-2)));
    host.import(&path, &["--only", "trivy-db,vex-hub"]).good();
    let there = |name: &str| host.path("cache").join(name).exists();
    assert_eq!(["db", "java-db", "policy", "vex"].map(there), [true, false, false, true]);
    assert!(host.state("default")["floors"]["trivy-java-db-1"].is_null());
    // The same bundle also installs the other datasets, although it was imported before.
    host.import(&path, &["--skip", "trivy-checks"]).good();
    assert_eq!(["db", "java-db", "policy", "vex"].map(there), [true, true, false, true]);
    host.import(&path, &["--only", "vex-other"]).fails_with(2, &["no bundle here holds vex-other"]);
    rejected_by_clap(&host.import(&path, &["--only", "db"]));
    // Damage in a large layer of a skipped dataset is not detected. A selected dataset beside it is
    // imported.
    let new = bundle(days(-1));
    let mut file = new.signed(&host.key);
    let large = new.spans().into_iter().filter(|span| span.size > 500).collect::<Vec<_>>();
    let java =
        new.members.iter().position(|(_, bytes)| *bytes == forge::java_db_layer(days(-1))).unwrap() + 1;
    assert!(large.iter().any(|span| span.name == new.spans()[java].name));
    file[new.spans()[java].content + 9] ^= 1;
    let damaged = host.file("damaged.tar", &file);
    host.import(&damaged, &["--skip", "trivy-java-db"]).good();
    assert_eq!(host.installed("cache", "db"), date(days(-1)));
    host.import(&damaged, &[]).fails_with(4, &["damaged.tar", "does not match"]);
    assert_eq!(host.installed("cache", "java-db"), date(days(-2)));
}

#[test]
fn a_bundle_imported_before_is_applied_to_each_target_that_differs() {
    let host = Host::new();
    let path = host.bundle("one.tar", &bundle(days(-2)));
    host.import(&path, &[]).good();
    let settled = host.snapshot();
    let ran = host.import(&path, &[]);
    ran.good();
    assert_eq!(ran.out.matches(" unchanged").count(), 4, "{ran:#?}");
    assert_eq!(host.snapshot(), settled, "nothing is written if nothing has changed");
    host.import_to("cache-2", &path, &[]).good().prints("installed");
    assert_eq!(host.installed("cache-2", "db"), date(days(-2)));
    // `trivy clean` and a user have changed the cache.
    fs::remove_dir_all(host.path("cache/db")).unwrap();
    fs::write(host.path("cache/java-db/trivy-java.db"), "changed").unwrap();
    fs::write(host.path("cache/policy/content/policies/extra.rego"), "package x").unwrap();
    let ran = host.import(&path, &[]);
    ran.good();
    assert_eq!(ran.out.matches(" restored").count(), 3, "{ran:#?}");
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    assert!(!host.path("cache/policy/content/policies/extra.rego").exists());
    assert!(host.state("default")["seen"].as_array().unwrap().len() == 1);
}

#[test]
fn a_clock_that_was_set_back_does_not_extend_expiry() {
    // The last accepted bundle is dated 23 h ahead of this clock, and its date counts as the
    // current time.
    let host = Host::new();
    host.import(&host.bundle("ahead.tar", &bundle(hours(23))), &[]).good();
    let expires = host.bundle("expires.tar", &bundle(hours(-1)).with("expires", hours(22)));
    host.verify(&expires, &[]).good();
    host.import(&expires, &[]).fails_with(5, &["expires.tar", "expired", "--allow-expired"]);
}

#[test]
fn a_late_bundle_adds_the_datasets_that_newer_bundles_lack() {
    let host = Host::new();
    let without_java = |created, sequence| {
        let parts: Vec<Part> = Part::all(created)
            .into_iter()
            .filter(|part| part.dataset.name.as_str() != "trivy-java-db")
            .collect();
        Bundle::of(created, &parts).with("sequence", sequence)
    };
    host.import(&host.bundle("1.tar", &without_java(days(-6), 1)), &[]).good();
    host.import(&host.bundle("3.tar", &without_java(days(-2), 3)), &[]).good();
    let late = host.bundle("2.tar", &numbered(days(-4), 2));
    let ran = host.import(&late, &[]);
    ran.good()
        .exits(0)
        .prints("late: newer bundles")
        .prints("trivy-java-db   installed")
        .prints("trivy-db        skipped");
    ran.does_not_say("warning: trivy-db");
    assert_eq!(host.installed("cache", "java-db"), date(days(-4)));
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    host.import(&late, &[]).good().prints("trivy-java-db   unchanged");
}

#[test]
fn the_command_after_an_import_runs_for_every_change_and_is_never_lost() {
    let host = Host::new();
    let calls = || fs::read_to_string(host.path("calls")).unwrap_or_default().len();
    let call = format!("printf x >> {}", host.at("calls"));
    let one = host.bundle("one.tar", &bundle(days(-3)));
    let two = host.bundle("two.tar", &bundle(days(-2)));
    host.import(&one, &["--exec-after", &call]).good();
    assert_eq!(calls(), 1);
    host.import(&one, &["--exec-after", &call]).good();
    assert_eq!(calls(), 1, "nothing changed");
    // If the command fails, the data is installed, and the next run calls the command again.
    let ran = host.import(&two, &["--exec-after", "exit 3"]);
    ran.exits(1).prints("installed");
    assert!(ran.err.contains("`exit …` failed"), "{ran:#?}");
    assert_eq!(host.installed("cache", "db"), date(days(-2)));
    host.import(&two, &[]).good();
    assert_eq!(calls(), 1);
    host.import(&two, &["--exec-after", &call]).good().prints("unchanged").prints("Ran after the import");
    assert_eq!(calls(), 2);
    // This command kills the run before the command ends.
    let three = host.bundle("three.tar", &bundle(days(-1)));
    let ran = host.import(&three, &["--exec-after", "kill -9 $PPID"]);
    assert_eq!(ran.code, -1, "{ran:#?}");
    assert_eq!(host.installed("cache", "db"), date(days(-1)));
    host.import(&three, &["--exec-after", &call]).good();
    assert_eq!(calls(), 3);
    host.import(&three, &["--exec-after", &call]).good();
    assert_eq!(calls(), 3);
    // Nothing changes if an old bundle is skipped.
    host.import(&one, &["--exec-after", &call]).good();
    assert_eq!(calls(), 3);
}

#[test]
fn a_command_that_is_due_is_called_even_if_the_next_run_imports_nothing() {
    let host = Host::new();
    let calls = || fs::read_to_string(host.path("calls")).unwrap_or_default().len();
    let call = format!("printf x >> {}", host.at("calls"));
    let (one, two) = (host.bundle("one.tar", &bundle(days(-3))), host.bundle("two.tar", &bundle(days(-2))));
    host.import(&one, &["--exec-after", "exit 1"]).exits(1).prints("installed");
    // The medium is empty. The command still runs for the earlier change.
    fs::create_dir(host.path("empty")).unwrap();
    host.import(&host.path("empty"), &["--exec-after", &call]).fails_with(2, &["there is no bundle"]);
    assert_eq!(calls(), 1);
    host.import(&host.path("empty"), &["--exec-after", &call]).fails_with(2, &["there is no bundle"]);
    assert_eq!(calls(), 1);
    // A restore is a change as well.
    host.import(&two, &["--exec-after", &call]).good();
    assert_eq!(calls(), 2);
    let (cache, state) = (host.at("cache"), host.at("state"));
    let restore = |command: &str| {
        host.run(&[
            "import",
            "--restore",
            "--cache-dir",
            &cache,
            "--state-dir",
            &state,
            "--exec-after",
            command,
        ])
    };
    assert_eq!(restore("exit 3").code, 1);
    host.import(&host.path("empty"), &["--exec-after", &call]).fails_with(2, &["there is no bundle"]);
    assert_eq!(calls(), 3);
    // A restore without an earlier generation is not a change.
    let other = host.at("cache-2");
    let nothing = host.run(&[
        "import",
        "--restore",
        "--cache-dir",
        &other,
        "--state-dir",
        &state,
        "--exec-after",
        &call,
    ]);
    nothing.fails_with(2, &["no earlier generation"]);
    assert_eq!(calls(), 3);
}

#[test]
fn nothing_is_imported_if_the_state_cannot_be_written_first() {
    let host = Host::new();
    let (one, two) = (host.bundle("one.tar", &bundle(days(-3))), host.bundle("two.tar", &bundle(days(-2))));
    host.import(&one, &[]).good();
    // The state cannot be written. If the run were killed after the import, the command would
    // be lost.
    fs::create_dir_all(host.path("state/import-default.json.trivy-ferry.tmp/in-the-way")).unwrap();
    let ran = host.import(&two, &["--exec-after", "true"]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert_eq!(host.installed("cache", "db"), date(days(-3)), "nothing has changed");
}

#[test]
fn two_runs_at_once_call_the_command_once() {
    let host = Host::new();
    let one = host.bundle("one.tar", &bundle(days(-3)));
    let call = format!("printf x >> {}; /bin/sleep 0.5", host.at("calls"));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| host.import(&one, &["--exec-after", &call]).good().code);
        }
    });
    assert_eq!(fs::read_to_string(host.path("calls")).unwrap(), "x");
}

#[test]
fn each_dataset_expires_at_the_date_of_its_own_bundle() {
    let host = Host::new();
    let soon = hours(1);
    host.import(&host.bundle("java.tar", &bundle(days(-5)).with("expires", soon)), &[]).good();
    let weekly = Bundle::of(days(-2), &[Part::db(days(-2)), Part::checks("weekly")]);
    let weekly = host.bundle("weekly.tar", &weekly);
    host.import(&weekly, &[]).good();
    host.wait(2 * 3600);
    host.import(&weekly, &[]).exits(5).prints("unchanged").warns("the installed data of stream");
    host.import(&host.bundle("all.tar", &bundle(days(-1))), &[]).good();
    host.import(&weekly, &[]).good();
}

#[test]
fn a_copy_in_the_same_directory_does_not_count_as_an_earlier_import() {
    let host = Host::new();
    host.import(&host.bundle("old.tar", &bundle(days(-3))), &[]).good();
    for name in ["a.tar", "b.tar"] {
        host.bundle(&format!("inbox/{name}"), &bundle(days(-1)));
    }
    let ran = host.import(&host.path("inbox"), &[]);
    assert_eq!(ran.good().out.matches(" installed").count(), 4, "{ran:#?}");
}

#[test]
fn only_the_256_newest_bundles_of_a_directory_are_considered() {
    let host = Host::new();
    for number in 0..260 {
        let created = hours(-300 + number);
        let bundle = Bundle::of(created, &[Part::db(created)]);
        host.bundle(&format!("inbox/{number}.tar"), &bundle);
    }
    let ran = host.import(&host.path("inbox"), &[]);
    ran.good().prints("4 bundles: older than the 256 newest");
    assert_eq!(host.installed("cache", "db"), date(hours(-41)));
}

#[test]
fn nothing_is_locked_while_the_command_after_an_import_runs() {
    let host = Host::new();
    let bundle = host.bundle("one.tar", &bundle(days(-3)));
    // A scan takes the lock in shared mode, and another import has another cache as its target.
    let again = format!(
        "/usr/bin/flock --shared --timeout 5 {} /bin/true && {} import {} --trust {} --cache-dir {} --state-dir {}",
        host.at("cache/.trivy-ferry/lock"),
        env!("CARGO_BIN_EXE_trivy-ferry"),
        bundle.display(),
        host.at("keys/exporter.pub"),
        host.at("cache-2"),
        host.at("state"),
    );
    host.import(&bundle, &["--exec-after", &again]).good();
    assert_eq!(host.installed("cache-2", "db"), date(days(-3)));
}

#[test]
fn many_names_and_copies_of_a_bundle_are_imported_once() {
    let host = Host::new();
    let file = bundle(days(-2)).signed(&host.key);
    let first = host.file("inbox/a.tar", &file);
    for number in 0..2000 {
        fs::hard_link(&first, host.path("inbox").join(format!("link-{number}.tar"))).unwrap();
    }
    for number in 0..300 {
        host.file(&format!("inbox/copy-{number}.tar"), &file);
    }
    let line = format!(
        "ulimit -n 400; exec {} import {} --trust {} --cache-dir {} --state-dir {}",
        forge::PROGRAM,
        host.at("inbox"),
        host.at("keys/exporter.pub"),
        host.at("cache"),
        host.at("state"),
    );
    let ran = forge::run(host.shell(&line));
    ran.good()
        .prints("trivy-db        installed")
        .prints("link-1.tar: another name of a file that was read already")
        .prints(" more: skipped too");
    assert!(ran.out.lines().count() < 700, "{} lines", ran.out.lines().count());
}

#[test]
fn a_report_is_json_whatever_the_paths_are() {
    use std::os::unix::ffi::OsStrExt;
    let host = Host::new();
    let bundle = host.bundle("one.tar", &bundle(days(-2)));
    let cache = host.path("").join(std::ffi::OsStr::from_bytes(b"cache-\xff"));
    let mut command = host.command();
    command.args(["import", "--format", "json", "--cache-dir"]).arg(&cache).arg(&bundle);
    command.args(["--trust", &host.at("keys/exporter.pub"), "--state-dir", &host.at("state")]);
    let ran = forge::run(command);
    let report: Value = serde_json::from_str(&ran.good().out).unwrap();
    assert_eq!(report["targets"][0]["datasets"][0]["status"], "installed", "{report:#}");
    assert!(report["targets"][0]["target"].as_str().unwrap().ends_with("cache-\u{fffd}"), "{report:#}");
}

#[test]
fn vex_hub_is_found_under_any_configured_name() {
    let host = Host::new();
    let home = host.at("data");
    let config =
        "repositories:\n  - name: hub\n    url: https://github.com/aquasecurity/vexhub\n    enabled: true\n";
    host.file("data/.trivy/vex/repository.yaml", config);
    host.import(&host.bundle("one.tar", &bundle(days(-3))), &["--data-home", &home]).good();
    let ran = host.import(&host.bundle("two.tar", &bundle(days(-2))), &["--data-home", &home]);
    ran.good().prints("--vex repo").prints("Set XDG_DATA_HOME=");
    let index = || fs::read_to_string(host.path("cache/vex/repositories/hub/0.1/index.json")).unwrap();
    let newer = index();
    let cache = host.at("cache");
    let ran = host.run(&["import", "--restore", "--cache-dir", &cache, "--data-home", &home]);
    ran.good().prints("vex-hub         restored");
    assert_ne!(index(), newer);
    // A warning names a repository that cannot be restored.
    fs::rename(
        host.path("cache/.trivy-ferry/previous/vex-hub"),
        host.path("cache/.trivy-ferry/previous/vex-Corp VEX"),
    )
    .unwrap();
    let ran = host.run(&["import", "--restore", "--cache-dir", &cache, "--data-home", &home]);
    ran.good().warns("the VEX repository Corp VEX stays as it is");
}

/// Returns a bundle with VEX Hub, and with the VEX repository `corp` if it has a source.
fn with_vex(created: Timestamp, corp: Option<&str>) -> Bundle {
    let mut parts = Part::all(created);
    if let Some(source) = corp {
        let mut part = Part::vex(created);
        part.dataset.name = "vex-corp".parse().unwrap();
        part.dataset.source = source.into();
        parts.push(part);
    }
    Bundle::of(created, &parts)
}

#[test]
fn a_vex_source_that_trivy_could_misread_is_rejected() {
    let host = Host::new();
    let long = format!("https://vex.example/{}", "a".repeat(4096));
    for source in [
        "https://vex.example/a\n    enabled: true",
        "https://vex.example/a\u{1}",
        "https://vex.example/\u{85}",
        "https://vex.example/a b",
        "https://vex.example/\u{feff}",
        "https://ü.example/",
        "https://user:pw@vex.example/",
        "https://user@vex.example/",
        "https:///vex.example/",
        "https://vex.example/a/../b",
        "https://VEX.example/",
        "https://",
        "http://[::1",
        "directory\u{7f}",
        &long,
    ] {
        let path = host.bundle("bad.tar", &with_vex(days(-1), Some(source)));
        for ran in [host.verify(&path, &[]), host.import(&path, &[])] {
            ran.fails_with(4, &["bad.tar", "vex-corp-0.1 has the source"]).harmless();
        }
        assert!(!host.path("xdg-data").exists() && !host.path("cache/db").exists(), "{source}");
    }
}

#[test]
fn a_vex_entry_is_removed_with_its_bundle_or_its_key() {
    let host = Host::new();
    let file = host.path("xdg-data/.trivy/vex/repository.yaml");
    let entries = || fs::read_to_string(&file).unwrap();
    let source = "https://vex.corp.example/a?b=c#d";
    // The operator's own entries are kept byte for byte.
    let mine =
        "# mine\nrepositories:\n  - name: 'own' # own\n    url: https://own.example\n    enabled: true\n";
    host.file("xdg-data/.trivy/vex/repository.yaml", mine);
    let import = |host: &Host, name: &str, bundle: &Bundle| {
        let ran = host.import(&host.bundle(name, bundle), &[]);
        ran.good();
        (ran.out.clone(), entries())
    };
    let (_, with) = import(&host, "one.tar", &with_vex(days(-6), Some(source)));
    let added = format!("name: corp\n    url: \"{source}\"\n    enabled: true");
    assert!(with.starts_with(mine) && with.contains(&added), "{with}");
    assert!(with.contains("stream=default") && with.contains(&host.key.public().id().hex()), "{with}");
    // A bundle without VEX does not change the entries. A bundle with other VEX repositories does.
    let databases = Bundle::of(days(-5), &[Part::db(days(-5))]);
    assert_eq!(import(&host, "databases.tar", &databases).1, with);
    let (out, without) = import(&host, "hub.tar", &with_vex(days(-4), None));
    assert!(without.starts_with(mine) && !without.contains("corp"), "{without}");
    assert!(out.contains("corp") && out.contains("was removed"), "{out}");
    // A stolen key is replaced. The next import of any bundle removes the entries of that key.
    import(&host, "two.tar", &with_vex(days(-3), Some(source)));
    assert!(entries().contains(&added));
    let next = Host::new();
    fs::copy(next.path("keys/exporter.pub"), host.path("keys/exporter.pub")).unwrap();
    let path = host.file("three.tar", Bundle::of(days(-2), &[Part::db(days(-2))]).signed(&next.key));
    let ran = host.import(&path, &[]);
    ran.good().prints("corp").prints("no longer trusted");
    assert_eq!(entries(), without);
}

#[test]
fn first_imports_at_once_into_one_state_and_several_caches_all_succeed() {
    for _ in 0..10 {
        let host = Host::new();
        let one = host.bundle("one.tar", &bundle(days(-3)));
        std::thread::scope(|scope| {
            for cache in ["a", "b", "c", "d"] {
                let (host, one) = (&host, &one);
                scope.spawn(move || host.import_to(&format!("deep/er/{cache}"), one, &[]).good().code);
            }
        });
        for cache in ["a", "b", "c", "d"] {
            assert_eq!(host.installed(&format!("deep/er/{cache}"), "db"), date(days(-3)));
        }
        // No import has overwritten the state of another.
        let state: Value =
            serde_json::from_slice(&fs::read(host.path("state/import-default.json")).unwrap()).unwrap();
        assert_eq!(state["targets"].as_object().unwrap().len(), 4, "{state:#}");
    }
}
