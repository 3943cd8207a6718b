//! Flags that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::cli::args::heading::{ACCEPTANCE, CARRY, NETWORK, REGISTRY, SCANNER, SIGNING, SOURCES};
use crate::collect::options::SourceOptions;
use crate::collect::registry_mirror::RegistryMirror;
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Name, Selection};
use crate::delivery::options::{AcceptanceOptions, SettingsOptions};
use crate::delivery::registry_place::RegistryPlace;
use crate::remote::{PAUSE, RETRIES, RetryLimits, STALL};
use crate::targets::registry::LEAST_CHUNK;
use crate::trust::keyring::MOST_SIGNERS;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// The value of a renamed flag. No value is valid.
#[derive(Debug, Clone)]
pub enum Renamed {}

/// Rejects a renamed flag or variable. If it were ignored, images would be missing.
pub(crate) fn renamed_to_image(_: &str) -> Result<Renamed, String> {
    Err("use --image instead, or TRIVY_FERRY_IMAGE in the environment".into())
}

/// Parses the value of a switch in an environment variable as true or false. Any other word is an
/// error, so that it does not count as true.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// The selection of datasets.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = CARRY)]
pub struct SelectionFlags {
    /// Only these datasets, such as trivy-db,vex-hub.
    ///
    /// The datasets are trivy-db, trivy-java-db, trivy-checks, vex-hub and vex-NAME.
    #[arg(long, value_delimiter = ',', env = "TRIVY_FERRY_ONLY", value_name = "DATASET")]
    pub only: Vec<Name>,
    /// All datasets except these.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_SKIP",
        value_name = "DATASET",
        conflicts_with = "only"
    )]
    pub skip: Vec<Name>,
}

/// The datasets to fetch, and their sources.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = SOURCES)]
pub struct SourceFlags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    /// Source of trivy-db: HOST/REPOSITORY[:TAG] or oci-layout:DIR:TAG [default: Trivy's].
    ///
    /// Repeat it for several sources. They are tried in this order; see docs/sources.md.
    #[arg(
        long,
        hide_short_help = true,
        value_delimiter = ',',
        env = "TRIVY_FERRY_DB_REPOSITORY",
        value_name = "REPOSITORY"
    )]
    pub db_repository: Vec<String>,
    /// Source of trivy-java-db, like --db-repository.
    #[arg(
        long,
        hide_short_help = true,
        value_delimiter = ',',
        env = "TRIVY_FERRY_JAVA_DB_REPOSITORY",
        value_name = "REPOSITORY"
    )]
    pub java_db_repository: Vec<String>,
    /// Source of trivy-checks, like --db-repository.
    ///
    /// A tag in it overrides --trivy-version.
    #[arg(
        long,
        hide_short_help = true,
        value_delimiter = ',',
        env = "TRIVY_FERRY_CHECKS_BUNDLE_REPOSITORY",
        value_name = "REPOSITORY"
    )]
    pub checks_bundle_repository: Vec<String>,
    /// Try this pull-through cache before the registry that it mirrors.
    ///
    /// For example: ghcr.io=harbor.corp.example/ghcr.
    #[arg(
        long,
        hide_short_help = true,
        value_delimiter = ',',
        env = "TRIVY_FERRY_REGISTRY_MIRROR",
        value_name = "HOST=MIRROR"
    )]
    pub registry_mirror: Vec<RegistryMirror>,
    /// Carry the checks for these Trivy versions [default: the newest].
    #[arg(long, value_delimiter = ',', env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Vec<TrivyVersion>,
}

impl From<&SelectionFlags> for Selection {
    fn from(flags: &SelectionFlags) -> Self {
        Selection { only: flags.only.clone(), skip: flags.skip.clone() }
    }
}

/// The limits of retries if the network fails.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = NETWORK)]
pub struct RetryFlags {
    /// Retries in a row after transient failures of a server.
    ///
    /// Retries use exponential backoff and honor Retry-After. After the last one, the next source is tried, or the
    /// target fails.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_RETRIES", default_value_t = RETRIES, value_name = "NUMBER")]
    pub retries: u32,
    /// Give up on the network after this time, such as 2h.
    #[arg(long, env = "TRIVY_FERRY_DEADLINE", value_name = "TIME")]
    pub deadline: Option<Age>,
    /// Treat a server that is silent for this long as failed [default: 60s].
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_STALL_TIMEOUT", value_name = "TIME")]
    pub stall_timeout: Option<Age>,
}

impl Default for RetryFlags {
    fn default() -> Self {
        RetryFlags { retries: RETRIES, deadline: None, stall_timeout: None }
    }
}

impl From<&RetryFlags> for RetryLimits {
    fn from(flags: &RetryFlags) -> Self {
        RetryLimits {
            retries: flags.retries,
            deadline: flags.deadline.map(|age| age.duration().unsigned_abs()),
            stall: flags.stall_timeout.map_or(STALL, |age| age.duration().unsigned_abs()),
            pause: PAUSE,
        }
    }
}

impl From<&SourceFlags> for SourceOptions {
    fn from(flags: &SourceFlags) -> Self {
        SourceOptions {
            selection: (&flags.selection).into(),
            db_repository: flags.db_repository.clone(),
            java_db_repository: flags.java_db_repository.clone(),
            checks_bundle_repository: flags.checks_bundle_repository.clone(),
            registry_mirror: flags.registry_mirror.clone(),
            trivy_version: flags.trivy_version.clone(),
        }
    }
}

impl From<&AcceptanceFlags> for AcceptanceOptions {
    fn from(flags: &AcceptanceFlags) -> Self {
        AcceptanceOptions {
            stream: flags.stream.clone(),
            max_age: flags.max_age.clone(),
            allow_rollback: flags.overrides.allow_rollback,
            allow_future: flags.overrides.time.allow_future,
            allow_expired: flags.overrides.time.allow_expired,
        }
    }
}

impl From<&SettingsFlags> for SettingsOptions {
    fn from(flags: &SettingsFlags) -> Self {
        SettingsOptions {
            write_env: flags.write_env.clone(),
            write_config: flags.write_config.clone(),
            force: flags.force,
        }
    }
}

/// The key or the command that signs.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = SIGNING)]
pub struct SigningFlags {
    /// Sign with this private key, which `trivy-ferry keygen` makes.
    #[arg(long, env = "TRIVY_FERRY_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Read the passphrase of the key from the first line of this file.
    ///
    /// /dev/fd/N works too. Without this option, trivy-ferry asks on the terminal.
    #[arg(long, env = "TRIVY_FERRY_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Sign with this shell command, for a key in an HSM or behind an agent.
    ///
    /// The command gets the bytes to sign on standard input and in the file that TRIVY_FERRY_PAE names. It prints an
    /// Ed25519 signature of 64 bytes.
    #[arg(
        long,
        hide_short_help = true,
        env = "TRIVY_FERRY_SIGNER",
        value_name = "COMMAND",
        requires = "signer_key",
        conflicts_with_all = ["key", "passphrase_file"]
    )]
    pub signer: Option<String>,
    /// The public key of --signer; its signature is verified before it is used.
    #[arg(
        long,
        hide_short_help = true,
        env = "TRIVY_FERRY_SIGNER_KEY",
        value_name = "FILE",
        requires = "signer"
    )]
    pub signer_key: Option<PathBuf>,
}

/// The trusted keys.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = ACCEPTANCE)]
pub struct TrustFlags {
    /// Trust only this public key, instead of the keys of `trust add`.
    ///
    /// Repeat it for several keys.
    #[arg(long, env = "TRIVY_FERRY_TRUST", value_name = "FILE", value_delimiter = ',')]
    pub trust: Vec<PathBuf>,
}

/// The number of keys that must have signed.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = ACCEPTANCE)]
pub struct SignerFlags {
    /// Require signatures of this many trusted keys, if that is more than `trust require` says.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_MIN_SIGNERS", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SIGNERS)))]
    pub min_signers: Option<u32>,
}

/// The rules of acceptance.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = ACCEPTANCE)]
pub struct AcceptanceFlags {
    /// Accept bundles of this stream only.
    #[arg(long, hide_short_help = true, default_value = "default", env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Stream,
    /// Refuse data older than this, such as 3d or trivy-db=3d,trivy-java-db=14d.
    ///
    /// An age without a name is for trivy-db.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: OverrideFlags,
}

/// The overrides of the rules of acceptance. They have no variables, so that an environment file
/// cannot make them permanent.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = ACCEPTANCE)]
pub struct OverrideFlags {
    /// Accept older data than before. Risk: vulnerabilities found since go unseen.
    #[arg(long, hide_short_help = true)]
    pub allow_rollback: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub time: TimeOverrideFlags,
}

/// The overrides of the rules about time.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = ACCEPTANCE)]
pub struct TimeOverrideFlags {
    /// Accept a bundle dated after this host's clock. Risk: its age cannot be judged.
    #[arg(long, hide_short_help = true)]
    pub allow_future: bool,
    /// Accept a bundle that has expired. Risk: scans use data that is too old.
    #[arg(long, hide_short_help = true)]
    pub allow_expired: bool,
}

/// The files to which settings for Trivy are written. They are also printed.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = SCANNER)]
pub struct SettingsFlags {
    /// Write the settings that keep Trivy offline as environment lines.
    #[arg(long, env = "TRIVY_FERRY_WRITE_ENV", value_name = "FILE")]
    pub write_env: Option<PathBuf>,
    /// Write the settings as DIR/trivy.yaml.
    ///
    /// With --registry, also as Helm values for Trivy's server and operator, and for Harbor's adapter.
    #[arg(long, env = "TRIVY_FERRY_WRITE_CONFIG", value_name = "DIR")]
    pub write_config: Option<PathBuf>,
    /// Let --write-config replace files that trivy-ferry did not write.
    #[arg(long, hide_short_help = true)]
    pub force: bool,
}

/// The Trivy that scans with the data, and its settings.
#[derive(Debug, Clone, Args, Default)]
#[command(next_help_heading = SCANNER)]
pub struct ScannerFlags {
    /// The Trivy version that scans [default: `trivy` on the PATH].
    ///
    /// Without a `trivy` on the PATH, the newest known version.
    #[arg(long, env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Option<TrivyVersion>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
}

/// Registries that are pushed to.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = REGISTRY)]
pub struct RegistryFlags {
    /// Push into this registry, such as harbor.corp.example/security.
    ///
    /// HOST[:PORT][/PREFIX], or DATASET=HOST/PATH[:TAG] for one dataset. Repeat it for several.
    /// Without --cache-dir, no cache is changed.
    #[arg(
        long = "registry",
        value_delimiter = ',',
        env = "TRIVY_FERRY_REGISTRY",
        value_name = "HOST[/PREFIX]"
    )]
    pub places: Vec<RegistryPlace>,
    /// Set this tag too on each dataset that is pushed, such as latest or 2-{date}.
    ///
    /// {date} is the day on which the data was built: 2-{date} becomes 2-2026-11-21.
    #[arg(
        long,
        hide_short_help = true,
        value_delimiter = ',',
        env = "TRIVY_FERRY_EXTRA_TAG",
        value_name = "TAG",
        requires = "places"
    )]
    pub extra_tag: Vec<String>,
    /// Rewrite manifests as image manifests, for a registry that rejects OCI artifacts.
    ///
    /// The manifests get other digests; the layers keep theirs.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_COMPAT", value_parser = switch)]
    pub compat: bool,
    /// Send blobs in chunks of this size, such as 50M; at least 1M.
    ///
    /// Without this option, a blob is sent in one request, and in chunks only if the registry or a proxy answers 413.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_CHUNK_SIZE", value_name = "SIZE", value_parser = chunk_size)]
    pub chunk_size: Option<ByteSize>,
    /// The time limit for a registry to store a blob that it has received [default: 5m].
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_STORE_TIMEOUT", value_name = "TIME")]
    pub store_timeout: Option<Age>,
}

fn chunk_size(text: &str) -> Result<ByteSize, String> {
    ByteSize::at_least(LEAST_CHUNK, text)
}

/// The connection to registries.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = NETWORK)]
pub struct ConnectionFlags {
    /// Log in to the registry as this user [default: Podman's or Docker's login].
    #[arg(long, env = "TRIVY_FERRY_USERNAME", value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password for --username from standard input.
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Accept any certificate of a registry, and plain HTTP if HTTPS does not answer.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_INSECURE", value_parser = switch)]
    pub insecure: bool,
    /// Use plain HTTP for the registry.
    ///
    /// Trivy has no such flag: it needs --insecure for such a registry.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_PLAIN_HTTP", value_parser = switch)]
    pub plain_http: bool,
    /// Trust the certificates in this PEM file too: CAs, or a server's own.
    #[arg(long, env = "TRIVY_FERRY_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Use the client certificate in this PEM file.
    #[arg(long, hide_short_help = true, env = "TRIVY_FERRY_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// The private key of --client-cert, a PEM file [default: in the same file].
    #[arg(
        long,
        hide_short_help = true,
        env = "TRIVY_FERRY_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    pub client_key: Option<PathBuf>,
}
