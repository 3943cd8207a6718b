//! Options that `import`, `mirror` and `serve` share.

use std::path::PathBuf;
use std::time::Duration;

use crate::bundle::Stream;
use crate::delivery::registry_place::RegistryPlace;
use crate::remote::{RemoteOptions, RetryLimits};
use crate::trust::acceptance::Policy;
use crate::trust::max_age::MaxAge;

/// The registries to push to.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// The places in registries.
    pub places: Vec<RegistryPlace>,
    /// Extra tags for each dataset.
    pub extra_tag: Vec<String>,
    /// Rewrites manifests for registries that reject upstream's.
    pub compat: bool,
    /// The options for connections to the registries.
    pub remote: RemoteOptions,
    /// The retry limits for registries.
    pub limits: RetryLimits,
    /// The time that a registry may take to store a completely received blob. `None` for 5 minutes.
    pub store_timeout: Option<Duration>,
    /// Sends blobs in chunks of this size in bytes, at least 1 MiB. `None` to send each blob in one request, unless a
    /// registry rejects that.
    pub chunk_size: Option<u64>,
}

/// The rules by which bundles are accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AcceptanceOptions {
    /// The stream to import.
    pub stream: Stream,
    /// Rejects data that is older than this.
    pub max_age: Option<MaxAge>,
    /// Accepts a bundle or dataset that is older than the last accepted one.
    pub allow_rollback: bool,
    /// Accepts a bundle whose creation time is ahead of this host's clock.
    pub allow_future: bool,
    /// Accepts a bundle that has expired.
    pub allow_expired: bool,
}

impl AcceptanceOptions {
    /// Creates options that accept bundles of a stream by the default rules.
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

    /// Returns the policy for the trust module.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            stream: self.stream.to_string(),
            allow_rollback: self.allow_rollback,
            allow_future: self.allow_future,
            allow_expired: self.allow_expired,
        }
    }
}

/// The files to which scanner settings are written.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SettingsOptions {
    /// A file for environment variables.
    pub write_env: Option<PathBuf>,
    /// A directory for `trivy.yaml` and the files that it needs.
    pub write_config: Option<PathBuf>,
    /// Overwrites files in that directory that trivy-ferry did not write.
    pub force: bool,
}

impl SettingsOptions {
    /// Whether settings are to be written anywhere.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.write_env.is_some() || self.write_config.is_some()
    }
}
