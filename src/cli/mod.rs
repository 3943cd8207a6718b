//! The command line: parses the arguments, runs the command, and prints the result.
//!
//! Only this module uses clap, the standard streams and the terminal.

use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};

use crate::cli::args::{Cli, Command, Format};
use crate::cli::run::{
    bundle, completions, export, import, keygen, man, mirror, rehearse, serve, settings, status, trust, watch,
};
use crate::error::Error;
use crate::progress::Progress;
use crate::trust::secret;
use crate::util::redacted::Redacted;
use crate::util::text::{escape_json, escape_lines};

pub mod args;
mod debug_log;
mod interrupt;
mod outcome;
mod print;
pub(crate) mod prompt;
pub(crate) mod run;
pub mod terminal;

pub use outcome::{CommandOutcome, Continuation};

/// Runs the program and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let args = Cli::read().unwrap_or_else(|error| end_with(error));
    if args.debug {
        debug_log::start(args.log_format);
    }
    let progress = terminal::progress(args.log_format, args.quiet);
    // `serve` has a handler of its own, which lets running downloads finish.
    if !matches!(args.command, Command::Serve(_)) {
        interrupt::end_at_sigterm_in_containers();
    }
    let outcome = run(&args.command, &*progress);
    let (exit, printed) = match outcome {
        Ok(mut outcome) => {
            let then = outcome.then.take();
            let printed = print(&args, &outcome);
            match then.map(|then| then.run(&*progress)) {
                Some(Err(error)) => (error.exit_code(), terminal::say_error(args.log_format, &error)),
                // The errors of the start are already printed. The server itself ended normally.
                Some(Ok(())) => (0, printed),
                None => (outcome.exit_code(), printed),
            }
        }
        Err(error) => (error.exit_code(), print_error(&args, &error)),
    };
    // A closed pipe is no error: the reader, such as `head`, has read enough.
    match printed {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::from(exit),
    }
}

/// Prints an error of the command line, or the help, and ends the program. The error names values without the secrets
/// in addresses, and escaped: a shell may have taken an argument from the name of a file on the medium.
fn end_with(mut error: clap::Error) -> ! {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind) {
            let shown = Redacted::new(text).to_string();
            error.insert(kind, ContextValue::String(shown));
        }
    }
    // clap repeats arguments in its tips, too, and without the value after `=`.
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let parts = |argument: String| {
        let name = argument.split_once('=').map(|(name, _)| name.to_owned());
        [Some(argument), name].into_iter().flatten()
    };
    let shown = |text: &String| Redacted::new(text).to_string();
    let mut unsafe_texts: Vec<String> =
        arguments.flat_map(parts).filter(|text| shown(text) != *text).collect();
    if !error.use_stderr() || unsafe_texts.is_empty() {
        error.exit();
    }
    // Replace longer texts first, because they may contain shorter ones.
    unsafe_texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let mut message = error.render().to_string();
    for text in unsafe_texts {
        message = message.replace(&text, &shown(&text));
    }
    let _ = std::io::stderr().write_all(escape_lines(&message).as_bytes());
    std::process::exit(error.exit_code())
}

fn print(args: &Cli, outcome: &CommandOutcome) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match args.format {
        Format::Text => stdout.write_all(escape_lines(&outcome.text).as_bytes())?,
        Format::Json => writeln!(stdout, "{}", escape_json(&format!("{:#}", outcome.json)))?,
    }
    stdout.flush()?;
    if args.format == Format::Text {
        outcome.warnings.iter().try_for_each(|warning| terminal::say_warning(args.log_format, warning))?;
    }
    outcome.errors.iter().try_for_each(|error| terminal::say_error(args.log_format, error))
}

/// Prints an error that ended the run. As JSON, it is the result of the run.
fn print_error(args: &Cli, error: &Error) -> std::io::Result<()> {
    if args.format == Format::Json {
        let result = serde_json::json!({ "errors": [error.to_json()] });
        writeln!(std::io::stdout().lock(), "{}", escape_json(&format!("{result:#}")))?;
    }
    terminal::say_error(args.log_format, error)
}

/// Runs a command.
///
/// # Errors
/// If the command fails. Errors with single bundles or targets are in the outcome.
pub fn run(command: &Command, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    if holds_key(command) {
        secret::keep_out_of_dumps().map_err(Error::unexpected("keeping keys out of core dumps"))?;
    }
    match command {
        Command::Keygen(args) => keygen::run(args),
        Command::Trust(args) => trust::run(args),
        Command::Export(args) => export::run(args, progress),
        Command::Sign(args) => bundle::sign(args, progress),
        Command::Verify(args) => bundle::verify(args, progress),
        Command::Inspect(args) => bundle::inspect(args),
        Command::Repair(args) => bundle::repair(args, progress),
        Command::Import(args) => import::run(args, progress),
        Command::Watch(args) => watch::run(args, progress),
        Command::Status(args) => status::run(args, progress),
        Command::Forget(args) => status::run_forget(args),
        Command::Settings(args) => settings::run(args),
        Command::Serve(args) => serve::run(args, progress),
        Command::Mirror(args) => mirror::run(args, progress),
        Command::Rehearse(args) => rehearse::run(args, progress),
        Command::Completions(args) => Ok(completions::run(args)),
        Command::Man(args) => man::run(args),
    }
}

/// Whether a command holds a private key or its passphrase.
fn holds_key(command: &Command) -> bool {
    match command {
        Command::Keygen(_) | Command::Export(_) | Command::Sign(_) => true,
        Command::Serve(args) => args.tls_key.is_some(),
        Command::Import(args) => args.import.connection.client_cert.is_some(),
        Command::Watch(args) => args.import.connection.client_cert.is_some(),
        Command::Mirror(args) => args.connection.client_cert.is_some(),
        Command::Status(args) => args.connection.client_cert.is_some(),
        Command::Settings(args) => args.connection.client_cert.is_some(),
        // The key of a rehearsal is temporary and needs no protection.
        Command::Rehearse(_)
        | Command::Trust(_)
        | Command::Forget(_)
        | Command::Verify(_)
        | Command::Inspect(_)
        | Command::Repair(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    }
}
