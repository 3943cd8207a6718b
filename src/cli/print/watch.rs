//! The text of the report of `watch --once`.

use std::fmt;

use crate::util::text::{escape, escape_line, with_name};
use crate::watch::report::WatchReport;

impl fmt::Display for WatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.outcomes {
            writeln!(f, "{:<12} {}", row.outcome.as_str(), escape(&row.bundle))?;
            if let Some(why) = &row.why {
                writeln!(f, "  {why}")?;
            }
            writeln!(f, "  see {}", escape_line(&row.reason.display().to_string()))?;
        }
        for waiting in &self.waiting {
            writeln!(f, "{:<12} {}", "waits", with_name(&escape(&waiting.bundle), &waiting.why))?;
        }
        for row in &self.heartbeats {
            writeln!(f, "{}", row.summary())?;
        }
        if self.outcomes.is_empty() && self.waiting.is_empty() && self.heartbeats.is_empty() {
            writeln!(f, "Nothing to import.")?;
        }
        Ok(())
    }
}
