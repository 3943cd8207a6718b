//! Sources with one fault: all good data is exported, or the message says how to resolve the
//! problem.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use test_kit::answers;
use test_kit::http::Method;
use test_kit::process::Run;
use test_kit::registry::Registry;
use trivy_ferry::dataset::Kind;
use trivy_ferry::digest::Digest;
use trivy_ferry::oci;

use crate::forge::upstream::Upstream;
use crate::forge::{Archive, Host, days, hours, manifest_of, metadata_json};

fn exporter() -> (Host, Upstream) {
    let host = Host::new();
    host.write_key();
    let upstream = Upstream::new(|_, _| None);
    upstream.publish(1, 1000);
    (host, upstream)
}

/// A registry with an image of one platform and its attestation, in the form of BuildKit. Its
/// repository `proxy/` requests missing content from its upstream, and this fails for the content
/// in `lost`.
fn image_registry(lost: &'static str, code: u16) -> Registry {
    let (layer, provenance) = (b"a layer".as_slice(), b"{\"predicate\":{}}".as_slice());
    let manifest = |layer: &[u8], media_type: &str| {
        let blob = |bytes: &[u8], media_type: &str| json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() });
        let config = blob(b"{}", "application/vnd.oci.image.config.v1+json");
        let manifest = json!({ "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [blob(layer, media_type)] });
        manifest.to_string().into_bytes()
    };
    let image = manifest(layer, "application/vnd.oci.image.layer.v1.tar+gzip");
    let attestation = manifest(provenance, "application/vnd.in-toto+json");
    let entry = |manifest: &[u8], os: &str, architecture: &str| {
        json!({ "mediaType": oci::MANIFEST, "digest": Digest::of(manifest), "size": manifest.len(),
            "platform": { "os": os, "architecture": architecture } })
    };
    let mut below = entry(&attestation, "unknown", "unknown");
    below["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": Digest::of(&image) });
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [entry(&image, "linux", "amd64"), below] });
    let broken = match lost {
        "attestation" => Digest::of(&attestation),
        "image" => Digest::of(&image),
        _ => Digest::of(b"nothing"),
    };
    let registry = Registry::new(move |seen| {
        let is_lost = seen.method == Method::GET && seen.path.ends_with(&format!("/manifests/{broken}"));
        is_lost.then(|| answers::status(code))
    });
    for blob in [layer, provenance, b"{}"] {
        registry.keep("proxy/tool", blob);
    }
    for manifest in [&image, &attestation] {
        registry.name(&format!("proxy/tool:{}", Digest::of(manifest)), manifest.clone());
    }
    registry.name("proxy/tool:1", index.to_string().into_bytes());
    registry
}

fn export_image(host: &Host, upstream: &Upstream, registry: &Registry, more: &[&str]) -> Run {
    let image = format!("tool.example/tool:1={}/proxy/tool:1", registry.host);
    let flags = [&["--image", &image, "--retries", "0", "--require", "all"], more].concat();
    host.export(upstream, &flags)
}

/// A proxy repository of Nexus requests `sha256-…` in place of `sha256:…` from its upstream if a
/// client requests an attestation, and returns upstream's 404 (sonatype/nexus-public issue 1070).
/// All other content is available.
#[test]
fn the_error_for_an_attestation_that_a_proxy_repository_cannot_fetch_names_the_platform_flag() {
    for code in [404, 403, 500] {
        let (host, upstream) = exporter();
        let registry = image_registry("attestation", code);
        let ran = export_image(&host, &upstream, &registry, &[]);
        ran.exits(3).warns("tool").warns("its attestation (a manifest for no platform)").warns("--platform");
        // If the image is not required, the other data is exported without it.
        let image = format!("tool.example/tool:1={}/proxy/tool:1", registry.host);
        let ran = host.export(&upstream, &["--image", &image, "--retries", "0"]);
        ran.exits(3).warns("--platform");
        assert_eq!(ran.json()["missing"][0]["name"], "tool.example/tool:1", "{ran}");
        // The hint of the message works, from export to import.
        host.wait(2);
        let ran = export_image(&host, &upstream, &registry, &["--platform", "linux/amd64"]);
        let bundle = ran.good().json()["bundle"]["path"].as_str().unwrap().to_owned();
        let site = Registry::new(|_| None);
        let place = format!("{}/site", site.host);
        let to =
            ["import", &bundle, "--trust", "keys/exporter.pub", "--state-dir", "site", "--registry", &place];
        host.run(&[&to[..], &["--plain-http", "--image", "*"]].concat()).good();
        let pushed: Value = serde_json::from_slice(&site.manifest("site/tool.example/tool:1")).unwrap();
        assert_eq!(pushed["mediaType"], oci::MANIFEST, "{pushed}");
    }
    // A missing manifest of a platform is named as such. A missing manifest that was not requested
    // causes no error.
    let (host, upstream) = exporter();
    let registry = image_registry("image", 404);
    export_image(&host, &upstream, &registry, &[])
        .exits(3)
        .warns("its manifest for linux/amd64")
        .warns("--platform");
    let whole = image_registry("nothing", 404);
    export_image(&host, &upstream, &whole, &[]).good();
}

/// Returns a `trivy-java.db` that SQLite has created, with this number of tables and indexes beside
/// those of Trivy.
fn java_db(page_size: u32, others: usize, leave_out: &str) -> Vec<u8> {
    let script = r#"
import os, sqlite3, sys, tempfile
size, others, without = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with tempfile.TemporaryDirectory() as d:
    path = os.path.join(d, "x.db")
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA page_size={size}")
    for n in range(others):
        db.execute(f"CREATE TABLE other_{n}(id INTEGER PRIMARY KEY, a_column_with_a_long_name_{n} TEXT)")
        db.execute(f"CREATE INDEX other_{n}_idx ON other_{n}(a_column_with_a_long_name_{n})")
    if without != "artifacts":
        db.execute("CREATE TABLE artifacts(id INTEGER PRIMARY KEY, group_id TEXT, artifact_id TEXT)")
        db.executemany("INSERT INTO artifacts VALUES (?,?,?)", [(n, f"org.example{n}", "a") for n in range(1, 100)])
    if without != "indices":
        db.execute("CREATE TABLE indices(artifact_id INTEGER, version TEXT, sha1 BLOB, archive_type TEXT)")
        db.executemany("INSERT INTO indices VALUES (?,?,?,?)", [(n, "1", bytes([n]) * 20, "jar") for n in range(1, 100)])
    db.commit()
    db.close()
    sys.stdout.buffer.write(open(path, "rb").read())
"#;
    let mut python = Command::new("python3");
    python.args(["-", &page_size.to_string(), &others.to_string(), leave_out]);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// The schema of a `trivy-java.db` may be larger than its first page (SQLite, "Database File
/// Format": the schema table is a b-tree like any other).
#[test]
#[ignore = "tools"]
fn a_java_database_whose_schema_has_several_pages_is_exported() {
    const TABLE_INNER: u8 = 0x05;
    let publish = |upstream: &Upstream, database: &[u8], generation: i64| {
        let date = days(-2) + jiff::SignedDuration::from_mins(generation);
        let archive = Archive::new().file("trivy-java.db", database);
        let layer = archive.file("metadata.json", &metadata_json(1, date)).pack();
        let manifest = manifest_of(Kind::TrivyJavaDb.layer_media_type().unwrap(), &layer, Some(hours(-1)));
        upstream.put("/v2/java/manifests/1", manifest);
        upstream.put(&format!("/v2/java/blobs/{}", Digest::of(&layer)), layer);
    };
    for (generation, (page_size, others)) in [(512, 8), (4096, 60), (65536, 700)].into_iter().enumerate() {
        let database = java_db(page_size, others, "");
        assert_eq!(database[100], TABLE_INNER, "the schema takes more than one page: {page_size}");
        let (host, upstream) = exporter();
        publish(&upstream, &database, generation as i64);
        let ran = host.export(&upstream, &["--only", "trivy-java-db"]);
        let bundle = ran.good().json()["bundle"]["path"].as_str().unwrap().to_owned();
        host.import(bundle.as_ref(), &[]).good().prints("trivy-java-db   installed");
        assert!(test_kit::host::read(host.path("cache/java-db/trivy-java.db")) == database);
    }
    // A missing table is also detected if the schema has several pages.
    for without in ["artifacts", "indices"] {
        let (host, upstream) = exporter();
        publish(&upstream, &java_db(4096, 60, without), 0);
        host.export(&upstream, &["--only", "trivy-java-db"]).exits(3).warns("table").warns(without);
    }
}
