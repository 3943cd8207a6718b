//! A connection for one request with a body.
//!
//! If a server rejects a body and closes the connection before it has read all of it, reqwest fails
//! to write and never reads the answer. This module reads the answer even after a failed write. It
//! does not interpret requests.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper_util::rt::TokioIo;
use reqwest::{Method, ResponseBuilderExt, Url};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::remote::auth;
use crate::remote::error::PROXY_LOGIN;
use crate::remote::exchange::{AGENT, host_of};
use crate::remote::route::proxy::{Proxies, Proxy};
use crate::remote::route::socks;
use crate::remote::route::{Misled, Route};

/// The maximum size of an answer's body that is kept, in bytes.
const MAX: usize = 256 << 10;
/// The maximum size of the head of a proxy's answer, in bytes.
const MAX_HEAD: usize = 16 << 10;

type Problem = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request.
pub(super) type Payload = UnsyncBoxBody<Bytes, io::Error>;

/// Settings for connecting to a server.
pub(super) struct Transport {
    pub route: Arc<Route>,
    pub tls: Arc<ClientConfig>,
    pub proxies: &'static Proxies,
    /// The time limit for a connection, including TLS.
    pub connect: Duration,
    /// The time limit for each piece of an answer's body.
    pub stall: Duration,
}

/// The connection was not established in time.
#[derive(Debug, thiserror::Error)]
#[error("the connection timed out")]
pub(super) struct ConnectTimeout;

/// The host has no address.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoAddress(String);

/// An answer, and whether the server had consumed all bytes that were written before it.
pub(super) struct Answered {
    pub response: reqwest::Response,
    pub consumed: bool,
}

/// Sends a request over a new connection and reads its answer to the end.
pub(super) async fn exchange(
    transport: Transport,
    method: Method,
    url: Url,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Answered, Problem> {
    let target: Uri = url.as_str().parse()?;
    let proxy = transport.proxies.proxy_for(&url)?;
    let connecting = transport.connect(&url, proxy);
    let io = tokio::time::timeout(transport.connect, connecting).await.map_err(|_| ConnectTimeout)??;
    let broken = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(LastWords { io, error: None, broken: broken.clone() });
    let (mut sender, connection) = http1::handshake(io).await?;
    // The driver ends with this future: the connection is not needed after the answer.
    let _driver = Driver(tokio::spawn(connection).abort_handle());
    let request = request(method, &url, target, headers, proxy, payload)?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let consumed = !broken.load(Ordering::Relaxed);
    let body = read(body, transport.stall).await;
    let mut response = hyper::Response::builder().url(url).body(body)?;
    (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
    Ok(Answered { response: response.into(), consumed })
}

fn request(
    method: Method,
    url: &Url,
    target: Uri,
    headers: HeaderMap,
    proxy: Option<&Proxy>,
    payload: Payload,
) -> Result<hyper::Request<Payload>, Problem> {
    let mut request = hyper::Request::new(payload);
    // A proxy that only tunnels the connection sees no request.
    let by_proxy = proxy.filter(|proxy| url.scheme() == "http" && !proxy.is_socks());
    *request.method_mut() = method;
    *request.uri_mut() = match (by_proxy, target.path_and_query()) {
        (None, Some(path)) => Uri::from(path.clone()),
        _ => target,
    };
    let all = request.headers_mut();
    all.insert(HOST, HeaderValue::from_str(&host_of(url))?);
    all.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    all.insert(ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(login) = by_proxy.and_then(basic) {
        all.insert(PROXY_AUTHORIZATION, login);
    }
    all.extend(headers);
    Ok(request)
}

/// Reads the body of an answer up to a limit; errors end it early. Only error messages have a body here.
async fn read(mut body: Incoming, stall: Duration) -> Bytes {
    let mut bytes = BytesMut::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(stall, body.frame()).await {
        let Ok(piece) = frame.into_data() else { continue };
        if bytes.len() + piece.len() > MAX {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    bytes.freeze()
}

/// Aborts a task when it is dropped.
struct Driver(tokio::task::AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Io = Box<dyn Stream>;

impl Transport {
    /// Connects to a URL's host, through a proxy if one is configured for it.
    async fn connect(&self, url: &Url, proxy: Option<&Proxy>) -> Result<Io, Problem> {
        let (host, port) = place(url)?;
        let io = match proxy {
            None => {
                let addresses = match host.parse() {
                    Ok(address) => vec![SocketAddr::new(address, port)],
                    Err(_) => self.route.resolve(host).await.map_err(unresolved)?,
                };
                self.tcp(addresses, port).await?
            }
            Some(proxy) => self.by_proxy(host, port, url.scheme() == "https", proxy).await?,
        };
        if url.scheme() == "https" { self.shake(io, host, true).await } else { Ok(io) }
    }

    async fn tcp(&self, addresses: Vec<SocketAddr>, port: u16) -> Result<Io, Problem> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        for mut address in addresses {
            address.set_port(port);
            // An address that does not answer must leave time for the others.
            match tokio::time::timeout(self.connect / count, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(Box::new(stream));
                }
                Ok(Err(error)) => last = error,
                Err(_) => return Err(ConnectTimeout.into()),
            }
        }
        Err(last.into())
    }

    async fn by_proxy(&self, host: &str, port: u16, tunnel: bool, proxy: &Proxy) -> Result<Io, Problem> {
        let (proxy_host, proxy_port) = place(&proxy.url)?;
        let addresses = tokio::net::lookup_host((proxy_host, proxy_port)).await.map_err(unresolved)?;
        let io = self.tcp(addresses.collect(), proxy_port).await?;
        let mut io = match proxy.url.scheme() {
            "https" => self.shake(io, proxy_host, false).await?,
            _ => io,
        };
        if proxy.is_socks() {
            socks::connect(&mut io, host, port, proxy.login.as_ref()).await?;
        } else if tunnel {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            open_tunnel(&mut io, &format!("{host}:{port}"), basic(proxy).as_ref()).await?;
        }
        Ok(io)
    }

    async fn shake(&self, io: Io, host: &str, http: bool) -> Result<Io, Problem> {
        let mut config = self.tls.clone();
        if !http {
            Arc::make_mut(&mut config).alpn_protocols.clear();
        }
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Box::new(TlsConnector::from(config).connect(name, io).await?))
    }
}

/// A URL's host, without the brackets of IPv6, and its port.
fn place(url: &Url) -> Result<(&str, u16), Problem> {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    Ok((host, url.port_or_known_default().ok_or("the address has no port")?))
}

fn unresolved(error: io::Error) -> Problem {
    let is_misled = error.get_ref().is_some_and(|inner| inner.is::<Misled>());
    if is_misled { error.into() } else { NoAddress(error.to_string()).into() }
}

fn basic(proxy: &Proxy) -> Option<HeaderValue> {
    let (name, password) = proxy.login.as_ref()?;
    auth::basic(name, password)
}

/// Makes a proxy connect to a host (RFC 9110, 9.3.6).
async fn open_tunnel(io: &mut Io, to: &str, login: Option<&HeaderValue>) -> Result<(), Problem> {
    let mut head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {AGENT}\r\n").into_bytes();
    if let Some(login) = login {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(login.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    io.write_all(&head).await?;
    io.flush().await?;
    let mut answer = Vec::new();
    // The head is read byte by byte, because the bytes after it belong to the tunnel.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_HEAD {
            return Err("the proxy's answer is too large".into());
        }
        answer.push(io.read_u8().await?);
    }
    let answer = String::from_utf8_lossy(&answer);
    match answer.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        Some("407") => Err(PROXY_LOGIN.into()),
        _ => Err("the proxy did not open a tunnel".into()),
    }
}

/// A connection on which a failed write does not hide the server's answer: the write stays pending, and the
/// reading side returns the answer or the error.
struct LastWords<S> {
    io: S,
    /// The error of writing, until the reading side has returned it.
    error: Option<io::Error>,
    broken: Arc<AtomicBool>,
}

impl<S> LastWords<S> {
    fn wrote<T>(&mut self, context: &Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(error)) => {
                self.broken.store(true, Ordering::Relaxed);
                self.error = Some(error);
                // The reading side must be polled again, even if nothing has arrived.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buffer);
        let is_end = match &result {
            Poll::Ready(Ok(())) => buffer.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        match self.error.take_if(|_| is_end) {
            Some(error) => Poll::Ready(Err(error)),
            None => result,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken() {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    /// A server that reads the head of a request, answers and closes: every later write fails, and the answer
    /// is available only after that.
    struct Closes {
        head: bool,
        failed: bool,
        answer: &'static [u8],
    }

    impl AsyncRead for Closes {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.failed {
                return Poll::Pending;
            }
            let answer = std::mem::take(&mut self.answer);
            buffer.put_slice(answer);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if std::mem::replace(&mut self.head, false) {
                return Poll::Ready(Ok(bytes.len().min(10)));
            }
            self.failed = true;
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn put(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> hyper::Result<u16> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        let _driver = Driver(tokio::spawn(connection).abort_handle());
        let body = Full::new(Bytes::from(vec![0; 1 << 20]));
        let request = hyper::Request::put("/x").header(HOST, "x").body(body).unwrap();
        Ok(sender.send_request(request).await?.status().as_u16())
    }

    #[tokio::test]
    async fn an_answer_is_read_though_writing_failed() {
        let answer = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
        let closes = |answer| Closes { head: true, failed: false, answer };
        // hyper alone loses the answer, which is the reason for this module.
        assert!(put(closes(answer)).await.is_err());
        let with = |io| LastWords { io, error: None, broken: Arc::default() };
        assert_eq!(put(with(closes(answer))).await.unwrap(), 413);
        // Without an answer, the result is the error of the connection.
        let error = put(with(closes(b""))).await.unwrap_err();
        assert!(crate::remote::exchange::innermost(&error).contains("broken pipe"), "{error:?}");
    }
}
