//! Options: the sources of datasets.

use crate::collect::registry_mirror::RegistryMirror;
use crate::dataset::Selection;
use crate::dataset::catalogue::TrivyVersion;

/// Which of Trivy's datasets are fetched, and from where. An empty list of repositories stands for those that
/// Trivy has built in; of several, the first that answers is used.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SourceOptions {
    /// Which datasets.
    pub selection: Selection,
    /// Where trivy-db is: `HOST/REPOSITORY[:TAG]` or `oci-layout:DIR:TAG`.
    pub db_repository: Vec<String>,
    /// Where trivy-java-db is.
    pub java_db_repository: Vec<String>,
    /// Where trivy-checks is. A tag overrides the versions of Trivy.
    pub checks_bundle_repository: Vec<String>,
    /// Pull-through caches that are asked before the registries that they mirror.
    pub registry_mirror: Vec<RegistryMirror>,
    /// The versions of Trivy on the other side; empty for the newest.
    pub trivy_version: Vec<TrivyVersion>,
}
