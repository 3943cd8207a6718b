//! What a watch with `once` did.
//!
//! Plain data: knows neither how it came about nor how it is printed.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::import::heartbeat;
use crate::watch::reason::Disposition;

/// What `--once` did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WatchReport {
    /// The bundles that were dealt with.
    pub outcomes: Vec<BundleOutcome>,
    /// The bundles that wait for more.
    pub waiting: Vec<WaitingBundle>,
    /// The heartbeats that came.
    pub heartbeats: Vec<heartbeat::HeartbeatResult>,
    /// What went wrong.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// What became of a bundle.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct BundleOutcome {
    /// Its name.
    pub bundle: String,
    /// Where it was put.
    pub outcome: Disposition,
    /// The exit code of its import.
    pub exit_code: u8,
    /// Why.
    pub why: Option<String>,
    /// The file that says why.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub reason: PathBuf,
}

/// A bundle that is not complete yet.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct WaitingBundle {
    /// Its name.
    pub bundle: String,
    /// For how long, in seconds.
    pub since: u64,
    /// Why.
    pub why: String,
}
