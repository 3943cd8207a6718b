//! Targets: where a bundle's datasets go on the air-gapped side.
//!
//! This room knows datasets and how Trivy keeps them. It knows nothing of bundles and signatures,
//! and it blocks.
//!
//! - [`cache`]: Trivy's cache directory.
//! - [`settings`]: what Trivy must be told so that it uses the data offline.
//! - [`vex_config`]: under which name Trivy looks for a VEX repository.
//! - [`vex_scanner`]: what scanners must know of a web root.
//! - [`place`]: which cache directory Trivy would take by itself.
//! - [`web_root`]: files for a web server.
//! - [`registry`]: an OCI registry.
//! - [`compat`]: a manifest for registries that refuse upstream's.
//! - [`registry_settings`]: what Trivy must be told so that it asks that registry.
//! - `site_settings`: the same for trivy-operator, a Trivy server and Harbor's adapter.

pub mod cache;
pub mod compat;
pub mod error;
mod hint;
pub mod registry;
pub mod web_root;

pub(crate) use crate::util::dir as sys;
pub use crate::util::dir::Owner;
#[cfg(test)]
use crate::util::fault as fail;

pub use cache::{
    Activated, Cache, CacheOptions, Installed, Layout, Metadata, NotAll, Slot, Stage, Switch, View,
};
pub use error::TargetError;
