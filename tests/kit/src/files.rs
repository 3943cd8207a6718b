//! A file server whose responses a test can break: a source of an export behind a bad network.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustls::ServerConfig;
use serde_json::json;

use crate::answers::{header, ok, status, with};
use crate::http::{Serving, serve};

/// The size of the chunks of bodies, in bytes.
const PIECE: usize = 16 << 10;

/// The time for which a server stalls. This is longer than the limits in tests of stalls.
pub const LONG: Duration = Duration::from_secs(4);

/// A fault of a response.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A status without a body, with a header.
    Status(u16, Option<(&'static str, String)>),
    /// 429 with this message, in ghcr.io's form.
    Words(String),
    /// The connection is closed after this many bytes.
    Cut(usize),
    /// Only this many bytes are sent, without a length.
    Short(usize),
    /// The byte at this offset, modulo the length, is changed.
    Flip(usize),
    /// Another `Content-Range` than the requested one.
    WrongRange,
    /// The complete file, whatever range was requested.
    NoRange,
    /// A redirect to the second host. For blobs only.
    Elsewhere,
    /// The complete file and this many more bytes, without a length.
    Long(usize),
    /// A login page.
    Page,
    /// This many bytes, then nothing for [`LONG`], and then the connection is closed.
    Stall(usize),
    /// Nothing for [`LONG`], and then a 504.
    Silence,
}

/// Returns the fault of the response to the request with this number, counted from 0, for this path.
type Faults = dyn Fn(u64, &str) -> Option<Fault> + Send + Sync;

/// Files by path.
type Shared = Arc<Mutex<HashMap<String, Bytes>>>;

/// The counters of a server.
#[derive(Debug, Clone, Default)]
struct Counts {
    sent: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

/// The server, and a second host that has the same files and no faults. Both end when dropped.
#[derive(Debug)]
pub struct Files {
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// `https` if it speaks TLS, or `http`.
    pub scheme: &'static str,
    /// The second host, to which [`Fault::Elsewhere`] redirects.
    pub elsewhere: String,
    files: Shared,
    counts: Counts,
    _serving: [Serving; 2],
}

impl Files {
    /// Starts a server without files. It uses HTTPS if TLS is configured.
    pub fn over(
        tls: Option<Arc<ServerConfig>>,
        faults: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Files {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (files, counts) = (Shared::default(), Counts::default());
        let start = |faults: Arc<Faults>, counts: Counts, elsewhere: String| {
            let files = files.clone();
            serve(tls.clone(), move |request: Request| {
                let answer = answer(&request, &files, &counts, &*faults, &elsewhere);
                slowly(answer)
            })
        };
        // Requests to the second host do not count.
        let quiet = Counts { sent: counts.sent.clone(), ..Counts::default() };
        let second = start(Arc::new(|_, _| None), quiet, String::new());
        let elsewhere = second.host.clone();
        let first = start(Arc::new(faults), counts.clone(), format!("{scheme}://{elsewhere}"));
        let host = first.host.clone();
        Files { host, scheme, elsewhere, files, counts, _serving: [first, second] }
    }

    /// Adds a file.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.files.lock().unwrap().insert(path.into(), bytes.into());
    }

    /// Returns all files, by path.
    #[must_use]
    pub fn files(&self) -> HashMap<String, Bytes> {
        self.files.lock().unwrap().clone()
    }

    /// Returns the size of all files in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.lock().unwrap().values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Returns the number of bytes of bodies that both hosts have sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Relaxed)
    }

    /// Returns the number of requests to the first host.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.counts.asked.load(Relaxed)
    }
}

/// Returns a response after its pause.
async fn slowly(answer: Response) -> Response {
    if let Some(pause) = answer.extensions().get::<Duration>() {
        tokio::time::sleep(*pause).await;
    }
    answer
}

fn answer(request: &Request, files: &Shared, counts: &Counts, faults: &Faults, elsewhere: &str) -> Response {
    let path = request.uri().path();
    let Some(bytes) = files.lock().unwrap().get(path).cloned() else { return status(404) };
    let fault = faults(counts.asked.fetch_add(1, Relaxed), path);
    if let Some(answer) = fault.as_ref().and_then(|fault| instead(fault, path, elsewhere)) {
        return answer;
    }
    let takes_ranges = fault != Some(Fault::NoRange) && path.contains("/blobs/");
    let range = range(request).filter(|_| takes_ranges);
    let (start, end) = range.unwrap_or((0, bytes.len()));
    let body = bytes.slice(start..end);
    let length = body.len();
    let sent = Sent::of(body, fault.as_ref());
    let is_announced = sent.is_announced;
    let mut answer = Response::new(sent.into_body(counts.sent.clone()));
    if is_announced {
        answer = header(answer, "content-length", &length.to_string());
    }
    if range.is_some() {
        *answer.status_mut() = axum::http::StatusCode::PARTIAL_CONTENT;
        let first = if fault == Some(Fault::WrongRange) { start + 1 } else { start };
        answer = header(answer, "content-range", &format!("bytes {first}-{}/{}", end - 1, bytes.len()));
    }
    answer
}

/// Returns the requested range of bytes.
fn range(request: &Request) -> Option<(usize, usize)> {
    let range = request.headers().get("range")?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
}

/// Returns the response of a fault that replaces the file; `None` for faults that send the file or a part of it.
fn instead(fault: &Fault, path: &str, elsewhere: &str) -> Option<Response> {
    match fault {
        Fault::Status(code, more) => {
            let answer = status(*code);
            Some(more.iter().fold(answer, |answer, (name, value)| header(answer, name, value)))
        }
        Fault::Words(words) => {
            let text = json!({"errors": [{"code": "TOOMANYREQUESTS", "message": words}]}).to_string();
            Some(with(ok(text), 429))
        }
        Fault::Page => Some(header(ok("<html>log in</html>"), "content-type", "text/html")),
        Fault::Elsewhere if path.contains("/blobs/") => {
            Some(header(status(307), "location", &format!("{elsewhere}{path}")))
        }
        Fault::Silence => {
            let mut answer = status(504);
            answer.extensions_mut().insert(LONG);
            Some(answer)
        }
        _ => None,
    }
}

/// The part of a file that is sent.
struct Sent {
    body: Bytes,
    /// Whether the response has a length.
    is_announced: bool,
    /// The pause before the connection is closed, if it is.
    breaks: Option<Duration>,
}

impl Sent {
    fn of(body: Bytes, fault: Option<&Fault>) -> Sent {
        let length = body.len();
        let whole = Sent { body: body.clone(), is_announced: true, breaks: None };
        match fault {
            // The pause lets the client receive the start before the connection is closed.
            Some(Fault::Cut(at)) => {
                Sent { body: body.slice(..length.min(*at)), breaks: Some(Duration::from_millis(20)), ..whole }
            }
            Some(Fault::Stall(at)) => {
                Sent { body: body.slice(..length.min(*at)), breaks: Some(LONG), ..whole }
            }
            Some(Fault::Short(at)) => {
                Sent { body: body.slice(..length.min(*at)), is_announced: false, ..whole }
            }
            Some(Fault::Long(more)) => {
                Sent { body: [&body[..], &vec![7; *more]].concat().into(), is_announced: false, ..whole }
            }
            Some(Fault::Flip(at)) if length > 0 => {
                let mut bytes = body.to_vec();
                bytes[at % length] ^= 1;
                Sent { body: bytes.into(), ..whole }
            }
            _ => whole,
        }
    }

    /// Sends it in chunks, and counts the sent bytes.
    fn into_body(self, count: Arc<AtomicU64>) -> Body {
        let Sent { body, breaks, .. } = self;
        let pieces: Vec<Bytes> =
            (0..body.len()).step_by(PIECE).map(|at| body.slice(at..body.len().min(at + PIECE))).collect();
        let pieces = stream::iter(pieces).map(move |piece| {
            count.fetch_add(piece.len() as u64, Relaxed);
            Ok::<_, std::io::Error>(piece)
        });
        let breaking = stream::iter(breaks).then(|pause| async move {
            tokio::time::sleep(pause).await;
            Err(std::io::Error::other("broken"))
        });
        Body::from_stream(pieces.chain(breaking))
    }
}
