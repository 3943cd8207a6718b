//! One place that a mirror fills: what it has, what it lacks, and its report.
//!
//! Knows one registry; nothing of the sources, nor of the other places.

use std::collections::BTreeMap;
use std::io::Seek;

use jiff::Timestamp;
use tempfile::SpooledTempFile;

use crate::bundle::Dataset;
use crate::collect::artifact::Collected;
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Contents, DatasetRef};
use crate::delivery::decision::{ignored, left_out};
use crate::delivery::options::SettingsOptions;
use crate::delivery::registry_access::{date_of, is_out, layers_of, name_all, standing};
use crate::delivery::registry_place::Place;
use crate::delivery::report::{Report, Row, Status, rewritten};
use crate::delivery::settings::{Way, pulled, say, write_files};
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::mirror::options::MirrorOptions;
use crate::remote::{Remote, Repository};
use crate::scanner::registry_settings::registry_settings;
use crate::targets::compat::Compat;
use crate::targets::registry::{PushError, Registry, push_under};
use crate::trust::Refusal;
use crate::trust::acceptance::{Verdict, believable, judge};

/// A place of the run.
pub(crate) struct Site<'r> {
    place: &'r Place,
    pub(crate) registry: Registry<'r>,
    pub(crate) report: Report,
    /// Its host cannot be talked to: to ask again for each dataset would only take time.
    out: bool,
}

/// What a place lacks.
pub(crate) struct Lack {
    pub(crate) reference: Repository,
    /// What the tags are to name: upstream's manifest, or the one of `--compat`.
    manifest: Vec<u8>,
    media_type: String,
    compat: Option<Compat>,
    floor: Option<Timestamp>,
}

/// A dataset that was fetched but for its large layer, and the rules by which places take it.
pub(crate) struct Offer<'a> {
    pub(crate) options: &'a MirrorOptions,
    pub(crate) item: &'a mut Collected,
    /// The further tags under which it is to be had.
    pub(crate) tags: &'a [String],
    pub(crate) now: Timestamp,
}

/// Whether a place takes a dataset.
enum Judged {
    Take,
    Older { date: Timestamp, floor: Timestamp },
    TooOld(Refusal),
}

impl<'r> Site<'r> {
    pub(crate) fn new(place: &'r Place, remote: &'r Remote, version: TrivyVersion) -> Self {
        let report = Report::of(TargetId::Registry(place.clone()), version);
        Site { place, registry: Registry::new(remote), report, out: false }
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
            self.report.datasets.push(Row::missing(dataset, reference.to_string()));
        }
    }

    /// Asks the registry whether it lacks a dataset, and writes down where it does not.
    pub(crate) fn lacks(&mut self, offer: &Offer<'_>) -> Option<Lack> {
        let dataset = &offer.item.planned.dataset;
        let reference = match self.place.repository(&dataset.name, &dataset.tag) {
            Ok(reference) => reference?,
            Err(error) => {
                self.report.errors.push(error.into());
                return None;
            }
        };
        // What another source had may have been bad; a place that has it all the same stays as it is.
        let id = dataset.dataset_ref();
        let same = |row: &Row| row.is(&id);
        if self.report.datasets.iter().any(|row| same(row) && row.status == Status::Unchanged) {
            return None;
        }
        self.report.datasets.retain(|row| !same(row));
        let mut row = Row::fetched(dataset, offer.item.announced, reference.to_string());
        row.extra_tags.extend_from_slice(offer.tags);
        let looked = if self.out { Ok(None) } else { self.look(offer, reference, &mut row) };
        self.report.datasets.push(row);
        looked.unwrap_or_else(|error| {
            self.fails(dataset, error);
            None
        })
    }

    fn look(
        &mut self,
        offer: &Offer<'_>,
        reference: Repository,
        row: &mut Row,
    ) -> Result<Option<Lack>, Error> {
        let planned = &offer.item.planned;
        if self.report.datasets.iter().any(|other| other.reference == row.reference) {
            return Err(Error::usage(
                format!("two versions of {} would both be {reference}", row.name),
                "Name the place without a tag, so that each version keeps its own.",
            ));
        }
        let compat = offer.options.registry.compat.then(|| Compat::of(&planned.manifest)).transpose();
        let compat =
            compat.map_err(|why| Error::unexpected("rewriting a manifest")(std::io::Error::other(why)))?;
        let (manifest, media_type) = match &compat {
            Some(compat) => (compat.manifest.clone(), Compat::MEDIA_TYPE.to_owned()),
            None => (planned.manifest.clone(), planned.dataset.manifest.media_type.clone()),
        };
        let found = self.registry.manifest(&reference)?;
        row.was = found.as_deref().and_then(date_of);
        if found.as_ref() == Some(&manifest) && name_all(&self.registry, &reference, offer.tags, &manifest)? {
            row.status = Status::Unchanged;
            // What is in place was checked when it came; its manifest's word is good enough here.
            if let Some(refusal) = offer.too_old(row.updated_at) {
                row.status = Status::Refused;
                self.report.errors.push(refusal.into());
            }
            return Ok(None);
        }
        // The same layer under another manifest, as with --compat, is not older than itself: databases
        // are a little older than the manifests that name them.
        let same = found.is_some_and(|found| layers_of(&found) == layers_of(&manifest));
        let believed = believable(row.was, offer.now);
        if let (Some(ahead), None) = (row.was, believed) {
            self.report.warnings.push(ignored(&planned.dataset.reference(), ahead));
        }
        let floor = believed.filter(|_| !same && !offer.options.allow_rollback);
        let lack = Lack { reference, manifest, media_type, compat, floor };
        // Who announces older data is believed without fetching it.
        if let Some((date, floor)) = lack.older(offer.item.announced) {
            row.status = Status::Older;
            self.report.warnings.push(left_out(&planned.dataset.reference(), "not pushed", date, floor));
            return Ok(None);
        }
        Ok(Some(lack))
    }

    /// Writes down that a dataset could not be put in place.
    pub(crate) fn fails(&mut self, dataset: &Dataset, error: Error) {
        self.out |= matches!(&error, Error::Target(error) if is_out(error));
        self.report.set(dataset, Status::Failed, None);
        self.report.errors.push(error);
    }

    /// Says what would become of a dataset that the place lacks, by what its manifest announces; whether
    /// it would be fetched.
    pub(crate) fn would_take(&mut self, offer: &Offer<'_>) -> bool {
        let planned = &offer.item.planned;
        match offer.too_old(planned.dataset.contents.updated_at.or(offer.item.announced)) {
            Some(refusal) => {
                self.refuses(&planned.dataset, refusal);
                false
            }
            None => {
                self.report.set(&planned.dataset, Status::WouldPush, None);
                true
            }
        }
    }

    fn refuses(&mut self, dataset: &Dataset, refusal: Refusal) {
        self.report.set(dataset, Status::Refused, None);
        self.report.errors.push(refusal.into());
    }

    /// Puts a dataset in place whose content is good: what is missing beside the large layer, then the
    /// tags. What is too old, or older than what is there, is left out. `upload` is what became of the
    /// large layer.
    pub(crate) fn finish(
        &mut self,
        lack: &Lack,
        offer: &mut Offer<'_>,
        contents: &Contents,
        upload: Result<(), PushError>,
    ) {
        let dataset = offer.item.planned.dataset.clone();
        self.report.found(&dataset, contents);
        match lack.judge(offer, contents) {
            Judged::TooOld(refusal) => return self.refuses(&dataset, refusal),
            Judged::Older { date, floor } => {
                self.report.set(&dataset, Status::Older, None);
                self.report.warnings.push(left_out(&dataset.reference(), "not pushed", date, floor));
                return;
            }
            Judged::Take => {}
        }
        let complete = upload.map_err(not_pushed).and_then(|()| self.push_small(lack, offer));
        let tagged = complete.and_then(|()| {
            let (reference, media_type) = (&lack.reference, &lack.media_type);
            Ok(push_under(&self.registry, reference, offer.tags, media_type, &lack.manifest)?)
        });
        match tagged {
            Ok(()) => {
                self.report.set(&dataset, Status::Pushed, None);
                let compat = lack.compat.iter().map(|compat| rewritten(&dataset, compat));
                self.report.advice.extend(compat);
            }
            Err(error) => self.fails(&dataset, error),
        }
    }

    fn push_small(&self, lack: &Lack, offer: &mut Offer<'_>) -> Result<(), Error> {
        let reference = &lack.reference;
        let dataset = &offer.item.planned.dataset;
        let config = Some(&dataset.config).filter(|_| lack.compat.is_none());
        let held: &mut BTreeMap<Digest, SpooledTempFile> = &mut offer.item.held;
        for blob in config.into_iter().chain(&dataset.layers) {
            let Some(content) = held.get_mut(&blob.digest) else { continue };
            content.rewind().map_err(Error::unexpected("reading what was fetched"))?;
            self.registry.push_blob(reference, blob.digest, blob.size, content).map_err(not_pushed)?;
        }
        if let Some(Compat { config, .. }) = lack.compat {
            let (digest, size) = (Digest::of(config), config.len() as u64);
            self.registry.push_blob(reference, digest, size, config).map_err(not_pushed)?;
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
        if self.out {
            return;
        }
        self.report.standing = standing(self.place, &self.registry, version, &self.report);
        let way = Way {
            insecure: &|host| remote.is_insecure(host),
            login: &|host| remote.has_login(host),
            own_ca,
            config: write.write_config.as_deref(),
        };
        let pulled = pulled(version, way.insecure, &[&self.report]);
        say(version, &pulled, &way, &mut self.report);
        if self.report.in_place().count() > 0
            && let Err(error) = write_files(write, &registry_settings(version, &pulled), &mut self.report)
        {
            self.report.errors.push(error);
        }
    }
}

impl Offer<'_> {
    fn too_old(&self, date: Option<Timestamp>) -> Option<Refusal> {
        self.options.max_age.as_ref()?.check(&self.item.planned.dataset.name, date, self.now).err()
    }
}

impl Lack {
    /// Whether the place wants this content.
    pub(crate) fn wants(&self, offer: &Offer<'_>, contents: &Contents) -> bool {
        matches!(self.judge(offer, contents), Judged::Take)
    }

    fn judge(&self, offer: &Offer<'_>, contents: &Contents) -> Judged {
        match (offer.too_old(contents.updated_at), self.older(contents.updated_at)) {
            (Some(refusal), _) => Judged::TooOld(refusal),
            (None, Some((date, floor))) => Judged::Older { date, floor },
            (None, None) => Judged::Take,
        }
    }

    /// The two dates, where what comes is older than what is there.
    fn older(&self, date: Option<Timestamp>) -> Option<(Timestamp, Timestamp)> {
        match judge(date, self.floor) {
            Verdict::Older { floor } => Some((date?, floor)),
            Verdict::Take => None,
        }
    }
}

/// What it means that a blob was not pushed which is here.
fn not_pushed(error: PushError) -> Error {
    match error {
        PushError::Target(error) => error.into(),
        PushError::Source(error) => Error::unexpected("reading what was fetched")(error),
    }
}
