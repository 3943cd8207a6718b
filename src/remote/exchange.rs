//! One request and its answer.
//!
//! This module handles URLs and headers. It opens no connection.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Method, Response, Url};

use crate::remote::route::proxy::Proxies;
use crate::remote::secrets::Secrets;
use crate::util::redacted::Redacted;
use crate::util::text;

/// The `User-Agent` of this program.
pub(crate) const AGENT: &str = concat!("trivy-ferry/", env!("CARGO_PKG_VERSION"));

/// The time limit for a connection, including TLS.
pub(crate) const CONNECT: Duration = Duration::from_secs(15);

/// The default time limit for a server to store a complete upload.
pub const STORE: Duration = Duration::from_secs(300);

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// The limit for a connection, including TLS.
    pub connect: Duration,
    /// The limit from the request to the headers of the answer, including redirects.
    pub first_byte: Duration,
    /// The limit between two pieces of an answer.
    pub stall: Duration,
    /// The limit from the last byte of an upload to the answer: a server hashes the complete
    /// upload, and some copy it.
    pub store: Duration,
}

impl Timeouts {
    /// Sets the time that a server may be silent.
    pub(crate) fn allow(&mut self, silence: Duration) {
        self.first_byte = silence;
        self.stall = silence;
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timeouts { connect: CONNECT, first_byte: seconds(60), stall: seconds(60), store: STORE }
    }
}

/// A request. `subject` names the requested item in errors.
pub(crate) struct Request {
    pub subject: String,
    pub method: Method,
    pub url: Url,
    pub accept: Option<&'static str>,
    pub authorization: Option<HeaderValue>,
    /// The requested bytes, if not all.
    pub range: Option<Range<u64>>,
    /// The sent bytes of an upload, if not all.
    pub content_range: Option<Range<u64>>,
    /// The body and its media type.
    pub payload: Option<(Vec<u8>, String)>,
    /// The user's URL whose server named `url`; `None` if the user named `url`.
    pub named_by: Option<Url>,
    /// Whether the request is sent to a token service, whose answer is sent to the registry that
    /// named it.
    pub is_token: bool,
}

/// The redirects that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Redirects {
    Never,
    Anywhere,
    /// Only redirects to addresses that the registry could have named as its token service.
    TokenServices,
}

impl Request {
    pub(crate) fn get(subject: impl Into<String>, url: Url) -> Self {
        Request::new(Method::GET, subject, url)
    }

    pub(crate) fn new(method: Method, subject: impl Into<String>, url: Url) -> Self {
        let (accept, authorization, range, content_range, payload, named_by) = Default::default();
        let subject = subject.into();
        let is_token = false;
        Request {
            subject,
            method,
            url,
            accept,
            authorization,
            range,
            content_range,
            payload,
            named_by,
            is_token,
        }
    }

    /// A POST request with a form.
    pub(crate) fn form(subject: impl Into<String>, url: Url, form: String) -> Self {
        let payload = Some((form.into_bytes(), "application/x-www-form-urlencoded".to_owned()));
        Request { payload, ..Request::new(Method::POST, subject, url) }
    }

    /// The redirects to follow. Requests that change data or have a secret in their body are not redirected.
    pub(super) fn redirects(&self) -> Redirects {
        match self.method {
            Method::GET | Method::HEAD if self.is_token => Redirects::TokenServices,
            Method::GET | Method::HEAD => Redirects::Anywhere,
            _ => Redirects::Never,
        }
    }

    /// Returns the secrets of the request, and of the proxies that it may use.
    pub(super) fn secrets(&self, proxies: &Proxies) -> Secrets {
        let form = self.payload.as_ref().map_or(&[][..], |(form, _)| form);
        Secrets::of(self.authorization.as_ref(), form, &self.url, proxies)
    }

    /// The URL from the user that led to this request.
    pub(super) fn origin(&self) -> &Url {
        self.named_by.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // Digests are those of the stored bytes, so transfer encodings are not accepted.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let range =
            self.range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        if let Some(Ok(range)) = range.map(HeaderValue::try_from) {
            headers.insert(RANGE, range);
        }
        // The form is that of the distribution specification ("Pushing a blob in chunks"), not that of HTTP.
        let sent =
            self.content_range.as_ref().map(|sent| format!("{}-{}", sent.start, sent.end.saturating_sub(1)));
        if let Some(Ok(sent)) = sent.map(HeaderValue::try_from) {
            headers.insert(CONTENT_RANGE, sent);
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

/// An answer whose body has not been read yet.
pub(crate) struct Answer {
    pub subject: String,
    /// The host that the request was sent to.
    pub asked: String,
    /// Whether the requested host sent it, with the same port and scheme.
    pub same_origin: bool,
    /// Whether the request had a login.
    pub(super) with_login: bool,
    /// The secrets of the request.
    pub(super) secrets: Secrets,
    pub response: Response,
}

impl Answer {
    /// Creates the answer to a request for `url`.
    pub(crate) fn of(subject: String, url: &Url, response: Response) -> Self {
        let same_origin = response.url().origin() == url.origin();
        Answer {
            subject,
            asked: host_of(url),
            same_origin,
            with_login: false,
            secrets: Secrets::default(),
            response,
        }
    }

    /// The host that answered.
    pub(crate) fn host(&self) -> String {
        host_of(self.response.url())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// A URL's host, with its port if that is not the default of the scheme.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The common name of a host, as `docker login` accepts it.
pub(crate) fn shown(host: String) -> String {
    if host == "registry-1.docker.io" { "docker.io".into() } else { host }
}

/// Returns the innermost error of a chain, escaped and without secrets.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = inside(last) {
        last = inner;
    }
    let words = last.to_string();
    // An error of the client may contain the URL with its secrets.
    let url = last.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::url);
    text::escape(
        &url.map_or_else(
            || words.clone(),
            |url| words.replace(url.as_str(), &Redacted::from(url).to_string()),
        ),
    )
}

/// Whether the content type or the first bytes of an answer are those of a web page.
pub(crate) fn is_html(content_type: Option<&str>, bytes: &[u8]) -> bool {
    let typed = content_type.is_some_and(|value| value.trim().to_ascii_lowercase().starts_with("text/html"));
    typed || bytes.trim_ascii_start().first() == Some(&b'<')
}

/// The first error of type `T` in a chain.
pub(crate) fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    std::iter::successors(Some(error), |error| inside(*error)).find_map(|error| error.downcast_ref())
}

pub(crate) fn inside<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // `source` of an I/O error does not return the error that it wraps.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
