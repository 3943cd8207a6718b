//! Runs `rehearse`.

use crate::cli::CommandOutcome;
use crate::cli::args::RehearseArgs;
use crate::error::Error;
use crate::progress::Progress;
use crate::rehearse::rehearse;

pub(crate) fn run(args: &RehearseArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    Ok(CommandOutcome::done(&rehearse(args.keep.as_deref(), progress)?))
}
