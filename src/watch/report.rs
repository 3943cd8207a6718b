//! What a watch with `once` did.
//!
//! Plain data: knows neither how it came about nor how it is printed.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::import::heartbeat;
use crate::watch::reason::Outcome;

/// What `--once` did.
#[derive(Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The bundles that were dealt with.
    pub outcomes: Vec<Row>,
    /// The bundles that wait for more.
    pub waiting: Vec<Waiting>,
    /// The heartbeats that came.
    pub heartbeats: Vec<heartbeat::Row>,
    /// What went wrong.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// What became of a bundle.
#[derive(Serialize)]
#[non_exhaustive]
pub struct Row {
    /// Its name.
    pub bundle: String,
    /// Where it was put.
    pub outcome: Outcome,
    /// The exit code of its import.
    pub exit_code: u8,
    /// Why.
    pub why: Option<String>,
    /// The file that says why.
    #[serde(serialize_with = "crate::util::text::path")]
    pub reason: PathBuf,
}

/// A bundle that is not whole yet.
#[derive(Serialize)]
#[non_exhaustive]
pub struct Waiting {
    /// Its name.
    pub bundle: String,
    /// For how long, in seconds.
    pub since: u64,
    /// Why.
    pub why: String,
}
