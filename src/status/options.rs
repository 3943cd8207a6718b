//! The options of `status`: the targets to check, and the limits.

use std::path::PathBuf;

use crate::remote::RemoteOptions;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;

/// The options of [`status`](crate::status::status).
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct StatusOptions {
    /// The only target to check: its name as in the report, or only its path, registry or port; `None` for all.
    pub target: Option<String>,
    /// The maximum age of data in use.
    pub max_age: Option<MaxAge>,
    /// The maximum age of a stream's last heartbeat.
    pub max_silence: Option<Age>,
    /// The connection to registries, to check whether they still hold the imported data; `None` if
    /// they are not checked.
    pub registries: Option<RemoteOptions>,
    /// A file for metrics in the text format of Prometheus.
    pub metrics: Option<PathBuf>,
    /// The state directory; `None` for the default.
    pub state_dir: Option<PathBuf>,
}
