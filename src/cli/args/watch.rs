//! The command line of `watch`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::DeliveryFlags;
use crate::cli::args::heading::INBOX;
use crate::cli::args::shared::switch;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// `watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The directory in which bundles, volumes and parity files arrive.
    ///
    /// Imported bundles move to its directory `processed`, unusable ones to `quarantine`, each with a reason.json.
    pub inbox: PathBuf,
    /// Check the directory this often.
    #[arg(long, help_heading = INBOX, default_value = "10s", env = "TRIVY_FERRY_INTERVAL", value_name = "TIME")]
    pub interval: Age,
    /// Read a file after it has not changed for this long.
    #[arg(long, help_heading = INBOX, default_value = "10s", env = "TRIVY_FERRY_SETTLE", value_name = "TIME")]
    pub settle: Age,
    /// Quarantine a bundle that stays unusable this long.
    #[arg(long, help_heading = INBOX, default_value = "3d", env = "TRIVY_FERRY_GIVE_UP_AFTER", value_name = "TIME")]
    pub give_up_after: Age,
    /// Keep this many of the newest bundles in `processed`.
    #[arg(long, help_heading = INBOX, hide_short_help = true, default_value_t = 3, env = "TRIVY_FERRY_KEEP_PROCESSED", value_name = "NUMBER")]
    pub keep_processed: u32,
    /// Keep this many of the newest bundles in `quarantine`.
    #[arg(long, help_heading = INBOX, hide_short_help = true, default_value_t = 10, env = "TRIVY_FERRY_KEEP_QUARANTINED", value_name = "NUMBER")]
    pub keep_quarantined: u32,
    /// Quarantine the oldest incomplete bundles above this total size.
    #[arg(long, help_heading = INBOX, hide_short_help = true, env = "TRIVY_FERRY_MAX_WAITING", value_name = "SIZE")]
    pub max_waiting: Option<ByteSize>,
    /// Exit instead of waiting for more files; for timers.
    #[arg(long, help_heading = INBOX, env = "TRIVY_FERRY_ONCE", value_parser = switch)]
    pub once: bool,
    /// Run this shell command after each result.
    ///
    /// TRIVY_FERRY_RESULT is `processed`, `quarantined`, or `failed` if a target failed and the import will be retried.
    /// TRIVY_FERRY_BUNDLE is the name of the bundle, TRIVY_FERRY_REASON the path of its reason.json.
    #[arg(long, help_heading = INBOX, env = "TRIVY_FERRY_EXEC_OUTCOME", value_name = "COMMAND")]
    pub exec_outcome: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub import: DeliveryFlags,
}
