//! The repositories from which scanners pull each dataset.

use crate::scanner::vex_entry::CarriedRepository;

/// The locations of the datasets, each as `HOST/REPOSITORY:TAG`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullLocations {
    /// trivy-db.
    pub db: Option<String>,
    /// trivy-java-db.
    pub java_db: Option<String>,
    /// The trivy-checks for this version of Trivy.
    pub checks: Option<String>,
    /// VEX repositories on a web server, with their names in the configuration of scanners.
    pub vex: Vec<CarriedRepository>,
    /// Whether the registry uses plain HTTP, or its certificate is not verified. Trivy has one flag for both.
    pub insecure: bool,
}

impl PullLocations {
    /// Whether a registry has any of the databases and checks.
    pub fn is_in_registry(&self) -> bool {
        self.db.is_some() || self.java_db.is_some() || self.checks.is_some()
    }
}
