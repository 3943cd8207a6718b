//! What this host remembers of its targets during one import, and when that is written down.

use std::path::Path;

use jiff::Timestamp;

use super::import_report::Report;
use super::inbox::SCRATCH;
use super::offer::floor_date;
use super::verify::candidate;
use crate::bundle::{Dataset, Image, VerifiedBundle};
use crate::digest::Digest;
use crate::error::Error;
use crate::remote::Repository;
use crate::trust::acceptance::{Admission, record};
use crate::trust::state::{ImportState, Origin, StateDir, TargetState};

/// The key of an image's floor: what is left of its name at the target, where its host counts for
/// nothing.
pub(super) fn image_key(name: &str) -> String {
    match Repository::parse(name, "latest") {
        Ok(image) => format!("image:{}:{}", image.name(), image.tag().unwrap_or_default()),
        Err(_) => format!("image:{name}"),
    }
}

/// The memory of one stream. At any time it is about one target.
pub(super) struct Memory<'s> {
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
    pub(super) fn open(dir: StateDir, stream: &'s str, has_hook: bool) -> Result<Self, Error> {
        let imports = dir.imports(stream)?;
        Ok(Memory { dir, stream, imports, target: String::new(), has_hook, was_due: None })
    }

    /// The folder for what lies on the disk for this run alone. What a run left there that was killed is
    /// removed: nobody else is at work here.
    pub(super) fn scratch(&self) -> Result<&Path, Error> {
        let failed = || Error::unexpected(format!("clearing {}", self.dir.path().display()));
        for entry in std::fs::read_dir(self.dir.path()).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name().to_string_lossy().starts_with(SCRATCH) {
                std::fs::remove_dir_all(entry.path()).map_err(failed())?;
            }
        }
        Ok(self.dir.path())
    }

    /// What is worth a warning about the place where this is kept.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.dir.warnings()
    }

    /// From now on it is about this target.
    pub(super) fn of(&mut self, target: &str) {
        self.target = target.to_owned();
        self.was_due = self.imports.targets.entry(self.target.clone()).or_default().hook_due;
    }

    /// What is remembered of the target.
    pub(super) fn state(&self) -> &TargetState {
        static NOTHING: std::sync::LazyLock<TargetState> = std::sync::LazyLock::new(TargetState::default);
        self.imports.targets.get(&self.target).unwrap_or(&NOTHING)
    }

    /// Written down before anything changes: a run that is killed after the change and before the
    /// command leaves the next run to call it.
    pub(super) fn about_to_change(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.has_hook {
            self.imports.targets.entry(self.target.clone()).or_default().hook_due = Some(now);
            self.dir.save_imports(self.stream, &self.imports)?;
        }
        Ok(())
    }

    /// Remembers a bundle. Only what is in place now, and what was in place before, counts as
    /// accepted.
    pub(super) fn accept(
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
        let images = bundle.payload().images.iter().filter(|image| report.has_image(image));
        let images = images.map(|image| (image_key(&image.name), Some(candidate.created)));
        let source = report.sources.iter().find(|source| source.identity == candidate.identity);
        let signers = source.into_iter().flat_map(|source| &source.signers);
        let signers: Vec<String> = signers.map(|signer| signer.name.clone()).collect();
        let origin = |source: &str, manifest: Digest| Origin {
            bundle: candidate.identity,
            manifest: Some(manifest),
            layers: Vec::new(),
            contents: None,
            repository: None,
            source: source.to_owned(),
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
        let of_image = |image: &Image| {
            let origin = || (image_key(&image.name), origin(&image.source, image.manifest.digest));
            report.has_image(image).then(origin)
        };
        let of_datasets = bundle.payload().datasets.iter().filter_map(of_dataset);
        let origins = of_datasets.chain(bundle.payload().images.iter().filter_map(of_image));
        let state = self.imports.targets.entry(self.target.clone()).or_default();
        state.origins.extend(origins);
        record(state, &candidate, admission, accepted.into_iter().chain(images), now);
    }

    /// Writes down what became of the target. The data is in place whatever becomes of the memory,
    /// and the report must say so.
    pub(super) fn save(&mut self, report: &mut Report) {
        if !report.has_changed() {
            self.imports.targets.entry(self.target.clone()).or_default().hook_due = self.was_due;
        }
        if let Err(error) = self.dir.save_imports(self.stream, &self.imports) {
            report.errors.push(error.into());
        }
    }

    /// The targets of which the command has not been told yet, and since when.
    pub(super) fn due(&self) -> Vec<(String, Timestamp)> {
        let targets = self.imports.targets.iter();
        targets.filter_map(|(target, state)| Some((target.clone(), state.hook_due?))).collect()
    }

    /// The command was told. Where another run has changed something since, its own is due.
    pub(super) fn told(&mut self, due: &[(String, Timestamp)]) -> Result<(), Error> {
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
