//! Scanner settings: how Trivy finds the imported data.
//!
//! This module writes configuration files of Trivy. It refers to cache directories and registries
//! by name, and does not use bundles.
//!
//! - [`settings`]: flags and environment that keep Trivy offline with a cache.
//! - [`registry_settings`], `config_files`, [`pull_locations`]: the same for a local registry, for trivy-operator,
//! a Trivy server and Harbor's adapter.
//! - [`vex_config`], [`vex_entry`], [`vex_scanner`]: the name under which Trivy looks for a VEX repository.
//! - [`default_cache`]: the cache directory that Trivy uses by default; `installed`: the version of Trivy
//!   on this host.

pub(crate) mod config_files;
pub mod default_cache;
pub(crate) mod installed;
pub mod pull_locations;
pub mod registry_settings;
pub mod settings;
pub mod vex_config;
pub mod vex_entry;
pub(crate) mod vex_origin;
pub mod vex_scanner;
pub(crate) mod vex_yaml;
pub(crate) mod yaml;
