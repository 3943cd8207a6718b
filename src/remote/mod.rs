//! How servers are talked to: HTTP with its time limits and certificates, registries with their
//! logins, and the names of repositories.
//!
//! Shared by the rooms at both ends of the program, and knows neither: what is fetched is the
//! source room's, what is pushed the target room's. To everybody else it is blocking: the runtime
//! and its one thread stay inside.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::util::trusted;

mod again;
mod auth;
mod body;
pub mod error;
pub(crate) mod http;
mod reference;
pub(crate) mod registry;
mod runtime;
mod upload;

pub(crate) use again::Again;
pub(crate) use body::Body;
pub use error::{RemoteError, Service, Unreachable};
pub(crate) use http::{Answer, Http, Request, host_of, is_html};
pub use reference::Repository;
pub(crate) use reference::{is_loopback, is_tag};
pub(crate) use registry::Access;
pub(crate) use upload::Upload;

/// How to reach the network.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Accept any certificate, and plain HTTP where HTTPS does not answer: Trivy's `--insecure`.
    pub insecure: bool,
    /// Speak plain HTTP to registries, never HTTPS.
    pub plain_http: bool,
    /// A PEM file of further CA certificates, beside those of the system (or of SSL_CERT_FILE).
    pub ca_cert: Option<PathBuf>,
    /// A PEM file with a client certificate and its key.
    pub client_cert: Option<PathBuf>,
    /// A name and a password for every registry, in place of Docker's configuration.
    pub login: Option<(String, String)>,
}

/// The way to every server: HTTP clients, credentials, and the thread that they run on. Made
/// once and shared by reference; the network is not touched before something is asked for.
pub struct Remote {
    pub(crate) http: Http,
    pub(crate) registries: registry::Registries,
    pub(crate) options: RemoteOptions,
}

impl Remote {
    /// Prepares the way.
    ///
    /// # Errors
    /// [`RemoteError::CaFile`] for a file without certificates, [`RemoteError::Setup`] where
    /// the system gives no thread.
    pub fn new(options: RemoteOptions) -> Result<Self, RemoteError> {
        let roots = match &options.ca_cert {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        let identity = options.client_cert.as_deref().map(identity).transpose()?;
        let http = Http::new(roots, identity, options.insecure)?;
        let config = auth::docker_config();
        let login = options.login.clone();
        let registries = registry::Registries::new(options.plain_http, options.insecure, config, login);
        Ok(Remote { http, registries, options })
    }

    /// GETs a path of a repository, logging in where the registry asks for it.
    pub(crate) fn get(
        &self,
        repository: &Repository,
        path: &str,
        subject: &str,
        accept: Option<&'static str>,
    ) -> Result<Answer, RemoteError> {
        self.registries.get(&self.http, repository, path, subject, accept)
    }

    /// Whether a client must accept plain HTTP or any certificate to reach this registry as it was
    /// reached here.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.options.insecure || self.options.plain_http || self.registries.spoke_plainly(host)
    }

    /// Whether a registry was logged in to.
    pub(crate) fn has_login(&self, host: &str) -> bool {
        self.registries.has_login(host)
    }

    /// The remarks since they were last taken, each worth a line: credentials that were not
    /// accepted, a helper that failed.
    pub fn take_notes(&self) -> Vec<String> {
        self.registries.take_notes()
    }
}

/// The largest file of certificates that is read, in bytes. Mozilla's whole list takes 230 KB.
const MAX_PEM: u64 = 16 << 20;

/// A client certificate with its key.
fn identity(path: &Path) -> Result<Identity, RemoteError> {
    let wrong = |why: String| RemoteError::ClientCertificate { path: path.into(), why };
    let bytes = trusted::read(path, MAX_PEM).map_err(|error| wrong(error.to_string()))?;
    Identity::from_pem(&bytes).map_err(|error| wrong(http::innermost(&error)))
}

/// The certificates of a PEM file, each of them checked to be one.
fn certificates(path: &Path) -> Result<Vec<Certificate>, RemoteError> {
    let wrong = |why: String| RemoteError::CaFile { path: path.into(), why };
    let bytes = trusted::read(path, MAX_PEM).map_err(|error| wrong(error.to_string()))?;
    let mut roots = Vec::new();
    for der in CertificateDer::pem_slice_iter(&bytes) {
        let der = der.map_err(|error| wrong(format!("it is not a PEM file: {error}")))?;
        rustls::RootCertStore::empty()
            .add(der.clone())
            .map_err(|error| wrong(format!("certificate {} in it is broken: {error}", roots.len() + 1)))?;
        roots.push(Certificate::from_der(&der).map_err(|error| wrong(error.to_string()))?);
    }
    if roots.is_empty() { Err(wrong("it holds no certificate".into())) } else { Ok(roots) }
}
