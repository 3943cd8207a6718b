//! One request: which answer it gets, when it is its turn, and what is told of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Response, StatusCode, Version, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::serve::http::answer::{Answer, Body, answer, plain, refusal};
use crate::serve::http::events::{AnsweredRequest, ServerEvent, ServerOptions};
use crate::serve::http::sending::{BODIES, Sending, held};
use crate::serve::http::site::{Blob, Site};

/// The most KiB of documents that are made for one request each and are on their way at once.
const MADE: usize = 4 << 10;
/// How long a blob waits for its turn. It must be longer than clients may stall ([`crate::serve::http::listen`]):
/// then those that died without a word keep nobody else from it.
const TURN: Duration = Duration::from_secs(120);
/// The most bytes of what a client says that are kept for the access log.
const SAID: usize = 512;

/// What all requests share.
pub(crate) struct Shared {
    site: Site,
    pub(crate) options: ServerOptions,
    bodies: Arc<Semaphore>,
    made: Arc<Semaphore>,
    /// How many answers are under way.
    pub(crate) answering: AtomicUsize,
}

/// One answer under way, until it is dropped.
struct Answering(Arc<Shared>);

impl Answering {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.answering.fetch_add(1, Ordering::Relaxed);
        Answering(shared.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(site: Site, options: ServerOptions) -> Arc<Self> {
        let [bodies, made] = [BODIES, MADE].map(|most| Arc::new(Semaphore::new(most)));
        Arc::new(Shared { site, options, bodies, made, answering: AtomicUsize::new(0) })
    }
}

/// Answers a request.
pub(crate) async fn respond(
    request: hyper::Request<Incoming>,
    client: SocketAddr,
    shared: Arc<Shared>,
) -> Response<Sending> {
    let began = Instant::now();
    let answering = Answering::new(&shared);
    let (parts, _) = request.into_parts();
    let mut entry = entry(&parts, client);
    let mut answer = match base(&shared.options, &parts) {
        Some(base) => answer(&shared.site, &parts, &base),
        None => plain(StatusCode::BAD_REQUEST, "A request names one host.\n"),
    };
    let method = parts.method.clone();
    let closes = has_body(&parts.headers);
    // Thousands may wait for their turn: nothing of the head is kept meanwhile.
    drop(parts);
    let mut begun = None;
    if let Body::Blob(blob, begin, end) = &answer.body
        && method == Method::GET
        && begin < end
    {
        match begin_blob(blob, *begin, &shared.bodies).await {
            Ok((permit, first)) => begun = Some((blob.clone(), (*begin, *end), permit, first)),
            Err(Busy::Busy) => answer = busy("too many blobs are on their way; try again"),
            Err(Busy::Fault(error)) => {
                let message =
                    "the bundle cannot be read any more, or was changed; its server must be restarted";
                answer = refusal(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message);
                entry.fault = Some(error.to_string());
            }
        }
    }
    if let Body::Made(bytes) = &answer.body {
        let size = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(u32::MAX);
        match shared.made.clone().try_acquire_many_owned(size) {
            Ok(permit) => answer.body = Body::Bytes(held(bytes.clone(), &Arc::new(permit))),
            Err(_) => answer = busy("too many documents are on their way; try again"),
        }
    }
    let Answer { status, mut headers, body } = answer;
    // Nothing here takes a body. What follows it is read by nobody: where it ends is a question that a
    // proxy before this server may answer otherwise.
    if status == StatusCode::BAD_REQUEST || closes {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    entry.status = status.as_u16();
    let length = if method == Method::HEAD { 0 } else { body.length() };
    let told = move |sent: u64, fault: Option<String>| {
        let (complete, took, fault) = (sent == length, began.elapsed(), fault.or(entry.fault));
        (shared.options.log)(ServerEvent::Answered(AnsweredRequest { sent, complete, took, fault, ..entry }));
        drop(answering);
    };
    let body = match (begun, body) {
        (Some((blob, range, permit, first)), _) => Sending::from(blob, range, first, permit, told),
        (None, Body::Bytes(bytes)) if method != Method::HEAD => Sending::of(bytes, told),
        (None, _) => Sending::of(Bytes::new(), told),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The answer to a client that has to come again.
fn busy(message: &str) -> Answer {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", message);
    answer.headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    answer
}

/// What the access log gets of a request.
fn entry(parts: &Parts, client: SocketAddr) -> AnsweredRequest {
    let kept = |text: &[u8]| String::from_utf8_lossy(text.get(..SAID).unwrap_or(text)).into_owned();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    AnsweredRequest {
        client,
        method: kept(parts.method.as_str().as_bytes()),
        path: kept(path.as_bytes()),
        agent: parts.headers.get(header::USER_AGENT).map_or_else(String::new, |agent| kept(agent.as_bytes())),
        status: 0,
        sent: 0,
        complete: false,
        took: Duration::ZERO,
        fault: None,
    }
}

/// Whether a body comes with a request. hyper takes the length away where there is an encoding too.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
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
) -> Result<(OwnedSemaphorePermit, Bytes), Busy> {
    let turn = timeout(TURN, bodies.clone().acquire_owned()).await;
    let permit = turn.map_err(|_| Busy::Busy)?.map_err(|_| Busy::Busy)?;
    let blob = blob.clone();
    let read = tokio::task::spawn_blocking(move || blob.read(begin)).await;
    let first = read.map_err(io::Error::other).flatten().map_err(Busy::Fault)?;
    Ok((permit, first))
}

/// The URL under which the client knows this server: what was given, else what it asks for, where
/// that is a host and a port and nothing else. `None` for a request that names no host, or several
/// (RFC 9112, 3.2).
fn base(options: &ServerOptions, parts: &Parts) -> Option<String> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_11 => return None,
        (_, Some(_)) => return None,
        (host, None) => host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    let plain = |c: u8| c.is_ascii_alphanumeric() || b".-:[]_".contains(&c);
    let is_host = |authority: &Authority| {
        let port = authority.as_str().strip_prefix(authority.host());
        let port = port.is_some_and(|port| port.is_empty() || authority.port_u16().is_some());
        port && !authority.host().is_empty() && host.len() <= 255 && host.bytes().all(plain)
    };
    match host.parse::<Authority>() {
        Ok(authority) if !options.fixed && is_host(&authority) => {
            let scheme = if options.tls.is_some() { "https" } else { "http" };
            Some(format!("{scheme}://{authority}"))
        }
        _ => Some(options.url.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::http::events::EndsAt;

    fn based(fixed: bool, hosts: &[&str]) -> Option<String> {
        let options = ServerOptions {
            tls: None,
            url: "http://ferry:5000".into(),
            fixed,
            log: Box::new(drop),
            until: EndsAt::Dropped,
        };
        let mut request = hyper::Request::builder();
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        base(&options, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_client_decides_the_servers_name_only_with_a_host_and_only_where_none_was_given() {
        for host in ["ferry.example", "ferry_1:5000", "10.0.0.1", "[::1]:80"] {
            assert_eq!(based(false, &[host]), Some(format!("http://{host}")));
            assert_eq!(based(true, &[host]).unwrap(), "http://ferry:5000");
        }
        let long = "a".repeat(256);
        for host in [
            "", "a/b", "a@b", "a b", "a:b", "a:99999", "a:1:2", ":80", "a?b", "a#b", "[::1", "ä", "%61",
            &long,
        ] {
            assert_eq!(based(false, &[host]).unwrap(), "http://ferry:5000", "{host}");
        }
        assert_eq!(based(false, &[]), None);
        assert_eq!(based(true, &["a", "a"]), None);
    }
}
