//! Tests of image layouts as other tools write them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::hint::Hint;
use crate::oci;
use crate::source::tests::testing::*;
use crate::source::*;

/// Writes a blob and returns its descriptor.
fn blob(directory: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

/// Writes an artifact with this content and these annotations.
fn entry(directory: &Path, content: &[u8], annotations: &[(&str, &str)]) -> Value {
    blob(directory, "application/vnd.oci.image.layer.v1.tar+gzip", content);
    let mut entry = blob(directory, oci::MANIFEST, &manifest(content));
    for (key, value) in annotations {
        entry["annotations"][key] = json!(value);
    }
    entry
}

fn index(directory: &Path, entries: &[Value]) {
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

/// The digest of the manifest that a name selects.
fn find(directory: &Path, name: &str) -> Result<Digest, String> {
    let text = format!("oci-layout:{}{name}", directory.display());
    let source = ArtifactSource::parse(&text, "2").map_err(|error| error.to_string())?;
    network().resolve(&source).map(|found| found.manifest_digest).map_err(|error| error.to_string())
}

/// `skopeo copy docker://… oci:DIR:ghcr.io/owner/name:2` writes the complete reference (zarf issue 2425).
/// Hauler writes the path without the registry, and the complete name in containerd's annotation (hauler pull
/// requests 320 and 322). A manifest that is referenced only by its digest gets no name (hauler issue 642).
#[test]
fn names_are_found_however_a_tool_writes_them() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let [db, java, bare] = [&b"db"[..], b"java", b"bare"].map(|content| Digest::of(&manifest(content)));
    let skopeo = [
        entry(directory, b"db", &[(oci::REF_NAME, "ghcr.io/aquasecurity/trivy-db:2")]),
        entry(directory, b"java", &[(oci::REF_NAME, "ghcr.io/aquasecurity/trivy-java-db:1")]),
    ];
    let hauler = [
        entry(
            directory,
            b"db",
            &[
                (oci::REF_NAME, "aquasecurity/trivy-db:2"),
                (oci::IMAGE_NAME, "ghcr.io/aquasecurity/trivy-db:2"),
            ],
        ),
        entry(directory, b"java", &[(oci::REF_NAME, "aquasecurity/trivy-java-db:1")]),
        entry(directory, b"bare", &[]),
    ];
    for entries in [&skopeo[..], &hauler] {
        index(directory, entries);
        for name in ["", ":2", ":ghcr.io/aquasecurity/trivy-db:2", ":aquasecurity/trivy-db:2", ":trivy-db:2"]
        {
            assert_eq!(find(directory, name).as_ref(), Ok(&db), "{name}");
        }
        assert_eq!(find(directory, ":ghcr.io/aquasecurity/trivy-java-db:1"), Ok(java));
        assert_eq!(find(directory, &format!(":{java}")), Ok(java));
        assert_eq!(find(directory, &format!(":@{java}")), Ok(java));
        assert!(
            find(directory, ":ghcr.io/other/db:2")
                .unwrap_err()
                .contains("it has ghcr.io/aquasecurity/trivy-db:2")
                || entries.len() == 3
        );
        assert!(find(directory, ":rivy-db:2").is_err(), "only complete components match");
    }
    assert_eq!(find(directory, &format!(":{bare}")), Ok(bare));
    let unknown = Digest::of(b"unknown");
    assert!(find(directory, &format!(":{unknown}")).unwrap_err().contains("has the digest"));
    // The tag alone matches two manifests.
    index(
        directory,
        &[
            entry(directory, b"db", &[(oci::REF_NAME, "ghcr.io/aquasecurity/trivy-db:2")]),
            entry(directory, b"java", &[(oci::REF_NAME, "ghcr.io/aquasecurity/trivy-checks:2")]),
        ],
    );
    assert!(find(directory, ":2").unwrap_err().contains("several manifests"));
    assert_eq!(find(directory, ":trivy-checks:2"), Ok(java));
}

/// `cosign save` writes an index without a name (freedomofpress/dangerzone issue 1068).
#[test]
fn an_index_around_one_manifest_is_followed() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let within = |entries: &[Value]| {
        let nested = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": entries });
        let mut nested = blob(directory, oci::INDEX, nested.to_string().as_bytes());
        nested["annotations"]["kind"] = json!("dev.cosignproject.cosign/imageIndex");
        nested
    };
    let one = within(&[entry(directory, b"db", &[])]);
    let wanted = Digest::of(&manifest(b"db"));
    index(directory, std::slice::from_ref(&one));
    assert_eq!(find(directory, ":2"), Ok(wanted));
    index(directory, &[within(&[one])]);
    assert_eq!(find(directory, ""), Ok(wanted));
    index(directory, &[within(&[entry(directory, b"db", &[]), entry(directory, b"java", &[])])]);
    assert!(find(directory, ":2").is_err(), "an index with two manifests is ambiguous");
}

#[test]
fn the_longest_existing_directory_is_used() {
    let temporary = tempfile::tempdir().unwrap();
    let odd = temporary.path().join("a:b");
    fs::create_dir(&odd).unwrap();
    index(&odd, &[entry(&odd, b"db", &[(oci::REF_NAME, "ghcr.io/x/y:2")])]);
    let wanted = Digest::of(&manifest(b"db"));
    for name in ["", ":2", ":ghcr.io/x/y:2"] {
        assert_eq!(find(&odd, name).as_ref(), Ok(&wanted), "{name}");
    }
    let error = ArtifactSource::parse("oci-archive:/x/y.tar:2", "2").unwrap_err();
    assert!(error.to_string().contains("oci-archive:") && error.hint().contains("Unpack it"), "{error}");
}
