//! The registry of the tests that need a bad one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::oneshot;
use trivy_ferry::digest::Digest;

use super::server::{header, serve_tls, status};

/// What was asked, and with which login.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub authorization: Option<String>,
    pub host: String,
}

impl Seen {
    pub fn of(request: &Request) -> Seen {
        let text = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
        Seen {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            authorization: text("authorization"),
            host: text("host").unwrap_or_default(),
        }
    }
}

/// What a test answers in the registry's place.
type Change = dyn Fn(&Seen) -> Option<Response> + Send + Sync;

#[derive(Default)]
struct Content {
    /// By repository and digest.
    blobs: HashMap<(String, Digest), Bytes>,
    /// By path: `/v2/NAME/manifests/REFERENCE`.
    manifests: HashMap<String, Bytes>,
    seen: Vec<Seen>,
}

/// A registry in memory that does what it must, but where a test says otherwise. Ends when dropped.
pub struct Registry {
    pub host: String,
    content: Arc<Mutex<Content>>,
    _stop: oneshot::Sender<()>,
}

impl Registry {
    pub fn new(change: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) -> Self {
        Registry::over(None, change)
    }

    /// The same, over TLS where that is set up.
    pub fn over(
        tls: Option<Arc<rustls::ServerConfig>>,
        change: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let (change, kept): (Arc<Change>, _) = (Arc::new(change), content.clone());
        let handler = move |request: Request| answer(kept.clone(), change.clone(), request);
        let (host, stop) = serve_tls(axum::Router::new().fallback(handler), tls);
        Registry { host, content, _stop: stop }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.content.lock().unwrap().seen.clone()
    }

    /// The tags that name something, sorted.
    pub fn tags(&self) -> Vec<String> {
        let content = self.content.lock().unwrap();
        let mut tags: Vec<String> = content
            .manifests
            .keys()
            .map(|path| path.replace("/v2/", "").replace("/manifests/", ":"))
            .collect();
        tags.sort();
        tags
    }

    pub fn forget_blobs(&self) {
        self.content.lock().unwrap().blobs.clear();
    }

    pub fn manifest(&self, reference: &str) -> Vec<u8> {
        let path = format!("/v2/{}", reference.replacen(':', "/manifests/", 1));
        self.content.lock().unwrap().manifests[&path].to_vec()
    }

    /// What a disk that fails leaves of all blobs.
    pub fn cut_blobs(&self) {
        for bytes in self.content.lock().unwrap().blobs.values_mut() {
            bytes.truncate(1);
        }
    }

    pub fn forget_tags(&self) {
        self.content.lock().unwrap().manifests.clear();
    }

    /// Lets a tag name nothing any more. Says what it named.
    pub fn forget_tag(&self, reference: &str) -> Vec<u8> {
        let path = format!("/v2/{}", reference.replacen(':', "/manifests/", 1));
        self.content.lock().unwrap().manifests.remove(&path).unwrap().to_vec()
    }

    /// Lets a tag name this, whoever pushed it.
    pub fn name(&self, reference: &str, manifest: Vec<u8>) {
        let path = format!("/v2/{}", reference.replacen(':', "/manifests/", 1));
        self.content.lock().unwrap().manifests.insert(path, manifest.into());
    }
}

async fn answer(content: Arc<Mutex<Content>>, change: Arc<Change>, request: Request) -> Response {
    let seen = Seen::of(&request);
    content.lock().unwrap().seen.push(seen.clone());
    if let Some(response) = change(&seen) {
        return response;
    }
    // A body that broke off is nothing.
    let Ok(body) = axum::body::to_bytes(request.into_body(), 64 << 20).await else { return status(400) };
    let mut content = content.lock().unwrap();
    let path = seen.path.as_str();
    if path.contains("/manifests/") {
        return match seen.method {
            Method::PUT => {
                content.manifests.insert(path.to_owned(), body);
                status(201)
            }
            _ => content
                .manifests
                .get(path)
                .map_or_else(|| status(404), |bytes| Response::new(bytes.clone().into())),
        };
    }
    let repository = path.trim_start_matches("/v2/").split("/blobs/").next().unwrap().to_owned();
    let field =
        |name: &str| seen.query.split('&').find_map(|pair| pair.strip_prefix(name)).map(str::to_owned);
    if path.ends_with("/blobs/uploads/") {
        if let (Some(digest), Some(from)) = (field("mount="), field("from=")) {
            let digest: Digest = digest.parse().unwrap();
            if let Some(bytes) = content.blobs.get(&(from, digest)).cloned() {
                content.blobs.insert((repository, digest), bytes);
                return status(201);
            }
        }
        return header(status(202), "location", &format!("{path}1?state=x"));
    }
    if seen.method == Method::PUT {
        let wanted = field("digest=").unwrap().replace("%3A", ":");
        let digest = Digest::of(&body);
        assert_eq!(digest.to_string(), wanted, "a registry would refuse this");
        content.blobs.insert((repository, digest), body);
        return status(201);
    }
    let digest: Option<Digest> = path.rsplit('/').next().and_then(|digest| digest.parse().ok());
    match digest.and_then(|digest| content.blobs.get(&(repository, digest))) {
        Some(bytes) => header(status(200), "content-length", &bytes.len().to_string()),
        None => status(404),
    }
}
