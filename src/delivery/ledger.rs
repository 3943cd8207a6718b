//! The ledger of a run: records by target the data that this host accepted from one stream.
//!
//! `trust::state` has the files; this module is one run's view of them, and decides when they are
//! saved. It records the data that is in place and the bundle that contained it. It does not depend
//! on reports.

use std::fmt::Display;
use std::path::Path;

use jiff::Timestamp;

use crate::bundle::{Dataset, Image, VerifiedBundle};
use crate::dataset::DatasetRef;
use crate::delivery::candidates::floor_date;
use crate::delivery::context::DeliveryContext;
use crate::delivery::image_place::DatasetPlaces;
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::rebuild::SCRATCH;
use crate::intake::signer::SignerInfo;
use crate::intake::verify::candidate;
use crate::trust::acceptance::{Admission, record};
use crate::trust::key::KeyId;
use crate::trust::keyring::{Keyring, directories};
use crate::trust::state::{
    ImportState, KeptKey, Origin, OthersData, SetTag, Side, StateDir, StateView, TargetState,
};
use crate::util::fs;
use crate::util::redacted::Redacted;

/// The prefix of the keys of images. The image's place at the target follows. Older versions wrote its name without
/// the host.
pub(crate) const IMAGE: &str = "image:";

/// Returns the key of an image's floor, which names its place at the target.
pub(crate) fn image_key(place: impl Display) -> String {
    format!("{IMAGE}{place}")
}

/// The items from the bundles of a run that are in place at a target, new or unchanged.
#[derive(Debug, Default)]
pub(crate) struct InstalledItems {
    datasets: Vec<InstalledDataset>,
    images: Vec<InstalledImage>,
}

/// A dataset that is in place.
#[derive(Debug)]
struct InstalledDataset {
    dataset: Dataset,
    /// The scanner's name for a VEX repository in a cache.
    repository: Option<String>,
    /// The extra tags that name it in a registry.
    tags: Vec<String>,
}

/// An image that is in place.
#[derive(Debug)]
pub(crate) struct InstalledImage {
    /// Its name in the bundle.
    pub(crate) name: String,
    /// The digest of its manifest in the bundle.
    pub(crate) digest: Digest,
    /// The digest of its manifest at the target, which `--compat` may have rewritten.
    pub(crate) in_place: Digest,
    /// The key of its floor.
    pub(crate) key: String,
    /// The reference under which it can be pulled.
    pub(crate) reference: String,
    /// The source from which the exporter fetched it.
    pub(crate) source: String,
}

impl InstalledImage {
    /// Creates the record of an image that is in place under `reference`.
    pub(crate) fn new(image: &Image, key: String, reference: String) -> Self {
        let (name, digest, source) = (image.name.clone(), image.manifest.digest, image.source.clone());
        InstalledImage { name, digest, in_place: digest, key, reference, source }
    }
}

impl InstalledItems {
    /// Adds a dataset. `repository` is the scanner's name for a VEX repository in a cache. `tags` are the extra tags
    /// that name the dataset in a registry.
    pub(crate) fn add(&mut self, dataset: &Dataset, repository: Option<String>, tags: Vec<String>) {
        self.datasets.push(InstalledDataset { dataset: dataset.clone(), repository, tags });
    }

    /// Adds an image.
    pub(crate) fn add_image(&mut self, image: InstalledImage) {
        self.images.push(image);
    }

    /// Returns the datasets.
    pub(crate) fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        self.datasets.iter().map(|installed| &installed.dataset)
    }

    fn find(&self, dataset: &Dataset) -> Option<&InstalledDataset> {
        self.datasets.iter().find(|installed| installed.dataset == *dataset)
    }

    /// Returns every place of an image.
    fn places_of(&self, image: &Image) -> impl Iterator<Item = &InstalledImage> {
        let is = |have: &&InstalledImage| have.name == image.name && have.digest == image.manifest.digest;
        self.images.iter().filter(is)
    }
}

/// The record of the data that was accepted from one stream. It holds the lock on the
/// state: other runs wait until it is dropped.
pub(crate) struct Ledger {
    dir: StateDir,
    stream: String,
    imports: ImportState,
    /// Whether the operator has a command that runs after changes.
    has_hook: bool,
}

impl Ledger {
    /// Opens the ledger of a stream.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub(crate) fn open(dir: StateDir, stream: &str, has_hook: bool) -> Result<Self, Error> {
        let imports = dir.imports(stream)?;
        Ok(Ledger { dir, stream: stream.to_owned(), imports, has_hook })
    }

    /// Returns the directory for this run's temporary files. Removes leftover files of killed runs first, which is
    /// safe because of the lock.
    ///
    /// # Errors
    /// If the directory cannot be read or a leftover file cannot be removed.
    pub(crate) fn scratch(&self) -> Result<&Path, Error> {
        let failed = || Error::unexpected(format!("clearing {}", self.dir.path().display()));
        for entry in std::fs::read_dir(self.dir.path()).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                fs::remove_dir_all(entry.path()).map_err(failed())?;
            }
        }
        Ok(self.dir.path())
    }

    /// Returns the warnings about the state directory.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.dir.warnings()
    }

    /// Returns the ledger of one target.
    pub(crate) fn for_target(&mut self, target: &TargetId) -> TargetLedger<'_> {
        let key = target.in_ledger().to_string();
        let was_due = self.imports.targets.get(&key).and_then(|state| state.hook_due);
        TargetLedger { ledger: self, key, was_due }
    }

    /// Returns the targets with changes for which the operator's command has not run yet, and the time of the change.
    pub(crate) fn due(&self) -> Vec<(String, Timestamp)> {
        let targets = self.imports.targets.iter();
        targets.filter_map(|(target, state)| Some((target.clone(), state.hook_due?))).collect()
    }

    /// Records that the command ran for these targets. If another run has changed a target since
    /// then, the command is still due for it.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) fn told(&mut self, due: &[(String, Timestamp)]) -> Result<(), Error> {
        for (target, since) in due {
            if let Some(state) = self.imports.targets.get_mut(target)
                && state.hook_due == Some(*since)
            {
                state.hook_due = None;
            }
        }
        self.save()
    }

    /// Records the targets of a run and their failures. Returns for each target whether its failure is new and needs
    /// a line in the log.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) fn note_run(
        &mut self,
        worked_on: Vec<(TargetId, Option<String>)>,
        now: Timestamp,
    ) -> Result<Vec<bool>, Error> {
        let keys: Vec<String> = worked_on.iter().map(|(target, _)| target.in_ledger().to_string()).collect();
        let mut news = Vec::new();
        if worked_on.is_empty() {
            return Ok(news);
        }
        for (key, (_, why)) in keys.iter().zip(worked_on) {
            let beside = keys.iter().filter(|other| *other != key).cloned().collect();
            let state = self.imports.targets.entry(key.clone()).or_default();
            news.push(state.note_run(beside, why, now));
        }
        self.save()?;
        Ok(news)
    }

    fn save(&self) -> Result<(), Error> {
        Ok(self.dir.save_imports(&self.stream, &self.imports)?)
    }
}

/// The record of the data that one target accepted from a stream.
pub(crate) struct TargetLedger<'l> {
    ledger: &'l mut Ledger,
    key: String,
    /// The time since which the command was due when this was opened.
    was_due: Option<Timestamp>,
}

impl TargetLedger<'_> {
    /// Returns the record of the target.
    pub(crate) fn state(&self) -> &TargetState {
        static NOTHING: std::sync::LazyLock<TargetState> = std::sync::LazyLock::new(TargetState::default);
        self.ledger.imports.targets.get(&self.key).unwrap_or(&NOTHING)
    }

    fn state_mut(&mut self) -> &mut TargetState {
        self.ledger.imports.targets.entry(self.key.clone()).or_default()
    }

    /// Records that the target is about to change. If the run is killed before it calls the operator's command, the
    /// next run calls it.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) fn about_to_change(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.ledger.has_hook {
            self.state_mut().hook_due = Some(now);
            self.ledger.save()?;
        }
        Ok(())
    }

    /// Returns the build date of the target's data, if this host imported it or has read its date
    /// before.
    pub(crate) fn date_of(&self, dataset: &str, layers: &[Digest]) -> Option<Timestamp> {
        let state = self.state();
        let own = state.origins.get(dataset).filter(|origin| origin.layers == layers);
        let others = state.others.get(dataset).filter(|others| [others.layer] == layers);
        own.and_then(|origin| origin.contents.as_ref()?.updated_at).or(others.map(|others| others.updated_at))
    }

    /// Records the build date of data that another program put in the place of a dataset.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) fn dates(&mut self, dataset: String, others: OthersData) -> Result<(), Error> {
        self.state_mut().others.insert(dataset, others);
        self.ledger.save()
    }

    /// Whether trivy-ferry set this tag of the target to the manifest that it names now, for this image.
    pub(crate) fn has_set(&self, reference: &str, image: &str, found: Digest) -> bool {
        let set = self.state().images.get(reference);
        set.is_some_and(|set| set.is(found) && set.image.as_deref().is_none_or(|of| of == image))
    }

    /// Records that a tag is about to be set. If the run is killed, the next run still treats
    /// the tag as its own.
    ///
    /// # Errors
    /// If the state cannot be written.
    pub(crate) fn about_to_set(
        &mut self,
        reference: &str,
        image: &Image,
        found: Option<Digest>,
    ) -> Result<(), Error> {
        let manifest = image.manifest.digest;
        let is_own = |found: &Digest| *found != manifest && self.has_set(reference, &image.name, *found);
        let before = found.filter(is_own);
        let set = SetTag { manifest, before, image: Some(image.name.clone()) };
        self.state_mut().images.insert(reference.to_owned(), set);
        self.ledger.save()
    }

    /// Records that the tag was set. Its former manifest then no longer counts as trivy-ferry's.
    pub(crate) fn has_now_set(&mut self, reference: &str) {
        if let Some(set) = self.state_mut().images.get_mut(reference) {
            set.before = None;
        }
    }

    /// Returns the repositories into which datasets of any stream were imported.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub(crate) fn dataset_places(&self) -> Result<DatasetPlaces, Error> {
        let Ledger { dir, stream, imports, .. } = &*self.ledger;
        let mut places = DatasetPlaces::default();
        add_datasets(&mut places, imports);
        let Some(view) = StateView::find(Some(dir.path()))? else { return Ok(places) };
        for other in view.streams(Side::Import)?.iter().filter(|other| *other != stream) {
            add_datasets(&mut places, &view.imports(other)?);
        }
        Ok(places)
    }

    /// Records a bundle. Only items that are in place count as accepted.
    pub(crate) fn accept(
        &mut self,
        bundle: &VerifiedBundle,
        admission: &Admission,
        installed: &InstalledItems,
        context: &DeliveryContext,
    ) {
        let candidate = candidate(bundle);
        let signers = SignerInfo::of(bundle.signers(), &context.keyring);
        let signers: Vec<String> = signers.into_iter().map(|signer| signer.name).collect();
        let kept: Vec<KeptKey> =
            bundle.signers().iter().filter_map(|id| kept_key(*id, &context.keyring)).collect();
        let origin = |source: &str, manifest: Digest| Origin {
            bundle: candidate.identity,
            manifest: Some(manifest),
            layers: Vec::new(),
            contents: None,
            repository: None,
            reference: None,
            tags: Vec::new(),
            source: Redacted::new(source).to_string(),
            version: None,
            signers: signers.clone(),
            keys: kept.clone(),
        };
        let mut floors = Vec::new();
        let mut origins = Vec::new();
        for dataset in &bundle.payload().datasets {
            let Some(in_place) = installed.find(dataset) else { continue };
            floors.push((dataset.reference(), Some(floor_date(dataset, candidate.created))));
            let origin = Origin {
                layers: dataset.layers.iter().map(|layer| layer.digest).collect(),
                contents: Some(dataset.contents.clone()),
                repository: in_place.repository.clone(),
                tags: in_place.tags.clone(),
                version: dataset.version.clone(),
                ..origin(&dataset.source, dataset.manifest.digest)
            };
            origins.push((dataset.reference(), origin));
        }
        for place in bundle.payload().images.iter().flat_map(|image| installed.places_of(image)) {
            floors.push((place.key.clone(), Some(candidate.created)));
            let reference = Some(place.reference.clone());
            origins.push((place.key.clone(), Origin { reference, ..origin(&place.source, place.in_place) }));
        }
        let state = self.state_mut();
        forget_former_images(state);
        state.origins.extend(origins);
        record(state, &candidate, admission, floors, context.host.now);
        forget_oldest_images(state);
    }

    /// Saves the record of the target. If `has_changed` is set, the operator's command is due.
    ///
    /// # Errors
    /// If the state cannot be written. The data is in place nevertheless.
    pub(crate) fn finish(self, has_changed: bool) -> Result<(), Error> {
        if let Some(state) = self.ledger.imports.targets.get_mut(&self.key).filter(|_| !has_changed) {
            state.hook_due = self.was_due;
        }
        self.ledger.save()
    }
}

/// Returns a signer's key if its file is in a directory of trusted keys. A key that was given for one run may not be
/// trusted later.
fn kept_key(id: KeyId, keyring: &Keyring) -> Option<KeptKey> {
    let path = &keyring.find(id)?.path;
    let is_kept = directories().iter().any(|directory| path.parent() == Some(directory));
    Some(KeptKey { keyid: id.hex(), file: path.to_str().filter(|_| is_kept)?.to_owned() })
}

fn add_datasets(places: &mut DatasetPlaces, imports: &ImportState) {
    for (target, state) in &imports.targets {
        let Ok(TargetId::Registry(place)) = target.parse() else { continue };
        for dataset in state.floors.keys().filter_map(|key| key.parse::<DatasetRef>().ok()) {
            if let Ok(Some(repository)) = place.repository(&dataset.name, &dataset.tag) {
                places.add(&repository, dataset.name.as_str());
            }
        }
    }
}

/// Removes the images that were imported longest ago, so that daily imports of new tags do not grow the state without
/// limit. trivy-ferry then no longer treats their tags as its own.
fn forget_oldest_images(state: &mut TargetState) {
    /// The limit of images, each of about 800 bytes.
    const MOST: usize = 2000;
    let of_image = |(key, _): &(&String, &Timestamp)| key.starts_with(IMAGE);
    let mut images: Vec<(Timestamp, String)> =
        state.floors.iter().filter(of_image).map(|(key, date)| (*date, key.clone())).collect();
    images.sort();
    for (_, key) in images.drain(..images.len().saturating_sub(MOST)) {
        state.floors.remove(&key);
        state.expires.remove(&key);
        if let Some(reference) = state.origins.remove(&key).and_then(|origin| origin.reference) {
            state.images.remove(&reference);
        }
    }
}

/// Removes images of older versions from the state. They are at places that this version does not use or update.
fn forget_former_images(state: &mut TargetState) {
    let origins = &state.origins;
    let is_former = |key: &String| {
        key.starts_with(IMAGE) && origins.get(key).is_none_or(|origin| origin.reference.is_none())
    };
    let former: Vec<String> = state.floors.keys().filter(|key| is_former(key)).cloned().collect();
    for key in former {
        state.floors.remove(&key);
        state.expires.remove(&key);
        state.origins.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_were_imported_long_ago_are_removed() {
        let mut state = TargetState::default();
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let date = |number: i64| begin + jiff::SignedDuration::from_mins(number);
        for number in 0..2100 {
            let (key, reference) = (format!("{IMAGE}r.example/x:{number}"), format!("r.example/x:{number}"));
            let manifest = Digest::of(reference.as_bytes());
            state.images.insert(reference.clone(), SetTag { manifest, before: None, image: None });
            let origin = format!(
                "{{\"bundle\":\"{manifest}\",\"reference\":\"{reference}\",\"source\":\"s\",\"signers\":[]}}"
            );
            state.origins.insert(key.clone(), serde_json::from_str(&origin).unwrap());
            state.floors.insert(key, date(number));
        }
        state.floors.insert("trivy-db-2".into(), date(-1));
        forget_oldest_images(&mut state);
        assert_eq!((state.floors.len(), state.origins.len(), state.images.len()), (2001, 2000, 2000));
        assert!(state.floors.contains_key("trivy-db-2") && !state.images.contains_key("r.example/x:99"));
        assert!(state.images.contains_key("r.example/x:100"));
    }
}
