//! The errors that keep a server from starting.

use std::io;
use std::path::PathBuf;

/// An error that keeps a server from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The certificate or the key cannot be used.
    #[error("{} cannot be used: {why}", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The system does not provide a thread or a signal handler.
    #[error("cannot start the server: {0}")]
    Setup(io::Error),
}
