//! The command lines of `keygen` and `trust`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::bundle::Stream;
use crate::cli::args::shared::switch;
use crate::trust::keyring::MOST_SIGNERS;

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
        /// Trust it only for this stream (default: for all, or as before). May be repeated.
        #[arg(long, env = "TRIVY_FERRY_STREAM", value_name = "NAME", value_delimiter = ',', value_parser = clap::value_parser!(Stream))]
        stream: Vec<Stream>,
    },
    /// List the trusted keys.
    List,
    /// Require that so many different trusted keys have signed a bundle.
    ///
    /// For two who must agree: one exports, the other adds a signature with `sign`. The number is kept beside
    /// the keys; --trust FILE uses neither. Heartbeats have one signature, and are not counted.
    Require {
        /// How many; 1 is the default of every host.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SIGNERS)))]
        number: u32,
    },
    /// No longer trust a key.
    Remove {
        /// The key's name, as `trust list` prints it, or its fingerprint.
        key: String,
        /// After the key was stolen: forget every date and number that this host has accepted, in all streams and
        /// targets, so that the next bundle is judged as the first. What the targets hold is no floor either.
        /// Risk: until then, an older bundle of a trusted key is accepted.
        #[arg(long, env = "TRIVY_FERRY_RESET_FLOORS", value_parser = switch)]
        reset_floors: bool,
        /// For --reset-floors: where this host remembers what it accepted (default: as `import` has it).
        #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
}
