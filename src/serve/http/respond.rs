//! Handles one request: computes the response, waits until it may be sent, and reports it to the access log.

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

/// The maximum total size of the documents for single requests that are sent at once, in KiB.
const MADE: usize = 4 << 10;
/// The maximum time for which a request for a blob waits for a free download. It is longer than the
/// time that clients may stall ([`crate::serve::http::listen`]), so that stalled clients do not
/// block others.
const TURN: Duration = Duration::from_secs(120);
/// The maximum size of a field from the client in the access log, in bytes.
const SAID: usize = 512;

/// The data that all requests share.
pub(crate) struct Shared {
    site: Site,
    pub(crate) options: ServerOptions,
    bodies: Arc<Semaphore>,
    made: Arc<Semaphore>,
    /// The number of responses that are being sent.
    pub(crate) answering: AtomicUsize,
}

/// Counts a response as running until it is dropped.
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

/// Returns the response to a request.
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
        None => plain(StatusCode::BAD_REQUEST, "A request must name exactly one host.\n"),
    };
    let method = parts.method.clone();
    let closes = has_body(&parts.headers);
    // Many requests may wait, so the memory of the head is freed first.
    drop(parts);
    let mut begun = None;
    if let Body::Blob(blob, begin, end) = &answer.body
        && method == Method::GET
        && begin < end
    {
        match begin_blob(blob, *begin, &shared.bodies).await {
            Ok((permit, first)) => begun = Some((blob.clone(), (*begin, *end), permit, first)),
            Err(Busy::Busy) => answer = busy("too many downloads are running; try again"),
            Err(Busy::Fault(error)) => {
                let message = "the bundle can no longer be read, or was changed; restart the server";
                answer = refusal(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message);
                entry.fault = Some(error.to_string());
            }
        }
    }
    if let Body::Made(bytes) = &answer.body {
        let size = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(u32::MAX);
        match shared.made.clone().try_acquire_many_owned(size) {
            Ok(permit) => answer.body = Body::Bytes(held(bytes.clone(), &Arc::new(permit))),
            Err(_) => answer = busy("too many requests are running; try again"),
        }
    }
    let Answer { status, mut headers, body } = answer;
    // No request needs a body. The connection is closed after a request with a body, because a proxy in front of
    // this server may disagree about where the body ends (request smuggling).
    if status == StatusCode::BAD_REQUEST || closes {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    entry.status = status.as_u16();
    let length = if method == Method::HEAD { 0 } else { body.length() };
    let on_end = move |sent: u64, fault: Option<String>| {
        let (complete, took, fault) = (sent == length, began.elapsed(), fault.or(entry.fault));
        (shared.options.log)(ServerEvent::Answered(AnsweredRequest { sent, complete, took, fault, ..entry }));
        drop(answering);
    };
    let body = match (begun, body) {
        (Some((blob, range, permit, first)), _) => Sending::from(blob, range, first, permit, on_end),
        (None, Body::Bytes(bytes)) if method != Method::HEAD => Sending::of(bytes, on_end),
        (None, _) => Sending::of(Bytes::new(), on_end),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Returns the response that tells a client to retry.
fn busy(message: &str) -> Answer {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "TOOMANYREQUESTS", message);
    answer.headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    answer
}

/// Returns the entry of a request for the access log.
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

/// Whether a request has a body. hyper removes the length if there is an encoding as well.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

enum Busy {
    Busy,
    Fault(io::Error),
}

/// Waits until a blob may be sent, and reads its first bytes, so that a read error can still become an error response.
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

/// Returns the URL under which the client reaches this server: with the host of the request if the
/// URL is not fixed and this host is valid, else the URL in the options. Returns `None` if the
/// request names no host or several hosts (RFC 9112, 3.2).
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
    fn a_client_decides_the_name_of_the_server_only_with_a_valid_host_and_only_if_the_url_is_not_fixed() {
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
