//! The errors of fetching.
//!
//! Knows references, URLs and digests as text only.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::remote::{RemoteError, Retry, Retryable};
use crate::util::text;

/// Why bytes could not be had from where they were asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The server that was asked.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A file or an archive beyond the limit for its kind.
    #[error("{subject} is larger than the {} that are allowed", text::format_size(*most))]
    TooLarge {
        /// What was asked for.
        subject: String,
        /// The limit in bytes.
        most: u64,
    },
    /// An answer that is no manifest.
    #[error("{subject} cannot be used: {why}")]
    Manifest {
        /// What was asked for.
        subject: String,
        /// What it is instead.
        why: String,
    },
    /// An image that cannot be taken along.
    #[error("{subject} cannot be taken along: {why}")]
    Image {
        /// What was asked for.
        subject: String,
        /// What keeps it.
        why: String,
        /// What would help.
        hint: &'static str,
    },
    /// The server announced another length than the manifest gives.
    #[error("{subject} should have {wanted} bytes, and {announced} are offered")]
    Length {
        /// What was asked for.
        subject: String,
        /// The length that its descriptor gives.
        wanted: u64,
        /// The length that the source announced.
        announced: u64,
    },
    /// The bytes ended early.
    #[error("{subject} ended after {got} of {wanted} bytes")]
    Short {
        /// What was asked for.
        subject: String,
        /// The length that its descriptor gives.
        wanted: u64,
        /// The bytes that came.
        got: u64,
    },
    /// More bytes came than there are.
    #[error("{subject} goes on after its {wanted} bytes")]
    Long {
        /// What was asked for.
        subject: String,
        /// The length that its descriptor gives.
        wanted: u64,
    },
    /// The bytes are others than those asked for.
    #[error("{subject} should have the digest {wanted}, and has {found}")]
    Digest {
        /// What was asked for.
        subject: String,
        /// The digest that was asked for or claimed.
        wanted: Digest,
        /// The digest of the bytes that came.
        found: Digest,
    },
    /// Too few registries name the same data.
    #[error("{agree} of the {wanted} registries that --quorum asks for name the same {dataset}: {named}")]
    Quorum {
        /// Which dataset.
        dataset: String,
        /// How many agree.
        agree: u32,
        /// How many must.
        wanted: u32,
        /// Who names what.
        named: String,
    },
    /// A local file or folder that cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Local {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No temporary file for an archive of unknown size.
    #[error("a temporary file in {} cannot be used: {error}", directory.display())]
    Temporary {
        /// The folder for temporary files.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A folder that is not a usable OCI image layout.
    #[error("{} is not a usable OCI image layout: {why}", directory.display())]
    Layout {
        /// The folder.
        directory: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A VEX repository that cannot be used.
    #[error("the VEX repository {repository} cannot be used: {why}")]
    Vex {
        /// Its URL or folder.
        repository: String,
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// None of the places that a VEX repository names gave its archive.
    #[error("no location of the VEX repository {repository} gives its archive: {}", list(tried))]
    Locations {
        /// Its URL.
        repository: String,
        /// Each location and why it failed, in order; never empty.
        tried: Vec<(String, SourceError)>,
    },
}

impl SourceError {
    /// Whether the command line is wrong rather than a source: exit code 2 as against 3.
    pub fn is_usage(&self) -> bool {
        matches!(self, SourceError::Remote(error) if error.is_usage())
    }

    /// The error that a [`Blob`](crate::source::Blob)'s reader wrapped, or the I/O error as it was.
    ///
    /// # Errors
    /// The given error, if it holds no [`SourceError`].
    pub fn from_io(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }
}

impl Retryable for SourceError {
    fn retry(&self) -> Retry {
        match self {
            SourceError::Remote(error) => error.retry(),
            SourceError::Short { .. } => Retry::After(None),
            SourceError::Locations { tried, .. } => {
                let transient =
                    tried.iter().map(|(_, error)| error.retry()).find(|again| *again != Retry::Never);
                transient.unwrap_or(Retry::Never)
            }
            _ => Retry::Never,
        }
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, SourceError::Remote(RemoteError::Unreachable { .. }))
    }
}

impl From<SourceError> for io::Error {
    fn from(error: SourceError) -> io::Error {
        io::Error::other(error)
    }
}

fn list(tried: &[(String, SourceError)]) -> String {
    let one = |(location, error): &(String, SourceError)| {
        // Most errors name their subject, which is the location.
        let error = error.to_string();
        if error.contains(location.as_str()) { error } else { format!("{location}: {error}") }
    };
    tried.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_io() {
        let error = io::Error::from(SourceError::Long { subject: "x".into(), wanted: 7 });
        assert!(matches!(SourceError::from_io(error), Ok(SourceError::Long { wanted: 7, .. })));
        let other = SourceError::from_io(io::Error::from(io::ErrorKind::NotFound)).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::NotFound);
    }
}
