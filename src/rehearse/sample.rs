//! The sample: four tiny datasets in the format of upstream, and a project in which Trivy finds a vulnerability with
//! them. They are compiled into the program for the rehearsal; `fixtures/generate` creates them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::dataset::{Kind, catalogue};
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Manifest};
use crate::serve::http::{File, Site};

const DB: &[u8] = include_bytes!("../../fixtures/sample/trivy-db/db.tar.gz");
const JAVA_DB: &[u8] = include_bytes!("../../fixtures/sample/trivy-java-db/javadb.tar.gz");
const CHECKS: &[u8] = include_bytes!("../../fixtures/sample/trivy-checks/bundle.tar.gz");
const VEX: &[u8] = include_bytes!("../../fixtures/sample/vex-hub/main.tar.gz");

/// The lock file of the sample project. It names two packages with one known vulnerability each.
pub(crate) const LOCK_FILE: &[u8] = include_bytes!("../../fixtures/sample/project/Gemfile.lock");
/// The vulnerability that a scan of [`LOCK_FILE`] finds.
pub(crate) const FOUND: &str = "CVE-2099-0001";
/// The repositories of the registry that serves the sample, without tags.
pub(crate) const REPOSITORIES: [(&str, Kind); 3] = [
    ("sample/trivy-db", Kind::TrivyDb),
    ("sample/trivy-java-db", Kind::TrivyJavaDb),
    ("sample/trivy-checks", Kind::TrivyChecks),
];

/// Returns the files for a server at `address`.
pub(crate) fn site(address: SocketAddr) -> Site {
    const EMPTY: &[u8] = b"{}";
    let mut site = Site::default();
    for (repository, kind) in REPOSITORIES {
        let (layer, title, tag) = match kind {
            Kind::TrivyDb => (DB, "db.tar.gz", catalogue::DB_TAG),
            Kind::TrivyJavaDb => (JAVA_DB, "javadb.tar.gz", catalogue::JAVA_DB_TAG),
            _ => (CHECKS, "bundle.tar.gz", "2"),
        };
        for blob in [EMPTY, layer] {
            site.blob(repository, Digest::of(blob), Arc::new(Bytes::from_static(blob)));
        }
        let descriptor = |media_type: &str, bytes: &[u8]| Descriptor {
            media_type: media_type.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        };
        let mut layer = descriptor(kind.layer_media_type().unwrap_or_default(), layer);
        layer.annotations.insert(oci::TITLE.into(), title.into());
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(oci::MANIFEST.into()),
            artifact_type: Some("application/vnd.aquasec.trivy.config.v1+json".into()),
            config: descriptor("application/vnd.oci.empty.v1+json", EMPTY),
            layers: vec![layer],
            annotations: BTreeMap::from([(oci::VERSION.to_owned(), "2.0.0".to_owned())]),
        };
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        site.manifest(repository, Some(tag), oci::MANIFEST, bytes);
    }
    let vex = format!(
        r#"{{"name":"Sample VEX","versions":[{{"spec_version":"0.1","locations":[{{"url":"http://{address}/main.tar.gz//vexhub-main"}}],"update_interval":"24h"}}]}}"#
    );
    let file = |bytes: Bytes, media_type| File::Fixed(Arc::new(bytes), media_type);
    site.file(".well-known/vex-repository.json", file(vex.into(), "application/json"));
    site.file("main.tar.gz", file(Bytes::from_static(VEX), "application/gzip"));
    site
}
