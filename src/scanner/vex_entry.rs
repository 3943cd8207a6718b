//! The entries of Trivy's VEX configuration.

use crate::scanner::vex_origin::Origin;

/// A repository from a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedRepository {
    /// The name for a new entry: `default` for VEX Hub.
    pub name: String,
    /// The repository's URL for Trivy's configuration.
    pub url: String,
    /// The bundle that contained it, if the URL comes from the bundle and is not Trivy's default.
    pub origin: Option<Origin>,
}

/// One entry of the file (Trivy v0.74.0, `pkg/vex/repo/repo.go`: `Repository`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VexEntry {
    /// The name of its directory in Trivy's cache.
    pub name: String,
    /// The URL from which Trivy would download it.
    pub url: String,
    /// Whether Trivy uses it.
    pub enabled: bool,
    /// The bundle that contained it, if an import added the entry and it was not edited.
    pub origin: Option<Origin>,
}
