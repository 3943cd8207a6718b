//! The unattended importing side. Any files may arrive in the inbox, in any order: the cache gets
//! the right data, and no file stays forever.

mod hostile;
mod renamed;
mod shares;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use test_kit::answers::{header, status};
use test_kit::host::{self, contents};
use test_kit::noise::{self, Noise};
use test_kit::process::{Run, wait_for};
use test_kit::registry::Registry;
use test_kit::runs;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Host};

/// The connected side. Its bundles are in `out`, which is not watched.
struct Sender {
    host: Host,
    upstream: Upstream,
    generation: u64,
}

impl Sender {
    fn new() -> Self {
        let host = Host::new();
        host.write_key();
        let upstream = Upstream::new(|_, _| None);
        Sender { host, upstream, generation: 0 }
    }

    /// Exports a bundle of newer data. Returns its files by name, and the date of its database.
    fn export(&mut self, more: &[&str]) -> (BTreeMap<String, Vec<u8>>, String) {
        self.generation += 1;
        self.upstream.publish(self.generation, 150_000);
        let _ = fs::remove_dir_all(self.host.path("out"));
        fs::create_dir(self.host.path("out")).unwrap();
        let mut command = self.host.command();
        command.args(["export", "--key", "exporter.key", "--output", "out", "--state-dir", "state"]);
        command.args(["--format", "json"]).args(self.upstream.flags()).args(more);
        let ran = forge::run(command);
        ran.good();
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let date = report["datasets"][0]["updated_at"].as_str().unwrap().to_owned();
        (contents(self.host.path("out")), date)
    }
}

/// Returns an importing host that trusts the sender.
fn receiver(sender: &Sender) -> Host {
    Host::with_key(&sender.host.key)
}

impl Host {
    fn watch_args(&self, more: &[&str]) -> Vec<String> {
        let fixed = [
            "watch",
            "inbox",
            "--once",
            "--trust",
            "keys/exporter.pub",
            "--cache-dir",
            "cache",
            "--state-dir",
            "state",
            "--data-home",
            "home",
            "--format",
            "json",
        ];
        // A test with a file that is still being written sets the settle time itself.
        let settle: &[&str] = if more.contains(&"--settle") { &[] } else { &["--settle", "1ms"] };
        fixed.iter().chain(settle).chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    fn watch(&self, more: &[&str]) -> (Run, serde_json::Value) {
        let mut command = self.command();
        command.args(self.watch_args(more));
        let ran = forge::run(command);
        let report = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
        (ran, report)
    }

    /// Runs a watch in the same way, but the system rejects some changes: see the program's
    /// `fault.rs`.
    fn watch_with(&self, refuse: &str, more: &[&str]) -> (Run, serde_json::Value) {
        let mut command = self.command();
        command.args(self.watch_args(more)).env("TRIVY_FERRY_TEST_REFUSE", refuse);
        let ran = forge::run(command);
        let report = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
        (ran, report)
    }

    fn put(&self, files: &BTreeMap<String, Vec<u8>>) {
        for (name, bytes) in files {
            fs::write(self.path("inbox").join(name), bytes).unwrap();
        }
    }

    fn inbox(&self) -> Vec<String> {
        names(&self.path("inbox")).into_iter().filter(|name| !SHELVES.contains(&name.as_str())).collect()
    }

    fn shelf(&self, shelf: &str) -> Vec<PathBuf> {
        let directory = self.path("inbox").join(shelf);
        names(&directory).into_iter().map(|name| directory.join(name)).collect()
    }

    /// Returns the date of the installed database.
    fn date(&self) -> Option<String> {
        self.installed("cache", "db")
    }
}

const HOUR: i64 = 3600;
const SHELVES: &[&str] = &[".trivy-ferry", "processed", "quarantine"];
const VOLUMES: &[&str] = &["--volume-size", "48K", "--parity", "30%"];

/// Returns the names in a directory, sorted, or none if it does not exist.
fn names(dir: &Path) -> Vec<String> {
    if dir.is_dir() { host::names(dir) } else { Vec::new() }
}

fn reason(directory: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(directory.join("reason.json")).unwrap()).unwrap()
}

/// Divides the files of a bundle into two deliveries.
fn split(files: &BTreeMap<String, Vec<u8>>, first: impl Fn(&str) -> bool) -> [BTreeMap<String, Vec<u8>>; 2] {
    let (one, two) = files.clone().into_iter().partition(|(name, _)| first(name));
    [one, two]
}

#[test]
fn arriving_bundles_are_imported_and_processed() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["outcomes"], serde_json::json!([]));
    let (files, date) = sender.export(&[]);
    host.put(&files);
    fs::write(host.path("inbox/readme.txt"), "not ours").unwrap();
    let (ran, report) =
        host.watch(&["--exec-outcome", "echo $TRIVY_FERRY_RESULT $TRIVY_FERRY_BUNDLE > told"]);
    ran.good();
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
    assert_eq!(host.date().as_deref().map(|date| &date[..19]), Some(&date[..19]));
    assert_eq!(host.inbox(), ["readme.txt"], "other files stay");
    let kept = host.shelf("processed");
    assert_eq!(kept.len(), 1);
    let said = reason(&kept[0]);
    let rows = said["import"]["targets"][0]["datasets"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["name"] == "trivy-db" && row["status"] == "installed"), "{said:#}");
    assert!(!said.to_string().contains("taken-"), "{said:#}");
    let name = files.keys().next().unwrap();
    assert!(kept[0].join(name).exists());
    assert_eq!(fs::read_to_string(host.path("told")).unwrap(), format!("processed {name}\n"));
    // The same bundle arrives again, and nothing is imported or rejected.
    host.put(&files);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["outcomes"][0]["outcome"], "processed");
}

#[test]
fn volumes_of_several_bundles_may_arrive_in_any_order() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (first, _) = sender.export(VOLUMES);
    let (second, date) = sender.export(VOLUMES);
    let is_head = |name: &str| name.ends_with(".000");
    // Both heads arrive first, then some volumes of each, and then the others.
    host.put(&split(&first, is_head)[0]);
    host.put(&split(&second, is_head)[0]);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["waiting"].as_array().unwrap().len(), 2, "{report:#}");
    assert!(report["waiting"][0]["why"].as_str().unwrap().contains("are missing"), "{report:#}");
    let some = |name: &str| name.ends_with(".001") || name.ends_with(".002");
    host.put(&split(&second, some)[0]);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["waiting"].as_array().unwrap().len(), 2, "{report:#}");
    assert_eq!(host.date(), None);
    host.put(&split(&first, is_head)[1]);
    host.put(&split(&second, is_head)[1]);
    let (ran, report) = host.watch(&[]);
    ran.good();
    let outcomes: Vec<&str> =
        report["outcomes"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["processed", "processed"], "{report:#}");
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
    assert_eq!(host.inbox(), [""; 0]);
}

#[test]
fn a_watch_does_not_wait_for_volumes_that_parity_can_rebuild() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (mut files, date) = sender.export(VOLUMES);
    let lost = files.keys().find(|name| name.ends_with(".tar.001")).unwrap().clone();
    files.remove(&lost);
    host.put(&files);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert!(ran.err.contains("repaired     default-"), "{ran:#?}");
    assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
    let said = reason(&host.shelf("processed")[0]).to_string();
    assert!(said.contains("rebuilt from parity") && said.contains(&lost), "{said}");
}

#[test]
fn unusable_files_are_quarantined_with_the_reason() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (good, date) = sender.export(&[]);
    let name = good.keys().next().unwrap().clone();
    let mut damaged = good.clone();
    let bytes = damaged.get_mut(&name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    host.put(&damaged);
    let (ran, report) = host.watch(&[]);
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert_eq!(report["outcomes"][0]["outcome"], "quarantined", "{report:#}");
    // A bundle without a trusted signature, a file that is not a bundle, and special files.
    let mut stranger = Sender::new();
    let (theirs, _) = stranger.export(&[]);
    host.put(&theirs);
    fs::write(host.path("inbox/rubbish.tar"), "rubbish").unwrap();
    fs::write(host.path("inbox/Upper.TAR"), "rubbish").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.path("inbox/link.tar")).unwrap();
    std::process::Command::new("mkfifo").arg(host.path("inbox/pipe.tar")).status().unwrap();
    let (ran, report) = host.watch(&[]);
    assert_ne!(ran.code, 0);
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 5, "{report:#}");
    for name in ["rubbish.tar", "upper.tar", "link.tar", "pipe.tar"] {
        let of_it = |line: &&str| line.contains("quarantined  ") && line.to_lowercase().contains(name);
        let said: Vec<&str> = ran.err.lines().filter(of_it).collect();
        assert_eq!(said.len(), 1, "{ran:#?}");
        assert_eq!(said[0].to_lowercase().matches(name).count(), 1, "{name} is reported once: {said:?}");
    }
    assert!(
        report["outcomes"].as_array().unwrap().iter().all(|row| row["outcome"] == "quarantined"),
        "{report:#}"
    );
    assert_eq!(host.inbox(), [""; 0]);
    assert_eq!(host.date(), None);
    let reasons: Vec<String> =
        host.shelf("quarantine").iter().map(|directory| reason(directory).to_string()).collect();
    for words in ["not signed by a trusted key", "symbolic link", "FIFO", "not a trivy-ferry bundle"] {
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:#?}");
    }
    assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
    // When a good copy arrives, it is imported.
    host.put(&good);
    host.watch(&[]).0.good();
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
}

#[test]
fn a_bundle_that_stays_incomplete_is_quarantined_and_named() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, _) = sender.export(&["--volume-size", "48K"]);
    let lost = files.keys().find(|name| name.ends_with(".tar.002")).unwrap().clone();
    host.put(&split(&files, |name| name == lost)[1]);
    let (ran, report) = host.watch(&["--give-up-after", "1h"]);
    ran.good();
    assert!(report["waiting"][0]["why"].as_str().unwrap().contains(&lost), "{report:#}");
    host.wait(2 * HOUR);
    let (ran, report) = host.watch(&["--give-up-after", "1h"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    assert_eq!(report["outcomes"][0]["outcome"], "quarantined", "{report:#}");
    assert!(report["outcomes"][0]["why"].as_str().unwrap().contains(&lost), "{report:#}");
    assert_eq!(host.inbox(), [""; 0]);
    // If there is too little space, the bundle that has waited longest is quarantined first.
    host.put(&split(&files, |name| name == lost)[1]);
    let (ran, report) = host.watch(&["--max-waiting", "10K"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    assert!(report["outcomes"][0]["why"].as_str().unwrap().contains("exceed --max-waiting"), "{report:#}");
}

#[test]
fn an_interrupted_copy_may_be_resumed() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    for more in [&[][..], &["--volume-size", "48K"], VOLUMES] {
        let (files, date) = sender.export(more);
        for length in [0, 300, 3000, 20_000] {
            let cut = |(name, bytes): (&String, &Vec<u8>)| {
                (name.clone(), bytes[..bytes.len().min(length)].to_vec())
            };
            host.put(&files.iter().map(cut).collect());
            let (ran, report) = host.watch(&[]);
            ran.good();
            assert_eq!(report["waiting"].as_array().unwrap().len(), 1, "{length}: {report:#}");
        }
        host.put(&files);
        host.watch(&[]).0.good();
        assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
    }
    // The watch does not wait for it forever.
    let (files, _) = sender.export(&[]);
    host.put(&files.iter().map(|(name, bytes)| (name.clone(), bytes[..20_000].to_vec())).collect());
    host.watch(&[]).0.good();
    host.wait(2 * HOUR);
    let (ran, report) = host.watch(&["--give-up-after", "1h"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    let why = report["outcomes"][0]["why"].as_str().unwrap();
    assert!(why.contains("waited too long") && why.contains("ends after 20000 bytes"), "{report:#}");
}

#[test]
fn late_files_are_combined_with_their_bundle_in_quarantine() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    // A volume is damaged, and then parity or a good copy of it arrives. Or a volume is lost, and
    // arrives after the bundle was quarantined.
    for late in [".par.", ".tar.002", "lost"] {
        let (good, date) = sender.export(VOLUMES);
        let mut files = good.clone();
        files.retain(|name, _| !name.contains(".par."));
        let second = files.keys().find(|name| name.ends_with(".tar.002")).unwrap().clone();
        match late {
            "lost" => drop(files.remove(&second)),
            _ => files.get_mut(&second).unwrap()[100] ^= 1,
        }
        host.put(&files);
        if late == "lost" {
            host.watch(&[]).0.good();
            host.wait(2 * HOUR);
        }
        let (ran, report) = host.watch(&["--give-up-after", "1h"]);
        assert_eq!(ran.code, if late == "lost" { 6 } else { 4 }, "{late}: {ran:#?}");
        assert_eq!(report["outcomes"][0]["outcome"], "quarantined", "{report:#}");
        let late = if late == "lost" { ".tar.002" } else { late };
        host.put(&good.into_iter().filter(|(name, _)| name.contains(late)).collect());
        let (ran, report) = host.watch(&[]);
        ran.good();
        assert_eq!(report["outcomes"][0]["outcome"], "processed", "{report:#}");
        assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
        assert_eq!(host.inbox(), [""; 0]);
    }
}

#[test]
fn a_file_that_never_settles_is_quarantined_as_well() {
    let sender = Sender::new();
    let host = receiver(&sender);
    fs::create_dir_all(host.path("inbox")).unwrap();
    let file = host.path("inbox/x.tar");
    let until = Instant::now() + Duration::from_secs(60);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for length in 1.. {
                let ended = done.load(std::sync::atomic::Ordering::Relaxed) || Instant::now() > until;
                if ended || length > 5 && !file.exists() {
                    return;
                }
                fs::write(&file, vec![0; length]).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // The settle time is so long that the file never settles.
        let rest = ["--settle", "1h", "--interval", "50ms", "--give-up-after", "500ms"];
        let (ran, report) = host.watch(&rest);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(ran.code, 6, "{ran:#?}");
        let why = report["outcomes"][0]["why"].as_str().unwrap();
        assert!(why.contains("it has waited too long") && why.contains("still arriving"), "{report:#}");
    });
}

#[test]
fn nothing_is_imported_before_the_settle_time_has_passed() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, _) = sender.export(&[]);
    host.put(&files);
    let (ran, report) = host.watch(&["--settle", "1h", "--interval", "50ms", "--give-up-after", "500ms"]);
    assert_eq!(ran.code, 6, "{ran:#?}");
    assert!(report["outcomes"][0]["why"].as_str().unwrap().contains("still arriving"), "{report:#}");
    assert_eq!(host.date(), None);
}

/// Standard input can be read once, and a watch imports for years.
#[test]
fn a_password_from_standard_input_is_used_for_every_import() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let registry = Registry::new(|seen| {
        seen.authorization.is_none().then(|| header(status(401), "www-authenticate", "Basic realm=\"r\""))
    });
    for _ in 0..2 {
        let (files, _) = sender.export(&[]);
        host.put(&files);
        sender.host.wait(2);
    }
    host.file("password", "sesame\n");
    let mut command = host.command();
    command.args(host.watch_args(&["--registry", &registry.host, "--username", "u", "--password-stdin"]));
    command.stdin(fs::File::open(host.path("password")).unwrap());
    let ran = forge::run(command);
    let report = ran.good().json();
    let outcomes: Vec<&serde_json::Value> =
        report["outcomes"].as_array().unwrap().iter().map(|outcome| &outcome["outcome"]).collect();
    assert_eq!(outcomes, ["processed", "processed"], "{report:#}");
    assert!(!registry.tags().is_empty());
}

#[test]
fn a_target_that_fails_is_retried_and_nothing_is_lost() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, date) = sender.export(&[]);
    host.put(&files);
    // A file has the name of the cache directory, so the directory cannot be created.
    fs::write(host.path("cache"), "in the way").unwrap();
    let (ran, report) = host.watch(&[]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert_eq!(report["waiting"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!(host.inbox().len(), 1);
    host.watch(&["--exec-outcome", "echo $TRIVY_FERRY_RESULT > told"]);
    assert_eq!(fs::read_to_string(host.path("told")).unwrap(), "failed\n");
    // The bundle is complete, so the watch retries it without a time limit.
    host.wait(2 * HOUR);
    host.watch(&["--give-up-after", "1h"]);
    assert_eq!(host.inbox().len(), 1);
    fs::remove_file(host.path("cache")).unwrap();
    // Another user has replaced the directory of processed bundles with a link.
    std::os::unix::fs::symlink(host.path("home"), host.path("inbox/processed")).unwrap();
    let (ran, report) = host.watch(&[]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(
        report["waiting"][0]["why"]
            .as_str()
            .unwrap()
            .contains("not a directory that only this user can write to"),
        "{report:#}"
    );
    fs::remove_file(host.path("inbox/processed")).unwrap();
    host.watch(&[]).0.good();
    assert_eq!(host.inbox(), [""; 0]);
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()));
}

#[test]
fn a_file_that_is_still_written_is_skipped() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (files, date) = sender.export(&[]);
    let (name, bytes) = files.iter().next().unwrap();
    let mut command = host.command();
    let args: Vec<String> =
        host.watch_args(&["--settle", "100ms"]).into_iter().filter(|arg| arg != "--once").collect();
    let log = fs::File::create(host.path("log")).unwrap();
    command.args(args).args(["--interval", "50ms"]).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().unwrap();
    // The file is written slowly under its final name, with pauses longer than `--interval`.
    let mut file = fs::File::create(host.path("inbox").join(name)).unwrap();
    for chunk in bytes.chunks(bytes.len() / 6 + 1) {
        std::io::Write::write_all(&mut file, chunk).unwrap();
        std::thread::sleep(Duration::from_millis(70));
    }
    drop(file);
    wait_for("the import", || (!host.shelf("processed").is_empty()).then_some(()));
    // Only one run can watch a directory.
    host.watch_rejected();
    // Without work, the watch sleeps between two looks.
    let sleeps = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = sleeps();
    wait_for("the next sleeps", || (sleeps() >= before + 5).then_some(()));
    assert!(child.try_wait().unwrap().is_none(), "the watch still runs");
    child.kill().unwrap();
    child.wait().unwrap();
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(host.shelf("quarantine").is_empty(), "{log}");
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(date[..19].to_owned()), "{log}");
    assert!(log.contains("processed"), "{log}");
}

impl Host {
    fn watch_rejected(&self) {
        let mut command = self.command();
        command.args(self.watch_args(&[]));
        forge::run(command).fails_with(2, &["another run watches"]);
    }
}

#[test]
fn a_watch_that_is_killed_at_any_moment_can_be_started_again() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    // The number of steps of an undisturbed run that is not the first.
    let (files, _) = sender.export(VOLUMES);
    host.put(&files);
    host.watch(&[]).0.good();
    let (files, _) = sender.export(VOLUMES);
    host.put(&files);
    let list = host.path("steps");
    let mut command = host.command();
    command.args(host.watch_args(&["--quiet"])).env("TRIVY_FERRY_TEST_STEPS", &list);
    forge::run(command).good();
    let steps = fs::read_to_string(&list).unwrap().lines().count() as u64;
    assert!(steps > 50, "{steps}");
    let (seed, kills) = (noise::seed(), runs(12, 200));
    let mut dice = Noise::new(seed);
    let mut newest = String::new();
    for number in 0..kills {
        let (files, date) = sender.export(VOLUMES);
        newest = date[..19].to_owned();
        host.put(&files);
        // The kills are spread over all steps, each at a random step of its part.
        let step = 1 + (number * steps + dice.below(steps)) / kills;
        let mut command = host.command();
        command.args(host.watch_args(&["--quiet"])).stdout(Stdio::null()).stderr(Stdio::null());
        command.env("TRIVY_FERRY_TEST_KILL_AT", step.to_string());
        let status = command.status().unwrap();
        let at = format!("TRIVY_FERRY_SEED={seed}, step {step} of {steps}");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{at}");
        let cache = host.path("cache/db");
        let parts = ["trivy.db", "metadata.json"].map(|name| cache.join(name).exists());
        assert_eq!(parts[0], parts[1], "all of a database or nothing: {at}");
    }
    host.watch(&[]).0.good();
    assert_eq!(host.date().map(|date| date[..19].to_owned()), Some(newest));
    assert_eq!(host.inbox(), [""; 0]);
    let own = names(&host.path("inbox/.trivy-ferry"));
    assert!(!own.iter().any(|name| name.starts_with("taken")), "{own:?}");
    assert!(host.shelf("quarantine").is_empty(), "{:?}", host.shelf("quarantine"));
}

/// Sends a bundle's files through the diode: each file may be lost, damaged, truncated, sent twice
/// or delayed. Returns the number of files that did not arrive unchanged.
fn pass(
    dice: &mut Noise,
    files: &BTreeMap<String, Vec<u8>>,
    late: &mut Vec<(String, Vec<u8>)>,
) -> (Vec<(String, Vec<u8>)>, usize) {
    let mut through = Vec::new();
    let mut hit = 0;
    for (name, bytes) in files {
        let mut bytes = bytes.clone();
        let what = dice.below(24);
        hit += usize::from(what < 3);
        match what {
            0 => continue,
            1 => {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
            2 => bytes.truncate(dice.below(bytes.len() as u64) as usize),
            3 => {
                late.push((name.clone(), bytes));
                continue;
            }
            4 => through.push((name.clone(), bytes.clone())),
            _ => {}
        }
        through.push((name.clone(), bytes));
    }
    // The files arrive in any order.
    for index in (1..through.len()).rev() {
        through.swap(index, dice.below(index as u64 + 1) as usize);
    }
    (through, hit)
}

/// The last outcome of each bundle by name.
type Told = BTreeMap<String, String>;

/// A sender, a diode, and a watch behind it.
struct Diode {
    seed: u64,
    dice: Noise,
    sender: Sender,
    host: Host,
    /// The files that the diode delays.
    late: Vec<(String, Vec<u8>)>,
    told: Told,
    /// The dates of the bundles that were sent.
    sent: BTreeMap<String, String>,
    /// The bundles of which all files arrive unchanged.
    must: Vec<String>,
    /// The first bundle that was imported.
    first: Option<String>,
    /// The number of repaired bundles.
    repaired: usize,
}

impl Diode {
    fn new(seed: u64) -> Diode {
        let sender = Sender::new();
        let host = receiver(&sender);
        let (late, told, sent, must, first, repaired) = Default::default();
        Diode { seed, dice: Noise::new(seed), sender, host, late, told, sent, must, first, repaired }
    }

    /// Sends one more bundle, and the delayed files.
    fn send(&mut self) {
        let (files, date) = self.sender.export(VOLUMES);
        let stem = files.keys().next().unwrap().split_once('.').unwrap().0;
        let bundle = format!("{stem}.tar");
        let held = std::mem::take(&mut self.late);
        let (through, hit) = pass(&mut self.dice, &files, &mut self.late);
        self.put(through);
        self.put(held);
        self.sent.insert(bundle.clone(), date[..19].to_owned());
        if hit == 0 {
            self.must.push(bundle);
        }
    }

    fn send_late(&mut self) {
        let held = std::mem::take(&mut self.late);
        self.put(held);
    }

    fn put(&self, files: Vec<(String, Vec<u8>)>) {
        for (name, bytes) in files {
            fs::write(self.host.path("inbox").join(name), bytes).unwrap();
        }
    }

    /// Watches once. Asserts that no older data is installed, and that every outcome has its
    /// reason.
    fn watch(&mut self, more: &[&str]) {
        let before = self.host.date();
        let (ran, report) = self.host.watch(&[&["--quiet"], more].concat());
        let at = format!("TRIVY_FERRY_SEED={}: {ran:#?}", self.seed);
        // Bundles older than the first imported one are rejected, because they look like a
        // rollback.
        assert!([0, 4, 5, 6].contains(&ran.code), "{at}");
        assert!(self.host.date() >= before, "a rollback: {at}");
        for row in report["outcomes"].as_array().unwrap() {
            let (bundle, outcome) = (row["bundle"].as_str().unwrap(), row["outcome"].as_str().unwrap());
            let why = fs::read_to_string(row["reason"].as_str().map(|path| self.host.path(path)).unwrap());
            // If the reason was removed since then, the report still has it.
            let why = why.unwrap_or_else(|_| row.to_string());
            self.repaired += usize::from(outcome == "processed" && why.contains("rebuilt from parity"));
            assert!(outcome == "processed" || row["why"].as_str().is_some_and(|why| why.len() > 20), "{at}");
            if outcome == "processed" && self.first.is_none() {
                self.first = Some(bundle.into());
            }
            let rejected = row["exit_code"] == 5;
            assert!(!rejected || Some(bundle) < self.first.as_deref(), "rejected without a reason: {at}");
            if self.told.get(bundle).is_none_or(|earlier| earlier != "processed") {
                self.told.insert(bundle.into(), outcome.into());
            }
        }
    }

    fn is_processed(&self, bundle: &str) -> bool {
        self.told.get(bundle).is_some_and(|outcome| outcome == "processed")
    }

    /// Asserts that all bundles that arrived unchanged were imported, that all others were
    /// reported, and that the newest data is installed. Returns the number of bundles that were not
    /// imported.
    fn judge(&self) -> usize {
        let seed = self.seed;
        assert_eq!(self.host.inbox(), [""; 0], "TRIVY_FERRY_SEED={seed}");
        for bundle in &self.must {
            assert!(
                self.is_processed(bundle),
                "TRIVY_FERRY_SEED={seed}: {bundle} arrived complete, and is {:?}",
                self.told.get(bundle)
            );
        }
        for bundle in self.sent.keys() {
            // A bundle that was lost completely is found by the sequence numbers of the others.
            let known = self.told.contains_key(bundle);
            assert!(known, "TRIVY_FERRY_SEED={seed}: {bundle} was not reported");
        }
        let processed = self.sent.iter().filter(|(bundle, _)| self.is_processed(bundle));
        let newest = processed.clone().map(|(_, date)| date.clone()).max();
        assert_eq!(self.host.date().map(|date| date[..19].to_owned()), newest, "TRIVY_FERRY_SEED={seed}");
        self.sent.len() - processed.count()
    }
}

/// Sends 30 bundles through a diode. Returns the number of repaired bundles, and the number of
/// bundles beyond repair.
fn diode(seed: u64) -> (usize, usize) {
    const BUNDLES: usize = 30;
    let mut diode = Diode::new(seed);
    for number in 0..BUNDLES {
        diode.send();
        if diode.dice.below(3) == 0 || number == BUNDLES - 1 {
            diode.watch(&[]);
        }
    }
    diode.send_late();
    diode.watch(&[]);
    // No file stays: bundles that never became complete are quarantined and named.
    diode.host.wait(2 * HOUR);
    diode.watch(&["--give-up-after", "1h"]);
    let named = diode.judge();
    (diode.repaired, named)
}

#[test]
fn after_all_faults_of_a_diode_the_newest_available_data_is_installed() {
    let (first, runs) = (noise::seed(), runs(2, 200));
    let threads: Vec<_> = (0..runs.min(8))
        .map(|thread| {
            std::thread::spawn(move || {
                (first + thread..first + runs).step_by(8).map(diode).collect::<Vec<_>>()
            })
        })
        .collect();
    let done: Vec<(usize, usize)> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let (repaired, named): (Vec<usize>, Vec<usize>) = done.iter().copied().unzip();
    let (repaired, named) = (repaired.iter().sum::<usize>(), named.iter().sum::<usize>());
    println!("{} runs: {repaired} bundles repaired, {named} beyond repair and named", done.len());
    assert!(repaired > 0 && named > 0, "there were too few faults");
}

#[test]
fn dropped_bundles_are_complete_and_repeated_as_often_as_requested() {
    let mut sender = Sender::new();
    let drop = sender.host.path("drop");
    fs::create_dir(&drop).unwrap();
    let into = ["--drop", "drop", "--repeat", "2"];
    let (files, _) = sender.export(&[VOLUMES, &into].concat());
    assert_eq!(names(&drop), files.keys().cloned().collect::<Vec<_>>());
    for (name, bytes) in &files {
        assert!(fs::read(drop.join(name)).unwrap() == *bytes, "{name}");
    }
    // The diode removes the files. The next run drops its bundle and the previous one.
    let host = receiver(&sender);
    fs::remove_dir_all(&drop).unwrap();
    fs::create_dir(&drop).unwrap();
    let out = sender.host.path("out");
    sender.upstream.publish(60, 150_000);
    let run = |more: &[&str]| {
        let mut command = sender.host.command();
        command.args(["export", "--key", "exporter.key", "--output", "out", "--state-dir", "state"]);
        command.args(sender.upstream.flags()).args(VOLUMES).args(more);
        forge::run(command)
    };
    run(&into).good();
    assert_eq!(names(&drop), names(&out));
    assert!(names(&drop).len() > files.len() && files.keys().all(|name| drop.join(name).exists()));
    for name in names(&drop) {
        fs::rename(drop.join(&name), host.path("inbox").join(&name)).unwrap();
    }
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 2, "{report:#}");
    // If the drop fails, this is an error, but the bundle is written.
    run(&["--drop", "nowhere"]).fails_with(2, &["the drop directory nowhere does not exist"]);
    let before = names(&out).len();
    // Even root cannot create files in this directory.
    let ran = run(&["--drop", "/proc/self"]);
    ran.exits(7).warns("the copy could not be written").warns("copy the bundle there, its head volume last");
    assert!(names(&out).len() > before);
}

#[test]
fn a_file_with_the_name_of_an_incomplete_bundle_does_not_replace_it() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (old, _) = sender.export(&[]);
    sender.host.wait(2);
    let (new, date) = sender.export(VOLUMES);
    let head = new.keys().find(|name| name.ends_with(".tar.000")).unwrap().clone();
    let [with_head, rest] = split(&new, |name| name == head);
    let rest: BTreeMap<_, _> = rest.into_iter().filter(|(name, _)| !name.contains(".par.")).collect();
    host.put(&rest);
    host.watch(&[]);
    // An older valid bundle gets the name of the incomplete one.
    let poisoned = BTreeMap::from([(head.replace(".000", ""), old.into_values().next().unwrap())]);
    host.put(&poisoned);
    assert_eq!(host.watch(&[]).1["outcomes"][0]["outcome"], "processed");
    assert_eq!(host.inbox(), rest.keys().cloned().collect::<Vec<_>>(), "the volumes still wait");
    host.watch(&[]);
    host.put(&with_head);
    assert_eq!(host.watch(&[]).1["outcomes"][0]["outcome"], "processed");
    assert_eq!(host.date().unwrap()[..19], date[..19]);
    // A late volume of the imported bundle is removed.
    let [late, _] = split(&rest, |name| name.ends_with(".002"));
    host.put(&late);
    let (ran, report) = host.watch(&[]);
    ran.good();
    assert_eq!((host.inbox(), &report["waiting"]), (Vec::new(), &serde_json::json!([])));
}

#[test]
fn no_bundle_is_lost_because_of_a_wrong_clock() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let (good, date) = sender.export(&[]);
    let future =
        forge::Bundle::of(forge::hours(30), &forge::Part::all(forge::hours(29))).signed(&sender.host.key);
    host.file("inbox/future.tar", future);
    host.put(&good);
    let (ran, report) = host.watch(&[]);
    ran.exits(5).prints("more than 24 h after this host's clock");
    assert_eq!(report["waiting"][0]["bundle"], "future.tar");
    assert_eq!((host.inbox(), host.shelf("quarantine").len()), (vec!["future.tar".to_owned()], 0));
    assert_eq!(host.date().unwrap()[..19], date[..19], "the other bundle is installed");
    // The bundle does not wait forever, and is imported after the clock was corrected.
    host.watch(&["--allow-future"]).0.good();
    assert_eq!(host.shelf("processed").len(), 2);
}

#[test]
fn directories_are_skipped() {
    let mut sender = Sender::new();
    let host = receiver(&sender);
    let directories = ["x.tar", "x.heartbeat.json", "y.tar.001"];
    for directory in directories {
        fs::create_dir_all(host.path("inbox").join(directory).join("inside")).unwrap();
    }
    host.watch(&[]).0.good();
    let (files, date) = sender.export(&[]);
    host.put(&files);
    host.watch(&[]).0.good();
    assert_eq!(host.date().unwrap()[..19], date[..19]);
    assert_eq!(host.inbox(), ["x.heartbeat.json", "x.tar", "y.tar.001"]);
}
