//! The command lines of `keygen` and `trust`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::shared::switch;

/// `keygen`
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The pair's name: writes NAME.key (mode 0600) and NAME.pub.
    #[arg(long, default_value = "ferry", env = "TRIVY_FERRY_OUT", value_name = "NAME")]
    pub out: PathBuf,
    /// Encrypt the private key with a passphrase, asked for on the terminal.
    #[arg(long, env = "TRIVY_FERRY_ENCRYPT", value_parser = switch)]
    pub encrypt: bool,
    /// Encrypt the private key with the passphrase in this file's first line.
    #[arg(long, env = "TRIVY_FERRY_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `trust`
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Trust an exporter's public key, after its fingerprint was compared over another channel.
    Add {
        /// The public key.
        file: PathBuf,
        /// The fingerprint that the key must have; without it, you are asked.
        #[arg(long, env = "TRIVY_FERRY_FINGERPRINT")]
        fingerprint: Option<String>,
        /// The name under which the key is kept (default: the file's).
        #[arg(long, env = "TRIVY_FERRY_NAME")]
        name: Option<String>,
    },
    /// List the trusted keys.
    List,
    /// No longer trust a key.
    Remove {
        /// The key's name, as `trust list` prints it, or its fingerprint.
        key: String,
    },
}
