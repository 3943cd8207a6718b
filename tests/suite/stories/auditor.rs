//! An auditor verifies the results with other tools.

use std::fs;

use test_kit::artifact::{Artifact, Form, laid_out};
use test_kit::host::{Host, json_file, text};
use test_kit::real::Registry;
use test_kit::tools;

use crate::stories::{bare, equipped};

/// Returns the path of the script that verifies a bundle without trivy-ferry.
fn script() -> String {
    format!("{}/tests/verify-with-openssl.sh", env!("CARGO_MANIFEST_DIR"))
}

#[test]
#[ignore = "tools"]
fn a_bundle_is_verified_without_trivy_ferry() {
    let tools = tools();
    let (laptop, auditor) = (bare(), equipped(&tools));
    let (_, public) = laptop.keygen();
    let bundle = laptop.export(&laptop.dir("out"), &laid_out(&laptop));
    let script = script();
    let run = auditor.sh(&format!("{script} {bundle} {public}"));
    run.exits(0);
    let created = json_of_envelope(&auditor, &bundle)["created"].as_str().unwrap().to_owned();
    run.prints(&format!("signature good: {created}")).prints("files good: 12");
    assert!(auditor.sh("ls tmp").out.is_empty(), "the script leaves nothing behind");

    // The script fails with another key, and if any part of the file was changed.
    let (_, other) = auditor.keygen();
    auditor.sh(&format!("{script} {bundle} {other}")).exits(1).warns("NOT signed by");
    let bytes = fs::read(&bundle).unwrap();
    let changed = auditor.at("changed.tar");
    for (what, at) in [
        ("the signature", find(&bytes, b"\"sig\":\"") + 20),
        ("the payload", find(&bytes, b"\"payload\":\"") + 400),
        ("a checksum", find(&bytes, b"  oci-layout\n") - 10),
        ("a small file", find(&bytes, b"imageLayoutVersion") + 3),
        ("a layer", bytes.len() - 1024 - 512),
    ] {
        let mut bytes = bytes.clone();
        // Another letter or digit, so that text stays text.
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        fs::write(&changed, bytes).unwrap();
        auditor.sh(&format!("{script} {changed} {public}")).fails();
        auditor.ferry(&format!("verify {changed} --trust {public}")).exits(4);
        println!("{what}: rejected by both");
    }
    for (what, length) in [("a cut end", bytes.len() - 1024), ("zeros after the end", bytes.len() + 10240)] {
        let mut bytes = bytes.clone();
        bytes.resize(length, 0);
        fs::write(&changed, bytes).unwrap();
        auditor.sh(&format!("{script} {changed} {public}")).fails();
        auditor.ferry(&format!("verify {changed} --trust {public}")).exits(4);
        println!("{what}: rejected by both");
    }
    fs::copy(&bundle, &changed).unwrap();
    auditor.sh("echo x >more && tar rf changed.tar more").exits(0);
    auditor.sh(&format!("{script} {changed} {public}")).fails();
    auditor.ferry(&format!("verify {changed} --trust {public}")).exits(4);
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap()
}

/// Returns the payload, extracted with tar, sed and base64.
fn json_of_envelope(host: &Host, bundle: &str) -> serde_json::Value {
    let envelope = host.sh(&format!("tar xOf {bundle} manifest.dsse.json")).exits(0).json();
    fs::write(host.at("payload"), envelope["payload"].as_str().unwrap()).unwrap();
    host.sh("base64 -d payload").exits(0).json()
}

#[test]
#[ignore = "tools"]
fn keys_are_compatible_with_openssl() {
    let _ = tools();
    let (laptop, auditor) = (bare(), bare());
    let flags = laid_out(&laptop);
    let script = script();
    laptop.sh("openssl genpkey -algorithm ed25519 -out plain.key").exits(0);
    laptop.sh("openssl pkey -in plain.key -pubout -out plain.pub").exits(0);
    laptop.sh("echo correct-horse >words").exits(0);
    laptop.sh("openssl genpkey -algorithm ed25519 -aes256 -pass file:words -out closed.key").exits(0);
    laptop.sh("openssl pkey -in closed.key -passin file:words -pubout -out closed.pub").exits(0);
    for (name, more) in [("plain", ""), ("closed", "--passphrase-file words")] {
        let out = laptop.dir(name);
        let bundle = laptop.export_with(&laptop.at(format!("{name}.key")), &out, &format!("{flags} {more}"));
        let public = laptop.at(format!("{name}.pub"));
        auditor.ferry(&format!("verify {bundle} --trust {public}")).exits(0);
        auditor.sh(&format!("{script} {bundle} {public}")).exits(0);
    }
    let out = laptop.at("plain");
    laptop
        .ferry(&format!("export --key closed.key --output {out} {flags}"))
        .exits(2)
        .warns("closed.key")
        .warns("passphrase");

    // openssl reads keys of trivy-ferry, and computes the same public key.
    laptop.ferry("keygen --name ours").exits(0);
    laptop.ferry("keygen --name ours-closed --passphrase-file words").exits(0);
    for (name, more) in [("ours", ""), ("ours-closed", "-passin file:words")] {
        let seen = laptop.sh(&format!("openssl pkey -in {name}.key {more} -pubout")).exits(0).out.clone();
        assert_eq!(seen, text(laptop.at(format!("{name}.pub"))), "{name}");
    }
    laptop.sh("openssl pkey -in ours-closed.key -passin pass:wrong -pubout").fails();
}

#[test]
#[ignore = "tools"]
fn an_unpacked_bundle_is_an_oci_layout_with_upstreams_bytes() {
    let tools = tools();
    let (laptop, auditor) = (equipped(&tools), equipped(&tools));
    laptop.keygen();
    let registry = Registry::distribution(&tools, None);
    // Both forms of manifests in one layout.
    let artifacts = [
        Artifact::db().in_form(Form::TypedConfig),
        Artifact::java_db(),
        Artifact::checks("2").in_form(Form::TypedConfig),
    ];
    artifacts.iter().for_each(|artifact| registry.publish_as_it_is(artifact));
    let vex = test_kit::artifact::sample("vex-hub");
    let bundle = laptop.export(&laptop.dir("out"), &format!("{} --vex default={vex}", registry.flags()));
    let layout = auditor.dir("layout");
    auditor.sh(&format!("tar xf {bundle} -C {layout} && cd {layout} && sha256sum -c SHA256SUMS")).exits(0);

    let upstream = artifacts.iter().map(|artifact| {
        let reference = format!("{}:{}", registry.repository(artifact), artifact.tag);
        let digest = auditor.sh(&format!("crane digest --insecure {reference}")).exits(0).out.clone();
        (format!("{}-{}", artifact.dataset, artifact.tag), Some(digest.trim().to_owned()))
    });
    let all: Vec<_> = upstream.chain([("vex-hub-0.1".to_owned(), None)]).collect();
    for (name, upstream) in &all {
        let raw = auditor.sh(&format!("skopeo inspect --raw oci:{layout}:{name}")).exits(0).out.clone();
        let seen = auditor.sh(&format!("regctl manifest get --format raw-body ocidir://{layout}:{name}"));
        assert_eq!(seen.exits(0).out, raw, "{name}");
        let digest = trivy_ferry::digest::Digest::of(raw.as_bytes()).to_string();
        if let Some(upstream) = upstream {
            assert_eq!(&digest, upstream, "{name}");
        }
        // skopeo reads and verifies every blob.
        let copy = auditor.at(name);
        auditor
            .sh(&format!("skopeo copy --quiet --preserve-digests oci:{layout}:{name} dir:{copy}"))
            .exits(0);
        assert_eq!(text(format!("{copy}/manifest.json")), raw, "{name}");
        for layer in json_file(format!("{copy}/manifest.json"))["layers"].as_array().unwrap() {
            let hex = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let sum = auditor.sh(&format!("sha256sum {copy}/{hex}")).exits(0).out.clone();
            assert!(sum.starts_with(hex), "{name}: {sum}");
        }
    }
    // The artifacts can be extracted, with upstream's file names.
    auditor.sh(&format!("regctl artifact get --output got ocidir://{layout}:trivy-db-2")).fails();
    let got = auditor.dir("got");
    auditor.sh(&format!("regctl artifact get --output {got} ocidir://{layout}:trivy-db-2")).exits(0);
    assert_eq!(fs::read(format!("{got}/db.tar.gz")).unwrap(), artifacts[0].layer);
}

/// A layout in which skopeo uses a complete reference as the name of an image (zarf issue 2425) is a source.
#[test]
#[ignore = "tools"]
fn a_layout_of_skopeo_is_a_source() {
    let tools = tools();
    let (laptop, with_tools) = (bare(), equipped(&tools));
    let (key, public) = laptop.keygen();
    let bundle = laptop.export(&laptop.dir("out"), &laid_out(&laptop));
    let unpacked = with_tools.dir("unpacked");
    with_tools.sh(&format!("tar xf {bundle} -C {unpacked}")).exits(0);
    let layout = with_tools.at("layout");
    let names = [("trivy-db-2", "trivy-db:2"), ("trivy-java-db-1", "trivy-java-db:1")];
    for (from, to) in names {
        let to = format!("oci:{layout}:ghcr.io/aquasecurity/{to}");
        with_tools.sh(&format!("skopeo copy --quiet oci:{unpacked}:{from} {to}")).exits(0);
    }
    let source = |name: &str| format!("oci-layout:{layout}:ghcr.io/aquasecurity/{name}");
    let flags = format!(
        "--only trivy-db,trivy-java-db --db-repository {} --java-db-repository {}",
        source("trivy-db:2"),
        source("trivy-java-db:1")
    );
    let out = laptop.dir("again");
    laptop.ferry(&format!("export --key {key} --output {out} --stream again {flags}")).exits(0);
    laptop.ferry(&format!("verify {out} --trust {public}")).exits(0).prints("trivy-db-2, trivy-java-db-1");
    // The tag is enough if only one image has it.
    let tag =
        format!("export --key {key} --output tag.tar --only trivy-db --db-repository oci-layout:{layout}:2");
    laptop.ferry(&tag).exits(0);
}
