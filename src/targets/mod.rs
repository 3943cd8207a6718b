//! Targets: the destinations of datasets on the air-gapped side.
//!
//! This module handles datasets in the form in which Trivy stores them. It depends neither on bundles nor on
//! signatures. Its functions block.
//!
//! - [`cache`]: the cache directory of Trivy.
//! - [`web_root`]: files for a web server.
//! - [`registry`]: an OCI registry.
//! - [`compat`]: manifests for registries that reject those of upstream.

pub mod cache;
pub mod compat;
pub mod error;
mod hint;
pub mod registry;
pub mod web_root;

pub use crate::util::dir::Owner;

pub use cache::{
    Activated, Cache, CacheOptions, CachedDataset, HARBOR_OWNER, Layout, Metadata, PartialActivation, Slot,
    Stage, Switch, View,
};
pub use error::TargetError;
