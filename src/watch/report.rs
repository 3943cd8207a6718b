//! What `watch --once` says at its end, for people and for programs.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::import::heartbeat;
use crate::watch::reason::Outcome;

/// What `--once` did.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Row>,
    pub(crate) waiting: Vec<Waiting>,
    /// The heartbeats that came.
    pub(crate) heartbeats: Vec<heartbeat::Row>,
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub(crate) errors: Vec<Error>,
}

/// What became of a bundle.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) bundle: String,
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: u8,
    pub(crate) why: Option<String>,
    #[serde(serialize_with = "crate::util::text::path")]
    pub(crate) reason: PathBuf,
}

/// A bundle that is not whole yet.
#[derive(Serialize)]
pub(crate) struct Waiting {
    pub(crate) bundle: String,
    /// For how long, in seconds.
    pub(crate) since: u64,
    pub(crate) why: String,
}
