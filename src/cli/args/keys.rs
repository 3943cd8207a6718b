//! The command lines of `keygen` and `trust`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::bundle::Stream;
use crate::cli::args::shared::switch;
use crate::trust::keyring::MOST_SIGNERS;

/// `keygen`
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The key pair is NAME.key (mode 0600) and NAME.pub.
    #[arg(long, default_value = "ferry", env = "TRIVY_FERRY_NAME", value_name = "NAME")]
    pub name: PathBuf,
    /// Encrypt the private key with a passphrase.
    ///
    /// trivy-ferry asks for it on the terminal.
    #[arg(long, env = "TRIVY_FERRY_ENCRYPT", value_parser = switch)]
    pub encrypt: bool,
    /// Encrypt the key with the passphrase in the first line of this file.
    #[arg(long, env = "TRIVY_FERRY_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `trust`
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Trust an exporter's public key, after you compare its fingerprint.
    ///
    /// Compare it over another channel, such as the telephone.
    Add {
        /// The public key.
        file: PathBuf,
        /// The fingerprint that the key must have.
        ///
        /// Without this option, trivy-ferry asks you to confirm it.
        #[arg(long, env = "TRIVY_FERRY_FINGERPRINT")]
        fingerprint: Option<String>,
        /// Keep the key under this name [default: the file's].
        #[arg(long, env = "TRIVY_FERRY_NAME")]
        name: Option<String>,
        /// Trust the key for this stream only [default: all, or as before].
        ///
        /// Repeat it for several.
        #[arg(long, env = "TRIVY_FERRY_STREAM", value_name = "NAME", value_delimiter = ',', value_parser = clap::value_parser!(Stream))]
        stream: Vec<Stream>,
    },
    /// List the trusted keys.
    List,
    /// Require signatures of this many trusted keys on each bundle.
    ///
    /// For a two-person rule: one person exports, another adds a signature with `sign`. The number is stored beside the
    /// keys; --trust FILE uses neither the number nor these keys. Heartbeats have one signature,
    /// and the number does not apply to them.
    Require {
        /// The number of keys; 1 is the default.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SIGNERS)))]
        number: u32,
    },
    /// Stop trusting a key.
    Remove {
        /// The key's name, as `trust list` prints it, or its fingerprint.
        key: String,
        /// Forget all accepted dates and numbers, after the key was stolen.
        ///
        /// The next bundle is treated as the first one, in all streams and targets, whatever the
        /// targets hold. Risk: until then, an older bundle of a trusted key is accepted.
        #[arg(long)]
        reset_floors: bool,
        /// The record of accepted bundles [default: as for `import`].
        ///
        /// Only for --reset-floors.
        #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Forget all accepted dates and numbers, after a stolen key was removed.
    ///
    /// `trust remove --reset-floors` does both at once. Use this command if root removes the key and another user owns
    /// the record. The next bundle is treated as the first one, in all streams and targets. Risk:
    /// until then, an older bundle of a trusted key is accepted.
    ResetFloors {
        /// The record of accepted bundles [default: as for `import`].
        #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
}
