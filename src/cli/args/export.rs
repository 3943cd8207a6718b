//! The command line of `export`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::bundle::parity::Percent;
use crate::cli::args::heading::{CARRY, CHECKS, DIODE, NETWORK, OUTPUT, RUN, SOURCES};
use crate::cli::args::shared::{Renamed, RetryFlags, SigningFlags, SourceFlags, renamed_to_image, switch};
use crate::collect::images::CarriedImage;
use crate::collect::requirement::Requirement;
use crate::dataset::Name;
use crate::export::options::FullEvery;
use crate::oci::Platform;
use crate::trust::max_age::MaxAge;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// `export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub signing: SigningFlags,
    /// Write to this directory, or to a new file of this name.
    ///
    /// In a directory, the bundle is named STREAM-DATE.tar. Repeat the option for further
    /// directories: they get the volumes that do not fit into the earlier ones.
    #[arg(long, short, help_heading = OUTPUT, env = "TRIVY_FERRY_OUTPUT", value_name = "DIR|FILE")]
    pub output: Vec<PathBuf>,
    /// Split a larger bundle into volumes of this size, such as 1G.
    ///
    /// The volumes are named NAME.tar.000, NAME.tar.001 and so on. Without this option, a bundle of 4 GiB or more is
    /// split on FAT, and one of more than 1 GiB if there are several directories.
    #[arg(long, help_heading = OUTPUT, env = "TRIVY_FERRY_VOLUME_SIZE", value_name = "SIZE")]
    pub volume_size: Option<ByteSize>,
    /// Add recovery data to repair lost or damaged volumes, such as 10%.
    ///
    /// It is written beside the bundle, as NAME.par.001 and so on.
    #[arg(long, help_heading = OUTPUT, env = "TRIVY_FERRY_PARITY", value_name = "PERCENT")]
    pub parity: Option<Percent>,
    /// Read the bundle back from its medium, to find failing or fake media.
    #[arg(long, help_heading = OUTPUT, env = "TRIVY_FERRY_VERIFY_AFTER_WRITE", value_parser = switch)]
    pub verify_after_write: bool,
    /// Put this program beside the bundle, with its digest and a signature.
    ///
    /// Writes trivy-ferry, trivy-ferry.sha256 and trivy-ferry.sha256.sig. The key of the bundle signs the digest; see
    /// docs/install.md.
    #[arg(long, help_heading = OUTPUT, env = "TRIVY_FERRY_WITH_SELF", value_parser = switch)]
    pub with_self: bool,
    /// Carry the databases as differences from earlier bundles of the stream.
    ///
    /// Importers make each database from the version in their cache. An importer that holds none of the last 8 versions,
    /// a registry and a server need a bundle that was written without this option.
    #[arg(long, help_heading = OUTPUT, env = "TRIVY_FERRY_DELTA", value_parser = switch)]
    pub delta: bool,
    /// Carry the databases whole at least this often: an age, or a number of exports.
    #[arg(long, help_heading = OUTPUT, hide_short_help = true, env = "TRIVY_FERRY_FULL_EVERY", value_name = "AGE|NUMBER", default_value = "7d", requires = "delta")]
    pub full_every: FullEvery,
    /// Keep the versions that differences start from here [default: `bases` in the state directory].
    #[arg(long, help_heading = OUTPUT, hide_short_help = true, env = "TRIVY_FERRY_BASE_STORE", value_name = "DIR", requires = "delta")]
    pub base_store: Option<PathBuf>,
    /// Keep only this many bundles of the stream in the directory.
    ///
    /// The newest bundles are kept, and for each dataset the last bundle that holds it. Only
    /// bundles that the same key signed are removed.
    #[arg(long, help_heading = OUTPUT, env = "TRIVY_FERRY_KEEP", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// The stream of the bundle; an importer accepts one stream.
    #[arg(long, help_heading = OUTPUT, hide_short_help = true, default_value = "default", env = "TRIVY_FERRY_STREAM", value_parser = clap::value_parser!(Stream), value_name = "NAME")]
    pub stream: Stream,
    /// Carry this VEX repository: NAME=URL or NAME=DIR [default: VEX Hub].
    ///
    /// The URL is the one in Trivy's repository.yaml. `default` means VEX Hub.
    #[arg(
        long,
        help_heading = CARRY,
        env = "TRIVY_FERRY_VEX",
        value_name = "NAME=SOURCE",
        value_delimiter = ','
    )]
    pub vex: Vec<String>,
    /// Carry this image or artifact too, such as aquasec/trivy:0.74.0.
    ///
    /// HOST/REPOSITORY:TAG, or NAME=SOURCE. NAME=SOURCE is for an image that the source has under
    /// another name, such as NAME=oci-layout:DIR:TAG. On the other side, images are pushed into a
    /// registry.
    #[arg(
        long,
        help_heading = CARRY,
        env = "TRIVY_FERRY_IMAGE",
        value_name = "IMAGE",
        value_delimiter = ','
    )]
    pub image: Vec<CarriedImage>,
    #[arg(long, env = "TRIVY_FERRY_ALSO", hide = true, value_parser = renamed_to_image)]
    #[allow(missing_docs)]
    pub also: Option<Renamed>,
    /// Carry images for this platform only, such as linux/amd64 [default: all].
    #[arg(long, help_heading = CARRY, hide_short_help = true, env = "TRIVY_FERRY_PLATFORM", value_name = "OS/ARCH", requires = "image")]
    pub platform: Option<Platform>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sources: SourceFlags,
    /// Sign only data on which this many independent registries agree.
    ///
    /// They agree if they have the same layers. VEX repositories and images have one source each and are not covered.
    #[arg(long, help_heading = SOURCES, hide_short_help = true, env = "TRIVY_FERRY_QUORUM", value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub quorum: u32,
    /// Wait this long for registries that lag behind, such as 30m.
    #[arg(long, help_heading = SOURCES, hide_short_help = true, env = "TRIVY_FERRY_QUORUM_WAIT", value_name = "TIME")]
    pub quorum_wait: Option<Age>,
    /// Write no bundle without this dataset, or `all` [default: trivy-db].
    ///
    /// Any other dataset that no source provides is missing from the bundle, and the exit code is 3.
    #[arg(long, help_heading = CHECKS, env = "TRIVY_FERRY_REQUIRE", value_name = "DATASET|all", value_delimiter = ',')]
    pub require: Vec<Requirement>,
    /// Refuse to sign data older than this, such as 3d.
    ///
    /// Or for each dataset: trivy-db=3d,trivy-java-db=14d.
    /// An age without a name is for trivy-db.
    #[arg(long, help_heading = CHECKS, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Let importers refuse the bundle after this time, such as 14d.
    #[arg(long, help_heading = CHECKS, env = "TRIVY_FERRY_EXPIRES", value_name = "AGE")]
    pub expires: Option<Age>,
    /// Sign this dataset although it shrank or is broken. Risk: vulnerabilities go unseen.
    ///
    /// Without this option, a dataset is refused if it is empty, if it lost 1/3 of its bytes or
    /// entries since the stream's last bundle, or if Trivy cannot read 1/3 of its VEX documents.
    #[arg(long, help_heading = CHECKS, hide_short_help = true, value_name = "DATASET", value_delimiter = ',')]
    pub accept: Vec<Name>,
    /// Sign although the stream's last bundle is dated later, because the clock was fast.
    ///
    /// Importers that accepted the later bundle need `import --allow-rollback` once.
    #[arg(long, help_heading = CHECKS, hide_short_help = true)]
    pub allow_earlier_date: bool,
    /// Write nothing if the sources have nothing new for the stream.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_IF_CHANGED", value_parser = switch)]
    pub if_changed: bool,
    /// Print the data to collect, with its sources and sizes; write nothing.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_DRY_RUN", value_parser = switch)]
    pub dry_run: bool,
    /// Run this shell command at the end, whatever the result is.
    ///
    /// TRIVY_FERRY_RESULT is `written`, `unchanged` or `failed`, TRIVY_FERRY_BUNDLE names the bundle, and
    /// TRIVY_FERRY_MISSING the datasets that no source provided.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_EXEC_AFTER", value_name = "COMMAND")]
    pub exec_after: Option<String>,
    /// Keep the record of exports here.
    ///
    /// Default: $STATE_DIRECTORY, else trivy-ferry in $XDG_STATE_HOME or ~/.local/state (not for root), else
    /// /var/lib/trivy-ferry.
    #[arg(long, help_heading = RUN, hide_short_help = true, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Copy the bundle into this directory, from which a diode sends files.
    ///
    /// Each file has a hidden name until it is complete, and the head volume is written last.
    #[arg(long = "drop", help_heading = DIODE, env = "TRIVY_FERRY_DROP", value_name = "DIR", requires = "output")]
    pub drop_into: Option<PathBuf>,
    /// Send the last NUMBER bundles with each export.
    ///
    /// Each bundle is sent NUMBER times this way. --keep must keep that many.
    #[arg(long, help_heading = DIODE, env = "TRIVY_FERRY_REPEAT", value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// Write a signed heartbeat at each run.
    ///
    /// It is written even if nothing is new or a source fails. With it, `status` on the other side
    /// distinguishes a broken link from an upstream without new data. It is written to --drop, or
    /// else to --output.
    #[arg(long, help_heading = DIODE, env = "TRIVY_FERRY_HEARTBEAT", value_parser = switch, requires = "output")]
    pub heartbeat: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub retry: RetryFlags,
    /// Accept any TLS certificate, and plain HTTP if HTTPS does not answer.
    #[arg(long, help_heading = NETWORK, hide_short_help = true, env = "TRIVY_FERRY_INSECURE", value_parser = switch)]
    pub insecure: bool,
    /// Use plain HTTP for registries.
    #[arg(long, help_heading = NETWORK, hide_short_help = true, env = "TRIVY_FERRY_PLAIN_HTTP", value_parser = switch)]
    pub plain_http: bool,
    /// Trust the certificates in this PEM file too, such as a proxy's CA.
    #[arg(long, help_heading = NETWORK, env = "TRIVY_FERRY_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Use the client certificate in this PEM file, for every host that asks for one.
    #[arg(long, help_heading = NETWORK, hide_short_help = true, env = "TRIVY_FERRY_CLIENT_CERT", value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// The private key of --client-cert, a PEM file [default: in the same file].
    #[arg(long, help_heading = NETWORK, hide_short_help = true, env = "TRIVY_FERRY_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}
