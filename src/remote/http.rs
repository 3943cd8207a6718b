//! The HTTP client: TLS settings, time limits, redirects, and answers of limited size.
//!
//! This module handles URLs and headers. It does not depend on registries, VEX repositories or the
//! source of credentials.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Proxy, Response, StatusCode, Url, redirect};
use rustls::ClientConfig;

use crate::remote::auth;
use crate::remote::body::Body;
use crate::remote::connection::{self, Transport};
use crate::remote::error::{RemoteError, SPEAKS_TLS, Service, Unreachable};
use crate::remote::exchange::{AGENT, Answer, Redirects, Request, Timeouts, host_of, innermost, shown};
use crate::remote::failure::{WrongService, failure};
use crate::remote::retry::{self, Deadline};
use crate::remote::route::proxy::Proxies;
use crate::remote::route::{Resolver, Route};
use crate::remote::runtime::Runtime;
use crate::remote::tls::{self, TlsOptions};
use crate::remote::trace::Traced;
use crate::remote::upload::Upload;
use crate::util::redacted::Redacted;
use crate::util::threads::lock;
use crate::util::{clock, text};

/// The maximum size of an error message that is read, in bytes.
const MAX_SAID: u64 = 16 << 10;
/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 10;

/// A request that is being sent.
type Sending = Pin<Box<dyn Future<Output = Result<Response, Box<dyn Error + Send + Sync>>> + Send>>;
/// A future that sends a request and returns its answer.
type Exchange = Pin<Box<dyn Future<Output = Result<Answer, RemoteError>> + Send>>;

/// Hosts, with their ports if those are not the default.
type Asked = Arc<Mutex<BTreeSet<String>>>;

/// URLs of requests, and the URL that the last redirect of each led to. Requests for one URL at the same time are
/// redirected to one place.
type Hops = Arc<Mutex<HashMap<Url, Url>>>;

/// The key of a client: the origin that the user named, and the allowed redirects.
type ClientKey = (String, Redirects);

/// The HTTP clients. They are created when they are first needed: a run from directories needs no CA
/// certificates.
pub(crate) struct Http {
    runtime: Runtime,
    options: TlsOptions,
    tls: OnceLock<Arc<ClientConfig>>,
    pub(crate) timeouts: Timeouts,
    clients: Mutex<HashMap<ClientKey, Client>>,
    /// The route of each host that the user named.
    routes: Mutex<HashMap<String, Arc<Route>>>,
    proxies: &'static Proxies,
    proxy_hosts: Arc<BTreeSet<String>>,
    /// The hosts that were contacted, including those behind redirects.
    asked: Asked,
    /// The last redirect of each running request.
    hops: Hops,
    pub(crate) until: Option<Deadline>,
}

impl Http {
    pub(crate) fn new(options: TlsOptions) -> Result<Self, RemoteError> {
        // Another part of the process may already have installed a provider, which is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let proxies = Proxies::of_environment();
        Ok(Http {
            runtime: Runtime::new()?,
            options,
            tls: OnceLock::new(),
            timeouts: Timeouts::default(),
            clients: Mutex::default(),
            routes: Mutex::default(),
            proxies,
            proxy_hosts: Arc::new(proxies.hosts()),
            asked: Asked::default(),
            hops: Hops::default(),
            until: None,
        })
    }

    /// Returns `usual`, or, if the deadline is sooner, the time until it and the deadline itself.
    pub(crate) fn within_deadline(&self, usual: Duration) -> (Duration, Option<Deadline>) {
        let left = |until: &Deadline| until.at.saturating_duration_since(Instant::now());
        match self.until.filter(|until| left(until) < usual) {
            Some(until) => (left(&until), Some(until)),
            None => (usual, None),
        }
    }

    /// The hosts that have been contacted so far.
    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        lock(&self.asked).clone()
    }

    /// Sends a request and waits for the headers of an answer with any status.
    pub(crate) fn send(&self, request: Request) -> Result<Answer, RemoteError> {
        let exchange = self.exchange(request)?;
        self.runtime.wait(exchange)?
    }

    /// Prepares a request. It is sent when the future is first polled.
    fn exchange(&self, request: Request) -> Result<Exchange, RemoteError> {
        lock(&self.asked).insert(host_of(&request.url));
        let route = self.route(&request)?;
        let (limit, deadline) = self.within_deadline(self.timeouts.first_byte);
        let headers = request.headers();
        let traced = Traced::begin(&request);
        let (subject, url, with_login) =
            (request.subject.clone(), request.url.clone(), request.authorization.is_some());
        let secrets = request.secrets(self.proxies);
        let hops = self.hops.clone();
        let sending: Sending = match request.payload {
            Some((bytes, _)) if !bytes.is_empty() => {
                let transport = self.transport(route)?;
                let payload = Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
                let sending = connection::exchange(transport, request.method, url.clone(), headers, payload);
                Box::pin(async move { Ok(sending.await?.response) })
            }
            ref empty => {
                let builder = self.client(&request, &route)?.request(request.method.clone(), url.clone());
                // An empty body still sets `Content-Length`.
                let builder = if empty.is_some() { builder.body(Bytes::new()) } else { builder };
                let sending = builder.headers(headers).send();
                Box::pin(async move { Ok(sending.await?) })
            }
        };
        Ok(Box::pin(async move {
            let sent = tokio::time::timeout(limit, sending).await;
            let last_hop = lock(&hops).remove(&url);
            let result = match sent {
                Ok(Ok(response)) => Ok(Answer { with_login, secrets, ..Answer::of(subject, &url, response) }),
                failed => {
                    // The failure is that of the last host that a redirect led to.
                    let last = last_hop.unwrap_or_else(|| url.clone());
                    Err(match (failed, deadline) {
                        (Ok(Err(error)), _) => failure(&*error, subject, &last),
                        (_, Some(deadline)) => deadline.passed(host_of(&last)),
                        (_, None) => RemoteError::Unreachable {
                            subject,
                            host: host_of(&last),
                            why: Unreachable::Timeout(limit),
                            proxy: Proxies::of_environment().used_for(&last),
                        },
                    })
                }
            };
            if let Some(traced) = traced {
                traced.end(result.as_ref());
            }
            result
        }))
    }

    /// Begins a request whose body of `length` bytes is written to the [`Upload`].
    pub(crate) fn upload(&self, request: Request, length: u64) -> Result<Upload, RemoteError> {
        lock(&self.asked).insert(host_of(&request.url));
        let transport = self.transport(self.route(&request)?)?;
        Ok(Upload::start(&self.runtime, transport, self.timeouts, request, length, self.until))
    }

    /// Streams the body of an answer.
    pub(crate) fn stream(&self, answer: Answer) -> Body {
        let (subject, host) = (answer.subject.clone(), answer.host());
        let response = std::future::ready(Ok(answer.response));
        Body::start(&self.runtime, self.timeouts.stall, self.until, subject, host, response)
    }

    /// Sends a request without waiting for the answer, and returns its future body. If `accept` rejects the
    /// answer, reading the body returns that error.
    pub(crate) fn fetch(
        &self,
        request: Request,
        accept: impl FnOnce(&Answer) -> Result<(), RemoteError> + Send + 'static,
    ) -> Result<Body, RemoteError> {
        let (subject, host) = (request.subject.clone(), host_of(&request.url));
        let exchange = self.exchange(request)?;
        let answer = async move {
            let answer = exchange.await?;
            accept(&answer).map(|()| answer.response)
        };
        Ok(Body::start(&self.runtime, self.timeouts.stall, self.until, subject, host, answer))
    }

    /// Reads the complete body of an answer, of at most `most` bytes.
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

    /// Converts an answer with an error status.
    pub(crate) fn refusal(&self, answer: Answer, service: Service) -> RemoteError {
        let host = answer.host();
        let status = answer.response.status();
        let subject = answer.subject.clone();
        let (asked, with_login) = (answer.same_origin, answer.with_login);
        let asked_host = answer.asked.clone();
        let header = answer.header(RETRY_AFTER.as_str());
        let retry_after = header.and_then(|value| retry::retry_after(value, clock::now()));
        let said = self.said(answer);
        let retry_after = retry_after.or_else(|| retry::retry_after_in_message(&said));
        match status {
            // The host behind a redirect gets no login.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if asked => {
                let (host, status) = (shown(host), status.as_u16());
                RemoteError::Denied { subject, host, status, said, service, with_login }
            }
            StatusCode::UNAUTHORIZED => {
                let (host, by) = (shown(asked_host), shown(host));
                RemoteError::Elsewhere { subject, host, by }
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

    /// Returns the message of an error in the format of the distribution specification; empty for any other
    /// format.
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
        let mut secrets = answer.secrets.clone();
        secrets.add_query(answer.response.url());
        let bytes = self.bytes(answer, MAX_SAID).unwrap_or_default();
        // Go's server and nginx have different messages for plain HTTP on a port for HTTPS.
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if text.contains("http request") && text.contains("https") {
            return SPEAKS_TLS.into();
        }
        let all = crate::util::json::from_slice::<All>(&bytes).ok();
        let Some(first) = all.and_then(|all| all.errors.into_iter().next()) else {
            return String::new();
        };
        let detail = first.detail.as_str().unwrap_or_default().to_owned();
        // distribution uses `UNKNOWN, unknown error` for all errors without a code, and explains them in the
        // detail.
        let parts = match first.code.as_str() {
            "UNKNOWN" if !detail.is_empty() => vec![detail],
            _ => vec![first.code, first.message],
        };
        let words: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
        text::escape(&secrets.remove_from(words.join(", ")))
    }

    /// Returns the route of the host that the user named, after checking the request.
    ///
    /// # Errors
    /// [`RemoteError::Misled`] if the request would be sent to an address that a server must not
    /// name; [`RemoteError::Proxy`] if it needs a proxy that cannot be used.
    fn route(&self, request: &Request) -> Result<Arc<Route>, RemoteError> {
        let origin = request.origin();
        let named = origin.host_str().unwrap_or_default().to_owned();
        let new = || Arc::new(Route::new(origin, self.proxy_hosts.clone()));
        let route = lock(&self.routes).entry(named).or_insert_with(new).clone();
        route.check(&request.url).map_err(|misled| misled.about(request.subject.clone()))?;
        self.proxies.proxy_for(&request.url)?;
        Ok(route)
    }

    /// The transport of a request with a body.
    fn transport(&self, route: Arc<Route>) -> Result<Transport, RemoteError> {
        let Timeouts { connect, stall, .. } = self.timeouts;
        Ok(Transport { route, tls: self.tls()?, proxies: self.proxies, connect, stall })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, RemoteError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = Arc::new(tls::config(&self.options)?);
        Ok(self.tls.get_or_init(|| config).clone())
    }

    /// Returns the client for requests without a body, which follows the redirects that `request` allows.
    fn client(&self, request: &Request, route: &Arc<Route>) -> Result<Client, RemoteError> {
        let origin = request.origin();
        let kind = (origin.origin().ascii_serialization(), request.redirects());
        let proxies = self.proxies;
        if let Some(client) = lock(&self.clients).get(&kind) {
            return Ok(client.clone());
        }
        let following = RedirectPolicy {
            insecure: self.options.insecure,
            asked: self.asked.clone(),
            hops: self.hops.clone(),
            route: route.clone(),
            proxies,
            token_of: Some(origin.clone()).filter(|_| kind.1 == Redirects::TokenServices),
        };
        let builder = Client::builder()
            .user_agent(AGENT)
            .connect_timeout(self.timeouts.connect)
            .http1_only()
            .referer(false)
            .tls_backend_preconfigured(ClientConfig::clone(&*self.tls()?))
            // A proxy that cannot be used has already caused an error.
            .proxy(Proxy::custom(move |url| Some(proxies.proxy_for(url).ok()??.with_login())))
            .dns_resolver(Arc::new(Resolver(route.clone())))
            .redirect(match kind.1 {
                Redirects::Never => redirect::Policy::none(),
                _ => redirect::Policy::custom(move |attempt| following.judge(attempt)),
            });
        let client = builder.build().map_err(|error| RemoteError::Setup { why: innermost(&error) })?;
        Ok(lock(&self.clients).entry(kind).or_insert(client).clone())
    }
}

/// Decides about redirects: none from HTTPS to plain HTTP unless `insecure`, none to this host or to a
/// link-local address unless the user named it, and a limited number.
struct RedirectPolicy {
    insecure: bool,
    asked: Asked,
    hops: Hops,
    route: Arc<Route>,
    proxies: &'static Proxies,
    /// The registry that the token service belongs to.
    token_of: Option<Url>,
}

impl RedirectPolicy {
    fn judge(&self, attempt: redirect::Attempt) -> redirect::Action {
        let secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error("there are too many redirects");
        }
        if secure && attempt.url().scheme() == "http" && !self.insecure {
            return attempt.error("it changes from HTTPS to plain HTTP");
        }
        if let Some(registry) = &self.token_of
            && let Err(why) = auth::may_ask(attempt.url(), registry)
        {
            let realm = Redacted::from(attempt.url());
            return attempt.error(WrongService { registry: host_of(registry), realm, why });
        }
        if let Err(misled) = self.route.check(attempt.url()) {
            return attempt.error(misled);
        }
        if let Err(unusable) = self.proxies.proxy_for(attempt.url()) {
            return attempt.error(unusable);
        }
        lock(&self.asked).insert(host_of(attempt.url()));
        if let Some(first) = attempt.previous().first() {
            lock(&self.hops).insert(first.clone(), attempt.url().clone());
        }
        log::debug!("redirected to {}", Redacted::from(attempt.url()));
        attempt.follow()
    }
}
