//! The registries of a run: how they are reached, and what is asked of each before anything is pushed.
//!
//! Knows tags and dates; nothing of where the data comes from.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::dataset::catalogue::{self, TrivyVersion};
use crate::dataset::check::UnpackLimits;
use crate::dataset::{DatasetRef, Discard, Kind, Name, layer};
use crate::delivery::options::RegistryOptions;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{ExistingDataset, TargetReport};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Manifest};
use crate::progress::{Counted, Progress};
use crate::remote::{Remote, RemoteError, RemoteOptions, Repository, RetryLimits, RunLimits, STORE};
use crate::targets::TargetError;
use crate::targets::registry::Registry;
use crate::trust::state::OthersData;

/// How patiently a registry is only asked what it has: whoever asks waits for the answer, and other registries too.
const ASKING: RetryLimits =
    RetryLimits { retries: 2, deadline: None, stall: Duration::from_secs(20), pause: Duration::from_secs(5) };

/// The way to the registries of a run; none where no `--registry` is given.
pub(crate) struct RegistryAccess {
    remote: Option<Remote>,
    chunk_size: Option<u64>,
}

impl RegistryAccess {
    /// Prepares the way for pushing, in a run that began at this moment.
    pub(crate) fn new(flags: &RegistryOptions, began: Instant) -> Result<Self, Error> {
        for tag in &flags.extra_tag {
            Repository::at("localhost", "x", &tag.replace(DATE, "2026-01-01")).map_err(|_| {
                Error::usage(
                    format!("{tag:?} cannot be a tag"),
                    "Use letters, digits, '.', '_', '-' and {date}, at most 128 characters.",
                )
            })?;
        }
        let mut access = RegistryAccess::within(&flags.places, &flags.remote, flags.limits.since(began))?;
        access.chunk_size = flags.chunk_size;
        if let Some(remote) = &mut access.remote {
            remote.http.timeouts.store = flags.store_timeout.unwrap_or(STORE);
        }
        Ok(access)
    }

    /// Prepares the way to some places that are only asked.
    pub(crate) fn to(places: &[RegistryPlace], options: &RemoteOptions) -> Result<Self, Error> {
        RegistryAccess::within(places, options, ASKING.begin())
    }

    fn within(places: &[RegistryPlace], options: &RemoteOptions, limits: RunLimits) -> Result<Self, Error> {
        if places.is_empty() {
            return Ok(RegistryAccess { remote: None, chunk_size: None });
        }
        let mut hosts: Vec<&str> = places.iter().map(RegistryPlace::host).collect();
        hosts.dedup();
        if options.login.is_some() && hosts.len() > 1 {
            return Err(Error::usage(
                "--username is for one registry, and several are named",
                "Log in to each with `docker login HOST` instead.",
            ));
        }
        Ok(RegistryAccess { remote: Some(Remote::new(options.clone(), limits)?), chunk_size: None })
    }

    /// The way; there is one where a place was named.
    ///
    /// # Errors
    /// Only the unexpected.
    pub(crate) fn remote(&self) -> Result<&Remote, Error> {
        let none = || Error::unexpected("pushing")(std::io::Error::other("no registry was prepared"));
        self.remote.as_ref().ok_or_else(none)
    }

    /// Whether a scanner must accept plain HTTP or any certificate to reach this registry.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_insecure(host))
    }

    /// Whether a login was used at this registry.
    pub(crate) fn has_login(&self, host: &str) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.has_login(host))
    }

    /// What is pushed with, the same for all places: a blob that one of them has is mounted in the
    /// next.
    pub(crate) fn to_push<'a>(&'a self, progress: &'a dyn Progress) -> Option<Registry<'a>> {
        let remote = self.remote.as_ref()?;
        Some(Registry::new(remote, self.chunk_size, progress))
    }

    /// What is only read with.
    pub(crate) fn to_read<'a>(&'a self, progress: &'a dyn Progress) -> Option<Registry<'a>> {
        Some(Registry::to_read(self.remote.as_ref()?, progress))
    }

    /// The remarks since they were last taken: credentials that were not accepted, a helper that
    /// failed.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.remote.as_ref().map(Remote::take_warnings).unwrap_or_default()
    }
}

/// Whether a registry cannot be talked to at all, or lets nobody in: to ask it again would only take
/// time. What it forbids (403) is for one repository.
pub(crate) fn is_out(error: &TargetError) -> bool {
    matches!(
        error,
        TargetError::UploadAddress { .. }
            | TargetError::Remote(
                RemoteError::Unreachable { .. }
                    | RemoteError::Certificate { .. }
                    | RemoteError::ClientCertificateWanted { .. }
                    | RemoteError::Deadline { .. }
                    | RemoteError::LongPause { .. }
                    | RemoteError::Elsewhere { .. }
                    | RemoteError::Denied { status: 401, .. }
            )
    )
}

/// What a place has from before, beside what a run brought: what scanners pull from there.
pub(crate) fn existing_datasets(
    place: &RegistryPlace,
    registry: &Registry<'_>,
    version: TrivyVersion,
    report: &TargetReport,
) -> Vec<ExistingDataset> {
    let all = [
        DatasetRef::new(Name::trivy_db(), catalogue::DB_TAG),
        DatasetRef::new(Name::trivy_java_db(), catalogue::JAVA_DB_TAG),
        DatasetRef::new(Name::trivy_checks(), version.checks_tag()),
    ];
    let stands = |dataset: DatasetRef| {
        let reference = place.repository(&dataset.name, &dataset.tag).ok()??;
        let text = reference.to_string();
        let brought = report.in_place().any(|row| row.reference.as_ref() == Some(&text));
        // A registry that does not say has been reported where it mattered.
        let has = !brought && registry.manifest(&reference).ok()?.is_some();
        has.then_some(ExistingDataset { dataset, reference: text })
    };
    all.into_iter().filter_map(stands).collect()
}

/// Whether each of some further tags of a repository names a manifest.
pub(crate) fn name_all(
    registry: &Registry<'_>,
    reference: &Repository,
    tags: &[String],
    manifest: &[u8],
) -> Result<bool, TargetError> {
    for tag in tags {
        if registry.manifest(&reference.tagged(tag))?.as_deref() != Some(manifest) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What stands for the day of the data in a further tag.
const DATE: &str = "{date}";

/// The further tags of a dataset: `{date}` in them is the day on which it was built, or if its content does not
/// say so, on which its manifest was made. Without either, those tags are not set.
pub(crate) fn dated(tags: &[String], built: Option<Timestamp>) -> Vec<String> {
    let day = built.map(|built| built.to_zoned(TimeZone::UTC).date().to_string());
    let dated = |tag: &String| match (tag.contains(DATE), &day) {
        (false, _) => Some(tag.clone()),
        (true, day) => Some(tag.replace(DATE, day.as_ref()?)),
    };
    tags.iter().filter_map(dated).collect()
}

/// Whether a further tag has the day of the data in it.
pub(crate) fn is_dated(tag: &str) -> bool {
    tag.contains(DATE)
}

/// What is said if further tags were not set, because no date is known.
pub(crate) fn undated(dataset: &str, tags: &[String], built: Option<Timestamp>) -> Option<String> {
    let unset: Vec<&str> = tags.iter().map(String::as_str).filter(|tag| is_dated(tag)).collect();
    (built.is_none() && !unset.is_empty()).then(|| {
        format!(
            "{dataset} does not get the tag {}: neither its content nor its manifest says when it was built",
            unset.join(", ")
        )
    })
}

/// What a registry has under a manifest that nobody here pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExistingContent {
    /// Data of this date, in this layer.
    Built(OthersData),
    /// Trivy could not use it, or it has no date.
    Unusable,
}

/// Reads the layer of a database that a registry has: it alone says when it was built. A manifest says when it
/// was made, which is later, and tools give it the time of their push.
///
/// # Errors
/// [`TargetError::Remote`] if the layer cannot be read, and not if it is none.
pub(crate) fn read_content(
    registry: &Registry<'_>,
    reference: &Repository,
    kind: Kind,
    manifest: &[u8],
    progress: &dyn Progress,
) -> Result<ExistingContent, TargetError> {
    let layers = Manifest::parse(manifest).map(|manifest| manifest.layers).unwrap_or_default();
    let [layer] = &layers[..] else { return Ok(ExistingContent::Unusable) };
    if layer.size > kind.max_packed() {
        return Ok(ExistingContent::Unusable);
    }
    progress.info(&format!(
        "reading the date of what {reference} has: its manifest is not one of this program's"
    ));
    let unpacked = registry.read_blob(reference, layer.digest, layer.size, |body| {
        let step = progress.begin(&format!("the date of {reference}"), layer.size, reference.host());
        layer::unpack(kind, Counted::new(body, step), UnpackLimits::of(kind), &mut Discard)
    });
    match unpacked {
        Ok(Ok(contents)) => Ok(contents.updated_at.map_or(ExistingContent::Unusable, |updated_at| {
            ExistingContent::Built(OthersData { layer: layer.digest, updated_at })
        })),
        Ok(Err(_)) | Err(TargetError::Remote(RemoteError::NotFound { .. })) => Ok(ExistingContent::Unusable),
        Err(error) => Err(error),
    }
}

/// What is said if the layer of existing data cannot be read: then its manifest's date is the floor.
pub(crate) fn unread(reference: &Repository, error: &TargetError) -> String {
    format!(
        "when the data of {reference} was built could not be read ({error}); the date of its manifest counts"
    )
}

/// When a manifest was made, as far as it says so: a while after its content was built.
pub(crate) fn date_of(manifest: &[u8]) -> Option<Timestamp> {
    Manifest::parse(manifest).ok()?.annotations.get(oci::CREATED)?.parse().ok()
}

/// Upstream's version of what a manifest describes, if the manifest says so.
pub(crate) fn version_of(manifest: &[u8]) -> Option<String> {
    Manifest::parse(manifest).ok()?.annotations.get(oci::VERSION).cloned()
}

/// The digests of the layers that a manifest names.
pub(crate) fn layers_of(manifest: &[u8]) -> Option<Vec<Digest>> {
    Some(Manifest::parse(manifest).ok()?.layers.iter().map(|layer| layer.digest).collect())
}
