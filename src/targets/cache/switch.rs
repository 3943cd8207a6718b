//! The switch: puts a staged dataset in place, and finishes or undoes a switch that was interrupted.
//!
//! There are three methods. Each is tried if the one before is not possible:
//!
//! 1. *Exchange* (`renameat2` with `RENAME_EXCHANGE`): the slot and the staged directory are exchanged in one step. If
//!    the slot does not exist yet, this is a plain rename.
//! 2. *Two steps*, if the file system cannot exchange (FAT, FUSE): the slot is renamed to `old-…`, then the staged
//!    directory gets its name.
//! 3. *File by file*, if the directory cannot be moved (a mount point, a lower layer of an overlay): see `per_file`.
//!
//! The journal names the method before its first step. After a kill the files show which steps were done:
//!
//! | method     | files                                       | the slot is | action                   |
//! |------------|---------------------------------------------|-------------|--------------------------|
//! | exchange   | no staged directory                         | new         | finish                   |
//! | exchange   | the slot has the inode in the journal       | new         | finish                   |
//! | exchange   | otherwise                                   | old         | undo: remove the staged directory |
//! | two steps  | `old-…` and the staged directory exist      | missing     | complete, finish         |
//! | two steps  | no staged directory                         | new         | finish                   |
//! | two steps  | otherwise                                   | old         | undo                     |
//! | per file   | the list of files exists                    | mixed       | complete, finish         |
//! | per file   | no list of files                            | new or old  | finish or undo           |
//!
//! *Finish* keeps or removes the old generation and removes the entry from the journal. Its steps can be repeated.

use std::collections::BTreeSet;
use std::io;

use crate::targets::cache::journal::{Journal, Operation, SwitchMethod};
use crate::targets::cache::layout::Slot;
use crate::targets::cache::per_file;
use crate::targets::cache::working::{self, PREVIOUS, WorkingNames, WorkingPlace};
use crate::targets::error::{At, TargetError};
use crate::util::dir::write::Durability;
use crate::util::dir::{self, Dir, FileMode, Owner};
use crate::util::text;

/// The limit for the list of files in bytes: 500,000 files with paths of 64 bytes.
const MAX_LIST: u64 = 32 << 20;

/// The state of the switch of one slot.
pub(crate) struct Switching<'a> {
    pub root: &'a Dir,
    pub work: &'a Dir,
    pub journal: &'a mut Journal,
    pub slot: Slot,
    pub place: WorkingPlace,
    pub names: WorkingNames,
    pub operation: Operation,
    /// The owner of directories that are created.
    pub owner: Option<Owner>,
}

impl<'a> Switching<'a> {
    /// Creates a switch of the dataset that is staged in `place`.
    pub fn new(
        root: &'a Dir,
        work: &'a Dir,
        journal: &'a mut Journal,
        slot: Slot,
        place: WorkingPlace,
        owner: Option<Owner>,
    ) -> Self {
        let way = if place.inside { SwitchMethod::PerFile } else { SwitchMethod::Exchange };
        let operation = Operation {
            slot: slot.path().into(),
            inside: place.inside,
            way,
            staged: 0,
            keep: false,
            restore: false,
        };
        Switching { root, work, journal, names: WorkingNames::of(&slot), slot, place, operation, owner }
    }

    /// Puts the staged files in place. If `keep` is set, the replaced files are kept for a later restore.
    ///
    /// # Errors
    /// The error of the failed step, with the slot unchanged; [`TargetError::Unfinished`] if the step cannot be undone. The
    /// journal has the remaining steps then.
    pub fn apply(mut self, staged: u64, files: &BTreeSet<String>, keep: bool) -> Result<Switch, TargetError> {
        (self.operation.staged, self.operation.keep) = (staged, keep);
        if let Err(error) = self.announce(files) {
            let _ = self.undo();
            return Err(error);
        }
        self.carry_out(files)
    }

    /// Records the switch before its first step.
    fn announce(&mut self, files: &BTreeSet<String>) -> Result<(), TargetError> {
        if self.operation.way == SwitchMethod::PerFile {
            self.write_list(files)?;
        }
        self.record()
    }

    /// Puts the kept generation in place and keeps the current one. `None` if none is kept.
    pub fn restore(mut self) -> Result<Option<Switch>, TargetError> {
        let Some(previous) = self.previous()? else { return Ok(None) };
        let Some(kept) = self.open(&previous, &self.names.key)? else { return Ok(None) };
        self.operation.staged = kept.entry().at("look it up", kept.path())?.inode;
        (self.operation.restore, self.operation.keep) = (true, true);
        let mut files = BTreeSet::new();
        kept.walk(|path, _, _, _| {
            files.insert(path.to_owned());
            Ok(())
        })
        .at("read", kept.path())?;
        if let Err(error) = self.announce(&files) {
            let _ = self.undo();
            return Err(error);
        }
        let moved = previous.rename(&self.names.key, &self.place.dir, &self.names.stage);
        if let Err(error) = moved.and_then(|()| self.place.dir.sync()) {
            let _ = self.undo();
            return Err(TargetError::io("move the kept generation", previous.path(), error));
        }
        self.carry_out(&files).map(Some)
    }

    /// Finishes or undoes an operation of an earlier run, and returns `finished` or `undid`.
    pub fn resume(mut self) -> Result<&'static str, TargetError> {
        let at = self.root.at(self.slot.path());
        let staged = self.find(&self.names.stage)?;
        let old = self.find(&self.names.old)?;
        let parent = working::open_slot(self.root, self.slot.parent())?;
        let slot = match &parent {
            Some(parent) => parent.find(self.slot.name()).at("look it up", &at)?,
            None => None,
        };
        let undo = match (self.operation.way, &staged) {
            (SwitchMethod::Exchange, None) => false,
            (SwitchMethod::Exchange, Some(_)) => slot.is_none_or(|slot| slot.inode != self.operation.staged),
            (SwitchMethod::TwoStep, None) => false,
            (SwitchMethod::TwoStep, Some(_)) => old.is_none(),
            (SwitchMethod::PerFile, _) => match self.read_list()? {
                Some(files) if staged.is_some() => {
                    self.per_file(&files)?;
                    false
                }
                // Nothing is staged: either all files are in place, or the kept generation was not moved yet.
                Some(_) => false,
                None => staged.is_some(),
            },
        };
        if undo {
            self.undo().at("undo the switch", &at)?;
            return Ok("undid");
        }
        if self.operation.way == SwitchMethod::TwoStep
            && staged.is_some()
            && let Some(parent) = &parent
        {
            if slot.is_some() {
                // A scan may have created the slot meanwhile. It is not a generation to keep.
                self.place.dir.remove(&self.names.trash).at("clear", self.place.dir.path())?;
                parent
                    .rename(self.slot.name(), &self.place.dir, &self.names.trash)
                    .at("move it away", &at)?;
            }
            self.place.dir.rename(&self.names.stage, parent, self.slot.name()).at("put it in place", &at)?;
        }
        self.finish().at("finish the switch", &at)?;
        Ok("finished")
    }

    fn carry_out(mut self, files: &BTreeSet<String>) -> Result<Switch, TargetError> {
        let at = self.root.at(self.slot.path());
        let how = match self.cascade(files) {
            Ok(how) => how,
            Err(TargetError::Unfinished { path, error }) => {
                return Err(TargetError::Unfinished { path, error });
            }
            Err(error) => {
                // The slot is unchanged. If a file cannot be removed now, the next import removes it.
                let _ = self.undo();
                return Err(error);
            }
        };
        self.finish().map_err(|error| TargetError::Unfinished { path: at, error })?;
        Ok(how)
    }

    /// Tries the three methods in turn. On an error the slot is unchanged, except after [`TargetError::Unfinished`].
    fn cascade(&mut self, files: &BTreeSet<String>) -> Result<Switch, TargetError> {
        let at = self.root.at(self.slot.path());
        let parent = self
            .root
            .open_or_make_path(self.slot.parent(), self.owner)
            .at("create the directory", self.root.at(self.slot.parent()))?;
        let name = self.slot.name().to_owned();
        if self.operation.way == SwitchMethod::Exchange {
            let exists = parent.find(&name).at("look it up", &at)?.is_some();
            let moved = if exists {
                parent.exchange(&name, &self.place.dir, &self.names.stage)
            } else {
                self.place.dir.rename(&self.names.stage, &parent, &name)
            };
            match moved {
                Ok(()) => return Ok(Switch::Atomic),
                Err(error) if dir::immovable(&error) => self.go_per_file(files)?,
                Err(error) if exists && dir::unsupported(&error) => {
                    // From here on, `old-…` means that the slot was moved away.
                    self.place.dir.remove(&self.names.old).at("clear", self.place.dir.at(&self.names.old))?;
                    self.operation.way = SwitchMethod::TwoStep;
                    self.record()?;
                }
                Err(error) => return Err(TargetError::io("switch", at, error)),
            }
        }
        if self.operation.way == SwitchMethod::TwoStep {
            match self.two_step(&parent, &name) {
                Ok(()) => return Ok(Switch::TwoStep),
                Err(TwoStepError::Immovable) => self.go_per_file(files)?,
                Err(TwoStepError::Undone(error)) => return Err(TargetError::io("switch", at, error)),
                Err(TwoStepError::Stuck(error)) => return Err(TargetError::Unfinished { path: at, error }),
            }
        }
        self.per_file(files)?;
        Ok(Switch::PerFile)
    }

    fn two_step(&mut self, parent: &Dir, name: &str) -> Result<(), TwoStepError> {
        match parent.rename(name, &self.place.dir, &self.names.old) {
            Ok(()) => {}
            Err(error) if dir::immovable(&error) => return Err(TwoStepError::Immovable),
            Err(error) => return Err(TwoStepError::Undone(error)),
        }
        let Err(error) = self.place.dir.rename(&self.names.stage, parent, name) else { return Ok(()) };
        match self.place.dir.rename(&self.names.old, parent, name) {
            Ok(()) => Err(TwoStepError::Undone(error)),
            Err(_) => Err(TwoStepError::Stuck(error)),
        }
    }

    fn go_per_file(&mut self, files: &BTreeSet<String>) -> Result<(), TargetError> {
        self.write_list(files)?;
        self.operation.way = SwitchMethod::PerFile;
        self.record()
    }

    fn per_file(&mut self, files: &BTreeSet<String>) -> Result<(), TargetError> {
        let at = self.root.at(self.slot.path());
        let mut run = || -> io::Result<()> {
            let slot = self.root.open_or_make_path(self.slot.path(), self.owner)?;
            let staged = self.place.dir.open(&self.names.stage)?;
            let old = if self.operation.keep {
                Some(self.place.dir.open_or_make(&self.names.old, FileMode::Shared(0o755), self.owner)?)
            } else {
                None
            };
            let kept = per_file::switch(&self.slot, &slot, &staged, old.as_ref(), files, self.owner)?;
            if self.operation.keep && !kept {
                // An incomplete generation is not kept. Record that before the sealing file is put in place.
                self.operation.keep = false;
                self.journal.set(self.work, &self.operation)?;
            }
            per_file::seal(&self.slot, &slot, &staged, old.as_ref())
        };
        run().map_err(|error| TargetError::Unfinished { path: at, error })
    }

    /// Keeps or removes the old generation, and removes the operation from the journal. Each step can be repeated.
    fn finish(&mut self) -> io::Result<()> {
        let place = &self.place.dir;
        // The parent directories may be new too.
        let mut dir = self.root.try_clone()?;
        dir.sync()?;
        for name in self.slot.parent().split('/').filter(|name| !name.is_empty()) {
            dir = match dir.open(name) {
                // It was removed after an interrupted run.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            };
            dir.sync()?;
        }
        place.sync()?;
        let left =
            if self.operation.way == SwitchMethod::Exchange { &self.names.stage } else { &self.names.old };
        if place.find(left)?.is_some() {
            if self.operation.keep && !self.is_empty(left)? {
                let previous = place.open_or_make(PREVIOUS, FileMode::working(0o700), None)?;
                if previous.find(&self.names.key)?.is_some() {
                    place.remove(&self.names.trash)?;
                    match previous.rename(&self.names.key, place, &self.names.trash) {
                        // A directory in an image layer cannot be moved, so it is removed in place.
                        Err(error) if dir::immovable(&error) => previous.remove(&self.names.key)?,
                        other => other?,
                    }
                }
                place.rename(left, &previous, &self.names.key)?;
                previous.sync()?;
            } else {
                place.remove(&self.names.trash)?;
                place.rename(left, place, &self.names.trash)?;
            }
            place.sync()?;
        }
        self.journal.clear(self.work, self.slot.path())?;
        // The switch is done. If a file cannot be removed now, the next import removes it.
        let _ = self.clear();
        Ok(())
    }

    fn is_empty(&self, name: &str) -> io::Result<bool> {
        Ok(self.place.dir.open(name)?.list()?.is_empty())
    }

    /// Undoes a switch whose slot is unchanged. A kept generation is moved back.
    pub fn undo(&mut self) -> io::Result<()> {
        let place = &self.place.dir;
        if self.operation.restore && place.find(&self.names.stage)?.is_some() {
            let previous = place.open_or_make(PREVIOUS, FileMode::working(0o700), None)?;
            if previous.find(&self.names.key)?.is_none() {
                place.rename(&self.names.stage, &previous, &self.names.key)?;
                place.sync()?;
            }
        }
        self.journal.clear(self.work, self.slot.path())?;
        self.clear()
    }

    fn clear(&self) -> io::Result<()> {
        for name in [&self.names.stage, &self.names.old, &self.names.trash, &self.names.list] {
            self.place.dir.remove(name)?;
        }
        working::tidy(self.root, &self.slot, &self.place)
    }

    fn record(&mut self) -> Result<(), TargetError> {
        self.journal.set(self.work, &self.operation).at("write the journal", self.work.path())
    }

    fn previous(&self) -> Result<Option<Dir>, TargetError> {
        self.open(&self.place.dir, PREVIOUS)
    }

    fn open(&self, dir: &Dir, name: &str) -> Result<Option<Dir>, TargetError> {
        working::open_real(dir, name)
    }

    fn find(&self, name: &str) -> Result<Option<dir::DirEntry>, TargetError> {
        self.place.dir.find(name).at("look it up", self.place.dir.at(name))
    }

    fn write_list(&self, files: &BTreeSet<String>) -> Result<(), TargetError> {
        let path = self.place.dir.at(&self.names.list);
        let bytes =
            serde_json::to_vec(files).map_err(io::Error::other).at("write the list of files", &path)?;
        let written = self.place.dir.replace(
            &self.names.list,
            &bytes,
            FileMode::working(0o600),
            None,
            Durability::Synced,
        );
        written.at("write the list of files", &path)
    }

    fn read_list(&self) -> Result<Option<BTreeSet<String>>, TargetError> {
        let path = self.place.dir.at(&self.names.list);
        let bytes =
            self.place.dir.read_small(&self.names.list, MAX_LIST).at("read the list of files", &path)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let unusable = |why: String| TargetError::Working { path: path.clone(), why };
        let files: BTreeSet<String> =
            serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        match files.iter().find(|file| !is_inside(file)) {
            Some(file) => Err(unusable(format!("it names \"{}\"", text::escape(file)))),
            None => Ok(Some(files)),
        }
    }
}

/// Whether a path stays below the directory that it is relative to.
fn is_inside(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

enum TwoStepError {
    /// The slot's directory cannot be moved.
    Immovable,
    /// The slot is unchanged.
    Undone(io::Error),
    /// The slot was moved away and could not be moved back.
    Stuck(io::Error),
}

/// The method by which a dataset was put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// One step.
    Atomic,
    /// Two renames, between which the slot was missing for a moment.
    TwoStep,
    /// One step for each file, metadata last.
    PerFile,
}

impl Switch {
    /// Returns the word for reports and JSON: `atomic`, `two-step`, `per-file`.
    pub fn as_str(self) -> &'static str {
        match self {
            Switch::Atomic => "atomic",
            Switch::TwoStep => "two-step",
            Switch::PerFile => "per-file",
        }
    }
}
