//! The options of `status`: what it checks, and what counts as an error.

use std::path::PathBuf;

use crate::remote::RemoteOptions;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;

/// What [`status`](crate::status::status) checks.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StatusOptions {
    /// The only target to check: its name as in the report, or only its path, registry or port; `None` for all.
    pub target: Option<String>,
    /// The maximum age of data in use.
    pub max_age: Option<MaxAge>,
    /// The maximum age of a stream's last heartbeat.
    pub max_silence: Option<Age>,
    /// How to reach registries, to check whether they still hold what was imported; `None` if they are not checked.
    pub registries: Option<RemoteOptions>,
    /// A file for metrics in the text format of Prometheus.
    pub metrics: Option<PathBuf>,
    /// Where this host keeps its state; `None` for the default.
    pub state_dir: Option<PathBuf>,
}
