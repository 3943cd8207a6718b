//! Accepts connections, limits their number and their idle times, and stops the server.
//!
//! The limits keep clients from using too much memory: it depends only on the numbers of connections and of
//! running downloads.

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

/// The maximum number of connections. Further ones wait until another ends. Each may use 25 KiB,
/// because hyper doubles a full buffer.
const CONNECTIONS: usize = 768;
/// The maximum number of connections with TLS. Each uses 15 KiB more, for the keys and the
/// bytes that [`Inbound`] allows.
const CONNECTIONS_TLS: usize = 512;
/// The time limit for the head of a request, and for an idle connection.
const HEAD: Duration = Duration::from_secs(30);
/// The same limit for clients that connect when most connections are in use.
const HEAD_IF_CROWDED: Duration = Duration::from_secs(5);
/// The maximum time for which a client may stop reading a response.
const STALL: Duration = Duration::from_secs(30);
/// The time limit for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The time that running downloads get when the server stops: enough for a large layer at
/// 100 Mbit/s, and less than systemd waits before it kills a process.
const ENDING: Duration = Duration::from_secs(60);
/// The number of threads that read and verify chunks. The memory of each thread gets fragmented: 16 threads needed 50%
/// more memory for the same pulls.
const READERS: usize = 4;
/// The kernel's send buffer of a connection, in bytes.
const SENDING: usize = 256 << 10;
/// The maximum size of a request's head, and of hyper's buffers in each direction, in bytes. With
/// this size, hyper holds no more than the chunk that it sends.
const BUFFER: usize = 8 << 10;
/// The maximum number of header lines of a request.
const LINES: usize = 64;
/// The maximum number of encrypted bytes that wait to be sent on a connection.
const ENCRYPTED: usize = 16 << 10;

/// A running server. Dropping it stops it.
pub(crate) struct Server {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// The events that stop a server.
struct End {
    stop: Arc<Notify>,
    signals: Option<(Signal, Signal)>,
}

impl Server {
    /// Listens on an address. Port 0 selects a free port.
    ///
    /// # Errors
    /// [`ServeError::Listen`] if the address is in use or not available.
    pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
        let failed = |error| ServeError::Listen { address: address.to_string(), error };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// Starts to serve.
    ///
    /// # Errors
    /// [`ServeError::Setup`] if the system does not provide a thread or a signal handler.
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
        // The handlers are installed before the thread starts: until then, a signal would kill the
        // process.
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
            // A read that hangs must not keep the program running.
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread =
            std::thread::Builder::new().name("serve".into()).spawn(serve).map_err(ServeError::Setup)?;
        Ok(Server { stop, thread: Some(thread) })
    }

    /// Waits until the server stops by itself.
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
    /// Waits for the next event that stops the server.
    async fn requested(&mut self) {
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
        () = end.requested() => {}
        () = accept(&listener, &shared, &graceful) => {}
    }
    drop(listener);
    (shared.options.log)(ServerEvent::Ending(ENDING));
    tokio::select! {
        () = graceful.shutdown() => {}
        // Clients that have sent only a part of a request must not delay the end.
        () = idle(&shared) => {}
        () = end.requested() => {}
        () = sleep(ENDING) => {}
    }
}

/// Waits until no response has been running for 5 s, because a slow client may still receive the last chunk.
async fn idle(shared: &Shared) {
    const LOOKS: u32 = 50;
    let mut quiet = 0;
    while quiet < LOOKS {
        sleep(Duration::from_millis(100)).await;
        quiet = if shared.answering.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
    }
}

/// Accepts connections and never returns.
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
            // The client has already disconnected.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            // Most likely no file descriptor is free, until a connection ends.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A client, and its time limit for the head of a request.
#[derive(Clone, Copy)]
struct Client {
    address: SocketAddr,
    head: Duration,
}

async fn connection(stream: TcpStream, client: Client, shared: Arc<Shared>, watcher: Watcher) {
    let _ = stream.set_nodelay(true);
    // Otherwise, the kernel buffers megabytes for a slow client, which seems to stall until most of them are sent.
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
                // For example, a scanner does not trust the CA, or a client does not use TLS.
                Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                    let why = format!("the TLS handshake failed: {error}");
                    (shared.options.log)(ServerEvent::BadRequest { client: client.address, why });
                }
                // Port scanners and health checks connect without sending anything.
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
                None => format!("not an HTTP request (this server does not use TLS): {error}"),
                Some(_) => format!("not an HTTP request: {error}"),
            };
            (shared.options.log)(ServerEvent::BadRequest { client: client.address, why });
        }
        // The access log has the requests that a client canceled.
        _ => {}
    }
}
