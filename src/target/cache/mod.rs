//! Trivy's cache directory as a target.
//!
//! A dataset is staged in a private folder on its slot's own file system, made durable, and then
//! switched. A kill or a power cut at any moment leaves each dataset old or new, and the next
//! [`Cache::open`] finishes or cleans up. The old generation is kept and can be brought back.
//!
//! Working files: `<cache>/.trivy-ferry/` (mode 0700: staging, the kept generations, the journal,
//! the import lock) and `<cache>/.trivy-ferry.lock` (mode 0644), which a scan that must not
//! straddle a switch may hold shared (`flock -s`). A slot that is a mount of its own has a
//! `.trivy-ferry/` inside.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::progress::Progress;
use crate::text;

use super::error::{At, TargetError};
use super::sys::{self, Dir, Mount, Owner, Room};

mod journal;
mod layout;
mod metadata;
mod per_file;
mod stage;
mod switch;
#[cfg(test)]
mod tests;
mod view;
mod working;

pub use layout::{HARBOR_OWNER, Layout, Slot};
pub use metadata::{Installed, Metadata};
pub use stage::Stage;
pub use view::View;

use journal::Journal;
use switch::Switching;
use working::{PREVIOUS, Place, WORK};

/// The file that scans may hold shared.
pub const SCAN_LOCK: &str = ".trivy-ferry.lock";
/// How long a switch waits for running scans.
const SCAN_WAIT: Duration = Duration::from_secs(600);
/// After how long a wait is worth a note.
const NOTE_AFTER: Duration = Duration::from_secs(1);

/// Which cache, and how to write to it.
#[derive(Debug, Clone)]
pub struct CacheOptions {
    /// The cache directory; may itself be a symbolic link.
    pub dir: PathBuf,
    /// Whose layout it has.
    pub layout: Layout,
    /// Who shall own what is written. `None`: the owner of what is in the slot, else of the cache
    /// directory. Has an effect only for root; Harbor's layout defaults to [`HARBOR_OWNER`].
    pub owner: Option<Owner>,
    /// Whether one previous generation of each dataset is kept. `false` removes the kept one
    /// before staging, to make room.
    pub keep_previous: bool,
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

/// A dataset that has taken its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// Its place.
    pub slot: Slot,
    /// How it got there.
    pub how: Switch,
}

/// What was activated, and what was not and why.
#[derive(Debug)]
pub struct NotAll {
    /// The datasets that are in place.
    pub activated: Vec<Activated>,
    /// The others; never empty. Their old generation is in place, but for
    /// [`TargetError::Unfinished`].
    pub failed: Vec<(Slot, TargetError)>,
}

/// A cache directory under the exclusive import lock, which is held while this lives.
pub struct Cache<'p> {
    view: View,
    work: Dir,
    journal: Journal,
    owner: Option<Owner>,
    keep_previous: bool,
    scan_wait: Duration,
    progress: &'p dyn Progress,
    _lock: File,
}

impl Deref for Cache<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl<'p> Cache<'p> {
    /// Opens a cache directory for an import: makes it if it is missing, takes the lock, and
    /// finishes or cleans up what a killed run has left, saying so through `progress`.
    ///
    /// # Errors
    /// Something else stands there, the directory is a database's own folder, another import is at
    /// work, the working folder belongs to someone else, or the system refuses.
    pub fn open(options: CacheOptions, progress: &'p dyn Progress) -> Result<Cache<'p>, TargetError> {
        let root = open_root(&options.dir, options.owner)?;
        refuse_database_folder(&root)?;
        let owner = match (options.owner, options.layout) {
            (None, Layout::Harbor) => Some(HARBOR_OWNER),
            (owner, _) => owner,
        };
        if let Some(owner) = options.owner
            && sys::euid() != 0
            && owner.uid != sys::euid()
        {
            return Err(TargetError::Owner { path: root.path().into(), uid: owner.uid });
        }
        let work = working::private(&root)?;
        let lock = work.lock_file("lock", 0o600).at("open the import lock", work.at("lock"))?;
        match sys::try_lock(&lock).at("take the import lock", work.at("lock"))? {
            Some(true) => {}
            Some(false) => return Err(TargetError::Locked { path: root.path().into() }),
            None => progress.note("This file system has no locks: make sure that only one import runs."),
        }
        let (journal, readable) = match Journal::read(&work).at("read the journal", work.at(journal::FILE))? {
            Some(journal) => (journal, true),
            None => (Journal::empty(), false),
        };
        let mut cache = Cache {
            view: View { root, layout: options.layout },
            work,
            journal,
            owner: if sys::euid() == 0 { owner } else { options.owner },
            keep_previous: options.keep_previous,
            scan_wait: SCAN_WAIT,
            progress,
            _lock: lock,
        };
        cache.recover(readable)?;
        Ok(cache)
    }

    /// A look without a lock, for what only asks. `None`: there is no such directory.
    ///
    /// # Errors
    /// Something else stands there, or it cannot be read.
    pub fn inspect(dir: &Path, layout: Layout) -> Result<Option<View>, TargetError> {
        match Dir::top(dir) {
            Ok(root) => {
                refuse_database_folder(&root)?;
                Ok(Some(View { root, layout }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TargetError::io("open the cache directory", dir, error)),
        }
    }

    /// As [`View::holds`]; and, where an owner was asked for by number, whether it owns the data.
    ///
    /// # Errors
    /// As for [`View::installed`].
    pub fn holds(
        &self,
        slot: &Slot,
        contents: &crate::dataset::Contents,
        fresh: &Metadata,
    ) -> Result<bool, TargetError> {
        if let (Some(owner), 0) = (self.owner, sys::euid())
            && let Some(dir) = working::open_slot(&self.root, slot.path())?
            && dir.find(slot.main()).at("look", dir.path())?.is_some_and(|entry| entry.owner != owner)
        {
            return Ok(false);
        }
        self.view.holds(slot, contents, fresh)
    }

    /// Whether there is room for what is coming: each slot with the bytes and the number of files
    /// that it unpacks to. Counts what `keep_previous: false` will free.
    ///
    /// # Errors
    /// [`TargetError::Space`] and [`TargetError::Inodes`]; also whatever would keep a slot from
    /// being staged at all, such as a symbolic link in its place.
    pub fn preflight(&self, incoming: &[(Slot, u64, u64)]) -> Result<(), TargetError> {
        let mut needs: HashMap<Mount, Need> = HashMap::new();
        for (slot, bytes, files) in incoming {
            let (inside, dir) = working::stands_apart(&self.root, &self.work, slot)?;
            let dir = if inside { dir } else { self.work.try_clone().at("open", self.work.path())? };
            let mount = dir.mount().at("look at the mount", dir.path())?;
            let room = dir.room().at("look for free space", dir.path())?;
            let freed = if self.keep_previous { 0 } else { self.previous_size(slot, inside)? };
            let need = needs.entry(mount).or_insert_with(|| Need::new(dir.path().into(), room));
            // A file takes whole blocks, and half a block more for its name and its inode.
            let padding = files.saturating_mul(room.block);
            need.bytes = need.bytes.saturating_add(*bytes).saturating_add(padding);
            need.files = need.files.saturating_add(*files).saturating_add(files / 4 + 8);
            need.freed = need.freed.saturating_add(freed);
            if need.largest.as_ref().is_none_or(|(most, _)| most < bytes) {
                need.largest = Some((*bytes, slot.dataset()));
            }
        }
        needs.into_values().try_for_each(|need| need.check(self.keep_previous, incoming.len()))
    }

    /// Begins to stage a dataset: a private folder on the slot's own file system.
    ///
    /// # Errors
    /// The slot is a symbolic link or has a mount inside, a switch of it is unfinished, or the
    /// system refuses.
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

    /// Puts staged datasets in place, one after the other: each is sealed and made durable, then,
    /// under the scan lock, switched. One that fails leaves the others in peace.
    ///
    /// # Errors
    /// Which did and which did not.
    pub fn activate(&mut self, stages: Vec<Stage>) -> Result<Vec<Activated>, NotAll> {
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
        if failed.is_empty() { Ok(activated) } else { Err(NotAll { activated, failed }) }
    }

    /// Exchanges a slot with its kept generation. `None`: none is kept.
    ///
    /// # Errors
    /// As for one dataset of [`Cache::activate`].
    pub fn restore_previous(&mut self, slot: &Slot) -> Result<Option<Activated>, TargetError> {
        let (inside, _) = working::stands_apart(&self.root, &self.work, slot)?;
        if !self.has_previous(slot, inside)? {
            return Ok(None);
        }
        let owner = self.owner_for(slot)?;
        let _lock = self.lock_scans()?;
        let place = working::open_place(&self.root, &self.work, slot, inside, owner)?;
        let switching =
            Switching::new(&self.view.root, &self.work, &mut self.journal, slot.clone(), place, true, owner);
        Ok(switching.restore()?.map(|how| Activated { slot: slot.clone(), how }))
    }

    /// Removes Trivy's scan cache, `fanal/`, as `trivy clean --scan-cache` does (Trivy v0.74.0,
    /// pkg/cache/fs.go). Whether there was one.
    ///
    /// # Errors
    /// It is a symbolic link, or the system refuses.
    pub fn clear_scan_cache(&mut self) -> Result<bool, TargetError> {
        const SCAN_CACHE: &str = "fanal";
        const TRASH: &str = "trash-fanal";
        let root = &self.view.root;
        let path = root.at(SCAN_CACHE);
        let Some(dir) = working::open_real(root, SCAN_CACHE)? else { return Ok(false) };
        self.work.remove(TRASH).at("clear", self.work.at(TRASH))?;
        match root.rename(SCAN_CACHE, &self.work, TRASH) {
            Ok(()) => self.work.remove(TRASH).at("remove", self.work.at(TRASH))?,
            // It cannot be moved: a mount, or part of an overlay's lower layer.
            Err(error) if sys::immovable(&error) => {
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
        let (slot, place, staged, files) = stage.hand_over()?;
        let keep = self.keep_previous;
        Switching::new(&self.view.root, &self.work, &mut self.journal, slot, place, keep, owner)
            .run(staged, &files)
    }

    /// Who gets what is written to a slot; nobody in particular unless this is root.
    fn owner_for(&self, slot: &Slot) -> Result<Option<Owner>, TargetError> {
        match self.owner {
            Some(owner) => Ok(Some(owner)),
            None if sys::euid() == 0 => working::default_owner(&self.root, slot).map(Some),
            None => Ok(None),
        }
    }

    fn working_folder(&self, slot: &Slot, inside: bool) -> Result<Option<Dir>, TargetError> {
        if !inside {
            return self.work.try_clone().map(Some).at("open", self.work.path());
        }
        match working::open_slot(&self.root, slot.path())? {
            Some(dir) => working::open_real(&dir, WORK),
            None => Ok(None),
        }
    }

    fn has_previous(&self, slot: &Slot, inside: bool) -> Result<bool, TargetError> {
        let Some(folder) = self.working_folder(slot, inside)? else { return Ok(false) };
        let Some(previous) = working::open_real(&folder, PREVIOUS)? else { return Ok(false) };
        Ok(working::open_real(&previous, &slot.key())?.is_some())
    }

    fn previous_size(&self, slot: &Slot, inside: bool) -> Result<u64, TargetError> {
        let mut size = 0u64;
        if let Some(folder) = self.working_folder(slot, inside)?
            && let Some(previous) = working::open_real(&folder, PREVIOUS)?
            && let Some(kept) = working::open_real(&previous, &slot.key())?
        {
            kept.walk(|_, _, _, entry| {
                size = size.saturating_add(entry.size);
                Ok(())
            })
            .at("look", kept.path())?;
        }
        Ok(size)
    }

    /// Takes the scan lock, waiting for scans that hold it shared.
    fn lock_scans(&self) -> Result<Option<File>, TargetError> {
        let path = self.root.at(SCAN_LOCK);
        let file = self.root.lock_file(SCAN_LOCK, 0o644).at("open the scan lock", &path)?;
        let start = Instant::now();
        let mut noted = false;
        loop {
            match sys::try_lock(&file).at("take the scan lock", &path)? {
                Some(true) => return Ok(Some(file)),
                None => return Ok(None),
                Some(false) => {}
            }
            let waited = start.elapsed();
            if waited >= self.scan_wait {
                return Err(TargetError::ScanLock { path, waited });
            }
            if waited >= NOTE_AFTER && !noted {
                noted = true;
                self.progress.note(&format!("Waiting for a running scan that holds {}.", path.display()));
            }
            std::thread::sleep(Duration::from_millis(50).min(self.scan_wait - waited));
        }
    }

    /// Finishes or undoes what the journal names, then removes what a killed run has left.
    fn recover(&mut self, journal_readable: bool) -> Result<(), TargetError> {
        if !journal_readable {
            self.progress.note("The journal of an earlier import cannot be read; cleaning up without it.");
        }
        let operations = self.journal.operations().to_vec();
        if !operations.is_empty() {
            let _lock = self.lock_scans()?;
            for operation in operations {
                let Some(slot) = Slot::from_path(&operation.slot) else { continue };
                let owner = self.owner_for(&slot)?;
                let place = working::open_place(&self.view.root, &self.work, &slot, operation.inside, owner)?;
                let root = &self.view.root;
                let mut switching =
                    Switching::new(root, &self.work, &mut self.journal, slot.clone(), place, false, owner);
                switching.operation = operation;
                let did = switching.resume()?;
                self.progress.note(&format!("An earlier import was cut short: {did} its switch of {slot}."));
            }
        }
        let mut removed = self.clean(&self.work)?;
        for slot in self.all_slots()? {
            let Some(dir) = working::open_slot(&self.root, slot.path()).ok().flatten() else { continue };
            if dir.find(WORK).at("look", dir.path())?.is_some() {
                let place = Place { dir: working::private(&dir)?, inside: true };
                removed += self.clean(&place.dir)?;
                working::tidy(&self.root, &slot, &place).at("clean up", place.dir.path())?;
            }
        }
        if !journal_readable {
            self.work.remove(journal::FILE).at("remove the journal", self.work.at(journal::FILE))?;
        }
        if removed > 0 {
            self.progress.note("Removed what an interrupted import had left.");
        }
        Ok(())
    }

    /// Removes leftovers from a working folder. A generation that was moved away and whose slot is
    /// missing goes back there first.
    fn clean(&self, folder: &Dir) -> Result<u32, TargetError> {
        let mut removed = 0;
        for name in folder.list().at("list", folder.path())? {
            if !working::is_leftover(&name) {
                continue;
            }
            if let Some(slot) =
                name.to_str().and_then(|name| name.strip_prefix("old-")).and_then(Slot::from_key)
                && let Some(parent) = working::open_slot(&self.root, slot.parent())?
                && parent.find(slot.name()).at("look", parent.at(slot.name()))?.is_none()
            {
                folder.rename(&name, &parent, slot.name()).at("bring back", parent.at(slot.name()))?;
                self.progress.note(&format!("Brought {slot} back from an interrupted import."));
                continue;
            }
            folder.remove(&name).at("clean up", folder.at(&name))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Every slot that this cache may have.
    fn all_slots(&self) -> Result<Vec<Slot>, TargetError> {
        let mut slots: Vec<Slot> =
            ["db", "java-db", "policy"].into_iter().filter_map(Slot::from_path).collect();
        if let Some(dir) = working::open_slot(&self.root, "vex/repositories").ok().flatten() {
            let names = dir.list().at("list", dir.path())?;
            let names = names.iter().filter_map(|name| name.to_str());
            slots.extend(names.filter_map(|name| Slot::from_path(&format!("vex/repositories/{name}"))));
        }
        Ok(slots)
    }
}

/// What is needed on one file system.
struct Need {
    path: PathBuf,
    room: Room,
    bytes: u64,
    files: u64,
    freed: u64,
    largest: Option<(u64, String)>,
}

impl Need {
    fn new(path: PathBuf, room: Room) -> Self {
        Need { path, room, bytes: 0, files: 0, freed: 0, largest: None }
    }

    fn check(self, keep_previous: bool, incoming: usize) -> Result<(), TargetError> {
        let available = self.room.bytes.saturating_add(self.freed);
        if self.bytes > available {
            let mut ways = Vec::new();
            if keep_previous {
                ways.push("--keep-previous 0".to_owned());
            }
            if let Some((_, name)) = self.largest
                && incoming > 1
            {
                ways.push(format!("--skip {name}"));
            }
            let missing = text::size(self.bytes - available);
            let advice = match ways.join(" or ") {
                ways if ways.is_empty() => format!("Nothing was changed: free {missing} there."),
                ways => format!("Nothing was changed: free {missing} there, or use {ways}."),
            };
            return Err(TargetError::Space { path: self.path, needed: self.bytes, available, advice });
        }
        match self.room.inodes {
            Some(inodes) if self.files > inodes => {
                Err(TargetError::Inodes { path: self.path, needed: self.files, available: inodes })
            }
            _ => Ok(()),
        }
    }
}

fn open_root(path: &Path, owner: Option<Owner>) -> Result<Dir, TargetError> {
    const DOING: &str = "open the cache directory";
    if let Err(error) = std::fs::metadata(path) {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(TargetError::io(DOING, path, error));
        }
        std::fs::create_dir_all(path).at("make the cache directory", path)?;
        if let (Some(owner), 0) = (owner, sys::euid()) {
            // Only the directory that was just made, and never through a link.
            let _ = std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid));
        }
    }
    let path = std::fs::canonicalize(path).at(DOING, path)?;
    Dir::top(&path).at(DOING, &path)
}

/// `--cache-dir …/db` in place of `--cache-dir …`.
fn refuse_database_folder(root: &Dir) -> Result<(), TargetError> {
    for name in ["trivy.db", "trivy-java.db"] {
        if root.find(name).at("look", root.at(name))?.is_some() {
            return Err(TargetError::DatabaseFolder { path: root.path().into() });
        }
    }
    Ok(())
}
