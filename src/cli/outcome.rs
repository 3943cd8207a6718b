//! The outcome of a command: its report as text and JSON, warnings and errors.

use std::fmt::Display;

use serde::Serialize;

use crate::error::{Category, Error, gravest};
use crate::progress::Progress;

/// The outcome of a command.
#[derive(Debug)]
pub struct CommandOutcome {
    /// The report as text.
    pub text: String,
    /// The report as JSON.
    pub json: serde_json::Value,
    /// The warnings, which are printed on stderr with the text. The JSON contains them already.
    pub warnings: Vec<String>,
    /// The errors that did not end the run, such as one damaged bundle of several.
    pub errors: Vec<Error>,
    /// Work that continues after the outcome is printed.
    pub then: Option<Continuation>,
}

type Work = dyn FnOnce(&dyn Progress) -> Result<(), Error>;

/// Work that continues after the outcome is printed, such as a server.
pub struct Continuation(pub(crate) Box<Work>);

impl Continuation {
    /// Runs the work until it ends.
    ///
    /// # Errors
    /// If the work fails.
    pub fn run(self, progress: &dyn Progress) -> Result<(), Error> {
        (self.0)(progress)
    }
}

impl std::fmt::Debug for Continuation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Continuation")
    }
}

impl CommandOutcome {
    /// Creates the outcome of a command that succeeded.
    pub(crate) fn done(report: &(impl Display + Serialize)) -> Self {
        // JSON cannot contain paths that are not UTF-8.
        let json = serde_json::to_value(report).unwrap_or_else(|error| {
            serde_json::json!({ "errors": [{
                "kind": "unexpected",
                "exit_code": 1,
                "what": format!("the report cannot be written as JSON: {error}"),
                "next": "Use --format text, or names that are UTF-8.",
            }] })
        });
        CommandOutcome {
            text: report.to_string(),
            json,
            warnings: Vec::new(),
            errors: Vec::new(),
            then: None,
        }
    }

    /// Returns the exit code of the most severe error: a failed target outranks damage, and damage
    /// outranks rejections.
    pub fn exit_code(&self) -> u8 {
        gravest(&self.errors).map_or(0, Category::exit_code)
    }
}
