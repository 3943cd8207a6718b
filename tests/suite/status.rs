//! `status` and the metrics: they report stale data, so that no user scans with it unknowingly.

use std::fs;

use test_kit::http::Method;
use test_kit::process::Run;
use test_kit::registry::Registry;
use trivy_ferry::digest::Digest;
use trivy_ferry::oci::INDEX;

use crate::forge::{self, Bundle, Host, Part, days, hours};

fn host_with(bundle: &Bundle) -> Host {
    let host = Host::new();
    host.file("inbox/b.tar", bundle.signed(&host.key));
    host
}

impl Host {
    fn status(&self, more: &[&str]) -> Run {
        self.run(&[&["status", "--state-dir", "state"], more].concat())
    }

    fn import_inbox(&self, more: &[&str]) -> Run {
        self.import(&self.path("inbox"), more)
    }
}

#[test]
fn status_shows_the_age_of_all_data_and_missing_data() {
    let host = host_with(&Bundle::of(hours(-2), &Part::all(days(-2))).with("sequence", 7));
    host.status(&[]).fails_with(2, &["nothing was imported or exported here"]);
    host.import_inbox(&[]).good();
    let ran = host.status(&[]);
    ran.good();
    for words in ["stream default", "number 7", "trivy-db-2", "2 d old", "trivy-java-db-1"] {
        assert!(ran.out.contains(words), "{words}: {ran:#?}");
    }
    host.status(&["--max-age", "3d"]).good();
    host.status(&["--max-age", "1d"]).exits(5).prints("trivy-db");
    host.status(&["--max-age", "trivy-db=3d,trivy-java-db=1d"]).exits(5).prints("trivy-java-db");
    // Some bundles never arrived.
    host.file(
        "inbox/b.tar",
        Bundle::of(hours(-1), &Part::all(days(-1))).with("sequence", 10).signed(&host.key),
    );
    host.import_inbox(&[]).good();
    host.status(&[]).exits(0).prints("never received   2 bundles: 8-9");
    // Bundles that were lost long ago do not describe the current state of the link.
    host.file(
        "inbox/b.tar",
        Bundle::of(hours(-1) + jiff::SignedDuration::from_mins(10), &Part::all(days(-1)))
            .with("sequence", 109)
            .signed(&host.key),
    );
    host.import_inbox(&[]).good();
    host.status(&[]).prints("never received   98 bundles: 11-108\n");
    // The database is removed, and later replaced.
    let before = host.snapshot();
    fs::rename(host.path("cache/db"), host.path("cache/away")).unwrap();
    host.status(&[])
        .exits(7)
        .prints("MISSING")
        .warns("trivy-db-2 does not match the imported data")
        .warns("Import the last bundle again");
    fs::rename(host.path("cache/away"), host.path("cache/db")).unwrap();
    assert!(host.snapshot() == before, "`status` changes nothing");
    // The file is empty, as after a full disk.
    let good = fs::read(host.path("cache/db/trivy.db")).unwrap();
    fs::write(host.path("cache/db/trivy.db"), "").unwrap();
    host.status(&[]).exits(7).prints("DIFFERS").warns("trivy-db-2 does not match the imported data");
    fs::write(host.path("cache/db/trivy.db"), good).unwrap();
    host.status(&[]).exits(0).prints("signed by");
    let metadata = host.path("cache/db/metadata.json");
    let text = fs::read_to_string(&metadata).unwrap();
    let other = text.replace(&days(-1).to_string()[..10], "2026-01-01");
    assert_ne!(text, other);
    fs::write(&metadata, other).unwrap();
    host.status(&["--max-age", "3d"])
        .exits(7)
        .prints("OLDER")
        .prints("trivy-db")
        .warns("unless the older data was restored on purpose");
    let newer = text.replace(&days(-1).to_string()[..10], &days(0).to_string()[..10]);
    fs::write(&metadata, newer).unwrap();
    let newer = host.status(&[]);
    newer
        .exits(7)
        .prints("NEWER")
        .warns("if something else updates the target")
        .warns("another --state-dir or path");
}

/// The state is older than the cache, because it was restored. The next import resolves this.
#[test]
fn an_import_resolves_the_differences_of_a_restored_state() {
    let host = host_with(&Bundle::of(hours(-3), &Part::all(days(-2))));
    host.import_inbox(&[]).good();
    let yesterday = fs::read(host.path("state/import-default.json")).unwrap();
    host.file("inbox/b.tar", Bundle::of(hours(-1), &Part::all(days(-1))).signed(&host.key));
    host.import_inbox(&[]).good();
    fs::write(host.path("state/import-default.json"), yesterday).unwrap();
    host.status(&[]).exits(7).prints("NEWER").warns("import the newest bundle again");
    host.import_inbox(&[]).exits(0);
    host.status(&[]).good();
}

#[test]
fn two_streams_into_one_cache_cause_no_warning() {
    let host = Host::new();
    for (stream, age) in [("lab", -3), ("default", -2)] {
        let bundle = Bundle::of(hours(age), &Part::all(days(age))).with("stream", stream);
        host.file("inbox/b.tar", bundle.signed(&host.key));
        host.import_inbox(&["--stream", stream]).good();
    }
    host.status(&[]).exits(0).prints("replaced by a later import of another stream");
    let said = |run: &Run, words: &str| run.err.matches(words).count();
    // Old data in one place is reported once.
    let old = host.status(&["--max-age", "trivy-db=1d"]);
    assert_eq!(said(&old, "trivy-db of"), 1, "{old}");
    // Missing data in one place is reported once, with the stream that imported it last.
    fs::remove_dir_all(host.path("cache/db")).unwrap();
    let gone = host.status(&[]);
    gone.exits(7).prints("MISSING").warns("Import the last bundle of stream default again");
    assert_eq!(said(&gone, "trivy-db-2 does not match the imported data"), 1, "{gone}");
    host.import_inbox(&[]).exits(0);
    host.status(&[]).exits(0);
    // If there is only one stream, the message does not name it.
    host.run(&["forget", "--state-dir", "state", "cache/", "--stream", "lab"]).good();
    fs::remove_dir_all(host.path("cache/db")).unwrap();
    host.status(&[]).exits(7).warns("Import the last bundle again");
}

/// Two streams import into one cache, and one of them is retired.
#[test]
fn the_data_of_a_retired_stream_counts_as_accepted() {
    let host = Host::new();
    for (stream, more) in [("lab", &[][..]), ("default", &["--skip", "trivy-java-db"])] {
        let bundle = Bundle::of(hours(-2), &Part::all(days(-2))).with("stream", stream);
        host.file("inbox/b.tar", bundle.signed(&host.key));
        host.import_inbox(&[&["--stream", stream], more].concat()).good();
    }
    let java = || {
        let said = host.status(&["--format", "json"]).json();
        let rows = said["imports"][0]["datasets"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == "trivy-java-db-1").unwrap()
    };
    host.run(&["forget", "--state-dir", "state", "cache/", "--stream", "lab"]).good();
    host.status(&[]).good().does_not_say("not from a bundle").prints("trivy-java-db-1");
    let row = java();
    assert_eq!((&row["state"], &row["signers"][0]), (&"in-place".into(), &"exporter.pub".into()), "{row}");
    // The data is still checked, and so is data that replaced it.
    host.status(&["--max-age", "trivy-java-db=1d"]).exits(5).warns("trivy-java-db of");
    let metadata = host.path("cache/java-db/metadata.json");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace(&days(-2).to_string()[..10], &days(-1).to_string()[..10])).unwrap();
    host.status(&[]).exits(0).prints("not from a bundle that was accepted here");
    assert_eq!(java()["state"], "not-accepted");
}

/// Several targets reject the same bundle twice.
#[test]
fn a_rejection_is_reported_once_for_all_targets() {
    let bundle = Bundle::of(hours(-2), &Part::all(days(-2)));
    let host = host_with(&bundle);
    let import = |more: &[&str]| {
        let two = ["--cache-dir", "another", "--trust", "keys/exporter.pub"];
        host.import_inbox(&[&two[..], more].concat())
    };
    let lines = || {
        let ran = host.status(&[]);
        let refused = ran.out.lines().filter(|line| line.starts_with("refused")).map(str::to_owned);
        (ran.out.clone(), refused.collect::<Vec<_>>())
    };
    for _ in 0..2 {
        import(&["--stream", "lab"]).exits(5);
        host.wait(120);
    }
    let (out, refused) = lines();
    assert_eq!(refused.len(), 1, "{out}");
    assert!(refused[0].contains("UTC b.tar belongs to stream \"default\""), "{out}");
    assert_eq!(refused[0].matches("b.tar").count(), 1, "{out}");
    assert_eq!(out.matches("last bundle      none was accepted yet").count(), 0, "{out}");
    // A rejection for another reason has its own line.
    host.file("inbox/b.tar", bundle.signed(&trivy_ferry::trust::key::SigningKey::generate().unwrap()));
    import(&["--stream", "lab"]).exits(4);
    let (out, refused) = lines();
    assert_eq!(refused.len(), 2, "{out}");
    assert!(refused[1].contains("UTC b.tar is not signed"), "{out}");
    let json: serde_json::Value = serde_json::from_str(&host.status(&["--format", "json"]).out).unwrap();
    assert_eq!(json["refused"].as_array().unwrap().len(), 2, "{json:#}");
    assert_eq!(json["refused"][0]["bundle"], "b.tar");
}

#[test]
fn a_rejection_before_the_first_import_is_reported_until_a_bundle_is_accepted() {
    let host = Host::new();
    let (key, stranger) = (&host.key, trivy_ferry::trust::key::SigningKey::generate().unwrap());
    let bundle = Bundle::of(hours(-2), &Part::all(days(-2)));
    host.file("inbox/b.tar", bundle.signed(&stranger));
    assert_eq!(host.import_inbox(&["--metrics", "ferry.prom"]).code, 4);
    host.status(&[])
        .exits(2)
        .prints("refused")
        .prints("b.tar")
        .prints("UTC b.tar is not signed by a trusted key")
        // The stream of such a bundle is unknown.
        .does_not_say("stream")
        .warns("nothing was imported");
    let metrics = fs::read_to_string(host.path("ferry.prom")).unwrap();
    assert!(metrics.contains("trivy_ferry_last_exit_code 4"), "{metrics}");
    host.file("inbox/b.tar", bundle.signed(key));
    host.import_inbox(&[]).good();
    let ran = host.status(&[]);
    ran.good();
    assert!(!ran.out.contains("refused"), "{ran:#?}");
}

#[test]
fn status_checks_the_checks_and_vex_repositories_of_a_cache() {
    let host = host_with(&Bundle::of(hours(-2), &Part::all(days(-2))));
    host.import_inbox(&[]).good();
    let ran = host.status(&["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    for row in json["imports"][0]["datasets"].as_array().unwrap() {
        assert_eq!(row["state"], "in-place", "{row}");
    }
    // The checks are replaced, and the VEX repository is removed.
    let metadata = host.path("cache/policy/metadata.json");
    let text = fs::read_to_string(&metadata).unwrap();
    let digest = text.split("sha256:").nth(1).unwrap()[..64].to_owned();
    fs::write(&metadata, text.replace(&digest, &"0".repeat(64))).unwrap();
    host.status(&[]).exits(7).warns("trivy-checks-2 does not match the imported data").prints("DIFFERS");
    fs::write(&metadata, text).unwrap();
    fs::rename(host.path("cache/vex/repositories"), host.path("away")).unwrap();
    host.status(&[]).exits(7).warns("vex-hub-0.1 does not match the imported data").prints("MISSING");
}

/// Adds images to a bundle: one for a single platform, and one for several platforms.
pub fn with_images(mut bundle: Bundle) -> Bundle {
    let payload: serde_json::Value = serde_json::from_slice(&bundle.payload).unwrap();
    let datasets = payload["datasets"].as_array().unwrap();
    let checks = datasets.iter().find(|dataset| dataset["name"] == "trivy-checks").unwrap().clone();
    let child = &checks["manifest"];
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        { "mediaType": child["mediaType"], "digest": child["digest"], "size": child["size"] },
    ]});
    let index = index.to_string().into_bytes();
    let digest = Digest::of(&index);
    let blob = serde_json::json!({ "mediaType": INDEX, "digest": digest, "size": index.len() });
    bundle.members.insert(3, (format!("blobs/sha256/{}", digest.hex()), index));
    bundle.relist();
    let blobs = [checks["config"].clone(), checks["layers"][0].clone()];
    bundle.edit(|payload| {
        payload["images"] = serde_json::json!([
            { "name": "quay.example/tools/x:1", "source": "x", "manifest": child, "blobs": blobs },
            { "name": "quay.example/tools/y:1", "source": "y", "manifest": blob, "manifests": [child], "blobs": blobs },
        ]);
    });
    bundle
}

#[test]
fn status_checks_registries_only_on_request() {
    let host = host_with(&with_images(Bundle::of(hours(-2), &Part::all(days(-2)))));
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    let to = ["import", "inbox", "--registry", &place, "--plain-http", "--image", "*"];
    let more = ["--state-dir", "state", "--trust", "keys/exporter.pub"];
    host.run(&[&to[..], &more].concat()).good();
    let pushed = registry.seen().len();
    host.status(&[]).exits(0).prints("not checked      the data in the registry: use --check-registries");
    assert_eq!(registry.seen().len(), pushed, "the registry was not contacted");
    let ask = || host.status(&["--check-registries", "--plain-http"]);
    ask().good();
    let asked = registry.seen().split_off(pushed);
    assert!(asked.iter().all(|seen| seen.method == Method::GET || seen.method == Method::HEAD), "{asked:#?}");
    for tag in [
        "p/trivy-db:2",
        "p/trivy-java-db:1",
        "p/trivy-checks:2",
        "p/quay.example/tools/x:1",
        "p/quay.example/tools/y:1",
    ] {
        let manifest = registry.forget_tag(tag);
        ask().exits(7).prints("MISSING");
        // Another client pushes other data.
        registry.name(tag, Part::db(days(-9)).manifest);
        ask().exits(7).prints("DIFFERS").warns("does not match the imported data");
        registry.name(tag, manifest);
        ask().good();
    }
    // The index exists, but a manifest that it names is missing.
    let child =
        registry.tags().into_iter().find(|tag| tag.starts_with("p/quay.example/tools/y:sha256")).unwrap();
    let manifest = registry.forget_tag(&child);
    let what = format!("image:{place}/quay.example/tools/y:1 does not match the imported data");
    ask().exits(7).prints("MISSING").warns(&what).warns("Import the last bundle again, with --image");
    registry.name(&child, manifest);
    ask().good();
    registry.cut_blobs();
    ask().exits(7).prints("MISSING").warns("trivy-db-2 does not match the imported data");
    host.run(&[&to[..], &["--state-dir", "state", "--trust", "keys/exporter.pub"]].concat())
        .exits(0)
        .prints("trivy-db        pushed");
    ask().good();
    // The extra tags, which scanners may use, are checked as well.
    host.run(&[&to[..], &["--extra-tag", "latest,2-{date}"], &more].concat()).good();
    ask().good();
    for tag in ["p/trivy-db:latest".to_owned(), format!("p/trivy-db:2-{}", &days(-2).to_string()[..10])] {
        let manifest = registry.forget_tag(&tag);
        let name = tag.rsplit_once(':').unwrap().1;
        ask().exits(7).prints(&format!("the tag {name} no longer names it"));
        registry.name(&tag, Part::db(days(-9)).manifest);
        let ran = host.status(&["--check-registries", "--plain-http", "--metrics", "ferry.prom"]);
        ran.exits(7).warns(&format!("the tag {name} no longer names the trivy-db-2 that was imported"));
        assert_eq!(in_place(&host, "trivy-db-2"), "0");
        registry.name(&tag, manifest);
        ask().good();
    }
    registry.forget_blobs();
    ask().exits(7).prints("MISSING").warns("trivy-db-2 does not match the imported data");
    // If the registry cannot be checked, this is an error.
    drop(registry);
    ask().exits(7).warns("cannot be reached").prints("not checked");
}

#[test]
fn status_checks_images_at_their_pushed_references() {
    let host = host_with(&with_images(Bundle::of(hours(-2), &Part::all(days(-2)))));
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    let chosen = format!("quay.example/tools/x:1={}/site/x:stable", registry.host);
    let to = ["import", "inbox", "--registry", &place, "--plain-http", "--image"];
    let more = ["--state-dir", "state", "--trust", "keys/exporter.pub"];
    host.run(&[&to[..], &[&chosen], &more].concat()).good();
    let ask = || host.status(&["--check-registries", "--plain-http"]);
    ask().good();
    let manifest = registry.forget_tag("site/x:stable");
    ask().exits(7).prints("MISSING").warns("site/x:stable does not match the imported data");
    // Images of other clients under other tags do not matter.
    registry.name("p/tools/x:1", manifest.clone());
    registry.name("p/quay.example/tools/x:1", manifest.clone());
    ask().exits(7).prints("MISSING").warns("site/x:stable does not match the imported data");
    registry.name("site/x:stable", manifest);
    ask().good();
}

#[test]
fn images_of_an_older_version_are_checked_until_the_next_import() {
    let host = host_with(&with_images(Bundle::of(hours(-2), &Part::all(days(-2)))));
    let registry = Registry::new(|_| None);
    let place = format!("{}/p", registry.host);
    let to = ["import", "inbox", "--registry", &place, "--plain-http"];
    let more = ["--state-dir", "state", "--trust", "keys/exporter.pub"];
    host.run(&[&to[..], &["--image", "*/x"], &more].concat()).good();
    // Development versions of 0.1.0 recorded the name without its host, and no reference.
    let path = host.path("state/import-default.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let target = state["targets"].as_object_mut().unwrap().values_mut().next().unwrap();
    assert!(target["images"].as_object().is_some_and(|images| images.len() == 1), "{target:#}");
    target.as_object_mut().unwrap().remove("images");
    for of in ["floors", "origins"] {
        let of = target[of].as_object_mut().unwrap();
        let key = of.keys().find(|key| key.starts_with("image:")).unwrap().clone();
        let mut value = of.remove(&key).unwrap();
        if let Some(origin) = value.as_object_mut() {
            origin.remove("reference").unwrap();
        }
        of.insert("image:tools/x:1".into(), value);
    }
    fs::write(&path, state.to_string()).unwrap();
    let ask = || host.status(&["--check-registries", "--plain-http"]);
    ask().exits(7).prints("MISSING").warns("image:tools/x:1 does not match the imported data");
    let manifest = registry.forget_tag("p/quay.example/tools/x:1");
    registry.name("p/tools/x:1", manifest);
    ask().exits(7).prints("MISSING").prints("image:tools/x:1");
    // The image is pushed to the new reference, and the old one is no longer checked.
    host.run(&[&to[..], &["--image", "*/x"], &more].concat()).exits(0).prints("x:1   pushed");
    let ran = ask();
    ran.good();
    assert!(!ran.out.contains("image:tools/x:1"), "{ran:#?}");
}

#[test]
fn status_checks_whether_a_web_root_still_has_its_files() {
    let host = host_with(&Bundle::of(hours(-2), &Part::all(days(-2))));
    fs::create_dir(host.path("www")).unwrap();
    let to = ["import", "inbox", "--web-root", "www", "--web-url", "https://vex.corp.example"];
    host.run(&[&to[..], &["--state-dir", "state", "--trust", "keys/exporter.pub"]].concat()).good();
    host.status(&[]).good();
    let archive = fs::read_dir(host.path("www/vex-hub")).unwrap().map(|entry| entry.unwrap().path());
    let archive = archive.into_iter().find(|path| path.to_str().unwrap().contains("/repository")).unwrap();
    let good = fs::read(&archive).unwrap();
    fs::write(&archive, "cut off").unwrap();
    host.status(&[]).exits(7).prints("DIFFERS").prints("vex-hub");
    fs::remove_file(&archive).unwrap();
    host.status(&[]).exits(7).prints("MISSING").prints("vex-hub");
    fs::write(&archive, good).unwrap();
    host.status(&[]).good();
    fs::rename(host.path("www/vex-hub"), host.path("www/away")).unwrap();
    host.status(&[]).exits(7).prints("MISSING").prints("vex-hub").warns("does not match the imported data");
}

#[test]
#[ignore = "tools"]
fn prometheus_reads_the_metrics_of_an_import() {
    let host = host_with(&Bundle::of(hours(-2), &Part::all(days(-2))).with("sequence", 3));
    host.import_inbox(&["--metrics", "ferry.prom"]).good();
    forge::promtool(&host.path("ferry.prom"));
}

#[test]
fn metrics_have_the_last_run_and_the_last_success() {
    let host = host_with(&Bundle::of(hours(-2), &Part::all(days(-2))).with("sequence", 3));
    host.import_inbox(&["--metrics", "ferry.prom"]).good();
    let metrics = || fs::read_to_string(host.path("ferry.prom")).unwrap();
    let value = |text: &str, name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap()
    };
    let first = metrics();
    let db = "trivy_ferry_dataset_updated_timestamp_seconds{stream=\"default\",dataset=\"trivy-db-2\",target=\"cache:";
    assert_eq!(value(&first, db), days(-2).as_second());
    assert_eq!(value(&first, "trivy_ferry_last_exit_code"), 0);
    let success = value(&first, "trivy_ferry_last_success_timestamp_seconds");
    assert!(success >= hours(0).as_second());
    // After a failed run, the metrics have its exit code and the time of the last success.
    host.wait(2);
    host.file("inbox/b.tar", "rubbish");
    assert_ne!(host.import_inbox(&["--metrics", "ferry.prom"]).code, 0);
    let second = metrics();
    assert_ne!(value(&second, "trivy_ferry_last_exit_code"), 0);
    assert_eq!(value(&second, "trivy_ferry_last_success_timestamp_seconds"), success);
    assert!(value(&second, "trivy_ferry_last_run_timestamp_seconds") > success);
    host.status(&["--metrics", "ferry.prom"]).good();
    assert_eq!(metrics(), second, "`status` is not a run");
    // Missing data is not reported as fresh.
    assert_eq!(in_place(&host, "trivy-db-2"), "1");
    fs::rename(host.path("cache/db"), host.path("cache/away")).unwrap();
    host.status(&["--metrics", "ferry.prom"]).exits(7);
    assert_eq!(in_place(&host, "trivy-db-2"), "0");
    assert!(!metrics().contains(db), "{}", metrics());
    assert!(metrics().contains(&db.replace("trivy-db-2", "trivy-java-db-1")));
}

/// Returns the value of a dataset in the metrics of the only target.
fn in_place(host: &Host, dataset: &str) -> String {
    let text = fs::read_to_string(host.path("ferry.prom")).unwrap();
    let is_it = |line: &&str| {
        line.starts_with("trivy_ferry_dataset_in_place{") && line.contains(&format!("dataset=\"{dataset}\""))
    };
    text.lines().find(is_it).unwrap_or_else(|| panic!("{text}")).rsplit_once(' ').unwrap().1.to_owned()
}

/// A Kubernetes secret that is mounted late, an unavailable share or a mistyped flag: if a run
/// cannot start, the metrics must not have the result of the last good run. The values of targets
/// stay in the file, even if the state cannot be read.
#[test]
fn metrics_have_the_failure_of_a_run_that_could_not_start() {
    let host = host_with(&Bundle::of(hours(-2), &Part::all(days(-2))));
    let metrics = || fs::read_to_string(host.path("ferry.prom")).unwrap();
    let says = |line: &str| metrics().lines().any(|other| other == line);
    let with = |args: &[&str]| {
        let more = ["--metrics", "ferry.prom", "--state-dir", "state", "--data-home", "home"];
        host.run(&[args, &more].concat())
    };
    let trust = ["--trust", "keys/exporter.pub"];
    let import = |more: &[&str]| with(&[&["import", "inbox", "--cache-dir", "cache"], more].concat());
    let watch = |inbox: &str, more: &[&str]| {
        let args = ["watch", inbox, "--once", "--settle", "1ms", "--cache-dir", "cache"];
        with(&[&args[..], more].concat())
    };
    for (run, code) in [
        (&(|| watch("inbox", &["--trust", "nowhere.pub"])) as &dyn Fn() -> Run, 2),
        (&|| watch("inbox", &[&trust[..], &["--min-signers", "2"]].concat()), 2),
        (&|| watch("inbox", &[&trust[..], &["--owner", "nobody"]].concat()), 2),
        (&|| watch("nowhere", &trust), 2),
        (&|| import(&["--trust", "nowhere.pub"]), 2),
        (&|| import(&[&trust[..], &["--owner", "nobody"]].concat()), 2),
        (&|| with(&[&["import", "nowhere", "--cache-dir", "cache"], &trust[..]].concat()), 2),
        (&|| import(&[&trust[..], &["--staging", "inbox/b.tar"]].concat()), 7),
    ] {
        import(&trust).good();
        let good = metrics();
        assert!(says("trivy_ferry_last_exit_code 0"), "{good}");
        import(&["--trust", "nowhere.pub", "--dry-run"]).fails();
        assert_eq!(metrics(), good, "a dry run does not count");
        let ran = run();
        assert!(ran.code != 0 && says(&format!("trivy_ferry_last_exit_code {}", ran.code)), "{ran:#?}");
        assert_eq!(ran.code, code, "{ran:#?}");
        let of = |text: &str, name: &str| {
            text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect::<Vec<_>>()
        };
        for name in ["trivy_ferry_last_success", "trivy_ferry_dataset_updated"] {
            let lines = of(&good, name);
            assert!(!lines.is_empty() && of(&metrics(), name) == lines, "{name}: {}", metrics());
        }
    }
    // After the fix, a watch without files to import reports success, but not a successful import.
    watch("nowhere", &trust).exits(2);
    host.status(&["--metrics", "ferry.prom"]).good();
    assert!(says("trivy_ferry_last_exit_code 2"), "`status` is not a run");
    fs::rename(host.path("inbox/b.tar"), host.path("b.tar")).unwrap();
    watch("inbox", &trust).good();
    assert!(says("trivy_ferry_last_exit_code 0"), "{}", metrics());
    // The next start does not clear a rejection.
    host.file("inbox/rubbish.tar", "rubbish");
    watch("inbox", &trust).fails();
    watch("inbox", &trust).good();
    assert!(!says("trivy_ferry_last_exit_code 0"), "{}", metrics());
    // The state cannot be read.
    let before = metrics();
    fs::write(host.path("state/import-default.json"), "rubbish").unwrap();
    let ran = watch("nowhere", &trust);
    assert!(says(&format!("trivy_ferry_last_exit_code {}", ran.code)), "{}", metrics());
    let dataset = before.lines().find(|line| line.starts_with("trivy_ferry_dataset_updated")).unwrap();
    assert!(says(dataset), "{}", metrics());
}
