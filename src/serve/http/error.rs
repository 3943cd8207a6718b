//! What can keep a server from starting: one sentence what failed, one what to do next.

use std::io;
use std::path::PathBuf;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The certificate or the key cannot be used.
    #[error("{} cannot be used: {why}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {error}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// The system gives no thread.
    #[error("the server cannot be started: {0}")]
    Setup(io::Error),
}
