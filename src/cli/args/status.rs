//! The command line of `status`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::cli::args::ConnectionFlags;
use crate::cli::args::shared::switch;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show and judge only this target, such as cache:/var/cache/trivy or registry.example/security.
    #[arg(long, env = "TRIVY_FERRY_TARGET", value_name = "TARGET")]
    pub target: Option<String>,
    /// Fail where data in use is older than this: 3d for trivy-db, or trivy-db=3d,trivy-java-db=14d.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Fail where the last heartbeat is older than this, as when a diode is dead, or the bundle has not come for so long of
    /// which it tells.
    #[arg(long, env = "TRIVY_FERRY_MAX_SILENCE", value_name = "TIME")]
    pub max_silence: Option<Age>,
    /// Ask registries too whether they still hold what was imported. Needs no more than the right to read there.
    #[arg(long, env = "TRIVY_FERRY_REGISTRIES", value_parser = switch)]
    pub registries: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
    /// Write it as metrics as well, for the textfile collector of Prometheus' node exporter.
    #[arg(long, env = "TRIVY_FERRY_METRICS", value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Where this host remembers what it accepted (default: as `import` has it).
    #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// `forget`
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The target, as `status` prints it, or only its path, place or port.
    pub target: String,
    /// Only in this stream (default: in all).
    #[arg(long, env = "TRIVY_FERRY_STREAM", value_name = "NAME")]
    pub stream: Option<Stream>,
    /// Where this host remembers what it accepted (default: as `import` has it).
    #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
