//! The command line: every command with its flags. This module only parses it.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::bare_urls,
    reason = "a doc comment of a flag is its help text, not Markdown"
)]

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cli::args::shared::switch;

mod bundle;
mod export;
pub(crate) mod heading;
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

/// Carries Trivy's databases, checks and VEX documents to hosts without internet, in one signed bundle.
///
/// On the connected side, `export` collects trivy-db, trivy-java-db, trivy-checks and VEX Hub into one signed file.
/// On the air-gapped side, `import` verifies it and fills Trivy's cache, a registry or a web root; `serve` serves it
/// without any of them. A host that reaches both sides needs no bundle: `mirror` fills a registry directly.
/// `rehearse` shows a complete trip on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "trivy-ferry",
    version,
    styles = STYLES,
    max_term_width = 100,
    after_help = heading::EXIT_CODES,
    after_long_help = format!("{}\n\n{}", heading::EXIT_CODES, heading::ENVIRONMENT)
)]
pub struct Cli {
    /// Print results as text, or as JSON for programs.
    #[arg(
        long,
        short = 'f',
        global = true,
        help_heading = heading::GLOBAL,
        display_order = 1000,
        hide_possible_values = true,
        value_enum,
        default_value_t,
        env = "TRIVY_FERRY_FORMAT",
        value_name = "text|json"
    )]
    pub format: Format,

    /// Write progress, warnings and errors as text, or as one JSON object per line.
    #[arg(
        long,
        global = true,
        help_heading = heading::GLOBAL,
        display_order = 1000,
        hide_short_help = true,
        hide_possible_values = true,
        value_enum,
        default_value_t,
        env = "TRIVY_FERRY_LOG_FORMAT",
        value_name = "text|json"
    )]
    pub log_format: Format,

    /// Log requests, logins, locks and decisions to stderr.
    ///
    /// The log has no secret that trivy-ferry knows. For a login, it shows the kind and the file.
    #[arg(long, global = true, help_heading = heading::GLOBAL, display_order = 1000, hide_short_help = true, env = "TRIVY_FERRY_DEBUG", value_parser = switch)]
    pub debug: bool,
    /// Print no progress; warnings and errors still appear.
    #[arg(long, short, global = true, help_heading = heading::GLOBAL, display_order = 1000, env = "TRIVY_FERRY_QUIET", value_parser = switch)]
    pub quiet: bool,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key pair: NAME.key to sign bundles, and NAME.pub for every importing host.
    ///
    /// Both are PEM files that openssl reads. Compare the printed fingerprint on the importing
    /// hosts. Use a channel other than the one that carries NAME.pub.
    Keygen(KeygenArgs),
    /// Manage the exporters that this host trusts.
    ///
    /// The importer accepts a bundle only if a trusted key has signed it. Keys are stored as NAME.pub in
    /// /etc/trivy-ferry/trusted (root) and in $XDG_CONFIG_HOME/trivy-ferry/trusted (other users).
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Collect Trivy's data into one signed bundle.
    ///
    /// Every dataset is validated as Trivy would read it before it is signed. The bundle is written directly to its
    /// destination, and gets its name when it is signed and synced.
    Export(ExportArgs),
    /// Add a signature to a bundle that a trusted key has signed.
    ///
    /// For a two-person rule, or during a key rotation. Every byte is verified first; nothing else in the bundle
    /// changes.
    Sign(SignArgs),
    /// Verify a bundle as `import` does, and change nothing.
    ///
    /// Verifies the signature, every member and the unpacked content. Unlike `import`, it does not
    /// check whether the bundle is older than the data that this host has accepted.
    Verify(VerifyArgs),
    /// Show the content, the age and the signers of a bundle.
    ///
    /// Shows bundles without a trusted signature too, and says so. Use `verify` to verify the content.
    Inspect(InspectArgs),
    /// Rebuild lost or damaged volumes of a bundle from its parity files.
    ///
    /// A rebuilt file replaces the old one only if every byte of the bundle matches the signature
    /// of a trusted key. `import` also rebuilds volumes, but does not change the medium.
    Repair(RepairArgs),
    /// Verify a bundle and put its data into Trivy's cache, registries or a web root.
    ///
    /// The old data stays in place until all of the new data is verified, and is kept for --restore. Importing a
    /// bundle again restores missing data. Prints the settings that keep Trivy offline.
    Import(ImportArgs),
    /// Import the bundles that arrive in a directory, unattended.
    ///
    /// For the air-gapped side of a diode or a share. Bundles, volumes and parity files may arrive
    /// in any order, twice, or not at all. A bundle is imported when it is complete according to
    /// its signed manifest, or can be rebuilt from parity.
    Watch(WatchArgs),
    /// Show the age of the data in use, the last bundle, and whether the data is in place.
    ///
    /// For people and, by its exit code, for monitoring: 5 if data has expired or is older than --max-age, 7 if a
    /// target does not hold the imported data.
    Status(StatusArgs),
    /// Retire a target, such as a cache that was deleted or a registry that is gone.
    ///
    /// `status` and metrics no longer count it. Its record stays: a later import into it refuses
    /// older data, and `status` then shows it again.
    Forget(ForgetArgs),
    /// Print the settings that keep Trivy offline.
    ///
    /// Reads the current content of a cache, a registry, a web root or a host that runs `serve`.
    /// Changes nothing.
    Settings(SettingsArgs),
    /// Serve a bundle as a read-only registry, and its VEX repositories as files.
    ///
    /// For a site without a registry. Data is read from the bundle and verified again before it is sent. Stop it with
    /// SIGTERM or Ctrl-C.
    Serve(ServeArgs),
    /// Copy Trivy's data from its sources to registries, without a bundle.
    ///
    /// For a host that reaches both sides, such as one in a DMZ. Data is validated while it is
    /// copied, and is not stored. A tag is set after all of its data is in place. VEX repositories
    /// are not mirrored, because Trivy fetches them over HTTP.
    Mirror(MirrorArgs),
    /// Show a complete trip on this machine, with sample data and without network.
    Rehearse(RehearseArgs),
    /// Print completions for a shell.
    ///
    /// For example, in ~/.bashrc: source <(trivy-ferry completions bash)
    Completions(CompletionsArgs),
    /// Write the manual pages: one for the program, and one for each command.
    Man(ManArgs),
}

impl Cli {
    /// Reads the arguments of the process.
    ///
    /// # Errors
    /// If they are wrong, or ask for help or the version.
    pub(crate) fn read() -> Result<Cli, clap::Error> {
        let matches = Cli::whole().try_get_matches()?;
        Cli::from_arg_matches(&matches)
    }

    /// Returns the complete command line, as [`Cli::read`] parses it.
    pub(crate) fn whole() -> clap::Command {
        heading::complete(<Cli as CommandFactory>::command())
    }
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
    /// The directory for the pages, such as /usr/local/share/man/man1; it is created if missing.
    pub dir: PathBuf,
}

/// `rehearse`
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Keep all files of the rehearsal in this new directory.
    #[arg(long, env = "TRIVY_FERRY_REHEARSE_KEEP", value_name = "DIR")]
    pub keep: Option<PathBuf>,
}
