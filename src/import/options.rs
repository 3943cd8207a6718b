//! The options of an import: where what is imported goes, and what is accepted.

use std::path::PathBuf;

use crate::dataset::Selection;
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::image_pattern::WantedImage;
use crate::delivery::options::{AcceptanceOptions, RegistryOptions, SettingsOptions};
use crate::delivery::web_url::WebUrl;
use crate::error::Error;
use crate::targets::{Layout, Owner};

/// Where what is imported goes, and what is accepted.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Files of public keys to trust; if there are none, those that `trust add` keeps.
    pub trust: Vec<PathBuf>,
    /// How many different trusted keys must have signed a bundle; `None` for what `trust require` says, else one.
    pub min_signers: Option<u32>,
    /// The cache directories of Trivy; none for the default, if nothing else is imported into.
    pub cache_dirs: Vec<PathBuf>,
    /// How the cache directory is laid out.
    pub layout: Layout,
    /// Who owns what is installed; `None` for the owner of what is there.
    pub owner: Option<Owner>,
    /// Keeps the generation before, for going back.
    pub keep_previous: bool,
    /// Registries that are pushed to.
    pub registry: RegistryOptions,
    /// A directory of a web server, for VEX repositories.
    pub web_root: Option<PathBuf>,
    /// The URL under which that web server hands it out.
    pub web_url: Option<WebUrl>,
    /// Images that go into the registries.
    pub image: Vec<WantedImage>,
    /// Lets images replace tags that trivy-ferry did not set.
    pub replace_image_tags: bool,
    /// Which datasets.
    pub selection: Selection,
    /// Which bundles.
    pub acceptance: AcceptanceOptions,
    /// The version of Trivy that scans; `None` for that of the `trivy` on the PATH, else the newest.
    pub trivy_version: Option<TrivyVersion>,
    /// Where scanner settings are written.
    pub settings: SettingsOptions,
    /// Removes earlier analyses of images, which hide a new trivy-java-db.
    pub clear_scan_cache: bool,
    /// A shell command that runs after something changed.
    pub exec_after: Option<String>,
    /// A file for metrics in the text format of Prometheus.
    pub metrics: Option<PathBuf>,
    /// The XDG_DATA_HOME of the scanner; `None` for that of this user.
    pub data_home: Option<PathBuf>,
    /// Where this host keeps its state; `None` for the default.
    pub state_dir: Option<PathBuf>,
    /// Verifies and decides everything, and puts nothing in place: neither data nor settings, state, log or metrics,
    /// and no command is run.
    pub dry_run: bool,
}

impl ImportOptions {
    /// Options that import all datasets of a stream into the default cache, by the default rules.
    #[must_use]
    pub fn new(stream: crate::bundle::Stream) -> Self {
        ImportOptions {
            trust: Vec::new(),
            min_signers: None,
            cache_dirs: Vec::new(),
            layout: Layout::Trivy,
            owner: None,
            keep_previous: true,
            registry: RegistryOptions::default(),
            web_root: None,
            web_url: None,
            image: Vec::new(),
            replace_image_tags: false,
            selection: Selection::default(),
            acceptance: AcceptanceOptions::new(stream),
            trivy_version: None,
            settings: SettingsOptions::default(),
            clear_scan_cache: false,
            exec_after: None,
            metrics: None,
            data_home: None,
            state_dir: None,
            dry_run: false,
        }
    }

    /// Whether the options are complete.
    ///
    /// # Errors
    /// If a web root has no URL, or a URL no web root; if there are further tags and no registry.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.web_root.is_some() != self.web_url.is_some() {
            return Err(Error::usage(
                "a web root and the URL under which it is handed out belong together",
                "Give both, as --web-root DIR and --web-url URL.",
            ));
        }
        if self.registry.places.is_empty() && !self.registry.extra_tag.is_empty() {
            return Err(Error::usage(
                "further tags are for registries, and none is named",
                "Name one with --registry, or leave out --extra-tag.",
            ));
        }
        Ok(())
    }
}
