//! What `watch --once` says at its end, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::commands::heard;
use crate::text::{line, safe};

/// What `--once` did.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) outcomes: Vec<Row>,
    pub(super) waiting: Vec<Waiting>,
    /// The heartbeats that came.
    pub(super) heartbeats: Vec<heard::Row>,
    pub(super) errors: Vec<Value>,
}

/// What became of a bundle.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) bundle: String,
    pub(super) outcome: &'static str,
    pub(super) exit_code: u8,
    pub(super) why: Option<String>,
    #[serde(serialize_with = "crate::text::path")]
    pub(super) reason: PathBuf,
}

/// A bundle that is not whole yet.
#[derive(Serialize)]
pub(super) struct Waiting {
    pub(super) bundle: String,
    /// For how long, in seconds.
    pub(super) since: u64,
    pub(super) why: String,
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
