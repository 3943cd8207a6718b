//! A host that reaches both sides mirrors upstream's data into registries, and validates it on the way.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use test_kit::artifact::{Artifact, findings, sample};
use test_kit::host::Host;
use test_kit::http::each_connection;
use test_kit::process::Run;
use test_kit::real::{Distribution, Registry};
use test_kit::tools;
use trivy_ferry::digest::Digest;

use crate::stories::upstream::USERS;
use crate::stories::{bare, equipped};

/// The date of the manifests. As at upstream, a manifest is slightly newer than its content.
const BUILT: &str = "2026-01-15T06:10:00Z";
const BUILT_BEFORE: &str = "2026-01-08T06:10:00Z";

fn artifacts() -> [Artifact; 3] {
    [Artifact::db().created(BUILT), Artifact::java_db().created(BUILT), Artifact::checks("2").created(BUILT)]
}

/// Starts a registry with all three artifacts.
fn upstream(tools: &str) -> Registry {
    let upstream = Registry::distribution(tools, None);
    artifacts().iter().for_each(|artifact| upstream.publish_as_it_is(artifact));
    upstream
}

fn three(status: &str) -> Vec<String> {
    ["trivy-checks", "trivy-db", "trivy-java-db"].map(|name| format!("{name} {status}")).into()
}

/// Returns the status of a dataset in the first registry.
fn status(run: &Run, dataset: &str) -> String {
    let rows = run.statuses();
    let row = rows.iter().find_map(|row| row.strip_prefix(&format!("{dataset} ")));
    row.unwrap_or_else(|| panic!("no {dataset} in\n{run}")).to_owned()
}

fn layer(artifact: &Artifact) -> Digest {
    Digest::of(&artifact.layer)
}

/// Removes a blob from a registry that stores files. Requests for it then fail.
fn lose(registry: &Registry, blob: Digest) {
    let hex = blob.hex();
    let path = format!("registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    fs::remove_file(registry.publisher.at(&path)).unwrap();
}

/// Whether a repository has a blob, as another client sees it.
fn has(registry: &Registry, repository: &str, blob: Digest) -> bool {
    let head = format!("regctl blob head {}/{repository} {blob}", registry.address);
    registry.publisher.sh(&head).code == 0
}

fn has_tag(registry: &Registry, reference: &str) -> bool {
    let digest = format!("crane digest --insecure {}/{reference}", registry.address);
    registry.publisher.sh(&digest).code == 0
}

/// Returns a database that is valid except for its last bytes, which are gzip's checksum and length.
fn bad_at_its_end() -> Artifact {
    let mut bad = Artifact::db().created("2026-01-16T06:10:00Z");
    let at = bad.layer.len() - 6;
    bad.layer[at] ^= 1;
    bad
}

/// Returns a database of many MiB that does not compress.
fn large_db(host: &Host) -> Artifact {
    let small = sample("trivy-db/db.tar.gz");
    host.sh(&format!(
        "mkdir db && tar -xzf {small} -C db && head -c 48M /dev/urandom >>db/trivy.db && \
         tar -C db -czf db.tar.gz trivy.db metadata.json"
    ))
    .exits(0);
    Artifact { layer: fs::read(host.at("db.tar.gz")).unwrap(), ..Artifact::db().created(BUILT) }
}

#[test]
#[ignore = "tools"]
fn mirrored_data_is_identical_to_the_data_of_upstream() {
    let tools = tools();
    for make in [|tools: &str| Registry::distribution(tools, None), Registry::crane] {
        let (upstream, registry) = (upstream(&tools), make(&tools));
        let dmz = bare();
        let mirror = format!(
            "mirror --registry {}/security --extra-tag latest {} --format json",
            registry.address,
            upstream.flags()
        );
        let dry = dmz.ferry(&format!("{mirror} --dry-run"));
        dry.exits(0);
        assert_eq!(dry.statuses(), three("would-push"));
        assert!(!has_tag(&registry, "security/trivy-db:2"), "a dry run pushes nothing");
        assert_eq!(dmz.ferry(&mirror).exits(0).statuses(), three("pushed"));
        for artifact in artifacts() {
            for tag in [artifact.tag.as_str(), "latest"] {
                let reference = format!("security/{}:{tag}", artifact.dataset);
                assert_eq!(registry.digest_of(&reference), artifact.digest(), "{reference}");
            }
            let get = format!("security/{} {} >blob", artifact.dataset, layer(&artifact));
            registry.publisher.sh(&format!("regctl blob get {}/{get}", registry.address)).exits(0);
            assert_eq!(fs::read(registry.publisher.at("blob")).unwrap(), artifact.layer);
        }
        // Existing content is not downloaded again: the source no longer has it.
        let [db, java_db, _] = artifacts();
        lose(&upstream, layer(&db));
        lose(&upstream, layer(&java_db));
        assert_eq!(dmz.ferry(&mirror).exits(0).statuses(), three("unchanged"));
        assert_eq!(fs::read_dir(dmz.at("tmp")).unwrap().count(), 0, "nothing is kept");
    }
}

#[test]
#[ignore = "tools"]
fn content_that_trivy_could_not_use_gets_no_tag() {
    let tools = tools();
    let (upstream, registry, dmz) = (upstream(&tools), Registry::distribution(&tools, None), bare());
    let mirror = format!("mirror --registry {}/security {}", registry.address, upstream.flags());
    let json = format!("{mirror} --format json");
    dmz.ferry(&format!("{mirror} --skip trivy-java-db")).exits(0);

    let bad = bad_at_its_end();
    upstream.publish_as_it_is(&bad);
    let run = dmz.ferry(&json);
    run.exits(3).warns("serves an unusable trivy-db").prints("--skip trivy-db");
    assert_eq!(run.statuses(), ["trivy-checks unchanged", "trivy-db failed", "trivy-java-db pushed"]);
    assert_eq!(run.json()["errors"][0]["kind"], "source", "{run}");
    assert_eq!(registry.digest_of("security/trivy-db:2"), Artifact::db().created(BUILT).digest());
    assert!(!has(&registry, "security/trivy-db", layer(&bad)), "the upload was canceled");

    // A layer that is already in the registry is validated as well.
    fs::write(registry.publisher.at("bad"), &bad.layer).unwrap();
    let put = format!("regctl blob put {}/security/trivy-db <bad", registry.address);
    registry.publisher.sh(&put).exits(0);
    assert_eq!(status(dmz.ferry(&json).exits(3), "trivy-db"), "failed");
    assert_eq!(registry.digest_of("security/trivy-db:2"), Artifact::db().created(BUILT).digest());

    // A valid layer in the registry gets its tag.
    let newer = Artifact::db().created("2026-01-17T06:10:00Z");
    upstream.publish_as_it_is(&newer);
    assert_eq!(status(dmz.ferry(&json).exits(0), "trivy-db"), "pushed");
    assert_eq!(registry.digest_of("security/trivy-db:2"), newer.digest());
}

#[test]
#[ignore = "tools"]
fn if_one_source_serves_bad_data_another_is_used() {
    let tools = tools();
    let (good, bad, registry) =
        (upstream(&tools), Registry::distribution(&tools, None), Registry::distribution(&tools, None));
    // The bad data is newer, and its source is tried first.
    bad.publish_as_it_is(&bad_at_its_end());
    let mirror = format!(
        "mirror --registry {}/security --only trivy-db --plain-http --format json \
         --db-repository {}/aquasec/trivy-db,{}/aquasec/trivy-db",
        registry.address, bad.address, good.address
    );
    let dmz = bare();
    let run = dmz.ferry(&mirror);
    run.exits(0).warns("serves an unusable trivy-db").warns("trying another source");
    assert_eq!(run.statuses(), ["trivy-db pushed"]);
    assert_eq!(
        run.target(0)["datasets"][0]["source"],
        format!("{}/aquasec/trivy-db:2", good.address),
        "{run}"
    );
    assert_eq!(registry.digest_of("security/trivy-db:2"), Artifact::db().created(BUILT).digest());
    assert_eq!(dmz.ferry(&mirror).exits(0).statuses(), ["trivy-db unchanged"]);
}

#[test]
#[ignore = "tools"]
fn newer_data_is_never_replaced_by_older() {
    let tools = tools();
    let (upstream, registry, dmz) = (upstream(&tools), Registry::distribution(&tools, None), bare());
    let mirror =
        format!("mirror --registry {}/security {} --only trivy-db", registry.address, upstream.flags());
    dmz.ferry(&mirror).exits(0);
    let newest = Artifact::db().created(BUILT).digest();

    // A manifest with an older date is not downloaded.
    let older = Artifact::older_db().created(BUILT_BEFORE);
    upstream.publish_as_it_is(&older);
    lose(&upstream, layer(&older));
    dmz.ferry(&mirror).exits(0).prints("skipped").warns("of 2026-01-08 06:10 UTC was not pushed");
    assert_eq!(registry.digest_of("security/trivy-db:2"), newest);

    // A manifest with a newer date is accepted only if its content is newer.
    for created in [None, Some("2026-01-20T00:00:00Z")] {
        upstream.publish_as_it_is(&Artifact { created, ..Artifact::older_db() });
        dmz.ferry(&mirror).exits(0).prints("skipped").warns("of 2026-01-08 06:00 UTC was not pushed");
        assert_eq!(registry.digest_of("security/trivy-db:2"), newest);
        assert!(!has(&registry, "security/trivy-db", layer(&older)), "the upload was canceled");
    }
    let rollback = dmz.ferry(&format!("{mirror} --allow-rollback --format json"));
    rollback.exits(0);
    assert_eq!(rollback.statuses(), ["trivy-db pushed"]);
    assert_ne!(registry.digest_of("security/trivy-db:2"), newest);
}

#[test]
#[ignore = "tools"]
fn the_same_data_under_another_manifest_is_not_older_than_itself() {
    let tools = tools();
    let (upstream, registry, dmz) = (upstream(&tools), Registry::crane(&tools), bare());
    let place = format!("{}/security --format json", registry.address);
    let mirror = format!("mirror {} --registry {place}", upstream.flags());
    dmz.ferry(&mirror).exits(0);
    let compat = format!("{mirror} --compat");
    assert_eq!(dmz.ferry(&compat).exits(0).prints("its manifest was rewritten").statuses(), three("pushed"));
    assert_eq!(dmz.ferry(&compat).exits(0).statuses(), three("unchanged"));
}

#[test]
#[ignore = "tools"]
fn data_that_is_too_old_is_rejected() {
    let tools = tools();
    let (upstream, registry, dmz) = (upstream(&tools), Registry::distribution(&tools, None), bare());
    let mirror = format!("mirror --registry {}/security {}", registry.address, upstream.flags());
    // The date of the manifest is years ahead.
    upstream.publish_as_it_is(&Artifact::db().created("2099-01-01T00:00:00Z"));
    let run = dmz.ferry(&format!("{mirror} --max-age 1h --format json"));
    run.exits(5);
    assert_eq!(run.statuses(), ["trivy-checks pushed", "trivy-db refused", "trivy-java-db pushed"]);
    run.warns("--max-age allows 1 h");
    assert!(!has_tag(&registry, "security/trivy-db:2"));
    assert!(!has(&registry, "security/trivy-db", layer(&Artifact::db())), "the upload was canceled");
    // Data in the registry that has become too old is rejected as well, so that a job fails.
    let aged = format!("{mirror} --max-age trivy-java-db=1h --only trivy-java-db --format json");
    assert_eq!(dmz.ferry(&aged).exits(5).statuses(), ["trivy-java-db refused"]);
}

#[test]
#[ignore = "tools"]
fn a_failure_does_not_affect_other_registries_and_datasets() {
    let tools = tools();
    let upstream = upstream(&tools);
    let (good, locked) = (Registry::crane(&tools), Registry::distribution(&tools, Some(USERS)));
    let dmz = bare();
    // A registry that rejects the login.
    let both = format!("{}/a,{}/b", locked.address, good.address);
    let run = dmz.ferry(&format!("mirror --registry {both} {} --format json", upstream.flags()));
    run.exits(7);
    assert_eq!(run.statuses(), three("failed"));
    assert_eq!(run.target(0)["errors"][0]["exit_code"], 7, "{run}");
    assert_eq!(run.json()["errors"], serde_json::json!([]), "{run}");
    for artifact in artifacts() {
        let reference = format!("b/{}:{}", artifact.dataset, artifact.tag);
        assert_eq!(good.digest_of(&reference), artifact.digest(), "{reference}");
    }
    // A source without the dataset.
    let nothing = format!("{} --java-db-repository {}/no/such", upstream.flags(), upstream.address);
    let nothing =
        nothing.replace(&format!("--java-db-repository {}/aquasec/trivy-java-db", upstream.address), "");
    let mirror = format!("mirror --registry {}/c {nothing} --format json", good.address);
    let run = dmz.ferry(&mirror);
    run.exits(3);
    assert_eq!(run.statuses(), ["trivy-checks pushed", "trivy-db pushed", "trivy-java-db failed"]);
    run.warns(&format!("{}/no/such", upstream.address));
    // The settings for scanners still include data of an earlier run.
    let run = dmz.ferry(&mirror.replace("/c ", "/b "));
    run.exits(3);
    assert!(run.target(0)["commands"].to_string().contains("b/trivy-java-db:1"), "{run}");
}

/// Starts a registry that closes the connection when it has received a part of a layer.
fn dying() -> String {
    each_connection(|mut stream| {
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut piece) {
                Ok(count) if count > 0 => seen.extend_from_slice(&piece[..count]),
                _ => break,
            }
        }
        if seen.starts_with(b"PUT") {
            let _ = stream.read_exact(&mut [0; 1 << 20]);
            return;
        }
        let answer = match seen.starts_with(b"POST") {
            true => "202 Accepted\r\nLocation: /v2/upload",
            false => "404 Not Found",
        };
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes());
    })
}

#[test]
#[ignore = "tools"]
fn a_large_layer_is_pushed_to_several_places_at_once_and_not_stored() {
    let tools = tools();
    let (upstream, registry, dmz) = (upstream(&tools), Registry::distribution(&tools, None), bare());
    let large = large_db(&dmz);
    upstream.publish_as_it_is(&large);
    let (first, second) = (format!("{}/a", registry.address), format!("{}/b", registry.address));
    let mut command = dmz.ferry_command(&format!(
        "mirror --registry {first},{second},{}/c {} --only trivy-db --format json",
        dying(),
        upstream.flags()
    ));
    let ran = Run::of(&mut command, "mirror");
    ran.exits(7);
    println!("peak: {} KiB for {} KiB", ran.peak, large.layer.len() >> 10);
    assert!((1..64 << 10).contains(&ran.peak), "{ran}");
    let report = ran.json();
    let statuses: Vec<&str> =
        (0..3).map(|place| report["targets"][place]["datasets"][0]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["pushed", "pushed", "failed"], "{report:#}");
    for place in ["a", "b"] {
        assert_eq!(registry.digest_of(&format!("{place}/trivy-db:2")), large.digest());
    }
}

#[test]
#[ignore = "tools"]
fn a_source_never_sees_the_registrys_login() {
    let tools = tools();
    // The source would accept this login.
    let (upstream, registry) =
        (Registry::distribution(&tools, Some(USERS)), Registry::distribution(&tools, Some(USERS)));
    crate::stories::upstream::log_in(&upstream.publisher, &upstream.address, "ferry:carried");
    upstream.publish_as_it_is(&Artifact::db());
    let dmz = bare();
    let mirror = |dmz: &Host| {
        let mut command = dmz.ferry_command(&format!(
            "mirror --registry {} {} --only trivy-db --username ferry --password-stdin",
            registry.address,
            upstream.flags()
        ));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"carried\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, said) = mirror(&dmz);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&format!("docker login {}", upstream.address)), "{said}");
    crate::stories::upstream::log_in(&dmz, &upstream.address, "ferry:carried");
    let (code, said) = mirror(&dmz);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pushed") && !said.contains("carried\n"), "{said}");
}

#[test]
#[ignore = "tools"]
fn each_side_has_its_own_flags_for_certificates() {
    let tools = tools();
    let over_tls = || Distribution { tls: true, ..Distribution::default() }.start(&tools);
    let (upstream, registry) = (over_tls(), over_tls());
    upstream.publish_as_it_is(&Artifact::db());
    let dmz = bare();
    let place = format!("--registry {}/tls --only trivy-db", registry.address);
    let mirror = format!("mirror {place} {}", upstream.flags());
    dmz.ferry(&mirror).exits(3).warns("is not trusted");
    // Flags that loosen the rules for the registry do not apply to sources.
    dmz.ferry(&format!("{mirror} --insecure")).exits(3).warns("is not trusted");
    dmz.ferry(&format!("{mirror} --from-insecure")).exits(7).warns("is not trusted");
    let ca = registry.publisher.at("ca.pem");
    let mirror = format!("{mirror} --from-insecure --cacert {ca} --format json");
    let run = dmz.ferry(&mirror);
    run.exits(0);
    assert_eq!(run.statuses(), ["trivy-db pushed"]);
    assert_eq!(registry.digest_of("tls/trivy-db:2"), Artifact::db().digest());
    assert!(!run.target(0)["commands"].to_string().contains("--insecure"), "{run}");
}

#[test]
#[ignore = "tools"]
fn scanners_pull_mirrored_data_with_the_printed_settings() {
    let tools = tools();
    let (upstream, registry, dmz) = (upstream(&tools), Registry::distribution(&tools, None), bare());
    let scanner = equipped(&tools);
    let env = dmz.at("settings.env");
    let mirror = format!("mirror --registry {}/security {}", registry.address, upstream.flags());
    let run = dmz.ferry(&format!("{mirror} --write-env {env} --format json"));
    run.exits(0);
    let commands = run.target(0)["commands"].clone();
    drop(upstream);
    let closed = "HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1";
    let project = sample("project");
    let scan = |subcommand: &str, target: &str| -> Vec<String> {
        let mut lines = commands.as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let line = lines.find(|line| line.starts_with(&format!("trivy {subcommand} "))).unwrap();
        let run = scanner.sh(&format!("{closed} {line} --format json {target}"));
        run.exits(0);
        findings(run.does_not_say("Falling back to embedded checks"))
    };
    assert_eq!(scan("fs", &format!("{project}/Gemfile.lock")), ["CVE-2099-0001", "CVE-2099-0002"]);
    assert_eq!(scan("rootfs", &project), ["CVE-2099-0003"], "by trivy-java-db");
    assert_eq!(scan("config", &project), ["SAMPLE-9999"], "by the mirrored checks");
    let settings = fs::read_to_string(env).unwrap();
    assert!(settings.contains(&format!("TRIVY_DB_REPOSITORY={}/security/trivy-db:2", registry.address)));
}
