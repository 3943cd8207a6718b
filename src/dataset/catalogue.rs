//! The names of datasets in registries, and the datasets that a version of Trivy uses. This module makes
//! no requests.

use serde::{Deserialize, Serialize};

use crate::oci::{self, Manifest};

/// The four kinds of data that Trivy uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The vulnerability database, a bbolt file.
    TrivyDb,
    /// The index of Java archives by SHA-1, a SQLite file.
    TrivyJavaDb,
    /// The misconfiguration checks, a tree of Rego and YAML files.
    TrivyChecks,
    /// A repository of VEX documents, a tree of JSON files.
    Vex,
}

/// The tag of the trivy-db repository for schema version 2 (Trivy v0.74.0, `pkg/db`: `SchemaVersion`).
pub const DB_TAG: &str = "2";
/// The tag of the trivy-java-db repository for schema version 1 (Trivy v0.74.0, `pkg/javadb`).
pub const JAVA_DB_TAG: &str = "1";
/// The version of the VEX repository specification that Trivy reads (Trivy v0.74.0, `pkg/vex/repo`:
/// `SchemaVersion`).
pub const VEX_SPEC: &str = "0.1";
/// Trivy's default VEX repository (Trivy v0.74.0, `pkg/vex/repo/manager.go`).
pub const VEX_HUB: &str = "https://github.com/aquasecurity/vexhub";
/// The newest known Trivy version. Later versions are assumed to use the same data.
pub const NEWEST_TRIVY: (u32, u32) = (0, 74);

/// The `artifactType` of the OCI manifest that trivy-ferry writes for a VEX repository.
pub const VEX_ARTIFACT: &str = "application/vnd.trivy-ferry.vex.repository.v1+json";
/// The media type of the layer that holds `vex-repository.json`.
pub const VEX_MANIFEST_LAYER: &str = "application/vnd.trivy-ferry.vex.manifest.v1+json";
/// The media type of the layer that holds a VEX archive as gzipped tar.
pub const VEX_TAR_LAYER: &str = "application/vnd.trivy-ferry.vex.archive.v1.tar+gzip";
/// The media type of the layer that holds a VEX archive as zip.
pub const VEX_ZIP_LAYER: &str = "application/vnd.trivy-ferry.vex.archive.v1.zip";

impl Kind {
    /// Returns the only media type that Trivy accepts for the layer. `None` for VEX, which Trivy does not load from
    /// registries.
    pub fn layer_media_type(self) -> Option<&'static str> {
        match self {
            Kind::TrivyDb => Some("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"),
            Kind::TrivyJavaDb => Some("application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip"),
            Kind::TrivyChecks => Some("application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip"),
            Kind::Vex => None,
        }
    }

    /// Returns the default repositories without tags: first those that Trivy uses, in its order (Trivy v0.74.0,
    /// `pkg/flag/db_flags.go` and `pkg/policy`), then other repositories to which upstream publishes. mirror.gcr.io is
    /// a pull-through cache of docker.io.
    pub fn default_repositories(self) -> &'static [&'static str] {
        match self {
            Kind::TrivyDb => &[
                "mirror.gcr.io/aquasec/trivy-db",
                "ghcr.io/aquasecurity/trivy-db",
                "docker.io/aquasec/trivy-db",
                "public.ecr.aws/aquasecurity/trivy-db",
            ],
            Kind::TrivyJavaDb => &[
                "mirror.gcr.io/aquasec/trivy-java-db",
                "ghcr.io/aquasecurity/trivy-java-db",
                "docker.io/aquasec/trivy-java-db",
                "public.ecr.aws/aquasecurity/trivy-java-db",
            ],
            Kind::TrivyChecks => &[
                "mirror.gcr.io/aquasec/trivy-checks",
                "ghcr.io/aquasecurity/trivy-checks",
                "docker.io/aquasec/trivy-checks",
            ],
            Kind::Vex => &[],
        }
    }

    /// Returns the limit for the unpacked size in bytes: about 8 times the current size, so that the data can grow but
    /// a compression bomb is rejected.
    pub fn max_unpacked(self) -> u64 {
        match self {
            Kind::TrivyDb | Kind::TrivyJavaDb => 16 << 30,
            Kind::TrivyChecks => 256 << 20,
            Kind::Vex => 2 << 30,
        }
    }

    /// Returns the limit for the packed layer in bytes.
    pub fn max_packed(self) -> u64 {
        match self {
            Kind::TrivyDb | Kind::TrivyJavaDb => 8 << 30,
            Kind::TrivyChecks => 64 << 20,
            Kind::Vex => 1 << 30,
        }
    }

    /// Whether it is one of the two databases, whose layers are large and follow the other blobs of datasets in a
    /// bundle.
    pub fn is_large(self) -> bool {
        matches!(self, Kind::TrivyDb | Kind::TrivyJavaDb)
    }

    /// Checks a manifest by the rules of Trivy (v0.74.0, `pkg/oci/artifact.go`): one layer, its media type, and a title.
    /// The configuration and the artifact type have varied upstream, and Trivy ignores them.
    ///
    /// # Errors
    /// If there is not exactly one layer, or it has another media type, no usable title, or too many bytes.
    /// The text says which.
    pub fn check_manifest(self, manifest: &Manifest) -> Result<(), String> {
        let [layer] = manifest.layers.as_slice() else {
            return Err(format!("it has {} layers, but Trivy accepts exactly one", manifest.layers.len()));
        };
        if let Some(wanted) = self.layer_media_type()
            && layer.media_type != wanted
        {
            return Err(format!(
                "its layer is of type {}, but Trivy accepts only {wanted}",
                layer.media_type
            ));
        }
        let title = layer.annotations.get(oci::TITLE).map_or("", String::as_str);
        if title.is_empty() || title.contains(['/', '\\']) || title.contains(char::is_control) {
            return Err(format!("its layer has no usable {} annotation", oci::TITLE));
        }
        if layer.size > self.max_packed() {
            return Err(format!("its layer has {} bytes (limit: {})", layer.size, self.max_packed()));
        }
        Ok(())
    }
}

/// The major and minor version of Trivy, which decide the tags of datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrivyVersion {
    /// Major version, 0 so far.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

/// A string that is not a supported Trivy version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersion {
    /// A string that is not of the form `0.74` or `0.74.0`.
    #[error("not a Trivy version: write it as 0.74 or 0.74.0")]
    Syntax,
    /// A version older than the artifacts that trivy-ferry carries.
    #[error("the check repositories of Trivy before 0.56 are no longer published: use Trivy 0.56 or later")]
    TooOld,
}

impl std::str::FromStr for TrivyVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(InvalidVersion::Syntax);
        let version = TrivyVersion { major: number()?, minor: number()? };
        if version < (TrivyVersion { major: 0, minor: 56 }) {
            Err(InvalidVersion::TooOld)
        } else {
            Ok(version)
        }
    }
}

impl TrivyVersion {
    /// Returns the newest known version.
    pub fn newest() -> Self {
        TrivyVersion { major: NEWEST_TRIVY.0, minor: NEWEST_TRIVY.1 }
    }

    /// Returns the tag of the checks bundle that this version requests: 1 from 0.56, 2 from 0.69 (`pkg/policy`:
    /// `BundleVersion` of those releases).
    pub fn checks_tag(self) -> &'static str {
        if self >= (TrivyVersion { major: 0, minor: 69 }) { "2" } else { "1" }
    }
}

impl std::fmt::Display for TrivyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The age of data after which both sides print a warning.
pub(crate) const WARN_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
