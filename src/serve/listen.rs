//! Connections: how many, how long they may be silent, and how they end.
//!
//! Every limit is there so that no client can take more than its share: memory is bounded by the
//! number of connections and of bodies on their way, whatever clients do.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, Body, answer, refusal};
use super::error::ServeError;
use super::sending::Sending;
use super::site::{Blob, Site};

/// The most connections at once. Further ones wait until another ends.
const CONNECTIONS: usize = 2048;
/// The most blobs on their way at once, each with two pieces in memory. Further ones wait.
const BODIES: usize = 128;
/// How long a blob waits for its turn.
const TURN: Duration = Duration::from_secs(30);
/// How long a client may take for the head of a request, and stay connected without one.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(60);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long answers under way may take when the server ends.
const ENDING: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const HEAD_SIZE: usize = 16 << 10;
/// What is buffered of a connection, each way.
const BUFFER: usize = 64 << 10;

/// A request that was answered, for the access log.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) client: SocketAddr,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) agent: String,
    pub(crate) status: u16,
    /// How many bytes of the body went out.
    pub(crate) sent: u64,
    /// Whether that is all of it.
    pub(crate) whole: bool,
    pub(crate) took: Duration,
    /// What went wrong on this side.
    pub(crate) fault: Option<String>,
}

/// When a server ends.
pub(crate) enum Until {
    /// When it is dropped.
    Dropped,
    /// At SIGTERM or SIGINT.
    Signal,
}

/// How to serve.
pub(crate) struct Options {
    /// Over TLS, with this certificate.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The URL under which clients know the server, where it is not what they ask for.
    pub(crate) url: Option<String>,
    /// Hears of every request.
    pub(crate) log: Box<dyn Fn(Request) + Send + Sync>,
    /// When it ends.
    pub(crate) until: Until,
}

/// A server that listens. Dropping it stops it.
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    site: Site,
    options: Options,
    address: SocketAddr,
    bodies: Arc<Semaphore>,
}

impl Server {
    /// Listens on an address. Its port may be 0, for a free one.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
        let failed = |error| ServeError::Listen { address: address.to_string(), error };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// [`ServeError::Setup`].
    pub(crate) fn start(listener: TcpListener, site: Site, options: Options) -> Result<Self, ServeError> {
        let address = listener.local_addr().map_err(ServeError::Setup)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .build()
            .map_err(ServeError::Setup)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::new(Shared { site, options, address, bodies: Arc::new(Semaphore::new(BODIES)) });
        let serve = move || {
            runtime.block_on(serve(listener, shared, stopped));
            // A read that hangs must not keep the program.
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread =
            std::thread::Builder::new().name("serve".into()).spawn(serve).map_err(ServeError::Setup)?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends when it is told to.
async fn end(until: &Until, stopped: oneshot::Receiver<()>) {
    if let Until::Signal = until
        && let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        return;
    }
    drop(stopped.await);
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let until = shared.clone();
    let end = end(&until.options.until, stopped);
    tokio::pin!(end);
    loop {
        let place = tokio::select! {
            place = connections.clone().acquire_owned() => place,
            () = &mut end => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let (shared, watcher) = (shared.clone(), graceful.watcher());
                tokio::spawn(async move {
                    let _place = place;
                    connection(stream, client, shared, watcher).await;
                });
            }
            // Out of file descriptors, most likely: some connection will end.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    drop(listener);
    let _ = timeout(ENDING, graceful.shutdown()).await;
}

async fn connection(stream: TcpStream, client: SocketAddr, shared: Arc<Shared>, watcher: Watcher) {
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    let stream = Box::pin(stream);
    match &shared.options.tls {
        None => http(stream, client, shared, watcher).await,
        Some(tls) => {
            let accept = TlsAcceptor::from(tls.clone()).accept(stream);
            // Who speaks no TLS, or too slowly, is none of our clients.
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, accept).await {
                http(stream, client, shared, watcher).await;
            }
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: SocketAddr,
    shared: Arc<Shared>,
    watcher: Watcher,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(request, client, shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(HEAD_SIZE)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    // What a client breaks off is in the access log.
    let _ = watcher.watch(connection).await;
}

async fn respond(
    request: hyper::Request<Incoming>,
    client: SocketAddr,
    shared: Arc<Shared>,
) -> Response<Sending> {
    let began = Instant::now();
    let (parts, _) = request.into_parts();
    let text = |value: Option<&header::HeaderValue>| {
        value.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut entry = Request {
        client,
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        agent: text(parts.headers.get(header::USER_AGENT)),
        status: 0,
        sent: 0,
        whole: false,
        took: Duration::ZERO,
        fault: None,
    };
    let base = base(&shared, text(parts.headers.get(header::HOST)));
    let mut answer = answer(&shared.site, &parts, &base);
    let mut begun = None;
    if let Body::Blob(blob, begin, end) = &answer.body
        && parts.method == Method::GET
        && begin < end
    {
        match begin_blob(blob, *begin, &shared.bodies).await {
            Ok((permit, first)) => begun = Some((blob.clone(), (*begin, *end), permit, first)),
            Err(Busy::Busy) => {
                let message = "too many blobs are on their way; try again";
                answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", message);
                answer.headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
            }
            Err(Busy::Fault(error)) => {
                let message =
                    "the bundle cannot be read any more, or was changed; its server must be restarted";
                answer = refusal(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message);
                entry.fault = Some(error.to_string());
            }
        }
    }
    let Answer { status, headers, body } = answer;
    entry.status = status.as_u16();
    let length = if parts.method == Method::HEAD { 0 } else { body.length() };
    let told = move |sent: u64, fault: Option<String>| {
        let (whole, took, fault) = (sent == length, began.elapsed(), fault.or(entry.fault));
        (shared.options.log)(Request { sent, whole, took, fault, ..entry });
    };
    let body = match (begun, body) {
        (Some((blob, range, permit, first)), _) => Sending::from(blob, range, first, permit, told),
        (None, Body::Bytes(bytes)) if parts.method != Method::HEAD => Sending::of(bytes, told),
        (None, _) => Sending::of(bytes::Bytes::new(), told),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

enum Busy {
    Busy,
    Fault(io::Error),
}

/// Waits for a blob's turn, and reads its first bytes: a fault is still told as one.
async fn begin_blob(
    blob: &Arc<dyn Blob>,
    begin: u64,
    bodies: &Arc<Semaphore>,
) -> Result<(OwnedSemaphorePermit, bytes::Bytes), Busy> {
    let turn = timeout(TURN, bodies.clone().acquire_owned()).await;
    let permit = turn.map_err(|_| Busy::Busy)?.map_err(|_| Busy::Busy)?;
    let blob = blob.clone();
    let read = tokio::task::spawn_blocking(move || blob.read(begin)).await;
    let first = read.map_err(io::Error::other).flatten().map_err(Busy::Fault)?;
    Ok((permit, first))
}

/// The URL under which a client knows this server: what was given, else what it asks for.
fn base(shared: &Shared, host: String) -> String {
    if let Some(url) = &shared.options.url {
        return url.clone();
    }
    let scheme = if shared.options.tls.is_some() { "https" } else { "http" };
    let plain = |c: u8| c.is_ascii_alphanumeric() || b".-:[]_".contains(&c);
    match (1..=255).contains(&host.len()) && host.bytes().all(plain) {
        true => format!("{scheme}://{host}"),
        false => format!("{scheme}://{}", shared.address),
    }
}
