//! The scanner settings and the real Trivy: Trivy must accept every line, variable and key.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trivy_ferry::dataset::catalogue::{TrivyVersion, VEX_HUB};
use trivy_ferry::dataset::{Name, RelPath, Sink};
use trivy_ferry::digest::Digest;
use trivy_ferry::progress::Silent;
use trivy_ferry::scanner::settings::{InstalledData, Scanner, Settings, settings};
use trivy_ferry::scanner::vex_config::{Origin, VexConfig, WantedEntries};
use trivy_ferry::scanner::vex_entry::CarriedRepository;
use trivy_ferry::targets::{Cache, CacheOptions, Layout, Metadata};

fn trivy() -> PathBuf {
    PathBuf::from(test_kit::tools()).join("trivy")
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn all(cache: &Path) -> Settings {
    let in_place = InstalledData { db: true, java_db: true, checks: true, vex: true };
    let scanner = Scanner { read_only_cache: true, data_home: None };
    settings(cache, TrivyVersion::newest(), in_place, &scanner)
}

/// Returns the effective settings of Trivy in a directory: `--generate-default-config` writes the
/// settings that it has read.
fn effective(trivy: &Path, dir: &Path, environment: &[(String, String)]) -> Vec<(String, String)> {
    let environment = environment.iter().map(|(name, value)| (name, value));
    run(Command::new(trivy).args(["image", "--generate-default-config"]).current_dir(dir).envs(environment));
    let text = std::fs::read_to_string(dir.join("trivy-default.yaml")).unwrap();
    let mut keys: Vec<(usize, String)> = Vec::new();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        let path =
            |keys: &[(usize, String)]| keys.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
        if let Some(item) = line.strip_prefix("- ") {
            found.push((path(&keys), item.to_owned()));
        } else if let Some((key, value)) = line.split_once(':') {
            keys.retain(|(depth, _)| *depth < indent);
            keys.push((indent, key.to_owned()));
            found.push((path(&keys), value.trim().trim_matches('"').to_owned()));
        }
    }
    found
}

const WANTED: [(&str, &str); 9] = [
    ("cache.backend", "memory"),
    ("db.skip-update", "true"),
    ("db.java-skip-update", "true"),
    ("rego.skip-check-update", "true"),
    ("scan.offline", "true"),
    ("scan.skip-version-check", "true"),
    ("scan.disable-telemetry", "true"),
    ("vulnerability.vex", "repo"),
    ("vulnerability.skip-vex-repo-update", "true"),
];

fn assert_accepted(effective: &[(String, String)], cache: &Path) {
    let cache = cache.display().to_string();
    for (key, value) in WANTED.into_iter().chain([("cache.dir", cache.as_str())]) {
        assert!(effective.iter().any(|(k, v)| k == key && v == value), "{key}: {value} in {effective:#?}");
    }
}

#[test]
#[ignore = "tools"]
fn every_line_is_accepted_by_its_subcommand() {
    let trivy = trivy();
    let dir = tempfile::tempdir().unwrap();
    let lines = all(&dir.path().join("cache")).lines;
    assert_eq!(lines.len(), 10);
    for line in lines {
        // Trivy rejects an unknown flag even with `--help`.
        run(Command::new(&trivy).args(line.subcommand.split(' ')).args(&line.flags).arg("--help"));
    }
    let wrong = Command::new(&trivy).args(["config", "--skip-db-update", "--help"]).output().unwrap();
    assert!(!wrong.status.success(), "this test would not notice an unknown flag");
}

#[test]
#[ignore = "tools"]
fn the_environment_and_the_configuration_are_read() {
    let trivy = trivy();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let settings = all(&cache);
    let env = dir.path().join("settings.env");
    settings.write_env(&env).unwrap();
    let text = std::fs::read_to_string(&env).unwrap();
    let variables: Vec<(String, String)> = text
        .lines()
        .map(|line| line.split_once('=').map(|(name, value)| (name.into(), value.into())).unwrap())
        .collect();
    assert_accepted(&effective(&trivy, dir.path(), &variables), &cache);

    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    settings.write_config(&other, false).unwrap();
    assert_accepted(&effective(&trivy, &other, &[]), &cache);
}

#[test]
#[ignore = "tools"]
fn trivy_reads_the_vex_configuration_that_was_merged() {
    let trivy = trivy();
    let dir = tempfile::tempdir().unwrap();
    let list = |home: &Path| {
        let output = run(Command::new(&trivy).args(["vex", "repo", "list"]).env("XDG_DATA_HOME", home));
        String::from_utf8(output.stdout).unwrap()
    };
    // Trivy writes this file, and trivy-ferry adds one entry.
    run(Command::new(&trivy).args(["vex", "repo", "init"]).env("XDG_DATA_HOME", dir.path()));
    let corp =
        CarriedRepository { name: "corp".into(), url: "https://vex.corp.example/a".into(), origin: None };
    let hub = CarriedRepository { name: "default".into(), url: VEX_HUB.into(), origin: None };
    let config = VexConfig::read_at(Some(dir.path().into())).unwrap();
    assert_eq!(config.name_for(&hub), "default");
    config.merge(&[hub.clone(), corp], None, &|_| true).unwrap();
    let listed = list(dir.path());
    for wanted in ["Name: default", "Name: corp", "URL: https://vex.corp.example/a", "Status: Enabled"] {
        assert!(listed.contains(wanted), "{listed}");
    }
    // If the file does not exist, the new file has exactly the bytes that Trivy would write.
    let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
    run(Command::new(&trivy).args(["vex", "repo", "init"]).env("XDG_DATA_HOME", &theirs));
    VexConfig::read_at(Some(ours.clone())).unwrap().merge(&[hub], None, &|_| true).unwrap();
    let text = |home: &Path| std::fs::read_to_string(home.join(".trivy/vex/repository.yaml")).unwrap();
    assert_eq!(text(&ours), text(&theirs));
}

/// Texts that have another meaning in YAML if they are not quoted, or that end a scalar early.
const HOSTILE: [&str; 58] = [
    "",
    " ",
    "~",
    "null",
    "yes",
    "y",
    "1e3",
    "0x1f",
    "2026-01-01",
    ".inf",
    "-",
    "- a",
    "? a",
    "a: b",
    "a #b",
    "&a",
    "*a",
    "!!bool true",
    "%a",
    "@a",
    "`a`",
    "{}",
    "[]",
    "|",
    ">",
    "<<",
    "'",
    "\"",
    "\\",
    "a\\",
    "\\\"",
    "a:",
    ":a",
    "=",
    "--- a",
    "...",
    "\t",
    "a\nb",
    "a\r\nb",
    "\u{0}",
    "\u{7}",
    "\u{1b}[2J",
    "\u{7f}",
    "\u{85}",
    "\u{9b}",
    "\u{a0}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{feff}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{1f600}",
    "\u{10ffff}",
    "a\n    enabled: false",
    "a\n  - name: b\n    url: c",
    "https://a.example/?b=c#d",
    "https://a.example/'\"",
];

/// Returns hostile texts, and strings of characters with a special meaning in YAML. The generator
/// always returns the same texts.
fn hostile_texts() -> Vec<String> {
    let alphabet: Vec<char> =
        "aZ09 :#-?,[]{}&*!|>'\"%@`~=\\/\t\n\r\u{0}\u{1}\u{7f}\u{85}\u{a0}\u{2028}\u{feff}\u{ffff}\u{1f600}"
            .chars()
            .collect();
    let mut texts: Vec<String> = HOSTILE.map(str::to_owned).into();
    let mut state = 14_u64;
    for length in (0..200).map(|number| number % 12 + 1) {
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            alphabet[(state >> 33) as usize % alphabet.len()]
        };
        texts.push((0..length).map(next).collect());
    }
    texts
}

#[test]
#[ignore = "tools"]
fn trivy_reads_hostile_names_and_addresses_unchanged() {
    let trivy = trivy();
    let keys = vec!["ab".repeat(32)];
    let origin = Some(Origin { stream: "default".into(), bundle: Digest::of(b"x"), keys });
    for (batch, texts) in hostile_texts().chunks(25).enumerate() {
        let dir = tempfile::tempdir().unwrap();
        run(Command::new(&trivy).args(["vex", "repo", "init"]).env("XDG_DATA_HOME", dir.path()));
        let mut carried = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let name = format!("n{batch}-{index}");
            carried.push(CarriedRepository { name: name.clone(), url: text.clone(), origin: origin.clone() });
            // Trivy accepts a name only if it is a path below its own directory.
            if !text.is_empty() && !text.contains('/') {
                let url = format!("https://{name}.example/{text}");
                carried.push(CarriedRepository { name: text.clone(), url, origin: origin.clone() });
            }
        }
        let config = || VexConfig::read_at(Some(dir.path().into())).unwrap();
        let file = || std::fs::read_to_string(dir.path().join(".trivy/vex/repository.yaml")).unwrap();
        let before = file();
        let merged = config().merge(&carried, None, &|_| true).unwrap();
        assert!(merged.written.is_some(), "{texts:?}: {merged:?}");
        let output = run(Command::new(&trivy).args(["vex", "repo", "list"]).env("XDG_DATA_HOME", dir.path()));
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        for CarriedRepository { name, url, .. } in &carried {
            let wanted = format!("- Name: {name}\n  URL: {url}\n  Status: Enabled\n");
            assert!(listed.contains(&wanted), "{listed:?} lacks {wanted:?} of {}", file());
        }
        let wanted = WantedEntries { stream: "default", listed: &[], missing: &[], trusts: &|_| false };
        config().merge(&[], Some(&wanted), &|_| true).unwrap();
        assert_eq!(file(), before, "{texts:?}");
    }
}

/// An empty list, after the removal of the last entry of trivy-ferry, must not stop Trivy.
#[test]
#[ignore = "tools"]
fn trivy_reads_a_list_without_entries() {
    let trivy = trivy();
    let dir = tempfile::tempdir().unwrap();
    let config = || VexConfig::read_at(Some(dir.path().into())).unwrap();
    let origin = Origin { stream: "default".into(), bundle: Digest::of(b"x"), keys: vec!["ab".repeat(32)] };
    let corp =
        CarriedRepository { name: "corp".into(), url: "https://vex.example/".into(), origin: Some(origin) };
    config().merge(&[corp], None, &|_| true).unwrap();
    let wanted = WantedEntries { stream: "default", listed: &[], missing: &[], trusts: &|_| false };
    config().merge(&[], Some(&wanted), &|_| true).unwrap();
    let file = std::fs::read_to_string(dir.path().join(".trivy/vex/repository.yaml")).unwrap();
    assert_eq!(file, "repositories:\n");
    let list = |command_name: &str| {
        run(Command::new(&trivy).args(["vex", "repo", command_name]).env("XDG_DATA_HOME", dir.path()))
    };
    list("list");
    list("download");
}

#[test]
#[ignore = "tools"]
fn trivy_reads_the_metadata_that_was_written() {
    let trivy = trivy();
    let dir = tempfile::tempdir().unwrap();
    let options =
        CacheOptions { dir: dir.path().into(), layout: Layout::Trivy, owner: None, keep_previous: true };
    let mut cache = Cache::open(options, &Silent).unwrap();
    let at = "2026-11-21T09:00:00.123456789Z".parse().unwrap();
    let upstream = r#"{"Version":2,"NextUpdate":"2026-11-22T06:12:30Z","UpdatedAt":"2026-11-21T06:12:30Z"}"#;
    let mut stages = Vec::new();
    for (dataset, metadata, files) in [
        (
            "trivy-db",
            Metadata::Database { downloaded_at: at },
            vec![("trivy.db", "x"), ("metadata.json", upstream)],
        ),
        (
            "trivy-java-db",
            Metadata::Database { downloaded_at: at },
            vec![("trivy-java.db", "x"), ("metadata.json", upstream)],
        ),
        (
            "trivy-checks",
            Metadata::Checks {
                manifest_digest: Digest::of(b"m"),
                major: 2,
                version: None,
                downloaded_at: at,
            },
            vec![("policies/x.rego", "x")],
        ),
    ] {
        let name: Name = dataset.parse().unwrap();
        let mut stage = cache.stage(&cache.slot(&name, "").unwrap(), metadata).unwrap();
        for (path, text) in files {
            stage.begin(&path.parse::<RelPath>().unwrap(), text.len() as u64).unwrap();
            stage.data(text.as_bytes()).unwrap();
            stage.end().unwrap();
        }
        stages.push(stage);
    }
    cache.activate(stages).unwrap();
    let output =
        run(Command::new(trivy).args(["version", "--format", "json", "--cache-dir"]).arg(dir.path()));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for database in ["VulnerabilityDB", "JavaDB"] {
        assert_eq!(seen[database]["Version"], 2, "{seen}");
        assert_eq!(seen[database]["UpdatedAt"], "2026-11-21T06:12:30Z");
        assert_eq!(seen[database]["DownloadedAt"], "2026-11-21T09:00:00.123456789Z");
    }
    assert_eq!(seen["CheckBundle"]["Digest"], Digest::of(b"m").to_string());
}
