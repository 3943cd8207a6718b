//! The command line of `import`, and the flags that it shares with `watch`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::heading::{CACHE, REGISTRY, RUN, SCANNER, WEB};
use crate::cli::args::shared::{
    AcceptanceFlags, ConnectionFlags, RegistryFlags, Renamed, RetryFlags, ScannerFlags, SelectionFlags,
    SignerFlags, TrustFlags, renamed_to_image, switch,
};
use crate::delivery::image_pattern::WantedImage;
use crate::delivery::web_url::WebUrl;

/// The layout of the cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Layout {
    /// Trivy's own layout.
    #[default]
    Trivy,
    /// The layout of Harbor's scanner adapter: databases and VEX repositories, owned by 10000:10000.
    Harbor,
}

/// `import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A bundle, or a directory with bundles; several if the volumes are on several media.
    ///
    /// In a directory, the newest acceptable version of each dataset is imported.
    #[arg(required_unless_present = "restore")]
    pub bundle: Vec<PathBuf>,
    /// Verify the bundle and print the data to import; change nothing.
    #[arg(long, help_heading = RUN, conflicts_with_all = ["staging", "restore"])]
    pub dry_run: bool,
    /// Restore the data from before the last import, without a bundle.
    #[arg(long, help_heading = RUN, conflicts_with_all = ["bundle", "places", "web_root"])]
    pub restore: bool,
    /// Collect the volumes here first, if you insert one medium at a time.
    ///
    /// Run the command for each medium. With the last one, the bundle is imported and the directory is cleared.
    #[arg(long, help_heading = RUN, value_name = "DIR", conflicts_with = "restore", env = "TRIVY_FERRY_STAGING")]
    pub staging: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub import: DeliveryFlags,
    /// Print the settings for every Trivy command, and not only for scans of images.
    #[arg(long, help_heading = SCANNER, hide_short_help = true, env = "TRIVY_FERRY_SHOW_SETTINGS", value_parser = switch)]
    pub show_settings: bool,
}

/// The targets and the rules of acceptance of `import` and `watch`.
#[derive(Debug, Args)]
pub struct DeliveryFlags {
    /// Trivy's cache directory [default: $TRIVY_CACHE_DIR, else ~/.cache/trivy].
    ///
    /// The default follows XDG_CACHE_HOME, as Trivy's does. Repeat the option for several caches, such as those of
    /// replicas.
    #[arg(long, help_heading = CACHE, env = "TRIVY_FERRY_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Vec<PathBuf>,
    /// The layout of the cache directory.
    #[arg(long, help_heading = CACHE, hide_short_help = true, value_enum, default_value_t, env = "TRIVY_FERRY_LAYOUT", value_name = "LAYOUT")]
    pub layout: Layout,
    /// The owner of the installed files, as numbers [default: the owner of the existing files].
    ///
    /// Needs root.
    #[arg(long, help_heading = CACHE, hide_short_help = true, env = "TRIVY_FERRY_OWNER", value_name = "UID[:GID]")]
    pub owner: Option<String>,
    /// Earlier generations to keep for --restore: 0 or 1.
    #[arg(long, help_heading = CACHE, hide_short_help = true, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1), env = "TRIVY_FERRY_KEEP_PREVIOUS", value_name = "NUMBER")]
    pub keep_previous: u8,
    /// Clear Trivy's scan cache, whose results hide a new trivy-java-db.
    #[arg(long, help_heading = CACHE, env = "TRIVY_FERRY_CLEAR_SCAN_CACHE", value_parser = switch)]
    pub clear_scan_cache: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryFlags,
    /// Push these images of the bundle, such as 'ghcr.io/aquasecurity/*'.
    ///
    /// The pattern is HOST/REPOSITORY[:TAG], with * for any text. An image is pushed to
    /// HOST/PREFIX/SOURCE-HOST/REPOSITORY:TAG of the registry. NAME=HOST/PATH[:TAG] chooses another
    /// place. Without this option, no image is pushed.
    #[arg(
        long,
        help_heading = REGISTRY,
        env = "TRIVY_FERRY_IMAGE",
        value_name = "PATTERN",
        value_delimiter = ',',
        requires = "places"
    )]
    pub image: Vec<WantedImage>,
    #[arg(long, env = "TRIVY_FERRY_ALSO", hide = true, value_parser = renamed_to_image)]
    #[allow(missing_docs)]
    pub also: Option<Renamed>,
    /// Replace tags that trivy-ferry did not set. Risk: their users get the bundle's image.
    #[arg(long, help_heading = REGISTRY, hide_short_help = true, requires = "image")]
    pub replace_image_tags: bool,
    /// Put VEX repositories into this directory of a web server.
    #[arg(long, help_heading = WEB, env = "TRIVY_FERRY_WEB_ROOT", value_name = "DIR", requires = "web_url")]
    pub web_root: Option<PathBuf>,
    /// The URL under which the web server serves --web-root.
    #[arg(
        long,
        help_heading = WEB,
        env = "TRIVY_FERRY_WEB_URL",
        value_name = "URL",
        requires = "web_root"
    )]
    pub web_url: Option<WebUrl>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signers: SignerFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub acceptance: AcceptanceFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub scanner: ScannerFlags,
    /// The scanner's XDG_DATA_HOME, which holds .trivy/vex/repository.yaml [default: Trivy's].
    #[arg(long, help_heading = SCANNER, hide_short_help = true, env = "TRIVY_FERRY_DATA_HOME", value_name = "DIR")]
    pub data_home: Option<PathBuf>,
    /// Run this shell command if something changed.
    ///
    /// For example: `systemctl restart trivy-server`.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_EXEC_AFTER", value_name = "COMMAND")]
    pub exec_after: Option<String>,
    /// Write Prometheus metrics to this file, with the result of this run.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_METRICS", value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Keep the record of accepted bundles here.
    ///
    /// Default: $STATE_DIRECTORY, else trivy-ferry in $XDG_STATE_HOME or ~/.local/state (not for root), else
    /// /var/lib/trivy-ferry.
    #[arg(long, help_heading = RUN, hide_short_help = true, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub retry: RetryFlags,
}
