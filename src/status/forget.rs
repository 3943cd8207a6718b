//! `forget`: retires a target until a run uses it again.
//!
//! Its floors stay in the state, so that a later import into the target is compared with the data
//! that was accepted before.

use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::Stream;
use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::trust::log::{Event, LogEntry};
use crate::trust::state::{Side, StateDir, StateView};
use crate::util::clock;
use crate::util::text::escape;

/// The target to retire.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ForgetOptions {
    /// Its name as `status` prints it, or only its path, registry or port.
    pub target: String,
    /// The only stream in which it is retired; `None` for all.
    pub stream: Option<Stream>,
    /// The state directory; `None` for the default.
    pub state_dir: Option<PathBuf>,
}

impl ForgetOptions {
    /// Options that retire a target in all streams.
    #[must_use]
    pub fn new(target: String) -> Self {
        ForgetOptions { target, stream: None, state_dir: None }
    }
}

/// The report of `forget`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ForgetReport {
    /// The target, in each stream.
    pub forgotten: Vec<ForgottenTarget>,
}

/// A target that was retired in one stream.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ForgottenTarget {
    /// The stream.
    pub stream: String,
    /// The target.
    pub target: TargetId,
}

/// Retires a target: `status` and metrics no longer count it, until a run uses it again.
///
/// # Errors
/// If no such target is known, or the state cannot be read or written.
pub fn forget(options: &ForgetOptions) -> Result<ForgetReport, Error> {
    // A missing state directory must not be created.
    let Some(view) = StateView::find(options.state_dir.as_deref())? else {
        return Err(unknown(&options.target, &[]));
    };
    let state = StateDir::open(Some(view.path()), Side::Import)?;
    let now = clock::now();
    let (mut forgotten, mut known) = (Vec::new(), Vec::new());
    for stream in view.streams(Side::Import)? {
        if options.stream.as_ref().is_some_and(|only| only.as_str() != stream) {
            continue;
        }
        let mut imports = state.imports(&stream)?;
        let mut found = Vec::new();
        for (name, of) in imports.targets.iter_mut().filter(|(_, of)| of.forgotten.is_none()) {
            let Ok(target) = name.parse::<TargetId>();
            if target.is_called(&options.target) {
                of.forgotten = Some(now);
                // The operator's command must not run for a retired target.
                of.hook_due = None;
                found.push(ForgottenTarget { stream: stream.clone(), target });
            } else {
                known.push(name.clone());
            }
        }
        if found.is_empty() {
            continue;
        }
        state.save_imports(&stream, &imports)?;
        let line = |gone: &ForgottenTarget| LogEntry {
            target: Some(gone.target.to_string()),
            ..LogEntry::new(now, Event::Forgotten, &stream)
        };
        state.log()?.append(&found.iter().map(line).collect::<Vec<_>>())?;
        forgotten.extend(found);
    }
    if forgotten.is_empty() {
        return Err(unknown(&options.target, &known));
    }
    Ok(ForgetReport { forgotten })
}

/// Returns the error of a target that was retired.
pub(crate) fn retired(target: &str) -> Error {
    Error::usage(
        format!("the target {:?} was retired with `trivy-ferry forget`", escape(target)),
        "`status` shows it again after the next import into it.",
    )
}

/// Returns the error of an unknown target.
pub(crate) fn unknown(target: &str, known: &[String]) -> Error {
    let mut known: Vec<String> = known.iter().map(|name| escape(name)).collect();
    known.sort();
    known.dedup();
    let hint = match known.as_slice() {
        [] => "Name the state directory with --state-dir, or run the command as the user who imports.".into(),
        known => format!("Use one of these targets: {}.", known.join(", ")),
    };
    Error::usage(format!("no target here is named {:?}", escape(target)), hint)
}
