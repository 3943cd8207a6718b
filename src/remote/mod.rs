//! Communication with servers: HTTP with its time limits and certificates, registries with their logins, and
//! the names of repositories.
//!
//! `source` uses it to pull, and `targets` uses it to push. This module depends on neither. Its
//! interface is blocking: the asynchronous runtime and its one thread are private.

use std::path::PathBuf;
use std::sync::OnceLock;

use reqwest::Url;
use reqwest::header::HeaderValue;

mod auth;
mod body;
mod cloud_login;
mod connection;
pub mod error;
mod exchange;
mod failure;
mod hint;
pub(crate) mod http;
pub(crate) mod login;
mod reference;
pub(crate) mod registry;
mod retry;
mod route;
mod runtime;
mod secrets;
mod tls;
mod trace;
mod upload;

pub(crate) use auth::behind_tls;
pub(crate) use body::Body;
pub use error::{RemoteError, Service, Unreachable};
pub use exchange::STORE;
pub(crate) use exchange::{Answer, Request, host_of, is_html};
pub(crate) use http::Http;
pub use reference::Repository;
pub(crate) use reference::{is_loopback, is_tag};
pub(crate) use registry::Access;
pub use retry::{PAUSE, RETRIES, RetryLimits, RunLimits, STALL};
pub(crate) use retry::{Retry, RetryPolicy, Retryable};
pub(crate) use upload::Upload;

/// Settings for connections to servers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Accepts any certificate, and plain HTTP if HTTPS does not answer, as Trivy's `--insecure`
    /// does.
    pub insecure: bool,
    /// Uses plain HTTP for registries, never HTTPS.
    pub plain_http: bool,
    /// A PEM file of additional CA certificates, beside those of the system (or of `SSL_CERT_FILE`).
    pub ca_cert: Option<PathBuf>,
    /// A PEM file with a client certificate, and its key if `client_key` names no other file.
    pub client_cert: Option<PathBuf>,
    /// A PEM file with the key of the client certificate.
    pub client_key: Option<PathBuf>,
    /// A user name and a password for every registry, instead of the files with logins.
    pub login: Option<(String, String)>,
}

/// The access to all servers: HTTP clients, credentials, and the thread that they run on. It is created once
/// and shared by reference, and uses no network before the first request.
pub struct Remote {
    pub(crate) http: Http,
    pub(crate) registries: registry::Registries,
    pub(crate) options: RemoteOptions,
    /// The limits of the run, which apply to all requests.
    pub(crate) limits: RunLimits,
    /// The logins for web servers. They are read when the first one is needed.
    netrc: OnceLock<login::Netrc>,
}

impl Remote {
    /// Prepares the access for a run with these limits.
    ///
    /// # Errors
    /// [`RemoteError::CaFile`] or [`RemoteError::ClientCertificate`] if such a file cannot be used;
    /// [`RemoteError::Setup`] if the system cannot start a thread, or if the TLS library rejects the
    /// settings.
    pub fn new(options: RemoteOptions, limits: RunLimits) -> Result<Self, RemoteError> {
        let ca_file = options.ca_cert.as_deref().map(tls::certificates).transpose()?;
        let (roots, warnings) = ca_file.map(|file| (file.roots, file.warnings)).unwrap_or_default();
        let identity = options.client_cert.as_deref();
        let identity = identity.map(|file| tls::Identity::read(file, options.client_key.as_deref()));
        let identity = identity.transpose()?;
        let mut http = Http::new(tls::TlsOptions { roots, identity, insecure: options.insecure })?;
        http.until = limits.until();
        http.timeouts.allow(limits.stall());
        let files = login::LoginFiles::of_environment();
        let login = options.login.clone();
        let registries = registry::Registries::new(options.plain_http, options.insecure, files, login);
        warnings.into_iter().for_each(|warning| registries.warn(warning));
        Ok(Remote { http, registries, options, limits, netrc: OnceLock::new() })
    }

    /// Sends a GET for a path of a repository, and logs in if the registry requires it.
    pub(crate) fn get(
        &self,
        repository: &Repository,
        path: &str,
        subject: &str,
        accept: Option<&'static str>,
    ) -> Result<Answer, RemoteError> {
        self.registries.get(&self.http, repository, path, subject, accept)
    }

    /// Returns the `Authorization` header for a web server that the user named.
    pub(crate) fn web_login(&self, url: &Url) -> Option<HeaderValue> {
        let netrc = self.netrc.get_or_init(|| {
            let (netrc, warning) = login::netrc(|name| std::env::var_os(name));
            warning.into_iter().for_each(|warning| self.registries.warn(warning));
            netrc
        });
        match netrc.find(url)? {
            login::Credentials::Password(name, password) => auth::basic(&name, &password),
            login::Credentials::Token(token) => auth::token(&token),
        }
    }

    /// Whether a client must accept plain HTTP or any certificate to reach this registry as this run did.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.options.insecure || self.options.plain_http || self.registries.used_plain_http(host)
    }

    /// Whether this run has logged in to a registry.
    pub(crate) fn has_login(&self, host: &str) -> bool {
        self.registries.has_login(host)
    }

    /// Returns the warnings since the last call, one line each: rejected credentials, a credential helper
    /// that failed.
    pub fn take_warnings(&self) -> Vec<String> {
        self.registries.take_warnings()
    }
}
