//! A read-only registry and web server: the pull half of the OCI distribution specification (v1.1), and
//! files beside it.
//!
//! What is served is put together by others ([`Site`]); this room answers for it. It knows HTTP and
//! nothing of bundles or datasets.
//!
//! - [`site`]: what is served.
//! - [`answer`]: which answer a request gets.
//! - [`respond`]: a request from its head to the log.
//! - [`sending`]: the body of an answer on its way.
//! - [`inbound`]: how much a client may send.
//! - [`listen`]: connections, their limits, and the end.
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
