//! What this host remembers of its targets during one import, and when that is written down.

use std::fmt::Display;
use std::path::Path;

use jiff::Timestamp;

use crate::bundle::{Dataset, Image, VerifiedBundle};
use crate::dataset::name_and_tag;
use crate::delivery::candidates::floor_date;
use crate::delivery::image_place::DatasetPlaces;
use crate::delivery::registry_place::Place;
use crate::delivery::report::{ImageRow, Report};
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::rebuild::SCRATCH;
use crate::intake::verify::candidate;
use crate::trust::acceptance::{Admission, record};
use crate::trust::state::{ImportState, Origin, SetTag, Side, StateDir, StateView, TargetState};
use crate::util::files;
use crate::util::redacted::Redacted;

/// What the keys of images begin with. Behind it stands where the target has the image; an older program
/// wrote its name without the host there.
pub(crate) const IMAGE: &str = "image:";

/// The key of an image's floor: where the target has it.
pub(crate) fn image_key(place: impl Display) -> String {
    format!("{IMAGE}{place}")
}

/// The memory of one stream. At any time it is about one target.
pub(crate) struct Memory<'s> {
    dir: StateDir,
    stream: &'s str,
    imports: ImportState,
    target: String,
    /// A command is to be told of changes.
    has_hook: bool,
    /// Whether a command was due before this run.
    was_due: Option<Timestamp>,
}

impl<'s> Memory<'s> {
    /// Reads what is remembered of a stream.
    pub(crate) fn open(dir: StateDir, stream: &'s str, has_hook: bool) -> Result<Self, Error> {
        let imports = dir.imports(stream)?;
        Ok(Memory { dir, stream, imports, target: String::new(), has_hook, was_due: None })
    }

    /// The folder for what lies on the disk for this run alone. What a run left there that was killed is
    /// removed: nobody else is at work here.
    pub(crate) fn scratch(&self) -> Result<&Path, Error> {
        let failed = || Error::unexpected(format!("clearing {}", self.dir.path().display()));
        for entry in std::fs::read_dir(self.dir.path()).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                files::remove_dir_all(entry.path()).map_err(failed())?;
            }
        }
        Ok(self.dir.path())
    }

    /// What is worth a warning about the place where this is kept.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.dir.warnings()
    }

    /// From now on it is about this target.
    pub(crate) fn of(&mut self, target: &str) {
        self.target = target.to_owned();
        self.was_due = self.imports.targets.entry(self.target.clone()).or_default().hook_due;
    }

    /// What is remembered of the target.
    pub(crate) fn state(&self) -> &TargetState {
        static NOTHING: std::sync::LazyLock<TargetState> = std::sync::LazyLock::new(TargetState::default);
        self.imports.targets.get(&self.target).unwrap_or(&NOTHING)
    }

    /// Written down before anything changes: a run that is killed after the change and before the
    /// command leaves the next run to call it.
    pub(crate) fn about_to_change(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.has_hook {
            self.imports.targets.entry(self.target.clone()).or_default().hook_due = Some(now);
            self.dir.save_imports(self.stream, &self.imports)?;
        }
        Ok(())
    }

    /// Whether trivy-ferry set this tag of the target, for this image, to what it names now.
    pub(crate) fn has_set(&self, reference: &str, image: &str, found: Digest) -> bool {
        let set = self.state().images.get(reference);
        set.is_some_and(|set| set.is(found) && set.image.as_deref().is_none_or(|of| of == image))
    }

    /// Written down before a tag is set: a run that is killed after it still knows the tag as its own.
    pub(crate) fn about_to_set(
        &mut self,
        reference: &str,
        image: &Image,
        found: Option<Digest>,
    ) -> Result<(), Error> {
        let manifest = image.manifest.digest;
        let is_own = |found: &Digest| *found != manifest && self.has_set(reference, &image.name, *found);
        let before = found.filter(is_own);
        let state = self.imports.targets.entry(self.target.clone()).or_default();
        let set = SetTag { manifest, before, image: Some(image.name.clone()) };
        state.images.insert(reference.to_owned(), set);
        Ok(self.dir.save_imports(self.stream, &self.imports)?)
    }

    /// The tag names what it was set to: nothing else is its own any more.
    pub(crate) fn has_now_set(&mut self, reference: &str) {
        let state = self.imports.targets.entry(self.target.clone()).or_default();
        if let Some(set) = state.images.get_mut(reference) {
            set.before = None;
        }
    }

    /// The repositories into which datasets of any stream were imported.
    pub(crate) fn dataset_places(&self) -> Result<DatasetPlaces, Error> {
        let mut places = DatasetPlaces::default();
        add_datasets(&mut places, &self.imports);
        let Some(view) = StateView::find(Some(self.dir.path()))? else { return Ok(places) };
        for stream in view.streams(Side::Import)?.iter().filter(|stream| *stream != self.stream) {
            add_datasets(&mut places, &view.imports(stream)?);
        }
        Ok(places)
    }

    /// Remembers a bundle. Only what is in place now, and what was in place before, counts as
    /// accepted.
    pub(crate) fn accept(
        &mut self,
        bundle: &VerifiedBundle,
        admission: &Admission,
        report: &Report,
        now: Timestamp,
    ) {
        let candidate = candidate(bundle);
        let accepted = bundle.payload().datasets.iter().filter(|dataset| report.is_in_place(dataset));
        let accepted: Vec<_> = accepted
            .map(|dataset| (dataset.reference(), Some(floor_date(dataset, candidate.created))))
            .collect();
        let in_place = || bundle.payload().images.iter().flat_map(|image| report.places_of(image));
        let images = in_place().map(|row| (row.key.clone(), Some(candidate.created)));
        let source = report.sources.iter().find(|source| source.identity == candidate.identity);
        let signers = source.into_iter().flat_map(|source| &source.signers);
        let signers: Vec<String> = signers.map(|signer| signer.name.clone()).collect();
        let origin = |source: &str, manifest: Digest| Origin {
            bundle: candidate.identity,
            manifest: Some(manifest),
            layers: Vec::new(),
            contents: None,
            repository: None,
            reference: None,
            source: Redacted::new(source).to_string(),
            version: None,
            signers: signers.clone(),
        };
        let of_dataset = |dataset: &Dataset| {
            let row = report.in_place().find(|row| row.dataset.as_ref() == Some(dataset))?;
            let origin = Origin {
                layers: dataset.layers.iter().map(|layer| layer.digest).collect(),
                contents: Some(dataset.contents.clone()),
                repository: row.repository.clone(),
                version: dataset.version.clone(),
                ..origin(&dataset.source, dataset.manifest.digest)
            };
            Some((dataset.reference(), origin))
        };
        let of_image = |row: &ImageRow| {
            let reference = row.reference.clone();
            (row.key.clone(), Origin { reference, ..origin(&row.source, row.digest) })
        };
        let of_datasets = bundle.payload().datasets.iter().filter_map(of_dataset);
        let origins = of_datasets.chain(in_place().map(of_image));
        let state = self.imports.targets.entry(self.target.clone()).or_default();
        forget_former_images(state);
        state.origins.extend(origins);
        record(state, &candidate, admission, accepted.into_iter().chain(images), now);
    }

    /// Writes down what became of the target. The data is in place whatever becomes of the memory,
    /// and the report must say so.
    pub(crate) fn save(&mut self, report: &mut Report) {
        if !report.has_changed() {
            self.imports.targets.entry(self.target.clone()).or_default().hook_due = self.was_due;
        }
        if let Err(error) = self.dir.save_imports(self.stream, &self.imports) {
            report.errors.push(error.into());
        }
    }

    /// The targets of which the command has not been told yet, and since when.
    pub(crate) fn due(&self) -> Vec<(String, Timestamp)> {
        let targets = self.imports.targets.iter();
        targets.filter_map(|(target, state)| Some((target.clone(), state.hook_due?))).collect()
    }

    /// The command was told. Where another run has changed something since, its own is due.
    pub(crate) fn told(&mut self, due: &[(String, Timestamp)]) -> Result<(), Error> {
        for (target, since) in due {
            if let Some(state) = self.imports.targets.get_mut(target)
                && state.hook_due == Some(*since)
            {
                state.hook_due = None;
            }
        }
        Ok(self.dir.save_imports(self.stream, &self.imports)?)
    }
}

fn add_datasets(places: &mut DatasetPlaces, imports: &ImportState) {
    for (target, state) in &imports.targets {
        let Some(Ok(place)) = target.strip_prefix("registry:").map(str::parse::<Place>) else { continue };
        for (name, tag) in state.floors.keys().filter_map(|key| name_and_tag(key)) {
            if let Ok(Some(repository)) = place.repository(&name, tag) {
                places.add(&repository, name.as_str());
            }
        }
    }
}

/// Images that an older program pushed or served lie at places that this one does not use: it neither
/// replaces them there nor keeps them up to date.
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
