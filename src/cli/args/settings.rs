//! The command line of `settings`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Layout;
use crate::cli::args::shared::{ConnectionFlags, SelectionFlags, SettingsFlags};
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::web_url::WebUrl;

/// `settings`
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// For this cache directory of Trivy (default: as `import` has it, if neither a registry nor a web server is
    /// named).
    #[arg(long, env = "TRIVY_FERRY_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Vec<PathBuf>,
    /// How the cache directory is laid out.
    #[arg(long, value_enum, default_value_t, env = "TRIVY_FERRY_LAYOUT", value_name = "LAYOUT")]
    pub layout: Layout,
    /// For this registry, also one that `serve` is: HOST[:PORT][/PREFIX] or DATASET=HOST/PATH[:TAG].
    #[arg(
        long = "registry",
        value_delimiter = ',',
        env = "TRIVY_FERRY_REGISTRY",
        hide_env_values = true,
        value_name = "HOST[/PREFIX]"
    )]
    pub places: Vec<RegistryPlace>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
    /// For the VEX repositories in this web root.
    #[arg(long, env = "TRIVY_FERRY_WEB_ROOT", value_name = "DIR", requires = "web_url")]
    pub web_root: Option<PathBuf>,
    /// The URL of the web server, also of one that `serve` is. Without --web-root, for VEX Hub or what --only names.
    #[arg(long, env = "TRIVY_FERRY_WEB_URL", hide_env_values = true, value_name = "URL")]
    pub web_url: Option<WebUrl>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    /// The Trivy version that scans (default: that of `trivy` on the PATH, else the newest).
    #[arg(long, env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Option<TrivyVersion>,
    /// The scanner's XDG_DATA_HOME, where .trivy/vex/repository.yaml lies (default: as Trivy finds it).
    #[arg(long, env = "TRIVY_FERRY_DATA_HOME", value_name = "DIR")]
    pub data_home: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
}
