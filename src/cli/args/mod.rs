//! The command line: every verb with its flags. Parses and nothing else.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    reason = "a doc comment of a flag is its help text, not Markdown"
)]

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

mod import;
mod mirror;
mod serve;
mod status;
mod watch;

use crate::bundle::Stream;
use crate::bundle::parity::Percent;
use crate::collect::images::CarriedImage;
use crate::collect::options::SourceOptions;
use crate::collect::registry_mirror::RegistryMirror;
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Name, Selection};
use crate::delivery::options::{AcceptanceOptions, SettingsOptions};
use crate::oci::Platform;
use crate::source::patience::{Limits, RETRIES, STALL};
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

pub use import::{Connection, Import, ImportBundles, Layout, RegistryFlags};
pub use mirror::Mirror;
pub use serve::Serve;
pub use status::Status;
pub use watch::Watch;

const STYLES: Styles =
    Styles::styled().header(AnsiColor::Green.on_default()).usage(AnsiColor::Green.on_default());

/// Carries what Trivy downloads to hosts without internet, in one signed bundle.
///
/// On the connected side, `export` collects trivy-db, trivy-java-db, trivy-checks and VEX Hub into
/// one signed file. On the air-gapped side, `import` verifies it and puts it into Trivy's cache, a
/// registry or a web root; `serve` hands it out where there is neither. Where one host reaches both
/// sides, `mirror` needs no bundle. `trivy-ferry rehearse` shows the whole trip on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "trivy-ferry",
    version,
    styles = STYLES,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 unexpected, 2 usage or set-up, 3 a source failed, 4 verification failed,\n5 refused by policy, 6 incomplete, 7 a target failed."
)]
pub struct Cli {
    /// How results are printed: `text` for people, `json` for programs.
    #[arg(
        long,
        global = true,
        display_order = 1000,
        value_enum,
        default_value_t,
        env = "TRIVY_FERRY_FORMAT",
        value_name = "FORMAT"
    )]
    pub format: Format,

    /// How progress, remarks and errors are written to stderr: `text`, or a line of `json` each for a log.
    #[arg(
        long,
        global = true,
        display_order = 1000,
        value_enum,
        default_value_t,
        env = "TRIVY_FERRY_LOG_FORMAT",
        value_name = "FORMAT"
    )]
    pub log_format: Format,

    /// No progress and no remarks on stderr, only errors; the result still goes to stdout.
    #[arg(long, short, global = true, display_order = 1000, env = "TRIVY_FERRY_QUIET", value_parser = switch)]
    pub quiet: bool,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The value of a flag that has another name now: there is none.
#[derive(Debug, Clone)]
pub enum Renamed {}

/// A flag or a variable that nobody reads any more must not be passed over: images would stay behind.
pub(crate) fn renamed_to_image(_: &str) -> Result<Renamed, String> {
    Err("it is --image now, and TRIVY_FERRY_IMAGE in the environment".into())
}

/// The value of a switch, as an environment variable gives it. A word that is neither must not pass
/// for a yes.
fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a key pair: NAME.key signs bundles, NAME.pub goes to every importing host.
    ///
    /// Both are PEM files that openssl reads. The fingerprint that is printed is to be compared on
    /// the importing hosts over another channel than the one by which NAME.pub travels.
    Keygen(Keygen),
    /// Say which exporters this host trusts.
    ///
    /// A bundle is accepted only with the signature of a trusted key. The keys lie as NAME.pub in
    /// /etc/trivy-ferry/trusted and in the user's own XDG_CONFIG_HOME/trivy-ferry/trusted; `add`
    /// takes the first for root, and the second for everybody else.
    #[command(subcommand)]
    Trust(Trust),
    /// Collect Trivy's data into one signed bundle.
    ///
    /// Every dataset is checked as Trivy would read it before it is signed. The bundle is written
    /// straight to its destination, and gets its name only when it is signed and synced.
    Export(Export),
    /// Add a signature to a bundle that a trusted key has signed.
    ///
    /// For two who must agree, or while one key follows another: importers accept what any key has
    /// signed that they trust. Every byte is checked first; nothing else of the bundle changes.
    Sign(Sign),
    /// Check a bundle as import would, changing nothing.
    ///
    /// Signature, every member, and the unpacked content. Only import knows what this host has
    /// accepted before, and whether a bundle is older than that.
    Verify(Verify),
    /// Show what is in a bundle, how old it is, and who signed it.
    ///
    /// Shows what nobody here trusts as well, and says so. Only `verify` and `import` look at the
    /// content.
    Inspect(Inspect),
    /// Make what is missing or damaged of a bundle again, from the parity beside it.
    ///
    /// The files that are made take their place only when every byte of the bundle was found to be what a
    /// trusted key signed. `import` does the same for itself, without changing the medium.
    Repair(Repair),
    /// Verify a bundle and put its data into Trivy's cache, registries or a web root.
    ///
    /// The old data stays in place until all of the new was found good, and is kept for --restore.
    /// To import the same bundle again is no error, and brings back what is missing. Prints the
    /// settings with which Trivy asks no network.
    Import(ImportBundles),
    /// Import whatever comes into a folder, unattended.
    ///
    /// For the far end of a diode, a share, or a folder into which sticks are copied. Bundles, volumes and
    /// parity may come in any order, more than once, or not at all. What is whole, by what its signed manifest
    /// says, is imported as `import` does it; what parity can make whole is made whole.
    Watch(Watch),
    /// Say how old the data in use is, what came last, and whether it is still there.
    ///
    /// For people and, by exit code, for monitoring: 5 where something has expired or is older than --max-age,
    /// 7 where a target does not hold what was imported.
    Status(Status),
    /// Serve a bundle as a read-only registry, and its VEX repositories as files.
    ///
    /// For a site that has no registry: straight out of the bundle, of which every piece is compared
    /// again with what was verified before it is sent. Ends at SIGTERM or Ctrl-C.
    Serve(Serve),
    /// Bring Trivy's data from its sources straight into registries.
    ///
    /// For a host that reaches both: a DMZ, a cloud. Checks the data as an export does while it passes,
    /// keeps nothing of it, and sets a tag only when all under it is in place and good. What a registry
    /// has already is not fetched again. VEX repositories are not mirrored: Trivy fetches them over HTTP,
    /// not from registries.
    Mirror(Mirror),
    /// The whole trip on this machine, with sample data and no network.
    Rehearse(Rehearse),
    /// Print completions for a shell.
    ///
    /// Such as, in ~/.bashrc: source <(trivy-ferry completions bash)
    Completions(Completions),
    /// Write the manual pages: one for the program, and one for each verb.
    Man(Man),
}

/// `keygen`
#[derive(Debug, Args)]
pub struct Keygen {
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
pub enum Trust {
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
pub struct Sources {
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

/// How long a run keeps on where the network fails.
#[derive(Debug, Clone, Args)]
pub struct Persistence {
    /// How often in a row a server is asked again after a failure that may pass, after ever longer pauses
    /// or when it says; then the next source is asked.
    #[arg(long, env = "TRIVY_FERRY_RETRIES", default_value_t = RETRIES, value_name = "NUMBER")]
    pub retries: u32,
    /// Give up after this time, such as 2h.
    #[arg(long, env = "TRIVY_FERRY_DEADLINE", value_name = "TIME")]
    pub deadline: Option<Age>,
    /// Take a server for dead that sends nothing for so long (default: 60s).
    #[arg(long, env = "TRIVY_FERRY_STALL_TIMEOUT", value_name = "TIME")]
    pub stall_timeout: Option<Age>,
}

impl Default for Persistence {
    fn default() -> Self {
        Persistence { retries: RETRIES, deadline: None, stall_timeout: None }
    }
}

impl From<&Persistence> for Limits {
    fn from(flags: &Persistence) -> Self {
        Limits {
            retries: flags.retries,
            deadline: flags.deadline.map(|age| age.duration().unsigned_abs()),
            stall: flags.stall_timeout.map_or(STALL, |age| age.duration().unsigned_abs()),
        }
    }
}

impl From<&Sources> for SourceOptions {
    fn from(flags: &Sources) -> Self {
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

impl From<&Acceptance> for AcceptanceOptions {
    fn from(flags: &Acceptance) -> Self {
        AcceptanceOptions {
            stream: flags.stream.clone(),
            max_age: flags.max_age.clone(),
            allow_rollback: flags.overrides.allow_rollback,
            allow_future: flags.overrides.time.allow_future,
            allow_expired: flags.overrides.time.allow_expired,
        }
    }
}

impl From<&WriteSettings> for SettingsOptions {
    fn from(flags: &WriteSettings) -> Self {
        SettingsOptions {
            write_env: flags.write_env.clone(),
            write_config: flags.write_config.clone(),
            force: flags.force,
        }
    }
}

/// What signs.
#[derive(Debug, Clone, Args, Default)]
pub struct Signing {
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

/// `export`
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signing: Signing,
    /// Where to write: a folder (the file is named STREAM-DATE.tar), or a new file's name. Given again, the
    /// next folder takes the volumes for which the one before has no room.
    #[arg(long, short, env = "TRIVY_FERRY_OUTPUT", value_name = "DIR|FILE")]
    pub output: Vec<PathBuf>,
    /// Split a larger bundle into volumes of this size, such as 1G: NAME.tar.000, NAME.tar.001 and so on.
    /// Without it, one of 4 GiB or more is split on FAT, and one of more than 1 GiB with several folders.
    #[arg(long, env = "TRIVY_FERRY_VOLUME_SIZE", value_name = "SIZE")]
    pub volume_size: Option<ByteSize>,
    /// Write so much parity beside the bundle, such as 10%: NAME.par.001 and so on. From it, volumes that were
    /// lost and ranges that were damaged are made again on the other side, as far as it goes.
    #[arg(long, env = "TRIVY_FERRY_PARITY", value_name = "PERCENT")]
    pub parity: Option<Percent>,
    /// The stream that the bundle belongs to; an importer accepts one stream.
    #[arg(long, default_value = "default", env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Stream,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sources: Sources,
    /// A VEX repository: NAME=URL as in Trivy's repository.yaml, or NAME=DIR. `default` is VEX Hub.
    #[arg(
        long,
        env = "TRIVY_FERRY_VEX",
        hide_env_values = true,
        value_name = "NAME=SOURCE",
        value_delimiter = ','
    )]
    pub vex: Vec<String>,
    /// Take this image or artifact along, for a registry on the other side: HOST/REPOSITORY:TAG, or
    /// NAME=SOURCE where SOURCE has it under another name, such as NAME=oci-layout:DIR:TAG.
    #[arg(
        long,
        env = "TRIVY_FERRY_IMAGE",
        hide_env_values = true,
        value_name = "IMAGE",
        value_delimiter = ','
    )]
    pub image: Vec<CarriedImage>,
    #[arg(long, env = "TRIVY_FERRY_ALSO", hide = true, value_parser = renamed_to_image)]
    #[allow(missing_docs)]
    pub also: Option<Renamed>,
    /// Of each such image only what is for this platform, such as linux/amd64 (default: all of it).
    #[arg(long, env = "TRIVY_FERRY_PLATFORM", value_name = "OS/ARCH", requires = "image")]
    pub platform: Option<Platform>,
    /// Refuse to sign data older than this: 3d for trivy-db, or trivy-db=3d,trivy-java-db=14d.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Importers refuse the bundle this long after its creation, such as 14d.
    #[arg(long, env = "TRIVY_FERRY_EXPIRES", value_name = "AGE")]
    pub expires: Option<Age>,
    /// Sign only what so many registries of different origin name alike: the same layers. VEX repositories
    /// and images have one source each, and are not covered.
    #[arg(long, env = "TRIVY_FERRY_QUORUM", value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub quorum: u32,
    /// Wait so long for registries that lag behind, such as 30m, before the quorum is missed.
    #[arg(long, env = "TRIVY_FERRY_QUORUM_WAIT", value_name = "TIME")]
    pub quorum_wait: Option<Age>,
    /// Write nothing where upstream has nothing that this stream's last bundle lacks; this is success.
    #[arg(long, env = "TRIVY_FERRY_IF_CHANGED", value_parser = switch)]
    pub if_changed: bool,
    /// Read the bundle back from its medium before it gets its name, to find a stick that fails or lies.
    #[arg(long, env = "TRIVY_FERRY_VERIFY_AFTER_WRITE", value_parser = switch)]
    pub verify_after_write: bool,
    /// Of this stream's bundles in the folder keep the newest so many, and the last of every dataset.
    #[arg(long, env = "TRIVY_FERRY_KEEP", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Then put a copy into this folder, from which a diode or a gateway takes what it finds: under a hidden name
    /// first, the head last.
    #[arg(long = "drop", env = "TRIVY_FERRY_DROP", value_name = "DIR", requires = "output")]
    pub drop_into: Option<PathBuf>,
    /// Put the newest so many bundles of the stream into --drop, so that each is sent as often; --keep must keep
    /// them.
    #[arg(long, env = "TRIVY_FERRY_REPEAT", value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Put a small signed file beside the bundles at each run, also where nothing is new or a source fails, so that
    /// the other side can tell a broken way from a quiet upstream: into --drop, or else into --output.
    #[arg(long, env = "TRIVY_FERRY_HEARTBEAT", value_parser = switch, requires = "output")]
    pub heartbeat: bool,
    /// Run this shell command at the end, whatever the end is: TRIVY_FERRY_RESULT is `written`,
    /// `unchanged` or `failed`, and TRIVY_FERRY_BUNDLE names what was written.
    #[arg(long, env = "TRIVY_FERRY_EXEC_AFTER", value_name = "COMMAND")]
    pub exec_after: Option<String>,
    /// Say what would be collected, from where and how large, and write nothing.
    #[arg(long, env = "TRIVY_FERRY_DRY_RUN", value_parser = switch)]
    pub dry_run: bool,
    /// Accept any TLS certificate, and plain HTTP where HTTPS does not answer.
    #[arg(long, env = "TRIVY_FERRY_INSECURE", value_parser = switch)]
    pub insecure: bool,
    /// Speak plain HTTP to registries. Trivy has no such flag: it needs --insecure for them.
    #[arg(long, env = "TRIVY_FERRY_PLAIN_HTTP", value_parser = switch)]
    pub plain_http: bool,
    /// A PEM file with further certificate authorities, such as a proxy's.
    #[arg(long, env = "TRIVY_FERRY_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// A PEM file with a client certificate and its key, for every host that asks for one.
    #[arg(long, env = "TRIVY_FERRY_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub persistence: Persistence,
    /// Where this host remembers its last export (default: STATE_DIRECTORY, else
    /// XDG_STATE_HOME/trivy-ferry, which is ~/.local/state/trivy-ferry, else /var/lib/trivy-ferry).
    #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Which keys are trusted.
#[derive(Debug, Clone, Args, Default)]
pub struct TrustedKeys {
    /// Trust this public key, and not the keys that `trust add` keeps.
    #[arg(long, env = "TRIVY_FERRY_TRUST", value_name = "FILE", value_delimiter = ',')]
    pub trust: Vec<PathBuf>,
}

/// What is accepted.
#[derive(Debug, Clone, Args)]
pub struct Acceptance {
    /// The stream that is accepted.
    #[arg(long, default_value = "default", env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Stream,
    /// Refuse data older than this: 3d for trivy-db, or trivy-db=3d,trivy-java-db=14d.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub overrides: Overrides,
}

/// What is accepted against the rules.
#[derive(Debug, Clone, Args, Default)]
pub struct Overrides {
    /// Accept a bundle or dataset older than the last one. Risk: new vulnerabilities go unseen.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_ROLLBACK", value_parser = switch)]
    pub allow_rollback: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub time: TimeOverrides,
}

/// What is accepted against the rules about time.
#[derive(Debug, Clone, Args, Default)]
pub struct TimeOverrides {
    /// Accept a bundle created after this host's clock. Risk: its age cannot be judged.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_FUTURE", value_parser = switch)]
    pub allow_future: bool,
    /// Accept a bundle past its exporter's date. Risk: the data is too old.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_EXPIRED", value_parser = switch)]
    pub allow_expired: bool,
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

/// Where settings for Trivy are written, beside being printed.
#[derive(Debug, Clone, Args, Default)]
pub struct WriteSettings {
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

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// The folder for the pages, which is made where it is missing, such as
    /// /usr/local/share/man/man1.
    pub dir: PathBuf,
}

/// `rehearse`
#[derive(Debug, Args)]
pub struct Rehearse {
    /// Keep everything that the rehearsal made in this new folder.
    #[arg(long, env = "TRIVY_FERRY_REHEARSE_KEEP", value_name = "DIR")]
    pub keep: Option<PathBuf>,
}
