//! The report on a target at the end of an import or a mirror, printed as text or JSON.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{Dataset, Image, VerifiedBundle};
use crate::dataset::catalogue::{TrivyVersion, WARN_AFTER};
use crate::dataset::{Contents, DatasetRef, MissingItem, Name};
use crate::delivery::admitted::AdmittedBundle;
use crate::delivery::context::DeliveryContext;
use crate::delivery::ledger::InstalledItems;
use crate::delivery::target_id::TargetId;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::skipped::SkippedFile;
use crate::targets::Switch;
use crate::targets::compat::Compat;
use crate::trust::Rejection;
use crate::trust::acceptance::Admission;
use crate::util::text::{escape, format_age};

/// The remedy for old data on an importing host.
pub(crate) const NEWER_BUNDLE: &str = "bring a newer bundle";

/// The result for a dataset or an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// It was installed in a cache.
    Installed,
    /// It was pushed to a registry.
    Pushed,
    /// It is served from now on.
    Served,
    /// It would be pushed without `--dry-run`.
    WouldPush,
    /// It would be installed without `--dry-run`.
    WouldInstall,
    /// It was in place already.
    Unchanged,
    /// It was accepted before, was missing or different, and was installed again.
    Restored,
    /// The target failed.
    Failed,
    /// The target has newer data.
    Older,
    /// It is older than `--max-age` allows, or older than accepted data that is missing now. For an image: another
    /// program set its tag, or another item has its reference.
    #[serde(rename = "refused")]
    Rejected,
    /// The target has no place for it.
    NoPlace,
    /// The Trivy of this host needs another tag of it.
    NotWanted,
    /// No `--image` matches it.
    NotRequested,
    /// It is not decided yet.
    #[serde(rename = "failed")]
    Installing,
}

impl DeliveryStatus {
    /// Whether the target has it now.
    pub fn is_in_place(self) -> bool {
        self.is_change() || self == DeliveryStatus::Unchanged
    }

    /// Whether the target did not have it before.
    pub fn is_change(self) -> bool {
        matches!(
            self,
            DeliveryStatus::Installed
                | DeliveryStatus::Pushed
                | DeliveryStatus::Served
                | DeliveryStatus::Restored
        )
    }

    /// Returns the word in JSON.
    pub(crate) fn key(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(key)) => key,
            _ => self.word().into(),
        }
    }

    /// Returns the word in text.
    pub fn word(self) -> &'static str {
        match self {
            DeliveryStatus::Installed => "installed",
            DeliveryStatus::Pushed => "pushed",
            DeliveryStatus::Served => "served",
            DeliveryStatus::WouldPush => "would push",
            DeliveryStatus::WouldInstall => "would install",
            DeliveryStatus::Unchanged => "unchanged",
            DeliveryStatus::Restored => "restored",
            DeliveryStatus::Failed | DeliveryStatus::Installing => "failed",
            DeliveryStatus::Older => "skipped",
            DeliveryStatus::Rejected => "refused",
            DeliveryStatus::NoPlace => "no place",
            DeliveryStatus::NotWanted => "not wanted",
            DeliveryStatus::NotRequested => "not requested",
        }
    }
}

/// A dataset with its result.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DatasetResult {
    /// Its name.
    pub name: Name,
    /// Its tag; empty for a dataset that was restored to its kept generation.
    pub tag: String,
    /// Its result.
    pub status: DeliveryStatus,
    /// Upstream's version, if it has one.
    pub version: Option<String>,
    /// When upstream built it, if known.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub updated_at: Option<Timestamp>,
    /// When upstream will publish the next version, if known.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub next_update: Option<Timestamp>,
    /// When upstream built the target's former data.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub was: Option<Timestamp>,
    /// The method by which it replaced the old data in a cache: `atomic`, `two-step` or `per-file`.
    pub switch: Option<&'static str>,
    /// Its reference in a registry, or its URL on a web server.
    pub reference: Option<String>,
    /// The extra tags that name it there.
    pub extra_tags: Vec<String>,
    /// The digest of its manifest.
    pub digest: Option<Digest>,
    /// The source and the size, if it was fetched and not read from a bundle.
    #[serde(flatten)]
    pub fetched: Option<Fetched>,
}

/// The source and the size of a dataset that was fetched, or would be.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Fetched {
    /// The source.
    pub source: String,
    /// The size of its manifest, configuration and layers in bytes.
    pub size: u64,
}

impl DatasetResult {
    pub(crate) fn new(dataset: &Dataset, was: Option<Timestamp>, status: DeliveryStatus) -> Self {
        DatasetResult {
            name: dataset.name.clone(),
            tag: dataset.tag.clone(),
            status,
            version: dataset.version.as_deref().map(escape),
            updated_at: dataset.contents.updated_at,
            next_update: dataset.contents.next_update,
            was,
            switch: None,
            reference: None,
            extra_tags: Vec::new(),
            digest: Some(dataset.manifest.digest),
            fetched: None,
        }
    }

    /// Creates the row of a dataset that is fetched from its source. `announced` is the date of its manifest.
    pub(crate) fn fetched(dataset: &Dataset, announced: Option<Timestamp>, reference: String) -> Self {
        let size = dataset.blobs().map(|blob| blob.size).sum();
        DatasetResult {
            updated_at: dataset.contents.updated_at.or(announced),
            reference: Some(reference),
            fetched: Some(Fetched { source: dataset.source.clone(), size }),
            ..DatasetResult::new(dataset, None, DeliveryStatus::Installing)
        }
    }

    /// Creates the row of a dataset that no source has.
    pub(crate) fn missing(dataset: &DatasetRef, reference: String) -> Self {
        let (tag, reference) = (dataset.tag.clone(), Some(reference));
        DatasetResult { tag, status: DeliveryStatus::Failed, reference, ..DatasetResult::bare(&dataset.name) }
    }

    /// Whether the row is for this dataset.
    pub(crate) fn is(&self, dataset: &DatasetRef) -> bool {
        self.name == dataset.name && self.tag == dataset.tag
    }

    fn bare(name: &Name) -> Self {
        DatasetResult {
            name: name.clone(),
            tag: String::new(),
            status: DeliveryStatus::Installing,
            version: None,
            updated_at: None,
            next_update: None,
            was: None,
            switch: None,
            reference: None,
            extra_tags: Vec::new(),
            digest: None,
            fetched: None,
        }
    }

    /// Creates the row of a dataset that was restored to its kept generation.
    pub(crate) fn went_back(
        name: &Name,
        now: Option<Timestamp>,
        was: Option<Timestamp>,
        how: Switch,
    ) -> Self {
        DatasetResult {
            status: DeliveryStatus::Restored,
            updated_at: now,
            was,
            switch: Some(how.as_str()),
            ..DatasetResult::bare(name)
        }
    }
}

/// An image with its result.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ImageResult {
    /// Its name.
    pub name: String,
    /// Its result.
    pub status: DeliveryStatus,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its reference in a registry.
    pub reference: Option<String>,
}

impl ImageResult {
    pub(crate) fn new(image: &Image) -> Self {
        ImageResult {
            name: image.name.clone(),
            status: DeliveryStatus::Failed,
            digest: image.manifest.digest,
            reference: None,
        }
    }

    /// Creates the row of an image that no `--image` matches.
    pub(crate) fn not_requested(image: &Image) -> Self {
        ImageResult { status: DeliveryStatus::NotRequested, ..ImageResult::new(image) }
    }
}

/// A dataset that was at a target before this run.
#[derive(Debug)]
pub(crate) struct ExistingDataset {
    pub(crate) dataset: DatasetRef,
    /// Its reference, as in [`DatasetResult`].
    pub(crate) reference: String,
}

/// Settings, and the subcommands of Trivy that share them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubcommandSettings {
    /// The assignments before the command, such as `XDG_DATA_HOME=/srv/trivy`; may be empty.
    pub environment: String,
    /// The subcommands.
    pub subcommands: Vec<&'static str>,
    /// Their flags.
    pub flags: String,
}

/// The report on one target.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TargetReport {
    /// The target.
    pub target: TargetId,
    /// The version of Trivy that the settings are for.
    pub trivy_version: String,
    /// The bundles that were admitted.
    pub bundles: Vec<AdmittedBundle>,
    /// The rejected bundles with the reasons. The errors say the same without the signers.
    #[serde(skip)]
    pub rejected: Vec<(AdmittedBundle, String)>,
    /// The datasets.
    pub datasets: Vec<DatasetResult>,
    /// The images.
    pub images: Vec<ImageResult>,
    /// The files that were skipped.
    pub ignored: Vec<SkippedFile>,
    /// The warnings for the operator.
    pub warnings: Vec<String>,
    /// The errors.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
    /// The settings that keep Trivy offline, as a command line for each subcommand.
    pub commands: Vec<String>,
    /// The same settings as flags, with the subcommands that take them.
    #[serde(skip)]
    pub settings: Vec<SubcommandSettings>,
    /// A sentence that introduces the settings.
    #[serde(skip)]
    pub heading: String,
    /// Whether the user requested the settings. If so, they are shown even if nothing has changed.
    #[serde(skip)]
    pub(crate) on_request: bool,
    /// Whether the text shows the settings of every subcommand and not only those of the first.
    #[serde(skip)]
    pub shows_all_settings: bool,
    /// The datasets that were at the target before this run.
    #[serde(skip)]
    pub(crate) existing: Vec<ExistingDataset>,
    /// The items from the bundles of this run that are in place.
    #[serde(skip)]
    pub(crate) installed: InstalledItems,
    /// Whether the target failed before its content was read.
    #[serde(skip)]
    pub failed: bool,
    /// The failure of the target, if it is new and needs a line in the log.
    #[serde(skip)]
    pub(crate) new_failure: Option<String>,
    /// The same settings as environment variables.
    pub environment: Vec<(String, String)>,
    /// The files that were written beside the target.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub written: Vec<PathBuf>,
    /// Recommended next steps.
    pub advice: Vec<String>,
    /// Advice that applies only to some scanners.
    pub settings_advice: Vec<String>,
    /// The time from which Trivy tries to download, and fails, without these settings.
    pub fails_from: Option<Timestamp>,
}

impl TargetReport {
    pub(crate) fn new(target: TargetId, context: &DeliveryContext, ignored: Vec<SkippedFile>) -> Self {
        TargetReport { ignored, ..TargetReport::of(target, context.host.version) }
    }

    /// Creates the report on a target without skipped files.
    pub(crate) fn of(target: TargetId, version: TrivyVersion) -> Self {
        TargetReport {
            target,
            trivy_version: version.to_string(),
            bundles: Vec::new(),
            rejected: Vec::new(),
            datasets: Vec::new(),
            images: Vec::new(),
            ignored: Vec::new(),
            warnings: Vec::new(),
            errors: Vec::new(),
            commands: Vec::new(),
            settings: Vec::new(),
            heading: String::new(),
            on_request: false,
            shows_all_settings: false,
            existing: Vec::new(),
            installed: InstalledItems::default(),
            failed: false,
            new_failure: None,
            environment: Vec::new(),
            written: Vec::new(),
            advice: Vec::new(),
            settings_advice: Vec::new(),
            fails_from: None,
        }
    }

    /// Records that a bundle rolled back a dataset by an override. This is known only after admission.
    pub(crate) fn rolls_back(&mut self, bundle: &VerifiedBundle, admission: &mut Admission) {
        admission.rolls_back();
        self.overrides(bundle, admission);
    }

    /// Records that an image of a bundle replaces a tag that trivy-ferry did not set.
    pub(crate) fn replaces_tags(&mut self, bundle: &VerifiedBundle, admission: &mut Admission) {
        admission.replaces_tags();
        self.overrides(bundle, admission);
    }

    fn overrides(&mut self, bundle: &VerifiedBundle, admission: &Admission) {
        for source in self.bundles.iter_mut().filter(|source| source.identity == bundle.identity()) {
            source.overrides.clone_from(&admission.overrides);
        }
    }

    /// Adds a dataset that could not be installed, with its error.
    pub(crate) fn fails(&mut self, dataset: &Dataset, reference: String, error: Error) {
        let mut row = DatasetResult::new(dataset, None, DeliveryStatus::Failed);
        row.reference = Some(reference);
        self.datasets.push(row);
        self.errors.push(error);
    }

    /// Sets the result of a dataset that is in place now. `repository` is the scanner's name for a VEX repository in a
    /// cache.
    pub(crate) fn installs(
        &mut self,
        dataset: &Dataset,
        repository: Option<String>,
        status: DeliveryStatus,
        how: Option<Switch>,
    ) {
        self.set(dataset, status, how);
        let row = self.datasets.iter().find(|row| row.is(&dataset.dataset_ref()));
        let tags = row.map(|row| row.extra_tags.clone()).unwrap_or_default();
        self.installed.add(dataset, repository, tags);
    }

    /// Sets the result of a dataset.
    pub(crate) fn set(&mut self, dataset: &Dataset, status: DeliveryStatus, how: Option<Switch>) {
        let dataset = dataset.dataset_ref();
        if let Some(row) = self.datasets.iter_mut().find(|row| row.is(&dataset)) {
            row.status = status;
            row.switch = how.map(Switch::as_str);
        }
    }

    /// Sets the extra tags that name a dataset.
    pub(crate) fn names(&mut self, dataset: &Dataset, tags: Vec<String>) {
        let dataset = dataset.dataset_ref();
        if let Some(row) = self.datasets.iter_mut().find(|row| row.is(&dataset)) {
            row.extra_tags = tags;
        }
    }

    /// Sets the dates of a dataset from its content.
    pub(crate) fn found(&mut self, dataset: &Dataset, contents: &Contents) {
        let dataset = dataset.dataset_ref();
        if let Some(row) = self.datasets.iter_mut().find(|row| row.is(&dataset)) {
            (row.updated_at, row.next_update) = (contents.updated_at, contents.next_update);
        }
    }

    /// Warns of items that are missing from the newest bundle.
    pub(crate) fn warn_of_missing(&mut self) {
        let Some(bundle) = self.bundles.last() else { return };
        let warning = |item: &MissingItem| {
            let (name, why) = (&bundle.name, escape(&item.why));
            format!("{name} lacks {item}, which its exporter could not fetch: {why}")
        };
        let warnings: Vec<String> = bundle.missing_items.iter().map(warning).collect();
        self.warnings.extend(warnings);
    }

    /// Warns of old databases at every run and adds the remedy, so that outdated data is noticed even if every run
    /// succeeds. VEX documents and checks age more slowly and are not included.
    pub(crate) fn warn_of_old(&mut self, now: Timestamp, remedy: &str) {
        let is_old = |row: &&DatasetResult| {
            row.name.kind().is_large()
                && row.updated_at.is_some_and(|date| now.duration_since(date) > WARN_AFTER)
        };
        let old = self.in_place().filter(is_old).map(|row| {
            let date = row.updated_at.map_or_else(String::new, |date| format_age(date, now));
            format!("{} is {date} old: {remedy}", row.name)
        });
        let old: Vec<String> = old.collect();
        self.warnings.extend(old);
    }

    /// Returns the datasets that are in place now.
    pub fn in_place(&self) -> impl Iterator<Item = &DatasetResult> {
        self.datasets.iter().filter(|row| row.status.is_in_place())
    }

    /// Returns the datasets that changed.
    pub fn changed(&self) -> impl Iterator<Item = &DatasetResult> {
        self.datasets.iter().filter(|row| row.status.is_change())
    }

    /// Whether to show the settings: something changed, or the user requested them.
    pub(crate) fn tells_settings(&self) -> bool {
        self.on_request || self.changed().count() > 0
    }

    /// Whether anything changed.
    pub fn has_changed(&self) -> bool {
        self.changed().next().is_some() || self.images.iter().any(|row| row.status.is_change())
    }

    /// Returns the first error of the target itself. Damaged and rejected bundles do not count.
    pub(crate) fn failure(&self) -> Option<&Error> {
        let is_of_target =
            |error: &&Error| !matches!(error.original(), Error::Bundle(_) | Error::Rejected(_));
        self.errors.iter().find(is_of_target)
    }

    /// Whether all bundles of the run are of other streams, so that the run says nothing about the target's data.
    pub(crate) fn is_of_other_streams(&self) -> bool {
        let is_other = |error: &Error| matches!(error, Error::Rejected(Rejection::Stream { .. }));
        self.bundles.is_empty() && !self.errors.is_empty() && self.errors.iter().all(is_other)
    }

    /// Whether anything is in place, new or unchanged.
    pub fn has_something_in_place(&self) -> bool {
        let nothing = |row: &DatasetResult| {
            matches!(
                row.status,
                DeliveryStatus::Failed | DeliveryStatus::Installing | DeliveryStatus::Rejected
            )
        };
        !self.datasets.iter().all(nothing) || self.images.iter().any(|row| row.status.is_in_place())
    }
}

/// Describes how `--compat` rewrote a manifest.
pub(crate) fn rewritten(dataset: &Dataset, compat: &Compat) -> String {
    format!(
        "{}: its manifest was rewritten for this registry: {}; the layers keep their digests.",
        dataset.name, compat.changed
    )
}
