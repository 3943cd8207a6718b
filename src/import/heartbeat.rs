//! Received heartbeats: verifies and records them. No import decision depends on them.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::heartbeat::{ExportOutcome, Heartbeat};
use crate::error::Error;
use crate::import::options::ImportOptions;
use crate::status::report::exported;
use crate::trust::Rejection;
use crate::trust::acceptance::receive_heartbeat;
use crate::trust::keyring::Keyring;
use crate::trust::log::{Event, LogEntry};
use crate::trust::state::{Accepted, ReceivedHeartbeat, Side, StateDir};
use crate::util::clock;
use crate::util::text::{escape, with_name};

/// The result of a heartbeat.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct HeartbeatResult {
    /// The file name.
    pub file: String,
    /// The recorded heartbeat; `None` if it was skipped.
    pub heard: Option<ReceivedHeartbeat>,
    /// The reason, if it was skipped.
    pub why: Option<String>,
    /// Whether no trusted key signed it.
    #[serde(skip)]
    pub unsigned: bool,
    /// Whether it was rejected because of a clock, which may be corrected.
    #[serde(skip)]
    pub by_clock: bool,
}

impl HeartbeatResult {
    /// Returns the result as a line of text.
    pub(crate) fn summary(&self) -> String {
        match (&self.heard, &self.why) {
            (Some(heard), _) => {
                let missing: Vec<String> =
                    heard.missing.iter().map(|item| format!(", without {item}")).collect();
                format!("{:<12} {}: {}{}", "received", self.file, exported(&heard.export), missing.concat())
            }
            (None, Some(why)) => format!("{:<12} {}", "skipped", with_name(&self.file, why)),
            (None, None) => format!("{:<12} {}", "skipped", self.file),
        }
    }
}

/// Reads a heartbeat and records its content. A rejected heartbeat is in the result, and in the log with three
/// exceptions: one that no trusted key signed is logged only if `write_down` is set; one that was rejected before
/// because of a clock (`again`) is logged only if the reason has changed; one that is older than the last is not logged.
///
/// # Errors
/// If the file, the keys or the state cannot be read, or the state or the log cannot be written.
pub(crate) fn receive(
    options: &ImportOptions,
    file: &Path,
    write_down: bool,
    again: bool,
) -> Result<HeartbeatResult, Error> {
    let name = escape(&file.file_name().unwrap_or_default().to_string_lossy());
    let state = StateDir::open(options.state_dir.as_deref(), Side::Import)?;
    let keyring = Keyring::load(&options.trust)?;
    let stream = options.acceptance.stream.as_str();
    let read = Heartbeat::read(file, &keyring).map_err(Error::from);
    let created = read.as_ref().ok().map(|heartbeat| heartbeat.created);
    let heard = read.and_then(|heartbeat| {
        if heartbeat.stream.as_str() != stream {
            let (found, wanted) = (heartbeat.stream.as_str().to_owned(), stream.to_owned());
            return Err(Rejection::Stream { bundle: name.clone(), found, wanted }.into());
        }
        let mut imports = state.imports(stream)?;
        let now = clock::now();
        let heard = said(&heartbeat, now);
        receive_heartbeat(&mut imports, &name, heard.clone(), now)?;
        state.save_imports(stream, &imports)?;
        Ok(heard)
    });
    match heard {
        Ok(heard) => {
            let (why, unsigned, by_clock) = (None, false, false);
            Ok(HeartbeatResult { file: name, heard: Some(heard), why, unsigned, by_clock })
        }
        // A file that is gone or unreadable may still be valid.
        Err(Error::Bundle(error)) if error.is_usage() => Err(error.into()),
        Err(error @ (Error::Bundle(_) | Error::Rejected(_))) => {
            let directory = format!("{}/", file.parent().unwrap_or(Path::new("")).display());
            let why = escape(&error.to_string().replace(&directory, ""));
            let unsigned = matches!(&error, Error::Bundle(error) if !error.is_signed());
            let by_clock = matches!(error, Error::Rejected(Rejection::Future { .. }));
            // A heartbeat that is late or sent twice is no error worth logging.
            let is_late = matches!(error, Error::Rejected(Rejection::Late { .. }));
            let is_known = is_late || again && by_clock;
            if !is_known && (write_down || !unsigned) {
                let entry = LogEntry::new(clock::now(), Event::Rejected, stream).because(&why);
                state.log()?.append(&[LogEntry {
                    bundle: Some(name.clone()),
                    created,
                    unsigned,
                    heartbeat: true,
                    ..entry
                }])?;
            }
            Ok(HeartbeatResult { file: name, heard: None, why: Some(why), unsigned, by_clock })
        }
        Err(error) => Err(error),
    }
}

fn said(heartbeat: &Heartbeat, received: Timestamp) -> ReceivedHeartbeat {
    let export = match heartbeat.export {
        ExportOutcome::Written => "written",
        ExportOutcome::Unchanged => "unchanged",
        ExportOutcome::Failed => "failed",
    };
    let newest = heartbeat.newest.as_ref().map(|newest| Accepted {
        identity: newest.identity,
        created: newest.created,
        expires: None,
        sequence: Some(newest.sequence),
        missing_items: Vec::new(),
    });
    let missing = heartbeat.missing.clone();
    ReceivedHeartbeat { created: heartbeat.created, received, export: export.into(), newest, missing }
}
