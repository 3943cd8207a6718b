//! The switch: puts a staged dataset in place, and finishes or undoes a switch that was interrupted.
//!
//! There are three ways. Each is tried if the one before is not possible:
//!
//! 1. *Exchange* (`renameat2` with `RENAME_EXCHANGE`): the slot and the staged directory change
//!    places in one step. If the slot does not exist yet, this is a plain rename.
//! 2. *Two steps*, if the file system cannot exchange (FAT, FUSE): the slot moves to `old-…`, then
//!    the staged directory gets its name.
//! 3. *File by file*, if the directory cannot be moved (a mount point, a lower layer of an
//!    overlay): see `per_file`.
//!
//! The journal names the way before its first step. After a kill the files show how far it came:
//!
//! | way        | seen                                   | the slot is | so                      |
//! |------------|----------------------------------------|-------------|-------------------------|
//! | exchange   | no staged directory                    | new         | finish                  |
//! | exchange   | the slot's inode is the staged one's   | new         | finish                  |
//! | exchange   | otherwise                              | old         | undo: drop what is staged |
//! | two steps  | `old-…` exists, staged directory too   | missing     | go on, finish           |
//! | two steps  | no staged directory                    | new         | finish                  |
//! | two steps  | otherwise                              | old         | undo                    |
//! | per file   | the list of files exists               | mixed       | go on, finish           |
//! | per file   | no list of files                       | new, or old | finish, or undo         |
//!
//! *Finish* keeps or removes the old generation and removes the entry of the journal. Each of its steps
//! can be repeated.

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

/// The longest list of files that is read, in bytes: 500,000 files with paths of 64 bytes.
const MAX_LIST: u64 = 32 << 20;

/// Everything that one slot's switch touches.
pub(crate) struct Switching<'a> {
    pub root: &'a Dir,
    pub work: &'a Dir,
    pub journal: &'a mut Journal,
    pub slot: Slot,
    pub place: WorkingPlace,
    pub names: WorkingNames,
    pub operation: Operation,
    /// The owner of folders that have to be made.
    pub owner: Option<Owner>,
}

impl<'a> Switching<'a> {
    /// A switch of what is staged in `place`.
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

    /// Puts the staged files in place. `keep` says whether what they replace is kept for a later restore.
    ///
    /// # Errors
    /// The error of the step that failed; the slot is as it was. If that is no longer possible,
    /// [`TargetError::Unfinished`]: the journal keeps what is left to do.
    pub fn apply(mut self, staged: u64, files: &BTreeSet<String>, keep: bool) -> Result<Switch, TargetError> {
        (self.operation.staged, self.operation.keep) = (staged, keep);
        if let Err(error) = self.announce(files) {
            let _ = self.undo();
            return Err(error);
        }
        self.carry_out(files)
    }

    /// Writes what is about to happen.
    fn announce(&mut self, files: &BTreeSet<String>) -> Result<(), TargetError> {
        if self.operation.way == SwitchMethod::PerFile {
            self.write_list(files)?;
        }
        self.record()
    }

    /// Puts the kept generation in place and keeps the present one. `None`: there is none.
    pub fn restore(mut self) -> Result<Option<Switch>, TargetError> {
        let Some(previous) = self.previous()? else { return Ok(None) };
        let Some(kept) = self.open(&previous, &self.names.key)? else { return Ok(None) };
        self.operation.staged = kept.entry().at("look", kept.path())?.inode;
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
            return Err(TargetError::io("take the kept generation", previous.path(), error));
        }
        self.carry_out(&files).map(Some)
    }

    /// Finishes or undoes an operation of an earlier run, and says which in words.
    pub fn resume(mut self) -> Result<&'static str, TargetError> {
        let at = self.root.at(self.slot.path());
        let staged = self.find(&self.names.stage)?;
        let old = self.find(&self.names.old)?;
        let parent = working::open_slot(self.root, self.slot.parent())?;
        let slot = match &parent {
            Some(parent) => parent.find(self.slot.name()).at("look", &at)?,
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
                // Nothing staged: all is in place, or the kept generation was never taken.
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
                // Whatever a scan has put there meanwhile is not a generation of ours.
                self.place.dir.remove(&self.names.trash).at("clear", self.place.dir.path())?;
                parent.rename(self.slot.name(), &self.place.dir, &self.names.trash).at("move away", &at)?;
            }
            self.place.dir.rename(&self.names.stage, parent, self.slot.name()).at("put in place", &at)?;
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
                // The slot is as it was. What cannot be removed now is removed by the next import.
                let _ = self.undo();
                return Err(error);
            }
        };
        self.finish().map_err(|error| TargetError::Unfinished { path: at, error })?;
        Ok(how)
    }

    /// Tries the three ways in turn. On an error the slot is as it was, but for
    /// [`TargetError::Unfinished`].
    fn cascade(&mut self, files: &BTreeSet<String>) -> Result<Switch, TargetError> {
        let at = self.root.at(self.slot.path());
        let parent = self
            .root
            .open_or_make_path(self.slot.parent(), self.owner)
            .at("make the folder", self.root.at(self.slot.parent()))?;
        let name = self.slot.name().to_owned();
        if self.operation.way == SwitchMethod::Exchange {
            let exists = parent.find(&name).at("look", &at)?.is_some();
            let moved = if exists {
                parent.exchange(&name, &self.place.dir, &self.names.stage)
            } else {
                self.place.dir.rename(&self.names.stage, &parent, &name)
            };
            match moved {
                Ok(()) => return Ok(Switch::Atomic),
                Err(error) if dir::immovable(&error) => self.go_per_file(files)?,
                Err(error) if exists && dir::unsupported(&error) => {
                    // From here on, `old-…` is the sign that the slot has moved away.
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
                // A generation with holes is none: say so before the file that seals the new one.
                self.operation.keep = false;
                self.journal.set(self.work, &self.operation)?;
            }
            per_file::seal(&self.slot, &slot, &staged, old.as_ref())
        };
        run().map_err(|error| TargetError::Unfinished { path: at, error })
    }

    /// Keeps or drops the old generation, and forgets the operation. Every step can be repeated.
    fn finish(&mut self) -> io::Result<()> {
        let place = &self.place.dir;
        // The folders on the way may be new as well.
        let mut dir = self.root.try_clone()?;
        dir.sync()?;
        for name in self.slot.parent().split('/').filter(|name| !name.is_empty()) {
            dir = match dir.open(name) {
                // Cleared away since a run that was cut short.
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
                        // An image layer may hold it; then it goes where it stands.
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
        // The switch is done. What cannot be removed now is removed by the next import.
        let _ = self.clear();
        Ok(())
    }

    fn is_empty(&self, name: &str) -> io::Result<bool> {
        Ok(self.place.dir.open(name)?.list()?.is_empty())
    }

    /// Gives up: the slot is as it was. A kept generation returns to its place.
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
        self.place.dir.find(name).at("look", self.place.dir.at(name))
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
    /// The slot is as it was.
    Undone(io::Error),
    /// The slot is away and could not be brought back.
    Stuck(io::Error),
}

/// How a dataset took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// In one step.
    Atomic,
    /// In two renames, between which the slot was missing for an instant.
    TwoStep,
    /// File by file, metadata last.
    PerFile,
}

impl Switch {
    /// The word for reports and JSON: `atomic`, `two-step`, `per-file`.
    pub fn as_str(self) -> &'static str {
        match self {
            Switch::Atomic => "atomic",
            Switch::TwoStep => "two-step",
            Switch::PerFile => "per-file",
        }
    }
}
