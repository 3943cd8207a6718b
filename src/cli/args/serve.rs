//! The command line of `serve`: what is served, where, and what is accepted.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::shared::{AcceptanceFlags, SelectionFlags, SettingsFlags, SignerFlags, TrustFlags};
use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::image_pattern::ImagePattern;
use crate::delivery::web_url::WebUrl;

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A bundle, or a folder with bundles: of each dataset the newest is served. Several folders where its
    /// volumes lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signers: SignerFlags,
    /// Where to listen. 0.0.0.0:PORT is every interface of this host.
    #[arg(long, default_value = "127.0.0.1:5000", env = "TRIVY_FERRY_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Serve over TLS with the certificate in this PEM file, and those above it.
    #[arg(long, env = "TRIVY_FERRY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, a PEM file.
    #[arg(long, env = "TRIVY_FERRY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The URL under which scanners reach this server, such as https://ferry.corp.example:5000
    /// (default: the address, or this host's name).
    #[arg(long, env = "TRIVY_FERRY_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<WebUrl>,
    /// Serve these images of the bundle as well: HOST/REPOSITORY[:TAG], in which * is any text (default:
    /// none). An image is served as SOURCE-HOST/REPOSITORY:TAG.
    #[arg(long, env = "TRIVY_FERRY_IMAGE", value_name = "PATTERN", value_delimiter = ',')]
    pub image: Vec<ImagePattern>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub acceptance: AcceptanceFlags,
    /// The Trivy version that scans (default: that of `trivy` on the PATH, else the newest).
    #[arg(long, env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Option<TrivyVersion>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
    /// Where this host remembers what it accepted (default: STATE_DIRECTORY, else
    /// XDG_STATE_HOME/trivy-ferry, which is ~/.local/state/trivy-ferry, else /var/lib/trivy-ferry).
    #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
