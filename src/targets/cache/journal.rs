//! The journal: records the switches that are about to happen, so that the next import can finish or undo them after a
//! kill or a power cut. It is written before the first step, and always replaced completely. It switches nothing.

use std::io;

use serde::{Deserialize, Serialize};

use crate::util::dir::write::Durability;
use crate::util::dir::{Dir, FileMode};

/// The file of the journal in the working directory.
pub(crate) const FILE: &str = "journal.json";

/// The limit for a journal in bytes, enough for a few dozen slots.
const MAX: u64 = 1 << 20;

/// The method of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SwitchMethod {
    /// The staged directory and the slot are exchanged in one step.
    Exchange,
    /// The slot is moved away, then the staged directory gets its name.
    TwoStep,
    /// Each file is replaced separately. Once begun, the switch can only be completed.
    PerFile,
}

/// A switch that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// The path of the slot.
    pub slot: String,
    /// Whether the working files are inside the slot (if it is a mount point) or in the working directory of the cache.
    pub inside: bool,
    pub way: SwitchMethod,
    /// The inode of the staged directory, which is that of the slot after an exchange.
    pub staged: u64,
    /// Whether the old generation is kept.
    pub keep: bool,
    /// Whether the staged directory is the kept generation, which an undo must not delete.
    pub restore: bool,
}

/// All switches that are under way, at most one for each slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    format: u32,
    operations: Vec<Operation>,
}

impl Journal {
    pub fn empty() -> Self {
        Journal { format: 1, operations: Vec::new() }
    }

    /// Reads the journal. `None` if it is unreadable or has another format.
    pub fn read(work: &Dir) -> io::Result<Option<Journal>> {
        let Some(bytes) = work.read_small(FILE, MAX)? else { return Ok(Some(Journal::empty())) };
        let journal: Option<Journal> = serde_json::from_slice(&bytes).ok();
        Ok(journal.filter(|journal| journal.format == 1))
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub fn has(&self, slot: &str) -> bool {
        self.operations.iter().any(|operation| operation.slot == slot)
    }

    /// Records the operation of a slot, and replaces an earlier one.
    pub fn set(&mut self, work: &Dir, operation: &Operation) -> io::Result<()> {
        let before = self.operations.clone();
        self.operations.retain(|other| other.slot != operation.slot);
        self.operations.push(operation.clone());
        self.write(work).inspect_err(|_| self.operations = before)
    }

    /// Removes the operation of a slot.
    pub fn clear(&mut self, work: &Dir, slot: &str) -> io::Result<()> {
        let before = self.operations.clone();
        self.operations.retain(|other| other.slot != slot);
        self.write(work).inspect_err(|_| self.operations = before)
    }

    fn write(&self, work: &Dir) -> io::Result<()> {
        if self.operations.is_empty() {
            work.remove(FILE)?;
            return work.sync();
        }
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        work.replace(FILE, &bytes, FileMode::working(0o600), None, Durability::Synced)
    }
}
