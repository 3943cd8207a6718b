//! A server of files whose answers a test can spoil: a source of an export behind a bad network.

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

/// The pieces in which bodies are sent, in bytes.
const PIECE: usize = 16 << 10;

/// How long a server stalls: longer than the limits that tests of stalls set.
pub const LONG: Duration = Duration::from_secs(4);

/// What becomes of one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A status without a body, and a header.
    Status(u16, Option<(&'static str, String)>),
    /// 429 with this message, in ghcr.io's form.
    Words(String),
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// So many bytes, as if they were all; no length is announced.
    Short(usize),
    /// The byte at this place, modulo the length, is changed.
    Flip(usize),
    /// A Content-Range other than the one that was asked for.
    WrongRange,
    /// All of it, whatever range was asked for.
    NoRange,
    /// A redirect to the second host. For blobs only.
    Elsewhere,
    /// All, and so many bytes more; no length is announced.
    Long(usize),
    /// A login page.
    Page,
    /// So many bytes, and then nothing for [`LONG`], and then the connection breaks.
    Stall(usize),
    /// Nothing at all for [`LONG`], and then a 504.
    Silence,
}

/// Decides what becomes of the answer to the request of this number, counted from 0, for this path.
type Faults = dyn Fn(u64, &str) -> Option<Fault> + Send + Sync;

/// Files by path.
type Shared = Arc<Mutex<HashMap<String, Bytes>>>;

/// What a server did so far.
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
    /// A server without files that speaks HTTPS if TLS is set up.
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
        // What the second host is asked does not count.
        let quiet = Counts { sent: counts.sent.clone(), ..Counts::default() };
        let second = start(Arc::new(|_, _| None), quiet, String::new());
        let elsewhere = second.host.clone();
        let first = start(Arc::new(faults), counts.clone(), format!("{scheme}://{elsewhere}"));
        let host = first.host.clone();
        Files { host, scheme, elsewhere, files, counts, _serving: [first, second] }
    }

    /// Puts a file at a path.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.files.lock().unwrap().insert(path.into(), bytes.into());
    }

    /// All files, by path.
    #[must_use]
    pub fn files(&self) -> HashMap<String, Bytes> {
        self.files.lock().unwrap().clone()
    }

    /// The bytes of all files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.lock().unwrap().values().map(|bytes| bytes.len() as u64).sum()
    }

    /// The bytes of bodies that both hosts have sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Relaxed)
    }

    /// How many requests the first host has had.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.counts.asked.load(Relaxed)
    }
}

/// Gives an answer when it is time.
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
    let sent = counts.sent.clone();
    let asked = request.headers().get("range").and_then(|value| value.to_str().ok());
    let range = asked.and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()? + 1))
    });
    let range = range.filter(|_| fault != Some(Fault::NoRange) && path.contains("/blobs/"));
    let (start, end) = range.unwrap_or((0, bytes.len()));
    let mut body = bytes.slice(start..end);
    let length = body.len();
    let (mut announced, mut whole) = (true, true);
    match &fault {
        Some(Fault::Status(code, more)) => {
            let answer = status(*code);
            return more.iter().fold(answer, |answer, (name, value)| header(answer, name, value));
        }
        Some(Fault::Words(words)) => {
            let text = json!({"errors": [{"code": "TOOMANYREQUESTS", "message": words}]}).to_string();
            return with(ok(text), 429);
        }
        Some(Fault::Page) => {
            return header(ok("<html>log in</html>"), "content-type", "text/html");
        }
        Some(Fault::Elsewhere) if path.contains("/blobs/") => {
            return header(status(307), "location", &format!("{elsewhere}{path}"));
        }
        Some(Fault::Silence) => {
            let mut answer = status(504);
            answer.extensions_mut().insert(LONG);
            return answer;
        }
        Some(Fault::Cut(at) | Fault::Stall(at)) => {
            whole = false;
            body = body.slice(..length.min(*at));
        }
        Some(Fault::Short(at)) => {
            announced = false;
            body = body.slice(..length.min(*at));
        }
        Some(Fault::Long(more)) => {
            announced = false;
            body = [&body[..], &vec![7; *more]].concat().into();
        }
        Some(Fault::Flip(at)) if length > 0 => {
            let mut bytes = body.to_vec();
            bytes[at % length] ^= 1;
            body = bytes.into();
        }
        _ => {}
    }
    let pieces: Vec<Bytes> =
        (0..body.len()).step_by(PIECE).map(|at| body.slice(at..body.len().min(at + PIECE))).collect();
    let pieces = stream::iter(pieces).map(move |piece| {
        sent.fetch_add(piece.len() as u64, Relaxed);
        Ok::<_, std::io::Error>(piece)
    });
    let pause = if matches!(fault, Some(Fault::Stall(_))) { LONG } else { Duration::from_millis(20) };
    let breaking = stream::iter((!whole).then_some(())).then(move |()| async move {
        // A pause, so that the start is on its way before the connection breaks.
        tokio::time::sleep(pause).await;
        Err(std::io::Error::other("broken"))
    });
    let mut answer = Response::new(Body::from_stream(pieces.chain(breaking)));
    if announced {
        answer = header(answer, "content-length", &length.to_string());
    }
    if range.is_some() {
        *answer.status_mut() = axum::http::StatusCode::PARTIAL_CONTENT;
        let first = if fault == Some(Fault::WrongRange) { start + 1 } else { start };
        answer = header(answer, "content-range", &format!("bytes {first}-{}/{}", end - 1, bytes.len()));
    }
    answer
}
