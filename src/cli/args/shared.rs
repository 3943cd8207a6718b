//! Flags that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
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

/// The value of a flag that has another name now: there is none.
#[derive(Debug, Clone)]
pub enum Renamed {}

/// A flag or a variable that nobody reads any more must not be passed over: images would stay behind.
pub(crate) fn renamed_to_image(_: &str) -> Result<Renamed, String> {
    Err("it is --image now, and TRIVY_FERRY_IMAGE in the environment".into())
}

/// The value of a switch, as an environment variable gives it. A word that is neither must not pass
/// for a yes.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// Which datasets.
#[derive(Debug, Clone, Args, Default)]
pub struct SelectionFlags {
    /// Only these datasets: trivy-db, trivy-java-db, trivy-checks, vex-hub, vex-NAME.
    #[arg(long, value_delimiter = ',', env = "TRIVY_FERRY_ONLY", value_name = "DATASET")]
    pub only: Vec<Name>,
    /// All but these datasets.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_SKIP",
        value_name = "DATASET",
        conflicts_with = "only"
    )]
    pub skip: Vec<Name>,
}

/// Which of Trivy's datasets are fetched, and from where.
#[derive(Debug, Clone, Args, Default)]
pub struct SourceFlags {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub selection: SelectionFlags,
    /// Where trivy-db is fetched from, as HOST/REPOSITORY[:TAG] or oci-layout:DIR:TAG (default: as
    /// Trivy has it). Of several, the first that answers is used.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_DB_REPOSITORY",
        hide_env_values = true,
        value_name = "REPOSITORY"
    )]
    pub db_repository: Vec<String>,
    /// Where trivy-java-db is fetched from, likewise.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_JAVA_DB_REPOSITORY",
        hide_env_values = true,
        value_name = "REPOSITORY"
    )]
    pub java_db_repository: Vec<String>,
    /// Where trivy-checks is fetched from, likewise. A tag here overrides --trivy-version.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_CHECKS_BUNDLE_REPOSITORY",
        hide_env_values = true,
        value_name = "REPOSITORY"
    )]
    pub checks_bundle_repository: Vec<String>,
    /// Ask this mirror, a pull-through cache, before the registry that it mirrors:
    /// ghcr.io=harbor.corp.example/ghcr.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_REGISTRY_MIRROR",
        hide_env_values = true,
        value_name = "HOST=MIRROR"
    )]
    pub registry_mirror: Vec<RegistryMirror>,
    /// The Trivy versions on the other side: every checks bundle that they want is carried.
    #[arg(long, value_delimiter = ',', env = "TRIVY_FERRY_TRIVY_VERSION", value_name = "VERSION")]
    pub trivy_version: Vec<TrivyVersion>,
}

impl From<&SelectionFlags> for Selection {
    fn from(flags: &SelectionFlags) -> Self {
        Selection { only: flags.only.clone(), skip: flags.skip.clone() }
    }
}

/// How long a run retries if the network fails.
#[derive(Debug, Clone, Args)]
pub struct RetryFlags {
    /// How often in a row a server is asked again after a failure that may pass, after ever longer pauses
    /// or when it says; then the next source is asked, or the target has failed.
    #[arg(long, env = "TRIVY_FERRY_RETRIES", default_value_t = RETRIES, value_name = "NUMBER")]
    pub retries: u32,
    /// Give up after this time, such as 2h.
    #[arg(long, env = "TRIVY_FERRY_DEADLINE", value_name = "TIME")]
    pub deadline: Option<Age>,
    /// Take a server for dead that sends nothing for so long (default: 60s).
    #[arg(long, env = "TRIVY_FERRY_STALL_TIMEOUT", value_name = "TIME")]
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

/// What signs.
#[derive(Debug, Clone, Args, Default)]
pub struct SigningFlags {
    /// The private key to sign with, as `trivy-ferry keygen` makes it.
    #[arg(long, env = "TRIVY_FERRY_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The file whose first line is the private key's passphrase, also /dev/fd/N (else asked on the
    /// terminal).
    #[arg(long, env = "TRIVY_FERRY_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Have this shell command sign, where the key is in an HSM: what is to be signed is its input and the
    /// file that TRIVY_FERRY_PAE names, and it prints the 64 bytes of an Ed25519 signature.
    #[arg(
        long,
        env = "TRIVY_FERRY_SIGNER",
        value_name = "COMMAND",
        requires = "signer_key",
        conflicts_with_all = ["key", "passphrase_file"]
    )]
    pub signer: Option<String>,
    /// The public key of that command, by which its signature is checked before it is used.
    #[arg(long, env = "TRIVY_FERRY_SIGNER_KEY", value_name = "FILE", requires = "signer")]
    pub signer_key: Option<PathBuf>,
}

/// Which keys are trusted.
#[derive(Debug, Clone, Args, Default)]
pub struct TrustFlags {
    /// Trust this public key, and not the keys that `trust add` keeps.
    #[arg(long, env = "TRIVY_FERRY_TRUST", value_name = "FILE", value_delimiter = ',')]
    pub trust: Vec<PathBuf>,
}

/// How many keys must have signed.
#[derive(Debug, Clone, Args, Default)]
pub struct SignerFlags {
    /// Accept only what so many different trusted keys have signed, if that is more than `trust require` says.
    #[arg(long, env = "TRIVY_FERRY_MIN_SIGNERS", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SIGNERS)))]
    pub min_signers: Option<u32>,
}

/// What is accepted.
#[derive(Debug, Clone, Args)]
pub struct AcceptanceFlags {
    /// The stream that is accepted.
    #[arg(long, default_value = "default", env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Stream,
    /// Refuse data older than this: 3d for trivy-db, or trivy-db=3d,trivy-java-db=14d.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: OverrideFlags,
}

/// What is accepted against the rules.
#[derive(Debug, Clone, Args, Default)]
pub struct OverrideFlags {
    /// Accept a bundle or dataset older than the last one. Risk: new vulnerabilities go unseen.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_ROLLBACK", value_parser = switch)]
    pub allow_rollback: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub time: TimeOverrideFlags,
}

/// What is accepted against the rules about time.
#[derive(Debug, Clone, Args, Default)]
pub struct TimeOverrideFlags {
    /// Accept a bundle created after this host's clock. Risk: its age cannot be judged.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_FUTURE", value_parser = switch)]
    pub allow_future: bool,
    /// Accept a bundle past its exporter's date. Risk: the data is too old.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_EXPIRED", value_parser = switch)]
    pub allow_expired: bool,
}

/// Where settings for Trivy are written, beside being printed.
#[derive(Debug, Clone, Args, Default)]
pub struct SettingsFlags {
    /// Write the settings that keep Trivy offline as environment lines, for systemd or GitLab.
    #[arg(long, env = "TRIVY_FERRY_WRITE_ENV", value_name = "FILE")]
    pub write_env: Option<PathBuf>,
    /// Write the settings as DIR/trivy.yaml; with --registry also Helm values and Harbor's environment.
    #[arg(long, env = "TRIVY_FERRY_WRITE_CONFIG", value_name = "DIR")]
    pub write_config: Option<PathBuf>,
    /// Let --write-config overwrite files that are not ours.
    #[arg(long, env = "TRIVY_FERRY_FORCE", value_parser = switch)]
    pub force: bool,
}

/// Registries that are pushed to.
#[derive(Debug, Args, Default)]
pub struct RegistryFlags {
    /// Push into this registry: HOST[:PORT][/PREFIX] for all datasets, or DATASET=HOST/PATH[:TAG] for
    /// one. Without --cache-dir, no cache is touched.
    #[arg(
        long = "registry",
        value_delimiter = ',',
        env = "TRIVY_FERRY_REGISTRY",
        hide_env_values = true,
        value_name = "HOST[/PREFIX]"
    )]
    pub places: Vec<RegistryPlace>,
    /// A further tag for each dataset that is pushed, such as latest. {date} in it is the day on which the
    /// data was built: 2-{date} becomes 2-2026-11-21.
    #[arg(
        long,
        value_delimiter = ',',
        env = "TRIVY_FERRY_EXTRA_TAG",
        value_name = "TAG",
        requires = "places"
    )]
    pub extra_tag: Vec<String>,
    /// Rewrite manifests for a registry that refuses upstream's: an image's configuration, no
    /// artifactType; also of images. The layers keep their digests.
    #[arg(long, env = "TRIVY_FERRY_COMPAT", value_parser = switch)]
    pub compat: bool,
    /// Send blobs in chunks of this size, such as 50M, and at least 1M (default: whole, and in chunks if a registry
    /// or a proxy refuses that).
    #[arg(long, env = "TRIVY_FERRY_CHUNK_SIZE", value_name = "SIZE", value_parser = chunk_size)]
    pub chunk_size: Option<ByteSize>,
    /// How long a registry may take to store a blob that it has received whole (default: 5m).
    #[arg(long, env = "TRIVY_FERRY_STORE_TIMEOUT", value_name = "TIME")]
    pub store_timeout: Option<Age>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
}

fn chunk_size(text: &str) -> Result<ByteSize, String> {
    ByteSize::at_least(LEAST_CHUNK, text)
}

/// How registries are reached.
#[derive(Debug, Args, Default)]
pub struct ConnectionFlags {
    /// The name to log in to the registry with (default: what `docker login` or `podman login` keeps).
    #[arg(long, env = "TRIVY_FERRY_USERNAME", value_name = "NAME", requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password for --username from standard input.
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Accept any certificate of a registry, and plain HTTP where HTTPS does not answer.
    #[arg(long, env = "TRIVY_FERRY_INSECURE", value_parser = switch)]
    pub insecure: bool,
    /// Speak plain HTTP to the registry. Trivy has no such flag: it needs --insecure for it.
    #[arg(long, env = "TRIVY_FERRY_PLAIN_HTTP", value_parser = switch)]
    pub plain_http: bool,
    /// A PEM file with further certificate authorities.
    #[arg(long, env = "TRIVY_FERRY_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// A PEM file with a client certificate and its key.
    #[arg(long, env = "TRIVY_FERRY_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
}
