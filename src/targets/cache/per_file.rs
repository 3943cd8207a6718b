//! The switch file by file, for a slot whose directory cannot be moved: renames new files over old ones, removes files
//! that the new content does not have, and puts the sealing file, by which Trivy decides whether the dataset is valid,
//! in place last.
//!
//! Each step can be repeated, because a file that is no longer staged is in place. Another run with the same list
//! completes an interrupted switch.

use std::collections::BTreeSet;
use std::io;

use crate::targets::cache::layout::Slot;
use crate::targets::cache::working::WORK;
use crate::util::dir::{Dir, FileMode, Owner};

/// Puts all files except the sealing one in place. Moves or links the replaced files to `old` if that needs no copy,
/// and returns whether `old` got all of them.
pub(crate) fn switch(
    slot: &Slot,
    to: &Dir,
    staged: &Dir,
    old: Option<&Dir>,
    files: &BTreeSet<String>,
    owner: Option<Owner>,
) -> io::Result<bool> {
    let mut order: Vec<&str> = files.iter().map(String::as_str).filter(|path| *path != slot.seal()).collect();
    order.sort_by_key(|path| slot.rank(path));
    let mut kept = true;
    for path in order {
        kept &= put(to, staged, old, path, owner)?;
    }
    kept &= remove_extras(to, old, files, "", true)?;
    // The old metadata belongs to the old generation; it stays in place until `seal`.
    if let Some(old) = old
        && staged.find(slot.seal())?.is_some()
    {
        kept &= keep(to, old, slot.seal())?;
    }
    to.sync_file_system()?;
    Ok(kept)
}

/// Puts the sealing file in place.
pub(crate) fn seal(slot: &Slot, to: &Dir, staged: &Dir, old: Option<&Dir>) -> io::Result<()> {
    put(to, staged, old, slot.seal(), None)?;
    to.sync_file_system()
}

/// Puts one staged file in place, and keeps the replaced one in `old`.
fn put(to: &Dir, staged: &Dir, old: Option<&Dir>, path: &str, owner: Option<Owner>) -> io::Result<bool> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(from) = staged.open_path(directory)? else { return Ok(true) };
    if from.find(name)?.is_none() {
        return Ok(true);
    }
    let (dir, mut kept) = directory_in(to, old, directory, owner)?;
    if dir.find(name)?.is_some_and(|entry| entry.is_dir()) {
        kept &= take_away(&dir, old, path, name)?;
    } else if let Some(old) = old {
        kept &= keep(to, old, path)?;
    }
    from.rename(name, &dir, name)?;
    Ok(kept)
}

/// Opens or creates the directories of a path, and moves away files in their place.
fn directory_in(
    to: &Dir,
    old: Option<&Dir>,
    directory: &str,
    owner: Option<Owner>,
) -> io::Result<(Dir, bool)> {
    let (mut dir, mut kept, mut path) = (to.try_clone()?, true, String::new());
    for name in directory.split('/').filter(|name| !name.is_empty()) {
        path = if path.is_empty() { name.into() } else { format!("{path}/{name}") };
        if dir.find(name)?.is_some_and(|entry| !entry.is_dir()) {
            kept &= take_away(&dir, old, &path, name)?;
        }
        dir = dir.open_or_make(name, FileMode::Shared(0o755), owner)?;
    }
    Ok((dir, kept))
}

/// Links the old file into the old generation. If the file system has no hard links, or an overlay is too full to copy
/// the file up, the generation is not kept, but the import succeeds.
fn keep(to: &Dir, old: &Dir, path: &str) -> io::Result<bool> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(dir) = to.open_path(directory)? else { return Ok(true) };
    if dir.find(name)?.is_none() {
        return Ok(true);
    }
    let into = old.open_or_make_path(directory, None)?;
    if into.find(name)?.is_some() {
        return Ok(true);
    }
    lossy(dir.link(name, &into, name))
}

/// Moves a file that the new content does not have into the old generation, or removes it if that fails.
fn take_away(dir: &Dir, old: Option<&Dir>, path: &str, name: &str) -> io::Result<bool> {
    if let Some(old) = old {
        let (directory, _) = path.rsplit_once('/').unwrap_or(("", path));
        let into = old.open_or_make_path(directory, None)?;
        if lossy(dir.rename(name, &into, name))? {
            return Ok(true);
        }
    }
    dir.remove(name)?;
    Ok(old.is_none())
}

/// Returns `false` for an error of the system, such as a full disk: the old file cannot be kept.
fn lossy(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves away every file that is not listed, and removes directories that become empty.
fn remove_extras(
    dir: &Dir,
    old: Option<&Dir>,
    files: &BTreeSet<String>,
    prefix: &str,
    top: bool,
) -> io::Result<bool> {
    let mut kept = true;
    for name in dir.list()? {
        if top && name == WORK {
            continue;
        }
        let Some(entry) = dir.find(&name)? else { continue };
        let path = name.to_str().map(|name| format!("{prefix}{name}"));
        match path {
            Some(path) if entry.is_dir() => {
                let below = format!("{path}/");
                kept &= remove_extras(&dir.open(&name)?, old, files, &below, false)?;
                let wanted = files.range(below.clone()..).next().is_some_and(|file| file.starts_with(&below));
                if !wanted {
                    dir.remove_empty(&name)?;
                }
            }
            Some(path) if files.contains(&path) => {}
            Some(path) => kept &= take_away(dir, old, &path, name.to_str().unwrap_or_default())?,
            // Trivy's data has no such names.
            None => {
                dir.remove(&name)?;
                kept = false;
            }
        }
    }
    Ok(kept)
}
