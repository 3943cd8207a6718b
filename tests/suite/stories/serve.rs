//! A site with neither a registry nor a web server: `serve` is both, directly from the bundle.

use std::fs;

use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::OciManifest;
use oci_client::secrets::RegistryAuth;
use serde_json::Value;
use test_kit::artifact::{Artifact, all_four, findings, flags_of, sample};
use test_kit::host::{Host, json_file, text};
use test_kit::http::own_address;
use test_kit::process::{Process, Run, wait_for_address};
use test_kit::real::write_certificates;
use test_kit::{needs_root, tools};
use trivy_ferry::digest::Digest;

use crate::stories::registry::{artifacts, carried};
use crate::stories::{bare, equipped};

/// A running `serve` on a host that has its certificates. It ends when dropped.
pub struct Serve {
    /// `127.0.0.1:PORT`.
    pub address: String,
    process: Process,
}

impl Serve {
    /// Starts `serve`. Its output is in the host's files `out` and `log`.
    pub fn start(host: &Host, line: &str) -> Serve {
        Serve::run(host, &mut host.ferry_command(&format!("serve {line}")))
    }

    /// Starts `serve` in a network with loopback only.
    fn start_offline(host: &Host, line: &str) -> Serve {
        let mut command = host.command("unshare");
        let program = env!("CARGO_BIN_EXE_trivy-ferry");
        command.args(["--net", "sh", "-c", &format!("ip link set lo up && exec {program} serve {line}")]);
        Serve::run(host, &mut command)
    }

    fn run(host: &Host, command: &mut std::process::Command) -> Serve {
        let file = |name: &str| fs::File::create(host.at(name)).unwrap();
        let mut process = Process::start(command.stdout(file("out")).stderr(file("log")));
        Serve { address: wait_for_address(process.child(), &host.path("log")), process }
    }

    /// Runs a shell line of a host in the server's network.
    fn beside(&self, host: &Host, line: &str) -> Run {
        let network = format!("--net=/proc/{}/ns/net", self.process.id());
        Run::of(host.command("nsenter").args([&network, "sh", "-c", line]), line)
    }
}

#[test]
#[ignore = "tools"]
fn scanners_need_nothing_but_this_server() {
    let tools = tools();
    needs_root();
    let (_laptop, bundle, public) = carried();
    let importer = equipped(&tools);
    write_certificates(&importer);
    let config = importer.dir("config");
    let serve = Serve::start_offline(
        &importer,
        &format!(
            "{bundle} --trust {public} --listen 127.0.0.1:5000 --tls-cert server.pem --tls-key server.key \
             --write-env settings.env --write-config {config} --format json"
        ),
    );
    assert_eq!(serve.address, "127.0.0.1:5000");
    // The report is one JSON document with everything that is served.
    let target: Value = json_file(importer.at("out"));
    assert_eq!(target["target"], "serve:127.0.0.1:5000");
    let rows = target["datasets"].as_array().unwrap();
    let mut statuses: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}", row["name"].as_str().unwrap(), row["status"].as_str().unwrap()))
        .collect();
    statuses.sort();
    assert_eq!(statuses, all_four("served"));
    let vex = rows.iter().find(|row| row["name"] == "vex-hub").unwrap();
    assert_eq!(vex["reference"], "https://127.0.0.1:5000/vex-hub");

    let printed = |subcommand: &str| {
        let mut lines = target["commands"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        lines.find(|line| line.starts_with(&format!("trivy {subcommand} "))).unwrap().to_owned()
    };
    let by_flags = |subcommand: &str| printed(subcommand);
    let settings = importer.at("settings.env");
    let by_env = |subcommand: &str| format!("env $(cat {settings}) trivy {subcommand}");
    let by_config = |subcommand: &str| format!("trivy {subcommand} --config {config}/trivy.yaml");
    let ways: [&dyn Fn(&str) -> String; 3] = [&by_flags, &by_env, &by_config];
    let project = sample("project");
    for way in ways {
        let scanner = equipped(&tools);
        fs::copy(
            format!("{config}/vex-repository.yaml"),
            format!("{}/repository.yaml", scanner.dir(".trivy/vex")),
        )
        .unwrap();
        let scan = |subcommand: &str, target: &str| {
            let line =
                format!("SSL_CERT_FILE={} {} --format json {target}", importer.at("ca.pem"), way(subcommand));
            findings(serve.beside(&scanner, &line).exits(0).does_not_say("Falling back to embedded checks"))
        };
        let found = scan("fs", &format!("--show-suppressed {project}/Gemfile.lock"));
        assert_eq!(found, ["CVE-2099-0001", "suppressed CVE-2099-0002"], "by trivy-db and vex-hub");
        assert_eq!(scan("rootfs", &project), ["CVE-2099-0003"], "by trivy-java-db");
        assert_eq!(scan("config", &project), ["SAMPLE-9999"], "by trivy-checks");
    }
    // A client that does not trust the CA fails, and the log says so.
    let scanner = equipped(&tools);
    let line = format!("{} {project}/Gemfile.lock", printed("fs"));
    serve.beside(&scanner, &line).fails().warns("certificate");
    assert!(text(importer.at("log")).contains("the TLS handshake failed"), "{}", text(importer.at("log")));
    assert_eq!(serve.process.terminate(), Some(0));
}

#[test]
#[ignore = "tools"]
fn every_client_gets_upstreams_bytes() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let importer = equipped(&tools);
    write_certificates(&importer);
    let tls = "--tls-cert server.pem --tls-key server.key";
    let serve = Serve::start(&importer, &format!("{bundle} --trust {public} --listen 127.0.0.1:0 {tls}"));
    let (host, ca) = (&serve.address, importer.at("ca.pem"));
    let sh = |line: &str| {
        let run = importer.sh(&format!("export SSL_CERT_FILE={ca}; {line}"));
        run.exits(0);
        run
    };
    sh(&format!("regctl registry set --cacert \"$(cat {ca})\" {host}"));
    for artifact in artifacts() {
        let (name, digest) = (artifact.dataset, artifact.digest());
        let reference = format!("{host}/{name}:{}", artifact.tag);
        assert_eq!(sh(&format!("crane digest {reference}")).out.trim(), digest);
        sh(&format!("crane pull --format oci {reference} crane-{name}"));
        sh(&format!("regctl image copy {reference} ocidir://regctl-{name}:1"));
        sh(&format!("skopeo copy docker://{reference} oci:skopeo-{name}:1"));
        for client in ["crane", "regctl", "skopeo"] {
            let index = json_file(importer.at(format!("{client}-{name}/index.json")));
            assert_eq!(index["manifests"][0]["digest"], digest, "{client}");
            let blob = format!("{client}-{name}/blobs/sha256/{}", Digest::of(&artifact.layer).hex());
            assert_eq!(fs::read(importer.at(&blob)).unwrap(), artifact.layer, "{client}");
        }
        assert_eq!(sh(&format!("regctl tag ls {host}/{name}")).out.trim(), artifact.tag);
        // The server is read-only.
        importer.sh(&format!("SSL_CERT_FILE={ca} crane tag {reference} mine")).fails();
    }
    let all = sh(&format!("crane catalog {host}"));
    assert_eq!(all.out, "trivy-checks\ntrivy-db\ntrivy-java-db\nvex-hub\n");
    assert_eq!(serve.process.terminate(), Some(0));
    let log = text(importer.at("log"));
    assert!(!log.contains("broken-off") && !log.contains("error:"), "{log}");
    assert!(log.lines().any(|line| line.contains("skopeo/") && line.contains(" 200 ")), "{log}");
}

#[test]
fn a_client_that_checks_all_that_it_reads_gets_upstreams_bytes() {
    let (_laptop, bundle, public) = carried();
    let importer = bare();
    let serve = Serve::start(&importer, &format!("{bundle} --trust {public} --listen 127.0.0.1:0"));
    // The HTTP client of `oci_client` needs a crypto provider, although no connection uses TLS.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let client = Client::try_from(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for artifact in artifacts() {
        let reference = format!("{}/{}:{}", serve.address, artifact.dataset, artifact.tag).parse().unwrap();
        let layer = runtime.block_on(async {
            let pulled = client.pull_manifest(&reference, &RegistryAuth::Anonymous).await.unwrap();
            assert_eq!(pulled.1, artifact.digest());
            let OciManifest::Image(manifest) = pulled.0 else { panic!("{:?}", pulled.0) };
            let mut layer = Vec::new();
            client.pull_blob(&reference, &manifest.layers[0], &mut layer).await.unwrap();
            layer
        });
        assert_eq!(layer, artifact.layer);
    }
    assert_eq!(serve.process.terminate(), Some(0));
}

/// Runs a `serve` that must end by itself.
fn ended(host: &Host, line: &str) -> Run {
    host.sh(&format!("timeout -s KILL 60 {} serve {line}", env!("CARGO_BIN_EXE_trivy-ferry")))
}

#[test]
fn an_older_bundle_than_the_served_one_is_rejected_even_after_a_restart() {
    let (laptop, first, public) = carried();
    let second = laptop.export(&laptop.dir("second"), &flags_of(&laptop.at("upstream")));
    let importer = bare();
    let address = own_address();
    let line = |bundle: &str| format!("{bundle} --trust {public} --listen {address}");
    let serve = Serve::start(&importer, &line(&second));
    // The address is already in use.
    ended(&importer, &line(&second)).exits(2).warns("cannot listen on").warns("--listen");
    let json = ended(&importer, &format!("{} --format json", line(&second))).exits(2).json();
    assert_eq!(json["errors"][0]["kind"], "usage");
    assert_eq!(serve.process.terminate(), Some(0));

    let rejected = ended(&importer, &format!("{} --format json", line(&first)));
    rejected.exits(5).warns("--allow-rollback");
    assert_eq!(rejected.json()["errors"][0]["kind"], "refused");
    // The same bundle again is not a rollback, and from a directory the newest is served.
    assert_eq!(Serve::start(&importer, &line(&second)).process.terminate(), Some(0));
    fs::copy(&first, laptop.at("second/first.tar")).unwrap();
    assert_eq!(Serve::start(&importer, &line(&laptop.at("second"))).process.terminate(), Some(0));
    assert!(text(importer.at("out")).contains("served"), "{}", text(importer.at("out")));
    let back = Serve::start(&importer, &format!("{} --allow-rollback", line(&first)));
    assert_eq!(back.process.terminate(), Some(0));
}

#[test]
#[ignore = "tools"]
fn only_selected_datasets_are_served() {
    let tools = tools();
    let (_laptop, bundle, public) = carried();
    let importer = equipped(&tools);
    let line = format!("{bundle} --trust {public} --listen 127.0.0.1:0 --only trivy-db");
    let serve = Serve::start(&importer, &line);
    let host = &serve.address;
    assert_eq!(importer.sh(&format!("crane catalog --insecure {host}")).exits(0).out, "trivy-db\n");
    let digest = importer.sh(&format!("crane digest --insecure {host}/trivy-db:2"));
    digest.exits(0);
    assert_eq!(digest.out.trim(), Artifact::db().digest());
    importer.sh(&format!("crane digest --insecure {host}/trivy-checks:2")).fails();
    let out = text(importer.at("out"));
    assert!(out.contains("trivy-db") && !out.contains("vex-hub"), "{out}");
    // A scanner without VEX, with the printed settings.
    let printed = out.lines().find(|line| line.trim_start().starts_with("--db-repository")).map(str::trim);
    let flags = printed.unwrap_or_else(|| panic!("no settings in {out}"));
    let closed = "HTTPS_PROXY=http://127.0.0.1:1 NO_PROXY=127.0.0.1";
    let scan = format!("{closed} trivy fs {flags} --format json {}/Gemfile.lock", sample("project"));
    assert_eq!(findings(importer.sh(&scan).exits(0)), ["CVE-2099-0001", "CVE-2099-0002"]);
    let other = line.replace("trivy-db", "vex-none");
    ended(&importer, &other).exits(2).warns("no bundle here holds");
}
