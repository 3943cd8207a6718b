//! The golden bundles in version 1 of the format. Every later version must be able to read them.
//!
//! `fixtures/golden` has them with the public keys of the two key pairs that signed them. They are
//! never recreated for the same version; a later version adds its own files. The last test compares
//! them with the output of the current code. With `TRIVY_FERRY_MAKE_GOLDEN=1` it writes the files
//! of a new version, and never replaces an existing file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use test_kit::host::Host;
use trivy_ferry::bundle::payload::Blob;
use trivy_ferry::bundle::writer::{BundleInfo, BundlePlan, BundleWriter, PlannedDataset};
use trivy_ferry::bundle::{Dataset, PAYLOAD_TYPE};
use trivy_ferry::dataset::check::UnpackLimits;
use trivy_ferry::dataset::vex::ArchiveFormat;
use trivy_ferry::dataset::{Contents, Discard, Name, catalogue, layer, vex};
use trivy_ferry::digest::Digest;
use trivy_ferry::oci;
use trivy_ferry::trust::envelope::Envelope;
use trivy_ferry::trust::key::SigningKey;

use crate::forge::PROGRAM;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bundles_of_version_1_stay_readable() {
    let host = Host::bare(PROGRAM);
    for (bundle, key) in
        [("v1.tar", "one.pub"), ("v1-two-keys.tar", "one.pub"), ("v1-two-keys.tar", "two.pub")]
    {
        let (bundle, key) = (fixture("golden").join(bundle), fixture("golden").join(key));
        let arguments = ["verify", bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()];
        host.run(&arguments).good().prints("good: 14 members");
    }
}

#[test]
fn a_golden_bundle_installs_exactly_the_sample_files() {
    let host = Host::bare(PROGRAM);
    let (bundle, key) = (fixture("golden/v1.tar"), fixture("golden/one.pub"));
    let arguments = [
        "import",
        bundle.to_str().unwrap(),
        "--trust",
        key.to_str().unwrap(),
        "--cache-dir",
        "cache",
        "--state-dir",
        "state",
    ];
    host.run(&arguments).good();
    let installed = |path: &str| Digest::of(&fs::read(host.path("cache").join(path)).unwrap()).hex();
    // The digests of the files in the sample layers, computed with sha256sum when the bundle was
    // created.
    assert_eq!(installed("db/trivy.db"), "3ec35b6bdf2d29a3effab75dad35f693a071ec0468a055c2456b3c7ee1f7b994");
    assert_eq!(
        installed("java-db/trivy-java.db"),
        "a669ff66a69b5f5bed3d51169e733d9a79740d5eeca80951bd837a2022b9126a"
    );
    let check =
        fs::read_to_string(host.path("cache/policy/content/policies/docker/policies/sample_label.rego"));
    assert!(check.unwrap().contains("SAMPLE-9999"));
    let vex = host.path("cache/vex/repositories/default");
    assert!(vex.join("0.1/pkg/gem/trivy-ferry-sample-settled/sample.openvex.json").is_file());
    let manifest = fs::read(vex.join("vex-repository.json")).unwrap();
    assert_eq!(manifest, fs::read(fixture("golden/vex-repository.json")).unwrap());
}

#[test]
fn a_bundle_is_rejected_with_a_key_that_did_not_sign_it() {
    let host = Host::bare(PROGRAM);
    let (bundle, key) = (fixture("golden/v1.tar"), fixture("golden/two.pub"));
    let run = host.run(&["verify", bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()]);
    run.exits(4).warns("is not signed by a trusted key");
}

/// Runs the shell commands of `docs/security.md` unchanged.
#[test]
#[ignore = "tools"]
fn the_commands_of_the_documentation_verify_a_bundle_without_trivy_ferry() {
    let home = tempfile::tempdir().unwrap();
    let page = fs::read_to_string(fixture("../docs/security.md")).unwrap();
    let mut blocks = page.split("```sh\n").filter_map(|text| text.split("```").next());
    let block = blocks.find(|block| block.contains("printf 'DSSEv1")).unwrap();
    let script = home.path().join("verify.sh");
    fs::write(&script, block).unwrap();
    let verify = |bundle: &Path, key: &str| {
        let key = fixture("golden").join(key);
        let output = Command::new("sh").arg(&script).env("BUNDLE", bundle).env("KEY", key).output().unwrap();
        (output.status.success(), text(&output.stdout))
    };
    let golden = fixture("golden/v1.tar");
    let (good, said) = verify(&golden, "one.pub");
    assert!(good && said.lines().last().unwrap().starts_with("good: payload sha256:"), "{said}");
    assert!(verify(&fixture("golden/v1-two-keys.tar"), "two.pub").0);
    assert!(!verify(&golden, "two.pub").0, "a key that did not sign");
    let damaged = home.path().join("damaged.tar");
    let mut bytes = fs::read(&golden).unwrap();
    let at = bytes.len() - 2048;
    bytes[at] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    assert!(!verify(&damaged, "one.pub").0, "one flipped bit");
}

/// Returns the private key of a pair. These keys are public on purpose, so they must not be trusted
/// anywhere else.
fn key(seed: u8) -> SigningKey {
    use base64::Engine;
    let der =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[seed; 32]].concat();
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    SigningKey::from_pem(&pem, None).unwrap()
}

fn blob(media_type: &str, bytes: &[u8]) -> Blob {
    Blob { media_type: media_type.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// A dataset with its blobs by digest.
type Made = (PlannedDataset, BTreeMap<Digest, Vec<u8>>);

fn made(name: &str, tag: &str, layers: Vec<(String, Vec<u8>)>, contents: Contents) -> Made {
    let name: Name = name.parse().unwrap();
    let config = blob("application/vnd.oci.empty.v1+json", b"{}");
    let descriptor = |blob: &Blob| oci::Descriptor {
        media_type: blob.media_type.clone(),
        digest: blob.digest,
        size: blob.size,
        annotations: BTreeMap::new(),
    };
    let blobs: Vec<Blob> = layers.iter().map(|(media_type, bytes)| blob(media_type, bytes)).collect();
    let manifest = serde_json::to_vec(&oci::Manifest {
        schema_version: 2,
        media_type: Some(oci::MANIFEST.into()),
        artifact_type: None,
        config: descriptor(&config),
        layers: blobs.iter().map(descriptor).collect(),
        annotations: BTreeMap::from([("sample".to_owned(), format!("{name}:{tag}"))]),
    })
    .unwrap();
    let held = layers.into_iter().map(|(_, bytes)| bytes).chain([b"{}".to_vec()]);
    let held = held.map(|bytes| (Digest::of(&bytes), bytes)).collect();
    let dataset = Dataset {
        subdir: name.vex_repository().map(|_| "vexhub-main".parse().unwrap()),
        source: format!("registry.example/{name}:{tag}"),
        name,
        tag: tag.into(),
        manifest: blob(oci::MANIFEST, &manifest),
        config,
        layers: blobs,
        delta: None,
        version: None,
        contents,
    };
    (PlannedDataset { dataset, manifest }, held)
}

fn sample(name: &str, tag: &str, file: &str) -> Made {
    let bytes = fs::read(fixture("sample").join(file)).unwrap();
    let kind = name.parse::<Name>().unwrap().kind();
    let contents = layer::unpack(kind, &bytes[..], UnpackLimits::of(kind), &mut Discard).unwrap();
    made(name, tag, vec![(kind.layer_media_type().unwrap().into(), bytes)], contents)
}

fn sample_vex() -> Made {
    let archive = fs::read(fixture("sample/vex-hub/main.tar.gz")).unwrap();
    let manifest = fs::read(fixture("golden/vex-repository.json")).unwrap();
    let kind = trivy_ferry::dataset::Kind::Vex;
    let limits = UnpackLimits::of(kind);
    let contents =
        vex::unpack(ArchiveFormat::TarGzip, Cursor::new(&archive), "vexhub-main", limits, &mut Discard)
            .unwrap();
    let layers = vec![
        (catalogue::VEX_TAR_LAYER.to_owned(), archive),
        (catalogue::VEX_MANIFEST_LAYER.to_owned(), manifest),
    ];
    made("vex-hub", catalogue::VEX_SPEC, layers, contents)
}

/// Compares bytes with a golden file. With `TRIVY_FERRY_MAKE_GOLDEN=1`, first writes the file if it
/// does not exist.
#[track_caller]
fn golden(name: &str, bytes: impl AsRef<[u8]>) {
    let path = fixture("golden").join(name);
    if std::env::var_os("TRIVY_FERRY_MAKE_GOLDEN").is_some_and(|value| value == "1") && !path.exists() {
        fs::write(&path, &bytes).unwrap();
    }
    assert!(
        fs::read(path).unwrap() == bytes.as_ref(),
        "{name} differs from the output of the current code, so the format has changed. Restore the format, or \
         add golden files for a new version, but never replace this file"
    );
}

#[test]
fn the_current_code_creates_identical_golden_bundles() {
    let samples = [
        sample("trivy-db", "2", "trivy-db/db.tar.gz"),
        sample("trivy-java-db", "1", "trivy-java-db/javadb.tar.gz"),
        sample("trivy-checks", "2", "trivy-checks/bundle.tar.gz"),
        sample_vex(),
    ];
    let head = BundleInfo {
        stream: "default".parse().unwrap(),
        created: "2026-01-15T09:00:00Z".parse().unwrap(),
        expires: None,
        sequence: Some(1),
        previous: None,
        volume_size: None,
        missing: Vec::new(),
    };
    let contents = samples
        .iter()
        .map(|(p, _)| (p.dataset.reference(), p.dataset.contents.clone()))
        .collect::<BTreeMap<_, _>>();
    let plan =
        BundlePlan::new(head, samples.iter().map(|(planned, _)| planned.clone()).collect(), Vec::new())
            .unwrap();
    let blobs: BTreeMap<Digest, Vec<u8>> = samples.into_iter().flat_map(|(_, blobs)| blobs).collect();
    let mut writer = BundleWriter::new(plan, Cursor::new(Vec::new())).unwrap();
    while let Some(member) = writer.wants().cloned() {
        writer.member(&blobs[&member.digest][..]).unwrap();
    }
    let (_, _, out) = writer.finish(contents, &key(1)).unwrap();
    let mut bytes = out.into_inner();
    golden("v1.tar", &bytes);
    // The second signature uses the space that the format reserves, and changes nothing else.
    let capacity = usize::from_str_radix(&text(&bytes[124..135]), 8).unwrap();
    let envelope = Envelope::parse(&bytes[512..512 + capacity]).unwrap();
    let verified = envelope.clone().verify(PAYLOAD_TYPE, [&key(1).public()]).unwrap();
    let envelope = verified.countersigned(&envelope, &key(2)).unwrap().unwrap();
    bytes[512..512 + capacity].copy_from_slice(&envelope.to_bytes(capacity).unwrap());
    golden("v1-two-keys.tar", &bytes);
    for (name, seed) in [("one.pub", 1), ("two.pub", 2)] {
        golden(name, key(seed).public().to_pem());
    }
}
