//! The recipes in contrib/, run as they stand there.
#![allow(missing_docs, clippy::unwrap_used)]

mod forge;

use std::fs;
use std::path::Path;
use std::process::Command;

use forge::Host;
use forge::upstream::{Dice, Fault, Upstream};
use serde_json::Value;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/systemd");
const CRON_JOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/kubernetes/export.yaml");

/// The value of a setting in a unit, with its continuation lines.
fn setting(unit: &str, name: &str) -> String {
    let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap().replace("\\\n", " ");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The nightly command of the service, with what systemd puts in its place, for this host.
fn nightly(host: &Host, upstream: &Upstream) -> Command {
    let line = setting("trivy-ferry-export.service", "ExecStart");
    let line =
        line.replace("${CREDENTIALS_DIRECTORY}", &host.arg("credentials")).replace("%S", &host.arg("lib"));
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/trivy-ferry"));
    let mut command = host.command();
    command.args(words).env("TRIVY_FERRY_FORMAT", "json");
    beside(command, upstream)
}

/// The command of the cron job's container, with what Kubernetes mounts in its place, for this host.
fn in_container(host: &Host, upstream: &Upstream) -> Command {
    let text = fs::read_to_string(CRON_JOB).unwrap();
    let after = text.lines().skip_while(|line| line.trim() != "args:").skip(1);
    let words = after.map_while(|line| line.trim().strip_prefix("- "));
    let word = |word: &str| {
        let word = word.replace("=/key/", &format!("={}/", host.arg("credentials")));
        word.replace("=/data/", &format!("={}/", host.arg("lib/trivy-ferry")))
    };
    let mut command = host.command();
    command.args(words.map(word));
    beside(command, upstream)
}

/// What stands in export.env, or in the container's env.
fn beside(mut command: Command, upstream: &Upstream) -> Command {
    command.env("TRIVY_FERRY_RETRIES", "4");
    for flag in upstream.flags() {
        let (name, value) = flag.split_once('=').unwrap_or((&flag, "true"));
        command.env(name.replace("--", "TRIVY_FERRY_").replace('-', "_").to_uppercase(), value);
    }
    command
}

#[test]
fn the_nightly_export_runs_for_weeks_while_upstream_changes() {
    let dice = std::sync::Mutex::new(Dice::new(7));
    let upstream = Upstream::new(move |_, _| {
        let mut dice = dice.lock().unwrap();
        match dice.below(12) {
            0 => Some(Fault::Cut(dice.below(100_000) as usize)),
            1 => Some(Fault::Status(503, Some(("retry-after", "0".into())))),
            _ => None,
        }
    });
    let host = Host::new();
    host.file("credentials/ferry.key", host.key.to_pem(None).unwrap().as_bytes());
    fs::create_dir_all(host.path("lib/trivy-ferry/bundles")).unwrap();
    let mut dice = Dice::new(8);
    let (mut generation, mut changed) = (0, true);
    let (mut written, mut nights) = (0, 0);
    upstream.publish(generation, 100_000);
    while nights < 24 {
        nights += 1;
        let ran = forge::run(nightly(&host, &upstream));
        ran.good();
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(report["unchanged"], !changed, "night {nights}: {report:#}");
        if changed {
            written += 1;
            // It crosses, and what is scanned with is what upstream had.
            let bundle = host.path(report["bundle"]["path"].as_str().unwrap());
            host.import(&bundle, &[]).good();
            let date = host.installed("cache", "db").unwrap();
            assert_eq!(report["datasets"][0]["updated_at"], date, "night {nights}");
        }
        let bundles = fs::read_dir(host.path("lib/trivy-ferry/bundles")).unwrap().count();
        assert_eq!(bundles, written.min(4), "night {nights}");
        changed = dice.below(3) > 0;
        if changed {
            generation += 1;
            upstream.publish(generation, 100_000);
        }
    }
    assert!(written > 8 && written < nights, "{written} of {nights} nights had news");
}

#[test]
fn the_cron_job_exports_what_is_new() {
    let upstream = Upstream::new(|_, _| None);
    let host = Host::new();
    host.file("credentials/ferry.key", host.key.to_pem(None).unwrap().as_bytes());
    fs::create_dir_all(host.path("lib/trivy-ferry/bundles")).unwrap();
    for (night, generation) in [0, 0, 1].into_iter().enumerate() {
        upstream.publish(generation, 1000);
        let ran = forge::run(in_container(&host, &upstream));
        ran.good();
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(report["unchanged"], night == 1, "{report:#}");
        assert!(ran.err.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{ran:#?}");
    }
    let bundles = host.path("lib/trivy-ferry/bundles");
    assert_eq!(fs::read_dir(&bundles).unwrap().count(), 2);
    host.import(&bundles, &[]).good();
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if std::env::var_os("TRIVY_FERRY_E2E").is_none_or(|value| value != "1") {
        println!("skipped: set TRIVY_FERRY_E2E=1, as tests/run does");
        return;
    }
    let host = Host::new();
    for unit in ["trivy-ferry-export.service", "trivy-ferry-export.timer", "trivy-ferry-watch.service"] {
        let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap();
        // What is not there on this machine: the program in its place, and its user.
        let text = text.replace("/usr/local/bin/trivy-ferry", env!("CARGO_BIN_EXE_trivy-ferry"));
        host.file(unit, text.replace("User=trivy-ferry", "User=daemon"));
    }
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).current_dir(host.path("."));
        forge::run(command)
    };
    let units = ["./trivy-ferry-export.service", "./trivy-ferry-export.timer", "./trivy-ferry-watch.service"];
    let ran = analyze(&[&["verify"], &units[..]].concat());
    ran.good();
    assert_eq!(ran.err, "", "{ran:#?}");
    // 20 of 100: what is left is the network and its own folder.
    for service in [units[0], units[2]] {
        analyze(&["security", "--offline=yes", "--threshold=20", service]).good();
    }
}
