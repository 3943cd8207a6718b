//! Connections: how many, how long they may be silent, and how they end.
//!
//! Every limit is there so that no client can take more than its share: memory is bounded by the
//! number of connections and of bodies on their way, whatever clients do.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::serve::http::error::ServeError;
use crate::serve::http::events::{EndsAt, ServerEvent, ServerOptions};
use crate::serve::http::inbound::Inbound;
use crate::serve::http::respond::{Shared, respond};
use crate::serve::http::site::Site;

/// The most connections at once. Further ones wait until another ends. Each may take 25 KiB: hyper
/// doubles a buffer that is full.
const CONNECTIONS: usize = 768;
/// The same over TLS, which takes 15 KiB more: what [`Inbound`] lets in, and the connection's keys.
const CONNECTIONS_TLS: usize = 512;
/// How long a client may take for the head of a request, and stay connected without one.
const HEAD: Duration = Duration::from_secs(30);
/// The same for clients that come when most places are taken.
const HEAD_IF_CROWDED: Duration = Duration::from_secs(5);
/// How long a client may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long answers under way may take when the server ends: enough for a large layer at
/// 100 Mbit/s, and less than systemd waits before it kills.
const ENDING: Duration = Duration::from_secs(60);
/// How many threads read and compare pieces. Each has memory of its own, which its pieces fragment: with
/// sixteen, the same pulls took half as much again.
const READERS: usize = 4;
/// What the kernel keeps of what is sent on a connection, in bytes.
const SENDING: usize = 256 << 10;
/// The most bytes of a request's head, and what hyper keeps of a connection each way: not a piece
/// of a blob more than the one that it sends.
const BUFFER: usize = 8 << 10;
/// The most lines in a request's head.
const LINES: usize = 64;
/// The most encrypted bytes that wait to be sent on a connection.
const ENCRYPTED: usize = 16 << 10;

/// A server that listens. Dropping it stops it.
pub(crate) struct Server {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// What ends a server.
struct End {
    stop: Arc<Notify>,
    signals: Option<(Signal, Signal)>,
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
    pub(crate) fn start(
        listener: TcpListener,
        site: Site,
        options: ServerOptions,
    ) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(READERS)
            .build()
            .map_err(ServeError::Setup)?;
        let stop = Arc::new(Notify::new());
        // From here on, and not only when the thread gets to it: a signal in between would kill.
        let signals = match options.until {
            EndsAt::Dropped => None,
            EndsAt::Signal => {
                let _in_runtime = runtime.enter();
                let listen = |kind| signal(kind).map_err(ServeError::Setup);
                Some((listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
            }
        };
        let end = End { stop: stop.clone(), signals };
        let shared = Shared::new(site, options);
        let serve = move || {
            runtime.block_on(serve(listener, shared, end));
            // A read that hangs must not keep the program.
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread =
            std::thread::Builder::new().name("serve".into()).spawn(serve).map_err(ServeError::Setup)?;
        Ok(Server { stop, thread: Some(thread) })
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
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl End {
    /// Returns when the server is told to end; another time when it is told again.
    async fn told(&mut self) {
        let Some((terminate, interrupt)) = &mut self.signals else { return self.stop.notified().await };
        tokio::select! {
            () = self.stop.notified() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut end: End) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let graceful = GracefulShutdown::new();
    tokio::select! {
        biased;
        () = end.told() => {}
        () = accept(&listener, &shared, &graceful) => {}
    }
    drop(listener);
    (shared.options.log)(ServerEvent::Ending(ENDING));
    tokio::select! {
        () = graceful.shutdown() => {}
        // Half a request is no answer under way.
        () = idle(&shared) => {}
        () = end.told() => {}
        () = sleep(ENDING) => {}
    }
}

/// Returns when no answer has been under way for five seconds: the last pieces may still be on their way
/// to a slow client.
async fn idle(shared: &Shared) {
    const LOOKS: u32 = 50;
    let mut quiet = 0;
    while quiet < LOOKS {
        sleep(Duration::from_millis(100)).await;
        quiet = if shared.answering.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
    }
}

/// Takes connections, for ever.
async fn accept(listener: &tokio::net::TcpListener, shared: &Arc<Shared>, graceful: &GracefulShutdown) {
    let most = if shared.options.tls.is_some() { CONNECTIONS_TLS } else { CONNECTIONS };
    let connections = Arc::new(Semaphore::new(most));
    loop {
        let place = connections.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, client)) => {
                let (shared, watcher) = (shared.clone(), graceful.watcher());
                let crowded = connections.available_permits() < most / 4;
                let head = if crowded { HEAD_IF_CROWDED } else { HEAD };
                tokio::spawn(async move {
                    let _place = place;
                    connection(stream, Client { address: client, head }, shared, watcher).await;
                });
            }
            // A client that is gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Out of file descriptors, most likely: some connection will end.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A client, and how long it may take for the head of a request.
#[derive(Clone, Copy)]
struct Client {
    address: SocketAddr,
    head: Duration,
}

async fn connection(stream: TcpStream, client: Client, shared: Arc<Shared>, watcher: Watcher) {
    let _ = stream.set_nodelay(true);
    // Else the kernel takes megabytes for a client that reads slowly, and it looks stalled until most
    // of them have gone.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SENDING);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    let stream = Inbound::new(Box::pin(stream));
    match &shared.options.tls {
        None => http(stream, client, shared, watcher).await,
        Some(tls) => {
            let few = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(ENCRYPTED));
            let accept = TlsAcceptor::from(tls.clone()).accept_with(stream, few);
            match timeout(HANDSHAKE, accept).await {
                Ok(Ok(stream)) => http(stream, client, shared, watcher).await,
                // A CA that a scanner does not know is seen here, and a client without TLS.
                Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                    let why = format!("no TLS came about: {error}");
                    (shared.options.log)(ServerEvent::BadRequest { client: client.address, why });
                }
                // Who says nothing is asking whether the port is open.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    client: Client,
    shared: Arc<Shared>,
    watcher: Watcher,
) {
    let asked = shared.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = asked.clone();
        async move { Ok::<_, Infallible>(respond(request, client.address, shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(client.head)
        .max_buf_size(BUFFER)
        .max_headers(LINES)
        .serve_connection(TokioIo::new(stream), service);
    match watcher.watch(connection).await {
        Err(error) if error.is_parse() => {
            let why = match shared.options.tls {
                None => format!("what came is no request, or TLS, which is not spoken here: {error}"),
                Some(_) => format!("what came is no request: {error}"),
            };
            (shared.options.log)(ServerEvent::BadRequest { client: client.address, why });
        }
        // What a client breaks off is in the access log.
        _ => {}
    }
}
