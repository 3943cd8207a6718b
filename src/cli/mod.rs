//! The command line: parses the arguments, runs the command, and prints what became of it.
//!
//! Only this module knows clap, the standard streams and the terminal.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};

use crate::cli::args::{Cli, Format, Verb};
use crate::cli::run::{
    bundle, completions, export, import, keygen, man, mirror, rehearse, serve, status, trust, watch,
};
use crate::error::Error;
use crate::progress::Progress;
use crate::trust::secret;
use crate::util::redacted::Redacted;
use crate::util::text::{json, lines};

pub mod args;
mod outcome;
mod print;
pub(crate) mod prompt;
pub(crate) mod run;
pub mod terminal;

pub use outcome::{Outcome, Then};

/// The whole program: returns what it exits with.
#[must_use]
pub fn main() -> ExitCode {
    let args = Cli::try_parse().unwrap_or_else(|error| redact(error).exit());
    let progress = terminal::progress(args.log_format, args.quiet);
    let outcome = run(&args.verb, &*progress);
    let (exit, printed) = match outcome {
        Ok(mut outcome) => {
            let then = outcome.then.take();
            let printed = print(&args, &outcome);
            match then.map(|then| then.go_on(&*progress)) {
                Some(Err(error)) => (error.exit_code(), terminal::say_error(args.log_format, &error)),
                // What was wrong at the beginning was said then; it has ended as it should.
                Some(Ok(())) => (0, printed),
                None => (outcome.exit_code(), printed),
            }
        }
        Err(error) => (error.exit_code(), print_error(&args, &error)),
    };
    // A reader that closed the pipe has seen what it wanted.
    match printed {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::from(exit),
    }
}

/// An error of the command line without the secrets of an address in it.
fn redact(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind) {
            let shown = Redacted::new(text).to_string();
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

fn print(args: &Cli, outcome: &Outcome) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match args.format {
        Format::Text => stdout.write_all(lines(&outcome.text).as_bytes())?,
        Format::Json => writeln!(stdout, "{}", json(&format!("{:#}", outcome.json)))?,
    }
    stdout.flush()?;
    if args.format == Format::Text {
        outcome.warnings.iter().try_for_each(|warning| terminal::say_warning(args.log_format, warning))?;
    }
    outcome.errors.iter().try_for_each(|error| terminal::say_error(args.log_format, error))
}

/// An error that ended the run; for programs it is the whole result.
fn print_error(args: &Cli, error: &Error) -> std::io::Result<()> {
    if args.format == Format::Json {
        let result = serde_json::json!({ "errors": [error.to_json()] });
        writeln!(std::io::stdout().lock(), "{}", json(&format!("{result:#}")))?;
    }
    terminal::say_error(args.log_format, error)
}

/// Runs a verb.
///
/// # Errors
/// Whatever kept it from doing what it was asked to.
pub fn run(verb: &Verb, progress: &dyn Progress) -> Result<Outcome, Error> {
    if holds_key(verb) {
        secret::keep_out_of_dumps().map_err(Error::unexpected("keeping keys out of core dumps"))?;
    }
    match verb {
        Verb::Keygen(args) => keygen::run(args),
        Verb::Trust(args) => trust::run(args),
        Verb::Export(args) => export::run(args, progress),
        Verb::Sign(args) => bundle::sign(args, progress),
        Verb::Verify(args) => bundle::verify(args, progress),
        Verb::Inspect(args) => bundle::inspect(args),
        Verb::Repair(args) => bundle::repair(args, progress),
        Verb::Import(args) => import::run(args, progress),
        Verb::Watch(args) => watch::run(args, progress),
        Verb::Status(args) => status::run(args, progress),
        Verb::Serve(args) => serve::run(args, progress),
        Verb::Mirror(args) => mirror::run(args, progress),
        Verb::Rehearse(args) => rehearse::run(args, progress),
        Verb::Completions(args) => Ok(completions::run(args)),
        Verb::Man(args) => man::run(args),
    }
}

/// Whether a command holds a private key or its passphrase.
fn holds_key(verb: &Verb) -> bool {
    match verb {
        Verb::Keygen(_) | Verb::Export(_) | Verb::Sign(_) => true,
        Verb::Serve(args) => args.tls_key.is_some(),
        Verb::Import(args) => args.import.registry.connection.client_cert.is_some(),
        Verb::Watch(args) => args.import.registry.connection.client_cert.is_some(),
        Verb::Mirror(args) => args.registry.connection.client_cert.is_some(),
        Verb::Status(args) => args.connection.client_cert.is_some(),
        // The key of a rehearsal is used for nothing else.
        Verb::Rehearse(_)
        | Verb::Trust(_)
        | Verb::Verify(_)
        | Verb::Inspect(_)
        | Verb::Repair(_)
        | Verb::Completions(_)
        | Verb::Man(_) => false,
    }
}
