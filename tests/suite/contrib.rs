//! Runs the recipes in `contrib` unchanged.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use test_kit::files::Fault;
use test_kit::host::names;
use test_kit::noise::Noise;
use test_kit::process::{Process, Run, wait_for};
use test_kit::registry::Registry;

use crate::forge::upstream::Upstream;
use crate::forge::{self, Bundle, Host, Part, days, hours};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/systemd");
const KUBERNETES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/kubernetes");

/// Returns the value of a setting in a unit, with its continuation lines.
fn setting(unit: &str, name: &str) -> String {
    let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap().replace("\\\n", " ");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the nightly command of the service for this host, with replacements for the specifiers
/// of systemd.
fn nightly(host: &Host, upstream: &Upstream) -> Command {
    let line = setting("trivy-ferry-export.service", "ExecStart");
    let line =
        line.replace("${CREDENTIALS_DIRECTORY}", &host.at("credentials")).replace("%S", &host.at("lib"));
    let mut words = line.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/trivy-ferry"));
    let mut command = host.command();
    command.args(words).env("TRIVY_FERRY_FORMAT", "json");
    beside(command, upstream)
}

/// Returns the arguments of the container in a manifest.
fn arguments(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(KUBERNETES).join(manifest)).unwrap();
    let after = text.lines().skip_while(|line| line.trim() != "args:").skip(1);
    after.map_while(|line| line.trim().strip_prefix("- ")).map(str::to_owned).collect()
}

/// Returns the command of the cron job's container for this host, with replacements for the mounts
/// of Kubernetes.
fn in_container(host: &Host, upstream: &Upstream) -> Command {
    let words = arguments("export.yaml");
    let word = |word: &str| {
        let word = word.replace("=/key/", &format!("={}/", host.at("credentials")));
        word.replace("=/data/", &format!("={}/", host.at("lib/trivy-ferry")))
    };
    let mut command = host.command();
    command.args(words.iter().map(|text| word(text)));
    beside(command, upstream)
}

/// Adds the environment of `export.env`, or of the container.
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
    let dice = std::sync::Mutex::new(Noise::new(7));
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
    let mut dice = Noise::new(8);
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
            // The importer accepts the bundle, and its data is the data of upstream.
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
    assert!(written > 8 && written < nights, "{written} of {nights} nights had new data");
}

#[test]
fn the_cron_job_exports_new_data() {
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
#[ignore = "tools"]
fn systemd_accepts_the_units() {
    let host = Host::new();
    let units = names(UNITS);
    assert!(units.len() >= 7, "{units:?}");
    for unit in &units {
        let text = fs::read_to_string(Path::new(UNITS).join(unit)).unwrap();
        // Replace the program and the user, which do not exist on this machine.
        let text = text.replace("/usr/local/bin/trivy-ferry", env!("CARGO_BIN_EXE_trivy-ferry"));
        host.file(
            unit,
            text.replace("User=trivy-ferry", "User=daemon")
                .replace("trivy-ferry-stick-mount@%i", "trivy-ferry-stick-mount@sdz1"),
        );
    }
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).current_dir(host.path("."));
        forge::run(command)
    };
    let units: Vec<String> = units.iter().map(|unit| format!("./{}", unit.replace("@.", "@sdz1."))).collect();
    let units: Vec<&str> = units.iter().map(String::as_str).collect();
    let ran = analyze(&[&["verify"], &units[..]].concat());
    ran.good();
    assert_eq!(ran.err, "", "{ran:#?}");
    // The limit is 20 of 100: the units need the network and their own directory.
    for service in units.iter().filter(|unit| unit.ends_with(".service") && !unit.contains("mount")) {
        analyze(&["security", "--offline=yes", "--threshold=20", service]).good();
    }
}

/// Returns a command of a unit of the importing side, for this host.
fn of_importer(host: &Host, unit: &str, name: &str) -> String {
    let line = setting(unit, name).trim_start_matches(['+', '-']).to_owned();
    let places = [
        ("/usr/local/bin/trivy-ferry", env!("CARGO_BIN_EXE_trivy-ferry").to_owned()),
        ("/srv/trivy-inbox", host.at("inbox")),
        ("/run/trivy-ferry-stick-%i", host.at("run")),
        ("/dev/%I", host.at("stick.img")),
        ("%C/trivy", host.at("cache")),
        ("%S/trivy-ferry", host.at("state")),
    ];
    places.iter().fold(line, |line, (from, to)| line.replace(from, to))
}

/// Runs a script as root in a private mount namespace, with the environment of the units.
fn as_systemd(host: &Host, script: &str) -> Run {
    let mut command = host.in_own_mounts(script);
    command.env("TRIVY_FERRY_TRUST", host.at("keys/exporter.pub"));
    forge::run(command)
}

#[test]
#[ignore = "tools"]
fn the_units_of_the_importing_side_import() {
    let of = |host: &Host, age| Bundle::of(hours(age), &Part::all(days(age))).signed(&host.key);
    let host = Host::new();
    host.file("inbox/b.tar", of(&host, -3));
    as_systemd(&host, &of_importer(&host, "trivy-ferry-inbox.service", "ExecStart")).good();
    assert_eq!(host.installed("cache", "db").unwrap(), days(-3).to_string());
    assert!(!host.path("inbox/b.tar").exists());
    // The commands of the unit mount and unmount a medium.
    fs::create_dir(host.path("run")).unwrap();
    host.file("content/b.tar", of(&host, -2));
    // Some kernels do not support FAT.
    let mount =
        |name| of_importer(&host, "trivy-ferry-stick-mount@.service", name).replace("vfat,exfat", "ext4");
    let import = of_importer(&host, "trivy-ferry-stick@.service", "ExecStart");
    let (before, after) = (mount("ExecStart"), mount("ExecStop"));
    let script = format!(
        "set -e; mkfs.ext4 -q -d content stick.img 32M; {before}; if touch run/stick/x 2>/dev/null; then exit 9; fi; {import}; {after}"
    );
    as_systemd(&host, &script).good();
    assert_eq!(host.installed("cache", "db").unwrap(), days(-2).to_string());
    assert_eq!(fs::read_dir(host.path("run/stick")).unwrap().count(), 0, "the medium is still mounted");
}

/// Kubernetes makes the directory of a ConfigMap writable for all users, and trivy-ferry trusts no key in it.
#[test]
fn the_trusted_key_of_a_pod_is_mounted_alone() {
    let mut with_key = 0;
    for manifest in names(KUBERNETES) {
        let text = fs::read_to_string(Path::new(KUBERNETES).join(&manifest)).unwrap();
        if text.contains("--trust=/trusted/ferry.pub") {
            with_key += 1;
            assert!(text.contains("mountPath: /trusted/ferry.pub\n"), "{manifest}");
            assert!(text.contains("subPath: ferry.pub\n"), "{manifest}");
        }
    }
    assert_eq!(with_key, 3);
}

/// The manifests of the air-gapped side run with the paths and the registry of this host.
#[test]
fn the_pods_of_the_air_gapped_side_import_and_serve() {
    for (manifest, more) in [("import.yaml", None), ("watch.yaml", Some("--once"))] {
        let host = Host::new();
        let registry = Registry::new(|_| None);
        let bundle = Bundle::of(days(-1), &Part::all(days(-1))).signed(&host.key);
        host.file("bundles/b.tar", &bundle);
        let place = format!("--registry={}/security", registry.host);
        let word = |word: String| match word.as_str() {
            "--trust=/trusted/ferry.pub" => format!("--trust={}", host.at("keys/exporter.pub")),
            "--registry=registry.corp.example/security" => place.clone(),
            "/bundles" | "/data/inbox" => host.at("bundles"),
            _ => word
                .replace("=/data/", &format!("={}/", host.at("")))
                .replace("=/state/", &format!("={}/", host.at(""))),
        };
        let mut command = host.command();
        command.args(arguments(manifest).into_iter().map(word)).args(more);
        command.env("TRIVY_FERRY_PLAIN_HTTP", "true").env("TRIVY_FERRY_SETTLE", "1ms");
        forge::run(command).good();
        assert_eq!(registry.tags().len(), 3, "{manifest}");
    }
    // The directory of the bundles does not exist here: the arguments are read, and nothing is served.
    let host = Host::new();
    let mut command = host.command();
    command.args(arguments("serve.yaml"));
    forge::run(command).exits(2).does_not_say("unexpected argument");
}

/// The first process of a container ignores signals without a handler.
#[test]
#[ignore = "tools"]
fn a_pod_that_watches_ends_at_once() {
    let host = Host::new();
    fs::create_dir_all(host.path("inbox")).unwrap();
    let words = [env!("CARGO_BIN_EXE_trivy-ferry"), "watch", "inbox", "--trust", "keys/exporter.pub"];
    let mut command = Command::new("unshare");
    command.current_dir(host.path(".")).args(["--user", "--map-root-user", "--pid", "--fork"]).args(words);
    command.args(["--cache-dir", "cache", "--state-dir", "state", "--data-home", "home"]);
    command.stderr(fs::File::create(host.path("log")).unwrap());
    let mut pod = Process::start(&mut command);
    let log = || fs::read_to_string(host.path("log")).unwrap();
    wait_for("the watch", || log().contains("Watching").then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", pod.id());
    let watch = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-TERM", watch.trim()]).status().unwrap().success());
    let status = wait_for("the end", || pod.child().try_wait().unwrap());
    assert_eq!(status.code(), Some(143), "{}", log());
}

#[test]
#[ignore = "tools"]
fn logs_are_rotated() {
    let host = Host::new();
    let import = |age| {
        let bundle = Bundle::of(hours(age), &Part::all(days(age))).signed(&host.key);
        host.import(&host.file("b.tar", bundle), &[]).good();
    };
    import(-3);
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/logrotate/trivy-ferry");
    let rules = fs::read_to_string(rules).unwrap();
    // A small log is rotated here, and by the user of the test.
    let rules = rules.replace("/var/lib/trivy-ferry", &host.at("state")).replace("size 64M", "size 1");
    let rules: Vec<&str> = rules.lines().filter(|line| !line.trim().starts_with("su ")).collect();
    host.file("rules", rules.join("\n") + "\n");
    let mut rotate = Command::new("logrotate");
    rotate.args(["--state", &host.at("rotated"), &host.at("rules")]);
    forge::run(rotate).good();
    assert!(!host.path("state/imports.jsonl").exists());
    import(-2);
    let logs: Vec<String> =
        names(host.path("state")).into_iter().filter(|name| name.starts_with("imports.jsonl")).collect();
    let [log, rotated] = &logs[..] else { panic!("{logs:?}") };
    assert!(rotated.ends_with(".gz"), "{logs:?}");
    let accepted = |text: &str| text.matches(r#""event":"accepted""#).count();
    assert_eq!(accepted(&fs::read_to_string(host.path("state").join(log)).unwrap()), 1);
    let mut unpack = Command::new("gzip");
    unpack.args(["--decompress", "--stdout", &host.at(format!("state/{rotated}"))]);
    assert_eq!(accepted(&forge::run(unpack).out), 1);
}

/// Returns a test for promtool, in which each of two hosts has all series. Without expected alerts, promtool reports each
/// alert that fires.
fn alert_test(rules: &str, series: &[(String, &str)], alerts: &[&str]) -> String {
    let on = |name: &str, host: &str| match name.strip_suffix('}') {
        Some(labeled) => format!(r#"{labeled}, instance="{host}", job="ferry"}}"#),
        None => format!(r#"{name}{{instance="{host}", job="ferry"}}"#),
    };
    let hosts = ["a", "b"].into_iter().flat_map(|host| series.iter().map(move |row| (host, row)));
    let series: Vec<String> = hosts
        .map(|(host, (name, values))| {
            format!("      - series: '{}'\n        values: '{values}'", on(name, host))
        })
        .collect();
    let cases: Vec<String> =
        alerts.iter().map(|alert| format!("      - eval_time: 30h\n        alertname: {alert}")).collect();
    format!(
        "rule_files:\n  - {rules}\nevaluation_interval: 10m\ntests:\n  - interval: 1m\n    input_series:\n{}\n    \
         alert_rule_test:\n{}\n",
        series.join("\n"),
        cases.join("\n")
    )
}

#[test]
#[ignore = "tools"]
fn each_alert_fires_on_its_condition() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus/trivy-ferry.rules.yml");
    let host = Host::new();
    let target = r#"stream="default", target="cache:/c""#;
    // Values for 33 h, one each minute: old data, a lost dataset, a failed target, and an announced bundle. There is no
    // `trivy_ferry_last_run_timestamp_seconds`.
    let series = [
        (
            format!(r#"trivy_ferry_dataset_updated_timestamp_seconds{{dataset="trivy-db-2", {target}}}"#),
            "-300000x2000",
        ),
        (format!(r#"trivy_ferry_dataset_in_place{{dataset="trivy-db-2", {target}}}"#), "0x2000"),
        ("trivy_ferry_last_success_timestamp_seconds".to_owned(), "-300000x2000"),
        (format!("trivy_ferry_target_failed{{{target}}}"), "1x2000"),
        (format!("trivy_ferry_bundle_missing_items{{{target}}}"), "2x2000"),
        (r#"trivy_ferry_heartbeat_export_failed{stream="default"}"#.to_owned(), "1x2000"),
        (r#"trivy_ferry_heartbeat_timestamp_seconds{stream="default"}"#.to_owned(), "-300000x2000"),
        (r#"trivy_ferry_bundle_announced_timestamp_seconds{stream="other"}"#.to_owned(), "2000x2000"),
        (
            r#"trivy_ferry_bundle_created_timestamp_seconds{stream="other", target="cache:/c"}"#.to_owned(),
            "1000x2000",
        ),
    ];
    let alerts = [
        "TrivyDataOld",
        "TrivyDataGone",
        "TrivyImportOld",
        "TrivyTargetFailed",
        "TrivyDatasetMissing",
        "TrivyExportFails",
        "TrivyBundleLost",
        "TrivyLinkSilent",
        "TrivyMetricsGone",
    ];
    let text = alert_test(rules, &series, &alerts);
    host.file("test.yml", &text);
    let promtool = |args: &[&str]| {
        let ran = Command::new("promtool").args(args).output().unwrap();
        (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let (good, said) = promtool(&["check", "rules", rules]);
    assert!(good && said.contains("9 rules found"), "{said}");
    let (_, said) = promtool(&["test", "rules", &host.at("test.yml")]);
    assert!(!said.contains("many-to-many"), "{said}");
    for alert in alerts {
        assert!(
            said.contains(&format!("alertname=\"{alert}\"")) || said.contains(&format!("alertname: {alert}")),
            "{alert}: {said}"
        );
    }
}
