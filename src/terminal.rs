//! How progress is shown: bars on a terminal, a plain line every few seconds elsewhere, nothing
//! when asked to be quiet. Everything goes to stderr.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::{Progress, Silent, Step};
use crate::text::{lines, safe, size};

/// How often a step says where it is, where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// The way of showing that suits stderr.
pub fn progress(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr())))
    } else {
        Box::new(Lines)
    }
}

/// Only what went wrong.
struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &str, _: u64, _: &str) -> Box<dyn Step> {
        Box::new(Silent)
    }

    fn note(&self, _: &str) {}

    fn alarm(&self, message: &str) {
        say(&lines(message));
    }
}

struct Bars(MultiProgress);

struct Bar(ProgressBar);

impl Progress for Bars {
    fn begin(&self, what: &str, total: u64, from: &str) -> Box<dyn Step> {
        let bar = self.0.add(ProgressBar::new(total));
        let template = "{prefix:<16} {binary_bytes:>11} of {binary_total_bytes:<11} {bar:24} {percent:>3} %  {binary_bytes_per_sec:>13}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(safe(what));
        bar.set_message(safe(from));
        Box::new(Bar(bar))
    }

    fn note(&self, message: &str) {
        let _ = self.0.println(lines(message));
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

/// A remark that nobody can read is no reason to stop.
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
        Box::new(Line { what: safe(what), total, done: AtomicU64::new(0), said: Mutex::new(Instant::now()) })
    }

    fn note(&self, message: &str) {
        say(&lines(message));
    }
}

impl Step for Line {
    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let Ok(mut said) = self.said.try_lock() else { return };
        if said.elapsed() >= EVERY {
            *said = Instant::now();
            say(&format!("{}: {} of {}", self.what, size(done), size(self.total)));
        }
    }
}
