//! The command lines of `sign`, `verify`, `inspect` and `repair`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::cli::args::heading::ACCEPTANCE;
use crate::cli::args::shared::{SignerFlags, SigningFlags, TimeOverrideFlags, TrustFlags};

/// `sign`
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The bundle.
    pub bundle: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signing: SigningFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A bundle, or a directory with bundles; several if the volumes are on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signers: SignerFlags,
    /// Accept bundles of this stream only [default: any].
    #[arg(long, help_heading = ACCEPTANCE, env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Option<Stream>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: TimeOverrideFlags,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A bundle, or a directory with bundles; several if the volumes are on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
}

/// `repair`
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The directory with a bundle and its parity; several if they are on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
}
