//! A site with a registry: the bundle is pushed, and every scanner pulls from there.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use test_kit::artifact::{Artifact, findings, laid_out, sample};
use test_kit::host::Host;
use test_kit::real::{Distribution, Registry};
use test_kit::tools;

use crate::stories::upstream::{USERS, log_in};
use crate::stories::{bare, equipped};

/// Exports a bundle with the sample datasets, and returns it with its public key.
pub fn carried() -> (Host, String, String) {
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let bundle = laptop.export(&laptop.dir("out"), &laid_out(&laptop));
    (laptop, bundle, public)
}

pub fn artifacts() -> [Artifact; 3] {
    [Artifact::db(), Artifact::java_db(), Artifact::checks("2")]
}

/// Returns the statuses after a push of the three artifacts. VEX is not pushed.
pub fn three(status: &str) -> Vec<String> {
    let pushed = ["trivy-checks", "trivy-db", "trivy-java-db"].map(|name| format!("{name} {status}"));
    pushed.into_iter().chain(["vex-hub no-place".to_owned()]).collect()
}

#[test]
#[ignore = "tools"]
fn pushed_data_is_identical_to_the_data_of_upstream() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    for make in [|tools: &str| Registry::distribution(tools, None), Registry::crane] {
        let registry = make(&tools);
        let importer = bare();
        let place = format!("{}/security", registry.address);
        let import = format!("import {bundle} --trust {public} --registry {place} --extra-tag latest,weekly");
        let import = format!("{import} --format json");
        assert_eq!(importer.ferry(&import).exits(0).statuses(), three("pushed"));
        for artifact in artifacts() {
            for tag in [artifact.tag.as_str(), "latest", "weekly"] {
                let reference = format!("security/{}:{tag}", artifact.dataset);
                assert_eq!(registry.digest_of(&reference), artifact.digest(), "{reference}");
            }
            // The layer, as another client downloads it.
            let blob = trivy_ferry::digest::Digest::of(&artifact.layer);
            let get = format!("regctl blob get {place}/{} {blob} >blob", artifact.dataset);
            registry.publisher.sh(&get).exits(0);
            assert_eq!(fs::read(registry.publisher.at("blob")).unwrap(), artifact.layer);
        }
        assert_eq!(importer.ferry(&import).exits(0).statuses(), three("unchanged"));
        // A push depends on the content of the registry: another one is empty, and this one lacks a tag.
        let fresh = make(&tools);
        let other = import.replace(&registry.address, &fresh.address);
        assert_eq!(importer.ferry(&other).exits(0).statuses(), three("pushed"));
        importer
            .ferry(&format!(
                "import {bundle} --trust {public} --registry trivy-db={}/own/db:stable",
                registry.address
            ))
            .exits(0)
            .prints("own/db:stable");
        assert_eq!(registry.digest_of("own/db:stable"), Artifact::db().digest());
        assert!(
            !importer.at("").is_empty() && !std::path::Path::new(&importer.at(".cache")).exists(),
            "no cache is touched"
        );
    }
}

#[test]
#[ignore = "tools"]
fn a_private_ca_is_trusted_if_it_is_given() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let registry = Distribution { tls: true, ..Distribution::default() }.start(&tools);
    let importer = equipped(&tools);
    let import = format!("import {bundle} --trust {public} --registry {}/tls", registry.address);
    importer.ferry(&import).exits(7).warns("is not trusted").warns("--cacert");
    let ca = registry.publisher.at("ca.pem");
    let import = importer.ferry(&format!("{import} --cacert {ca} --format json"));
    import.exits(0);
    assert_eq!(import.statuses(), three("pushed"));
    assert_eq!(registry.digest_of("tls/trivy-db:2"), Artifact::db().digest());
    // Trivy finds the CA where Go looks for it, and needs no flag that accepts any certificate.
    let line = import.target(0)["commands"].as_array().unwrap().iter().find_map(|line| {
        let line = line.as_str().unwrap();
        line.starts_with("trivy fs ").then(|| line.to_owned())
    });
    let line = line.unwrap();
    assert!(!line.contains("--insecure"), "{line}");
    let scan = format!("SSL_CERT_FILE={ca} {line} --format json {}/Gemfile.lock", sample("project"));
    assert_eq!(findings(importer.sh(&scan).exits(0)), ["CVE-2099-0001", "CVE-2099-0002"]);
}

#[test]
#[ignore = "tools"]
fn a_strict_registry_gets_manifests_that_it_accepts() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let registry = Registry::distribution(&tools, None);
    let importer = equipped(&tools);
    let import = format!(
        "import {bundle} --trust {public} --registry {}/strict --compat --format json",
        registry.address
    );
    let first = importer.ferry(&import);
    first.exits(0);
    assert_eq!(first.statuses(), three("pushed"));
    assert!(first.target(0)["advice"].to_string().contains("no artifactType"), "{first}");
    assert_eq!(importer.ferry(&import).exits(0).statuses(), three("unchanged"));
    for artifact in artifacts() {
        let reference = format!("{}/strict/{}:{}", registry.address, artifact.dataset, artifact.tag);
        let manifest =
            registry.publisher.sh(&format!("crane manifest --insecure {reference}")).exits(0).json();
        assert_eq!(
            manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json",
            "{manifest:#}"
        );
        assert!(manifest.get("artifactType").is_none(), "{manifest:#}");
        let layer = trivy_ferry::digest::Digest::of(&artifact.layer).to_string();
        assert_eq!(manifest["layers"][0]["digest"], layer, "{manifest:#}");
        // Other tools accept it as an image.
        registry
            .publisher
            .sh(&format!("crane config --insecure {reference}"))
            .exits(0)
            .prints("architecture");
    }
    let db = format!("--db-repository {}/strict/trivy-db:2 --skip-version-check", registry.address);
    let scan = format!("trivy fs {db} --format json {}/Gemfile.lock", sample("project"));
    assert_eq!(findings(importer.sh(&scan).exits(0)), ["CVE-2099-0001", "CVE-2099-0002"]);
}

#[test]
#[ignore = "tools"]
fn scanners_pull_from_the_registry_with_the_settings_that_were_printed() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let registry = Registry::distribution(&tools, None);
    let importer = equipped(&tools);
    let import = format!("import {bundle} --trust {public} --registry {}/security", registry.address);
    let import =
        format!("{import} --write-env settings.env --write-config {} --format json", importer.dir("config"));
    let import = importer.ferry(&import);
    import.exits(0);
    let commands = import.target(0)["commands"].clone();
    let printed = |subcommand: &str| {
        let mut lines = commands.as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let line = lines.find(|line| line.starts_with(&format!("trivy {subcommand} "))).unwrap();
        line.to_owned()
    };
    // Only loopback can be reached. The proxy for other hosts is a closed port.
    let closed = "HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1";
    let project = sample("project");
    let (home, trivy, config) = (importer.at(""), format!("{tools}/trivy"), importer.at("config"));
    let by_flags = |subcommand: &str| format!("{closed} {}", printed(subcommand));
    let by_env =
        |subcommand: &str| format!("env -i {closed} HOME={home} $(cat settings.env) {trivy} {subcommand}");
    let by_config = |subcommand: &str| {
        format!("env -i {closed} HOME={home} {trivy} {subcommand} --config {config}/trivy.yaml")
    };
    let ways: [&dyn Fn(&str) -> String; 3] = [&by_flags, &by_env, &by_config];
    for way in ways {
        fs::remove_dir_all(importer.at(".cache")).ok();
        let scan = |subcommand: &str, target: &str| -> Vec<String> {
            let line = format!("{} --format json {target}", way(subcommand));
            findings(importer.sh(&line).exits(0).does_not_say("Falling back to embedded checks"))
        };
        assert_eq!(scan("fs", &format!("{project}/Gemfile.lock")), ["CVE-2099-0001", "CVE-2099-0002"]);
        assert_eq!(scan("rootfs", &project), ["CVE-2099-0003"], "by trivy-java-db");
        assert_eq!(scan("config", &project), ["SAMPLE-9999"], "by the pushed checks");
    }
}

#[test]
#[ignore = "tools"]
fn helm_values_and_harbors_environment_name_the_pushed_data() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let registry = Registry::distribution(&tools, None);
    let host = &registry.address;
    let importer = bare();
    let import = format!("import {bundle} --trust {public} --registry {host}/security");
    importer
        .ferry(&format!("{import} --show-settings"))
        .exits(0)
        .prints("--write-config DIR also writes Helm values");
    let config = importer.dir("config");
    let write = format!("{import} --write-config {config}");
    let written = importer.ferry(&format!("{write} --format json")).exits(0).target(0)["written"].clone();
    let names =
        ["trivy.yaml", "trivy-operator-values.yaml", "trivy-server-values.yaml", "harbor-adapter.env"];
    assert_eq!(written, serde_json::json!(names.map(|name| importer.at(format!("config/{name}")))));
    let text = |name: &str| fs::read_to_string(importer.at(format!("config/{name}"))).unwrap();
    for line in [
        format!("  dbRegistry: \"{host}\"\n  dbRepository: \"security/trivy-db:2\"\n"),
        format!("  javaDbRegistry: \"{host}\"\n  javaDbRepository: \"security/trivy-java-db:1\"\n"),
        format!("  registry: \"{host}\"\n  repository: \"security/trivy-checks\"\n  tag: \"2\"\n"),
    ] {
        assert!(text("trivy-operator-values.yaml").contains(&line), "{line}");
    }
    let server = format!("  dbRepository: \"{host}/security/trivy-db:2\"\n");
    assert!(text("trivy-server-values.yaml").contains(&server), "{server}");
    let adapter = format!("SCANNER_TRIVY_JAVA_DB_REPOSITORY={host}/security/trivy-java-db:1\n");
    assert!(text("harbor-adapter.env").contains(&adapter), "{adapter}");

    // Files of trivy-ferry are replaced, other files only with `--force`.
    importer.ferry(&format!("{write} --show-settings")).exits(0).does_not_say("also writes Helm values");
    fs::write(importer.at("config/trivy-server-values.yaml"), "replicaCount: 2\n").unwrap();
    importer.ferry(&write).warns("trivy-server-values.yaml").warns("--force").exits(7);
    assert_eq!(text("trivy-server-values.yaml"), "replicaCount: 2\n");
    importer.ferry(&format!("{write} --force")).exits(0);
    assert!(text("trivy-server-values.yaml").contains(&server));
}

#[test]
#[ignore = "tools"]
fn a_push_needs_an_account_and_does_not_show_its_password() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let registry = Registry::distribution(&tools, Some(USERS));
    let address = &registry.address;
    let importer = bare();
    let import = format!("import {bundle} --trust {public} --registry {address}/security");
    let denied = importer.ferry(&import);
    denied.exits(7);
    denied.warns(&format!("docker login {address}")).warns("--password-stdin");
    log_in(&importer, address, "ferry:forgotten");
    importer.ferry(&import).exits(7).does_not_say("forgotten");
    log_in(&importer, address, "ferry:carried");
    importer.ferry(&import).exits(0).prints("pushed").does_not_say("carried\"");

    let importer = bare();
    let with_password = |password: &str| {
        let line = format!("{import} --username ferry --password-stdin --format json");
        let mut command = importer.command(env!("CARGO_BIN_EXE_trivy-ferry"));
        let mut child = command
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = with_password("open-sesame");
    assert_eq!(code, Some(7), "{said}");
    assert!(!said.contains("open-sesame"), "{said}");
    let (code, said) = with_password("carried");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("unchanged"), "{said}");
    importer.ferry(&format!("{import} --username ferry")).exits(2);
}

#[test]
#[ignore = "tools"]
fn a_failed_target_does_not_affect_the_others() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let (good, locked) = (Registry::crane(&tools), Registry::distribution(&tools, Some(USERS)));
    let importer = bare();
    let run = importer.ferry(&format!(
        "import {bundle} --trust {public} --cache-dir cache --registry {}/a,{}/b --format json",
        locked.address, good.address
    ));
    run.exits(7);
    assert!(run.statuses().iter().all(|row| row.ends_with(" installed")), "{run}");
    assert_eq!(run.target(1)["errors"][0]["exit_code"], 7, "{run}");
    let rows = run.target(2)["datasets"].clone();
    assert!(rows.as_array().unwrap().iter().any(|row| row["status"] == "pushed"), "{run}");
    assert_eq!(good.digest_of("b/trivy-db:2"), Artifact::db().digest());
}

#[test]
#[ignore = "tools"]
fn settings_loosen_the_rules_only_for_the_registry_that_needs_it() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let plain = Registry::distribution(&tools, None);
    let tls = Distribution { tls: true, ..Distribution::default() }.start(&tools);
    let ca = tls.publisher.at("ca.pem");
    let (one, other) = (&plain.address, &tls.address);
    let import = format!("import {bundle} --trust {public} --cacert {ca} --format json");
    let run = bare().ferry(&format!("{import} --registry {one} --registry {other}"));
    run.exits(0);
    let insecure = |index: usize| run.target(index)["commands"].to_string().contains("--insecure");
    assert!(insecure(0) && !insecure(1), "{run}");
}

#[test]
#[ignore = "tools"]
fn the_tag_latest_names_the_higher_of_two_major_versions_of_the_checks() {
    let tools = tools();
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let flags = laid_out(&laptop);
    Artifact::checks("1").lay_out(&laptop.at("upstream"));
    let versions = "--only trivy-checks --trivy-version 0.60,0.74";
    let bundle = laptop.export(&laptop.dir("out"), &format!("{flags} {versions}"));
    let registry = Registry::crane(&tools);
    let importer = bare();
    let place = format!("--registry {}/a --extra-tag latest --format json", registry.address);
    let import = format!("import {bundle} --trust {public} {place}");
    for status in ["pushed", "unchanged"] {
        let both = [format!("trivy-checks {status}"), format!("trivy-checks {status}")];
        assert_eq!(importer.ferry(&import).exits(0).statuses(), both);
        assert_eq!(registry.digest_of("a/trivy-checks:latest"), Artifact::checks("2").digest());
    }
    assert_eq!(registry.digest_of("a/trivy-checks:1"), Artifact::checks("1").digest());
}
