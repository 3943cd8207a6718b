//! Computes the response to a request: the pull half of the OCI distribution specification (v1.1, `spec.md`), and
//! the parts of HTTP semantics (RFC 9110) that it needs. This module sends nothing and reads no blob.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::json;

use crate::digest::Digest;
use crate::serve::http::site::{Blob, File, Manifest, Repository, Site};

/// A response that has not been sent yet.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// The body of a response.
pub(crate) enum Body {
    /// Shared bytes; may be empty.
    Bytes(Bytes),
    /// Bytes for this request only, which take memory for each client.
    Made(Bytes),
    /// A range of a blob, from the first offset up to, but not including, the second.
    Blob(Arc<dyn Blob>, u64, u64),
}

impl Body {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Body::Bytes(bytes) | Body::Made(bytes) => bytes.len() as u64,
            Body::Blob(_, begin, end) => end - begin,
        }
    }
}

const EMPTY_INDEX: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Returns the response to a request. `base` is the URL under which the client reaches this server,
/// without a trailing slash.
pub(crate) fn answer(site: &Site, request: &Parts, base: &str) -> Answer {
    let Some(path) = decoded(request.uri.path()) else {
        return plain(StatusCode::BAD_REQUEST, "The path is not valid.\n");
    };
    let path = path.trim_start_matches('/');
    let in_registry = path == "v2" || path.starts_with("v2/");
    let mut answer = if request.method != Method::GET && request.method != Method::HEAD {
        let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is read-only");
        set(&mut answer.headers, header::ALLOW, "GET, HEAD");
        answer
    } else if in_registry {
        registry(site, path.trim_start_matches("v2").trim_start_matches('/'), request)
    } else {
        file(site, path, request, base)
    };
    if in_registry {
        set(&mut answer.headers, API, "registry/2.0");
    }
    let length = answer.body.length().to_string();
    if answer.status != StatusCode::NOT_MODIFIED {
        set(&mut answer.headers, header::CONTENT_LENGTH, &length);
    }
    answer
}

fn registry(site: &Site, path: &str, request: &Parts) -> Answer {
    if path.is_empty() {
        return json(&json!({}));
    }
    if path == "_catalog" {
        let names = site.repositories.keys().map(String::as_str).collect();
        return list(names, request, "/v2/_catalog", |names| json!({ "repositories": names }));
    }
    // A repository's name may have slashes, so the path is split from its end.
    let mut parts = path.rsplitn(3, '/');
    let (Some(last), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "nothing at this path");
    };
    let Some(repository) = site.repositories.get(name) else {
        return refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such repository");
    };
    match (kind, last) {
        ("tags", "list") => {
            let tags = repository.tags.keys().map(String::as_str).collect();
            let at = format!("/v2/{name}/tags/list");
            list(tags, request, &at, |tags| json!({ "name": name, "tags": tags }))
        }
        ("manifests", reference) => manifest(repository, reference, request),
        ("blobs", digest) => blob(site, repository, digest, request),
        ("referrers", digest) => match digest.parse::<Digest>() {
            Ok(_) => with_type(StatusCode::OK, INDEX, Bytes::from_static(EMPTY_INDEX.as_bytes())),
            Err(_) => refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "not a sha256 digest"),
        },
        _ => refusal(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "nothing at this path"),
    }
}

fn manifest(repository: &Repository, reference: &str, request: &Parts) -> Answer {
    let digest = match reference.contains(':') {
        false => repository.tags.get(reference).copied(),
        true => match reference.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => {
                return refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "not a sha256 digest");
            }
        },
    };
    let found = digest.and_then(|digest| Some((digest, repository.manifests.get(&digest)?)));
    let Some((digest, Manifest { media_type, bytes })) = found else {
        return refusal(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "no such manifest");
    };
    if is_known(request, &digest) {
        return not_modified(&digest);
    }
    let mut answer = with_type(StatusCode::OK, media_type, bytes.clone());
    name(&mut answer.headers, &digest);
    answer
}

fn blob(site: &Site, repository: &Repository, digest: &str, request: &Parts) -> Answer {
    let Ok(digest) = digest.parse::<Digest>() else {
        return refusal(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "not a sha256 digest");
    };
    let Some(blob) = site.blob_of(repository, &digest) else {
        return refusal(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "no such blob");
    };
    if is_known(request, &digest) {
        return not_modified(&digest);
    }
    // If the condition names another entity tag, the complete blob is sent (RFC 9110, 13.1.5).
    let condition = request.headers.get(header::IF_RANGE);
    let fits = condition.is_none_or(|condition| condition.as_bytes() == etag(&digest).as_bytes());
    let mut answer = ranged(blob, OCTETS, request, fits);
    name(&mut answer.headers, &digest);
    answer
}

/// Returns a file. Files have no entity tags, because Trivy before v0.73 loses its VEX documents when it gets
/// `304 Not Modified` (Trivy issue 10958).
fn file(site: &Site, path: &str, request: &Parts, base: &str) -> Answer {
    let missing = || plain(StatusCode::NOT_FOUND, "Nothing at this path.\n");
    match site.file_at(path) {
        None => missing(),
        Some(File::Fixed(blob, media_type)) => {
            ranged(blob, media_type, request, !request.headers.contains_key(header::IF_RANGE))
        }
        Some(File::Naming(make)) => {
            let mut answer = make(base).map_or_else(missing, |bytes| made(bytes.into()));
            // It holds the URL under which this client reaches the server, so a cache must not
            // serve it to others.
            set(&mut answer.headers, header::CACHE_CONTROL, "no-store");
            answer
        }
    }
}

/// Returns a blob or the requested range of it. A request for several ranges, or for an invalid one, gets the complete
/// blob.
fn ranged(blob: &Arc<dyn Blob>, media_type: &str, request: &Parts, may: bool) -> Answer {
    let size = blob.size();
    let wanted = request.headers.get(header::RANGE).filter(|_| may && request.method == Method::GET);
    let range = wanted.and_then(|range| range.to_str().ok()).and_then(|range| parse_range(range, size));
    let mut headers = HeaderMap::new();
    set(&mut headers, header::ACCEPT_RANGES, "bytes");
    let (status, body) = match range {
        Some(Range::Outside) => {
            set(&mut headers, header::CONTENT_RANGE, &format!("bytes */{size}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, Body::Bytes(Bytes::new()))
        }
        Some(Range::Of(begin, end)) => {
            set(&mut headers, header::CONTENT_TYPE, media_type);
            set(&mut headers, header::CONTENT_RANGE, &format!("bytes {begin}-{}/{size}", end - 1));
            (StatusCode::PARTIAL_CONTENT, Body::Blob(blob.clone(), begin, end))
        }
        None => {
            set(&mut headers, header::CONTENT_TYPE, media_type);
            (StatusCode::OK, Body::Blob(blob.clone(), 0, size))
        }
    };
    Answer { status, headers, body }
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// The bytes from the first offset up to, but not including, the second; never empty.
    Of(u64, u64),
    /// A range past the end.
    Outside,
}

/// Parses a range (RFC 9110, 14.1.2). Returns `None` if the header is to be ignored.
fn parse_range(text: &str, size: u64) -> Option<Range> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) && !text.is_empty() {
        // A number that does not fit is past the end of any blob.
        true => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        false => None,
    };
    let (begin, end) = match (first, last) {
        ("", suffix) => (size.saturating_sub(number(suffix)?), size),
        (first, "") => (number(first)?, size),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(size)),
    };
    if !first.is_empty() && !last.is_empty() && number(last)? < begin {
        return None;
    }
    Some(if begin < end { Range::Of(begin, end) } else { Range::Outside })
}

/// Returns a page of a list: at most `n` names after `last` (`spec.md`, "Listing Tags").
fn list(
    all: Vec<&str>,
    request: &Parts,
    at: &str,
    document: impl Fn(&[&str]) -> serde_json::Value,
) -> Answer {
    let query = request.uri.query().unwrap_or_default();
    let value = |key: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).and_then(|(_, value)| decoded(value))
    };
    let last = value("last").unwrap_or_default();
    let after: Vec<&str> = all.into_iter().filter(|name| last.is_empty() || *name > last.as_str()).collect();
    let most = match value("n").map(|n| n.parse::<usize>()) {
        None => after.len(),
        Some(Ok(n)) => n,
        Some(Err(_)) => {
            return refusal(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "n is not a number");
        }
    };
    let page = &after[..most.min(after.len())];
    let mut answer = made(document(page).to_string().into());
    if let (Some(end), true) = (page.last(), page.len() < after.len()) {
        // Names of tags and repositories have no characters that a query must escape.
        set(&mut answer.headers, header::LINK, &format!("<{at}?n={most}&last={end}>; rel=\"next\""));
    }
    answer
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client already has these bytes (RFC 9110, 13.1.2).
fn is_known(request: &Parts, digest: &Digest) -> bool {
    let wanted = etag(digest);
    let given = request.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == wanted
    })
}

fn not_modified(digest: &Digest) -> Answer {
    let mut headers = HeaderMap::new();
    name(&mut headers, digest);
    Answer { status: StatusCode::NOT_MODIFIED, headers, body: Body::Bytes(Bytes::new()) }
}

fn name(headers: &mut HeaderMap, digest: &Digest) {
    set(headers, DIGEST, &digest.to_string());
    set(headers, header::ETAG, &etag(digest));
}

fn json(document: &serde_json::Value) -> Answer {
    with_type(StatusCode::OK, JSON, document.to_string().into())
}

/// Returns a JSON document that was made for one request.
fn made(document: Bytes) -> Answer {
    let answer = with_type(StatusCode::OK, JSON, Bytes::new());
    Answer { body: Body::Made(document), ..answer }
}

/// Returns an error in the form of registries (`spec.md`, "Error Codes").
pub(crate) fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    let document = json!({ "errors": [{ "code": code, "message": message }] });
    with_type(status, JSON, document.to_string().into())
}

/// Returns an error as plain text.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn with_type(status: StatusCode, media_type: &str, bytes: Bytes) -> Answer {
    let mut headers = HeaderMap::new();
    set(&mut headers, header::CONTENT_TYPE, media_type);
    Answer { status, headers, body: Body::Bytes(bytes) }
}

/// Sets a header. A value that is not valid in a header can only come from a bad manifest, and is omitted.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Decodes the percent-encoding of a path or of a query's value. Returns `None` if the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
