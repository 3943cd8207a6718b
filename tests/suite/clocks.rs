//! Wrong clocks of the exporter or the importer: the message says which clock seems to be wrong,
//! and a recorded override resolves the error.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use test_kit::host::{json_file, names};
use test_kit::process::Run;

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days, hours};

const DAY: i64 = 24 * 60 * 60;

fn status(host: &Host, more: &[&str]) -> Run {
    host.run(&[&["status", "--state-dir", "state"], more].concat())
}

fn bundle(host: &Host, made: jiff::Timestamp, number: u64) -> PathBuf {
    host.bundle("inbox/b.tar", &Bundle::of(made, &Part::all(days(-9))).with("sequence", number))
}

#[test]
fn a_slow_clock_does_not_make_old_data_new() {
    // The last accepted bundle and the log are later than the clock, which was set back.
    let host = Host::new();
    host.import(&bundle(&host, hours(-1), 1), &[]).good();
    status(&host, &["--max-age", "30d"]).good();
    host.wait(-30 * DAY);
    status(&host, &["--max-age", "30d"])
        .exits(5)
        .warns("this host's clock says")
        .warns("the last line of imports.jsonl is dated")
        .warns("was set back")
        .prints("9 d old");
    // Ages are counted from the later time.
    status(&host, &["--max-age", "1h"]).exits(5).warns("and --max-age allows 1 h");
    host.wait(30 * DAY);
    status(&host, &["--max-age", "30d"]).good();
    // If the clock was ahead and is right again, the next import clears the error.
    host.wait(30 * DAY);
    host.import(&host.path("inbox/b.tar"), &[]).good();
    host.wait(-30 * DAY);
    status(&host, &[]).exits(5);
    host.import(&host.path("inbox/b.tar"), &[]).good();
    status(&host, &[]).good();
}

#[test]
fn a_bundle_that_is_rejected_because_of_a_slow_clock_is_reported() {
    // The clock was slow from the beginning, so every current bundle is rejected.
    let host = Host::new();
    host.wait(-3 * DAY);
    let came = bundle(&host, hours(-1), 1);
    host.import(&came, &[]).exits(5).warns("this host's clock (").warns("Compare both clocks");
    status(&host, &[])
        .fails()
        .warns("the last signed file for stream \"default\" (b.tar) is dated")
        .warns("or the exporter's is fast");
    // A bundle with an earlier date was accepted, and is new according to the slow clock.
    host.import(&bundle(&host, hours(-75), 1), &[]).good();
    status(&host, &["--max-age", "30d"]).good();
    host.import(&bundle(&host, hours(-1), 2), &[]).exits(5);
    status(&host, &["--max-age", "30d"]).exits(5).warns("the last signed file");
    // The last bundle has an earlier date, as if the exporter's fast clock had been corrected.
    host.import(&bundle(&host, hours(-74), 3), &[]).good();
    status(&host, &["--max-age", "30d"]).good();
    // A heartbeat causes the same messages.
    let sender = Host::with_key(&host.key);
    sender.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    sender.export(&upstream, &["--heartbeat"]).good();
    fs::remove_file(host.path("inbox/b.tar")).unwrap();
    let name = names(sender.path("out")).into_iter().find(|name| name.ends_with(".heartbeat.json")).unwrap();
    fs::copy(sender.path("out").join(&name), host.path("inbox").join(&name)).unwrap();
    let watch = [
        "watch",
        "inbox",
        "--once",
        "--settle",
        "1ms",
        "--trust",
        "keys/exporter.pub",
        "--cache-dir",
        "cache",
    ];
    host.run(&[&watch[..], &["--state-dir", "state"]].concat()).prints("this host's clock (");
    status(&host, &[]).exits(5).warns("the last signed file for stream");
}

/// This host's clock was fast when a bundle or heartbeat arrived, and is right again. The next
/// bundle or heartbeat clears the error.
#[test]
fn the_next_bundle_or_heartbeat_clears_the_error_of_a_clock_that_was_fast() {
    for came in ["bundle", "heartbeat", "both"] {
        for comes in ["bundle", "heartbeat"] {
            let sender = Host::new();
            sender.write_key();
            let importer = Host::with_key(&sender.key);
            let upstream = Upstream::new(|_, _| None);
            let send = |what: &str, number: u64| {
                upstream.publish(number, 1000);
                let flags: &[&str] = if what == "bundle" { &[] } else { &["--heartbeat"] };
                sender.export(&upstream, flags).good();
                let is_sent =
                    |name: &String| what == "both" || (what == "heartbeat") == name.ends_with(".json");
                for name in names(sender.path("out")) {
                    let file = sender.path("out").join(&name);
                    if is_sent(&name) {
                        fs::create_dir_all(importer.path("inbox")).unwrap();
                        fs::copy(&file, importer.path("inbox").join(&name)).unwrap();
                    }
                    fs::remove_file(file).unwrap();
                }
                let watch = ["watch", "inbox", "--once", "--settle", "1ms", "--cache-dir", "cache"];
                let keys = ["--trust", "keys/exporter.pub", "--state-dir", "state"];
                importer.run(&[&watch[..], &keys].concat()).good();
            };
            send("bundle", 1);
            sender.wait(60);
            importer.wait(60 + 20 * DAY);
            send(came, 2);
            importer.wait(-20 * DAY);
            let run = status(&importer, &[]);
            run.exits(5).warns("was set back").warns("wait for the next bundle or heartbeat");
            sender.wait(60);
            importer.wait(60);
            send(comes, 3);
            status(&importer, &[]).good();
        }
    }
}

#[test]
fn an_exporter_can_continue_after_its_clock_was_fast() {
    let sender = Host::new();
    sender.write_key();
    fs::create_dir(sender.path("drop")).unwrap();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    sender.export(&upstream, &[]).good();
    let importer = Host::with_key(&sender.key);
    let import = |more: &[&str]| importer.import(&sender.path("out"), more);
    import(&[]).good();
    // Both clocks were fast, so the bundle was accepted. If only the exporter's clock were fast,
    // the bundle would be rejected.
    sender.wait(30 * DAY);
    importer.wait(30 * DAY);
    upstream.publish(2, 200_000);
    let fast = sender.export(&upstream, &[]).good().json()["bundle"]["path"].as_str().unwrap().to_owned();
    import(&[]).good();
    sender.wait(-30 * DAY);
    importer.wait(-30 * DAY);
    // If nothing has changed, the export fails as well because of the date of the last export.
    let unchanged = sender.export(&upstream, &["--if-changed"]);
    unchanged.fails_with(5, &["the stream's last export is dated", "--allow-earlier-date"]);
    upstream.publish(3, 1000);
    sender
        .export(&upstream, &[])
        .fails_with(
            5,
            &["the stream's last export is dated", "this host's clock says", "--allow-earlier-date"],
        )
        .does_not_say("--stream");
    // The database is much smaller, too. Each place that records overrides has all flags that the
    // bundle needs.
    let flags = ["--allow-earlier-date", "--drop", "drop", "--repeat", "2", "--keep", "3"];
    sender.export(&upstream, &flags).fails_with(5, &["--accept trivy-db"]);
    let report = sender
        .export(&upstream, &[&flags[..], &["--accept", "trivy-db,trivy-java-db"]].concat())
        .good()
        .json();
    let overrides = serde_json::json!(["--allow-earlier-date", "--accept trivy-db"]);
    assert_eq!(report["bundle"]["overrides"], overrides);
    assert_eq!(report["bundle"]["sequence"], 3);
    let state = json_file(sender.path("state/export-default.json"));
    assert_eq!(state["created"], report["bundle"]["created"]);
    assert_eq!(state["overrides"][0]["flags"], overrides);
    let log = fs::read_to_string(sender.path("state/exports.jsonl")).unwrap();
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["overrides"], overrides);
    // The bundle with the wrong date does not count as the newest.
    let fast = PathBuf::from(fast);
    let fast = fast.file_name().unwrap().to_str().unwrap();
    let dropped = names(sender.path("drop"));
    assert!(dropped.len() == 2 && !dropped.iter().any(|name| name == fast), "{dropped:?}");
    assert!(sender.path("out").join(fast).exists() && report["removed"] == serde_json::json!([]));
    fs::remove_file(sender.path("out").join(fast)).unwrap();
    import(&[]).exits(5).warns("which is ahead of this host's clock").warns("--allow-rollback");
    import(&["--allow-rollback"]).good();
    status(&importer, &[]).prints("1 bundle admitted by a flag, last on ").prints("by --allow-rollback");
    status(&sender, &[]).good().prints("exported   stream default");
    status(&sender, &["--max-age", "3d"]).fails_with(2, &["--max-age checks imported data"]);
    // After that, exports and imports work without flags.
    sender.wait(60);
    importer.wait(60);
    upstream.publish(4, 1000);
    let report: Value = sender.export(&upstream, &["--allow-earlier-date"]).good().json();
    assert_eq!(report["bundle"]["overrides"], serde_json::json!([]), "an unused flag is not an override");
    import(&[]).good();
    status(&importer, &[]).good();
}

#[test]
fn an_exporter_with_a_slow_clock_does_not_report_its_sources_as_unusable() {
    let sender = Host::new();
    sender.write_key();
    let (upstream, other) = (Upstream::new(|_, _| None), Upstream::new(|_, _| None));
    upstream.publish(1, 1000);
    other.publish(1, 1000);
    sender.wait(-10 * DAY);
    let also = format!("--db-repository={}/db:1", other.host);
    for flags in [
        &["--only", "trivy-db"][..],
        &["--only", "trivy-java-db"],
        &["--only", "vex-hub"],
        &["--only", "trivy-db", &also],
        &["--only", "trivy-db", "--quorum", "2", &also],
    ] {
        let run = sender.export(&upstream, flags);
        run.exits(3)
            .warns("this host's clock says")
            .warns("Check this host's clock, which looks slow")
            .does_not_say("serves an unusable");
    }
    sender.wait(10 * DAY);
    sender.export(&upstream, &[]).good();
}
