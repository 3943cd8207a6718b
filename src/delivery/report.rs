//! What an import or a mirror says of a target at its end, for people and for programs.

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
use crate::intake::open::SkippedFile;
use crate::targets::Switch;
use crate::targets::compat::Compat;
use crate::trust::Rejection;
use crate::trust::acceptance::Admission;
use crate::util::text::{escape, format_age};

/// What helps an importing host whose data is old.
pub(crate) const NEWER_BUNDLE: &str = "bring a newer bundle";

/// What became of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// It is new here.
    Installed,
    /// It is new in this registry.
    Pushed,
    /// It is handed out from now on.
    Served,
    /// It would be, were this no dry run.
    WouldPush,
    /// It would be new here, were this no dry run.
    WouldInstall,
    /// It was in place.
    Unchanged,
    /// It was accepted before, was missing or different, and is back.
    Restored,
    /// The target failed.
    Failed,
    /// Something newer was there already.
    Older,
    /// It is older than `--max-age` allows.
    #[serde(rename = "refused")]
    Rejected,
    /// The layout has no place for it.
    NoPlace,
    /// The Trivy here wants another one.
    NotWanted,
    /// No `--image` names it.
    NotRequested,
    /// Not yet decided.
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

    /// The word for programs.
    pub(crate) fn key(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(key)) => key,
            _ => self.word().into(),
        }
    }

    /// Returns the word for people.
    pub fn word(self) -> &'static str {
        match self {
            DeliveryStatus::Installed => "installed",
            DeliveryStatus::Pushed => "pushed",
            DeliveryStatus::Served => "served",
            DeliveryStatus::WouldPush => "would push",
            DeliveryStatus::WouldInstall => "would come",
            DeliveryStatus::Unchanged => "unchanged",
            DeliveryStatus::Restored => "restored",
            DeliveryStatus::Failed | DeliveryStatus::Installing => "failed",
            DeliveryStatus::Older => "left alone",
            DeliveryStatus::Rejected => "refused",
            DeliveryStatus::NoPlace => "no place",
            DeliveryStatus::NotWanted => "not wanted",
            DeliveryStatus::NotRequested => "not requested",
        }
    }
}

/// A dataset and what became of it.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DatasetResult {
    /// Its name.
    pub name: Name,
    /// Its tag; empty for one that went back to its kept generation.
    pub tag: String,
    /// What became of it.
    pub status: DeliveryStatus,
    /// Upstream's version, if it has one.
    pub version: Option<String>,
    /// When upstream built it, if it says so.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub updated_at: Option<Timestamp>,
    /// When upstream will have a newer one, if it says so.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub next_update: Option<Timestamp>,
    /// When upstream built what the target had before.
    #[serde(serialize_with = "crate::util::text::serialize_optional_second")]
    pub was: Option<Timestamp>,
    /// How it took its place in a cache: `atomic`, `two-step` or `per-file`.
    pub switch: Option<&'static str>,
    /// The reference under which a registry has it, or the URL under which a web server does.
    pub reference: Option<String>,
    /// The further tags there that name it.
    pub extra_tags: Vec<String>,
    /// The digest of its manifest.
    pub digest: Option<Digest>,
    /// Where it was fetched from, if it comes from no bundle.
    #[serde(flatten)]
    pub fetched: Option<Fetched>,
}

/// Where a dataset was fetched from, or would be.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Fetched {
    /// The source.
    pub source: String,
    /// The bytes of its manifest, configuration and layers.
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

    /// A dataset that comes from its source. `announced` is the date that its manifest has.
    pub(crate) fn fetched(dataset: &Dataset, announced: Option<Timestamp>, reference: String) -> Self {
        let size = dataset.blobs().map(|blob| blob.size).sum();
        DatasetResult {
            updated_at: dataset.contents.updated_at.or(announced),
            reference: Some(reference),
            fetched: Some(Fetched { source: dataset.source.clone(), size }),
            ..DatasetResult::new(dataset, None, DeliveryStatus::Installing)
        }
    }

    /// A dataset that no source has.
    pub(crate) fn missing(dataset: &DatasetRef, reference: String) -> Self {
        let (tag, reference) = (dataset.tag.clone(), Some(reference));
        DatasetResult { tag, status: DeliveryStatus::Failed, reference, ..DatasetResult::bare(&dataset.name) }
    }

    /// Whether the row is of this dataset.
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

    /// A dataset that went back to its kept generation.
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

/// An image beside the datasets and what became of it.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ImageResult {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub status: DeliveryStatus,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The reference under which a registry has it.
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

    /// An image that no `--image` names.
    pub(crate) fn not_requested(image: &Image) -> Self {
        ImageResult { status: DeliveryStatus::NotRequested, ..ImageResult::new(image) }
    }
}

/// A dataset that a target has from before.
#[derive(Debug)]
pub(crate) struct ExistingDataset {
    pub(crate) dataset: DatasetRef,
    /// As in [`DatasetResult`].
    pub(crate) reference: String,
}

/// The settings of some subcommands of Trivy that take the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubcommandSettings {
    /// What stands before the command, such as `XDG_DATA_HOME=/srv/trivy`; may be empty.
    pub environment: String,
    /// The subcommands.
    pub subcommands: Vec<&'static str>,
    /// Their flags.
    pub flags: String,
}

/// What became of one target.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TargetReport {
    /// The target.
    pub target: TargetId,
    /// The version of Trivy that the settings are for.
    pub trivy_version: String,
    /// The bundles that were admitted.
    pub bundles: Vec<AdmittedBundle>,
    /// The bundles that were rejected, and why: the errors say the same without who made them.
    #[serde(skip)]
    pub rejected: Vec<(AdmittedBundle, String)>,
    /// The datasets.
    pub datasets: Vec<DatasetResult>,
    /// The images.
    pub images: Vec<ImageResult>,
    /// The files that were skipped.
    pub ignored: Vec<SkippedFile>,
    /// What the operator has to know.
    pub warnings: Vec<String>,
    /// What went wrong.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
    /// The settings that keep Trivy offline, as a command line for each subcommand.
    pub commands: Vec<String>,
    /// The same settings as flags, with the subcommands that take them.
    #[serde(skip)]
    pub settings: Vec<SubcommandSettings>,
    /// What the settings are for, in a sentence.
    #[serde(skip)]
    pub heading: String,
    /// Somebody asks for the settings: they are told also if nothing has changed.
    #[serde(skip)]
    pub(crate) on_request: bool,
    /// The text shows the settings of every subcommand, and not only those of the first.
    #[serde(skip)]
    pub shows_all_settings: bool,
    /// What the target has from before, and this run did not bring.
    #[serde(skip)]
    pub(crate) existing: Vec<ExistingDataset>,
    /// What is in place of the bundles of this run.
    #[serde(skip)]
    pub(crate) installed: InstalledItems,
    /// The target failed as a whole: nobody looked at what it has.
    #[serde(skip)]
    pub failed: bool,
    /// How the target failed, if that is worth a line in the log.
    #[serde(skip)]
    pub(crate) new_failure: Option<String>,
    /// The same settings as environment variables.
    pub environment: Vec<(String, String)>,
    /// The files that were written beside the target.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub written: Vec<PathBuf>,
    /// What the operator may want to do next.
    pub advice: Vec<String>,
    /// What only some scanners need beside the settings.
    pub settings_advice: Vec<String>,
    /// From when Trivy would try to download, and fail, without these settings.
    pub fails_from: Option<Timestamp>,
}

impl TargetReport {
    pub(crate) fn new(target: TargetId, context: &DeliveryContext, ignored: Vec<SkippedFile>) -> Self {
        TargetReport { ignored, ..TargetReport::of(target, context.host.version) }
    }

    /// The report of a target that no bundle goes to.
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

    /// Writes down that something of a bundle is older than what was there, and taken all the same: that
    /// shows only after it was admitted.
    pub(crate) fn rolls_back(&mut self, bundle: &VerifiedBundle, admission: &mut Admission) {
        admission.rolls_back();
        self.overrides(bundle, admission);
    }

    /// Writes down that an image of a bundle replaces a tag that trivy-ferry did not set.
    pub(crate) fn replaces_tags(&mut self, bundle: &VerifiedBundle, admission: &mut Admission) {
        admission.replaces_tags();
        self.overrides(bundle, admission);
    }

    fn overrides(&mut self, bundle: &VerifiedBundle, admission: &Admission) {
        for source in self.bundles.iter_mut().filter(|source| source.identity == bundle.identity()) {
            source.overrides.clone_from(&admission.overrides);
        }
    }

    /// Writes down a dataset that the target refuses.
    pub(crate) fn fails(&mut self, dataset: &Dataset, reference: String, error: Error) {
        let mut row = DatasetResult::new(dataset, None, DeliveryStatus::Failed);
        row.reference = Some(reference);
        self.datasets.push(row);
        self.errors.push(error);
    }

    /// Sets what became of a dataset that is in place now. `repository` is the name that the scanner here has for
    /// a VEX repository in a cache.
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

    /// Sets what became of a dataset.
    pub(crate) fn set(&mut self, dataset: &Dataset, status: DeliveryStatus, how: Option<Switch>) {
        let dataset = dataset.dataset_ref();
        if let Some(row) = self.datasets.iter_mut().find(|row| row.is(&dataset)) {
            row.status = status;
            row.switch = how.map(Switch::as_str);
        }
    }

    /// Sets the further tags that name a dataset.
    pub(crate) fn names(&mut self, dataset: &Dataset, tags: Vec<String>) {
        let dataset = dataset.dataset_ref();
        if let Some(row) = self.datasets.iter_mut().find(|row| row.is(&dataset)) {
            row.extra_tags = tags;
        }
    }

    /// Sets what the content of a dataset was found to be.
    pub(crate) fn found(&mut self, dataset: &Dataset, contents: &Contents) {
        let dataset = dataset.dataset_ref();
        if let Some(row) = self.datasets.iter_mut().find(|row| row.is(&dataset)) {
            (row.updated_at, row.next_update) = (contents.updated_at, contents.next_update);
        }
    }

    /// Warns of what the newest bundle came without.
    pub(crate) fn warn_of_missing(&mut self) {
        let Some(bundle) = self.bundles.last() else { return };
        let warning = |item: &MissingItem| {
            let (name, why) = (&bundle.name, escape(&item.why));
            format!("{name} came without {item}, which its exporter could not get: {why}")
        };
        let warnings: Vec<String> = bundle.missing_items.iter().map(warning).collect();
        self.warnings.extend(warnings);
    }

    /// Warns of databases that are old, each time, and says what would help: a stick that nobody
    /// refreshes must not stay green for ever. VEX documents and checks stay true for long.
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

    /// The datasets that are in place now.
    pub fn in_place(&self) -> impl Iterator<Item = &DatasetResult> {
        self.datasets.iter().filter(|row| row.status.is_in_place())
    }

    /// The datasets that changed.
    pub fn changed(&self) -> impl Iterator<Item = &DatasetResult> {
        self.datasets.iter().filter(|row| row.status.is_change())
    }

    /// Whether the settings are worth telling: something changed, or somebody asks for them.
    pub(crate) fn tells_settings(&self) -> bool {
        self.on_request || self.changed().count() > 0
    }

    /// Whether anything changed.
    pub fn has_changed(&self) -> bool {
        self.changed().next().is_some() || self.images.iter().any(|row| row.status.is_change())
    }

    /// How the target itself failed, if it did: not what is wrong with a bundle, or not acceptable.
    pub(crate) fn failure(&self) -> Option<&Error> {
        let is_of_target =
            |error: &&Error| !matches!(error.original(), Error::Bundle(_) | Error::Rejected(_));
        self.errors.iter().find(is_of_target)
    }

    /// Whether the run brought nothing but bundles of other streams: it says nothing of what the target has of its
    /// own.
    pub(crate) fn is_of_other_streams(&self) -> bool {
        let is_other = |error: &Error| matches!(error, Error::Rejected(Rejection::Stream { .. }));
        self.bundles.is_empty() && !self.errors.is_empty() && self.errors.iter().all(is_other)
    }

    /// Whether anything is in place, be it new or not.
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

/// What `--compat` did to a manifest.
pub(crate) fn rewritten(dataset: &Dataset, compat: &Compat) -> String {
    format!(
        "{}: its manifest was rewritten for this registry: {}; the layers keep their digests.",
        dataset.name, compat.changed
    )
}
