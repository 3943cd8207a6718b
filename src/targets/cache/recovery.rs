//! Recovery: finishes, undoes or removes what an import has left that was killed.

use crate::targets::cache::layout::Slot;
use crate::targets::cache::switch::Switching;
use crate::targets::cache::working::{self, WORK, WorkingPlace};
use crate::targets::cache::{Cache, journal};
use crate::targets::error::{At, TargetError};
use crate::util::dir::Dir;

impl Cache<'_> {
    /// Finishes or undoes what the journal names, then removes what a killed run has left.
    pub(crate) fn recover(&mut self, journal_readable: bool) -> Result<(), TargetError> {
        if !journal_readable {
            self.progress.info("The journal of an earlier import cannot be read; cleaning up without it.");
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
                self.progress.info(&format!("An earlier import was cut short: {did} its switch of {slot}."));
            }
        }
        let mut removed = self.clean(&self.work)?;
        for slot in self.all_slots()? {
            let Some(dir) = working::open_slot(&self.root, slot.path()).ok().flatten() else { continue };
            if dir.find(WORK).at("look", dir.path())?.is_some() {
                let place = WorkingPlace { dir: working::private(&dir)?, inside: true };
                removed += self.clean(&place.dir)?;
                working::tidy(&self.root, &slot, &place).at("clean up", place.dir.path())?;
            }
        }
        if !journal_readable {
            self.work.remove(journal::FILE).at("remove the journal", self.work.at(journal::FILE))?;
        }
        if removed > 0 {
            self.progress.info("Removed what an interrupted import had left.");
        }
        Ok(())
    }

    /// Removes leftovers from a working folder. A generation that was moved away and whose slot is
    /// missing goes back there first.
    fn clean(&self, directory: &Dir) -> Result<u32, TargetError> {
        let mut removed = 0;
        for name in directory.list().at("list", directory.path())? {
            if !working::is_leftover(&name) {
                continue;
            }
            if let Some(slot) =
                name.to_str().and_then(|name| name.strip_prefix("old-")).and_then(Slot::from_key)
                && let Some(parent) = working::open_slot(&self.root, slot.parent())?
                && parent.find(slot.name()).at("look", parent.at(slot.name()))?.is_none()
            {
                directory.rename(&name, &parent, slot.name()).at("bring back", parent.at(slot.name()))?;
                self.progress.info(&format!("Brought {slot} back from an interrupted import."));
                continue;
            }
            directory.remove(&name).at("clean up", directory.at(&name))?;
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
