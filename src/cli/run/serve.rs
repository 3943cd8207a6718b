//! Runs `serve`.

use crate::cli::args::ServeArgs;
use crate::cli::{CommandOutcome, Continuation};
use crate::error::Error;
use crate::progress::Progress;
use crate::serve::BundleServer;
use crate::serve::options::ServeOptions;

pub(crate) fn run(args: &ServeArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let options = ServeOptions {
        inputs: args.bundle.clone(),
        trust: args.keys.trust.clone(),
        min_signers: args.signers.min_signers,
        listen: args.listen,
        tls: args.tls_cert.clone().zip(args.tls_key.clone()),
        url: args.url.clone(),
        image: args.image.clone(),
        selection: (&args.selection).into(),
        acceptance: (&args.acceptance).into(),
        trivy_version: args.scanner.trivy_version,
        settings: (&args.scanner.settings).into(),
        state_dir: args.state_dir.clone(),
    };
    let (mut report, server) = BundleServer::open(&options, progress)?;
    report.shows_all_settings = args.show_settings;
    let then = Some(Continuation(Box::new(move |progress| server.run(progress))));
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { warnings: report.warnings, errors: report.errors, then, ..outcome })
}
