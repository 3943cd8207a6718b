//! Targets that are no longer used are reported only for a limited time, and targets that never
//! worked are reported.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use test_kit::answers;
use test_kit::process::Run;
use test_kit::registry::Registry;

use crate::forge::{Bundle, Host, Part, hours};

const DAY: i64 = 24 * 60 * 60;
/// A registry at an address without a server.
const DEAD: &str = "127.0.0.1:1/p";

/// An importing host that gets a new bundle for each import.
struct Site {
    host: Host,
    bundles: u64,
}

impl Site {
    fn new() -> Self {
        Site { host: Host::new(), bundles: 0 }
    }

    /// Creates the next bundle in the inbox.
    fn comes(&mut self) {
        self.bundles += 1;
        let made = hours(-200 + self.bundles as i64);
        let bundle = Bundle::of(made, &Part::all(made)).with("sequence", self.bundles);
        self.host.file("inbox/b.tar", bundle.signed(&self.host.key));
    }

    /// Imports the bundle in the inbox.
    fn import(&self, more: &[&str]) -> Run {
        let args = ["import", "inbox", "--state-dir", "state", "--data-home", "home", "--plain-http"];
        self.host.run(&[&args[..], &["--trust", "keys/exporter.pub"], more].concat())
    }

    fn status(&self, more: &[&str]) -> Run {
        self.host.run(&[&["status", "--state-dir", "state"], more].concat())
    }

    fn json(&self, more: &[&str]) -> Value {
        self.status(&[&["--format", "json"], more].concat()).json()
    }

    fn forget(&self, more: &[&str]) -> Run {
        self.host.run(&[&["forget", "--state-dir", "state"], more].concat())
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.host.path("state/import-default.json")).unwrap()).unwrap()
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.host.path("state/imports.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn failures(&self) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["event"] == "failed").collect()
    }
}

/// An unreachable registry, a registry that rejects all requests, and a web root and a cache that
/// are not directories: a failure of each target is recorded.
#[test]
fn failures_of_a_target_that_never_worked_are_recorded() {
    let refusing = Registry::new(|_| Some(answers::status(401)));
    let failing = Registry::new(|seen| (seen.path.contains("db")).then(|| answers::status(500)));
    let (refusing, failing) = (format!("{}/p", refusing.host), format!("{}/p", failing.host));
    for to in [
        &["--registry", DEAD][..],
        &["--registry", &refusing],
        &["--registry", &failing],
        &["--web-root", "inbox/b.tar", "--web-url", "https://vex.example"],
        &["--cache-dir", "inbox/b.tar"],
        // The registry fails, and the cache works.
        &["--cache-dir", "cache", "--registry", DEAD],
    ] {
        let mut site = Site::new();
        site.comes();
        site.import(to).fails();
        site.status(&[]).exits(7).prints("FAILED").warns("every import has failed since");
        let status = site.json(&[]);
        let bad: Vec<&Value> = status["imports"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|target| !target["failed"].is_null())
            .collect();
        assert_eq!(bad.len(), 1, "{status:#}");
        let failures = site.failures();
        assert!(
            failures.iter().any(|line| line["target"] == bad[0]["target"] && !line["why"].is_null()),
            "{failures:#?}"
        );
        // A run that is repeated every minute does not fill the log.
        let count = failures.iter().filter(|line| line.get("bundle").is_none()).count();
        site.import(to).fails();
        site.host.wait(2 * 60 * 60);
        site.import(to).fails();
        let again = site.failures().iter().filter(|line| line.get("bundle").is_none()).count();
        assert!(again == count + 1 || again == count + 2, "{count} {again}");
        let metrics = site.host.path("ferry.prom");
        site.status(&["--metrics", metrics.to_str().unwrap()]);
        assert!(
            fs::read_to_string(metrics)
                .unwrap()
                .lines()
                .any(|line| line.starts_with("trivy_ferry_target_failed{") && line.ends_with(" 1"))
        );
    }
}

#[test]
fn a_watch_records_failures_too_and_a_success_clears_them() {
    let mut site = Site::new();
    site.comes();
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let registry = Registry::new(move |_| {
        is_down.load(std::sync::atomic::Ordering::Relaxed).then(|| answers::status(503))
    });
    let place = format!("{}/p", registry.host);
    let watch = || {
        let args =
            ["watch", "inbox", "--once", "--settle", "1ms", "--trust", "keys/exporter.pub", "--plain-http"];
        site.host.run(&[&args[..], &["--state-dir", "state", "--registry", &place]].concat())
    };
    watch().fails();
    site.status(&[]).exits(7).prints("FAILED").prints(&place);
    assert_eq!(site.failures()[0]["target"], format!("registry:{place}"));
    down.store(false, std::sync::atomic::Ordering::Relaxed);
    watch().good();
    site.status(&[]).good().does_not_say("FAILED");
}

#[test]
fn an_unused_target_is_retired() {
    let mut site = Site::new();
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    site.comes();
    site.import(&["--cache-dir", "cache", "--registry", &place]).good();
    fs::create_dir(site.host.path("www")).unwrap();
    // An import of another job into another target does not retire these targets.
    let web = ["--web-root", "www", "--web-url", "https://vex.example"];
    site.import(&web).good();
    // A target that is unused for a few days is not retired, and its problems are still errors.
    for _ in 0..3 {
        site.host.wait(DAY);
        site.status(&[]).good().does_not_say("retired");
        site.comes();
        site.import(&["--cache-dir", "cache"]).good();
    }
    drop(registry);
    let ask = ["--check-registries", "--plain-http", "--max-age", "trivy-db=400d"];
    site.status(&ask).good().prints("retired").prints(&format!("trivy-ferry forget registry:{place}"));
    let status = site.json(&[]);
    let retired: Vec<bool> = status["imports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["retired"].as_bool().unwrap())
        .collect();
    assert_eq!(retired, [false, true, false], "{status:#}");
    // The next import into the target uses it again.
    site.import(&["--cache-dir", "cache", "--registry", &place]).fails();
    site.status(&[]).exits(7).prints("FAILED");
}

/// `status` advises the user to import the last bundle again only into the cache with missing data.
#[test]
fn a_repair_of_one_target_retires_no_other() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "one", "--cache-dir", "two"]).good();
    site.host.wait(60 * 60);
    fs::remove_dir_all(site.host.path("one/db")).unwrap();
    site.import(&["--cache-dir", "one"]).good();
    site.status(&[]).good().does_not_say("retired");
    fs::remove_dir_all(site.host.path("two/db")).unwrap();
    site.status(&[]).exits(7).prints("MISSING");
    // Two newer bundles are imported by hand on one morning.
    for _ in 0..2 {
        site.host.wait(2 * 60 * 60);
        site.comes();
        site.import(&["--cache-dir", "one"]).good();
    }
    site.status(&[]).exits(7).prints("MISSING").does_not_say("retired");
    // A retired target is checked if the command names it.
    for _ in 0..3 {
        site.host.wait(DAY);
        site.comes();
        site.import(&["--cache-dir", "one"]).good();
    }
    site.status(&[]).good().prints("retired");
    site.status(&["--target", &site.host.at("two")]).exits(7).prints("MISSING");
}

#[test]
fn a_moved_cache_is_missing_until_another_cache_got_more_bundles() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "old"]).good();
    site.host.wait(DAY);
    site.comes();
    site.import(&["--cache-dir", "new"]).good();
    site.status(&[]).good();
    fs::remove_dir_all(site.host.path("old")).unwrap();
    // The cache may be lost, so this is an error.
    site.status(&[]).exits(7).prints("MISSING");
    site.host.wait(DAY + 60 * 60);
    site.comes();
    site.import(&["--cache-dir", "new"]).good();
    site.status(&[]).good().prints("retired");
    // If the command names a target, only this target is shown and checked.
    let new = site.host.at("new");
    site.status(&["--target", &new]).good().does_not_say("retired");
    let only = site.json(&["--target", &format!("cache:{new}")]);
    assert_eq!((only["imports"].as_array().unwrap().len(), &only["exports"]), (1, &serde_json::json!([])));
    site.status(&["--target", "nowhere"]).fails_with(2, &["nowhere", "Use one of these targets: cache:"]);
    fs::remove_dir_all(site.host.path("new")).unwrap();
    site.status(&["--target", &new]).exits(7).prints("MISSING");
}

/// A registry, a web root or a cache that another one has replaced looks the same as the target of
/// a failed job.
#[test]
fn unused_targets_are_reported_and_retired_by_time_or_by_hand() {
    for old in [
        &["--registry", DEAD][..],
        &["--cache-dir", "old"],
        &["--web-root", "www", "--web-url", "https://v.example"],
    ] {
        let mut site = Site::new();
        fs::create_dir(site.host.path("www")).unwrap();
        site.comes();
        let _ = site.import(old);
        for _ in 0..3 {
            site.host.wait(DAY);
            site.comes();
            site.import(&["--cache-dir", "new"]).good();
        }
        let name = site.json(&[])["imports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| target["target"].as_str().unwrap().to_owned())
            .find(|name| !name.ends_with("/new"))
            .unwrap();
        site.status(&["--max-age", "trivy-db=1h,vex-hub=1h"]).warns(&format!("trivy-ferry forget {name}"));
        let before = site.state()["targets"][&name].clone();
        let clone = site.host.path("state-before");
        fs::create_dir(&clone).unwrap();
        fs::set_permissions(&clone, PermissionsExt::from_mode(0o700)).unwrap();
        for file in ["import-default.json", "imports.jsonl"] {
            fs::copy(site.host.path("state").join(file), clone.join(file)).unwrap();
        }
        site.forget(&[&name, "--stream", "lab"]).fails_with(2, &["no target here is named"]);
        site.forget(&[&name]).exits(0).prints(&name);
        site.forget(&[&name]).fails_with(2, &["no target here is named", "Use one of these targets: cache:"]);
        site.status(&[]).good().does_not_say(&name);
        assert_eq!(site.log().last().unwrap()["event"], "forgotten");
        assert_eq!(site.log().last().unwrap()["target"], name);
        // The floors and the accepted bundles of the target are kept.
        let after = &site.state()["targets"][&name];
        assert_eq!(
            (&after["floors"], &after["last"], &after["seen"]),
            (&before["floors"], &before["last"], &before["seen"])
        );
        let _ = site.import(old);
        assert!(site.json(&[]).to_string().contains(&name));
        // Without the command, the target is retired after some time.
        fs::remove_dir_all(site.host.path("state")).unwrap();
        fs::rename(&clone, site.host.path("state")).unwrap();
        site.host.wait(12 * DAY);
        site.comes();
        site.import(&["--cache-dir", "new"]).good();
        site.status(&["--check-registries", "--plain-http"]).good().prints("retired");
    }
}

/// `status` reports an error if a target in use lacks the newest bundle, but not if a retired
/// target does.
#[test]
fn only_targets_in_use_must_have_the_newest_bundle() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "old", "--registry", DEAD]).fails();
    site.comes();
    site.import(&["--cache-dir", "new"]).good();
    let state = site.state();
    let last = state["targets"]
        .as_object()
        .unwrap()
        .iter()
        .find(|(name, _)| name.ends_with("/new"))
        .unwrap()
        .1["last"]
        .clone();
    // The state has a heartbeat of the exporter.
    let path = site.host.path("state/import-default.json");
    let mut with = state.clone();
    let now = hours(0).to_string();
    with["heard"] =
        serde_json::json!({ "created": now, "received": now, "export": "written", "newest": last });
    fs::write(&path, with.to_string()).unwrap();
    site.status(&["--max-silence", "1h"])
        .exits(7)
        .warns("was not imported into cache:")
        .prints("not here yet")
        .prints("not in cache:")
        // The failure of the registry is reported already.
        .does_not_say("not in registry:");
    site.forget(&["127.0.0.1:1/p"]).good();
    site.forget(&[&site.host.at("old")]).good();
    let run = site.status(&["--max-silence", "1h"]);
    run.good().does_not_say("not here yet");
    assert_eq!(site.json(&[])["heartbeats"][0]["not_in"], serde_json::json!([]));
    assert_eq!(site.json(&[])["heartbeats"][0]["here"], true);
    // Another target has the bundle, so it is not lost on the way.
    site.comes();
    site.import(&["--cache-dir", "late"]).good();
    let mut with: Value = site.state();
    let newest = with["targets"][format!("cache:{}", site.host.at("late"))]["last"].clone();
    with["heard"]["newest"] = newest;
    fs::write(&path, with.to_string()).unwrap();
    site.status(&["--target", "new/"]).prints("not here yet").prints("not in cache:");
    // If all targets of a stream are retired, no heartbeats are expected.
    site.forget(&["new/"]).good();
    site.forget(&["./late"]).good();
    site.status(&["--max-silence", "1h"]).fails_with(2, &["was retired with `trivy-ferry forget`"]);
    site.status(&["--target", "new/"]).fails_with(2, &["was retired with `trivy-ferry forget`"]);
    site.import(&["--cache-dir", "new"]).good();
    site.status(&["--target", "new/"]).exits(0);
}

/// The last heartbeat is older than the last bundle, or the target has failed since then.
#[test]
fn a_bundle_newer_than_the_last_heartbeat_counts_as_received_and_failures_are_reported_alone() {
    let mut site = Site::new();
    let path = site.host.path("state/import-default.json");
    let other = "sha256:".to_owned() + &"0".repeat(64);
    let hears = |site: &Site, created: String, identity: &str| {
        let mut with = site.state();
        let now = hours(0).to_string();
        with["heard"] = serde_json::json!({ "created": now, "received": now, "export": "written",
            "newest": { "identity": identity, "created": created, "sequence": 1 } });
        fs::write(&path, with.to_string()).unwrap();
    };
    let here = |site: &Site| site.json(&[])["heartbeats"][0]["here"].as_bool().unwrap();
    for _ in 0..3 {
        site.comes();
    }
    site.import(&["--cache-dir", "cache"]).good();
    for (age, is_here) in [(-300, true), (-198, true), (-197, true), (-196, false)] {
        hears(&site, hours(age).to_string(), &other);
        assert_eq!(here(&site), is_here, "{age}");
        let ran = site.status(&["--max-silence", "1h"]);
        match is_here {
            true => ran.good().does_not_say("not here yet"),
            false => ran.exits(5).prints("not here yet").warns("was not imported"),
        };
    }
    // First one of two targets fails, then both.
    site.import(&["--cache-dir", "cache", "--registry", DEAD]).fails();
    hears(&site, hours(-197).to_string(), &other);
    let ran = site.status(&["--max-silence", "1h"]);
    ran.exits(7).prints("FAILED").does_not_say("not here yet").does_not_say("was not imported");
    let heard = site.json(&[])["heartbeats"][0].clone();
    assert_eq!((&heard["here"], &heard["not_in"]), (&true.into(), &serde_json::json!([])), "{heard}");
    site.forget(&["cache/"]).good();
    site.status(&["--max-silence", "1h"]).exits(7).does_not_say("was not imported");
    assert!(!here(&site));
}

/// A bundle of another stream, because of a wrong medium or a missing `--stream`, creates no
/// target, neither for imports nor for `serve`.
#[test]
fn bundles_of_another_stream_create_no_target() {
    let lab = ["--stream", "lab"];
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    for to in [
        &["--cache-dir", "cache"][..],
        &["--cache-dir", "cache", "--cache-dir", "two"],
        &["--registry", &place],
        &["--web-root", "www", "--web-url", "https://vex.example"],
        &["--cache-dir", "cache", "--registry", &place],
    ] {
        let mut site = Site::new();
        fs::create_dir(site.host.path("www")).unwrap();
        site.comes();
        site.import(&[&lab, to].concat()).exits(5);
        site.status(&[]).exits(2).prints("refused").prints("only stream \"lab\" is accepted");
        site.import(to).exits(0);
        site.status(&[]).exits(0).does_not_say("stream lab");
        site.host.wait(60);
        site.import(&[&lab, to].concat()).exits(5);
        let heard = site.status(&["--max-silence", "1h"]);
        heard.warns("no heartbeat of stream \"default\"").does_not_say("no heartbeat of stream \"lab\"");
    }
    let mut site = Site::new();
    site.comes();
    let watch = ["watch", "inbox", "--once", "--settle", "1ms", "--cache-dir", "cache"];
    let trust = ["--state-dir", "state", "--trust", "keys/exporter.pub"];
    site.host.run(&[&watch[..], &lab, &trust].concat()).exits(5);
    site.status(&[]).exits(2).prints("only stream \"lab\" is accepted");
    site.comes();
    let serve = ["serve", "inbox/b.tar", "--listen", "127.0.0.1:0", "--state-dir", "state"];
    site.host.run(&[&serve[..], &lab, &["--trust", "keys/exporter.pub"]].concat()).exits(5);
    site.status(&[]).exits(2).warns("nothing was imported or exported here");
    // The failure and the retirement of a target stay recorded.
    site.import(&["--cache-dir", "cache", "--registry", DEAD]).fails();
    site.forget(&["cache/"]).good();
    let before = site.state();
    let other = Bundle::of(hours(-1), &Part::all(hours(-1))).with("stream", "lab");
    site.host.file("inbox/b.tar", other.signed(&site.host.key));
    site.import(&["--cache-dir", "cache"]).exits(5);
    assert_eq!(site.state(), before);
}

/// The state is in the form of earlier versions.
#[test]
fn a_target_of_a_stream_without_bundles_is_named_with_the_command_that_retires_it() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "cache"]).good();
    let cache = format!("cache:{}", site.host.at("cache"));
    let path = site.host.file(
        "state/import-lab.json",
        serde_json::json!({ "format": 1, "stream": "lab", "targets": {
            &cache: { "used": hours(-1).to_string(), "beside": [] } } })
        .to_string(),
    );
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let forget = format!("trivy-ferry forget {cache} --stream lab");
    site.status(&[]).exits(7).warns("nothing of stream \"lab\" was imported into it yet").warns(&forget);
    site.status(&["--max-silence", "1h"])
        .exits(7)
        .warns("if nothing sends this stream anymore")
        .warns("trivy-ferry forget TARGET --stream lab");
    let words: Vec<&str> = forget.split(' ').skip(1).collect();
    site.host.run(&[&words[..], &["--state-dir", "state"]].concat()).good();
    site.status(&[]).good();
}

/// The exporter has a new key, a bundle has expired, or the exporter's clock is ahead: the last
/// bundle is in quarantine, and the diode works.
#[test]
fn the_hint_points_to_the_last_rejected_bundle() {
    let pointer = "the last bundle or heartbeat was not accepted";
    let stranger = trivy_ferry::trust::key::SigningKey::generate().unwrap();
    let late = || Bundle::of(hours(-1), &Part::all(hours(-1)));
    for unacceptable in [
        late().signed(&stranger),
        late().with("expires", hours(0).to_string()).signed(&stranger),
        late().with("stream", "lab").signed(&stranger),
    ] {
        let mut site = Site::new();
        site.comes();
        site.import(&["--cache-dir", "cache"]).good();
        let limits = ["--max-age", "trivy-db=1d", "--max-silence", "1h"];
        let ran = site.status(&limits);
        ran.exits(5).does_not_say(pointer).warns("Bring a newer bundle").warns("Check that the diode");
        site.host.wait(60);
        site.host.file("inbox/c.tar", &unacceptable);
        fs::remove_file(site.host.path("inbox/b.tar")).unwrap();
        site.import(&["--cache-dir", "cache"]).fails();
        for more in [&[][..], &["--target", "cache/"]] {
            let ran = site.status(&[&limits[..], more].concat());
            ran.exits(5).does_not_say("Bring a newer bundle").does_not_say("Check that the diode");
            assert_eq!(ran.err.matches(pointer).count(), 2, "{ran}");
        }
        // Another bundle was accepted since then.
        site.host.wait(60);
        fs::remove_file(site.host.path("inbox/c.tar")).unwrap();
        site.comes();
        site.import(&["--cache-dir", "cache"]).good();
        let ran = site.status(&limits);
        ran.exits(5).warns("Bring a newer bundle").does_not_say(pointer);
    }
    // The installed data has expired, and a bundle is announced.
    let mut site = Site::new();
    let expires = (hours(0) + jiff::SignedDuration::from_mins(30)).to_string();
    let bundle = Bundle::of(hours(-2), &Part::all(hours(-2))).with("expires", expires);
    site.host.file("inbox/b.tar", bundle.signed(&site.host.key));
    site.import(&["--cache-dir", "cache"]).good();
    let mut with = site.state();
    let (now, identity) = (hours(0).to_string(), "sha256:".to_owned() + &"0".repeat(64));
    with["heard"] = serde_json::json!({ "created": now, "received": now, "export": "written",
        "newest": { "identity": identity, "created": hours(-1).to_string(), "sequence": 9 } });
    fs::write(site.host.path("state/import-default.json"), with.to_string()).unwrap();
    site.host.wait(60 * 60);
    site.host.file("inbox/b.tar", late().signed(&stranger));
    site.import(&["--cache-dir", "cache"]).fails();
    let ran = site.status(&["--max-silence", "90m"]);
    ran.exits(5).warns("was not imported").warns("expired").does_not_say("Bring a newer");
    assert!(ran.err.matches(pointer).count() > 1, "{ran}");
    site.bundles += 1;
}

/// The state was lost, or the cache was filled by another tool: the data in it is in use, so it is
/// checked.
#[test]
fn a_database_that_is_not_from_a_bundle_is_checked_by_its_own_date() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "cache"]).good();
    // The databases exist and are newer than the new bundle, but the state does not record them.
    fs::remove_dir_all(site.host.path("state")).unwrap();
    let made = hours(-400);
    let key = &site.host.key;
    let older = Bundle::of(made, &Part::all(made));
    site.host.file("inbox/b.tar", older.signed(key));
    site.import(&["--cache-dir", "cache", "--metrics", "ferry.prom"]);
    let metrics = fs::read_to_string(site.host.path("ferry.prom")).unwrap();
    for dataset in ["trivy-db-2", "trivy-java-db-1"] {
        assert!(metrics.contains(&format!("dataset=\"{dataset}\"")), "{metrics}");
    }
    site.status(&["--max-age", "trivy-db=400d,trivy-java-db=400d"])
        .exits(0)
        .prints("not from a bundle that was accepted here");
    for age in ["1d", "trivy-db=1d", "trivy-java-db=1d"] {
        site.status(&["--max-age", age]).exits(5).warns("and --max-age allows 1 d");
    }
    let row = site.json(&[])["imports"][0]["datasets"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "trivy-db-2")
        .unwrap()
        .clone();
    assert_eq!((&row["state"], &row["in_use"]), (&"not-accepted".into(), &row["accepted"]), "{row}");
    fs::remove_dir_all(site.host.path("cache/db")).unwrap();
    // A cache may be used only for checks. If the command names a dataset, it is required.
    site.status(&["--max-age", "400d"]).exits(0);
    let named = site.status(&["--max-age", "trivy-db=400d"]);
    named.exits(5).warns("trivy-db is missing, and --max-age requires it");
    fs::remove_dir_all(site.host.path("cache/java-db")).unwrap();
    site.status(&["--max-age", "trivy-java-db=400d"]).exits(5).warns("trivy-java-db is missing");
}

/// Datasets that were never imported: a database of a cache or a registry, and a VEX repository.
#[test]
fn a_dataset_of_max_age_that_a_target_lacks_is_an_error() {
    let mut site = Site::new();
    site.comes();
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    site.import(&["--cache-dir", "cache", "--registry", &place, "--skip", "trivy-java-db,vex-hub"]).exits(0);
    site.status(&["--max-age", "400d"]).good();
    let ran = site.status(&["--max-age", "trivy-java-db=400d"]);
    ran.exits(5).warns("cache:").warns(&format!("registry:{place}: trivy-java-db is missing"));
    site.status(&["--max-age", "trivy-db=400d,vex-hub=400d"]).exits(5).warns("vex-hub is missing");
    // A web root cannot have databases.
    fs::create_dir(site.host.path("www")).unwrap();
    let web = ["--web-root", "www", "--web-url", "https://vex.example"];
    site.import(&web).good();
    site.status(&["--max-age", "trivy-db=400d,vex-hub=400d"]).good();
}

#[test]
fn floors_that_were_reset_are_named_as_such() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "cache"]).good();
    // The state is as after `trust remove --reset-floors`.
    let path = site.host.path("state/import-default.json");
    let mut state = site.state();
    for target in state["targets"].as_object_mut().unwrap().values_mut() {
        *target = serde_json::json!({ "used": target["used"], "floors_reset": hours(0).to_string() });
    }
    fs::write(path, state.to_string()).unwrap();
    let ran = site.status(&[]);
    ran.exits(7).prints("floors reset").warns("its floors were reset on").warns("Import a bundle");
    ran.does_not_say("nothing was imported").does_not_say("--state-dir");
    assert!(!site.json(&[])["imports"][0]["floors_reset"].is_null());
    site.comes();
    site.import(&["--cache-dir", "cache"]).exits(0);
    site.status(&[]).good().does_not_say("floors reset");
}

#[test]
fn a_rejected_heartbeat_is_reported_until_another_is_received() {
    let mut site = Site::new();
    site.comes();
    site.import(&["--cache-dir", "cache"]).good();
    let log = site.host.path("state/imports.jsonl");
    let mut line = site.log().last().unwrap().clone();
    let name = "default-20261120T000000Z.heartbeat.json";
    line["event"] = "refused".into();
    line["at"] = hours(-2).to_string().into();
    line["bundle"] = name.into();
    line["why"] = "its date is in the future".into();
    line.as_object_mut().unwrap().remove("identity");
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str(&format!("{line}\n"));
    fs::write(&log, text).unwrap();
    let hear = |received: String| {
        let mut state = site.state();
        state["heard"] =
            serde_json::json!({ "created": received, "received": received, "export": "unchanged" });
        fs::write(site.host.path("state/import-default.json"), state.to_string()).unwrap();
    };
    site.status(&[]).prints("its date is in the future");
    hear(hours(-3).to_string());
    site.status(&[]).prints("its date is in the future");
    hear(hours(-1).to_string());
    site.status(&[]).good().does_not_say("its date is in the future");
}

#[test]
fn status_needs_no_account_that_may_push() {
    let mut site = Site::new();
    site.comes();
    let is_closed = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(0));
    let answers = is_closed.clone();
    let registry = Registry::new(move |_| {
        let status = answers.load(std::sync::atomic::Ordering::Relaxed);
        (status != 0).then(|| answers::status(status))
    });
    let place = format!("{}/p", registry.host);
    site.import(&["--registry", &place]).good();
    for status in [401, 403] {
        is_closed.store(status, std::sync::atomic::Ordering::Relaxed);
        let ran = site.status(&["--check-registries", "--plain-http"]);
        ran.fails().does_not_say("push");
        ran.warns("docker login");
    }
}
