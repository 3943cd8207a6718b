//! The command line of `export`.

use std::path::PathBuf;

use clap::Args;

use crate::bundle::Stream;
use crate::bundle::parity::Percent;
use crate::cli::args::shared::{Renamed, RetryFlags, SigningFlags, SourceFlags, renamed_to_image, switch};
use crate::collect::images::CarriedImage;
use crate::collect::requirement::Requirement;
use crate::dataset::Name;
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
    pub sources: SourceFlags,
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
    /// Write no bundle without this dataset, or without anything that was asked for (`all`); whatever else a
    /// source does not give is left out, and the exit code is 3 (default: trivy-db).
    #[arg(long, env = "TRIVY_FERRY_REQUIRE", value_name = "DATASET|all", value_delimiter = ',')]
    pub require: Vec<Requirement>,
    /// Sign this dataset although a third of its bytes or entries is gone since the stream's last bundle, it holds
    /// nothing, or Trivy cannot read a third of its VEX documents.
    #[arg(long, env = "TRIVY_FERRY_ACCEPT", value_name = "DATASET", value_delimiter = ',')]
    pub accept: Vec<Name>,
    /// Refuse to sign data older than this: 3d for trivy-db, or trivy-db=3d,trivy-java-db=14d.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Importers refuse the bundle this long after its creation, such as 14d.
    #[arg(long, env = "TRIVY_FERRY_EXPIRES", value_name = "AGE")]
    pub expires: Option<Age>,
    /// Date the bundle by this host's clock although the stream's last one is dated later, because the clock was
    /// fast back then. Importers that accepted the later one need --allow-rollback once.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_EARLIER_DATE", value_parser = switch)]
    pub allow_earlier_date: bool,
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
    /// `unchanged` or `failed`, TRIVY_FERRY_BUNDLE names what was written, and TRIVY_FERRY_MISSING what no
    /// source gave.
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
    pub retry: RetryFlags,
    /// Where this host remembers its last export (default: STATE_DIRECTORY, else
    /// XDG_STATE_HOME/trivy-ferry, which is ~/.local/state/trivy-ferry, else /var/lib/trivy-ferry).
    #[arg(long, env = "TRIVY_FERRY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}
