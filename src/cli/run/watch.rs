//! Runs `watch`.

use crate::cli::args::WatchArgs;
use crate::cli::run::import;
use crate::cli::{CommandOutcome, interrupt};
use crate::error::Error;
use crate::progress::Progress;
use crate::watch::Watcher;
use crate::watch::options::WatchOptions;

pub(crate) fn run(args: &WatchArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let options = WatchOptions {
        inbox: args.inbox.clone(),
        interval: args.interval,
        settle: args.settle,
        give_up_after: args.give_up_after,
        keep_processed: args.keep_processed,
        keep_quarantined: args.keep_quarantined,
        max_waiting: args.max_waiting,
        once: args.once,
        exec_outcome: args.exec_outcome.clone(),
        import: import::options(&args.import, false, progress)?,
    };
    interrupt::says(
        "Interrupted. Each dataset is old or new, and the inbox keeps the bundles that are not imported yet; run the same command again to continue.",
    );
    let report = Watcher::new(options).run(progress)?;
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { errors: report.errors, ..outcome })
}
