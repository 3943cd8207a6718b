//! The repositories from which scanners pull each dataset.

use crate::scanner::vex_entry::CarriedRepository;

/// Where the datasets are, each as `HOST/REPOSITORY:TAG`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PullLocations {
    /// trivy-db.
    pub db: Option<String>,
    /// trivy-java-db.
    pub java_db: Option<String>,
    /// The trivy-checks that suit this Trivy.
    pub checks: Option<String>,
    /// VEX repositories on a web server, under the names that scanners are to know them by.
    pub vex: Vec<CarriedRepository>,
    /// The registry speaks plain HTTP, or shows a certificate that nobody vouches for: Trivy has one
    /// flag for both.
    pub insecure: bool,
}

impl PullLocations {
    /// Whether a registry has any of it.
    pub fn is_in_registry(&self) -> bool {
        self.db.is_some() || self.java_db.is_some() || self.checks.is_some()
    }
}
