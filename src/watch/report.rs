//! The report of a watch with `once`.
//!
//! This module is plain data. It does not depend on the watch or on the text of the report.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::import::heartbeat;
use crate::watch::reason::Disposition;

/// The report of `watch --once`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WatchReport {
    /// The bundles that were processed or quarantined.
    pub outcomes: Vec<BundleOutcome>,
    /// The bundles that wait.
    pub waiting: Vec<WaitingBundle>,
    /// The heartbeats that were received.
    pub heartbeats: Vec<heartbeat::HeartbeatResult>,
    /// The errors.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// The outcome for a bundle.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BundleOutcome {
    /// Its name.
    pub bundle: String,
    /// The outcome.
    pub outcome: Disposition,
    /// The exit code of its import.
    pub exit_code: u8,
    /// The reason, if it failed.
    pub why: Option<String>,
    /// The path of its `reason.json`.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub reason: PathBuf,
}

/// A bundle that waits in the inbox.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WaitingBundle {
    /// Its name.
    pub bundle: String,
    /// The time for which it has waited, in seconds.
    pub since: u64,
    /// The reason.
    pub why: String,
}
