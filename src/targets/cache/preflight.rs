//! Preflight: checks before the first write that each file system has enough space for the new data.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::targets::cache::layout::Slot;
use crate::targets::cache::working::{self, PREVIOUS};
use crate::targets::cache::{Cache, View};
use crate::targets::error::{At, TargetError};
use crate::util::dir::{Dir, Mount, Room};
use crate::util::text;

impl Cache<'_> {
    /// Checks the space for new data. `incoming` lists each slot with its unpacked bytes and its number of files and
    /// directories. Counts the space that `keep_previous: false` will free.
    ///
    /// # Errors
    /// [`TargetError::Space`] or [`TargetError::Inodes`] if there is too little space;
    /// [`TargetError::Symlink`], [`TargetError::NotADirectory`] or [`TargetError::MountInside`] if a slot
    /// cannot be staged; else the error of the system if the space cannot be determined.
    pub fn preflight(&self, incoming: &[(Slot, u64, u64)]) -> Result<(), TargetError> {
        let mut needs: HashMap<Mount, Need> = HashMap::new();
        for (slot, bytes, files) in incoming {
            let (inside, dir) = working::stands_apart(&self.root, &self.work, slot)?;
            let dir = if inside { dir } else { self.work.try_clone().at("open", self.work.path())? };
            let mount = dir.mount().at("determine the mount", dir.path())?;
            let room = dir.room().at("determine the free space", dir.path())?;
            let previous = self.previous_size(slot, inside)?;
            let freed = if self.keep_previous { 0 } else { previous };
            let need = needs.entry(mount).or_insert_with(|| Need::new(dir.path().into(), room));
            // A file takes full blocks. The padding also covers its name and its inode.
            let padding = files.saturating_mul(room.block);
            need.bytes = need.bytes.saturating_add(*bytes).saturating_add(padding);
            need.files = need.files.saturating_add(*files).saturating_add(files / 4 + 8);
            need.freed = need.freed.saturating_add(freed);
            need.could_free |= self.keep_previous && previous > 0;
            if need.largest.as_ref().is_none_or(|(most, _)| most < bytes) {
                need.largest = Some((*bytes, slot.dataset()));
            }
        }
        needs.into_values().try_for_each(|need| need.check(incoming.len()))
    }

    fn previous_size(&self, slot: &Slot, inside: bool) -> Result<u64, TargetError> {
        let mut size = 0u64;
        if let Some(directory) = self.working_directory(slot, inside)?
            && let Some(previous) = working::open_real(&directory, PREVIOUS)?
            && let Some(kept) = working::open_real(&previous, &slot.key())?
        {
            // If the tree cannot be walked completely, the visited part is a lower limit.
            let _ = kept.walk(|_, _, _, entry| {
                size = size.saturating_add(entry.size);
                Ok(())
            });
        }
        Ok(size)
    }
}

impl View {
    /// Checks the space for this number of bytes in the file system of `place`, a directory that need not exist. It is an
    /// estimate that ignores other mounts and space that will be freed.
    ///
    /// # Errors
    /// [`TargetError::Space`] if there is too little space; else the error of the system if it cannot be determined.
    pub fn has_room(&self, place: &Path, needed: u64) -> Result<(), TargetError> {
        let dir = place.ancestors().find_map(|dir| Dir::top(dir).ok());
        let Some(dir) = dir else { return Ok(()) };
        let available = dir.room().at("determine the free space", dir.path())?.bytes;
        if needed <= available {
            return Ok(());
        }
        let missing = text::format_size(needed - available);
        let advice = format!("Free {missing} there, or skip a dataset with --skip.");
        Err(TargetError::Space { path: place.into(), needed, available, advice })
    }
}

/// The needs on one file system.
struct Need {
    path: PathBuf,
    room: Room,
    bytes: u64,
    files: u64,
    freed: u64,
    /// Whether a kept generation could be removed.
    could_free: bool,
    largest: Option<(u64, String)>,
}

impl Need {
    fn new(path: PathBuf, room: Room) -> Self {
        Need { path, room, bytes: 0, files: 0, freed: 0, could_free: false, largest: None }
    }

    fn check(self, incoming: usize) -> Result<(), TargetError> {
        let available = self.room.bytes.saturating_add(self.freed);
        if self.bytes > available {
            let mut ways = Vec::new();
            if self.could_free {
                ways.push("--keep-previous 0".to_owned());
            }
            if let Some((_, name)) = self.largest
                && incoming > 1
            {
                ways.push(format!("--skip {name}"));
            }
            let missing = text::format_size(self.bytes - available);
            let advice = match ways.join(" or ") {
                ways if ways.is_empty() => format!("Free {missing} there; nothing was changed."),
                ways => format!("Free {missing} there, or use {ways}; nothing was changed."),
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
