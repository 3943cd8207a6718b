//! What the server tells its caller, and what it is told.

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
    /// How many bytes of the body went out.
    pub(crate) sent: u64,
    /// Whether that is all of it.
    pub(crate) complete: bool,
    pub(crate) took: Duration,
    /// What went wrong on this side.
    pub(crate) fault: Option<String>,
}

/// What a server tells of.
#[derive(Debug, Clone)]
pub(crate) enum ServerEvent {
    /// A request was answered.
    Answered(AnsweredRequest),
    /// What a client sent is no request, or no TLS that both speak.
    BadRequest { client: SocketAddr, why: String },
    /// It was told to end, and waits for answers under way so long, or until it is told again.
    Ending(Duration),
}

/// When a server ends.
pub(crate) enum EndsAt {
    /// When it is dropped.
    Dropped,
    /// At SIGTERM or SIGINT.
    Signal,
}

/// How to serve.
pub(crate) struct ServerOptions {
    /// Over TLS, with this certificate.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The URL under which clients know the server.
    pub(crate) url: String,
    /// Whether that is its only name. Otherwise documents name it as the client does that asks.
    pub(crate) fixed: bool,
    /// Hears of everything that happens. Must not block.
    pub(crate) log: Box<dyn Fn(ServerEvent) + Send + Sync>,
    /// When it ends.
    pub(crate) until: EndsAt,
}
