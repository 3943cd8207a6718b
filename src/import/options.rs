//! The options of an import.

use std::path::PathBuf;

use crate::dataset::Selection;
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::image_pattern::WantedImage;
use crate::delivery::options::{AcceptanceOptions, RegistryOptions, SettingsOptions};
use crate::delivery::web_url::WebUrl;
use crate::error::Error;
use crate::targets::{Layout, Owner};

/// The options of an import: its targets, and its rules for bundles and datasets.
#[derive(Clone)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Files of public keys to trust; empty for the keys that `trust add` has added.
    pub trust: Vec<PathBuf>,
    /// The number of different trusted keys that must have signed a bundle; `None` for the number of `trust require`,
    /// else 1.
    pub min_signers: Option<u32>,
    /// Trivy's cache directories; empty for the default one, unless there are other targets.
    pub cache_dirs: Vec<PathBuf>,
    /// The layout of the cache directory.
    pub layout: Layout,
    /// The owner of installed files; `None` for the owner of the existing ones.
    pub owner: Option<Owner>,
    /// Keeps the previous generation, so that it can be restored.
    pub keep_previous: bool,
    /// The registries.
    pub registry: RegistryOptions,
    /// A directory of a web server, for VEX repositories.
    pub web_root: Option<PathBuf>,
    /// The URL under which that web server serves it.
    pub web_url: Option<WebUrl>,
    /// The images to push into the registries.
    pub image: Vec<WantedImage>,
    /// Lets images replace tags that trivy-ferry did not set.
    pub replace_image_tags: bool,
    /// The datasets to import.
    pub selection: Selection,
    /// The rules for accepting bundles.
    pub acceptance: AcceptanceOptions,
    /// The version of Trivy that scans; `None` for that of the `trivy` in `PATH`, else the newest
    /// known.
    pub trivy_version: Option<TrivyVersion>,
    /// The files that scanner settings are written to.
    pub settings: SettingsOptions,
    /// Removes cached image analyses, which contain results of the earlier trivy-java-db.
    pub clear_scan_cache: bool,
    /// A shell command that runs after a change.
    pub exec_after: Option<String>,
    /// A file for metrics in the text format of Prometheus.
    pub metrics: Option<PathBuf>,
    /// The `XDG_DATA_HOME` of the scanner; `None` for that of this user.
    pub data_home: Option<PathBuf>,
    /// The state directory; `None` for the default.
    pub state_dir: Option<PathBuf>,
    /// Verifies and decides everything, but writes no data, settings, state, log or metrics, and runs no command.
    pub dry_run: bool,
}

impl ImportOptions {
    /// Returns options that import all datasets of a stream into the default cache, with the default rules.
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

    /// Validates the options.
    ///
    /// # Errors
    /// If there is a web root without a URL, a URL without a web root, or an extra tag without a registry.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.web_root.is_some() != self.web_url.is_some() {
            return Err(Error::usage(
                "--web-root and --web-url need each other",
                "Give both: --web-root DIR and the URL under which a web server serves it, --web-url URL.",
            ));
        }
        if self.registry.places.is_empty() && !self.registry.extra_tag.is_empty() {
            return Err(Error::usage(
                "--extra-tag needs a registry, and none is named",
                "Name one with --registry, or omit --extra-tag.",
            ));
        }
        Ok(())
    }
}
