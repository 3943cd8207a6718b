//! Recovery: finishes or undoes the switches of a killed import, and removes its leftover files.

use crate::targets::cache::layout::Slot;
use crate::targets::cache::switch::Switching;
use crate::targets::cache::working::{self, WORK, WorkingPlace};
use crate::targets::cache::{Cache, journal};
use crate::targets::error::{At, TargetError};
use crate::util::dir::Dir;

impl Cache<'_> {
    /// Finishes or undoes the switches in the journal, then removes the leftover files of a killed run.
    pub(crate) fn recover(&mut self, journal_readable: bool) -> Result<(), TargetError> {
        if !journal_readable {
            let journal = self.work.at(journal::FILE);
            self.progress.info(&format!(
                "The journal {} of an earlier import cannot be read; cleaning up without it.",
                journal.display()
            ));
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
                    Switching::new(root, &self.work, &mut self.journal, slot.clone(), place, owner);
                switching.operation = operation;
                let did = switching.resume()?;
                self.progress.info(&format!(
                    "An earlier import was interrupted; this import {did} its switch of {slot}."
                ));
            }
        }
        let mut removed = self.clean(&self.work)?;
        for slot in self.all_slots()? {
            let Some(dir) = working::open_slot(&self.root, slot.path()).ok().flatten() else { continue };
            if dir.find(WORK).at("look it up", dir.path())?.is_some() {
                let place = WorkingPlace { dir: working::private(&dir)?, inside: true };
                removed += self.clean(&place.dir)?;
                working::tidy(&self.root, &slot, &place).at("clean up", place.dir.path())?;
            }
        }
        if !journal_readable {
            self.work.remove(journal::FILE).at("remove the journal", self.work.at(journal::FILE))?;
        }
        if removed > 0 {
            self.progress.info("Removed the leftover files of an interrupted import.");
        }
        Ok(())
    }

    /// Removes leftover files from a working directory. A generation that was moved away is moved back first if its slot is
    /// missing.
    fn clean(&self, directory: &Dir) -> Result<u32, TargetError> {
        let mut removed = 0;
        for name in directory.list().at("list", directory.path())? {
            if !working::is_leftover(&name) {
                continue;
            }
            if let Some(slot) =
                name.to_str().and_then(|name| name.strip_prefix("old-")).and_then(Slot::from_key)
                && let Some(parent) = working::open_slot(&self.root, slot.parent())?
                && parent.find(slot.name()).at("look it up", parent.at(slot.name()))?.is_none()
            {
                directory.rename(&name, &parent, slot.name()).at("move it back", parent.at(slot.name()))?;
                self.progress.info(&format!("Restored {slot} after an interrupted import."));
                continue;
            }
            directory.remove(&name).at("clean up", directory.at(&name))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Returns all slots that this cache may have.
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
