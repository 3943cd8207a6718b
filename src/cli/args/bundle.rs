//! The command lines of `sign`, `verify`, `inspect` and `repair`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
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
    /// A bundle, or a folder with bundles; several folders where its volumes lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signers: SignerFlags,
    /// The stream that is accepted (default: any).
    #[arg(long, env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Option<Stream>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: TimeOverrideFlags,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A bundle, or a folder with bundles; several folders where its volumes lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
}

/// `repair`
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The folder with a bundle and its parity; several where they lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustFlags,
}
