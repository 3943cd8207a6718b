//! One request and its answer.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Method, Response, Url};

use crate::util::redacted::Redacted;
use crate::util::text;

/// What this program calls itself.
pub(crate) const AGENT: &str = concat!("trivy-ferry/", env!("CARGO_PKG_VERSION"));

/// How long is waited for a connection, TLS included.
pub(crate) const CONNECT: Duration = Duration::from_secs(15);

/// How long a server may take to store an upload that it has received whole, if nobody says otherwise.
pub const STORE: Duration = Duration::from_secs(300);

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From the request to the answer's headers, redirects included.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub stall: Duration,
    /// From the last byte of an upload to the answer: a server hashes all of it, and some copy it to another
    /// place.
    pub store: Duration,
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
        Timeouts { connect: CONNECT, first_byte: seconds(60), stall: seconds(60), store: STORE }
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
    /// Which bytes of an upload are sent, if it is not all of them.
    pub content_range: Option<Range<u64>>,
    /// What is sent, and its media type.
    pub payload: Option<(Vec<u8>, String)>,
    /// The URL of the user's whose server named `url`; `None` if the user did.
    pub named_by: Option<Url>,
    /// A token service is asked: its answer goes to the registry that named it.
    pub is_token: bool,
}

/// Which redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Redirects {
    Never,
    Anywhere,
    /// Only to where the registry could have named the token service itself.
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

    /// A form to post.
    pub(crate) fn form(subject: impl Into<String>, url: Url, form: String) -> Self {
        let payload = Some((form.into_bytes(), "application/x-www-form-urlencoded".to_owned()));
        Request { payload, ..Request::new(Method::POST, subject, url) }
    }

    /// Whether it is repeated elsewhere when the server says so. What changes something there, or
    /// holds a secret, is not.
    pub(super) fn redirects(&self) -> Redirects {
        match self.method {
            Method::GET | Method::HEAD if self.is_token => Redirects::TokenServices,
            Method::GET | Method::HEAD => Redirects::Anywhere,
            _ => Redirects::Never,
        }
    }

    /// The URL of the user's on whose server's word this is asked.
    pub(super) fn origin(&self) -> &Url {
        self.named_by.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The digests are those of the bytes as they are stored.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let range =
            self.range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        if let Some(Ok(range)) = range.map(HeaderValue::try_from) {
            headers.insert(RANGE, range);
        }
        // The form of the distribution specification, "Pushing a blob in chunks", and not that of HTTP.
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

/// An answer whose body has not been read.
pub(crate) struct Answer {
    pub subject: String,
    /// The host that was asked.
    pub asked: String,
    /// Whether it came from the host that was asked, at the same port and by the same scheme.
    pub same_origin: bool,
    /// The login that was shown with the question.
    pub(super) login: Option<HeaderValue>,
    pub response: Response,
}

impl Answer {
    /// The answer to what was asked of `url`.
    pub(crate) fn of(subject: String, url: &Url, response: Response) -> Self {
        let same_origin = response.url().origin() == url.origin();
        Answer { subject, asked: host_of(url), same_origin, login: None, response }
    }

    /// The host that answered.
    pub(crate) fn host(&self) -> String {
        host_of(self.response.url())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}

/// A URL's host, with its port where it is not the scheme's own.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A host as people know it, and as `docker login` takes it.
pub(crate) fn shown(host: String) -> String {
    if host == "registry-1.docker.io" { "docker.io".into() } else { host }
}

/// What went wrong at the bottom, made safe.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(inner) = inside(last) {
        last = inner;
    }
    let words = last.to_string();
    // An error of the client may name the whole URL.
    let url = last.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::url);
    text::escape(
        &url.map_or_else(
            || words.clone(),
            |url| words.replace(url.as_str(), &Redacted::from(url).to_string()),
        ),
    )
}

/// Whether an answer's type or first bytes say that it is a web page.
pub(crate) fn is_html(content_type: Option<&str>, bytes: &[u8]) -> bool {
    let typed = content_type.is_some_and(|value| value.trim().to_ascii_lowercase().starts_with("text/html"));
    typed || bytes.trim_ascii_start().first() == Some(&b'<')
}

/// The first error of type `T` in a chain.
pub(crate) fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    std::iter::successors(Some(error), |error| inside(*error)).find_map(|error| error.downcast_ref())
}

pub(crate) fn inside<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // An I/O error hides from `source` what it wraps.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
