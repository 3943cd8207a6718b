//! Working directories: where datasets are staged and the previous generation is kept, on the file system
//! of the slot. Knows slots and mounts; switches nothing.

use std::ffi::OsStr;

use crate::targets::cache::layout::Slot;
use crate::targets::error::{At, TargetError};
use crate::util::dir::{self, Dir, DirEntry, FileMode, Owner};
use crate::util::trusted::TrustedUsers;

/// The working folder's name, in the cache directory or inside a slot that is a mount of its own.
pub(crate) const WORK: &str = ".trivy-ferry";
/// The folder of kept generations in a working folder.
pub(crate) const PREVIOUS: &str = "previous";

/// The names of one slot's working files.
pub(crate) struct WorkingNames {
    /// The slot's key: the kept generation's name in [`PREVIOUS`].
    pub key: String,
    /// What is being staged.
    pub stage: String,
    /// What has been moved away.
    pub old: String,
    /// What is to be deleted.
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

/// Where a slot is staged.
pub(crate) struct WorkingPlace {
    /// The working folder.
    pub dir: Dir,
    /// Whether it stands inside the slot.
    pub inside: bool,
}

/// Opens a working directory that nobody else can have prepared, and creates it if it is missing.
///
/// It must be a real directory that belongs to this user, to root or, in a cache directory that a group of this
/// user shares, to that group: an import does what is written in it. Root shares with no group. File systems that show every file under one owner (FAT, some
/// network mounts) are recognized by a probe.
pub(crate) fn private(parent: &Dir) -> Result<Dir, TargetError> {
    let path = parent.at(WORK);
    match parent.find(WORK).at("look at the working folder", &path)? {
        None => {
            return parent.make(WORK, FileMode::working(0o700), None).at("make the working folder", &path);
        }
        Some(entry) if entry.is_symlink() => return Err(TargetError::Symlink { path }),
        Some(entry) if !entry.is_dir() => return Err(TargetError::NotADirectory { path }),
        Some(_) => {}
    }
    let dir = parent.open(WORK).at("open the working folder", &path)?;
    let above = parent.entry().at("look at the cache directory", parent.path())?;
    if dir::euid() != 0 {
        // One that an earlier version has made is for its owner alone.
        dir.share_as(&above).at("share the working folder", &path)?;
    }
    let entry = dir.entry().at("look at the working folder", &path)?;
    let owner = entry.owner.uid;
    let is_shared = || TrustedUsers::own().with_groups().judge_in(&above, &path, &entry).is_ok();
    let is_ours = [0, dir::euid()].contains(&owner) || is_shared();
    if !is_ours && !shows_as(&dir, owner).at("probe the working folder", &path)? {
        return Err(TargetError::Foreign { path, owner });
    }
    Ok(dir)
}

/// Whether a file that this user creates is shown as this owner's. The file is looked at through the
/// descriptor that created it: by its name, the owner of the directory could have another one looked at.
fn shows_as(dir: &Dir, owner: u32) -> std::io::Result<bool> {
    const PROBE: &str = "probe.tmp";
    dir.remove(PROBE)?;
    let probe = dir.create(PROBE, 0o600, None)?;
    let shown = DirEntry::of_file(&probe)?.owner.uid;
    dir.remove(PROBE)?;
    Ok(shown == owner)
}

/// Opens one directory below the cache directory, with words for whatever else stands there.
pub(crate) fn open_real(parent: &Dir, name: &str) -> Result<Option<Dir>, TargetError> {
    let path = parent.at(name);
    match parent.find(name).at("look", &path)? {
        None => Ok(None),
        Some(entry) if entry.is_symlink() => Err(TargetError::Symlink { path }),
        Some(entry) if !entry.is_dir() => Err(TargetError::NotADirectory { path }),
        Some(_) => parent.open(name).map(Some).at("open", &path),
    }
}

/// The directory at a relative path of real directories; `None` where one is missing.
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

/// The deepest directory on the way to a slot that exists, and whether it is the slot itself.
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

/// Whether the slot must be staged inside itself, because it stands on another mount or file
/// system than the cache's working folder; and a directory on the file system that it will use.
pub(crate) fn stands_apart(root: &Dir, work: &Dir, slot: &Slot) -> Result<(bool, Dir), TargetError> {
    let (dir, exists) = deepest(root, slot)?;
    let mount = dir.mount().at("look at the mount", dir.path())?;
    if exists {
        for name in dir.list().at("list", dir.path())? {
            if dir.mount_of(&name).at("look at the mount", dir.at(&name))? != mount {
                return Err(TargetError::MountInside { path: dir.at(&name) });
            }
        }
    }
    Ok((mount != work.mount().at("look at the mount", work.path())?, dir))
}

/// The slot's working folder, created where it is missing.
pub(crate) fn place(
    root: &Dir,
    work: &Dir,
    slot: &Slot,
    owner: Option<Owner>,
) -> Result<WorkingPlace, TargetError> {
    let (inside, _) = stands_apart(root, work, slot)?;
    open_place(root, work, slot, inside, owner)
}

/// The working folder that an operation was begun in.
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
    let dir = root.open_or_make_path(slot.path(), owner).at("make the folder", root.at(slot.path()))?;
    Ok(WorkingPlace { dir: private(&dir)?, inside })
}

/// Removes a working folder inside a slot when it holds nothing any more.
pub(crate) fn tidy(root: &Dir, slot: &Slot, place: &WorkingPlace) -> std::io::Result<()> {
    if place.inside
        && place.dir.remove_empty(PREVIOUS)?
        && let Some(dir) = root.open_path(slot.path())?
    {
        dir.remove_empty(WORK)?;
    }
    Ok(())
}

/// Whether a name in a working folder is left over once nothing is under way.
pub(crate) fn is_leftover(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["stage-", "old-", "trash-", "list-"].iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with(".tmp")
}

/// Who shall own what goes into a slot by default: who owns what is there, else the cache
/// directory's owner. Where root put a file into another user's folder, that user counts.
pub(crate) fn default_owner(root: &Dir, slot: &Slot) -> Result<Owner, TargetError> {
    let (dir, exists) = deepest(root, slot)?;
    let directory = dir.entry().at("look", dir.path())?.owner;
    let file = if exists { dir.find(slot.main()).at("look", dir.path())? } else { None };
    match file {
        Some(file) if file.owner.uid != 0 => Ok(file.owner),
        _ if exists => Ok(directory),
        _ => Ok(root.entry().at("look", root.path())?.owner),
    }
}
