//! The errors of fetching.
//!
//! This module holds references and URLs as text only.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::remote::{RemoteError, Retry, Retryable};
use crate::util::text;

/// An error of fetching from a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The server could not be reached or returned an error.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A file or an archive is larger than the limit for its kind.
    #[error("{subject} is larger than the limit of {}", text::format_size(*most))]
    TooLarge {
        /// The requested item.
        subject: String,
        /// The limit in bytes.
        most: u64,
    },
    /// The answer is not a manifest.
    #[error("{subject} cannot be used: {why}")]
    Manifest {
        /// The requested item.
        subject: String,
        /// The reason.
        why: String,
    },
    /// An image cannot be carried.
    #[error("{subject} cannot be carried: {why}")]
    Image {
        /// The requested item.
        subject: String,
        /// The reason.
        why: String,
        /// The hint.
        hint: &'static str,
    },
    /// The source announced a different length than the manifest.
    #[error("{subject} should have {wanted} bytes, but its source announces {announced}")]
    Length {
        /// The requested item.
        subject: String,
        /// The length in its descriptor.
        wanted: u64,
        /// The length that the source announced.
        announced: u64,
    },
    /// The bytes ended early.
    #[error("{subject} ended after {got} of {wanted} bytes")]
    Short {
        /// The requested item.
        subject: String,
        /// The length in its descriptor.
        wanted: u64,
        /// The number of bytes that were received.
        got: u64,
    },
    /// The source sent more bytes than expected.
    #[error("{subject} is longer than the expected {wanted} bytes")]
    Long {
        /// The requested item.
        subject: String,
        /// The length in its descriptor.
        wanted: u64,
    },
    /// The bytes do not have the expected digest.
    #[error("{subject} should have the digest {wanted}, but has {found}")]
    Digest {
        /// The requested item.
        subject: String,
        /// The digest that was requested or claimed.
        wanted: Digest,
        /// The digest of the received bytes.
        found: Digest,
    },
    /// Too few registries have the same data.
    #[error("the same {dataset} is in {agree} of the {wanted} registries that --quorum requires: {named}")]
    Quorum {
        /// The dataset.
        dataset: String,
        /// The number of registries that agree.
        agree: u32,
        /// The number of registries that must agree.
        wanted: u32,
        /// The data that each registry has.
        named: String,
    },
    /// A local file or directory cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Local {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The temporary file for an archive of unknown size cannot be written or read.
    #[error("a temporary file in {} cannot be used: {error}", directory.display())]
    Temporary {
        /// The directory for temporary files.
        directory: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A directory is not a usable OCI image layout.
    #[error("{} is not a usable OCI image layout: {why}", directory.display())]
    Layout {
        /// The directory.
        directory: PathBuf,
        /// The reason.
        why: String,
    },
    /// A VEX repository cannot be used.
    #[error("the VEX repository {repository} cannot be used: {why}")]
    Vex {
        /// Its URL or directory.
        repository: String,
        /// The reason.
        why: String,
        /// The hint.
        hint: String,
    },
    /// None of the locations in a VEX repository's manifest provided its archive.
    #[error("no location of the VEX repository {repository} provides its archive: {}", list(tried))]
    Locations {
        /// Its URL.
        repository: String,
        /// Each location with its error, in order; never empty.
        tried: Vec<(String, SourceError)>,
    },
}

impl SourceError {
    /// Whether the command line is wrong, and not a source.
    pub fn is_usage(&self) -> bool {
        matches!(self, SourceError::Remote(error) if error.is_usage())
    }

    /// Returns the error that the reader of a [`Blob`](crate::source::Blob) wrapped.
    ///
    /// # Errors
    /// Returns `error` unchanged if it does not wrap a [`SourceError`].
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
    fn an_error_is_unchanged_after_conversion_to_and_from_io() {
        let error = io::Error::from(SourceError::Long { subject: "x".into(), wanted: 7 });
        assert!(matches!(SourceError::from_io(error), Ok(SourceError::Long { wanted: 7, .. })));
        let other = SourceError::from_io(io::Error::from(io::ErrorKind::NotFound)).unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::NotFound);
    }
}
