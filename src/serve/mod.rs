//! A read-only registry and web server on loopback, for as long as a rehearsal lasts.
//!
//! Serves content from memory: manifests by tag and digest, blobs by digest, files by path. Knows
//! nothing of bundles or datasets.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

use crate::digest::Digest;

/// What is served.
#[derive(Default)]
pub(crate) struct Content {
    /// By `repository:tag` and `repository@digest`: media type and bytes.
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<Digest, Bytes>,
    files: HashMap<String, Bytes>,
}

impl Content {
    /// Adds a manifest under a tag, and under its digest.
    pub(crate) fn manifest(&mut self, repository: &str, tag: &str, media_type: &str, bytes: Vec<u8>) {
        let digest = Digest::of(&bytes);
        let entry = (media_type.to_owned(), Bytes::from(bytes));
        self.manifests.insert(format!("{repository}@{digest}"), entry.clone());
        self.manifests.insert(format!("{repository}:{tag}"), entry);
    }

    /// Adds a blob.
    pub(crate) fn blob(&mut self, bytes: &'static [u8]) {
        self.blobs.insert(Digest::of(bytes), Bytes::from_static(bytes));
    }

    /// Adds a file at a path below the root, without a leading slash.
    pub(crate) fn file(&mut self, path: &str, bytes: impl Into<Bytes>) {
        self.files.insert(path.to_owned(), bytes.into());
    }
}

/// A server that listens. Dropping it stops it.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts on a free port of the loopback interface. `content` is made once the address is
    /// known, since documents may name it.
    ///
    /// # Errors
    /// Where the system gives no port or thread.
    pub(crate) fn start(content: impl FnOnce(SocketAddr) -> Content) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let content = Arc::new(content(address));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let router = Router::new().route("/{*path}", get(answer)).with_state(content);
                let until = async move { drop(stopped.await) };
                // The only error is that of a listener that was closed: the server is ending.
                let _ = axum::serve(listener, router).with_graceful_shutdown(until).await;
            });
        };
        let thread = std::thread::Builder::new().name("registry".into()).spawn(serve)?;
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
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

/// The pull half of the distribution specification (v1.1), as far as a client on this host needs
/// it, and plain files beside it. HEAD comes through as GET without a body.
async fn answer(State(content): State<Arc<Content>>, Path(path): Path<String>) -> Response {
    if let Some(rest) = path.strip_prefix("v2/") {
        return registry(&content, rest).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response());
    }
    match content.files.get(&path) {
        Some(bytes) => Body::from(bytes.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn registry(content: &Content, path: &str) -> Option<Response> {
    if path.is_empty() {
        return Some(StatusCode::OK.into_response());
    }
    if let Some((_, digest)) = path.split_once("/blobs/") {
        let digest: Digest = digest.parse().ok()?;
        let bytes = content.blobs.get(&digest)?;
        return Some(found("application/octet-stream", &digest, bytes));
    }
    let (repository, reference) = path.split_once("/manifests/")?;
    let separator = if reference.starts_with("sha256:") { '@' } else { ':' };
    let (media_type, bytes) = content.manifests.get(&format!("{repository}{separator}{reference}"))?;
    Some(found(media_type, &Digest::of(bytes), bytes))
}

fn found(media_type: &str, digest: &Digest, bytes: &Bytes) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in [("content-type", media_type), ("docker-content-digest", &digest.to_string())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(header::HeaderName::from_static(name), value);
        }
    }
    (headers, Body::from(bytes.clone())).into_response()
}
