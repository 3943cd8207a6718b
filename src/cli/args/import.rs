//! The command line of `import`: where a bundle comes from, where its data goes, and what is accepted.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::shared::{
    AcceptanceFlags, RegistryFlags, Renamed, RetryFlags, SelectionFlags, SettingsFlags, SignerFlags,
    TrustFlags, renamed_to_image, switch,
};
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::image_pattern::WantedImage;
use crate::delivery::web_url::WebUrl;

/// How the cache directory is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Layout {
    /// As Trivy has it.
    #[default]
    Trivy,
    /// As Harbor's scanner adapter has it: the databases and VEX repositories, owned by 10000:10000.
    Harbor,
}

/// `import`
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A bundle, or a folder with bundles: of each dataset the newest is taken. Several folders where its
    /// volumes lie on several media.
    #[arg(required_unless_present = "restore")]
    pub bundle: Vec<PathBuf>,
    /// Copy what belongs to a bundle into this folder first, for a bundle whose volumes come on several media, one
    /// after the other: with the last of them it is imported, and the folder is cleared.
    #[arg(long, value_name = "DIR", conflicts_with = "restore", env = "TRIVY_FERRY_STAGING")]
    pub staging: Option<PathBuf>,
    /// Go back to what was there before the last import, without a bundle.
    #[arg(long, conflicts_with_all = ["bundle", "places", "web_root"])]
    pub restore: bool,
    /// Verify and decide everything, and say what would be imported: nothing is put in place, remembered or run.
    #[arg(long, conflicts_with_all = ["staging", "restore"])]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub import: DeliveryFlags,
}

/// Where what is imported goes, and what is accepted: of `import` and `watch`.
#[derive(Debug, Args)]
// Servers are registries here.
#[command(
    mut_arg("retries", |arg| arg.help(
        "How often in a row a registry is asked again after a failure that may pass, after ever longer pauses or when it says"
    )),
    mut_arg("deadline", |arg| arg.help("Ask no registry any more after this time, such as 2h")),
    mut_arg("stall_timeout", |arg| arg.help(
        "Take a registry for dead that takes or sends nothing for so long (default: 60s)"
    ))
)]
pub struct DeliveryFlags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signers: SignerFlags,
    /// Trivy's cache directory (default: TRIVY_CACHE_DIR, else XDG_CACHE_HOME/trivy, else
    /// ~/.cache/trivy, as Trivy has it). Repeat it for several, such as those of replicas.
    #[arg(long, env = "TRIVY_FERRY_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Vec<PathBuf>,
    /// How the cache directory is laid out.
    #[arg(long, value_enum, default_value_t, env = "TRIVY_FERRY_LAYOUT", value_name = "LAYOUT")]
    pub layout: Layout,
    /// Who owns what is installed, in numbers (default: the owner of what is there). Needs root.
    #[arg(long, env = "TRIVY_FERRY_OWNER", value_name = "UID[:GID]")]
    pub owner: Option<String>,
    /// How many earlier generations stay for --restore: 0 or 1.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1), env = "TRIVY_FERRY_KEEP_PREVIOUS", value_name = "N")]
    pub keep_previous: u8,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub retry: RetryFlags,
    /// Put VEX repositories into this folder, for a web server to hand out.
    #[arg(long, env = "TRIVY_FERRY_WEB_ROOT", value_name = "DIR", requires = "web_url")]
    pub web_root: Option<PathBuf>,
    /// The URL under which the web server hands out what lies in --web-root.
    #[arg(
        long,
        env = "TRIVY_FERRY_WEB_URL",
        hide_env_values = true,
        value_name = "URL",
        requires = "web_root"
    )]
    pub web_url: Option<WebUrl>,
    /// Push these images of the bundle into --registry: HOST/REPOSITORY[:TAG], in which * is any text
    /// (default: none). An image goes to HOST/PREFIX/SOURCE-HOST/REPOSITORY:TAG, or with
    /// NAME=HOST/PATH[:TAG] to that place.
    #[arg(
        long,
        env = "TRIVY_FERRY_IMAGE",
        hide_env_values = true,
        value_name = "PATTERN",
        value_delimiter = ',',
        requires = "places"
    )]
    pub image: Vec<WantedImage>,
    #[arg(long, env = "TRIVY_FERRY_ALSO", hide = true, value_parser = renamed_to_image)]
    #[allow(missing_docs)]
    pub also: Option<Renamed>,
    /// Let images replace tags that trivy-ferry did not set. Risk: whoever uses such a tag gets the
    /// bundle's image. There is no environment variable for it.
    #[arg(long, requires = "image")]
    pub replace_image_tags: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub acceptance: AcceptanceFlags,
    /// The Trivy version that scans here (default: that of `trivy` on the PATH, else the newest).
    #[arg(long, env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Option<TrivyVersion>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
    /// Forget earlier analyses of images, which hide a new trivy-java-db.
    #[arg(long, env = "TRIVY_FERRY_CLEAR_SCAN_CACHE", value_parser = switch)]
    pub clear_scan_cache: bool,
    /// Run this shell command after something changed, such as a restart of a Trivy server.
    #[arg(long, env = "TRIVY_FERRY_EXEC_AFTER", value_name = "COMMAND")]
    pub exec_after: Option<String>,
    /// Write metrics at the end, as `status --metrics` does, and how this run ended.
    #[arg(long, env = "TRIVY_FERRY_METRICS", value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// The scanner's XDG_DATA_HOME, where .trivy/vex/repository.yaml lies (default: as Trivy finds it).
    #[arg(long, env = "TRIVY_FERRY_DATA_HOME", value_name = "DIR")]
    pub data_home: Option<PathBuf>,
    /// Where this host remembers what it accepted (default: STATE_DIRECTORY, else
    /// XDG_STATE_HOME/trivy-ferry, which is ~/.local/state/trivy-ferry, else /var/lib/trivy-ferry).
    #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
