//! The command line: every verb with its flags. Parses and nothing else.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    reason = "a doc comment of a flag is its help text, not Markdown"
)]

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::args::shared::switch;

mod bundle;
mod export;
mod import;
mod keys;
mod mirror;
mod serve;
mod settings;
mod shared;
mod status;
mod watch;

pub use bundle::{InspectArgs, RepairArgs, SignArgs, VerifyArgs};
pub use export::ExportArgs;
pub use import::{DeliveryFlags, ImportArgs, Layout};
pub use keys::{KeygenArgs, TrustCommand};
pub use mirror::MirrorArgs;
pub use serve::ServeArgs;
pub use settings::SettingsArgs;
pub use shared::{
    AcceptanceFlags, ConnectionFlags, OverrideFlags, RegistryFlags, Renamed, RetryFlags, SelectionFlags,
    SettingsFlags, SignerFlags, SigningFlags, SourceFlags, TimeOverrideFlags, TrustFlags,
};
pub use status::{ForgetArgs, StatusArgs};
pub use watch::WatchArgs;

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
    pub command: Command,
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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key pair: NAME.key signs bundles, NAME.pub goes to every importing host.
    ///
    /// Both are PEM files that openssl reads. The fingerprint that is printed is to be compared on
    /// the importing hosts over another channel than the one by which NAME.pub travels.
    Keygen(KeygenArgs),
    /// Say which exporters this host trusts.
    ///
    /// A bundle is accepted only with the signature of a trusted key. The keys lie as NAME.pub in
    /// /etc/trivy-ferry/trusted and in the user's own XDG_CONFIG_HOME/trivy-ferry/trusted; `add`
    /// takes the first for root, and the second for everybody else.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Collect Trivy's data into one signed bundle.
    ///
    /// Every dataset is checked as Trivy would read it before it is signed. The bundle is written
    /// straight to its destination, and gets its name only when it is signed and synced.
    Export(ExportArgs),
    /// Add a signature to a bundle that a trusted key has signed.
    ///
    /// For two who must agree, or while one key follows another: importers accept what any key has
    /// signed that they trust. Every byte is checked first; nothing else of the bundle changes.
    Sign(SignArgs),
    /// Check a bundle as import would, changing nothing.
    ///
    /// Signature, every member, and the unpacked content. Only import knows what this host has
    /// accepted before, and whether a bundle is older than that.
    Verify(VerifyArgs),
    /// Show what is in a bundle, how old it is, and who signed it.
    ///
    /// Shows what nobody here trusts as well, and says so. Only `verify` and `import` look at the
    /// content.
    Inspect(InspectArgs),
    /// Make what is missing or damaged of a bundle again, from the parity beside it.
    ///
    /// The files that are made take their place only when every byte of the bundle was found to be what a
    /// trusted key signed. `import` does the same for itself, without changing the medium.
    Repair(RepairArgs),
    /// Verify a bundle and put its data into Trivy's cache, registries or a web root.
    ///
    /// The old data stays in place until all of the new was found good, and is kept for --restore.
    /// To import the same bundle again is no error, and brings back what is missing. Prints the
    /// settings with which Trivy asks no network.
    Import(ImportArgs),
    /// Import whatever comes into a folder, unattended.
    ///
    /// For the far end of a diode, a share, or a folder into which sticks are copied. Bundles, volumes and
    /// parity may come in any order, more than once, or not at all. What is whole, by what its signed manifest
    /// says, is imported as `import` does it; what parity can make whole is made whole.
    Watch(WatchArgs),
    /// Say how old the data in use is, what came last, and whether it is still there.
    ///
    /// For people and, by exit code, for monitoring: 5 where something has expired or is older than --max-age,
    /// 7 where a target does not hold what was imported.
    Status(StatusArgs),
    /// Retire a target that no run uses any more: a cache that was deleted, a registry that is gone.
    ///
    /// `status`, metrics and alarms no longer count it. What it accepted stays in the state: a run that
    /// works on it again is judged by that, and brings it back.
    Forget(ForgetArgs),
    /// Print again with which settings Trivy uses what was imported, and asks no network.
    ///
    /// Looks at what is in a cache, a registry (also one that `serve` is) or a web root now; imports and changes
    /// nothing.
    Settings(SettingsArgs),
    /// Serve a bundle as a read-only registry, and its VEX repositories as files.
    ///
    /// For a site that has no registry: straight out of the bundle, of which every piece is compared
    /// again with what was verified before it is sent. Ends at SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Bring Trivy's data from its sources straight into registries.
    ///
    /// For a host that reaches both: a DMZ, a cloud. Checks the data as an export does while it passes,
    /// keeps nothing of it, and sets a tag only when all under it is in place and good. What a registry
    /// has already is not fetched again. VEX repositories are not mirrored: Trivy fetches them over HTTP,
    /// not from registries.
    Mirror(MirrorArgs),
    /// The whole trip on this machine, with sample data and no network.
    Rehearse(RehearseArgs),
    /// Print completions for a shell.
    ///
    /// Such as, in ~/.bashrc: source <(trivy-ferry completions bash)
    Completions(CompletionsArgs),
    /// Write the manual pages: one for the program, and one for each verb.
    Man(ManArgs),
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder for the pages, which is made where it is missing, such as
    /// /usr/local/share/man/man1.
    pub dir: PathBuf,
}

/// `rehearse`
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Keep everything that the rehearsal made in this new folder.
    #[arg(long, env = "TRIVY_FERRY_REHEARSE_KEEP", value_name = "DIR")]
    pub keep: Option<PathBuf>,
}
