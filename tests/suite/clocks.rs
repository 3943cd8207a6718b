//! A clock that is wrong, here or there: the message says which one looks wrong, and there is a way out that is
//! written down.

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
fn data_is_not_new_because_the_clock_is_slow() {
    // What this host accepted and wrote down before its clock fell back.
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
    status(&host, &["--max-age", "1h"]).exits(5).warns("trivy-db is of");
    host.wait(30 * DAY);
    status(&host, &["--max-age", "30d"]).good();
    // A clock that was ahead once, and is right again, is no alarm.
    host.wait(30 * DAY);
    host.import(&host.path("inbox/b.tar"), &[]).good();
    host.wait(-30 * DAY);
    status(&host, &[]).exits(5);
    host.import(&host.path("inbox/b.tar"), &[]).good();
    status(&host, &[]).good();
}

#[test]
fn what_came_from_the_future_of_a_slow_clock_is_no_silence() {
    // Slow from the beginning: everything that comes is refused.
    let host = Host::new();
    host.wait(-3 * DAY);
    let came = bundle(&host, hours(-1), 1);
    host.import(&came, &[]).exits(5).warns("this host's clock (").warns("Compare both clocks");
    status(&host, &[])
        .fails()
        .warns("what came last for stream \"default\" (b.tar) is dated")
        .warns("or the exporter's is fast");
    // One was accepted, and is fresh by that clock.
    host.import(&bundle(&host, hours(-75), 1), &[]).good();
    status(&host, &["--max-age", "30d"]).good();
    host.import(&bundle(&host, hours(-1), 2), &[]).exits(5);
    status(&host, &["--max-age", "30d"]).exits(5).warns("what came last");
    // The exporter's clock was fast, and was corrected.
    host.import(&bundle(&host, hours(-74), 3), &[]).good();
    status(&host, &["--max-age", "30d"]).good();
    // Heartbeats say the same.
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
    status(&host, &[]).exits(5).warns("what came last for stream");
}

/// This host's clock was fast while something came, and is right again: whatever comes next shows that.
#[test]
fn what_comes_next_ends_the_alarm_of_a_clock_that_was_fast() {
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
            run.exits(5).warns("was set back").warns("the next bundle or heartbeat clears this");
            sender.wait(60);
            importer.wait(60);
            send(comes, 3);
            status(&importer, &[]).good();
        }
    }
}

#[test]
fn an_exporter_whose_clock_was_fast_finds_back() {
    let sender = Host::new();
    sender.write_key();
    fs::create_dir(sender.path("drop")).unwrap();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    sender.export(&upstream, &[]).good();
    let importer = Host::with_key(&sender.key);
    let import = |more: &[&str]| importer.import(&sender.path("out"), more);
    import(&[]).good();
    // Both were fast, so the bundle was accepted; a fast exporter alone would have been refused.
    sender.wait(30 * DAY);
    importer.wait(30 * DAY);
    upstream.publish(2, 200_000);
    let fast = sender.export(&upstream, &[]).good().json()["bundle"]["path"].as_str().unwrap().to_owned();
    import(&[]).good();
    sender.wait(-30 * DAY);
    importer.wait(-30 * DAY);
    // It is no success to have nothing new to say with such a date.
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
    // The database is much smaller, too: every flag that the bundle needs is recorded wherever one is.
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
    // What bears the wrong date is not taken for the newest.
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
    // From then on all is as ever.
    sender.wait(60);
    importer.wait(60);
    upstream.publish(4, 1000);
    let report: Value = sender.export(&upstream, &["--allow-earlier-date"]).good().json();
    assert_eq!(report["bundle"]["overrides"], serde_json::json!([]), "it is of no use, and does no harm");
    import(&[]).good();
    status(&importer, &[]).good();
}

#[test]
fn an_exporter_whose_clock_is_slow_blames_no_source() {
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
            .warns("Check this host's clock first")
            .does_not_say("serves an unusable");
    }
    sender.wait(10 * DAY);
    sender.export(&upstream, &[]).good();
}
