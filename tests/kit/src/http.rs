//! A web server on a free port of loopback whose responses a test defines. It records its requests.

use std::future::Future;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use bytes::Bytes;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use axum::body::Body;
pub use axum::extract::Request;
pub use axum::http::Method;
pub use axum::response::Response;

/// The largest request body that a server accepts, in bytes.
pub const LARGEST_BODY: usize = 64 << 20;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The method, such as GET. It can be compared with a `&str`.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The path without the query.
    pub path: String,
    /// The query without its question mark; empty if there is none.
    pub query: String,
    /// The server's host as the client wrote it, with the port.
    pub host: String,
    /// The value of the `Authorization` header.
    pub authorization: Option<String>,
    /// The requested range.
    pub range: Option<String>,
    /// The range of an upload's chunk.
    pub content_range: Option<String>,
    /// The `Content-Length` of the body, if the client sends one.
    pub length: Option<u64>,
    /// The body, if the server reads bodies before it responds.
    pub body: Bytes,
}

impl Seen {
    /// Returns a request without its body.
    ///
    /// # Panics
    /// If a recorded header is not text.
    #[must_use]
    pub fn of(request: &Request) -> Seen {
        let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Seen {
            method: request.method().clone(),
            target: request.uri().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            host: text("host").unwrap_or_default(),
            authorization: text("authorization"),
            range: text("range"),
            content_range: text("content-range"),
            length: text("content-length").map(|length| length.parse().unwrap()),
            body: Bytes::new(),
        }
    }

    /// Returns the body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A server that reads each request completely before it responds. It ends when dropped.
#[derive(Debug)]
pub struct Server {
    /// `127.0.0.1:PORT`.
    pub host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _serving: Serving,
}

impl Server {
    /// Starts a server that uses HTTP.
    pub fn new(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Server {
        Server::over(None, answer)
    }

    /// Starts a server that uses HTTPS if TLS is configured.
    pub fn over(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Seen) -> Response + Send + Sync + 'static,
    ) -> Server {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, list) = (Arc::new(answer), seen.clone());
        let serving = serve(tls, move |request: Request| {
            let (answer, list) = (answer.clone(), list.clone());
            async move {
                let mut seen = Seen::of(&request);
                seen.body = axum::body::to_bytes(request.into_body(), LARGEST_BODY).await.unwrap();
                list.lock().unwrap().push(seen.clone());
                answer(&seen)
            }
        });
        Server { host: serving.host.clone(), seen, _serving: serving }
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns a URL on this server, over plain HTTP.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }
}

/// A running server. It ends when dropped.
#[derive(Debug)]
pub struct Serving {
    /// `127.0.0.1:PORT`.
    pub host: String,
    _stop: oneshot::Sender<()>,
}

/// Starts a server whose handler may read the body. It uses HTTPS if TLS is configured.
///
/// # Panics
/// If no port can be bound.
pub fn serve<A, F>(tls: Option<Arc<ServerConfig>>, handler: F) -> Serving
where
    F: Fn(Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = Router::new().fallback(handler);
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let tcp = TcpListener::from_std(listener).unwrap();
            let serve = async {
                match tls {
                    None => axum::serve(tcp, app).await,
                    Some(config) => axum::serve(Handshakes::of(tcp, config.into()), app).await,
                }
            };
            tokio::select! { _ = serve => {}, _ = stopped => {} }
        });
    });
    Serving { host, _stop: stop }
}

/// The connections of a listener whose TLS handshake succeeded. A silent client does not block others.
struct Handshakes {
    done: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Handshakes {
    fn of(tcp: TcpListener, acceptor: TlsAcceptor) -> Handshakes {
        let address = tcp.local_addr().unwrap();
        let (sender, done) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((stream, address)) = tcp.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = sender.send((stream, address)).await;
                    }
                });
            }
        });
        Handshakes { done, address }
    }
}

impl axum::serve::Listener for Handshakes {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.done.recv().await {
            Some(connection) => connection,
            // The listener was closed, so there are no further connections.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// Serves TCP connections, each in a thread with `handle`, and returns the address. It accepts connections as long as
/// the test program runs.
///
/// # Panics
/// If no port can be bound.
pub fn each_connection(handle: impl Fn(std::net::TcpStream) + Clone + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let handle = handle.clone();
            std::thread::spawn(move || handle(stream.unwrap()));
        }
    });
    address
}

/// Reads the head of a message, with the empty line at its end. Returns `None` if the connection ends before that, or
/// uses TLS.
pub fn read_head(peer: &mut impl Read) -> Option<Vec<u8>> {
    /// The first byte of TLS.
    const HANDSHAKE: u8 = 0x16;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if peer.read(&mut byte).unwrap_or(0) == 0 || byte == [HANDSHAKE] {
            return None;
        }
        head.push(byte[0]);
    }
    Some(head)
}

/// Forwards the data of both sides of a tunnel, until the server closes its side.
///
/// # Panics
/// If the system has no free file descriptor.
pub fn relay(mut client: std::net::TcpStream, mut server: std::net::TcpStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

/// A port of loopback that refuses connections as long as this value exists. It is bound, so that no other process
/// gets it, but not listening.
#[derive(Debug)]
pub struct ClosedPort(#[allow(dead_code)] rustix::fd::OwnedFd, SocketAddr);

impl ClosedPort {
    /// Reserves a free port.
    ///
    /// # Panics
    /// If no port can be bound.
    #[must_use]
    pub fn new() -> ClosedPort {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
        ClosedPort(socket, address)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.1.to_string()
    }
}

/// Returns an address for a server that needs a port argument: one of loopback's 16 million addresses that no other
/// process uses, with a free port.
///
/// # Panics
/// If none can be bound.
#[must_use]
pub fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id() << 8 | (NEXT.fetch_add(1, Relaxed) & 0xff);
    let [_, a, b, c] = own.to_be_bytes();
    // 127.255.255.255 is the broadcast address.
    let ip = [127, a % 254 + 1, b, c];
    std::net::TcpListener::bind(SocketAddr::from((ip, 0))).unwrap().local_addr().unwrap().to_string()
}

impl Default for ClosedPort {
    fn default() -> Self {
        ClosedPort::new()
    }
}
