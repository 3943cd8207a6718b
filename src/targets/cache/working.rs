//! Working directories, in which datasets are staged and the previous generation is kept, on the file system of the
//! slot. This module examines slots and mounts, and switches nothing.

use std::ffi::OsStr;

use crate::targets::cache::layout::Slot;
use crate::targets::error::{At, TargetError};
use crate::util::dir::{self, Dir, DirEntry, FileMode, Owner};
use crate::util::trusted::TrustedUsers;

/// The name of the working directory in the cache directory, or inside a slot that is a mount point.
pub(crate) const WORK: &str = ".trivy-ferry";
/// The directory of kept generations in a working directory.
pub(crate) const PREVIOUS: &str = "previous";

/// The names of the working files of one slot.
pub(crate) struct WorkingNames {
    /// The key of the slot, which is the name of the kept generation in [`PREVIOUS`].
    pub key: String,
    /// The dataset that is being staged.
    pub stage: String,
    /// The old dataset that was moved away.
    pub old: String,
    /// Files that will be deleted.
    pub trash: String,
    /// The list of all staged files, for a switch file by file.
    pub list: String,
}

impl WorkingNames {
    pub fn of(slot: &Slot) -> WorkingNames {
        let key = slot.key();
        WorkingNames {
            stage: format!("stage-{key}"),
            old: format!("old-{key}"),
            trash: format!("trash-{key}"),
            list: format!("list-{key}"),
            key,
        }
    }
}

/// The place where a slot is staged.
pub(crate) struct WorkingPlace {
    /// The working directory.
    pub dir: Dir,
    /// Whether it is inside the slot.
    pub inside: bool,
}

/// Opens a working directory that no untrusted user can have prepared, and creates it if it is missing.
///
/// It must be a real directory that belongs to this user, to root or, in a cache directory that a group of this user
/// shares, to that group, because an import follows the journal in it. A run as root accepts no group. A probe recognizes
/// file systems that show the same owner for all files (FAT, some network mounts).
pub(crate) fn private(parent: &Dir) -> Result<Dir, TargetError> {
    let path = parent.at(WORK);
    match parent.find(WORK).at("check the working directory", &path)? {
        None => {
            return parent
                .make(WORK, FileMode::working(0o700), None)
                .at("create the working directory", &path);
        }
        Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
        Some(entry) if !entry.is_dir() => return Err(TargetError::NotADirectory { path }),
        Some(_) => {}
    }
    let dir = parent.open(WORK).at("open the working directory", &path)?;
    let above = parent.entry().at("check the cache directory", parent.path())?;
    if dir::euid() != 0 {
        // Earlier versions created it for the owner only.
        dir.share_as(&above).at("share the working directory", &path)?;
    }
    let entry = dir.entry().at("check the working directory", &path)?;
    let owner = entry.owner.uid;
    let is_shared = || TrustedUsers::own().with_groups().judge_in(&above, &path, &entry).is_ok();
    let is_ours = [0, dir::euid()].contains(&owner) || is_shared();
    if !is_ours && !shows_as(&dir, owner).at("probe the working directory", &path)? {
        return Err(TargetError::Foreign { path, owner });
    }
    Ok(dir)
}

/// Whether a file that this user creates is shown with this owner. It is checked through its descriptor, because the
/// owner of the directory could replace the file under its name.
fn shows_as(dir: &Dir, owner: u32) -> std::io::Result<bool> {
    const PROBE: &str = "probe.tmp";
    dir.remove(PROBE)?;
    let probe = dir.create(PROBE, 0o600, None)?;
    let shown = DirEntry::of_file(&probe)?.owner.uid;
    dir.remove(PROBE)?;
    Ok(shown == owner)
}

/// Opens a directory below the cache directory. Returns an error for a link or another file in its place.
pub(crate) fn open_real(parent: &Dir, name: &str) -> Result<Option<Dir>, TargetError> {
    let path = parent.at(name);
    match parent.find(name).at("look it up", &path)? {
        None => Ok(None),
        Some(entry) if entry.is_symlink() => Err(TargetError::Symlink { path }),
        Some(entry) if !entry.is_dir() => Err(TargetError::NotADirectory { path }),
        Some(_) => parent.open(name).map(Some).at("open", &path),
    }
}

/// Opens the directory at a relative path of real directories; `None` if one is missing.
pub(crate) fn open_slot(root: &Dir, path: &str) -> Result<Option<Dir>, TargetError> {
    let mut dir = root.try_clone().at("open", root.path())?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match open_real(&dir, name)? {
            Some(inner) => dir = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// Returns the deepest existing directory on the path of a slot, and whether it is the slot itself.
pub(crate) fn deepest(root: &Dir, slot: &Slot) -> Result<(Dir, bool), TargetError> {
    let mut dir = root.try_clone().at("open", root.path())?;
    for name in slot.path().split('/') {
        match open_real(&dir, name)? {
            Some(inner) => dir = inner,
            None => return Ok((dir, false)),
        }
    }
    Ok((dir, true))
}

/// Returns whether the slot must be staged inside itself, because it is on another mount than the working directory of
/// the cache. Also returns a directory on the file system of the slot.
pub(crate) fn stands_apart(root: &Dir, work: &Dir, slot: &Slot) -> Result<(bool, Dir), TargetError> {
    let (dir, exists) = deepest(root, slot)?;
    let mount = dir.mount().at("determine the mount", dir.path())?;
    if exists {
        for name in dir.list().at("list", dir.path())? {
            if dir.mount_of(&name).at("determine the mount", dir.at(&name))? != mount {
                return Err(TargetError::MountInside { path: dir.at(&name) });
            }
        }
    }
    Ok((mount != work.mount().at("determine the mount", work.path())?, dir))
}

/// Returns the working directory of the slot, and creates it if it is missing.
pub(crate) fn place(
    root: &Dir,
    work: &Dir,
    slot: &Slot,
    owner: Option<Owner>,
) -> Result<WorkingPlace, TargetError> {
    let (inside, _) = stands_apart(root, work, slot)?;
    open_place(root, work, slot, inside, owner)
}

/// Opens the working directory in which an operation was begun.
pub(crate) fn open_place(
    root: &Dir,
    work: &Dir,
    slot: &Slot,
    inside: bool,
    owner: Option<Owner>,
) -> Result<WorkingPlace, TargetError> {
    if !inside {
        return Ok(WorkingPlace { dir: work.try_clone().at("open", work.path())?, inside });
    }
    let dir = root.open_or_make_path(slot.path(), owner).at("create the directory", root.at(slot.path()))?;
    Ok(WorkingPlace { dir: private(&dir)?, inside })
}

/// Removes a working directory inside a slot if it is empty.
pub(crate) fn tidy(root: &Dir, slot: &Slot, place: &WorkingPlace) -> std::io::Result<()> {
    if place.inside
        && place.dir.remove_empty(PREVIOUS)?
        && let Some(dir) = root.open_path(slot.path())?
    {
        dir.remove_empty(WORK)?;
    }
    Ok(())
}

/// Whether a file with this name in a working directory is a leftover file if no switch is under way.
pub(crate) fn is_leftover(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["stage-", "old-", "trash-", "list-"].iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with(".tmp")
}

/// Returns the default owner of files in a slot: the owner of the existing files, else of the cache directory. If root
/// put a file into the directory of another user, that user is the owner.
pub(crate) fn default_owner(root: &Dir, slot: &Slot) -> Result<Owner, TargetError> {
    let (dir, exists) = deepest(root, slot)?;
    let directory = dir.entry().at("look it up", dir.path())?.owner;
    let file = if exists { dir.find(slot.main()).at("look it up", dir.path())? } else { None };
    match file {
        Some(file) if file.owner.uid != 0 => Ok(file.owner),
        _ if exists => Ok(directory),
        _ => Ok(root.entry().at("look it up", root.path())?.owner),
    }
}
