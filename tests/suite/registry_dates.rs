//! The dates of contents decide which data is newer, regardless of who pushed it and of the dates
//! of the manifests.

use jiff::{SignedDuration, Timestamp};
use test_kit::answers::status;
use test_kit::http::Method;
use test_kit::process::Run;
use test_kit::registry::Registry;
use trivy_ferry::dataset::Kind;

use crate::forge::upstream::Upstream;
use crate::forge::{Bundle, Host, Part, days, db_layer, hours, java_db_layer, manifest_of};

/// Adds a manual push: content with a date, under a manifest with another date or without a date.
fn fill(registry: &Registry, dataset: &str, tag: &str, built: Timestamp, made: Option<Timestamp>) {
    let (kind, layer) = match dataset {
        "trivy-db" => (Kind::TrivyDb, db_layer(built)),
        _ => (Kind::TrivyJavaDb, java_db_layer(built)),
    };
    named(registry, dataset, tag, kind, &layer, made);
}

fn named(registry: &Registry, dataset: &str, tag: &str, kind: Kind, layer: &[u8], made: Option<Timestamp>) {
    let repository = format!("p/{dataset}");
    registry.keep(&repository, layer);
    registry.keep(&repository, b"{}");
    let manifest = manifest_of(kind.layer_media_type().unwrap(), layer, made);
    registry.name(&format!("{repository}:{tag}"), manifest);
}

/// Returns the number of times that a layer was read.
fn reads(registry: &Registry) -> usize {
    let is_read =
        |seen: &&test_kit::http::Seen| seen.method == Method::GET && seen.path.contains("/blobs/sha256:");
    registry.seen().iter().filter(is_read).count()
}

fn push(host: &Host, bundle: &Bundle, registry: &Registry, more: &[&str]) -> Run {
    let bundle = host.bundle("bundle", bundle);
    let (key, state) = (host.at("keys/exporter.pub"), host.at("state"));
    let place = format!("{}/p", registry.host);
    let bundle = bundle.to_str().unwrap();
    let import = ["import", bundle, "--trust", &key, "--state-dir", &state, "--registry", &place];
    host.run(&[&import[..], &["--retries", "0"], more].concat())
}

/// Returns the row of a dataset.
fn row(ran: &Run, dataset: &str) -> serde_json::Value {
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:#?}"));
    let rows = report["targets"][0]["datasets"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == dataset).unwrap().clone()
}

const JSON: [&str; 2] = ["--format", "json"];

/// A manifest is newer than its content, and `oras push` sets its date to the time of the push.
/// Neither date is the date of the data.
#[test]
fn newer_data_is_pushed_to_a_registry_that_another_tool_filled() {
    let (minutes, built) = (SignedDuration::from_mins(30), hours(-48));
    for (dataset, tag) in [("trivy-db", "2"), ("trivy-java-db", "1")] {
        // The manifest is 1 h newer than the content, created now, without a date, or older than
        // the content.
        for made in [Some(built + minutes * 2), Some(hours(0)), None, Some(built - minutes)] {
            println!("{dataset} {made:?}");
            let part = |date| match dataset {
                "trivy-db" => Part::db(date),
                _ => Part::java_db(date),
            };
            let (host, registry) = (Host::new(), Registry::new(|_| None));
            fill(&registry, dataset, tag, built, made);
            let newer = Bundle::of(hours(-1), &[part(built + minutes)]);
            let ran = push(&host, &newer, &registry, &JSON);
            assert_eq!(row(ran.good(), dataset)["status"], "pushed", "{ran:#?}");
            if made.is_none_or(|made| made > built + minutes) {
                assert_eq!(row(&ran, dataset)["was"], built.to_string(), "{ran:#?}");
            }
            // Older data is rejected, and the layer is read only once.
            let (host, registry) = (Host::new(), Registry::new(|_| None));
            let made = made.map(|made| made.max(built));
            fill(&registry, dataset, tag, built, made);
            let older = Bundle::of(hours(-1), &[part(built - minutes)]);
            for _ in 0..2 {
                let ran = push(&host, &older, &registry, &JSON);
                let row = row(ran.good(), dataset);
                assert_eq!(
                    (&row["status"], &row["was"]),
                    (&"older".into(), &built.to_string().into()),
                    "{ran:#?}"
                );
                assert_eq!(reads(&registry), 1, "{:#?}", registry.seen());
            }
        }
    }
    // If the new data was built after the manifest was created, the layer is not read.
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    fill(&registry, "trivy-db", "2", built, Some(built + minutes));
    push(&host, &Bundle::of(hours(-1), &[Part::db(hours(-2))]), &registry, &[]).good();
    assert_eq!(reads(&registry), 0);
}

#[test]
fn data_that_cannot_be_read_is_replaced() {
    let newer = || Bundle::of(hours(-1), &[Part::db(hours(-30))]);
    // The layer is invalid or missing.
    for lost in [false, true] {
        let (host, registry) = (Host::new(), Registry::new(|_| None));
        named(&registry, "trivy-db", "2", Kind::TrivyDb, b"rubbish", Some(hours(-20)));
        if lost {
            registry.forget_blobs();
        }
        push(&host, &newer(), &registry, &[]).good().prints("trivy-db        pushed");
    }
    // The registry cannot return the layer at the moment, so the date of the manifest is used.
    let host = Host::new();
    let registry = Registry::new(|seen| {
        let reads = seen.method == Method::GET && seen.path.contains("/blobs/sha256:");
        reads.then(|| status(503))
    });
    fill(&registry, "trivy-db", "2", hours(-48), Some(hours(-20)));
    push(&host, &newer(), &registry, &[])
        .good()
        .prints("trivy-db        skipped")
        .warns("cannot read the build date of the data at")
        .warns("the date of its manifest is used instead");
}

/// The same data must not count as older under another tag.
#[test]
fn the_dates_of_one_dataset_are_comparable() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let mut part = Part::db(hours(-30));
    let layer = part.blobs[1].clone();
    part.manifest = manifest_of(Kind::TrivyDb.layer_media_type().unwrap(), &layer, Some(hours(-28)));
    part.dataset.manifest.digest = trivy_ferry::digest::Digest::of(&part.manifest);
    part.dataset.manifest.size = part.manifest.len() as u64;
    let bundle = Bundle::of(hours(-1), &[part]);
    push(&host, &bundle, &registry, &[]).good();
    let ran = push(&host, &bundle, &registry, &["--extra-tag", "latest"]);
    ran.good().prints("trivy-db        pushed");
    assert!(!ran.out.contains("was"), "{ran:#?}");
    // The ledger has the date, so the layer is not read.
    let newer = Bundle::of(hours(0), &[Part::db(hours(-29))]);
    let ran = push(&host, &newer, &registry, &JSON);
    assert_eq!(row(ran.good(), "trivy-db")["was"], hours(-30).to_string(), "{ran:#?}");
    assert_eq!(reads(&registry), 0);
}

/// `status` shows the date of the manifest for data of another tool. After an import has read the
/// data, `status` shows the date of the data.
#[test]
fn status_says_which_date_it_shows() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let bundle = Bundle::of(hours(-70), &[Part::db(hours(-72))]);
    push(&host, &bundle, &registry, &[]).good();
    fill(&registry, "trivy-db", "2", hours(-48), Some(hours(-3)));
    let status = |more: &[&str]| {
        let ask =
            ["status", "--state-dir", "state", "--check-registries", "--plain-http", "--metrics", "m.prom"];
        host.run(&[&ask[..], more].concat())
    };
    let metric = |date: Timestamp| {
        let metrics = test_kit::host::text(host.path("m.prom"));
        let line = metrics.lines().find(|line| line.starts_with("trivy_ferry_dataset_updated")).unwrap();
        assert!(line.ends_with(&format!(" {}", date.as_second())), "{metrics}");
    };
    status(&[]).exits(7).prints("(3 h old), by its manifest  DIFFERS");
    metric(hours(-3));
    let row = |ran: &Run| ran.json()["imports"][0]["datasets"][0].clone();
    assert_eq!(row(&status(&JSON))["manifest_date"], true);
    // An import reads the layer.
    push(&host, &bundle, &registry, &[]).good().prints("skipped");
    let json = row(&status(&JSON));
    assert_eq!((&json["manifest_date"], &json["in_use"]), (&false.into(), &hours(-48).to_string().into()));
    status(&[]).exits(7).prints("(2 d old)  DIFFERS");
    metric(hours(-48));
    // The tag has other data again.
    fill(&registry, "trivy-db", "2", hours(-47), Some(hours(-2)));
    status(&[]).exits(7).prints("(2 h old), by its manifest  DIFFERS");
}

fn mirror(host: &Host, upstream: &Upstream, registry: &Registry, more: &[&str]) -> Run {
    let from = |name: &str| format!("{}/{name}:1", upstream.host);
    let (place, db, java_db) = (format!("{}/p", registry.host), from("db"), from("java"));
    let mirror = ["mirror", "--registry", &place, "--from-plain-http", "--only", "trivy-db,trivy-java-db"];
    host.run(&[&mirror[..], &["--db-repository", &db, "--java-db-repository", &java_db], more].concat())
}

#[test]
fn a_mirror_compares_contents_too() {
    let host = Host::new();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 1000);
    let built = days(-3);
    let hour = SignedDuration::from_hours(1);
    for (of_registry, made, status) in [
        // The manifest is in the form of oras, 1 h newer than the content, or without a date.
        (built - hour, Some(hours(0)), "pushed"),
        (built - hour, Some(built + hour), "pushed"),
        (built - hour, None, "pushed"),
        (built + hour, Some(hours(0)), "older"),
        (built + hour, Some(built + hour), "older"),
        (built + hour, None, "older"),
    ] {
        println!("{of_registry} {made:?}");
        let registry = Registry::new(|_| None);
        fill(&registry, "trivy-db", "2", of_registry, made);
        fill(&registry, "trivy-java-db", "1", of_registry, made);
        let ran = mirror(&host, &upstream, &registry, &JSON);
        for dataset in ["trivy-db", "trivy-java-db"] {
            let row = row(ran.good(), dataset);
            assert_eq!(
                (&row["status"], &row["was"]),
                (&status.into(), &of_registry.to_string().into()),
                "{ran:#?}"
            );
        }
    }
}

/// Scanners that must find the same data again need a separate tag (aquasecurity/trivy-db, issue
/// 130).
#[test]
fn a_tag_can_have_the_day_of_the_data() {
    let date: Timestamp = "2026-03-04T23:59:00Z".parse().unwrap();
    let tags = ["--extra-tag", "2-{date},latest"];
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let bundle = Bundle::of(hours(-1), &[Part::db(date), Part::checks("a")]);
    push(&host, &bundle, &registry, &tags).good().prints("(also :2-2026-03-04, :latest)");
    // Checks have no build date, and a warning says so.
    push(&host, &bundle, &registry, &tags)
        .good()
        .warns("warning: trivy-checks-2 does not get the tag 2-{date}: neither its content nor its manifest");
    push(&host, &bundle, &registry, &["--extra-tag", "latest"]).good().does_not_say("does not get the tag");
    let all = ["p/trivy-checks:2", "p/trivy-checks:latest", "p/trivy-db:2", "p/trivy-db:2-2026-03-04"];
    assert_eq!(registry.tags(), [&all[..], &["p/trivy-db:latest"]].concat());
    push(&host, &bundle, &registry, &tags).good().prints("trivy-db        unchanged");
    registry.forget_tag("p/trivy-db:2-2026-03-04");
    push(&host, &bundle, &registry, &tags).good().prints("trivy-db        pushed");
    push(&host, &bundle, &registry, &["--extra-tag", "{day}"]).fails_with(2, &["cannot be a tag", "{date}"]);
    // A mirror does the same.
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(0, 1000);
    let registry = Registry::new(|_| None);
    let day = days(-3).to_string()[..10].to_owned();
    mirror(&host, &upstream, &registry, &tags).good().prints(&format!("(also :2-{day}, :latest)"));
    assert!(registry.tags().contains(&format!("p/trivy-java-db:2-{day}")), "{:?}", registry.tags());
    mirror(&host, &upstream, &registry, &tags).good().prints("trivy-db        unchanged");
    // A tag that is requested later is also added for unchanged data.
    for (dated, latest) in [("{date}", "latest"), ("v2-{date}", "2-{date}")] {
        let later = ["--extra-tag", dated, "--extra-tag", latest];
        let dry = [&later[..], &["--dry-run"]].concat();
        mirror(&host, &upstream, &registry, &dry).good().prints("trivy-db        would push");
        mirror(&host, &upstream, &registry, &later).good().prints("trivy-db        pushed");
        let tag = dated.replace("{date}", &day);
        assert!(registry.tags().contains(&format!("p/trivy-db:{tag}")), "{:?}", registry.tags());
        let reads_before = reads(&registry);
        mirror(&host, &upstream, &registry, &later)
            .good()
            .prints("trivy-db        unchanged")
            .prints(&format!(":{tag}"));
        assert_eq!(reads(&registry), reads_before, "the existing tag has the date");
    }
}

/// The manifest of a copy by another tool has another date.
#[test]
fn a_mirror_takes_the_date_of_a_tag_from_the_content() {
    let (host, registry) = (Host::new(), Registry::new(|_| None));
    let upstream = Upstream::new(|_, _| None);
    let built = days(-3);
    for made in [Some(hours(-1)), None] {
        for (name, kind, layer) in
            [("db", Kind::TrivyDb, db_layer(built)), ("java", Kind::TrivyJavaDb, java_db_layer(built))]
        {
            upstream.put(
                &format!("/v2/{name}/manifests/1"),
                manifest_of(kind.layer_media_type().unwrap(), &layer, made),
            );
            let digest = |bytes: &[u8]| trivy_ferry::digest::Digest::of(bytes);
            upstream.put(&format!("/v2/{name}/blobs/{}", digest(b"{}")), &b"{}"[..]);
            upstream.put(&format!("/v2/{name}/blobs/{}", digest(&layer)), layer);
        }
        mirror(&host, &upstream, &registry, &[]).good();
        for tag in ["2-{date}", "{date}"] {
            let tags = ["--extra-tag", tag];
            mirror(&host, &upstream, &registry, &tags).good().prints("trivy-db        pushed");
            let day = format!("p/trivy-db:{}", tag.replace("{date}", &built.to_string()[..10]));
            assert!(registry.tags().contains(&day), "{:?}", registry.tags());
            mirror(&host, &upstream, &registry, &tags)
                .good()
                .prints("trivy-db        unchanged")
                .does_not_say("does not get the tag");
        }
        registry.forget_tags();
    }
}
