//! One place that a mirror fills: its existing data, its missing data, and its report.
//!
//! This module handles one registry. It does not depend on the sources or the other places.

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

/// A registry, or a place in one, that the run fills.
pub(crate) struct MirrorTarget<'r> {
    place: &'r RegistryPlace,
    pub(crate) registry: Registry<'r>,
    pub(crate) report: TargetReport,
    /// Whether its host cannot be reached. Further requests would only cost time.
    unreachable: bool,
}

/// A push that a target needs.
pub(crate) struct PendingPush {
    pub(crate) reference: Repository,
    /// The manifest for the tags: that of upstream, or the one of `--compat`.
    manifest: Vec<u8>,
    media_type: String,
    compat: Option<Compat>,
    floor: Option<Timestamp>,
}

/// A dataset whose large layer was not fetched yet, and the rules for pushing it.
pub(crate) struct MirrorCandidate<'a> {
    pub(crate) options: &'a MirrorOptions,
    pub(crate) item: &'a mut CollectedDataset,
    /// The extra tags for it.
    pub(crate) tags: &'a [String],
    pub(crate) now: Timestamp,
    pub(crate) progress: &'a dyn Progress,
}

/// The maximum time between building and publishing a dataset. Upstream builds at most every 6 hours.
const TO_PUBLISH: SignedDuration = SignedDuration::from_hours(3);

/// The existing data of a dataset in a registry.
#[derive(Debug, Clone, Copy)]
struct Existing {
    date: Timestamp,
    /// Whether the date is that of the content, and not that of the manifest.
    is_built: bool,
}

/// The decision of a target about a dataset.
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

    /// The number of errors and warnings so far.
    pub(crate) fn message_counts(&self) -> (usize, usize) {
        (self.report.errors.len(), self.report.warnings.len())
    }

    /// Removes the errors and warnings beyond these counts. They concern a source that was
    /// rejected.
    pub(crate) fn truncate_messages(&mut self, (errors, warnings): (usize, usize)) {
        self.report.errors.truncate(errors);
        self.report.warnings.truncate(warnings);
    }

    /// Reports a dataset as missing because no source has it, unless the report already has a row for it.
    pub(crate) fn report_missing(&mut self, dataset: &DatasetRef) {
        let known = self.report.datasets.iter().any(|row| row.is(dataset));
        if let (false, Ok(Some(reference))) = (known, self.place.repository(&dataset.name, &dataset.tag)) {
            self.report.datasets.push(DatasetResult::missing(dataset, reference.to_string()));
        }
    }

    /// Queries the registry and returns a push if it needs the dataset. Otherwise reports why not.
    pub(crate) fn plan_push(&mut self, candidate: &MirrorCandidate<'_>) -> Option<PendingPush> {
        let dataset = &candidate.item.planned.dataset;
        let reference = match self.place.repository(&dataset.name, &dataset.tag) {
            Ok(reference) => reference?,
            Err(error) => {
                self.report.errors.push(error.into());
                return None;
            }
        };
        // If an earlier source was rejected, a place that already had its data stays unchanged.
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
                format!("two versions of {} would have the same name {reference}", row.name),
                "Give the place without a tag, so that each version keeps its own tag.",
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
            // The existing content was validated when it was pushed, so the date of its manifest is
            // sufficient.
            if let Some(rejection) = candidate.too_old(row.updated_at) {
                row.status = DeliveryStatus::Rejected;
                self.report.errors.push(rejection.into());
            }
            return Ok(None);
        }
        // The same layer with another manifest, as with `--compat`, is not older.
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
        // A manifest that announces older data is enough to skip it without fetching.
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

    /// Whether all extra tags name the existing manifest.
    ///
    /// The date in a tag of a database is that of its content, which upstream publishes within
    /// [`TO_PUBLISH`]. The content is read only if no possible date has a tag.
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
            // The dataset is then fetched, and its date is known when it is pushed.
            Ok(ExistingContent::Unusable) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        row.extra_tags = dated(candidate.tags, Some(built));
        Ok(name_all(&self.registry, reference, &row.extra_tags, manifest)?)
    }

    /// Returns the date of a dataset's existing data; `None` if it is not a lower limit.
    ///
    /// The new date must be compared with the date of the existing content, not with that of its
    /// manifest. If the date of the new manifest is at least [`TO_PUBLISH`] after that of the
    /// existing one, the new data is newer in any case. Otherwise the date is read from the existing layer.
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

    /// Reports that a dataset could not be pushed.
    pub(crate) fn fails(&mut self, dataset: &Dataset, error: Error) {
        self.unreachable |= matches!(&error, Error::Target(error) if is_out(error));
        self.report.set(dataset, DeliveryStatus::Failed, None);
        self.report.errors.push(error);
    }

    /// Reports the expected result for a dataset by the date that its manifest announces. Returns whether it
    /// would be fetched.
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

    /// Pushes a valid dataset: the missing small blobs, then the tags. Skips a dataset that is too old or
    /// older than the existing one. `upload` is the result for the large layer; its error is `None` if it is
    /// reported elsewhere.
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
            self.registry.push_compat_config(reference).map_err(not_pushed)?;
        }
        Ok(())
    }

    /// Reports the scanner settings to pull from this place, including datasets that this run did not push.
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
    /// Returns the date for extra tags. For a database it is `None` until the content is known.
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
    /// Whether the place accepts this content.
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

    /// Returns both dates if the new data is older than the existing data.
    fn older(&self, date: Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        match judge(date, self.floor) {
            DatasetDecision::Older { floor } => Some((date?, floor)),
            DatasetDecision::Accept => None,
        }
    }
}

/// Converts the error of pushing a blob that was already fetched.
pub(crate) fn not_pushed(error: PushError) -> Error {
    match error {
        PushError::Target(error) => error.into(),
        PushError::Source(error) => Error::unexpected("reading a fetched blob")(error),
    }
}
