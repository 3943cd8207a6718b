//! The cache directory of Trivy as a target.
//!
//! A dataset is staged in a private directory on the file system of its slot, synced, and then switched. After a kill
//! or a power cut, the next [`Cache::open`] finishes or cleans up, so that each dataset is old or new. The old generation
//! is kept and can be restored. This module depends neither on bundles nor on signatures.
//!
//! The working files are `<cache>/.trivy-ferry/` (mode 0700: staging, the kept generations, the journal, the import
//! lock) and `<cache>/.trivy-ferry.lock` (mode 0644). A scan that must see a single generation can hold a shared lock
//! on the latter (`flock -s`). A slot that is a mount point has a `.trivy-ferry/` inside. In a cache directory that a
//! group shares (setgid and group-writable) the group has the same permissions as the owner on these files and on the
//! data.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::content_digest::ContentDigest;
use crate::progress::Progress;
use crate::targets::error::{At, TargetError};
use crate::util::dir::{self, Dir, FileMode, Owner};
use crate::util::file_lock::HeldLock;
use crate::util::fs;

mod journal;
mod layout;
mod metadata;
mod per_file;
mod preflight;
mod recovery;
mod stage;
mod switch;

#[cfg(test)]
mod tests;
mod view;
mod working;

pub use layout::{HARBOR_OWNER, Layout, Slot};
pub use metadata::{CachedDataset, Metadata};
pub use stage::Stage;
pub use switch::Switch;
pub use view::View;

use journal::Journal;
use switch::Switching;
use working::{PREVIOUS, WORK};

/// The file on which scans may hold a shared lock.
pub const SCAN_LOCK: &str = ".trivy-ferry.lock";
/// The time that a switch waits for running scans.
const SCAN_WAIT: Duration = Duration::from_secs(600);
/// The time after which a wait is reported.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// The options for a cache.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// The cache directory, which may be a symbolic link.
    pub dir: PathBuf,
    /// Its layout.
    pub layout: Layout,
    /// The owner of written files. `None` means the owner of the files in the slot, else of the cache directory. Only root
    /// can set it. Harbor's layout defaults to [`HARBOR_OWNER`].
    pub owner: Option<Owner>,
    /// Whether one previous generation of each dataset is kept. `false` removes the kept one before staging, to free
    /// space.
    pub keep_previous: bool,
}

/// A dataset that was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// Its slot.
    pub slot: Slot,
    /// The method of the switch.
    pub how: Switch,
}

/// The error of an activation in which some datasets may have succeeded.
#[derive(Debug)]
pub struct PartialActivation {
    /// The datasets that are in place.
    pub activated: Vec<Activated>,
    /// The others with their errors; never empty. Their old generation is in place, except after
    /// [`TargetError::Unfinished`].
    pub failed: Vec<(Slot, TargetError)>,
}

/// A cache directory with the exclusive import lock, which is released on drop.
pub struct Cache<'p> {
    view: View,
    work: Dir,
    journal: Journal,
    owner: Option<Owner>,
    keep_previous: bool,
    scan_wait: Duration,
    progress: &'p dyn Progress,
    _lock: HeldLock,
}

impl Deref for Cache<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl<'p> Cache<'p> {
    /// Opens a cache directory for an import: creates it if it is missing, takes the lock, finishes or undoes the switches
    /// of a killed run, and removes its leftover files.
    ///
    /// # Errors
    /// [`TargetError::NotADirectory`] or [`TargetError::Symlink`] if something else is at the path;
    /// [`TargetError::DatabaseDirectory`] if it is the directory of one database; [`TargetError::Owner`] if
    /// the wanted owner is another user and this user is not root; [`TargetError::Locked`] if another import uses it;
    /// [`TargetError::Foreign`] or [`TargetError::Working`] if the working directory or a file in it was not written by
    /// an import of this user; [`TargetError::ScanLock`] if an unfinished switch waits too long for
    /// a scan; [`TargetError::Unfinished`] if an unfinished switch cannot be completed; else the
    /// error of the system, converted by [`TargetError::io`].
    pub fn open(options: CacheOptions, progress: &'p dyn Progress) -> Result<Cache<'p>, TargetError> {
        let owner = match (options.owner, options.layout) {
            (None, Layout::Harbor) => Some(HARBOR_OWNER),
            (owner, _) => owner,
        };
        let root = open_root(&options.dir, owner)?;
        reject_database_directory(&root)?;
        if let Some(owner) = options.owner
            && dir::euid() != 0
            && owner.uid != dir::euid()
        {
            return Err(TargetError::Owner { path: root.path().into(), uid: owner.uid });
        }
        let work = working::private(&root)?;
        let lock =
            work.lock_file("lock", FileMode::working(0o600)).at("open the import lock", work.at("lock"))?;
        match dir::lock::try_lock(&lock).at("take the import lock", work.at("lock"))? {
            Some(true) => {}
            Some(false) => return Err(TargetError::Locked { path: root.path().into() }),
            None => {
                progress.info(&format!(
                    "The file system of {} does not support locks: make sure that only one import runs.",
                    root.path().display()
                ));
            }
        }
        let (journal, readable) = match Journal::read(&work).at("read the journal", work.at(journal::FILE))? {
            Some(journal) => (journal, true),
            None => (Journal::empty(), false),
        };
        let mut cache = Cache {
            view: View { root, layout: options.layout },
            work,
            journal,
            owner: if dir::euid() == 0 { owner } else { options.owner },
            keep_previous: options.keep_previous,
            scan_wait: SCAN_WAIT,
            progress,
            _lock: HeldLock::on(lock),
        };
        cache.recover(readable)?;
        Ok(cache)
    }

    /// Opens a cache directory for reading, without a lock. `None` if it does not exist.
    ///
    /// # Errors
    /// [`TargetError::NotADirectory`] if something else is at the path; [`TargetError::DatabaseDirectory`] if
    /// it is the directory of one database; else the error of the system if it cannot be opened.
    pub fn inspect(dir: &Path, layout: Layout) -> Result<Option<View>, TargetError> {
        match Dir::top(dir) {
            Ok(root) => {
                reject_database_directory(&root)?;
                Ok(Some(View { root, layout }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TargetError::io("open the cache directory", dir, error)),
        }
    }

    /// Whether [`View::holds`] is true and, if root set an owner, the data belongs to this owner.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of
    /// the directory; else the error of the system if a file cannot be read.
    pub fn holds(
        &self,
        slot: &Slot,
        contents: &crate::dataset::Contents,
        fresh: &Metadata,
    ) -> Result<bool, TargetError> {
        if let (Some(owner), 0) = (self.owner, dir::euid())
            && let Some(dir) = working::open_slot(&self.root, slot.path())?
            && dir.find(slot.main()).at("look it up", dir.path())?.is_some_and(|entry| entry.owner != owner)
        {
            return Ok(false);
        }
        self.view.holds(slot, contents, fresh)
    }

    /// Returns the main file of a database if the cache holds one of these versions, in place or as the kept generation,
    /// and the index of that version.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the
    /// place of a directory; [`TargetError::MountInside`] if the slot has a mount point inside; else the error of the
    /// system if a file cannot be read.
    pub fn base(
        &self,
        slot: &Slot,
        versions: &[(ContentDigest, u64)],
    ) -> Result<Option<(usize, File)>, TargetError> {
        if let Some(found) = self.view.base(slot, versions)? {
            return Ok(Some(found));
        }
        let (inside, _) = working::stands_apart(&self.root, &self.work, slot)?;
        match self.previous(slot, inside)? {
            Some(kept) => view::version_in(&kept, slot, versions),
            None => Ok(None),
        }
    }

    /// Creates an unnamed file in the working directory, on the file system that has room for a database.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn temporary(&self) -> io::Result<File> {
        fs::tempfile_in(&self.work.pinned())
    }

    /// Begins to stage a dataset in a private directory on the file system of its slot.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the
    /// place of a directory; [`TargetError::MountInside`] if the slot has a mount point inside;
    /// [`TargetError::Foreign`] if its working directory belongs to another user;
    /// [`TargetError::Unfinished`] if an earlier switch of it is incomplete; else the error of the
    /// system if the working directory cannot be prepared.
    pub fn stage(&self, slot: &Slot, metadata: Metadata) -> Result<Stage, TargetError> {
        if self.journal.has(slot.path()) {
            let error = io::Error::other("an earlier switch is unfinished");
            return Err(TargetError::Unfinished { path: self.root.at(slot.path()), error });
        }
        let owner = self.owner_for(slot)?;
        let place = working::place(&self.root, &self.work, slot, owner)?;
        if !self.keep_previous
            && let Some(previous) = working::open_real(&place.dir, PREVIOUS)?
        {
            previous.remove(slot.key()).at("remove the previous generation", previous.at(slot.key()))?;
        }
        Stage::new(&self.root, slot, place, metadata, owner)
    }

    /// Puts staged datasets in place one by one: seals and syncs each, then switches it while holding the scan lock. An
    /// error of one dataset does not affect the others.
    ///
    /// # Errors
    /// [`PartialActivation`] if a dataset cannot be sealed or switched, or the scan lock is not free in time. It lists the
    /// datasets that are in place, and the errors of the others.
    pub fn activate(&mut self, stages: Vec<Stage>) -> Result<Vec<Activated>, PartialActivation> {
        let (mut activated, mut failed, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
        for mut stage in stages {
            match stage.seal() {
                Ok(()) => sealed.push(stage),
                Err(error) => failed.push((stage.slot().clone(), error)),
            }
        }
        match if sealed.is_empty() { Ok(None) } else { self.lock_scans() } {
            Ok(_lock) => {
                for stage in sealed {
                    let slot = stage.slot().clone();
                    match self.switch(stage) {
                        Ok(how) => activated.push(Activated { slot, how }),
                        Err(error) => failed.push((slot, error)),
                    }
                }
            }
            Err(TargetError::ScanLock { path, waited }) => {
                let error = || TargetError::ScanLock { path: path.clone(), waited };
                failed.extend(sealed.iter().map(|stage| (stage.slot().clone(), error())));
            }
            Err(error) => {
                let again = error.to_string();
                let mut first = Some(error);
                let path = self.root.at(SCAN_LOCK);
                failed.extend(sealed.iter().map(|stage| {
                    let error = first.take().unwrap_or_else(|| TargetError::Io {
                        doing: "take the scan lock",
                        path: path.clone(),
                        error: io::Error::other(again.clone()),
                    });
                    (stage.slot().clone(), error)
                }));
            }
        }
        if failed.is_empty() { Ok(activated) } else { Err(PartialActivation { activated, failed }) }
    }

    /// Exchanges a slot with its kept generation. `None` if none is kept.
    ///
    /// # Errors
    /// [`TargetError::ScanLock`] if the scan lock is not free in time; [`TargetError::Symlink`],
    /// [`TargetError::NotADirectory`] or [`TargetError::MountInside`] if the slot cannot be
    /// switched; [`TargetError::Foreign`] if its working directory belongs to another user;
    /// [`TargetError::Unfinished`] if the switch is incomplete; else the error of the system.
    pub fn restore_previous(&mut self, slot: &Slot) -> Result<Option<Activated>, TargetError> {
        let (inside, _) = working::stands_apart(&self.root, &self.work, slot)?;
        if self.previous(slot, inside)?.is_none() {
            return Ok(None);
        }
        let owner = self.owner_for(slot)?;
        let _lock = self.lock_scans()?;
        let place = working::open_place(&self.root, &self.work, slot, inside, owner)?;
        let switching =
            Switching::new(&self.view.root, &self.work, &mut self.journal, slot.clone(), place, owner);
        Ok(switching.restore()?.map(|how| Activated { slot: slot.clone(), how }))
    }

    /// Returns the names of the VEX repositories with a kept generation.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if something else is in the place of the
    /// directory of kept generations; else the error of the system if it cannot be listed.
    pub fn kept_vex(&self) -> Result<Vec<String>, TargetError> {
        let Some(previous) = working::open_real(&self.work, PREVIOUS)? else { return Ok(Vec::new()) };
        let keys = previous.list().at("look it up", previous.path())?;
        let slots = keys.iter().filter_map(|key| Slot::from_key(key.to_str()?));
        Ok(slots
            .filter(|slot| slot.kind() == crate::dataset::Kind::Vex)
            .map(|slot| slot.name().to_owned())
            .collect())
    }

    /// Removes Trivy's scan cache, `fanal/`, as `trivy clean --scan-cache` does (Trivy v0.74.0,
    /// `pkg/cache/fs.go`). Returns whether there was one.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if it is a link or a file; else the error
    /// of the system if it cannot be removed.
    pub fn clear_scan_cache(&mut self) -> Result<bool, TargetError> {
        const SCAN_CACHE: &str = "fanal";
        const TRASH: &str = "trash-fanal";
        let root = &self.view.root;
        let path = root.at(SCAN_CACHE);
        let Some(dir) = working::open_real(root, SCAN_CACHE)? else { return Ok(false) };
        self.work.remove(TRASH).at("clear", self.work.at(TRASH))?;
        match root.rename(SCAN_CACHE, &self.work, TRASH) {
            Ok(()) => self.work.remove(TRASH).at("remove", self.work.at(TRASH))?,
            // Mount points and directories in the lower layer of an overlay cannot be moved.
            Err(error) if dir::immovable(&error) => {
                for name in dir.list().at("list", &path)? {
                    dir.remove(&name).at("remove", dir.at(&name))?;
                }
                let _ = root.remove_empty(SCAN_CACHE);
            }
            Err(error) => return Err(TargetError::io("remove", path, error)),
        }
        Ok(true)
    }

    fn switch(&mut self, stage: Stage) -> Result<Switch, TargetError> {
        let owner = self.owner_for(stage.slot())?;
        let keep = self.keep_previous && stage.keeps_replaced();
        let (slot, place, staged, files) = stage.hand_over()?;
        Switching::new(&self.view.root, &self.work, &mut self.journal, slot, place, owner)
            .apply(staged, &files, keep)
    }

    /// Returns the owner of files that are written to a slot; `None` unless this user is root or named an owner.
    fn owner_for(&self, slot: &Slot) -> Result<Option<Owner>, TargetError> {
        match self.owner {
            Some(owner) => Ok(Some(owner)),
            None if dir::euid() == 0 => working::default_owner(&self.root, slot).map(Some),
            None => Ok(None),
        }
    }

    fn working_directory(&self, slot: &Slot, inside: bool) -> Result<Option<Dir>, TargetError> {
        if !inside {
            return self.work.try_clone().map(Some).at("open", self.work.path());
        }
        match working::open_slot(&self.root, slot.path())? {
            Some(dir) => working::open_real(&dir, WORK),
            None => Ok(None),
        }
    }

    /// Opens the directory of the kept generation of a slot; `None` if none is kept.
    fn previous(&self, slot: &Slot, inside: bool) -> Result<Option<Dir>, TargetError> {
        let Some(directory) = self.working_directory(slot, inside)? else { return Ok(None) };
        let Some(previous) = working::open_real(&directory, PREVIOUS)? else { return Ok(None) };
        working::open_real(&previous, &slot.key())
    }

    /// Takes the scan lock, waiting for scans that hold it shared.
    fn lock_scans(&self) -> Result<Option<HeldLock>, TargetError> {
        let path = self.root.at(SCAN_LOCK);
        let file = self.root.lock_file(SCAN_LOCK, FileMode::Shared(0o644)).at("open the scan lock", &path)?;
        let start = Instant::now();
        let mut reported = false;
        loop {
            match dir::lock::try_lock(&file).at("take the scan lock", &path)? {
                Some(true) => return Ok(Some(HeldLock::on(file))),
                None => return Ok(None),
                Some(false) => {}
            }
            let waited = start.elapsed();
            if waited >= REPORT_AFTER && !reported {
                reported = true;
                self.progress
                    .info(&format!("Waiting for a running scan that holds the lock {}.", path.display()));
            }
            if waited >= self.scan_wait {
                return Err(TargetError::ScanLock { path, waited });
            }
            std::thread::sleep(Duration::from_millis(50).min(self.scan_wait - waited));
        }
    }
}

fn open_root(path: &Path, owner: Option<Owner>) -> Result<Dir, TargetError> {
    Dir::top_or_make(path, owner).at("open the cache directory", path)
}

/// Rejects `--cache-dir …/db`, which users give instead of `--cache-dir …`.
fn reject_database_directory(root: &Dir) -> Result<(), TargetError> {
    for name in ["trivy.db", "trivy-java.db"] {
        if root.find(name).at("look it up", root.at(name))?.is_some() {
            return Err(TargetError::DatabaseDirectory { path: root.path().into() });
        }
    }
    Ok(())
}
