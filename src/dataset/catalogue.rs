//! The catalogue: what each dataset is called in registries, and which datasets a version of Trivy uses.

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

/// The tag of the trivy-db repository for schema version 2 (Trivy v0.74.0, pkg/db: `SchemaVersion`).
pub const DB_TAG: &str = "2";
/// The tag of the trivy-java-db repository for schema version 1 (Trivy v0.74.0, pkg/javadb).
pub const JAVA_DB_TAG: &str = "1";
/// The version of the VEX repository specification that Trivy reads (Trivy v0.74.0, pkg/vex/repo:
/// `SchemaVersion`).
pub const VEX_SPEC: &str = "0.1";
/// Trivy's default VEX repository (Trivy v0.74.0, pkg/vex/repo/manager.go).
pub const VEX_HUB: &str = "https://github.com/aquasecurity/vexhub";
/// The newest Trivy version whose needs are known here; later ones are taken to be like it.
pub const NEWEST_TRIVY: (u32, u32) = (0, 74);

/// Media type of our artifact for a VEX repository: the OCI manifest's `artifactType`.
pub const VEX_ARTIFACT: &str = "application/vnd.trivy-ferry.vex.repository.v1+json";
/// Media type of the layer that holds `vex-repository.json`.
pub const VEX_MANIFEST_LAYER: &str = "application/vnd.trivy-ferry.vex.manifest.v1+json";
/// Media type of the layer that holds a VEX archive as gzipped tar.
pub const VEX_TAR_LAYER: &str = "application/vnd.trivy-ferry.vex.archive.v1.tar+gzip";
/// Media type of the layer that holds a VEX archive as zip.
pub const VEX_ZIP_LAYER: &str = "application/vnd.trivy-ferry.vex.archive.v1.zip";

impl Kind {
    /// The one media type that Trivy accepts for the layer; `None` for VEX, which Trivy does not
    /// load from registries.
    pub fn layer_media_type(self) -> Option<&'static str> {
        match self {
            Kind::TrivyDb => Some("application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"),
            Kind::TrivyJavaDb => Some("application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip"),
            Kind::TrivyChecks => Some("application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip"),
            Kind::Vex => None,
        }
    }

    /// Upstream's repositories, without tags: first those of Trivy in the order in which it asks them
    /// (Trivy v0.74.0, pkg/flag/db_flags.go and pkg/policy), then its further places of publication.
    /// mirror.gcr.io is a pull-through cache of docker.io.
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

    /// The largest size in bytes that this kind may unpack to: some eight times today's, so that
    /// data that grows still passes and a compression bomb does not.
    pub fn max_unpacked(self) -> u64 {
        match self {
            Kind::TrivyDb | Kind::TrivyJavaDb => 16 << 30,
            Kind::TrivyChecks => 256 << 20,
            Kind::Vex => 2 << 30,
        }
    }

    /// The largest packed layer in bytes.
    pub fn max_packed(self) -> u64 {
        match self {
            Kind::TrivyDb | Kind::TrivyJavaDb => 8 << 30,
            Kind::TrivyChecks => 64 << 20,
            Kind::Vex => 1 << 30,
        }
    }

    /// Whether the layer is one of the two databases: large, and last in a bundle.
    pub fn is_large(self) -> bool {
        matches!(self, Kind::TrivyDb | Kind::TrivyJavaDb)
    }

    /// Checks a manifest by the rules by which Trivy takes it (Trivy v0.74.0, pkg/oci/artifact.go):
    /// one layer, its media type, and a title. Configuration and artifact type vary through
    /// upstream's history and do not matter.
    ///
    /// # Errors
    /// If there is not exactly one layer, or it has another media type, no usable title, or too many bytes.
    /// The text says which.
    pub fn check_manifest(self, manifest: &Manifest) -> Result<(), String> {
        let [layer] = manifest.layers.as_slice() else {
            return Err(format!("it has {} layers, and Trivy takes exactly one", manifest.layers.len()));
        };
        if let Some(wanted) = self.layer_media_type()
            && layer.media_type != wanted
        {
            return Err(format!("its layer is of type {}, and Trivy takes only {wanted}", layer.media_type));
        }
        let title = layer.annotations.get(oci::TITLE).map_or("", String::as_str);
        if title.is_empty() || title.contains(['/', '\\']) || title.contains(char::is_control) {
            return Err(format!("its layer has no usable {} annotation", oci::TITLE));
        }
        if layer.size > self.max_packed() {
            return Err(format!(
                "its layer has {} bytes, more than the {} allowed",
                layer.size,
                self.max_packed()
            ));
        }
        Ok(())
    }
}

/// A Trivy version, as far as it decides anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrivyVersion {
    /// Major version, 0 so far.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

/// A string that is not a Trivy version that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersion {
    /// Not of the form `0.74` or `0.74.0`.
    #[error("not a Trivy version: write it as 0.74 or 0.74.0")]
    Syntax,
    /// Older than the artifacts that this program carries.
    #[error("Trivy before 0.56 took its checks from repositories that are no longer published")]
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
    /// The newest version known here.
    pub fn newest() -> Self {
        TrivyVersion { major: NEWEST_TRIVY.0, minor: NEWEST_TRIVY.1 }
    }

    /// The tag of the checks bundle that this version asks for: 1 from 0.56, 2 from 0.69
    /// (pkg/policy: `BundleVersion` of those releases).
    pub fn checks_tag(self) -> &'static str {
        if self >= (TrivyVersion { major: 0, minor: 69 }) { "2" } else { "1" }
    }
}

impl std::fmt::Display for TrivyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Data older than this is worth a warning, on both sides.
pub(crate) const WARN_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);
