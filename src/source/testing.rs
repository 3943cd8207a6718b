//! A web server on a free loopback port for the tests of this room: it answers as each test says
//! and remembers what it was asked.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;

use super::patience::Limits;
use super::{Artifact, ArtifactSource, Network, RemoteOptions};
use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::progress::Silent;

/// One request, as the server saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The server's host as the client wrote it, with the port.
    pub host: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub body: String,
}

/// Ends when dropped.
pub(super) struct Server {
    /// `127.0.0.1:PORT`.
    pub host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub(super) fn new(answer: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (answer, list) = (Arc::new(answer), seen.clone());
        let handler = move |request: Request| {
            let (answer, list) = (answer.clone(), list.clone());
            async move {
                let (parts, body) = request.into_parts();
                let header = |name| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
                let mut seen = Seen {
                    method: parts.method.to_string(),
                    path: parts.uri.to_string(),
                    host: header("host").unwrap(),
                    authorization: header("authorization"),
                    range: header("range"),
                    body: String::new(),
                };
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                seen.body = String::from_utf8(body.to_vec()).unwrap();
                list.lock().unwrap().push(seen.clone());
                answer(&seen)
            }
        };
        let app = axum::Router::new().fallback(handler);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = async { axum::serve(listener, app).await };
                tokio::select! { _ = serve => {}, _ = stopped => {} }
            });
        });
        Server { host, seen, _stop: stop }
    }

    /// A registry without login that has one artifact: `r:2` with the layer `content`.
    pub(super) fn registry(content: &'static [u8]) -> Self {
        let manifest = manifest(content);
        Server::new(move |seen| match seen.path.as_str() {
            "/v2/r/manifests/2" => ok(manifest.clone()),
            path if path == format!("/v2/r/blobs/{}", Digest::of(content)) => ok(content),
            _ => status(404),
        })
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `r:2` on this server.
    pub(super) fn source(&self) -> ArtifactSource {
        ArtifactSource::parse(&format!("{}/r:2", self.host), "1").unwrap()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }
}

/// A server that speaks TLS with a certificate of its own making, and answers every request alike.
pub(super) struct TlsServer {
    pub host: String,
    pub certificate: String,
}

impl TlsServer {
    pub(super) fn new(answer: Vec<u8>) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
                let mut request = [0; 4096];
                if tls.read(&mut request).is_ok() {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        answer.len()
                    );
                    let _ = tls.write_all(head.as_bytes()).and_then(|()| tls.write_all(&answer));
                    tls.conn.send_close_notify();
                    let _ = tls.flush();
                }
            }
        });
        TlsServer { host, certificate: made.cert.pem() }
    }
}

/// A network with short time limits that knows no credentials.
pub(super) fn network() -> Network<'static> {
    network_with(RemoteOptions::default(), None)
}

pub(super) fn network_with(options: RemoteOptions, config: Option<PathBuf>) -> Network<'static> {
    network_that_retries(0, options, config)
}

pub(super) fn network_that_retries(
    retries: u32,
    options: RemoteOptions,
    config: Option<PathBuf>,
) -> Network<'static> {
    let mut network = Network::new(options, Limits { retries, ..Limits::default() }, &Silent).unwrap();
    network.remote.http.timeouts.connect = Duration::from_secs(5);
    network.remote.http.timeouts.first_byte = Duration::from_secs(5);
    network.remote.http.timeouts.stall = Duration::from_millis(300);
    network.remote.registries.config = config;
    network
}

/// The bytes of a manifest with one layer.
pub(super) fn manifest(content: &[u8]) -> Vec<u8> {
    let layer = descriptor(content);
    let config = descriptor(b"{}");
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [layer],
    }))
    .unwrap()
}

pub(super) fn descriptor(content: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "application/octet-stream".into(),
        digest: Digest::of(content),
        size: content.len() as u64,
        annotations: Default::default(),
    }
}

pub(super) fn layer(artifact: &Artifact) -> &Descriptor {
    &artifact.manifest.layers[0]
}

pub(super) fn ok(body: impl Into<Body>) -> Response {
    Response::new(body.into())
}

pub(super) fn status(code: u16) -> Response {
    with(Response::new(Body::empty()), code)
}

pub(super) fn with(mut response: Response, code: u16) -> Response {
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

pub(super) fn header(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

pub(super) fn redirect(to: &str) -> Response {
    header(status(307), "location", to)
}

/// A body of unannounced length.
pub(super) fn chunked(pieces: Vec<&'static [u8]>) -> Response {
    ok(Body::from_stream(stream::iter(pieces).map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)))))
}

/// A body that announces `length`, sends `start`, and then nothing more for ever.
pub(super) fn stalling(start: &'static [u8], length: usize) -> Response {
    let start = stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(start)) });
    let body = Body::from_stream(start.chain(stream::pending()));
    header(ok(body), "content-length", &length.to_string())
}

/// A body that announces `length`, sends `start` at once and then a byte now and then.
pub(super) fn dripping(start: usize, length: usize) -> Response {
    let first = stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; start])) });
    let drops = stream::iter(start..length).then(|_| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
    });
    header(ok(Body::from_stream(first.chain(drops))), "content-length", &length.to_string())
}

/// A body that announces `length`, sends `start`, and then breaks the connection.
pub(super) fn breaking(start: &'static [u8], length: usize) -> Response {
    let start = stream::once(async move { Ok(Bytes::from(start)) });
    // A pause, so that the start is on its way before the connection breaks.
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err::<Bytes, _>(std::io::Error::other("broken"))
    });
    header(ok(Body::from_stream(start.chain(end))), "content-length", &length.to_string())
}
