//! One place that a mirror fills: what it has, what it lacks, and its report.
//!
//! Knows one registry; nothing of the sources, nor of the other places.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tempfile::SpooledTempFile;

use crate::bundle::Dataset;
use crate::collect::artifact::CollectedDataset;
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Contents, DatasetRef};
use crate::delivery::decision::{future_date_warning, older_data_warning};
use crate::delivery::options::SettingsOptions;
use crate::delivery::registry_access::{
    ExistingContent, date_of, dated, existing_datasets, is_dated, is_out, layers_of, name_all, read_content,
    undated, unread,
};
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport, rewritten};
use crate::delivery::settings::{ScannerAccess, pulled, say, write_files};
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::mirror::options::MirrorOptions;
use crate::progress::Progress;
use crate::remote::{Remote, Repository};
use crate::scanner::registry_settings::registry_settings;
use crate::targets::compat::Compat;
use crate::targets::registry::{PushError, Registry, push_under};
use crate::trust::Rejection;
use crate::trust::acceptance::{DatasetDecision, believable, judge};

/// A registry that the run fills, or a place in one.
pub(crate) struct MirrorTarget<'r> {
    place: &'r RegistryPlace,
    pub(crate) registry: Registry<'r>,
    pub(crate) report: TargetReport,
    /// Its host cannot be talked to: to ask again for each dataset would only take time.
    unreachable: bool,
}

/// A push that a target needs.
pub(crate) struct PendingPush {
    pub(crate) reference: Repository,
    /// What the tags are to name: upstream's manifest, or the one of `--compat`.
    manifest: Vec<u8>,
    media_type: String,
    compat: Option<Compat>,
    floor: Option<Timestamp>,
}

/// A dataset that was fetched but for its large layer, and the rules by which places take it.
pub(crate) struct MirrorCandidate<'a> {
    pub(crate) options: &'a MirrorOptions,
    pub(crate) item: &'a mut CollectedDataset,
    /// The further tags under which it is to be had.
    pub(crate) tags: &'a [String],
    pub(crate) now: Timestamp,
    pub(crate) progress: &'a dyn Progress,
}

/// How much younger than its content a manifest may be. Upstream builds at most every six hours.
const TO_PUBLISH: SignedDuration = SignedDuration::from_hours(3);

/// What a registry has in a dataset's place.
#[derive(Debug, Clone, Copy)]
struct Existing {
    date: Timestamp,
    /// The date is that of the content, and not that of the manifest.
    is_built: bool,
}

/// Whether a target accepts a dataset.
enum Decision {
    Accept,
    Older { date: Timestamp, floor: Timestamp },
    TooOld(Rejection),
}

impl<'r> MirrorTarget<'r> {
    pub(crate) fn new(place: &'r RegistryPlace, registry: Registry<'r>, version: TrivyVersion) -> Self {
        let report = TargetReport::of(TargetId::Registry(place.clone()), version);
        MirrorTarget { place, registry, report, unreachable: false }
    }

    /// How much was said so far.
    pub(crate) fn said(&self) -> (usize, usize) {
        (self.report.errors.len(), self.report.warnings.len())
    }

    /// Takes back what was said since, of a source that turned out bad.
    pub(crate) fn take_back(&mut self, (errors, warnings): (usize, usize)) {
        self.report.errors.truncate(errors);
        self.report.warnings.truncate(warnings);
    }

    /// Writes down a dataset that no source has, where nothing is written down yet of a bad one.
    pub(crate) fn goes_without(&mut self, dataset: &DatasetRef) {
        let known = self.report.datasets.iter().any(|row| row.is(dataset));
        if let (false, Ok(Some(reference))) = (known, self.place.repository(&dataset.name, &dataset.tag)) {
            self.report.datasets.push(DatasetResult::missing(dataset, reference.to_string()));
        }
    }

    /// Asks the registry whether it lacks a dataset, and writes down where it does not.
    pub(crate) fn plan_push(&mut self, candidate: &MirrorCandidate<'_>) -> Option<PendingPush> {
        let dataset = &candidate.item.planned.dataset;
        let reference = match self.place.repository(&dataset.name, &dataset.tag) {
            Ok(reference) => reference?,
            Err(error) => {
                self.report.errors.push(error.into());
                return None;
            }
        };
        // What another source had may have been bad; a place that has it all the same stays as it is.
        let id = dataset.dataset_ref();
        let same = |row: &DatasetResult| row.is(&id);
        if self.report.datasets.iter().any(|row| same(row) && row.status == DeliveryStatus::Unchanged) {
            return None;
        }
        self.report.datasets.retain(|row| !same(row));
        let mut row = DatasetResult::fetched(dataset, candidate.item.announced, reference.to_string());
        row.extra_tags = dated(candidate.tags, candidate.day(None));
        let looked = if self.unreachable { Ok(None) } else { self.look(candidate, reference, &mut row) };
        self.report.datasets.push(row);
        looked.unwrap_or_else(|error| {
            self.fails(dataset, error);
            None
        })
    }

    fn look(
        &mut self,
        candidate: &MirrorCandidate<'_>,
        reference: Repository,
        row: &mut DatasetResult,
    ) -> Result<Option<PendingPush>, Error> {
        let planned = &candidate.item.planned;
        if self.report.datasets.iter().any(|other| other.reference == row.reference) {
            return Err(Error::usage(
                format!("two versions of {} would both be {reference}", row.name),
                "Name the place without a tag, so that each version keeps its own.",
            ));
        }
        let compat = candidate.options.registry.compat.then(|| Compat::of(&planned.manifest)).transpose();
        let compat =
            compat.map_err(|why| Error::unexpected("rewriting a manifest")(std::io::Error::other(why)))?;
        let (manifest, media_type) = match &compat {
            Some(compat) => (compat.manifest.clone(), Compat::MEDIA_TYPE.to_owned()),
            None => (planned.manifest.clone(), planned.dataset.manifest.media_type.clone()),
        };
        let found = self.registry.manifest(&reference)?;
        if found.as_ref() == Some(&manifest) && self.has_tags(candidate, &reference, row, &manifest)? {
            row.status = DeliveryStatus::Unchanged;
            // What is in place was checked when it came; its manifest's word is good enough here.
            if let Some(rejection) = candidate.too_old(row.updated_at) {
                row.status = DeliveryStatus::Rejected;
                self.report.errors.push(rejection.into());
            }
            return Ok(None);
        }
        // The same layer under another manifest, as with --compat, is not older than itself.
        let other = found.filter(|found| layers_of(found) != layers_of(&manifest));
        let existing = other.and_then(|found| self.existing(candidate, &reference, &found));
        row.was = existing.filter(|existing| existing.is_built).map(|existing| existing.date);
        let date = existing.map(|existing| existing.date);
        let believed = believable(date, candidate.now);
        if let (Some(ahead), None) = (date, believed) {
            self.report.warnings.push(future_date_warning(&planned.dataset.reference(), ahead));
        }
        let floor = believed.filter(|_| !candidate.options.allow_rollback);
        let push = PendingPush { reference, manifest, media_type, compat, floor };
        // Who announces older data is believed without fetching it.
        if let Some((date, floor)) = push.older(candidate.item.announced) {
            row.status = DeliveryStatus::Older;
            self.report.warnings.push(older_data_warning(
                &planned.dataset.reference(),
                "not pushed",
                date,
                floor,
            ));
            return Ok(None);
        }
        Ok(Some(push))
    }

    /// Whether all further tags name what is in place.
    ///
    /// Of a database the day stands in its content, which upstream publishes within [`TO_PUBLISH`]. Only if no such
    /// day has a tag, the content is read.
    fn has_tags(
        &mut self,
        candidate: &MirrorCandidate<'_>,
        reference: &Repository,
        row: &mut DatasetResult,
        manifest: &[u8],
    ) -> Result<bool, Error> {
        let planned = &candidate.item.planned;
        let (kind, dataset) = (planned.dataset.name.kind(), planned.dataset.reference());
        if !kind.is_large() || !candidate.tags.iter().any(|tag| is_dated(tag)) {
            self.report.warnings.extend(undated(&dataset, candidate.tags, candidate.day(None)));
            return Ok(name_all(&self.registry, reference, &row.extra_tags, manifest)?);
        }
        for day in candidate.item.announced.into_iter().flat_map(|made| [made, made - TO_PUBLISH]) {
            let tags = dated(candidate.tags, Some(day));
            if name_all(&self.registry, reference, &tags, manifest)? {
                row.extra_tags = tags;
                return Ok(true);
            }
        }
        if candidate.options.dry_run {
            return Ok(false);
        }
        let built = match read_content(&self.registry, reference, kind, manifest, candidate.progress) {
            Ok(ExistingContent::Built(existing)) => existing.updated_at,
            // Then it is fetched, and dated when it is put in place.
            Ok(ExistingContent::Unusable) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        row.extra_tags = dated(candidate.tags, Some(built));
        Ok(name_all(&self.registry, reference, &row.extra_tags, manifest)?)
    }

    /// The date of what a registry has in a dataset's place; `None` if it is no floor.
    ///
    /// Contents are to be compared with contents. What was built hours after the manifest there was made is newer
    /// than whatever it names, and nothing else has to be known; else its layer says when it was built.
    fn existing(
        &mut self,
        candidate: &MirrorCandidate<'_>,
        reference: &Repository,
        found: &[u8],
    ) -> Option<Existing> {
        let (kind, made) = (candidate.item.planned.dataset.name.kind(), date_of(found));
        let by_manifest = made.map(|date| Existing { date, is_built: false });
        let surely = |made: Timestamp| {
            let announced = candidate.item.announced?;
            (announced.duration_since(made) >= TO_PUBLISH).then_some(())
        };
        if !kind.is_large() || candidate.options.dry_run || made.and_then(surely).is_some() {
            return by_manifest;
        }
        match read_content(&self.registry, reference, kind, found, candidate.progress) {
            Ok(ExistingContent::Built(others)) => Some(Existing { date: others.updated_at, is_built: true }),
            Ok(ExistingContent::Unusable) => None,
            Err(error) => {
                self.report.warnings.push(unread(reference, &error));
                by_manifest
            }
        }
    }

    /// Writes down that a dataset could not be put in place.
    pub(crate) fn fails(&mut self, dataset: &Dataset, error: Error) {
        self.unreachable |= matches!(&error, Error::Target(error) if is_out(error));
        self.report.set(dataset, DeliveryStatus::Failed, None);
        self.report.errors.push(error);
    }

    /// Says what would become of a dataset that the place lacks, by what its manifest announces; whether
    /// it would be fetched.
    pub(crate) fn would_accept(&mut self, candidate: &MirrorCandidate<'_>) -> bool {
        let planned = &candidate.item.planned;
        match candidate.too_old(planned.dataset.contents.updated_at.or(candidate.item.announced)) {
            Some(rejection) => {
                self.rejects(&planned.dataset, rejection);
                false
            }
            None => {
                self.report.set(&planned.dataset, DeliveryStatus::WouldPush, None);
                true
            }
        }
    }

    fn rejects(&mut self, dataset: &Dataset, rejection: Rejection) {
        self.report.set(dataset, DeliveryStatus::Rejected, None);
        self.report.errors.push(rejection.into());
    }

    /// Puts a dataset in place whose content is good: what is missing beside the large layer, then the
    /// tags. What is too old, or older than what is there, is left out. `upload` is what became of the
    /// large layer; an error that is said elsewhere is none.
    pub(crate) fn finish(
        &mut self,
        push: &PendingPush,
        candidate: &mut MirrorCandidate<'_>,
        contents: &Contents,
        upload: Result<(), Option<Error>>,
    ) {
        let dataset = candidate.item.planned.dataset.clone();
        self.report.found(&dataset, contents);
        match push.judge(candidate, contents) {
            Decision::TooOld(rejection) => return self.rejects(&dataset, rejection),
            Decision::Older { date, floor } => {
                self.report.set(&dataset, DeliveryStatus::Older, None);
                self.report.warnings.push(older_data_warning(
                    &dataset.reference(),
                    "not pushed",
                    date,
                    floor,
                ));
                return;
            }
            Decision::Accept => {}
        }
        let complete = match upload {
            Ok(()) => self.push_small(push, candidate),
            Err(Some(error)) => Err(error),
            Err(None) => return self.report.set(&dataset, DeliveryStatus::Failed, None),
        };
        let tagged = complete.and_then(|()| {
            let (reference, media_type) = (&push.reference, &push.media_type);
            let day = candidate.day(Some(contents));
            let tags = dated(candidate.tags, day);
            self.report.warnings.extend(undated(&dataset.reference(), candidate.tags, day));
            push_under(&self.registry, reference, &tags, media_type, &push.manifest)?;
            self.report.names(&dataset, tags);
            Ok(())
        });
        match tagged {
            Ok(()) => {
                self.report.set(&dataset, DeliveryStatus::Pushed, None);
                let compat = push.compat.iter().map(|compat| rewritten(&dataset, compat));
                self.report.advice.extend(compat);
            }
            Err(error) => self.fails(&dataset, error),
        }
    }

    fn push_small(&self, push: &PendingPush, candidate: &mut MirrorCandidate<'_>) -> Result<(), Error> {
        let reference = &push.reference;
        let dataset = &candidate.item.planned.dataset;
        let config = Some(&dataset.config).filter(|_| push.compat.is_none());
        let held: &mut BTreeMap<Digest, SpooledTempFile> = &mut candidate.item.held;
        for blob in config.into_iter().chain(&dataset.layers) {
            let Some(content) = held.get_mut(&blob.digest) else { continue };
            self.registry.push_blob(reference, blob.digest, blob.size, content).map_err(not_pushed)?;
        }
        if push.compat.is_some() {
            let (digest, config) = Compat::config();
            self.registry.push_blob(reference, digest, config.len() as u64, config).map_err(not_pushed)?;
        }
        Ok(())
    }

    /// What Trivy must be told to pull from here: also of what this run did not bring.
    pub(crate) fn settings(
        &mut self,
        write: &SettingsOptions,
        own_ca: bool,
        version: TrivyVersion,
        remote: &Remote,
    ) {
        if self.unreachable {
            return;
        }
        self.report.existing = existing_datasets(self.place, &self.registry, version, &self.report);
        let access = ScannerAccess {
            insecure: &|host| remote.is_insecure(host),
            login: &|host| remote.has_login(host),
            own_ca,
            config: write.write_config.as_deref(),
        };
        let pulled = pulled(version, access.insecure, &[&self.report]);
        say(version, &pulled, &access, &mut self.report);
        if self.report.in_place().count() > 0
            && let Err(error) = write_files(write, &registry_settings(version, &pulled), &mut self.report)
        {
            self.report.errors.push(error);
        }
    }
}

impl MirrorCandidate<'_> {
    /// The day for the further tags. Of a database it is known when its content is: until then, tags with it are
    /// left out.
    fn day(&self, contents: Option<&Contents>) -> Option<Timestamp> {
        let is_large = self.item.planned.dataset.name.kind().is_large();
        let built = contents.and_then(|contents| contents.updated_at);
        built.or(self.item.announced.filter(|_| !is_large || contents.is_some()))
    }

    fn too_old(&self, date: Option<Timestamp>) -> Option<Rejection> {
        self.options.max_age.as_ref()?.check(&self.item.planned.dataset.name, date, self.now).err()
    }
}

impl PendingPush {
    /// Whether the place wants this content.
    pub(crate) fn wants(&self, candidate: &MirrorCandidate<'_>, contents: &Contents) -> bool {
        matches!(self.judge(candidate, contents), Decision::Accept)
    }

    fn judge(&self, candidate: &MirrorCandidate<'_>, contents: &Contents) -> Decision {
        match (candidate.too_old(contents.updated_at), self.older(contents.updated_at)) {
            (Some(rejection), _) => Decision::TooOld(rejection),
            (None, Some((date, floor))) => Decision::Older { date, floor },
            (None, None) => Decision::Accept,
        }
    }

    /// The two dates, where what comes is older than what is there.
    fn older(&self, date: Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        match judge(date, self.floor) {
            DatasetDecision::Older { floor } => Some((date?, floor)),
            DatasetDecision::Accept => None,
        }
    }
}

/// What it means that a blob was not pushed which is here.
pub(crate) fn not_pushed(error: PushError) -> Error {
    match error {
        PushError::Target(error) => error.into(),
        PushError::Source(error) => Error::unexpected("reading what was fetched")(error),
    }
}
