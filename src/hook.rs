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
    again: bool,
    environment: &[(&str, String)],
) -> Result<(), Error> {
    use std::os::fd::AsFd;
    let run = std::io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).envs(environment.iter().map(|(name, value)| (name, value)));
        shell.stdin(Stdio::null()).stdout(stderr).status()
    });
    let what = match run {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Error::Hook { done, again, command: command.to_owned(), what })
}
