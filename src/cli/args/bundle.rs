//! The command lines of `sign`, `verify`, `inspect` and `repair`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::cli::args::shared::{Signing, TimeOverrides, TrustedKeys};

/// `sign`
#[derive(Debug, Args)]
pub struct Sign {
    /// The bundle.
    pub bundle: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signing: Signing,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustedKeys,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// A bundle, or a folder with bundles; several folders where its volumes lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustedKeys,
    /// The stream that is accepted (default: any).
    #[arg(long, env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Option<Stream>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: TimeOverrides,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// A bundle, or a folder with bundles; several folders where its volumes lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustedKeys,
}

/// `repair`
#[derive(Debug, Args)]
pub struct Repair {
    /// The folder with a bundle and its parity; several where they lie on several media.
    #[arg(required = true)]
    pub bundle: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keys: TrustedKeys,
}
