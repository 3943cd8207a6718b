//! The display of progress on stderr: bars on a terminal, a line every 5 s elsewhere, and nothing with
//! `--quiet`.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::error::Error;
use crate::hint::Hint;
use crate::progress::{Progress, Silent, Step};
use crate::util::clock;
use crate::util::text::{self, escape, escape_line, escape_lines, format_size};

/// The interval between progress lines without a terminal.
const EVERY: Duration = Duration::from_secs(5);

/// The template of a bar with the remaining time in 80 columns. Wider terminals also show the source.
const BAR: &str = "{prefix:14!} {bar:8} {percent:>3}% {binary_bytes:>10}/{binary_total_bytes:<10} {binary_bytes_per_sec:>12} {eta_precise} {wide_msg}";

/// Returns the display that suits stderr.
pub fn progress(format: Format, quiet: bool) -> Box<dyn Progress> {
    if format == Format::Json {
        Box::new(Logs { quiet })
    } else if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr())))
    } else {
        Box::new(Lines)
    }
}

/// A display that shows only errors.
struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &str, _: u64, _: &str) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn info(&self, _: &str) {}

    fn warn(&self, message: &str) {
        say(&escape_lines(message));
    }
}

struct Bars(MultiProgress);

struct Bar(ProgressBar);

impl Progress for Bars {
    fn begin(&self, what: &str, total: u64, from: &str) -> Box<dyn Step> {
        let bar = self.0.add(ProgressBar::new(total));
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        bar.set_prefix(escape(what));
        bar.set_message(escape(from));
        Box::new(Bar(bar))
    }

    fn info(&self, message: &str) {
        let _ = self.0.println(escape_lines(message));
    }
}

impl Step for Bar {
    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Writes an error to stderr in the requested format. The text has two lines: what failed, and the hint.
///
/// # Errors
/// If stderr cannot be written to.
pub fn say_error(format: Format, error: &Error) -> std::io::Result<()> {
    let what = error.to_string();
    let what = what.trim_end_matches('.');
    let mut stderr = std::io::stderr().lock();
    match format {
        Format::Text => {
            let label = label("error", RED);
            writeln!(stderr, "{label} {}.\n{}", escape_line(what), escape_line(&error.hint()))
        }
        Format::Json => {
            writeln!(stderr, "{}", text::escape_json(&entry("error", error.to_json()).to_string()))
        }
    }
}

/// Writes a warning to stderr in the requested format.
///
/// # Errors
/// If stderr cannot be written to.
pub fn say_warning(format: Format, warning: &str) -> std::io::Result<()> {
    let warning = warning.trim_end_matches('.');
    let mut stderr = std::io::stderr().lock();
    match format {
        Format::Text => writeln!(stderr, "{} {}.", label("warning", YELLOW), escape_line(warning)),
        Format::Json => {
            let entry = entry("warning", json!({ "what": warning }));
            writeln!(stderr, "{}", text::escape_json(&entry.to_string()))
        }
    }
}

/// The colors of labels (ECMA-48, SGR).
const RED: &str = "1;31";
const YELLOW: &str = "1;33";

/// Returns the label of a line on stderr, in color if stderr is a terminal that shows colors.
fn label(word: &str, color: &str) -> String {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    match std::io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb {
        true => format!("\x1b[{color}m{word}:\x1b[0m"),
        false => format!("{word}:"),
    }
}

/// Adds the time and the level to an entry of the log.
pub(super) fn entry(level: &str, mut entry: Value) -> Value {
    entry["time"] = clock::now().to_string().into();
    entry["level"] = level.into();
    entry
}

/// A display that writes each message as a line of JSON.
struct Logs {
    quiet: bool,
}

impl Logs {
    fn write(level: &str, what: Value) {
        say(&text::escape_json(&entry(level, what).to_string()));
    }
}

impl Progress for Logs {
    fn begin(&self, what: &str, total: u64, from: &str) -> Box<dyn Step> {
        if self.quiet {
            return Box::new(Silent);
        }
        Logs::write("info", json!({ "what": what, "from": from, "done": 0, "total": total }));
        let (done, said) = (AtomicU64::new(0), Mutex::new(Instant::now()));
        Box::new(Logged(Line { what: what.to_owned(), total, done, said }))
    }

    fn info(&self, message: &str) {
        if !self.quiet {
            let warning = message.strip_prefix("warning: ");
            let level = if warning.is_some() { "warning" } else { "info" };
            Logs::write(level, json!({ "what": warning.unwrap_or(message) }));
        }
    }

    fn warn(&self, message: &str) {
        Logs::write("error", json!({ "what": message }));
    }
}

struct Logged(Line);

impl Step for Logged {
    fn advance(&self, bytes: u64) {
        if let Some(done) = self.0.is_due(bytes) {
            Logs::write("info", json!({ "what": self.0.what, "done": done, "total": self.0.total }));
        }
    }
}

/// Writes a line to stderr. Ignores errors, because a lost message must not end the run.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

struct Lines;

struct Line {
    what: String,
    total: u64,
    done: AtomicU64,
    said: Mutex<Instant>,
}

impl Progress for Lines {
    fn begin(&self, what: &str, total: u64, _: &str) -> Box<dyn Step> {
        Box::new(Line {
            what: escape(what),
            total,
            done: AtomicU64::new(0),
            said: Mutex::new(Instant::now()),
        })
    }

    fn info(&self, message: &str) {
        say(&escape_lines(message));
    }
}

impl Line {
    /// Adds bytes to the count. Returns the new count if the next progress line is due.
    fn is_due(&self, bytes: u64) -> Option<u64> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut said = self.said.try_lock().ok().filter(|said| said.elapsed() >= EVERY)?;
        *said = Instant::now();
        Some(done)
    }
}

impl Step for Line {
    fn advance(&self, bytes: u64) {
        if let Some(done) = self.is_due(bytes) {
            say(&format!("{}: {} of {}", self.what, format_size(done), format_size(self.total)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;

    /// A terminal of 80 columns that records its output.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn write_line(&self, line: &str) -> std::io::Result<()> {
            self.write_str(&format!("{line}\n"))
        }

        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> std::io::Result<()> {
            self.write_str("\n")
        }

        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_fits_80_columns_and_shows_the_remaining_time() {
        let source = "mirror.gcr.io/aquasec/trivy-java-db:1 and more that no terminal of this width shows";
        for (name, shown, total) in [
            ("trivy-java-db", "trivy-java-db ", 1023 << 30),
            ("vex-a-name-that-is-long", "vex-a-name-tha ", 1 << 10),
        ] {
            let terminal = Terminal::default();
            let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
            let step = Bars(MultiProgress::with_draw_target(target)).begin(name, total, source);
            step.advance(total - 1);
            drop(step);
            let text = terminal.0.lock().unwrap().clone();
            assert!(text.contains(shown) && text.contains("100%"), "{text:?}");
            assert!(text.contains(":00"), "the time that is left: {text:?}");
            for line in text.lines() {
                assert!(line.trim_end().chars().count() <= 80, "{line:?}");
            }
        }
    }
}
