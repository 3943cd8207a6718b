//! What Trivy has to be told to use what was imported: settings, VEX configuration, its default cache.

pub(crate) mod vex_origin;
pub(crate) mod vex_yaml;
pub(crate) mod yaml;

pub mod vex_scanner;

pub(crate) mod site_settings;
pub mod vex_config;

pub mod registry_settings;

pub mod settings;

pub mod default_cache;
