//! Options that `import`, `mirror` and `serve` share.

use std::path::PathBuf;
use std::time::Duration;

use crate::bundle::Stream;
use crate::delivery::registry_place::RegistryPlace;
use crate::remote::{RemoteOptions, RetryLimits};
use crate::trust::acceptance::Policy;
use crate::trust::max_age::MaxAge;

/// Registries that are pushed to.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// Where in which registry.
    pub places: Vec<RegistryPlace>,
    /// Further tags for each dataset.
    pub extra_tag: Vec<String>,
    /// Rewrites manifests for registries that refuse those of upstream.
    pub compat: bool,
    /// How the registries are reached.
    pub remote: RemoteOptions,
    /// How long registries are retried.
    pub limits: RetryLimits,
    /// How long a registry may take to store a blob that it has received whole; `None` for 5 minutes.
    pub store_timeout: Option<Duration>,
    /// Sends blobs in chunks of this size, in bytes, and of 1 MiB at least; `None` to send them whole, unless a registry refuses that.
    pub chunk_size: Option<u64>,
}

/// Which bundles are accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AcceptanceOptions {
    /// The stream.
    pub stream: Stream,
    /// Rejects data that is older.
    pub max_age: Option<MaxAge>,
    /// Accepts a bundle or dataset older than the last one.
    pub allow_rollback: bool,
    /// Accepts a bundle that was created after the time of this host's clock.
    pub allow_future: bool,
    /// Accepts a bundle past the date that its exporter gave it.
    pub allow_expired: bool,
}

impl AcceptanceOptions {
    /// Accepts bundles of a stream by the default rules.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        AcceptanceOptions {
            stream,
            max_age: None,
            allow_rollback: false,
            allow_future: false,
            allow_expired: false,
        }
    }

    /// The rules as the trust module knows them.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            stream: self.stream.to_string(),
            allow_rollback: self.allow_rollback,
            allow_future: self.allow_future,
            allow_expired: self.allow_expired,
        }
    }
}

/// Where scanner settings are written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SettingsOptions {
    /// A file for environment variables.
    pub write_env: Option<PathBuf>,
    /// A directory for trivy.yaml and what belongs to it.
    pub write_config: Option<PathBuf>,
    /// Overwrites files in that directory that others wrote.
    pub force: bool,
}

impl SettingsOptions {
    /// Whether settings are to be written anywhere.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.write_env.is_some() || self.write_config.is_some()
    }
}
