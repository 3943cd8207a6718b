//! One HTTP exchange: the client with its TLS set-up and time limits, redirects, answers of
//! bounded size, and what a failed exchange means.
//!
//! Knows URLs and headers; nothing of registries, VEX repositories or where credentials come from.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Url, redirect};
use rustls::AlertDescription;

use super::again;
use super::body::Body;
use super::error::{RemoteError, SPEAKS_TLS, Service, Unreachable};
use super::reference::is_loopback;
use super::runtime::Runtime;
use super::upload::Upload;
use crate::text;
use crate::threads::lock;

/// The largest part of an error's answer that is looked at, in bytes.
const MAX_SAID: u64 = 16 << 10;
/// The longest chain of redirects.
const MAX_REDIRECTS: usize = 10;

/// How long is waited for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(15);

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From the request to the answer's headers, redirects included.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub stall: Duration,
}

impl Timeouts {
    /// Lets a server be silent for so long.
    pub(crate) fn allow(&mut self, silence: Duration) {
        self.first_byte = silence;
        self.stall = silence;
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timeouts { connect: CONNECT, first_byte: seconds(60), stall: seconds(60) }
    }
}

/// A request. What it asks for is named in `subject`, for errors.
pub(crate) struct Request {
    pub subject: String,
    pub method: Method,
    pub url: Url,
    pub accept: Option<&'static str>,
    pub authorization: Option<HeaderValue>,
    /// The bytes that are asked for, where it is not all of them.
    pub range: Option<Range<u64>>,
    /// What is sent, and its media type.
    pub payload: Option<(Vec<u8>, String)>,
}

impl Request {
    pub(crate) fn get(subject: impl Into<String>, url: Url) -> Self {
        Request::new(Method::GET, subject, url)
    }

    pub(crate) fn new(method: Method, subject: impl Into<String>, url: Url) -> Self {
        let (accept, authorization, range, payload) = Default::default();
        Request { subject: subject.into(), method, url, accept, authorization, range, payload }
    }

    /// A form to post.
    pub(crate) fn form(subject: impl Into<String>, url: Url, form: String) -> Self {
        let payload = Some((form.into_bytes(), "application/x-www-form-urlencoded".to_owned()));
        Request { payload, ..Request::new(Method::POST, subject, url) }
    }

    /// Whether it is repeated elsewhere when the server says so. What changes something there, or
    /// holds a secret, is not.
    fn follows_redirects(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The digests are those of the bytes as they are stored.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let range =
            self.range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        if let Some(Ok(range)) = range.map(HeaderValue::try_from) {
            headers.insert(RANGE, range);
        }
        if let Some(accept) = self.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(Ok(typed)) = self.payload.as_ref().map(|(_, typed)| HeaderValue::from_str(typed)) {
            headers.insert(CONTENT_TYPE, typed);
        }
        headers
    }
}

/// An answer whose body has not been read.
pub(crate) struct Answer {
    pub subject: String,
    /// Whether it came from the host that was asked, at the same port and by the same scheme.
    pub same_origin: bool,
    /// The login that was shown with the question.
    login: Option<HeaderValue>,
    pub response: Response,
}

impl Answer {
    /// The answer to what was asked of `url`.
    pub(super) fn of(subject: String, url: &Url, response: Response) -> Self {
        let same_origin = response.url().origin() == url.origin();
        Answer { subject, same_origin, login: None, response }
    }

    /// The host that answered.
    pub(crate) fn host(&self) -> String {
        host_of(self.response.url())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// Hosts, with their ports where these are not the scheme's own.
type Asked = Arc<Mutex<BTreeSet<String>>>;

/// The clients. Made when they are first needed: a run from folders needs no CA certificates.
pub(crate) struct Http {
    runtime: Runtime,
    roots: Vec<Certificate>,
    identity: Option<Identity>,
    insecure: bool,
    pub(crate) timeouts: Timeouts,
    clients: [OnceLock<Client>; 4],
    /// The hosts that were asked, those behind redirects as well.
    asked: Asked,
    /// When nothing is waited for any more.
    pub(crate) until: Option<Instant>,
}

impl Http {
    pub(crate) fn new(
        roots: Vec<Certificate>,
        identity: Option<Identity>,
        insecure: bool,
    ) -> Result<Self, RemoteError> {
        // Another part of the process may have installed a provider; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients = [const { OnceLock::new() }; 4];
        Ok(Http {
            runtime: Runtime::new()?,
            roots,
            identity,
            insecure,
            timeouts: Timeouts::default(),
            clients,
            asked: Asked::default(),
            until: None,
        })
    }

    /// How long may be waited for what usually takes so long.
    pub(crate) fn patience(&self, usual: Duration) -> Duration {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        left.map_or(usual, |left| usual.min(left.max(Duration::from_millis(1))))
    }

    /// The hosts that were asked so far.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        lock(&self.asked).clone()
    }

    /// Sends a request and waits for the answer's headers, whatever its status.
    pub(crate) fn send(&self, request: Request) -> Result<Answer, RemoteError> {
        lock(&self.asked).insert(host_of(&request.url));
        let client = self.client(is_loopback(&host_of(&request.url)), request.follows_redirects())?;
        let headers = request.headers();
        let login = request.authorization.clone();
        let Request { subject, method, url, payload, .. } = request;
        let mut builder = client.request(method, url.clone()).headers(headers);
        if let Some((bytes, _)) = payload {
            builder = builder.body(bytes);
        }
        let limit = self.patience(self.timeouts.first_byte);
        let exchange = builder.send();
        let sent = self.runtime.wait(async move { tokio::time::timeout(limit, exchange).await })?;
        match sent {
            Ok(Ok(response)) => Ok(Answer { login, ..Answer::of(subject, &url, response) }),
            Ok(Err(error)) => Err(failure(error, subject, &url)),
            Err(_) => {
                let why = Unreachable::Timeout(limit.as_secs());
                Err(RemoteError::Unreachable { subject, host: host_of(&url), why })
            }
        }
    }

    /// Begins a request whose body of `length` bytes is written to the [`Upload`].
    pub(crate) fn upload(&self, request: Request, length: u64) -> Result<Upload, RemoteError> {
        let client = self.client(is_loopback(&host_of(&request.url)), false)?;
        Ok(Upload::start(&self.runtime, client, self.timeouts, request, length))
    }

    /// The body of an answer as a stream.
    pub(crate) fn stream(&self, answer: Answer) -> Body {
        let (subject, host) = (answer.subject.clone(), answer.host());
        let response = std::future::ready(Ok(answer.response));
        Body::start(&self.runtime, self.timeouts.stall, self.until, subject, host, response)
    }

    /// Asks for something whose body is read later, and does not wait for the answer. What is wrong with
    /// the answer, in the words of `accept`, stands in place of its body.
    pub(crate) fn fetch(
        &self,
        request: Request,
        accept: impl FnOnce(&Answer) -> Result<(), RemoteError> + Send + 'static,
    ) -> Result<Body, RemoteError> {
        let client = self.client(is_loopback(&host_of(&request.url)), request.follows_redirects())?;
        let headers = request.headers();
        let Request { subject, method, url, .. } = request;
        let host = host_of(&url);
        let limit = self.patience(self.timeouts.first_byte);
        let exchange = client.request(method, url.clone()).headers(headers).send();
        let named = subject.clone();
        let answer = async move {
            match tokio::time::timeout(limit, exchange).await {
                Ok(Ok(response)) => {
                    let answer = Answer::of(named, &url, response);
                    accept(&answer).map(|()| answer.response)
                }
                Ok(Err(error)) => Err(failure(error, named, &url)),
                Err(_) => {
                    let why = Unreachable::Timeout(limit.as_secs());
                    Err(RemoteError::Unreachable { subject: named, host: host_of(&url), why })
                }
            }
        };
        Ok(Body::start(&self.runtime, self.timeouts.stall, self.until, subject, host, answer))
    }

    /// The whole body of an answer of at most `most` bytes.
    pub(crate) fn bytes(&self, answer: Answer, most: u64) -> Result<Vec<u8>, RemoteError> {
        let subject = answer.subject.clone();
        if answer.response.content_length().is_some_and(|length| length > most) {
            return Err(RemoteError::TooLarge { subject, most });
        }
        let mut body = self.stream(answer);
        let mut bytes = Vec::new();
        while let Some(piece) = body.next()? {
            if (bytes.len() + piece.len()) as u64 > most {
                return Err(RemoteError::TooLarge { subject, most });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// What an answer without success means.
    pub(crate) fn refusal(&self, answer: Answer, service: Service) -> RemoteError {
        let host = answer.host();
        let status = answer.response.status();
        let subject = answer.subject.clone();
        let (asked, with_login) = (answer.same_origin, answer.login.is_some());
        let header = answer.header(RETRY_AFTER.as_str());
        let retry_after = header.and_then(|value| again::retry_after(value, Timestamp::now()));
        let said = self.said(answer);
        let retry_after = retry_after.or_else(|| again::retry_after_said(&said));
        match status {
            // Behind a redirect stands a host at which nobody can log in.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if asked => {
                let (host, status) = (shown(host), status.as_u16());
                RemoteError::Denied { subject, host, status, said, service, with_login }
            }
            StatusCode::NOT_FOUND if asked => {
                RemoteError::NotFound { subject, host: shown(host), said, service }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                RemoteError::RateLimited { subject, host: shown(host), retry_after }
            }
            _ => RemoteError::Status { service, subject, host, status: status.as_u16(), said, retry_after },
        }
    }

    /// The words of an answer that is an error, if it has any: those of the distribution
    /// specification's error format, else nothing.
    fn said(&self, answer: Answer) -> String {
        #[derive(serde::Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            detail: serde_json::Value,
        }
        #[derive(serde::Deserialize)]
        struct All {
            errors: Vec<One>,
        }
        let login = answer.login.clone();
        let bytes = self.bytes(answer, MAX_SAID).unwrap_or_default();
        // Go's server and nginx say so, each in its own words.
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if text.contains("http request") && text.contains("https") {
            return SPEAKS_TLS.into();
        }
        let all = crate::json::from_slice::<All>(&bytes).ok();
        let Some(first) = all.and_then(|all| all.errors.into_iter().next()) else {
            return String::new();
        };
        let detail = first.detail.as_str().unwrap_or_default().to_owned();
        // distribution says of all that it has no name for "UNKNOWN, unknown error", and then what it was.
        let parts = match first.code.as_str() {
            "UNKNOWN" if !detail.is_empty() => vec![detail],
            _ => vec![first.code, first.message],
        };
        let words: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
        text::safe(&without_secrets(words.join(", "), login.as_ref()))
    }

    /// A client for this machine (no proxy) or for others, which follows redirects or does not.
    fn client(&self, local: bool, redirects: bool) -> Result<&Client, RemoteError> {
        let cell = &self.clients[usize::from(local) | usize::from(redirects) << 1];
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let build = |system_roots: bool| {
            let roots = self.roots.clone();
            let builder = Client::builder()
                .user_agent(concat!("trivy-ferry/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(self.timeouts.connect)
                // One connection a request is what large blobs want: with HTTP/2 they would share
                // one, and one flow-control window that limits them on long ways.
                .http1_only()
                .referer(false)
                .tls_danger_accept_invalid_certs(self.insecure)
                .redirect(if redirects {
                    following(self.insecure, self.asked.clone())
                } else {
                    redirect::Policy::none()
                });
            let builder = match self.identity.clone() {
                Some(identity) => builder.identity(identity),
                None => builder,
            };
            let builder =
                if system_roots { builder.tls_certs_merge(roots) } else { builder.tls_certs_only(roots) };
            if local { builder.no_proxy() } else { builder }.build()
        };
        // A system without CA certificates: plain HTTP still works, and HTTPS fails when it is
        // used, with advice that fits.
        let client = build(true).or_else(|_| build(false));
        let client = client.map_err(|error| RemoteError::Setup { why: innermost(&error) })?;
        Ok(cell.get_or_init(|| client))
    }
}

/// What a server says of a login, without it: some echo what they were shown.
fn without_secrets(mut text: String, login: Option<&HeaderValue>) -> String {
    let shown = login.and_then(|login| login.to_str().ok()).unwrap_or_default();
    let (scheme, token) = shown.split_once(' ').unwrap_or(("", shown));
    let mut secrets = vec![token.to_owned()];
    if scheme == "Basic"
        && let Ok(pair) = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token)
        && let Some((_, password)) = String::from_utf8_lossy(&pair).split_once(':')
    {
        secrets.push(password.to_owned());
    }
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "…");
    }
    text
}

/// What an exchange that failed means.
pub(super) fn failure(error: reqwest::Error, subject: String, url: &Url) -> RemoteError {
    let host = host_of(error.url().unwrap_or(url));
    if error.is_redirect() {
        return RemoteError::Redirect { subject, host: host_of(url), why: innermost(&error) };
    }
    match find::<rustls::Error>(&error) {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => {
            return RemoteError::Certificate { host, why: text::safe(&tls.to_string()) };
        }
        Some(tls @ rustls::Error::AlertReceived(alert)) if is_about_certificates(*alert) => {
            return RemoteError::ClientCertificateWanted { host, why: text::safe(&tls.to_string()) };
        }
        _ => {}
    }
    let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    let why = if error.is_dns() {
        Unreachable::Name
    } else if find::<io::Error>(&error).is_some_and(refused) {
        Unreachable::Refused
    } else if error.is_timeout() {
        Unreachable::Timeout(CONNECT.as_secs())
    } else {
        Unreachable::Other(innermost(&error))
    };
    RemoteError::Unreachable { subject, host, why }
}

/// Whether a server that sent this alert did not like a certificate: then it is the client's, or that
/// there was none.
fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

/// Follows redirects, but not from HTTPS to plain HTTP unless `insecure`, and not for ever.
fn following(insecure: bool, asked: Asked) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if secure && attempt.url().scheme() == "http" && !insecure {
            attempt.error("from HTTPS to plain HTTP")
        } else {
            lock(&asked).insert(host_of(attempt.url()));
            attempt.follow()
        }
    })
}

/// A URL's host, with its port where it is not the scheme's own.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A host as people know it, and as `docker login` takes it.
fn shown(host: String) -> String {
    if host == "registry-1.docker.io" { "docker.io".into() } else { host }
}

/// What went wrong at the bottom, made safe.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = inside(last) {
        last = inner;
    }
    text::safe(&last.to_string())
}

/// The first error of type `T` in a chain.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    std::iter::successors(Some(error), |error| inside(*error)).find_map(|error| error.downcast_ref())
}

fn inside<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // An I/O error hides from `source` what it wraps.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Whether an answer's type or first bytes say that it is a web page.
pub(crate) fn is_html(content_type: Option<&str>, bytes: &[u8]) -> bool {
    let typed = content_type.is_some_and(|value| value.trim().to_ascii_lowercase().starts_with("text/html"));
    typed || bytes.trim_ascii_start().first() == Some(&b'<')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_is_echoed_is_not_repeated() {
        let basic = HeaderValue::from_static("Basic dTpzM2NyM3Q=");
        let said = "bad Basic dTpzM2NyM3Q= with s3cr3t".to_owned();
        assert_eq!(without_secrets(said, Some(&basic)), "bad Basic … with …");
        let bearer = HeaderValue::from_static("Bearer abc");
        assert_eq!(without_secrets("token abc".into(), Some(&bearer)), "token …");
        assert_eq!(without_secrets("plain".into(), None), "plain");
    }
}
