//! The log of `--debug` on stderr: the records that the library writes through the crate `log`.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

use crate::cli::args::Format;
use crate::cli::terminal::entry;
use crate::util::clock;
use crate::util::text::{escape_json, escape_line};

/// A logger that writes only the records of this crate. Records of dependencies may contain secrets in headers.
struct DebugLog(Format);

static TEXT: DebugLog = DebugLog(Format::Text);
static JSON: DebugLog = DebugLog(Format::Json);

/// Starts the log. Does nothing if the program has a logger already.
pub(super) fn start(format: Format) {
    let logger = if format == Format::Json { &JSON } else { &TEXT };
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

impl Log for DebugLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(concat!(env!("CARGO_CRATE_NAME"), "::"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let what = record.args().to_string();
        let line = match self.0 {
            Format::Text => {
                format!("debug: {} {}", clock::now().strftime("%H:%M:%S%.3f"), escape_line(&what))
            }
            Format::Json => escape_json(&entry("debug", serde_json::json!({ "what": what })).to_string()),
        };
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    fn flush(&self) {}
}
