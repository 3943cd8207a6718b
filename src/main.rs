//! The program: parses the command line, runs the verb, renders the outcome.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use trivy_ferry::cli::{Cli, Format};
use trivy_ferry::commands::{self, Outcome};
use trivy_ferry::error::Error;
use trivy_ferry::redacted::Redacted;
use trivy_ferry::terminal;
use trivy_ferry::text::{json, lines};

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| redact(error).exit());
    let progress = terminal::progress(cli.log_format, cli.quiet);
    let outcome = commands::run(&cli.verb, &*progress);
    let (exit, printed) = match outcome {
        Ok(mut outcome) => {
            let then = outcome.then.take();
            let printed = print(&cli, &outcome);
            match then.map(|then| then.go_on(&*progress)) {
                Some(Err(error)) => (error.exit_code(), terminal::say_error(cli.log_format, &error)),
                // What was wrong at the beginning was said then; it has ended as it should.
                Some(Ok(())) => (0, printed),
                None => (outcome.exit_code(), printed),
            }
        }
        Err(error) => (error.exit_code(), print_error(&cli, &error)),
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

fn print(cli: &Cli, outcome: &Outcome) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match cli.format {
        Format::Text => stdout.write_all(lines(&outcome.text).as_bytes())?,
        Format::Json => writeln!(stdout, "{}", json(&format!("{:#}", outcome.json)))?,
    }
    stdout.flush()?;
    if cli.format == Format::Text {
        outcome.warnings.iter().try_for_each(|warning| terminal::say_warning(cli.log_format, warning))?;
    }
    outcome.errors.iter().try_for_each(|error| terminal::say_error(cli.log_format, error))
}

/// An error that ended the run; for programs it is the whole result.
fn print_error(cli: &Cli, error: &Error) -> std::io::Result<()> {
    if cli.format == Format::Json {
        let result = serde_json::json!({ "errors": [error.to_json()] });
        writeln!(std::io::stdout().lock(), "{}", json(&format!("{result:#}")))?;
    }
    terminal::say_error(cli.log_format, error)
}
