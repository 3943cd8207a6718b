//! Sends requests to OCI registries (distribution specification v1.1): uses HTTPS, or plain HTTP if
//! that is allowed, and logs in if the registry requires it.
//!
//! It does not use the client of oci-client, which sends the password to any token service that a
//! registry names, and hides the status of a rejected request. This module does not depend on the
//! pulled or pushed content.

use std::collections::HashMap;
use std::sync::Mutex;

use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url};

use crate::remote::auth::{self, Challenge};
use crate::remote::error::{RemoteError, Service, Unreachable};
use crate::remote::exchange::{Answer, Request, is_html};
use crate::remote::http::Http;
use crate::remote::login::{Credentials, LoginFiles};
use crate::remote::reference::{Repository, is_loopback};
use crate::util::redacted::Redacted;
use crate::util::threads::lock;

/// The maximum size of a token service's answer, in bytes.
const MAX_TOKEN: u64 = 256 << 10;

/// The access that a login must grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
    /// Reading and writing, and reading from another repository of the same registry.
    Mount {
        /// The name of that repository.
        from: String,
    },
}

/// The registries of a run, with the scheme and the logins of each.
pub(crate) struct Registries {
    plain_http: bool,
    insecure: bool,
    pub(crate) files: LoginFiles,
    /// The login that replaces those in the files.
    login: Option<(String, String)>,
    /// The scheme of each host: `https` or `http`.
    schemes: Mutex<HashMap<String, &'static str>>,
    /// The `Authorization` header for each host, repository and access.
    logins: Mutex<HashMap<(String, String, Access), HeaderValue>>,
    warnings: Mutex<Vec<String>>,
}

impl Registries {
    pub(crate) fn new(
        plain_http: bool,
        insecure: bool,
        files: LoginFiles,
        login: Option<(String, String)>,
    ) -> Self {
        let (schemes, logins, warnings) = Default::default();
        Registries { plain_http, insecure, files, login, schemes, logins, warnings }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.warnings))
    }

    pub(super) fn warn(&self, warning: String) {
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Sends a GET for a path of a repository.
    pub(crate) fn get(
        &self,
        http: &Http,
        repository: &Repository,
        path: &str,
        subject: &str,
        accept: Option<&'static str>,
    ) -> Result<Answer, RemoteError> {
        let request = |url| Request { accept, ..Request::get(subject, url) };
        let answer = self.ask(http, repository, &Access::Pull, path, &request)?;
        if answer.response.status() != StatusCode::OK {
            return Err(http.refusal(answer, Service::Registry));
        }
        Ok(answer)
    }

    /// Sends a request to a repository, and logs in if the registry requires it. The answer may have any
    /// status.
    pub(crate) fn ask(
        &self,
        http: &Http,
        repository: &Repository,
        access: &Access,
        path: &str,
        request: &dyn Fn(Url) -> Request,
    ) -> Result<Answer, RemoteError> {
        let ask = |scheme: &str, authorization: Option<HeaderValue>| {
            let url = format!("{scheme}://{}/v2/{}/{path}", repository.api_host(), repository.name());
            let url = Url::parse(&url).map_err(|error| RemoteError::Address {
                text: Redacted::new(&repository.to_string()),
                why: error.to_string(),
                hint: "Check the host's name.".into(),
            })?;
            http.send(Request { authorization, ..request(url) })
        };
        let login = self.login_of(repository, access);
        let answer = self.by_scheme(repository.api_host(), |scheme| ask(scheme, login.clone()))?;
        let scheme = if answer.response.url().scheme() == "http" { "http" } else { "https" };
        // A challenge from a host behind a redirect is not that of this registry, and gets no login.
        let asked = answer.same_origin && answer.response.status() == StatusCode::UNAUTHORIZED;
        let Some(challenge) = Challenge::of(answer.response.headers()).filter(|_| asked) else {
            return Ok(answer);
        };
        let origin = answer.response.url().clone();
        let required = RequiredLogin { challenge, origin, repository, access };
        let credentials = self.credentials(repository);
        // Outdated credentials must not block access to public data. A push always needs a login.
        let without = credentials.is_some() && *access == Access::Pull;
        let with = match required.header(http, credentials) {
            Err(RemoteError::Denied { .. }) if without => None,
            other => Some(other?),
        };
        let only = with.is_none() || !without;
        let mut answer = answer;
        for (header, last) in [(with, only), (None, true)] {
            let header = match header {
                Some(header) => header,
                None => {
                    self.refused(repository.host());
                    required.header(http, None)?
                }
            };
            let Some(header) = header else { return Ok(answer) };
            answer = ask(scheme, Some(header.clone()))?;
            let status = answer.response.status();
            let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if !refused {
                let mut logins = lock(&self.logins);
                // If the registry does not mount, it begins an upload, whose bytes need the same login.
                if matches!(access, Access::Mount { .. }) {
                    logins.entry(key(repository, &Access::Push)).or_insert_with(|| header.clone());
                }
                logins.insert(key(repository, access), header);
            }
            if last || !refused || !answer.same_origin {
                break;
            }
        }
        Ok(answer)
    }

    /// Returns the origin of a registry that this run has contacted.
    pub(crate) fn origin_of(&self, repository: &Repository) -> Option<Url> {
        let host = repository.api_host();
        let known = lock(&self.schemes).get(host).copied();
        let scheme = if self.plain_http { "http" } else { known? };
        Url::parse(&format!("{scheme}://{host}")).ok()
    }

    /// Whether a URL has the origin of a repository's registry: the same scheme, host and port.
    pub(crate) fn is_at(&self, repository: &Repository, url: &Url) -> bool {
        self.origin_of(repository).is_some_and(|own| own.origin() == url.origin())
    }

    /// Whether a host accepted any login.
    pub(crate) fn has_login(&self, host: &str) -> bool {
        lock(&self.logins).keys().any(|(at, _, _)| at == host)
    }

    /// Whether this run used plain HTTP for a registry.
    pub(crate) fn used_plain_http(&self, host: &str) -> bool {
        lock(&self.schemes).get(host) == Some(&"http")
    }

    /// Returns the header of the last accepted login to a repository.
    pub(crate) fn login_of(&self, repository: &Repository, access: &Access) -> Option<HeaderValue> {
        lock(&self.logins).get(&key(repository, access)).cloned()
    }

    /// Logs in again after an upload was rejected with status 401. Returns whether there is a new login.
    /// Tokens are valid for some minutes, and an upload may take longer.
    pub(crate) fn renew(&self, http: &Http, repository: &Repository, refusal: &Answer) -> bool {
        let (access, origin) = (&Access::Push, refusal.response.url().clone());
        // An upload may be sent to another host, which must not receive the login of the registry.
        let asked = self.is_at(repository, &origin) && refusal.response.status() == StatusCode::UNAUTHORIZED;
        let Some(challenge) = Challenge::of(refusal.response.headers()).filter(|_| asked) else {
            return false;
        };
        let required = RequiredLogin { challenge, origin, repository, access };
        match required.header(http, self.credentials(repository)) {
            Ok(Some(header)) => {
                let before = lock(&self.logins).insert(key(repository, access), header.clone());
                before != Some(header)
            }
            _ => false,
        }
    }

    /// Sends a request over HTTPS, and over plain HTTP if that is allowed and HTTPS does not answer
    /// (go-containerregistry v0.22.1, `pkg/v1/remote/transport/ping.go`).
    fn by_scheme(
        &self,
        host: &str,
        ask: impl Fn(&str) -> Result<Answer, RemoteError>,
    ) -> Result<Answer, RemoteError> {
        if self.plain_http {
            return ask("http");
        }
        if let Some(scheme) = lock(&self.schemes).get(host).copied() {
            return ask(scheme);
        }
        let remember = |scheme| lock(&self.schemes).insert(host.to_owned(), scheme);
        match ask("https") {
            Err(first @ RemoteError::Unreachable { .. }) if self.insecure || is_loopback(host) => {
                // If neither answers, the error of HTTPS is returned. If the host answered without TLS, the
                // error of plain HTTP explains more.
                let silent = !matches!(first, RemoteError::Unreachable { why: Unreachable::Other(_), .. });
                let answer = ask("http").map_err(|second| match second {
                    RemoteError::Unreachable { .. } if silent => first,
                    second => second,
                })?;
                remember("http");
                Ok(answer)
            }
            Ok(answer) => {
                remember("https");
                Ok(answer)
            }
            Err(error) => Err(error),
        }
    }

    fn credentials(&self, repository: &Repository) -> Option<Credentials> {
        if let Some((name, password)) = self.login.clone() {
            log::debug!("login for {} from --username", repository.host());
            return Some(Credentials::Password(name, password));
        }
        let found = self.files.credentials(repository.host(), repository.name());
        if let Some(warning) = found.warning {
            self.warn(warning);
        }
        found.credentials
    }

    fn refused(&self, host: &str) {
        self.warn(format!("{host} rejects the stored credentials; continuing without a login"));
    }
}

/// A login that a registry requires.
struct RequiredLogin<'a> {
    challenge: Challenge,
    /// The address that required it.
    origin: Url,
    repository: &'a Repository,
    access: &'a Access,
}

impl RequiredLogin<'_> {
    /// Returns the header that satisfies the challenge; `None` if it requires a password and there is none.
    fn header(
        &self,
        http: &Http,
        credentials: Option<Credentials>,
    ) -> Result<Option<HeaderValue>, RemoteError> {
        match &self.challenge {
            Challenge::Basic => Ok(basic(credentials)),
            Challenge::Bearer { realm, service, scope } => {
                let url = auth::realm(realm, &self.origin)?;
                let scope = self.scope(scope.clone());
                let request = self.token_request(url, service.as_deref(), &scope, credentials)?;
                self.token(http, request).map(Some)
            }
        }
    }

    /// Returns the scope that the token must have.
    fn scope(&self, offered: Option<String>) -> String {
        let name = self.repository.name();
        match self.access {
            Access::Pull => auth::scope(offered, name),
            Access::Push => format!("repository:{name}:pull,push"),
            Access::Mount { from } => format!("repository:{name}:pull,push repository:{from}:pull"),
        }
    }

    fn token_request(
        &self,
        mut url: Url,
        service: Option<&str>,
        scope: &str,
        credentials: Option<Credentials>,
    ) -> Result<Request, RemoteError> {
        let subject = format!("a token for {}", self.repository);
        let mut request = match credentials {
            Some(Credentials::Token(token)) => {
                // The form of the Docker registry's token specification ("oauth").
                let mut form = Url::parse("form:?").map_err(|e| RemoteError::Setup { why: e.to_string() })?;
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "trivy-ferry")
                    .append_pair("service", service.unwrap_or_default())
                    .append_pair("scope", scope)
                    .append_pair("refresh_token", &token);
                let form = form.query().unwrap_or_default().to_owned();
                Request::form(subject, url, form)
            }
            password => {
                if let Some(service) = service {
                    url.query_pairs_mut().append_pair("service", service);
                }
                url.query_pairs_mut().append_pair("scope", scope);
                Request { authorization: basic(password), ..Request::get(subject, url) }
            }
        };
        request.accept = Some("application/json");
        request.named_by = Some(self.origin.clone());
        request.is_token = true;
        Ok(request)
    }

    /// Gets a token from the token service.
    fn token(&self, http: &Http, request: Request) -> Result<HeaderValue, RemoteError> {
        let answer = http.send(request)?;
        if answer.response.status() != StatusCode::OK {
            return Err(match http.refusal(answer, Service::Registry) {
                // The user logs in to the registry, not to its token service.
                RemoteError::Denied { status, said, service, with_login, .. } => RemoteError::Denied {
                    subject: self.repository.to_string(),
                    host: self.repository.host().to_owned(),
                    status,
                    said,
                    service,
                    with_login,
                },
                other => other,
            });
        }
        let (host, subject) = (answer.host(), answer.subject.clone());
        let bytes = http.bytes(answer, MAX_TOKEN)?;
        match auth::bearer(&bytes) {
            Some(header) => Ok(header),
            None if is_html(None, &bytes) => {
                Err(RemoteError::Html { subject, host, service: Service::Registry })
            }
            None => Err(RemoteError::Unusable { subject, why: format!("the answer of {host} has no token") }),
        }
    }
}

fn basic(credentials: Option<Credentials>) -> Option<HeaderValue> {
    match credentials {
        Some(Credentials::Password(name, password)) => auth::basic(&name, &password),
        _ => None,
    }
}

fn key(repository: &Repository, access: &Access) -> (String, String, Access) {
    (repository.api_host().to_owned(), repository.name().to_owned(), access.clone())
}
