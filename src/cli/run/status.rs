//! Runs `status` and `forget`.

use crate::cli::args::{ForgetArgs, StatusArgs};
use crate::cli::{CommandOutcome, prompt};
use crate::error::Error;
use crate::progress::Progress;
use crate::status::forget::{ForgetOptions, forget};
use crate::status::options::StatusOptions;
use crate::status::status;

pub(crate) fn run(args: &StatusArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let registries = args.check_registries.then(|| prompt::remote(&args.connection)).transpose()?;
    let options = StatusOptions {
        target: args.target.clone(),
        max_age: args.max_age.clone(),
        max_silence: args.max_silence,
        registries,
        metrics: args.metrics.clone(),
        state_dir: args.state_dir.clone(),
    };
    let status = status(&options, progress)?;
    let outcome = CommandOutcome::done(&status);
    Ok(CommandOutcome { errors: status.errors, ..outcome })
}

pub(crate) fn run_forget(args: &ForgetArgs) -> Result<CommandOutcome, Error> {
    let options = ForgetOptions {
        target: args.target.clone(),
        stream: args.stream.clone(),
        state_dir: args.state_dir.clone(),
    };
    Ok(CommandOutcome::done(&forget(&options)?))
}
