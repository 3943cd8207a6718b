//! What `watch --once` says at its end, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::import::heartbeat;
use crate::util::text::{line, safe};

/// What `--once` did.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Row>,
    pub(crate) waiting: Vec<Waiting>,
    /// The heartbeats that came.
    pub(crate) heartbeats: Vec<heartbeat::Row>,
    pub(crate) errors: Vec<Value>,
}

/// What became of a bundle.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) bundle: String,
    pub(crate) outcome: &'static str,
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.outcomes {
            writeln!(f, "{:<12} {}", row.outcome, safe(&row.bundle))?;
            if let Some(why) = &row.why {
                writeln!(f, "  {why}")?;
            }
            writeln!(f, "  see {}", line(&row.reason.display().to_string()))?;
        }
        for waiting in &self.waiting {
            writeln!(f, "{:<12} {}: {}", "waits", safe(&waiting.bundle), waiting.why)?;
        }
        for row in &self.heartbeats {
            writeln!(f, "{row}")?;
        }
        if self.outcomes.is_empty() && self.waiting.is_empty() && self.heartbeats.is_empty() {
            writeln!(f, "Nothing has come.")?;
        }
        Ok(())
    }
}
