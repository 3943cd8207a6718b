//! The command of the operator that runs after something was done.

use std::process::{Command, Stdio};

use crate::error::Error;

/// Runs the operator's command, with these variables. Its output goes where ours goes that is not the result.
///
/// # Errors
/// [`Error::Hook`] where it fails.
pub(crate) fn hook(
    command: &str,
    done: &'static str,
    retried: bool,
    environment: &[(&str, String)],
) -> Result<(), Error> {
    // What it prints is no result of ours.
    let line = format!("exec 1>&2; {command}");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(line).envs(environment.iter().map(|(name, value)| (name, value)));
    let run = shell.stdin(Stdio::null()).status();
    let what = match run {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Error::Hook { done, retried, command: command.to_owned(), what })
}
