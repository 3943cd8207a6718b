//! Runs `mirror`.

use crate::cli::args;
use crate::cli::print::delivery;
use crate::cli::{CommandOutcome, interrupt, prompt};
use crate::error::Error;
use crate::mirror::Mirror;
use crate::mirror::options::MirrorOptions;
use crate::progress::Progress;
use crate::remote::RemoteOptions;

pub(crate) fn run(args: &args::MirrorArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let options = MirrorOptions {
        registry: prompt::registry(&args.registry, &args.connection, &args.retry)?,
        sources: (&args.sources).into(),
        // The sources must not see the registry's login and client certificate.
        from: RemoteOptions {
            insecure: args.from_insecure,
            plain_http: args.from_plain_http,
            ca_cert: args.connection.cacert.clone(),
            ..RemoteOptions::default()
        },
        limits: (&args.retry).into(),
        max_age: args.max_age.clone(),
        allow_rollback: args.allow_rollback,
        dry_run: args.dry_run,
        settings: (&args.settings).into(),
    };
    interrupt::says(
        "Interrupted. Each tag names its old or its new data, and registries keep the sent data; run the same command again to finish.",
    );
    let mut report = Mirror::new(options).run(progress)?;
    report.targets.iter_mut().for_each(|target| target.shows_all_settings = args.show_settings);
    let warnings = delivery::warnings(&report.targets);
    let outcome = CommandOutcome { warnings, ..CommandOutcome::done(&report) };
    let of_targets = report.targets.into_iter().flat_map(|target| target.errors);
    Ok(CommandOutcome { errors: report.errors.into_iter().chain(of_targets).collect(), ..outcome })
}
