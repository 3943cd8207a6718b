//! A month of operation: nightly exports over a diode, with all failures of a month. After every
//! day, `status` is correct: it reports all problems, and no others.
//!
//! In debug builds, tests can shift the clocks of both sides. Release builds have no such option.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;
use test_kit::answers;
use test_kit::files::Fault;
use test_kit::host::names;
use test_kit::process::Run;
use test_kit::registry::Registry;
use trivy_ferry::trust::key::SigningKey;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Host};

const DAY: i64 = 24 * 60 * 60;
const MINUTES: u64 = 24 * 60;

/// The state of upstream in a night.
#[derive(Clone, Copy, PartialEq)]
enum Up {
    /// Upstream has newer data.
    New,
    /// Upstream still has the same data.
    Still,
    /// Upstream does not respond.
    Fails,
}

/// The state of the diode in a night.
#[derive(Clone, Copy, PartialEq)]
enum Diode {
    /// The diode transfers everything.
    Works,
    /// The diode loses bundles, and transfers heartbeats.
    LosesBundles,
    /// The diode loses everything.
    Dead,
}

/// An error of `status`: its exit code, and a part of its text.
type Bad = (u64, &'static str);

/// A registry that can be switched off.
struct Target {
    registry: Registry,
    off: Arc<AtomicBool>,
}

impl Target {
    fn new() -> Self {
        let off = Arc::new(AtomicBool::new(false));
        let is_off = off.clone();
        Target { registry: Registry::new(move |_| is_off.load(Relaxed).then(|| answers::status(403))), off }
    }

    fn flag(&self) -> String {
        format!("--registry={}/p", self.registry.host)
    }
}

struct Month {
    sender: Host,
    site: Host,
    upstream: Upstream,
    fails: Arc<AtomicBool>,
    day: u64,
    /// The private key that signs.
    key: &'static str,
    /// The public keys that the site trusts.
    trust: Vec<String>,
    /// The flags of the watch for the targets.
    targets: Vec<String>,
}

impl Month {
    fn new() -> Self {
        let sender = Host::new();
        sender.write_key();
        fs::create_dir(sender.path("drop")).unwrap();
        let site = Host::with_key(&sender.key);
        let fails = Arc::new(AtomicBool::new(false));
        let is_failing = fails.clone();
        let upstream =
            Upstream::new(move |_, _| is_failing.load(Relaxed).then_some(Fault::Status(404, None)));
        let trust = vec!["keys/exporter.pub".to_owned()];
        Month { sender, site, upstream, fails, day: 0, key: "exporter.key", trust, targets: Vec::new() }
    }

    fn both_wait(&self, seconds: i64) {
        self.sender.wait(seconds);
        self.site.wait(seconds);
    }

    /// Begins the next day. If upstream has new data, the data is of the day before.
    fn dawn(&mut self, up: Up) {
        self.both_wait(DAY);
        self.day += 1;
        self.fails.store(up == Up::Fails, Relaxed);
        if up == Up::New {
            self.upstream.publish((self.day + 2) * MINUTES, 2000);
        }
    }

    fn export(&self, more: &[&str]) -> Run {
        let mut command = self.sender.command();
        command.args(["export", "--if-changed", "--heartbeat", "--key", self.key, "--output", "out"]);
        command.args(["--drop", "drop", "--keep", "5", "--state-dir", "state", "--format", "json"]);
        command.args(self.upstream.flags()).args(more);
        forge::run(command)
    }

    /// Transfers or loses the files in the diode's directory.
    fn carry(&self, diode: Diode) {
        for name in names(self.sender.path("drop")) {
            let from = self.sender.path("drop").join(&name);
            let crosses = match diode {
                Diode::Works => true,
                Diode::LosesBundles => name.ends_with(".heartbeat.json"),
                Diode::Dead => false,
            };
            if crosses {
                fs::copy(&from, self.site.path("inbox").join(&name)).unwrap();
            }
            fs::remove_file(from).unwrap();
        }
    }

    fn watch(&self) -> Run {
        let mut command = self.site.command();
        command.args(["watch", "inbox", "--once", "--settle", "1ms", "--interval", "1ms", "--plain-http"]);
        command.args(["--state-dir", "state", "--data-home", "home"]).args(&self.targets);
        command.args(self.trust.iter().map(|key| format!("--trust={key}")));
        forge::run(command)
    }

    /// Runs an export and a watch of a new day, and returns both runs.
    fn night(&mut self, up: Up, diode: Diode) -> (Run, Run) {
        self.dawn(up);
        let exported = self.export(&[]);
        exported.exits(if up == Up::Fails { 3 } else { 0 });
        self.carry(diode);
        (exported, self.watch())
    }

    fn status(&self, more: &[&str]) -> Run {
        let limits =
            ["--max-age", "trivy-db=4d", "--max-silence", "20h", "--check-registries", "--plain-http"];
        self.site.run(&[&["status", "--state-dir", "state"], &limits[..], more].concat())
    }

    /// Asserts that `status` reports exactly these errors, 1 h after the night.
    #[track_caller]
    fn truth(&self, expected: &[Bad]) -> Run {
        self.both_wait(60 * 60);
        let said: Value = self.status(&["--format", "json"]).json();
        let errors = said["errors"].as_array().unwrap();
        let is = |error: &Value, (code, words): &Bad| {
            error["exit_code"] == *code && error["what"].as_str().unwrap().contains(words)
        };
        let text = self.status(&[]);
        for bad in expected {
            assert!(
                errors.iter().any(|error| is(error, bad)),
                "day {}: {bad:?} is not reported\n{text}",
                self.day
            );
        }
        for error in errors {
            assert!(
                expected.iter().any(|bad| is(error, bad)),
                "day {}: unexpected error: {error:#}\n{text}",
                self.day
            );
        }
        self.both_wait(-60 * 60);
        text
    }

    fn forget_files(&self, host: &Host, dir: &str, ending: &str) {
        for name in names(host.path(dir)).into_iter().filter(|name| name.ends_with(ending)) {
            fs::remove_file(host.path(dir).join(name)).unwrap();
        }
    }
}

/// Copies directories, like a snapshot of a machine.
fn copy(host: &Host, from: &[&str], to: &str) {
    let _ = fs::remove_dir_all(host.path(to));
    fs::create_dir(host.path(to)).unwrap();
    for dir in from {
        host.sh(&format!("cp -a {dir} {to}/")).good();
    }
}

fn restore(host: &Host, snapshot: &str, dirs: &[&str]) {
    for dir in dirs {
        host.sh(&format!("rm -rf {dir} && cp -a {snapshot}/{dir} .")).good();
    }
}

#[test]
fn status_is_correct_on_every_day_of_a_month() {
    let mut month = Month::new();
    let (a, b) = (Target::new(), Target::new());
    let cache = |name: &str| format!("--cache-dir={name}");
    let good: &[Bad] = &[];

    // An ordinary week: new data arrives, upstream has no new data, upstream fails.
    month.targets = vec![cache("cache"), a.flag()];
    for up in [Up::New, Up::New, Up::Still] {
        let (_, watched) = month.night(up, Diode::Works);
        watched.good();
        month.truth(good).does_not_say("refused").does_not_say("never received");
    }
    month.night(Up::Fails, Diode::Works);
    month.truth(good).prints("the export failed");
    month.night(Up::Fails, Diode::Works);
    month.truth(&[(5, "cache: trivy-db of"), (5, "/p: trivy-db of")]);
    month.night(Up::New, Diode::Works);
    month.truth(good);
    losses(&mut month);
    targets(&mut month, &a, &b);
    clocks(&mut month);
    snapshots_and_keys(&mut month);
    rebuilt(&mut month);
    assert!(month.day >= 30, "{}", month.day);
}

/// The diode loses a bundle, then everything, and then works again. One of the lost bundles is sent
/// again.
fn losses(month: &mut Month) {
    let good: &[Bad] = &[];
    month.night(Up::New, Diode::LosesBundles);
    month.truth(good).prints("not here yet");
    month.night(Up::New, Diode::Dead);
    month.truth(&[(5, "no heartbeat of stream"), (5, "was not imported")]);
    month.night(Up::New, Diode::Works);
    month.truth(good).prints("never received   2 bundles: 4-5").does_not_say("not here yet");
    let late = names(month.sender.path("out")).into_iter().filter(|name| name.ends_with(".tar"));
    let late = late.rev().nth(1).unwrap();
    month.dawn(Up::Still);
    fs::copy(month.sender.path("out").join(&late), month.site.path("inbox").join(&late)).unwrap();
    month.export(&[]).good();
    month.carry(Diode::Works);
    month.watch().good();
    month.truth(good).prints("never received   1 bundle: 4");
}

/// A cache is moved, a registry is added, fails and works again, and another registry is no longer
/// used.
fn targets(month: &mut Month, a: &Target, b: &Target) {
    let good: &[Bad] = &[];
    let new = "--cache-dir=cache2".to_owned();
    month.targets = vec![new.clone(), a.flag()];
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good).does_not_say("retired");
    // The data of the old cache is checked until the cache counts as retired.
    month.night(Up::New, Diode::Works).1.good();
    month.truth(&[(5, "/cache: trivy-db of")]).does_not_say("retired");
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good).prints("retired");
    fs::remove_dir_all(month.site.path("cache")).unwrap();
    month.targets = vec![new.clone(), a.flag(), b.flag()];
    b.off.store(true, Relaxed);
    month.night(Up::New, Diode::Works).1.fails();
    // The registry has never worked and cannot be checked, so only this error is reported.
    month.truth(&[(7, "every import has failed since")]).does_not_say("not here yet");
    month.night(Up::Still, Diode::Works).1.fails();
    month.truth(&[(7, "every import has failed since")]);
    b.off.store(false, Relaxed);
    month.night(Up::Still, Diode::Works).1.good();
    month.truth(good);
    month.targets = vec![new, b.flag()];
    month.night(Up::New, Diode::Works).1.good();
    month.truth(&[(5, "--max-age allows 4 d")]).prints("not in registry:");
    month.night(Up::New, Diode::Works).1.good();
    month.truth(&[(5, "--max-age allows 4 d")]);
    month.night(Up::New, Diode::Works).1.good();
    a.off.store(true, Relaxed);
    month.truth(good).prints("retired");
    let gone = format!("{}/p", a.registry.host);
    month.site.run(&["forget", "--state-dir", "state", &gone]).good();
    month.truth(good).does_not_say(&gone);
    // Another client pushes another database.
    let tag = "p/trivy-db:2";
    let manifest = b.registry.forget_tag(tag);
    month.truth(&[(7, "does not match the imported data")]);
    b.registry.name(tag, manifest);
    month.truth(good);
}

/// The importer's clock is set back, and then it is fast. After that, the exporter's clock is fast.
fn clocks(month: &mut Month) {
    let good: &[Bad] = &[];
    month.dawn(Up::New);
    month.site.wait(-5 * DAY);
    month.export(&[]).good();
    month.carry(Diode::Works);
    month.watch().fails();
    month.truth(&[(5, "this host's clock says")]);
    month.site.wait(5 * DAY);
    month.watch().good();
    month.truth(good);
    // With a clock that is 40 days ahead, all data is too old. No data is lost.
    month.dawn(Up::New);
    month.site.wait(40 * DAY);
    month.export(&[]).good();
    month.carry(Diode::Works);
    month.watch().good();
    assert_ne!(month.status(&[]).code, 0);
    month.site.wait(-40 * DAY);
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good);
    // The exporter's clock is 3 days ahead, and its bundle and its heartbeat are rejected.
    month.dawn(Up::New);
    month.sender.wait(3 * DAY);
    month.export(&[]).good();
    month.sender.wait(-3 * DAY);
    month.carry(Diode::Works);
    month.watch().fails();
    month.truth(&[(5, "this host's clock says"), (5, "no heartbeat of stream"), (5, "")]);
    month.dawn(Up::New);
    month.export(&[]).exits(5).warns("--allow-earlier-date");
    let ahead = names(month.sender.path("out")).into_iter().rfind(|name| name.ends_with(".tar")).unwrap();
    for (host, dir) in [(&month.sender, "out"), (&month.sender, "drop"), (&month.site, "inbox")] {
        month.forget_files(host, dir, &ahead);
    }
    for (host, dir) in [(&month.sender, "drop"), (&month.site, "inbox")] {
        month.forget_files(host, dir, ".heartbeat.json");
    }
    month.export(&["--allow-earlier-date"]).good();
    month.carry(Diode::Works);
    month.watch().good();
    month.truth(good);
}

/// Each side is restored from a snapshot, one after the other, and the exporter gets another key.
fn snapshots_and_keys(month: &mut Month) {
    let good: &[Bad] = &[];
    let (exporter, importer) = (["state", "out"], ["state", "cache2", "home"]);
    copy(&month.sender, &exporter, "snapshot");
    copy(&month.site, &importer, "snapshot");
    for _ in 0..2 {
        month.night(Up::New, Diode::Works).1.good();
        month.truth(good);
    }
    restore(&month.sender, "snapshot", &exporter);
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good);
    restore(&month.site, "snapshot", &importer);
    // The restored cache lacks a day of data, as the state does. The registry has newer data.
    assert_ne!(month.status(&[]).code, 0);
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good);
    // The exporter uses a new key, which the site trusts only a day later.
    let second = SigningKey::generate().unwrap();
    let path = month.sender.file("second.key", second.to_pem(None).unwrap().as_bytes());
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    month.key = "second.key";
    month.night(Up::New, Diode::Works).1.fails();
    // Both files arrived and are in quarantine, so the diode works.
    month
        .truth(&[(5, "no heartbeat of stream")])
        .prints("not signed by a trusted key")
        .warns("the last bundle or heartbeat was not accepted")
        .does_not_say("Check that the diode");
    month.trust.push(month.site.trust("second", &second.public()));
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good);
    month.trust.remove(0);
    month.night(Up::Still, Diode::Works).1.good();
    month.truth(good);
}

/// The importer is lost and rebuilt without its state, and then its cache is cleaned.
fn rebuilt(month: &mut Month) {
    let good: &[Bad] = &[];
    for lost in ["state", "cache2", "home", "inbox"] {
        fs::remove_dir_all(month.site.path(lost)).unwrap();
    }
    for dir in ["home", "inbox"] {
        fs::create_dir(month.site.path(dir)).unwrap();
    }
    month.status(&[]).exits(2).warns("nothing was imported");
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good);
    fs::remove_dir_all(month.site.path("cache2").join(Path::new("db"))).unwrap();
    month.truth(&[(7, "trivy-db-2 does not match the imported data")]);
    month.night(Up::New, Diode::Works).1.good();
    month.truth(good);
    month.night(Up::Still, Diode::Works).1.good();
    month.truth(good);
}
