//! An OCI registry in memory that does what it must, unless a test says otherwise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use rustls::ServerConfig;

use crate::answers::{header, ok, status};
use crate::http::{LARGEST_BODY, Seen, Serving, serve};
use crate::sha256;

/// What a test answers in the registry's place, before the request's body is read.
type Change = dyn Fn(&Seen) -> Option<Response> + Send + Sync;

#[derive(Default)]
struct Content {
    /// By repository and digest.
    blobs: HashMap<(String, String), Bytes>,
    /// By path: `/v2/NAME/manifests/REFERENCE`.
    manifests: HashMap<String, Bytes>,
    /// How it answers when it has taken a manifest; 201 if this is none.
    taken: Option<u16>,
    seen: Vec<Seen>,
}

/// A registry. It ends when dropped.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    content: Arc<Mutex<Content>>,
    _serving: Serving,
}

impl Registry {
    /// One that speaks HTTP.
    pub fn new(change: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) -> Registry {
        Registry::over(None, change)
    }

    /// One that speaks HTTPS if TLS is set up.
    pub fn over(
        tls: Option<Arc<ServerConfig>>,
        change: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static,
    ) -> Registry {
        let content = Arc::new(Mutex::new(Content::default()));
        let (change, kept): (Arc<Change>, _) = (Arc::new(change), content.clone());
        let serving = serve(tls, move |request| answer(kept.clone(), change.clone(), request));
        Registry { host: serving.host.clone(), content, _serving: serving }
    }

    /// All requests so far, without their bodies.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.content.lock().unwrap().seen.clone()
    }

    /// The tags that name something, sorted, as `NAME:TAG`.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let content = self.content.lock().unwrap();
        let name = |path: &String| path.replace("/v2/", "").replace("/manifests/", ":");
        let mut tags: Vec<String> = content.manifests.keys().map(name).collect();
        tags.sort();
        tags
    }

    /// Answers with this status when it has taken a manifest.
    pub fn answer_manifests_with(&self, code: u16) {
        self.content.lock().unwrap().taken = Some(code);
    }

    /// Loses all blobs.
    pub fn forget_blobs(&self) {
        self.content.lock().unwrap().blobs.clear();
    }

    /// What a tag names.
    ///
    /// # Panics
    /// If it names nothing.
    #[must_use]
    pub fn manifest(&self, reference: &str) -> Vec<u8> {
        self.content.lock().unwrap().manifests[&path_of(reference)].to_vec()
    }

    /// Keeps of each blob what a disk that fails leaves.
    pub fn cut_blobs(&self) {
        for bytes in self.content.lock().unwrap().blobs.values_mut() {
            bytes.truncate(1);
        }
    }

    /// Lets no tag name anything any more.
    pub fn forget_tags(&self) {
        self.content.lock().unwrap().manifests.clear();
    }

    /// Lets a tag name nothing any more, and returns what it named.
    ///
    /// # Panics
    /// If it named nothing.
    pub fn forget_tag(&self, reference: &str) -> Vec<u8> {
        self.content.lock().unwrap().manifests.remove(&path_of(reference)).unwrap().to_vec()
    }

    /// Lets a tag name this, whoever pushed it.
    pub fn name(&self, reference: &str, manifest: Vec<u8>) {
        self.content.lock().unwrap().manifests.insert(path_of(reference), manifest.into());
    }
}

fn path_of(reference: &str) -> String {
    format!("/v2/{}", reference.replacen(':', "/manifests/", 1))
}

async fn answer(content: Arc<Mutex<Content>>, change: Arc<Change>, request: Request) -> Response {
    let seen = Seen::of(&request);
    content.lock().unwrap().seen.push(seen.clone());
    if let Some(response) = change(&seen) {
        return response;
    }
    // A body that broke off is nothing.
    let Ok(body) = axum::body::to_bytes(request.into_body(), LARGEST_BODY).await else { return status(400) };
    let mut content = content.lock().unwrap();
    let path = seen.path.as_str();
    if path.contains("/manifests/") {
        return match seen.method {
            Method::PUT => {
                content.manifests.insert(path.to_owned(), body);
                status(content.taken.unwrap_or(201))
            }
            _ => content.manifests.get(path).map_or_else(|| status(404), |bytes| ok(bytes.clone())),
        };
    }
    let repository = path.trim_start_matches("/v2/").split("/blobs/").next().unwrap().to_owned();
    let field = |name: &str| {
        let value = seen.query.split('&').find_map(|pair| pair.strip_prefix(name));
        value.map(|value| value.replace("%3A", ":"))
    };
    if path.ends_with("/blobs/uploads/") {
        if let (Some(digest), Some(from)) = (field("mount="), field("from="))
            && let Some(bytes) = content.blobs.get(&(from, digest.clone())).cloned()
        {
            content.blobs.insert((repository, digest), bytes);
            return status(201);
        }
        return header(status(202), "location", &format!("{path}1?state=x"));
    }
    if seen.method == Method::PUT {
        let digest = sha256::digest(&body);
        assert_eq!(Some(&digest), field("digest=").as_ref(), "a registry would refuse this");
        content.blobs.insert((repository, digest), body);
        return status(201);
    }
    let digest = path.rsplit('/').next().unwrap_or_default().to_owned();
    match content.blobs.get(&(repository, digest)) {
        Some(bytes) => header(status(200), "content-length", &bytes.len().to_string()),
        None => status(404),
    }
}
