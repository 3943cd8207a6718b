//! The error of a command, with its category, exit code and hint.
//!
//! Each module that can fail has its own error type; this one only collects them. An error is shown as two
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

/// The error of a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An unexpected error of the operating system.
    #[error("{doing}: {error}")]
    Unexpected {
        /// The operation that failed, with the name of the file.
        doing: String,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The command line or the setup is wrong, such as two flags that exclude each other or an invalid name.
    #[error("{what}")]
    Usage {
        /// The problem.
        what: String,
        /// The hint.
        hint: String,
    },
    /// A key or the state cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A source served content that Trivy could not use.
    #[error("{source_name} serves an unusable {dataset}: {why}")]
    Content {
        /// The dataset.
        dataset: String,
        /// The source.
        source_name: String,
        /// The problem with the content.
        why: String,
    },
    /// A bundle is damaged, or not signed by a trusted key.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A genuine bundle is not acceptable.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A proxy, a certificate or a login could not be set up, or an address is invalid.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A server could not be started.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// An error with a changed text.
    #[error("{what}")]
    Restated {
        /// The changed text.
        what: String,
        /// The hint.
        hint: String,
        /// The error itself.
        original: Box<Error>,
    },
    /// The command that the operator configured failed.
    #[error("{done}, but `{command}` failed: {what}")]
    Hook {
        /// The step that ended before the command.
        done: &'static str,
        /// Whether the next run runs the command again.
        retried: bool,
        /// The first word of the command.
        command: String,
        /// The failure.
        what: String,
    },
    /// The destination of an export failed.
    #[error("{path}: {what}")]
    Destination {
        /// The file or directory.
        path: std::path::PathBuf,
        /// The problem.
        what: String,
        /// The hint.
        hint: String,
    },
}

impl Error {
    /// Returns a usage error.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Usage { what: what.into(), hint: hint.into() }
    }

    /// Returns a function that converts an error of the system.
    pub fn unexpected(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |error| Error::Unexpected { doing, error }
    }

    /// Converts an error of the temporary file that holds small blobs.
    pub(crate) fn spooling(error: std::io::Error) -> Self {
        Error::Unexpected {
            doing: format!("writing temporary files in {}", std::env::temp_dir().display()),
            error,
        }
    }

    /// Returns the error with a replacement in its text and hint.
    pub fn restated(self, from: &str, to: &str) -> Self {
        let (what, hint) = (self.to_string().replace(from, to), self.hint().replace(from, to));
        Error::Restated { what, hint, original: Box::new(self) }
    }

    /// Returns the error with the names of its targets, unless its text already contains them.
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
            // Another run holds the lock only for a while.
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
            // The source may have a wrong date, so other sources are tried.
            Error::Rejected(Rejection::AheadOfClock { .. }) => Category::Source,
            Error::Rejected(_) => Category::Rejected,
            Error::Target(_) | Error::Destination { .. } => Category::Target,
        }
    }

    /// Returns the original error if this one has a changed text, else this one.
    pub fn original(&self) -> &Error {
        match self {
            Error::Restated { original, .. } => original.original(),
            other => other,
        }
    }

    /// Whether the same operation may succeed later without a change by the operator: a server was down or overloaded,
    /// or another run held a lock.
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

    /// Returns the error as an entry of `errors` in the JSON of every command.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "kind": self.category().as_str(),
            "exit_code": self.exit_code(),
            "what": self.to_string(),
            "next": self.hint(),
        })
    }
}

/// The category of an error. Each category has its own exit code, whose meaning never changes.
///
/// The order is by severity: if a run has several errors, the most severe one determines the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Category {
    /// An unexpected error, such as one of the operating system.
    Unexpected,
    /// The command line, a key or the setup is wrong.
    Usage,
    /// A source failed, or served content that Trivy cannot use.
    Source,
    /// A genuine bundle is not acceptable: it is too old, expired, or of another stream.
    Rejected,
    /// A bundle lacks volumes.
    Incomplete,
    /// A bundle is damaged, or not signed by a trusted key.
    Verification,
    /// A target or the destination of an export failed.
    Target,
}

impl Category {
    /// Returns the exit code.
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

    /// Returns the value of `kind` in the JSON of an error.
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

/// Returns the most severe category of some errors; `None` if there are none.
pub(crate) fn gravest<'e>(errors: impl IntoIterator<Item = &'e Error>) -> Option<Category> {
    errors.into_iter().map(Error::category).max()
}

impl Hint for Error {
    fn hint(&self) -> String {
        match self {
            Error::Unexpected { .. } => {
                "Check the disk and the system log, then run the command again.".into()
            }
            Error::Hook { retried: true, .. } => {
                "Fix the command: the next import with --exec-after runs it again, even if nothing is new."
                    .into()
            }
            Error::Hook { retried: false, .. } => {
                "Fix the command, and do its work by hand: it is not called again for the same bundle.".into()
            }
            Error::Usage { hint, .. } | Error::Destination { hint, .. } | Error::Restated { hint, .. } => {
                hint.clone()
            }
            Error::Trust(e) => e.hint(),
            Error::Source(e) => e.hint(),
            Error::Remote(e) => e.hint(),
            Error::Content { dataset, .. } => {
                format!("Name another source for it, or skip it with --skip {dataset}.")
            }
            Error::Bundle(e) => e.hint(),
            Error::Rejected(e) => e.hint(),
            Error::Serve(e) => e.hint(),
            Error::Target(e) => e.hint(),
        }
    }
}

/// Returns a function that converts the panic of a thread. `doing` is the work of the thread.
pub(crate) fn panicked(doing: &'static str) -> impl Fn(Box<dyn Any + Send>) -> Error {
    move |_| Error::unexpected(doing)(io::Error::other("a thread panicked"))
}
