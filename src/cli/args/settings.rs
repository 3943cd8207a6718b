//! The command line of `settings`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Layout;
use crate::cli::args::heading::{CACHE, REGISTRY, SCANNER, WEB};
use crate::cli::args::shared::{ConnectionFlags, SelectionFlags, SettingsFlags};
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::web_url::WebUrl;

/// `settings`
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Print the settings for this cache directory.
    ///
    /// Default: as for `import`, if neither a registry nor a web server is named.
    #[arg(long, help_heading = CACHE, env = "TRIVY_FERRY_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Vec<PathBuf>,
    /// The layout of the cache directory.
    #[arg(long, help_heading = CACHE, hide_short_help = true, value_enum, default_value_t, env = "TRIVY_FERRY_LAYOUT", value_name = "LAYOUT")]
    pub layout: Layout,
    /// Print the settings for this registry, or a host that runs `serve`.
    ///
    /// HOST[:PORT][/PREFIX], or DATASET=HOST/PATH[:TAG] for one dataset.
    #[arg(
        long = "registry",
        help_heading = REGISTRY,
        value_delimiter = ',',
        env = "TRIVY_FERRY_REGISTRY",
        value_name = "HOST[/PREFIX]"
    )]
    pub places: Vec<RegistryPlace>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
    /// Print the settings for the VEX repositories in this web root.
    #[arg(long, help_heading = WEB, env = "TRIVY_FERRY_WEB_ROOT", value_name = "DIR", requires = "web_url")]
    pub web_root: Option<PathBuf>,
    /// The URL of the web server, or of a host that runs `serve`.
    ///
    /// Without --web-root, the settings are for VEX Hub, or for the repositories that --only names.
    #[arg(long, help_heading = WEB, env = "TRIVY_FERRY_WEB_URL", value_name = "URL")]
    pub web_url: Option<WebUrl>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    /// The Trivy version that scans [default: `trivy` on the PATH].
    ///
    /// Without a `trivy` on the PATH, the newest known version.
    #[arg(long, help_heading = SCANNER, env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Option<TrivyVersion>,
    /// The scanner's XDG_DATA_HOME, which holds .trivy/vex/repository.yaml [default: Trivy's].
    #[arg(long, help_heading = SCANNER, hide_short_help = true, env = "TRIVY_FERRY_DATA_HOME", value_name = "DIR")]
    pub data_home: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
}
