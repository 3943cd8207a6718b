//! The headings of `--help`, and the parts of it that all commands share.

use clap::{Arg, ArgAction, Command};

use crate::bundle::FORMAT;
use crate::dataset::catalogue::NEWEST_TRIVY;

pub(crate) const CARRY: &str = "What to carry";
pub(crate) const SOURCES: &str = "Sources";
pub(crate) const CHECKS: &str = "Checks before signing";
pub(crate) const SIGNING: &str = "Signing";
pub(crate) const OUTPUT: &str = "Output and media";
pub(crate) const DIODE: &str = "Diode";
pub(crate) const INBOX: &str = "Inbox";
pub(crate) const CACHE: &str = "Cache";
pub(crate) const REGISTRY: &str = "Registry";
pub(crate) const WEB: &str = "Web root";
pub(crate) const SERVER: &str = "Server";
pub(crate) const ACCEPTANCE: &str = "Acceptance";
pub(crate) const SCANNER: &str = "Scanner settings";
pub(crate) const NETWORK: &str = "Network";
pub(crate) const RUN: &str = "This run";
pub(crate) const GLOBAL: &str = "Global";

/// The part of the program's help about exit codes.
pub(crate) const EXIT_CODES: &str = "Exit codes: 0 done, 1 unexpected, 2 usage or setup, 3 a source failed, 4 verification failed, 5 refused by policy, 6 incomplete, 7 a target failed.";
/// The part of the program's `--help` about environment variables.
pub(crate) const ENVIRONMENT: &str = "Environment: TRIVY_FERRY_VOLUME_SIZE sets --volume-size, and so on for every option with a value and every switch (true or false), except for --password-stdin, --restore, `import --dry-run`, and options that override a refusal: --accept, --allow-*, --force, --replace-image-tags, --reset-floors.";

/// Returns the text of `--version`; `-V` prints only the first word of it.
fn version() -> String {
    let (major, minor) = NEWEST_TRIVY;
    let commit = option_env!("TRIVY_FERRY_COMMIT").map(|commit| format!("\ncommit: {commit}"));
    format!(
        "{}{}\nbundle format: {FORMAT}\nnewest known Trivy: {major}.{minor}",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or_default(),
    )
}

/// Returns the command with the settings for every flag: hides the environment variables, which
/// only the program's own help explains, and lists `--help` with the other global flags.
pub(crate) fn complete(command: Command) -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help).global(true);
    let help = help.help_heading(GLOBAL).display_order(1000);
    let help = help.help("Print help").long_help("Print help; -h prints the common options only");
    without_variables(command).disable_help_flag(true).long_version(version()).arg(help)
}

fn without_variables(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_env(true)).mut_subcommands(without_variables)
}
