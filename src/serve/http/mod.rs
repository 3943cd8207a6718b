//! A read-only registry and web server: the pull half of the OCI distribution specification (v1.1), and
//! files.
//!
//! The caller builds the [`Site`]. This module handles HTTP. It does not depend on bundles or
//! datasets.
//!
//! - [`site`]: the content of the server.
//! - [`answer`]: the response to a request.
//! - [`respond`]: handles a request from its head to the log.
//! - [`sending`]: sends the body of a response.
//! - [`inbound`]: limits the bytes that a client may send.
//! - [`listen`]: accepts and limits connections, and stops the server.
//! - [`tls`]: the server's certificate.

mod answer;
pub mod error;
mod events;
mod hint;
mod inbound;
mod listen;
mod respond;
mod sending;
mod site;
mod tls;

pub use error::ServeError;
pub(crate) use events::{AnsweredRequest, EndsAt, ServerEvent, ServerOptions};
pub(crate) use listen::Server;
pub(crate) use site::{Blob, File, Site};
pub(crate) use tls::configuration;
