//! The options of a server, and the events that it reports to its caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

/// A request that was answered, for the access log.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredRequest {
    pub(crate) client: SocketAddr,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) agent: String,
    pub(crate) status: u16,
    /// The bytes of the body that were sent.
    pub(crate) sent: u64,
    /// Whether the complete body was sent.
    pub(crate) complete: bool,
    pub(crate) took: Duration,
    /// The error of the server, if there was one.
    pub(crate) fault: Option<String>,
}

/// An event of a server.
#[derive(Debug, Clone)]
pub(crate) enum ServerEvent {
    /// A request was answered.
    Answered(AnsweredRequest),
    /// A client sent an invalid request, or a TLS handshake failed.
    BadRequest { client: SocketAddr, why: String },
    /// The server stops, and waits this long for running downloads, or until another signal.
    Ending(Duration),
}

/// The event that stops a server.
pub(crate) enum EndsAt {
    /// The drop of the server.
    Dropped,
    /// SIGTERM or SIGINT.
    Signal,
}

/// The options of a server.
pub(crate) struct ServerOptions {
    /// The TLS configuration with the certificate; `None` for plain HTTP.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The URL under which clients reach the server.
    pub(crate) url: String,
    /// Whether documents always use that URL. Otherwise, they use the host that the client requested.
    pub(crate) fixed: bool,
    /// Receives all events. Must not block.
    pub(crate) log: Box<dyn Fn(ServerEvent) + Send + Sync>,
    /// The event that stops the server.
    pub(crate) until: EndsAt,
}
