//! The command line of `mirror`: the sources of an export and the registries of an import.

use clap::Args;

use crate::cli::args::RegistryFlags;
use crate::cli::args::shared::{RetryFlags, SettingsFlags, SourceFlags, switch};
use crate::trust::max_age::MaxAge;

/// `mirror`
#[derive(Debug, Args)]
// What the shared flags say elsewhere does not quite hold where there are two sides.
#[command(
    mut_arg("places", |arg| arg.required(true).help(
        "Push into this registry: HOST[:PORT][/PREFIX] for all datasets, or DATASET=HOST/PATH[:TAG] for one"
    )),
    mut_arg("username", |arg| arg.help(
        "The name to log in to the registry with, never to a source (default: what `docker login` or `podman login` keeps)"
    )),
    mut_arg("insecure", |arg| arg.help(
        "Accept any certificate of the registry, and plain HTTP where HTTPS does not answer"
    )),
    mut_arg("cacert", |arg| arg.help("A PEM file with further certificate authorities, for both sides")),
    mut_arg("client_cert", |arg| arg.help("A PEM file with a client certificate and its key, for the registry")),
    mut_arg("trivy_version", |arg| arg.help(
        "The Trivy versions that scan: every checks bundle that they want is mirrored, and the settings are for the newest"
    )),
    mut_arg("only", |arg| arg.help("Only these datasets: trivy-db, trivy-java-db, trivy-checks"))
)]
pub struct MirrorArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub registry: RegistryFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sources: SourceFlags,
    /// Accept any certificate of a source, and plain HTTP where HTTPS does not answer. Risk: then only
    /// the checks of the content stand between you and the network.
    #[arg(long, env = "TRIVY_FERRY_FROM_INSECURE", value_parser = switch)]
    pub from_insecure: bool,
    /// Speak plain HTTP to sources. Risk: the same.
    #[arg(long, env = "TRIVY_FERRY_FROM_PLAIN_HTTP", value_parser = switch)]
    pub from_plain_http: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub retry: RetryFlags,
    /// Refuse data older than this: 3d for trivy-db, or trivy-db=3d,trivy-java-db=14d.
    #[arg(long, env = "TRIVY_FERRY_MAX_AGE", value_name = "AGE")]
    pub max_age: Option<MaxAge>,
    /// Push data older than what the registry has. Risk: new vulnerabilities go unseen.
    #[arg(long, env = "TRIVY_FERRY_ALLOW_ROLLBACK", value_parser = switch)]
    pub allow_rollback: bool,
    /// Say what would be pushed, from where and how large, and push nothing.
    #[arg(long, env = "TRIVY_FERRY_DRY_RUN", value_parser = switch)]
    pub dry_run: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub settings: SettingsFlags,
}
