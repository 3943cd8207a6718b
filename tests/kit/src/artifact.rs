//! OCI artifacts as upstream publishes them, and the sample data.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::host::{Host, read};
use crate::process::Run;
use crate::sha256::{digest, hex};

/// Returns a file of the sample data.
#[must_use]
pub fn sample(path: &str) -> String {
    format!("{}/../../fixtures/sample/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Returns all four datasets with one status.
pub fn all_four(status: &str) -> Vec<String> {
    ["trivy-checks", "trivy-db", "trivy-java-db", "vex-hub"]
        .iter()
        .map(|name| format!("{name} {status}"))
        .collect()
}

/// The forms of upstream's manifests over the years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An empty configuration.
    ZeroByteConfig,
    /// A configuration `{}` whose media type is the artifact's type.
    TypedConfig,
    /// The empty configuration of OCI 1.1, and an `artifactType`.
    ArtifactType,
}

/// An OCI artifact as upstream publishes it.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The dataset's name, such as `trivy-db`.
    pub dataset: &'static str,
    /// Its tag.
    pub tag: String,
    /// The bytes of its one layer.
    pub layer: Vec<u8>,
    /// The form of its manifest.
    pub form: Form,
    /// The time of its build in its manifest.
    pub created: Option<&'static str>,
}

impl Artifact {
    fn new(dataset: &'static str, tag: &str, layer: Vec<u8>) -> Artifact {
        Artifact { dataset, tag: tag.into(), layer, form: Form::ArtifactType, created: None }
    }

    /// Returns the sample of trivy-db.
    pub fn db() -> Artifact {
        Artifact::new("trivy-db", "2", read(sample("trivy-db/db.tar.gz")))
    }

    /// Returns the older sample of trivy-db.
    pub fn older_db() -> Artifact {
        Artifact::new("trivy-db", "2", read(sample("trivy-db/db-older.tar.gz")))
    }

    /// Returns the sample of trivy-java-db.
    pub fn java_db() -> Artifact {
        Artifact::new("trivy-java-db", "1", read(sample("trivy-java-db/javadb.tar.gz")))
    }

    /// Returns the older sample of trivy-java-db.
    pub fn older_java_db() -> Artifact {
        Artifact::new("trivy-java-db", "1", read(sample("trivy-java-db/javadb-older.tar.gz")))
    }

    /// Returns the sample of trivy-checks, under a tag.
    pub fn checks(major: &str) -> Artifact {
        Artifact::new("trivy-checks", major, read(sample("trivy-checks/bundle.tar.gz")))
    }

    /// Returns the same artifact with a manifest of another form.
    pub fn in_form(self, form: Form) -> Artifact {
        Artifact { form, ..self }
    }

    /// Returns the same artifact with a date in its manifest.
    pub fn created(self, date: &'static str) -> Artifact {
        Artifact { created: Some(date), ..self }
    }

    /// Returns the artifact's type, the layer's type, and the layer's file name.
    pub(crate) fn types(&self) -> [&'static str; 3] {
        let aquasec = "application/vnd.aquasec.trivy.config.v1+json";
        match self.dataset {
            "trivy-db" => [aquasec, "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip", "db.tar.gz"],
            "trivy-java-db" => {
                [aquasec, "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip", "javadb.tar.gz"]
            }
            _ => [
                "application/vnd.cncf.openpolicyagent.config.v1+json",
                "application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip",
                "bundle.tar.gz",
            ],
        }
    }

    pub(crate) fn config(&self) -> &'static [u8] {
        if self.form == Form::ZeroByteConfig { b"" } else { b"{}" }
    }

    /// Returns the manifest. It is written by hand, so that each form is exact.
    pub fn manifest(&self) -> Vec<u8> {
        let [artifact_type, layer_type, title] = self.types();
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
        let empty = "application/vnd.oci.empty.v1+json";
        let config_type = if self.form == Form::ArtifactType { empty } else { artifact_type };
        let mut layer = descriptor(layer_type, &self.layer);
        layer["annotations"] = json!({ "org.opencontainers.image.title": title });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config_type, self.config()),
            "layers": [layer],
        });
        if self.form == Form::ArtifactType {
            manifest["artifactType"] = artifact_type.into();
        }
        if self.dataset == "trivy-checks" {
            manifest["annotations"] =
                json!({ "org.opencontainers.image.version": format!("{}.0.0", self.tag) });
        }
        if let Some(date) = self.created {
            manifest["annotations"]["org.opencontainers.image.created"] = date.into();
        }
        serde_json::to_vec(&manifest).unwrap()
    }

    /// Returns the digest of its manifest.
    pub fn digest(&self) -> String {
        digest(self.manifest())
    }

    /// Writes it into an OCI layout below a directory, as another tool would have downloaded it.
    pub fn lay_out(&self, upstream: &str) {
        let directory = format!("{upstream}/{}", self.dataset);
        fs::create_dir_all(format!("{directory}/blobs/sha256")).unwrap();
        fs::write(format!("{directory}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let manifest = self.manifest();
        for bytes in [&manifest[..], self.config(), &self.layer] {
            fs::write(format!("{directory}/blobs/sha256/{}", hex(bytes)), bytes).unwrap();
        }
        let path = format!("{directory}/index.json");
        let mut index = fs::read(&path).map_or_else(
            |_| json!({ "schemaVersion": 2, "manifests": [] }),
            |bytes| serde_json::from_slice(&bytes).unwrap(),
        );
        let entries = index["manifests"].as_array_mut().unwrap();
        let name = json!({ "org.opencontainers.image.ref.name": self.tag });
        entries.retain(|entry| entry["annotations"] != name);
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.digest(),
            "size": manifest.len(),
            "annotations": name,
        }));
        fs::write(path, index.to_string()).unwrap();
    }
}

/// Returns the flags that name upstream: `oci-layout:DIRECTORY`, or `HOST:PORT/aquasec`.
pub fn from_upstream(prefix: &str) -> String {
    let mut flags = String::new();
    for (flag, repository) in [
        ("--db-repository", "trivy-db"),
        ("--java-db-repository", "trivy-java-db"),
        ("--checks-bundle-repository", "trivy-checks"),
    ] {
        write!(flags, "{flag} {prefix}/{repository} ").unwrap();
    }
    flags
}

/// Writes the sample datasets into OCI layouts, and returns the flags that export them with the VEX repository.
/// Needs no tool.
pub fn laid_out(host: &Host) -> String {
    let upstream = host.dir("upstream");
    for artifact in [Artifact::db(), Artifact::java_db(), Artifact::checks("2")] {
        artifact.lay_out(&upstream);
    }
    flags_of(&upstream)
}

/// Returns the flags for layouts in a directory.
pub fn flags_of(upstream: &str) -> String {
    format!("{} --vex default={}", from_upstream(&format!("oci-layout:{upstream}")), sample("vex-hub"))
}

/// Returns the findings of a scan, sorted: identifiers, and `suppressed CVE-…` for those that VEX suppresses.
#[track_caller]
pub fn findings(run: &Run) -> Vec<String> {
    let report = run.json();
    let mut found = Vec::new();
    for result in report["Results"].as_array().into_iter().flatten() {
        let list = |key: &str| result[key].as_array().into_iter().flatten();
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        found.extend(list("Vulnerabilities").map(|finding| id(&finding["VulnerabilityID"])));
        found.extend(list("Misconfigurations").map(|finding| id(&finding["ID"])));
        found.extend(
            list("ExperimentalModifiedFindings")
                .map(|finding| format!("suppressed {}", id(&finding["Finding"]["VulnerabilityID"]))),
        );
    }
    found.sort();
    found.dedup();
    found
}
