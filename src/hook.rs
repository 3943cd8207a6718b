//! Runs the command that the operator configured for the end of an operation.

use std::process::{Command, Stdio};

use crate::error::Error;
use crate::util::text::program_of;

/// Runs the operator's command with these environment variables. Redirects its output to stderr.
///
/// # Errors
/// [`Error::Hook`] if it cannot be started or fails.
pub(crate) fn hook(
    command: &str,
    done: &'static str,
    retried: bool,
    environment: &[(&str, String)],
) -> Result<(), Error> {
    // Stdout is for the result of trivy-ferry.
    let line = format!("exec 1>&2; {command}");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(line).envs(environment.iter().map(|(name, value)| (name, value)));
    let run = shell.stdin(Stdio::null()).status();
    let what = match run {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Error::Hook { done, retried, command: program_of(command), what })
}
