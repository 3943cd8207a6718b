//! "The link is down", "the newest bundle is lost" and "upstream has nothing new" are different
//! conditions, and the air-gapped side distinguishes them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use test_kit::files::Fault;
use test_kit::process::Run;
use trivy_ferry::bundle::heartbeat::{ExportOutcome, Heartbeat};
use trivy_ferry::trust::key::SigningKey;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Host};

/// Both ends of a diode: the export writes to `drop`, and the test copies files from there to
/// `inbox`.
struct Link {
    host: Host,
    upstream: Upstream,
    generation: u64,
}

impl Link {
    fn new() -> Self {
        Link::over(Upstream::new(|_, _| None))
    }

    fn over(upstream: Upstream) -> Self {
        let host = Host::new();
        host.write_key();
        fs::create_dir(host.path("drop")).unwrap();
        Link { host, upstream, generation: 0 }
    }

    fn publish(&mut self) {
        self.generation += 1;
        self.upstream.publish(self.generation, 50_000);
    }

    /// Runs an export, as the timer on the connected side does.
    fn export(&self) -> Run {
        forge::run(self.export_command())
    }

    fn export_command(&self) -> Command {
        let mut command: Command = self.host.command();
        command.args([
            "export",
            "--if-changed",
            "--key",
            "exporter.key",
            "--output",
            "out",
            "--drop",
            "drop",
        ]);
        command
            .args(["--state-dir", "exported", "--heartbeat", "--format", "json"])
            .args(self.upstream.flags());
        command
    }

    fn dropped(&self, what: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.host.path("drop")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_str().unwrap().ends_with(what)).collect()
    }

    /// Copies files with this ending to the inbox, and discards the others.
    fn carry(&self, what: &str) {
        for path in self.dropped(what) {
            fs::copy(&path, self.host.path("inbox").join(path.file_name().unwrap())).unwrap();
        }
        for path in self.dropped("") {
            fs::remove_file(path).unwrap();
        }
        // Two heartbeats in one second would have the same name.
        self.host.wait(2);
    }

    fn watch(&self) -> Value {
        let args = ["watch", "inbox", "--once", "--settle", "1ms", "--trust", "keys/exporter.pub"];
        let more =
            ["--cache-dir", "cache", "--state-dir", "state", "--data-home", "home", "--format", "json"];
        let ran = self.host.run(&[&args[..], &more].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"))
    }

    fn status(&self, more: &[&str]) -> Run {
        self.host.run(&[&["status", "--state-dir", "state"], more].concat())
    }

    fn heartbeat(&self) -> Value {
        let ran = self.status(&["--format", "json"]);
        let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
        status["heartbeats"][0].clone()
    }
}

#[test]
fn a_heartbeat_shows_a_working_link_without_new_data_and_a_lost_bundle() {
    let mut link = Link::new();
    link.publish();
    let report: Value = serde_json::from_str(&link.export().good().out).unwrap();
    let name = PathBuf::from(report["heartbeat"].as_str().unwrap());
    assert!(name.starts_with("drop") && link.host.path(name.to_str().unwrap()).exists());
    link.carry("");
    let report = link.watch();
    assert_eq!(report["outcomes"][0]["outcome"], "processed");
    assert_eq!(report["heartbeats"][0]["heard"]["export"], "written");
    assert!(report["heartbeats"][0]["file"].as_str().unwrap().ends_with(".heartbeat.json"), "{report:#}");
    assert_eq!(
        (&link.heartbeat()["here"], &link.heartbeat()["newest"]["sequence"]),
        (&true.into(), &1.into())
    );
    // Nothing is new, so only the heartbeat arrives, and the state does not change.
    link.export().good();
    assert_eq!(link.dropped("").len(), 1, "{:?}", link.dropped(""));
    let before = link.host.state("default");
    link.carry("");
    assert_eq!(link.watch()["outcomes"], serde_json::json!([]));
    assert_eq!(link.heartbeat()["export"], "unchanged");
    assert_eq!(link.host.state("default"), before, "a heartbeat does not change the floors");
    assert_eq!(fs::read_dir(link.host.path("inbox")).unwrap().count(), 2, ".trivy-ferry and processed");
    // The next bundle is lost, but its heartbeat arrives.
    link.publish();
    link.export().good();
    link.carry(".heartbeat.json");
    link.watch();
    assert_eq!(link.heartbeat()["here"], false);
    link.status(&["--max-silence", "1h", "--metrics", "ferry.prom"])
        .exits(0)
        .prints("not here yet")
        .prints("number 2");
    let metrics = fs::read_to_string(link.host.path("ferry.prom")).unwrap();
    for name in
        ["trivy_ferry_heartbeat_timestamp_seconds{stream=\"default\"}", "trivy_ferry_bundle_announced_"]
    {
        assert!(metrics.contains(name), "{metrics}");
    }
    // Nothing arrives anymore.
    link.host.wait(2 * 3600);
    link.status(&["--max-silence", "1h"])
        .exits(5)
        .warns("no heartbeat of stream \"default\" was received since")
        .warns("the bundle of stream \"default\" of")
        .warns("was not imported");
}

/// The names have a time, so that no later export replaces the leftover files of a killed one.
#[test]
fn leftover_files_of_a_killed_export_are_removed() {
    let mut link = Link::new();
    link.publish();
    let leftovers = [
        "drop/.default-20260102t030405z.heartbeat.json.partial",
        "drop/.default-20260102t030405z.tar.partial",
        "drop/.default-20260102t030405z.tar.003.partial",
        "drop/.default-20260102t030405z.par.001.partial",
    ];
    let others = [
        "drop/.other-20260102t030405z.heartbeat.json.partial",
        "drop/.default-b-20260102t030405z.tar.partial",
        "drop/.default-notes.heartbeat.json.partial",
        "drop/.photo.jpg.partial",
    ];
    let export = |without_drop: bool| {
        leftovers.iter().chain(&others).for_each(|name| drop(link.host.file(name, "cut sh")));
        let mut command = link.export_command();
        if without_drop {
            command = link.host.command();
            command.args(["export", "--key", "exporter.key", "--output", "drop", "--state-dir", "exported"]);
            command.arg("--heartbeat").args(link.upstream.flags());
        }
        forge::run(command).good();
        let is_left = |names: &[&str]| names.iter().filter(|name| link.host.path(name).exists()).count();
        (is_left(&leftovers), is_left(&others))
    };
    assert_eq!(export(false), (0, others.len()));
    // An export that finds no new data also checks the directory.
    assert_eq!(export(false), (0, others.len()));
    // Only `--drop` creates copies of bundles.
    link.host.wait(2);
    assert_eq!(export(true), (leftovers.len() - 1, others.len()));
}

#[test]
fn an_exporter_without_reachable_sources_sends_heartbeats() {
    let link = Link::over(Upstream::new(|_, _| Some(Fault::Status(503, None))));
    link.upstream.publish(1, 50_000);
    assert_eq!(link.export().code, 3);
    link.carry("");
    let report = link.watch();
    assert_eq!(report["heartbeats"][0]["heard"]["export"], "failed");
    assert!(report["heartbeats"][0]["heard"].get("newest").is_none());
    link.status(&["--max-silence", "1h"]).exits(0).prints("the export failed");
}

#[test]
fn a_replayed_or_forged_heartbeat_is_rejected() {
    let mut link = Link::new();
    link.publish();
    link.export().good();
    let [first] = &link.dropped(".heartbeat.json")[..] else { panic!() };
    let name = first.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = fs::read(first).unwrap();
    link.carry("");
    link.watch();
    link.export().good();
    link.carry("");
    link.watch();
    let heard = link.heartbeat();
    // The same heartbeat arrives again under the same name.
    link.host.file(&format!("inbox/{name}"), &bytes);
    assert!(link.watch()["heartbeats"][0]["why"].as_str().unwrap().contains("heartbeat received was"));
    assert_eq!(link.heartbeat(), heard);
    let log = || fs::read_to_string(link.host.path("state/imports.jsonl")).unwrap();
    assert!(!log().contains("refused"), "a duplicate heartbeat is not a rejection: {}", log());
    // One heartbeat is signed by another key, one is dated years ahead and would hide a later
    // silence, and two are invalid.
    let forger = SigningKey::generate().unwrap();
    let of = |key: &SigningKey, created: &str| {
        let created = created.parse().unwrap();
        Heartbeat::new("default".parse().unwrap(), created, ExportOutcome::Unchanged, None)
            .signed(key)
            .unwrap()
    };
    let now = forge::hours(1).to_string();
    for (bytes, why) in [
        (of(&forger, &now), "not signed by a trusted key"),
        (of(&link.host.key, "2099-01-01T00:00:00Z"), "more than 24 h after this host's clock"),
        (b"{}".to_vec(), "not a DSSE envelope"),
        (vec![b' '; 1 << 20], "limit: 65536"),
    ] {
        link.host.file("inbox/x.heartbeat.json", bytes);
        let report = link.watch();
        // A heartbeat that is rejected because of a clock waits, like a bundle.
        let said = [&report["heartbeats"], &report["waiting"]].map(|rows| rows.as_array().unwrap().clone());
        let [said] = &said.concat()[..] else { panic!("{why}: {report}") };
        assert!(said["why"].as_str().unwrap().contains(why), "{why}: {report}");
        assert_eq!(link.heartbeat(), heard);
        assert!(log().lines().last().unwrap().contains(why), "{why}: {}", log());
    }
    // A link or a FIFO is not read, and does not stop the watch.
    std::os::unix::fs::symlink("/dev/zero", link.host.path("inbox/y.heartbeat.json")).unwrap();
    assert!(link.watch()["heartbeats"][0]["why"].as_str().unwrap().contains("symbolic link"));
    assert!(!link.host.path("inbox/y.heartbeat.json").exists());
}

/// The watch prints one line for a heartbeat with a future date, with its name once.
#[test]
fn a_heartbeat_dated_in_the_future_is_reported_once() {
    let link = Link::new();
    let heartbeat = Heartbeat::new(
        "default".parse().unwrap(),
        "2099-01-01T00:00:00Z".parse().unwrap(),
        ExportOutcome::Unchanged,
        None,
    );
    for name in ["x.heartbeat.json", "X.HEA"] {
        link.host.file(&format!("inbox/{name}"), heartbeat.signed(&link.host.key).unwrap());
        let args = ["watch", "inbox", "--once", "--settle", "1ms", "--trust", "keys/exporter.pub"];
        let ran = link.host.run(&[&args[..], &["--cache-dir", "cache", "--state-dir", "state"]].concat());
        ran.exits(0).prints(&format!("waits        {name} was created 2099"));
        assert_eq!(ran.out.matches(name).count(), 1, "{ran}");
        assert_eq!(ran.err.matches(name).count(), 1, "{ran}");
        fs::remove_file(link.host.path("inbox").join(name)).unwrap();
    }
}

/// Names from mail gateways, browsers, and discs without Rock Ridge or Joliet (ECMA-119, level 1).
#[test]
fn a_renamed_heartbeat_is_received() {
    let mut link = Link::new();
    link.publish();
    link.export().good();
    link.carry("");
    link.watch();
    let carried = |names: &[&str]| {
        link.export().good();
        let [file] = &link.dropped(".heartbeat.json")[..] else { panic!() };
        let bytes = fs::read(file).unwrap();
        for name in names {
            link.host.file(&format!("inbox/{name}"), &bytes);
        }
        fs::remove_file(file).unwrap();
        link.host.wait(2);
        bytes
    };
    for name in
        ["default-20261121t091500z.heartbeat (1).json", "DEFAULT1.JSO", "DEFAULT_.JSO;1", "heartbeat.txt"]
    {
        let before = link.heartbeat()["created"].clone();
        let bytes = carried(&[name]);
        // A command that does not receive heartbeats names the file.
        let import = link.host.import(&link.host.path("inbox"), &[]);
        import.fails_with(2, &["a heartbeat, which `watch` reads"]);
        let report = link.watch();
        assert_eq!(report["heartbeats"][0]["file"], *name, "{report:#}");
        assert_ne!(link.heartbeat()["created"], before, "{name}");
        assert!(!link.host.path("inbox").join(name).exists(), "{name}");
        // A duplicate is removed, and is not reported as rejected.
        link.host.file(&format!("inbox/{name}"), bytes);
        assert!(link.watch()["heartbeats"][0]["why"].as_str().unwrap().contains("heartbeat received was"));
    }
    let log = || fs::read_to_string(link.host.path("state/imports.jsonl")).unwrap();
    assert!(!log().contains("refused"), "{}", log());
    // Renamed heartbeats of other keys have the same limit in the log as other unsigned files, and
    // are reported until a good one arrives.
    let forged = Heartbeat::new("default".parse().unwrap(), forge::hours(0), ExportOutcome::Failed, None);
    let forged = forged.signed(&SigningKey::generate().unwrap()).unwrap();
    (0..30).for_each(|n| drop(link.host.file(&format!("inbox/FORGED{n}.JSO"), &forged)));
    assert_eq!(link.watch()["heartbeats"].as_array().unwrap().len(), 20);
    assert_eq!(log().matches("\"heartbeat\":true").count(), 20, "{}", log());
    link.status(&[]).prints("FORGED1.JSO is not signed by a trusted key");
    carried(&["DEFAULT2.JSO"]);
    link.watch();
    link.status(&[]).does_not_say("FORGED1.JSO");
    // Files that are not complete heartbeats are kept.
    let good = carried(&["DEFAULT3.JSO.filepart"]);
    let large = [&good[..], &vec![b' '; 64 << 10]].concat();
    link.host.file("inbox/large", large);
    link.host.file("inbox/other.json", "{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"\"}");
    let report = link.watch();
    assert_eq!(report["heartbeats"], serde_json::json!([]), "{report:#}");
    for name in ["DEFAULT3.JSO.filepart", "large", "other.json"] {
        assert!(link.host.path("inbox").join(name).exists(), "{name}");
    }
    // A bundle and a heartbeat whose names differ only in case are both handled.
    link.publish();
    link.export().good();
    let [bundle] = &link.dropped(".tar")[..] else { panic!("{:?}", link.dropped("")) };
    fs::copy(bundle, link.host.path("inbox/SAME")).unwrap();
    let [heartbeat] = &link.dropped(".heartbeat.json")[..] else { panic!() };
    fs::copy(heartbeat, link.host.path("inbox/same")).unwrap();
    let report = link.watch();
    assert_eq!(report["heartbeats"][0]["file"], "same", "{report:#}");
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
}

#[test]
#[ignore = "tools"]
fn prometheus_reads_the_metrics_of_heartbeats() {
    let mut link = Link::new();
    link.publish();
    link.export().good();
    link.carry("");
    link.watch();
    link.status(&["--metrics", "ferry.prom"]).good();
    let metrics = fs::read_to_string(link.host.path("ferry.prom")).unwrap();
    assert!(metrics.contains("trivy_ferry_heartbeat_timestamp_seconds"), "{metrics}");
    forge::promtool(&link.host.path("ferry.prom"));
}

#[test]
#[ignore = "tools"]
fn files_that_could_not_be_dropped_are_dropped_later() {
    let mut link = Link::new();
    link.publish();
    let export = link.export_command();
    // The drop directory is full and then enlarged, and no data is new in between.
    let line = "mount -t tmpfs -o size=32k tmpfs drop && ! \"$@\" >/dev/null && mount -o remount,size=64m drop && \
                \"$@\" >second && ls drop >listed";
    let mut command = link.host.in_own_mounts(line);
    command.arg(export.get_program()).args(export.get_args());
    forge::run(command).good();
    let second: Value = serde_json::from_slice(&fs::read(link.host.path("second")).unwrap()).unwrap();
    assert_eq!((&second["unchanged"], second["dropped"].as_array().unwrap().len()), (&true.into(), 1));
    assert!(fs::read_to_string(link.host.path("listed")).unwrap().contains(".tar\n"));
    // The files are dropped only once.
    let third: Value = serde_json::from_str(&link.export().good().out).unwrap();
    assert_eq!(third["dropped"], serde_json::json!([]));
}
