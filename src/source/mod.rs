//! Where bytes come from: a registry, a web server, a folder.
//!
//! This room fetches and checks that it got what was asked for: size, digest, and that an answer
//! is of the kind that it should be. What the content means is the dataset room's. To everybody
//! else it is blocking: the runtime and its one thread stay inside.

use std::path::{Path, PathBuf};

use reqwest::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::digest::Digest;
use crate::oci::{Descriptor, Manifest};

mod auth;
mod blob;
mod body;
pub mod error;
mod files;
#[cfg(test)]
mod folder_tests;
mod http;
mod layout;
mod reference;
mod registry;
#[cfg(test)]
mod registry_tests;
mod runtime;
#[cfg(test)]
mod testing;
mod vex;
mod vex_folder;
mod vex_source;

pub use blob::{Blob, UnhashedBlob};
pub use error::{Service, SourceError, Unreachable};
pub use reference::{ArtifactSource, Repository};
pub use vex::VexRepository;
pub use vex_source::VexSource;

/// How to reach the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Accept any certificate, and plain HTTP where HTTPS does not answer: Trivy's `--insecure`.
    pub insecure: bool,
    /// Speak plain HTTP to registries, never HTTPS.
    pub plain_http: bool,
    /// A PEM file of further CA certificates, beside those of the system (or of SSL_CERT_FILE).
    pub ca_cert: Option<PathBuf>,
}

/// The way to every source: HTTP clients, credentials, and the thread that they run on. Made
/// once and shared by reference; the network is not touched before something is asked for.
pub struct Network {
    http: http::Http,
    registries: registry::Registries,
    options: NetworkOptions,
}

/// A manifest, as its source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is from.
    pub source: ArtifactSource,
    /// The manifest's bytes as they were published.
    pub manifest_bytes: Vec<u8>,
    /// The digest of `manifest_bytes`, computed here and equal to every digest claimed for them.
    pub manifest_digest: Digest,
    /// The manifest's media type: its own word for it, else the registry's, else OCI's.
    pub manifest_media_type: String,
    /// What the bytes say.
    pub manifest: Manifest,
}

impl Network {
    /// Prepares the way.
    ///
    /// # Errors
    /// [`SourceError::CaFile`] for a file without certificates, [`SourceError::Setup`] where
    /// the system gives no thread.
    pub fn new(options: NetworkOptions) -> Result<Self, SourceError> {
        let roots = match &options.ca_cert {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        let http = http::Http::new(roots, options.insecure)?;
        let config = auth::docker_config();
        let registries = registry::Registries::new(options.plain_http, options.insecure, config);
        Ok(Network { http, registries, options })
    }

    /// Fetches an artifact's manifest. Its digest is computed from the bytes, and compared with
    /// that of the reference and that which the registry claims.
    ///
    /// # Errors
    /// Any [`SourceError`] of a registry or a layout.
    pub fn resolve(&self, source: &ArtifactSource) -> Result<Artifact, SourceError> {
        match source {
            ArtifactSource::Registry(repository) => self.registries.manifest(&self.http, repository),
            ArtifactSource::Layout { folder, tag } => layout::manifest(folder, tag),
        }
    }

    /// Begins to read a blob of an artifact. Its bytes are checked as they are read: see [`Blob`].
    ///
    /// # Errors
    /// Any [`SourceError`] of a registry or a layout; a length other than the descriptor's is
    /// found here where the source announces one.
    pub fn blob(&self, source: &ArtifactSource, descriptor: &Descriptor) -> Result<Blob, SourceError> {
        match source {
            ArtifactSource::Registry(repository) => self.registries.blob(&self.http, repository, descriptor),
            ArtifactSource::Layout { folder, tag } => layout::blob(folder, tag, descriptor),
        }
    }

    /// Fetches a whole VEX repository: its manifest and its archive, whose size no one can know
    /// before.
    ///
    /// # Errors
    /// Any [`SourceError`] of a web server or a folder.
    pub fn vex(&self, source: &VexSource) -> Result<VexRepository, SourceError> {
        let most = crate::dataset::Kind::Vex.max_packed();
        match source {
            VexSource::Url(url) => {
                let any_http = self.options.insecure || self.options.plain_http;
                vex::fetch(&self.http, url, any_http, most)
            }
            VexSource::Folder(folder) => vex_folder::read(folder, most),
        }
    }

    /// The remarks since they were last taken, each worth a line: credentials that were not
    /// accepted, a helper that failed.
    pub fn take_notes(&self) -> Vec<String> {
        self.registries.take_notes()
    }
}

/// The certificates of a PEM file, each of them checked to be one.
fn certificates(path: &Path) -> Result<Vec<Certificate>, SourceError> {
    let wrong = |why: String| SourceError::CaFile { path: path.into(), why };
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
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
