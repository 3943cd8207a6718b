//! What Trivy has to be told to use what was imported. Writes its configuration files, and knows no bundle.
//!
//! - [`settings`]: flags and environment that keep Trivy offline with a cache.
//! - [`registry_settings`], `site_settings`, [`pulled`]: the same for the registry of a site, for trivy-operator, a
//!   Trivy server and Harbor's adapter.
//! - [`vex_config`], [`vex_entry`], [`vex_scanner`]: under which name Trivy looks for a VEX repository.
//! - [`default_cache`]: which cache directory Trivy takes by itself; `installed`: which Trivy is here.

pub mod default_cache;
pub(crate) mod installed;
pub mod pulled;
pub mod registry_settings;
pub mod settings;
pub(crate) mod site_settings;
pub mod vex_config;
pub mod vex_entry;
pub(crate) mod vex_origin;
pub mod vex_scanner;
pub(crate) mod vex_yaml;
pub(crate) mod yaml;
