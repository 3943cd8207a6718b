//! The complete trip with real tools on both sides: another project's registry, artifacts that another tool pushed, and
//! a Trivy without a network.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use test_kit::artifact::{Artifact, all_four, findings, sample};
use test_kit::host::{Host, json_file};
use test_kit::process::Run;
use test_kit::real::Registry;
use test_kit::tools;
use test_kit::vex_hub;

use crate::stories::equipped;

/// Returns the line that `import` printed for a subcommand, from its JSON.
#[track_caller]
fn printed(import: &Run, subcommand: &str) -> String {
    let json = import.json();
    let lines = json["targets"][0]["commands"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    let wanted = format!("trivy {subcommand} --cache-dir ");
    lines
        .into_iter()
        .find(|line| line.starts_with(&wanted))
        .unwrap_or_else(|| panic!("{subcommand}: {json:#}"))
        .into()
}

/// Changes a cache as if the import was 8 days ago. On the day of the import, Trivy would not look for updates, and a
/// scan would prove nothing.
fn eight_days_later(cache: &str) {
    let then = (Timestamp::now() - SignedDuration::from_hours(8 * 24)).to_string();
    for (file, keys) in [
        ("db/metadata.json", &["UpdatedAt", "NextUpdate", "DownloadedAt"][..]),
        ("java-db/metadata.json", &["UpdatedAt", "NextUpdate", "DownloadedAt"]),
        ("policy/metadata.json", &["DownloadedAt"]),
        ("vex/repositories/default/cache.json", &["UpdatedAt"]),
        ("vex/repositories/default/0.1/index.json", &["updated_at"]),
    ] {
        let path = format!("{cache}/{file}");
        let mut json = json_file(&path);
        for key in keys {
            assert!(json[key].is_string(), "{path} has no {key}: {json}");
            json[key] = then.clone().into();
        }
        fs::write(&path, json.to_string()).unwrap();
    }
}

/// Asserts every kind of finding. Each needs a different one of the four datasets. `trivy` returns the start of a
/// command line for a subcommand.
#[track_caller]
fn finds_everything(importer: &Host, trivy: impl Fn(&str) -> String) {
    let scan = |subcommand: &str, target: &str| {
        let line = format!("{} --format json {target}", trivy(subcommand));
        findings(importer.offline(&line).exits(0).does_not_say("Falling back to embedded checks"))
    };
    let project = sample("project");
    assert_eq!(
        scan("fs", &format!("--show-suppressed {project}/Gemfile.lock")),
        ["CVE-2099-0001", "suppressed CVE-2099-0002"],
        "by trivy-db, and VEX suppresses one of the two"
    );
    assert_eq!(scan("rootfs", &project), ["CVE-2099-0003"], "a jar known by its SHA-1 alone");
    // Trivy's built-in checks would report other findings.
    assert_eq!(scan("config", &project), ["SAMPLE-9999"], "by the carried checks");
}

/// A host that has imported the bundle of a laptop. No server of the connected side is running anymore.
struct Trip {
    importer: Host,
    bundle: String,
    public: String,
    cache: String,
    /// The directory of the `trivy.yaml` that was written.
    config: String,
    /// The digest of the checks in the registry.
    checks: String,
    import: Run,
}

impl Trip {
    fn new() -> Trip {
        let tools = tools();
        let (laptop, importer) = (equipped(&tools), equipped(&tools));
        let (_, key) = laptop.keygen();
        // The laptop is removed when this returns.
        let public = importer.at("ferry.pub");
        fs::copy(key, &public).unwrap();
        let registry = Registry::distribution(&tools, None);
        for artifact in [Artifact::db(), Artifact::java_db()] {
            registry.publish(&artifact);
        }
        let checks = registry.publish(&Artifact::checks("2"));
        let hub = vex_hub::over_http();
        let flags = format!("{} --vex default={}", registry.flags(), hub.url(""));
        let carried = laptop.export(&laptop.dir("out"), &flags);
        drop(registry);
        let bundle = importer.at("default.tar");
        fs::copy(carried, &bundle).unwrap();

        importer.ferry(&format!("verify {bundle} --trust {public}")).exits(0).prints("content as signed");
        // The directory of `trivy.yaml` is not the working directory of the scans, where Trivy
        // would read the file automatically.
        let (cache, config) = (importer.at("cache"), importer.dir("config"));
        let import = format!("import {bundle} --trust {public} --cache-dir {cache} --format json");
        let import = importer.ferry(&format!("{import} --write-env settings.env --write-config {config}"));
        import.exits(0);
        Trip { importer, bundle, public, cache, config, checks, import }
    }

    /// Returns a trip that was 8 days ago.
    fn eight_days_ago() -> Trip {
        let trip = Trip::new();
        eight_days_later(&trip.cache);
        trip
    }
}

#[test]
#[ignore = "tools"]
fn the_trip_brings_all_four_datasets_into_the_cache() {
    let Trip { importer, cache, checks, import, .. } = Trip::new();
    assert_eq!(import.statuses(), all_four("installed"));
    assert_eq!(import.target(0)["trivy_version"], "0.74", "the version is that of the trivy on the PATH");

    let version =
        importer.offline(&format!("trivy version --format json --cache-dir {cache}")).exits(0).json();
    for (database, schema) in [("VulnerabilityDB", 2), ("JavaDB", 1)] {
        assert_eq!(version[database]["Version"], schema, "{version:#}");
        assert_eq!(version[database]["UpdatedAt"], "2026-01-15T06:00:00Z", "{version:#}");
    }
    assert_eq!(version["CheckBundle"]["Digest"], checks, "{version:#}");
}

#[test]
#[ignore = "tools"]
fn the_printed_lines_find_everything_8_days_later() {
    let Trip { importer, cache, import, .. } = Trip::eight_days_ago();
    let network = importer.offline("tail -n +3 /proc/net/dev").exits(0).out.clone();
    assert!(network.lines().all(|line| line.trim_start().starts_with("lo:")), "{network}");
    let lock = sample("project/Gemfile.lock");
    importer.offline(&format!("trivy fs --cache-dir {cache} {lock}")).fails().warns("DB");

    finds_everything(&importer, |subcommand| printed(&import, subcommand));
    let image = sample("project/image.tar");
    let scan = importer.offline(&format!("{} --format json --input {image}", printed(&import, "image")));
    scan.exits(0);
    assert_eq!(findings(&scan), ["CVE-2099-0003"]);
}

/// The scans run as in a systemd unit or a pipeline: with the written variables or the written configuration only.
#[test]
#[ignore = "tools"]
fn the_written_settings_find_everything_8_days_later() {
    let Trip { importer, config, .. } = Trip::eight_days_ago();
    let home = importer.at("");
    let trivy = format!("{}/trivy", tools());
    finds_everything(&importer, |subcommand| {
        format!("env -i HOME={home} $(cat settings.env) {trivy} {subcommand}")
    });
    finds_everything(&importer, |subcommand| {
        format!("env -i HOME={home} {trivy} {subcommand} --config {config}/trivy.yaml")
    });
}

/// The written environment must be sufficient.
#[test]
#[ignore = "tools"]
fn a_service_without_a_home_finds_everything() {
    let Trip { importer, bundle, public, cache, .. } = Trip::eight_days_ago();
    let data = importer.at("data");
    let again = format!("import {bundle} --trust {public} --cache-dir {cache} --data-home {data}");
    let again = importer.ferry(&format!("{again} --write-env homeless.env --format json"));
    again.exits(0);
    // Only this test has changed the dates of the VEX repository and of the metadata.
    assert!(again.statuses().iter().all(|row| !row.ends_with("failed")), "{again}");
    eight_days_later(&cache);
    let trivy = format!("{}/trivy", tools());
    finds_everything(&importer, |subcommand| format!("env -i $(cat homeless.env) {trivy} {subcommand}"));
}

/// Client and server have only the address in common. Both lines are used as printed.
#[test]
#[ignore = "tools"]
fn a_client_finds_everything_through_its_server() {
    let Trip { importer, import, .. } = Trip::eight_days_ago();
    let image = sample("project/image.tar");
    let server = printed(&import, "server");
    let client = printed(&import, "image --server URL").replace(" URL ", " http://127.0.0.1:4954 ");
    let scan = importer.offline(&format!(
        "ip link set lo up
         {server} --listen 127.0.0.1:4954 & server=$!
         trap 'kill $server' EXIT
         for try in $(seq 100); do
             bash -c 'exec 3<>/dev/tcp/127.0.0.1/4954' 2>/dev/null && break
             kill -0 $server || exit 1
             sleep 0.1
         done
         {client} --format json --input {image}"
    ));
    assert_eq!(findings(scan.exits(0)), ["CVE-2099-0003"]);
}

#[test]
#[ignore = "tools"]
fn images_scanned_before_get_the_new_java_db() {
    let tools = tools();
    let (laptop, importer) = (equipped(&tools), equipped(&tools));
    let (_, public) = laptop.keygen();
    let registry = Registry::distribution(&tools, None);
    let flags = format!("{} --skip trivy-checks,vex-hub", registry.flags());
    let (first, second) = (laptop.dir("first"), laptop.dir("second"));
    registry.publish(&Artifact::db());
    registry.publish(&Artifact::older_java_db());
    laptop.export(&first, &flags);
    registry.publish(&Artifact::java_db());
    laptop.export(&second, &flags);

    let import = |directory: &str, more: &str| {
        let line = format!("import {directory} --trust {public} --cache-dir {} {more}", importer.at("cache"));
        let run = importer.ferry(&format!("{line} --format json"));
        run.exits(0);
        run
    };
    let line = printed(&import(&first, ""), "image");
    let scan = || {
        let image = sample("project/image.tar");
        findings(importer.offline(&format!("{line} --format json --input {image}")).exits(0))
    };
    assert!(scan().is_empty(), "the older database does not contain the jar");
    // The warning is needed, because Trivy does not find the vulnerable JAR file.
    import(&second, "").prints("--clear-scan-cache");
    assert!(scan().is_empty(), "Trivy no longer keeps old results of an image: remove the advice");
    import(&second, "--clear-scan-cache")
        .prints("scan cache was cleared")
        .does_not_say("keep the results of the old");
    assert_eq!(scan(), ["CVE-2099-0003"]);
}
