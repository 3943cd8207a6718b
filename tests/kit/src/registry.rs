//! An OCI registry in memory whose responses a test can change.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use rustls::ServerConfig;

use crate::answers::{header, ok, status};
use crate::http::{LARGEST_BODY, Seen, Serving, serve};
use crate::sha256;

/// Returns a response in place of the registry's, before the request's body is read.
type Change = dyn Fn(&Seen) -> Option<Response> + Send + Sync;

#[derive(Default)]
struct Content {
    /// Blobs, by repository and digest.
    blobs: HashMap<(String, String), Bytes>,
    /// Manifests, by path: `/v2/NAME/manifests/REFERENCE`.
    manifests: HashMap<String, Bytes>,
    /// The status after it has stored a manifest; `None` for 201.
    taken: Option<u16>,
    /// Running uploads, by path.
    uploads: HashMap<String, Vec<u8>>,
    /// The next bodies that break off.
    breaks: VecDeque<Break>,
    /// Whether it never responds to the request that ends an upload.
    silent: bool,
    /// The minimum chunk size that it announces.
    least: Option<u64>,
    /// The location for the rest of an upload after its first chunk.
    elsewhere: Option<String>,
    seen: Vec<Seen>,
}

/// A body of an upload that breaks off: the connection is reset.
#[derive(Debug, Clone, Copy)]
pub struct Break {
    /// The number of bytes after which the connection is reset.
    pub after: usize,
    /// Whether the registry keeps them.
    pub keeps: bool,
}

/// A registry. It ends when dropped.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    content: Arc<Mutex<Content>>,
    _serving: Serving,
}

impl Registry {
    /// Starts a registry that uses HTTP.
    pub fn new(change: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) -> Registry {
        Registry::over(None, change)
    }

    /// Starts a registry that uses HTTPS if TLS is configured.
    pub fn over(
        tls: Option<Arc<ServerConfig>>,
        change: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static,
    ) -> Registry {
        let content = Arc::new(Mutex::new(Content::default()));
        let (change, kept): (Arc<Change>, _) = (Arc::new(change), content.clone());
        let serving = serve(tls, move |request| answer(kept.clone(), change.clone(), request));
        Registry { host: serving.host.clone(), content, _serving: serving }
    }

    /// Returns all requests so far, without their bodies.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.content.lock().unwrap().seen.clone()
    }

    /// Returns the tags, sorted, as `NAME:TAG`.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let content = self.content.lock().unwrap();
        let name = |path: &String| path.replace("/v2/", "").replace("/manifests/", ":");
        let mut tags: Vec<String> = content.manifests.keys().map(name).collect();
        tags.sort();
        tags
    }

    /// Responds with this status after it has stored a manifest.
    pub fn answer_manifests_with(&self, code: u16) {
        self.content.lock().unwrap().taken = Some(code);
    }

    /// Lets the next bodies of uploads break off.
    pub fn break_next(&self, breaks: impl IntoIterator<Item = Break>) {
        self.content.lock().unwrap().breaks.extend(breaks);
    }

    /// Stores the complete blob, but never responds.
    pub fn fall_silent(&self) {
        self.content.lock().unwrap().silent = true;
    }

    /// Announces a minimum chunk size, and rejects smaller chunks except the last.
    pub fn want_chunks_of(&self, least: u64) {
        self.content.lock().unwrap().least = Some(least);
    }

    /// Redirects uploads to this address after their first chunk.
    pub fn send_on_to(&self, elsewhere: &str) {
        self.content.lock().unwrap().elsewhere = Some(elsewhere.to_owned());
    }

    /// Loses all incomplete uploads.
    pub fn forget_uploads(&self) {
        self.content.lock().unwrap().uploads.clear();
    }

    /// Loses all blobs.
    pub fn forget_blobs(&self) {
        self.content.lock().unwrap().blobs.clear();
    }

    /// Returns the manifest of a tag.
    ///
    /// # Panics
    /// If the tag does not exist.
    #[must_use]
    pub fn manifest(&self, reference: &str) -> Vec<u8> {
        self.content.lock().unwrap().manifests[&path_of(reference)].to_vec()
    }

    /// Truncates each blob, as a failing disk may do.
    pub fn cut_blobs(&self) {
        for bytes in self.content.lock().unwrap().blobs.values_mut() {
            bytes.truncate(1);
        }
    }

    /// Removes all tags.
    pub fn forget_tags(&self) {
        self.content.lock().unwrap().manifests.clear();
    }

    /// Removes a tag, and returns its manifest.
    ///
    /// # Panics
    /// If the tag did not exist.
    pub fn forget_tag(&self, reference: &str) -> Vec<u8> {
        self.content.lock().unwrap().manifests.remove(&path_of(reference)).unwrap().to_vec()
    }

    /// Adds a blob.
    pub fn keep(&self, repository: &str, bytes: &[u8]) {
        let key = (repository.to_owned(), sha256::digest(bytes));
        self.content.lock().unwrap().blobs.insert(key, Bytes::copy_from_slice(bytes));
    }

    /// Adds a manifest under a tag.
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
    let path = seen.path.as_str();
    let is_sent = path.contains("/blobs/uploads/") && [Method::PUT, Method::PATCH].contains(&seen.method);
    let next = if is_sent { next_break(&content, seen.length) } else { None };
    let body = match next {
        Some(next) => return broken(next, request.into_body(), &content, path).await,
        None => request.into_body(),
    };
    // A body that broke off is ignored.
    let Ok(body) = axum::body::to_bytes(body, LARGEST_BODY).await else { return status(400) };
    if seen.method == Method::PUT && is_sent && content.lock().unwrap().silent {
        return std::future::pending().await;
    }
    let mut content = content.lock().unwrap();
    if path.contains("/manifests/") {
        return manifest(&mut content, &seen, body);
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
        let place =
            (1..).map(|number| format!("{path}{number}")).find(|at| !content.uploads.contains_key(at));
        let place = place.unwrap_or_default();
        content.uploads.insert(place.clone(), Vec::new());
        let begun = header(status(202), "location", &format!("{place}?state=x"));
        return match content.least {
            Some(least) => header(begun, "oci-chunk-min-length", &least.to_string()),
            None => begun,
        };
    }
    if path.contains("/blobs/uploads/") {
        return upload(&mut content, &seen, body, repository, field("digest="));
    }
    let digest = path.rsplit('/').next().unwrap_or_default().to_owned();
    match content.blobs.get(&(repository, digest)) {
        Some(bytes) if seen.method == Method::GET => ok(bytes.clone()),
        Some(bytes) => header(status(200), "content-length", &bytes.len().to_string()),
        None => status(404),
    }
}

/// Responds at the location of an upload.
fn upload(
    content: &mut Content,
    seen: &Seen,
    body: Bytes,
    repository: String,
    digest: Option<String>,
) -> Response {
    let place = seen.path.clone();
    if seen.method == Method::DELETE {
        return status(if content.uploads.remove(&place).is_some() { 204 } else { 404 });
    }
    let is_known = content.uploads.contains_key(&place);
    // Another registry or a test may have announced the location. It counts as an upload that was just started.
    let mut got = match (is_known, seen.method == Method::PUT) {
        (false, false) => return status(404),
        (false, true) => Vec::new(),
        (true, _) => content.uploads[&place].clone(),
    };
    let says = |got: &[u8], code| {
        let answer = header(status(code), "location", &format!("{place}?state={}", got.len()));
        header(answer, "range", &format!("0-{}", got.len().saturating_sub(1)))
    };
    if seen.method == Method::PATCH {
        let range = seen.content_range.as_deref().unwrap_or_default();
        let wanted = format!("{}-{}", got.len(), got.len() + body.len() - 1);
        if range != wanted {
            return says(&got, 416);
        }
    }
    got.extend_from_slice(&body);
    match seen.method {
        Method::PUT => {
            content.uploads.remove(&place);
            let found = sha256::digest(&got);
            if Some(&found) != digest.as_ref() {
                return status(400);
            }
            content.blobs.insert((repository, found), got.into());
            status(201)
        }
        Method::PATCH => {
            let answer = match &content.elsewhere {
                Some(elsewhere) => header(status(202), "location", elsewhere),
                None => says(&got, 202),
            };
            content.uploads.insert(place, got);
            answer
        }
        _ => says(&got, 204),
    }
}

fn manifest(content: &mut Content, seen: &Seen, body: Bytes) -> Response {
    match seen.method {
        Method::PUT => {
            content.manifests.insert(seen.path.clone(), body);
            status(content.taken.unwrap_or(201))
        }
        _ => content.manifests.get(&seen.path).map_or_else(|| status(404), |bytes| ok(bytes.clone())),
    }
}

/// Returns how a body of this length breaks off, if it does.
fn next_break(content: &Mutex<Content>, length: Option<u64>) -> Option<Break> {
    let breaks = &mut content.lock().unwrap().breaks;
    let is_next = breaks.front().is_some_and(|next| length > Some(next.after as u64));
    if is_next { breaks.pop_front() } else { None }
}

/// Reads the start of a body, and resets the connection.
async fn broken(next: Break, body: axum::body::Body, content: &Mutex<Content>, path: &str) -> Response {
    let (mut stream, mut got) = (body.into_data_stream(), Vec::new());
    while got.len() < next.after
        && let Some(Ok(piece)) = stream.next().await
    {
        got.extend_from_slice(&piece);
    }
    got.truncate(next.after);
    if next.keeps {
        content.lock().unwrap().uploads.entry(path.to_owned()).or_default().extend(got);
    }
    // Ends the task of the connection without a message.
    std::panic::resume_unwind(Box::new("a connection that is reset"))
}
