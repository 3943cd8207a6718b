//! Upstream behind bad weather: the sources of an export, whose answers a test can spoil.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::oneshot;
use trivy_ferry::dataset::Kind;
use trivy_ferry::digest::Digest;

use super::certificates::Authority;
use super::server::{header, serve_tls, status};
use super::{Archive, bolt, checks_layer, days, java_db_layer, manifest_of, metadata_json, vex_archive};

/// The pieces in which bodies are sent, in bytes.
const PIECE: usize = 16 << 10;

/// What becomes of one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// A status without data, and a header.
    Status(u16, Option<(&'static str, String)>),
    /// 429 in the words of ghcr.io.
    Words(String),
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// So many bytes, as if they were all: nobody has said how long it is.
    Short(usize),
    /// One byte is another.
    Flip(usize),
    /// A Content-Range that was not asked for.
    WrongRange,
    /// All of it, whatever was asked for.
    NoRange,
    /// Where it really is: at another host.
    Elsewhere,
    /// All, and so many bytes more; nobody has said how long it is.
    Long(usize),
    /// A login page.
    Page,
    /// So many bytes, and then nothing, for longer than anybody waits.
    Stall(usize),
    /// Nothing at all for as long.
    Silence,
}

/// Decides what becomes of the answer to the request of this number (from 0).
type Weather = dyn Fn(u64, &str) -> Option<Fault> + Send + Sync;

#[derive(Default)]
struct Content {
    /// By path.
    files: HashMap<String, Bytes>,
}

/// How long a server stalls.
const LONG: Duration = Duration::from_secs(4);

/// Ends when dropped.
pub struct Upstream {
    pub host: String,
    /// `https` where it speaks TLS.
    scheme: &'static str,
    /// Where blobs are where [`Fault::Elsewhere`] says so.
    pub elsewhere: String,
    /// The bytes of bodies that were sent.
    pub sent: Arc<AtomicU64>,
    pub asked: Arc<AtomicU64>,
    content: Arc<Mutex<Content>>,
    _stop: [oneshot::Sender<()>; 2],
}

impl Upstream {
    pub fn new(weather: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self::with(None, weather)
    }

    /// One that speaks TLS, with a certificate of a private authority, and asks for one.
    pub fn with(
        authority: Option<&Authority>,
        weather: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self::over(authority.map(|authority| authority.server(true)), weather)
    }

    /// One that speaks TLS and asks for no certificate.
    pub fn behind_tls(
        authority: &Authority,
        weather: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self::over(Some(authority.server(false)), weather)
    }

    fn over(
        tls: Option<Arc<rustls::ServerConfig>>,
        weather: impl Fn(u64, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let content = Arc::new(Mutex::new(Content::default()));
        let (sent, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let weather: Arc<Weather> = Arc::new(weather);
        // The second host is where blobs are when the first says so.
        let (files, bytes, quiet) = (content.clone(), sent.clone(), Arc::new(AtomicU64::new(0)));
        let fair: Arc<Weather> = Arc::new(|_, _| None);
        let cdn = axum::Router::new().fallback(move |request: Request| {
            let all = (files.clone(), bytes.clone(), quiet.clone(), fair.clone());
            async move { slowly(answer(&request, all, "")).await }
        });
        let (elsewhere, stop_cdn) = serve_tls(cdn, tls.clone());
        let (files, bytes, count) = (content.clone(), sent.clone(), asked.clone());
        let (cdn_host, elsewhere) = (elsewhere.clone(), format!("{scheme}://{elsewhere}"));
        let registry = axum::Router::new().fallback(move |request: Request| {
            let all = (files.clone(), bytes.clone(), count.clone(), weather.clone());
            let elsewhere = elsewhere.clone();
            async move { slowly(answer(&request, all, &elsewhere)).await }
        });
        let (host, stop) = serve_tls(registry, tls);
        Upstream { host, scheme, elsewhere: cdn_host, sent, asked, content, _stop: [stop, stop_cdn] }
    }

    fn artifact(&self, name: &str, kind: Kind, layer: Vec<u8>, date: Timestamp) {
        let manifest = manifest_of(kind.layer_media_type().unwrap(), &layer, Some(date));
        let mut content = self.content.lock().unwrap();
        content.files.insert(format!("/v2/{name}/manifests/1"), manifest.into());
        content.files.insert(format!("/v2/{name}/blobs/{}", Digest::of(b"{}")), Bytes::from_static(b"{}"));
        content.files.insert(format!("/v2/{name}/blobs/{}", Digest::of(&layer)), layer.into());
    }

    /// Publishes all four datasets; trivy-db gets so many bytes that do not pack.
    pub fn publish(&self, generation: u64, noise: usize) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let mut bolt = bolt();
        bolt.extend(Dice::new(generation + 1).bytes(noise));
        let db = Archive::new().file("trivy.db", &bolt).file("metadata.json", &metadata_json(2, date)).pack();
        self.artifact("db", Kind::TrivyDb, db, date);
        self.artifact("java", Kind::TrivyJavaDb, java_db_layer(date), date);
        self.artifact("checks", Kind::TrivyChecks, checks_layer(&generation.to_string()), date);
        self.publish_vex(generation);
    }

    /// Names trivy-db's layer as trivy-java-db's.
    pub fn publish_db_as_java_db(&self) {
        let mut content = self.content.lock().unwrap();
        let manifest = String::from_utf8(content.files["/v2/db/manifests/1"].to_vec()).unwrap();
        let types = [Kind::TrivyDb, Kind::TrivyJavaDb].map(|kind| kind.layer_media_type().unwrap());
        let manifest = manifest.replace(types[0], types[1]);
        let blobs: Vec<(String, Bytes)> = content
            .files
            .iter()
            .filter(|(path, _)| path.starts_with("/v2/db/blobs/"))
            .map(|(path, bytes)| (path.replace("/db/", "/java/"), bytes.clone()))
            .collect();
        content.files.extend(blobs);
        content.files.insert("/v2/java/manifests/1".into(), manifest.into());
    }

    /// A trivy-db with a true digest, and nothing in it that Trivy could use.
    pub fn publish_rubbish_db(&self, generation: u64) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let db = Archive::new().file("trivy.db", &Dice::new(1).bytes(2_000_000)).pack();
        self.artifact("db", Kind::TrivyDb, db, date);
    }

    /// The same of trivy-java-db.
    pub fn publish_rubbish_java_db(&self, generation: u64) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let db = Archive::new().file("trivy-java.db", &Dice::new(1).bytes(2_000_000)).pack();
        self.artifact("java", Kind::TrivyJavaDb, db, date);
    }

    pub fn publish_vex(&self, generation: u64) {
        let date = days(-3) + jiff::SignedDuration::from_mins(generation as i64);
        let location = format!("{}://{}/vex.tar.gz", self.scheme, self.host);
        let vex = json!({"name": "x", "description": "", "versions": [
            {"spec_version": "0.1", "locations": [{"url": location}], "update_interval": "24h"}]});
        let mut content = self.content.lock().unwrap();
        content.files.insert("/.well-known/vex-repository.json".into(), vex.to_string().into());
        content.files.insert("/vex.tar.gz".into(), vex_archive(".", date).into());
    }

    /// The flags that make it the source of everything.
    pub fn flags(&self) -> Vec<String> {
        let host = &self.host;
        let flags = [
            format!("--db-repository={host}/db:1"),
            format!("--java-db-repository={host}/java:1"),
            format!("--checks-bundle-repository={host}/checks:1"),
            format!("--vex=default={}://{host}", self.scheme),
        ];
        let plain = (self.scheme == "http").then(|| "--plain-http".into());
        flags.into_iter().chain(plain).collect()
    }

    /// The bytes of all that it has.
    pub fn size(&self) -> u64 {
        self.content.lock().unwrap().files.values().map(|bytes| bytes.len() as u64).sum()
    }
}

type All = (Arc<Mutex<Content>>, Arc<AtomicU64>, Arc<AtomicU64>, Arc<Weather>);

/// Gives an answer when it is time.
async fn slowly(answer: Response) -> Response {
    if let Some(pause) = answer.extensions().get::<Duration>() {
        tokio::time::sleep(*pause).await;
    }
    answer
}

fn answer(request: &Request, (content, sent, count, weather): All, elsewhere: &str) -> Response {
    let path = request.uri().path();
    let Some(bytes) = content.lock().unwrap().files.get(path).cloned() else { return status(404) };
    let fault = weather(count.fetch_add(1, Relaxed), path);
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
            let mut answer = Response::new(text.into());
            *answer.status_mut() = axum::http::StatusCode::TOO_MANY_REQUESTS;
            return answer;
        }
        Some(Fault::Page) => {
            return header(Response::new("<html>log in</html>".into()), "content-type", "text/html");
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

/// xorshift64: good enough to spread faults, and repeatable.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(count).collect()
    }
}
