//! What `status` looks at, and what counts as an error.

use std::path::PathBuf;

use crate::remote::RemoteOptions;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;

/// What [`status`](crate::status::status) looks at.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StatusOptions {
    /// Only this target: its name as the report has it, or its path, place or port alone; `None` for all.
    pub target: Option<String>,
    /// Data in use that is older than this is an error.
    pub max_age: Option<MaxAge>,
    /// A stream whose last heartbeat is older than this is an error.
    pub max_silence: Option<Age>,
    /// Asks registries, too, whether they still hold what was imported; how to reach them.
    pub registries: Option<RemoteOptions>,
    /// A file for metrics in the text format of Prometheus.
    pub metrics: Option<PathBuf>,
    /// Where this host keeps its state; `None` for the default.
    pub state_dir: Option<PathBuf>,
}
