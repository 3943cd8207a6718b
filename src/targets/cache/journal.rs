//! The journal: says what a switch is about to do, so that the next import can finish or undo it after a
//! kill or a power cut. It is written before the first step, and replaced as a whole.

use std::io;

use serde::{Deserialize, Serialize};

use crate::util::dir::write::Durability;
use crate::util::dir::{Dir, FileMode};

/// The journal's file in the working folder.
pub(crate) const FILE: &str = "journal.json";

/// The most that a journal may have, in bytes: a few dozen slots.
const MAX: u64 = 1 << 20;

/// The method by which a slot is being switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SwitchMethod {
    /// The staged directory and the slot change places in one step.
    Exchange,
    /// The slot moves away, then the staged directory takes its name.
    TwoStep,
    /// Every file by itself. Once begun it can only be completed.
    PerFile,
}

/// One switch under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// The slot's path.
    pub slot: String,
    /// Whether the working files stand inside the slot (a mount of its own) or in the cache's
    /// working folder.
    pub inside: bool,
    pub way: SwitchMethod,
    /// The inode of the staged directory: after an exchange it is the slot's.
    pub staged: u64,
    /// Whether the old generation is kept.
    pub keep: bool,
    /// Whether what is staged is the kept generation, which an undo must not delete.
    pub restore: bool,
}

/// All switches under way, at most one a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    format: u32,
    operations: Vec<Operation>,
}

impl Journal {
    pub fn empty() -> Self {
        Journal { format: 1, operations: Vec::new() }
    }

    /// Reads the journal. `Ok(None)`: one is there that cannot be read.
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

    /// Records an operation in place of the slot's earlier one.
    pub fn set(&mut self, work: &Dir, operation: &Operation) -> io::Result<()> {
        let before = self.operations.clone();
        self.operations.retain(|other| other.slot != operation.slot);
        self.operations.push(operation.clone());
        self.write(work).inspect_err(|_| self.operations = before)
    }

    /// Forgets a slot's operation.
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
