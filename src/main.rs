//! The program: parses the command line, runs the verb, renders the outcome.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use trivy_ferry::cli::{Cli, Format};
use trivy_ferry::commands::{self, Outcome};
use trivy_ferry::error::{Error, Next};
use trivy_ferry::terminal;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let progress = terminal::progress(cli.quiet);
    let outcome = commands::run(&cli.verb, &*progress);
    drop(progress);
    let (exit, printed) = match outcome {
        Ok(outcome) => (outcome.exit, print(cli.format, &outcome)),
        Err(error) => (error.exit_code(), print_error(cli.format, &error)),
    };
    // A reader that closed the pipe has seen what it wanted.
    match printed {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::from(exit),
    }
}

fn print(format: Format, outcome: &Outcome) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match format {
        Format::Text => stdout.write_all(outcome.text.as_bytes())?,
        Format::Json => writeln!(stdout, "{:#}", outcome.json)?,
    }
    stdout.flush()
}

/// Two sentences: what failed, and what to do next.
fn print_error(format: Format, error: &Error) -> std::io::Result<()> {
    let (what, next) = (error.to_string(), error.next());
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "error: {}.\n{next}", what.trim_end_matches('.'))?;
    if format == Format::Json {
        let json = serde_json::json!({
            "error": { "kind": error.kind(), "exit_code": error.exit_code(), "what": what, "next": next }
        });
        writeln!(std::io::stdout().lock(), "{json:#}")?;
    }
    Ok(())
}
