//! The entries of Trivy's VEX configuration.

use crate::scanner::vex_origin::Origin;

/// A repository that was carried here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedRepository {
    /// The name for an entry that has to be added: `default` for VEX Hub.
    pub name: String,
    /// The repository's URL as Trivy's configuration has it.
    pub url: String,
    /// The bundle that brought it, if the URL is the bundle's and not Trivy's own default.
    pub origin: Option<Origin>,
}

/// One entry of the file (Trivy v0.74.0, pkg/vex/repo/repo.go: `Repository`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VexEntry {
    /// The folder's name in Trivy's cache.
    pub name: String,
    /// Where Trivy would download it.
    pub url: String,
    /// Whether Trivy uses it.
    pub enabled: bool,
    /// The bundle that brought it, if an import added the entry and nobody has edited it.
    pub origin: Option<Origin>,
}
