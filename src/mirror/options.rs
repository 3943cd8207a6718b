//! The options of a mirror: what is mirrored, from where, and into which registries.

use crate::collect::options::SourceOptions;
use crate::delivery::options::{RegistryOptions, SettingsOptions};
use crate::remote::{RemoteOptions, RetryLimits};
use crate::trust::max_age::MaxAge;

/// What is mirrored, from where, and into which registries.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct MirrorOptions {
    /// The registries that are filled.
    pub registry: RegistryOptions,
    /// Where datasets come from.
    pub sources: SourceOptions,
    /// How sources are reached. It has no login and no client certificate of the registry.
    pub from: RemoteOptions,
    /// How long sources are retried.
    pub limits: RetryLimits,
    /// Rejects data that is older.
    pub max_age: Option<MaxAge>,
    /// Pushes data that is older than what a registry has.
    pub allow_rollback: bool,
    /// Finds out what would be pushed, and pushes nothing.
    pub dry_run: bool,
    /// Where scanner settings are written.
    pub settings: SettingsOptions,
}
