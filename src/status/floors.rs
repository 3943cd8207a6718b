//! The reset of floors after a key was stolen: bundles of the thief may have raised the floors, so that genuine data
//! looks old.

use std::path::Path;

use crate::delivery::target_id::TargetId;
use crate::error::Error;
use crate::status::forget::ForgottenTarget;
use crate::trust::key::KeyId;
use crate::trust::log::{Event, LogEntry};
use crate::trust::state::{ImportState, Side, StateDir, StateView};
use crate::util::clock;

/// The state of all streams, locked for writing.
pub(crate) struct OpenFloors {
    state: StateDir,
    streams: Vec<(String, ImportState)>,
}

impl OpenFloors {
    /// Opens and reads the state. `None` if there is none; it is not created.
    ///
    /// # Errors
    /// If the state cannot be read or written.
    pub(crate) fn open(state_dir: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(view) = StateView::find(state_dir)? else { return Ok(None) };
        let state = StateDir::open(Some(view.path()), Side::Import)?;
        let mut streams = Vec::new();
        for stream in view.streams(Side::Import)? {
            let imports = state.imports(&stream)?;
            streams.push((stream, imports));
        }
        Ok(Some(OpenFloors { state, streams }))
    }

    /// Removes the accepted dates and numbers of every target, and logs why. Returns the targets.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) fn reset(self, why: &str) -> Result<Vec<ForgottenTarget>, Error> {
        let now = clock::now();
        let mut reset = Vec::new();
        for (stream, mut imports) in self.streams {
            // The date of a forged heartbeat would block genuine ones.
            imports.heard = None;
            imports.targets.values_mut().for_each(|target| target.reset_floors(now));
            self.state.save_imports(&stream, &imports)?;
            let line = |target: &String| LogEntry {
                target: Some(target.clone()),
                ..LogEntry::new(now, Event::FloorsReset, &stream).because(why)
            };
            self.state.log()?.append(&imports.targets.keys().map(line).collect::<Vec<_>>())?;
            for name in imports.targets.keys() {
                let Ok(target) = name.parse::<TargetId>();
                reset.push(ForgottenTarget { stream: stream.clone(), target });
            }
        }
        Ok(reset)
    }
}

/// Returns the reason for the log if floors are reset with the removal of a key.
pub(crate) fn because_of(stolen: KeyId) -> String {
    format!("the key {} was removed", stolen.hex())
}

/// Removes the accepted dates and numbers of every target in all streams, and logs the stolen key as the reason.
/// Returns the targets.
///
/// # Errors
/// If the state cannot be read or written.
pub fn reset(state_dir: Option<&Path>, stolen: KeyId) -> Result<Vec<ForgottenTarget>, Error> {
    let floors = OpenFloors::open(state_dir)?;
    floors.map_or_else(|| Ok(Vec::new()), |floors| floors.reset(&because_of(stolen)))
}
