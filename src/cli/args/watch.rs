//! The command line of `watch`: which folder, how patiently, and where what comes goes.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::DeliveryFlags;
use crate::cli::args::shared::switch;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// `watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The folder into which bundles, volumes and parity come, from a diode, a share or by hand. What was
    /// imported goes to its folder `processed`, what nobody can use to `quarantine`, each with a reason.json.
    pub inbox: PathBuf,
    /// Look so often, such as 500ms or 10s.
    #[arg(long, default_value = "10s", env = "TRIVY_FERRY_INTERVAL", value_name = "TIME")]
    pub interval: Age,
    /// A file has come when it has not changed for so long, such as 500ms or 10s.
    #[arg(long, default_value = "10s", env = "TRIVY_FERRY_SETTLE", value_name = "TIME")]
    pub settle: Age,
    /// What is incomplete, or still changing, after so long goes to quarantine.
    #[arg(long, default_value = "3d", env = "TRIVY_FERRY_GIVE_UP_AFTER", value_name = "TIME")]
    pub give_up_after: Age,
    /// Keep so many bundles in `processed`, the newest.
    #[arg(long, default_value_t = 3, env = "TRIVY_FERRY_KEEP_PROCESSED", value_name = "NUMBER")]
    pub keep_processed: u32,
    /// Keep so many in `quarantine`.
    #[arg(long, default_value_t = 10, env = "TRIVY_FERRY_KEEP_QUARANTINED", value_name = "NUMBER")]
    pub keep_quarantined: u32,
    /// What waits for the rest may take so much; beyond it, what has waited longest goes to quarantine.
    #[arg(long, env = "TRIVY_FERRY_MAX_WAITING", value_name = "SIZE")]
    pub max_waiting: Option<ByteSize>,
    /// End when all that is here has been dealt with or has to wait for more: for timers.
    #[arg(long, env = "TRIVY_FERRY_ONCE", value_parser = switch)]
    pub once: bool,
    /// Run this shell command after each outcome: TRIVY_FERRY_RESULT is `processed`, `quarantined`, or `failed`
    /// where a target failed and is tried again; TRIVY_FERRY_BUNDLE is the bundle's name, TRIVY_FERRY_REASON the
    /// path of its reason.json.
    #[arg(long, env = "TRIVY_FERRY_EXEC_OUTCOME", value_name = "COMMAND")]
    pub exec_outcome: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub import: DeliveryFlags,
}
