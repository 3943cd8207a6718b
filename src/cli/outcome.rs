//! What a command has to say at its end.

use std::fmt::Display;

use serde::Serialize;

use crate::error::{Category, Error, gravest};
use crate::progress::Progress;

/// What a verb has to say at its end.
#[derive(Debug)]
pub struct CommandOutcome {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: serde_json::Value,
    /// What people have to know beside the text: it goes to stderr. The JSON holds it already.
    pub warnings: Vec<String>,
    /// What went wrong beside it: one bad bundle of several, one target of two.
    pub errors: Vec<Error>,
    /// What goes on once this was said.
    pub then: Option<Continuation>,
}

type Work = dyn FnOnce(&dyn Progress) -> Result<(), Error>;

/// Work that lasts, such as a server's.
pub struct Continuation(pub(crate) Box<Work>);

impl Continuation {
    /// Does it, until it ends.
    ///
    /// # Errors
    /// Whatever ends it too early.
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
    /// The outcome of a verb that did what it was asked to.
    pub(crate) fn done(report: &(impl Display + Serialize)) -> Self {
        // JSON knows no names that are not UTF-8; it says so rather than nothing.
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

    /// The exit code. Of several errors the gravest decides: a failed target before damage, damage
    /// before refusals.
    pub fn exit_code(&self) -> u8 {
        gravest(&self.errors).map_or(0, Category::exit_code)
    }
}
