//! What follows when a key was stolen: whoever had it may have dated what this host accepted, so that true data
//! looks old.

use std::path::Path;

use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::status::forget::ForgottenTarget;
use crate::trust::key::KeyId;
use crate::trust::log::{Event, LogEntry};
use crate::trust::state::{Side, StateDir, StateView};
use crate::util::clock;

/// Forgets every date and number that was accepted, in all streams and targets, and writes that down with the key
/// that was the reason. Returns the targets.
///
/// # Errors
/// If the state cannot be read or written.
pub fn reset(state_dir: Option<&Path>, stolen: KeyId) -> Result<Vec<ForgottenTarget>, Error> {
    // What is not there is not made.
    let Some(view) = StateView::find(state_dir)? else { return Ok(Vec::new()) };
    let state = StateDir::open(Some(view.path()), Side::Import)?;
    let now = clock::now();
    let mut reset = Vec::new();
    for stream in view.streams(Side::Import)? {
        let mut imports = state.imports(&stream)?;
        // A heartbeat may have been dated ahead as well.
        imports.heard = None;
        imports.targets.values_mut().for_each(|target| target.reset_floors(now));
        state.save_imports(&stream, &imports)?;
        let line = |target: &String| LogEntry {
            target: Some(target.clone()),
            ..LogEntry::new(now, Event::FloorsReset, &stream)
                .because(&format!("the key {} was removed", stolen.hex()))
        };
        state.log()?.append(&imports.targets.keys().map(line).collect::<Vec<_>>())?;
        for name in imports.targets.keys() {
            let Ok(target) = name.parse::<TargetId>();
            reset.push(ForgottenTarget { stream: stream.clone(), target });
        }
    }
    Ok(reset)
}
