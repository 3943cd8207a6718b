//! The command line of `mirror`: the sources of an export and the registries of an import.

use clap::Args;

use crate::cli::args::heading::{ACCEPTANCE, NETWORK, RUN, SCANNER};
use crate::cli::args::shared::{RetryFlags, SettingsFlags, SourceFlags, switch};
use crate::cli::args::{ConnectionFlags, RegistryFlags};
use crate::trust::max_age::MaxAge;

/// `mirror`
#[derive(Debug, Args)]
// The help of some shared flags must say to which side they apply here.
#[command(
    mut_arg("places", |arg| arg.required(true)),
    mut_arg("username", |arg| arg.help("Log in to the registry with this name, and never to a source")),
    mut_arg("insecure", |arg| arg.help(
        "Accept any certificate of the registry, and plain HTTP if HTTPS does not answer"
    )),
    mut_arg("cacert", |arg| arg.help("Trust the certificates in this PEM file too, for both sides")),
    mut_arg("client_cert", |arg| arg.help("Use the client certificate in this PEM file, for the registry")),
    mut_arg("trivy_version", |arg| arg.help("Mirror the checks for these Trivy versions [default: the newest]")),
    mut_arg("only", |arg| arg.help("Only these datasets: trivy-db, trivy-java-db, trivy-checks"))
)]
pub struct MirrorArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sources: SourceFlags,
    /// Accept any certificate of a source, and plain HTTP if HTTPS does not answer.
    ///
    /// Risk: then only the checks of the content protect you from the network.
    #[arg(long, help_heading = NETWORK, hide_short_help = true, env = "TRIVY_FERRY_FROM_INSECURE", value_parser = switch)]
    pub from_insecure: bool,
    /// Use plain HTTP for sources. Risk: as for --from-insecure.
    #[arg(long, help_heading = NETWORK, hide_short_help = true, env = "TRIVY_FERRY_FROM_PLAIN_HTTP", value_parser = switch)]
    pub from_plain_http: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub retry: RetryFlags,
    /// Refuse data older than this, such as 3d or trivy-db=3d,trivy-java-db=14d.
    ///
    /// An age without a name is for trivy-db.
    #[arg(long, help_heading = ACCEPTANCE, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Push data older than the data in the registry. Risk: vulnerabilities found since go unseen.
    #[arg(long, help_heading = ACCEPTANCE, hide_short_help = true)]
    pub allow_rollback: bool,
    /// Print the data to push, with its sources and sizes; push nothing.
    #[arg(long, help_heading = RUN, env = "TRIVY_FERRY_DRY_RUN", value_parser = switch)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
    /// Print the settings for every Trivy command, and not only for scans of images.
    #[arg(long, help_heading = SCANNER, hide_short_help = true, env = "TRIVY_FERRY_SHOW_SETTINGS", value_parser = switch)]
    pub show_settings: bool,
}
