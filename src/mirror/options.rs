//! The options of a mirror.

use crate::collect::options::SourceOptions;
use crate::delivery::options::{RegistryOptions, SettingsOptions};
use crate::remote::{RemoteOptions, RetryLimits};
use crate::trust::max_age::MaxAge;

/// The options of a mirror: datasets, sources and registries.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct MirrorOptions {
    /// The registries to fill.
    pub registry: RegistryOptions,
    /// The sources of datasets.
    pub sources: SourceOptions,
    /// Settings for connections to sources, without the login and the client certificate for the registries.
    pub from: RemoteOptions,
    /// Limits for retries and time at sources.
    pub limits: RetryLimits,
    /// Rejects data that is older than this.
    pub max_age: Option<MaxAge>,
    /// Pushes data even if it is older than the existing data of a registry.
    pub allow_rollback: bool,
    /// Reports the datasets that would be pushed, and pushes nothing.
    pub dry_run: bool,
    /// The files for scanner settings.
    pub settings: SettingsOptions,
}
