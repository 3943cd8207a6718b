//! The command lines of `status` and `forget`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::cli::args::ConnectionFlags;
use crate::cli::args::heading::RUN;
use crate::cli::args::shared::switch;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show and check this target only, such as cache:/var/cache/trivy.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_TARGET", value_name = "TARGET")]
    pub target: Option<String>,
    /// Fail if data in use is older than this, such as 3d.
    ///
    /// Or for each dataset: trivy-db=3d,trivy-java-db=14d. An age without a name is for trivy-db.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Fail if the last heartbeat, or a missing bundle that it announced, is older than this.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_MAX_SILENCE", value_name = "TIME")]
    pub max_silence: Option<Age>,
    /// Also check whether registries still hold the imported data.
    ///
    /// This needs the right to pull.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_CHECK_REGISTRIES", value_parser = switch)]
    pub check_registries: bool,
    /// Write Prometheus metrics to this file, for the textfile collector.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_METRICS", value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// The record of accepted bundles [default: as for `import`].
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
}

/// `forget`
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The target as `status` prints it, or its path, place or port alone.
    pub target: String,
    /// Retire it in this stream only [default: in all].
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_STREAM", value_name = "NAME")]
    pub stream: Option<Stream>,
    /// The record of accepted bundles [default: as for `import`].
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
