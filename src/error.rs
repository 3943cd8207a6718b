//! The error of a whole command: which kind it is, its exit code, and its two sentences.
//!
//! Each module that can fail has an error type of its own; this one only sorts them. An error is shown as two
//! sentences: what failed (its `Display`) and what to do about it ([`Hint::hint`]).

use std::any::Any;
use std::io;

use crate::bundle::BundleError;
use crate::hint::Hint;
use crate::remote::{RemoteError, Retry};
use crate::serve::http::ServeError;
use crate::source::SourceError;
use crate::targets::TargetError;
use crate::trust::{Rejection, TrustError};
use crate::util::text::escape_line;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that should not happen: an operating-system error where none is expected.
    #[error("{doing}: {error}")]
    Unexpected {
        /// What was being done, with the file's name.
        doing: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The command line or the set-up is wrong: two flags that clash, a name that is none.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A key or the state cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A source served content that Trivy could not use.
    #[error("{source_name} serves a bad {dataset}: {why}")]
    Content {
        /// Which dataset.
        dataset: String,
        /// From where.
        source_name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A bundle is damaged, or not signed by a trusted key.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A genuine bundle is not acceptable.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The way to a server could not be prepared, or an address is none.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A server could not be started.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// An error in other words.
    #[error("{what}")]
    Restated {
        /// What failed.
        what: String,
        /// What to do about it.
        hint: String,
        /// The error itself.
        original: Box<Error>,
    },
    /// The operator's command at the end failed.
    #[error("{done}, and `{command}` failed: {what}")]
    Hook {
        /// What went well before.
        done: &'static str,
        /// Whether the next run runs it again.
        retried: bool,
        /// The command.
        command: String,
        /// How it failed.
        what: String,
    },
    /// The destination of an export failed.
    #[error("{path}: {what}")]
    Destination {
        /// Which file or folder.
        path: std::path::PathBuf,
        /// What happened.
        what: String,
        /// What to do about it.
        hint: String,
    },
}

impl Error {
    /// A usage error.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Usage { what: what.into(), hint: hint.into() }
    }

    /// An unexpected error of the system.
    pub fn unexpected(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |error| Error::Unexpected { doing, error }
    }

    /// What it means that small blobs could not be held in memory or in a temporary file.
    pub(crate) fn spooling(error: std::io::Error) -> Self {
        Error::Unexpected {
            doing: format!("holding small blobs in {}", std::env::temp_dir().display()),
            error,
        }
    }

    /// The same error, with some text in its words replaced.
    pub fn restated(self, from: &str, to: &str) -> Self {
        let (what, hint) = (self.to_string().replace(from, to), self.hint().replace(from, to));
        Error::Restated { what, hint, original: Box::new(self) }
    }

    /// Returns the error with the names of the targets that it is about, unless it has them.
    pub(crate) fn of_targets(self, targets: &[impl std::fmt::Display]) -> Self {
        let names: Vec<String> = targets.iter().map(|target| escape_line(&target.to_string())).collect();
        let (what, hint) = (self.to_string(), self.hint());
        if names.iter().all(|name| what.contains(name)) {
            return self;
        }
        Error::Restated { what: format!("{}: {what}", names.join(" and ")), hint, original: Box::new(self) }
    }

    /// Returns the category, by which callers decide what to do next.
    pub fn category(&self) -> Category {
        match self {
            Error::Restated { original, .. } => original.category(),
            Error::Unexpected { .. } | Error::Hook { .. } => Category::Unexpected,
            // A lock that another run holds is gone tomorrow.
            Error::Trust(TrustError::StateHeld { .. }) => Category::Target,
            Error::Usage { .. } | Error::Trust(_) | Error::Serve(_) => Category::Usage,
            Error::Source(e) if e.is_usage() => Category::Usage,
            Error::Bundle(e) if e.is_usage() => Category::Usage,
            Error::Remote(e) if e.is_usage() => Category::Usage,
            Error::Target(TargetError::Remote(e)) if e.is_usage() => Category::Usage,
            Error::Remote(_) => Category::Unexpected,
            Error::Source(_) | Error::Content { .. } => Category::Source,
            Error::Bundle(e) if e.is_incomplete() => Category::Incomplete,
            Error::Bundle(_) => Category::Verification,
            // It is for the other sources to say whether one of them is wrong.
            Error::Rejected(Rejection::AheadOfClock { .. }) => Category::Source,
            Error::Rejected(_) => Category::Rejected,
            Error::Target(_) | Error::Destination { .. } => Category::Target,
        }
    }

    /// Returns the error itself, if this one says it in other words.
    pub fn original(&self) -> &Error {
        match self {
            Error::Restated { original, .. } => original.original(),
            other => other,
        }
    }

    /// Returns whether the same operation may succeed later without anybody doing something about it: a server that
    /// was down or overloaded, or another run that held a lock.
    pub fn is_transient(&self) -> bool {
        let by_server = |error: &RemoteError| error.retry() != Retry::Never;
        match self.original() {
            Error::Remote(error)
            | Error::Target(TargetError::Remote(error))
            | Error::Source(SourceError::Remote(error)) => by_server(error),
            Error::Trust(TrustError::StateHeld { .. }) => true,
            _ => false,
        }
    }

    /// Returns the exit code of the error's category.
    pub fn exit_code(&self) -> u8 {
        self.category().exit_code()
    }

    /// The error for programs, in `errors` of every verb's JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "kind": self.category().as_str(),
            "exit_code": self.exit_code(),
            "what": self.to_string(),
            "next": self.hint(),
        })
    }
}

/// What kind of failure an error is. Each has an exit code of its own, which never changes its meaning.
///
/// The order is that of gravity: if a run has several errors, the greatest decides about its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Category {
    /// Something that should not happen, such as an error of the operating system.
    Unexpected,
    /// The command line, a key or the set-up is wrong.
    Usage,
    /// A source failed, or served content that Trivy cannot use.
    Source,
    /// A genuine bundle is not acceptable: it is too old, expired, or of another stream.
    Rejected,
    /// A bundle lacks volumes.
    Incomplete,
    /// A bundle is damaged, or not signed by a trusted key.
    Verification,
    /// A target failed, or the place that an export writes to.
    Target,
}

impl Category {
    /// Returns the exit code (the README, "Exit codes", explains them).
    pub fn exit_code(self) -> u8 {
        match self {
            Category::Unexpected => 1,
            Category::Usage => 2,
            Category::Source => 3,
            Category::Verification => 4,
            Category::Rejected => 5,
            Category::Incomplete => 6,
            Category::Target => 7,
        }
    }

    /// Returns the category of an exit code; `None` for success and for codes that no category has.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        use Category::{Incomplete, Rejected, Source, Target, Unexpected, Usage, Verification};
        let all = [Unexpected, Usage, Source, Rejected, Incomplete, Verification, Target];
        all.into_iter().find(|category| category.exit_code() == code)
    }

    /// Returns the word that stands for it in JSON, as `kind` of an error.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Unexpected => "unexpected",
            Category::Usage => "usage",
            Category::Source => "source",
            Category::Verification => "verification",
            Category::Rejected => "refused",
            Category::Incomplete => "incomplete",
            Category::Target => "target",
        }
    }
}

/// Serializes the errors of a report.
pub(crate) fn serialize_all<S: serde::Serializer>(
    errors: &[Error],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(errors.iter().map(Error::to_json))
}

/// Returns the gravest category of some errors; `None` if there are none.
pub(crate) fn gravest<'e>(errors: impl IntoIterator<Item = &'e Error>) -> Option<Category> {
    errors.into_iter().map(Error::category).max()
}

impl Hint for Error {
    fn hint(&self) -> String {
        match self {
            Error::Unexpected { .. } => {
                "This is not expected: look at the disk and the system's log, then run the command again."
                    .into()
            }
            Error::Hook { retried: true, .. } => {
                "Mend it: the next import with --exec-after runs it again, also if nothing is new.".into()
            }
            Error::Hook { retried: false, .. } => {
                "Mend it, and do by hand what it was to do: the next run tells it only of what is new then."
                    .into()
            }
            Error::Usage { hint, .. } | Error::Destination { hint, .. } | Error::Restated { hint, .. } => {
                hint.clone()
            }
            Error::Trust(e) => e.hint(),
            Error::Source(e) => e.hint(),
            Error::Remote(e) => e.hint(),
            Error::Content { dataset, .. } => {
                format!("Name another source for it, or leave it out with --skip {dataset}.")
            }
            Error::Bundle(e) => e.hint(),
            Error::Rejected(e) => e.hint(),
            Error::Serve(e) => e.hint(),
            Error::Target(e) => e.hint(),
        }
    }
}

/// What it means that a thread has panicked which did this.
pub(crate) fn panicked(doing: &'static str) -> impl Fn(Box<dyn Any + Send>) -> Error {
    move |_| Error::unexpected(doing)(io::Error::other("a thread panicked"))
}
