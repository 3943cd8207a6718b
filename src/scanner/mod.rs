//! What Trivy has to be told to use what was imported: settings, VEX configuration, its default cache.

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
