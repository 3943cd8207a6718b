//! The options of a server: its content, its address, and the rules for bundles.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::bundle::Stream;
use crate::dataset::Selection;
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::image_pattern::ImagePattern;
use crate::delivery::options::{AcceptanceOptions, SettingsOptions};
use crate::delivery::web_url::WebUrl;

/// The content of a server, its address, and the rules for bundles.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// A bundle, or directories that hold bundles and their volumes.
    pub inputs: Vec<PathBuf>,
    /// Files of public keys to trust; if empty, the keys that `trust add` stored.
    pub trust: Vec<PathBuf>,
    /// The number of different trusted keys that must have signed a bundle; `None` for the number
    /// of `trust require`, else 1.
    pub min_signers: Option<u32>,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The files of the certificate and its private key; `None` serves plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The URL under which scanners reach the server; `None` for its address.
    pub url: Option<WebUrl>,
    /// The images to serve.
    pub image: Vec<ImagePattern>,
    /// The datasets to serve.
    pub selection: Selection,
    /// The bundles to accept.
    pub acceptance: AcceptanceOptions,
    /// The version of Trivy that scans; `None` for the version of the `trivy` in `PATH`, else the
    /// newest known one.
    pub trivy_version: Option<TrivyVersion>,
    /// The files for scanner settings.
    pub settings: SettingsOptions,
    /// The directory for the state of this host; `None` for the default.
    pub state_dir: Option<PathBuf>,
}

impl ServeOptions {
    /// Returns options that serve all datasets of a stream over plain HTTP, with the default rules.
    #[must_use]
    pub fn new(stream: Stream, inputs: Vec<PathBuf>, listen: SocketAddr) -> Self {
        ServeOptions {
            inputs,
            trust: Vec::new(),
            min_signers: None,
            listen,
            tls: None,
            url: None,
            image: Vec::new(),
            selection: Selection::default(),
            acceptance: AcceptanceOptions::new(stream),
            trivy_version: None,
            settings: SettingsOptions::default(),
            state_dir: None,
        }
    }
}
