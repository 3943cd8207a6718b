//! Options: the sources of datasets.

use crate::collect::registry_mirror::RegistryMirror;
use crate::dataset::Selection;
use crate::dataset::catalogue::TrivyVersion;

/// The datasets of Trivy to fetch, and their sources. An empty list of repositories means those that
/// upstream publishes. If a list has several, they are tried in order until one has data of the
/// last 24 hours. If none has, the newest data is used.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SourceOptions {
    /// The datasets to fetch.
    pub selection: Selection,
    /// The sources of trivy-db: `HOST/REPOSITORY[:TAG]` or `oci-layout:DIR:TAG`.
    pub db_repository: Vec<String>,
    /// The sources of trivy-java-db.
    pub java_db_repository: Vec<String>,
    /// The sources of trivy-checks. A tag overrides the versions of Trivy.
    pub checks_bundle_repository: Vec<String>,
    /// Pull-through caches that are tried before the registries that they mirror.
    pub registry_mirror: Vec<RegistryMirror>,
    /// The versions of Trivy at the destination; empty for the newest.
    pub trivy_version: Vec<TrivyVersion>,
}
