//! The error of a whole command: which kind it is, its exit code, and its two sentences.
//!
//! Each room has an error type of its own; this module only sorts them. An error is shown as two
//! sentences: what failed (its `Display`) and what to do next ([`Error::next`]).

/// What the second sentence of an error says: what to do next.
pub trait Next {
    /// One sentence with the command, flag or person that helps.
    fn next(&self) -> String;
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that should not happen: an operating-system error where none is expected.
    #[error("{doing}: {error}")]
    Unexpected {
        /// What was being done, with the file's name.
        doing: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The command line or the set-up is wrong: no key, no writable state, two flags that clash.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do about it.
        next: String,
    },
}

impl Error {
    /// The exit code. Documented in the README; a code never changes its meaning.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Unexpected { .. } => 1,
            Error::Usage { .. } => 2,
        }
    }

    /// The kind as a word, for JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Unexpected { .. } => "unexpected",
            Error::Usage { .. } => "usage",
        }
    }
}

impl Next for Error {
    fn next(&self) -> String {
        match self {
            Error::Unexpected { .. } => {
                "This is not expected: check the disk and the system log, then run the command again.".into()
            }
            Error::Usage { next, .. } => next.clone(),
        }
    }
}
