//! The command line of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::heading::{RUN, SCANNER, SERVER};
use crate::cli::args::shared::{
    AcceptanceFlags, ScannerFlags, SelectionFlags, SignerFlags, TrustFlags, switch,
};
use crate::delivery::image_pattern::ImagePattern;
use crate::delivery::web_url::WebUrl;

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A bundle, or a directory with bundles; several if the volumes are on several media.
    ///
    /// In a directory, the newest acceptable version of each dataset is served.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    /// Listen on this address.
    ///
    /// 0.0.0.0:5000 means port 5000 on all interfaces.
    #[arg(long, help_heading = SERVER, default_value = "127.0.0.1:5000", env = "TRIVY_FERRY_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Serve over TLS with the certificate and its chain in this PEM file.
    #[arg(long, help_heading = SERVER, env = "TRIVY_FERRY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, a PEM file.
    #[arg(long, help_heading = SERVER, env = "TRIVY_FERRY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The URL under which scanners reach this server.
    ///
    /// For example: https://ferry.corp.example:5000. Default: the address of --listen, or this host's name.
    #[arg(long, help_heading = SERVER, env = "TRIVY_FERRY_URL", value_name = "URL")]
    pub url: Option<WebUrl>,
    /// Serve the images of the bundle that match this pattern too.
    ///
    /// For example: 'ghcr.io/aquasecurity/*'. The pattern is HOST/REPOSITORY[:TAG], with * for any
    /// text. An image is served as SOURCE-HOST/REPOSITORY:TAG. Without this option, no image is
    /// served.
    #[arg(long, help_heading = SERVER, env = "TRIVY_FERRY_IMAGE", value_name = "PATTERN", value_delimiter = ',')]
    pub image: Vec<ImagePattern>,
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
    /// Print the settings for every Trivy command, and not only for scans of images.
    #[arg(long, help_heading = SCANNER, hide_short_help = true, env = "TRIVY_FERRY_SHOW_SETTINGS", value_parser = switch)]
    pub show_settings: bool,
    /// Keep the record of accepted bundles here.
    ///
    /// Default: $STATE_DIRECTORY, else trivy-ferry in $XDG_STATE_HOME or ~/.local/state (not for root), else
    /// /var/lib/trivy-ferry.
    #[arg(long, help_heading = RUN, hide_short_help = true, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
