//! Access to the registries of a run, and the requests that read their content.
//!
//! This module handles tags and dates. It does not depend on the source of the data.

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

/// The retry limits for reads. They are short, because the user and the requests to other registries wait for the
/// answer.
const ASKING: RetryLimits =
    RetryLimits { retries: 2, deadline: None, stall: Duration::from_secs(20), pause: Duration::from_secs(5) };

/// Access to the registries of a run. Empty if no `--registry` is given.
pub(crate) struct RegistryAccess {
    remote: Option<Remote>,
    chunk_size: Option<u64>,
}

impl RegistryAccess {
    /// Prepares access for pushing, in a run that began at `began`.
    ///
    /// # Errors
    /// If an extra tag is not valid, if one login is given for several registries, or if the HTTP client cannot be
    /// created.
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

    /// Prepares read-only access to some places.
    ///
    /// # Errors
    /// If one login is given for several registries, or if the HTTP client cannot be created.
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
                "--username is for one registry, but several are given",
                "Log in to each with `docker login HOST` instead.",
            ));
        }
        Ok(RegistryAccess { remote: Some(Remote::new(options.clone(), limits)?), chunk_size: None })
    }

    /// Returns the client.
    ///
    /// # Errors
    /// If no place was given.
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

    /// Returns the client for pushing. All places share it, so that a blob of one place is mounted in the next.
    pub(crate) fn to_push<'a>(&'a self, progress: &'a dyn Progress) -> Option<Registry<'a>> {
        let remote = self.remote.as_ref()?;
        Some(Registry::new(remote, self.chunk_size, progress))
    }

    /// Returns the client for reading.
    pub(crate) fn to_read<'a>(&'a self, progress: &'a dyn Progress) -> Option<Registry<'a>> {
        Some(Registry::to_read(self.remote.as_ref()?, progress))
    }

    /// Returns the warnings since the last call, such as rejected credentials or a failed credential helper.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.remote.as_ref().map(Remote::take_warnings).unwrap_or_default()
    }
}

/// Whether a registry is unreachable or rejects the login, so that further requests would only take time. A 403 is
/// about one repository.
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

/// Returns the datasets for scanners that were at a place before this run.
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
        // If the registry fails here, an earlier request has reported it.
        let has = !brought && registry.manifest(&reference).ok()?.is_some();
        has.then_some(ExistingDataset { dataset, reference: text })
    };
    all.into_iter().filter_map(stands).collect()
}

/// Whether all these tags of a repository name the manifest.
///
/// # Errors
/// If the registry cannot be read.
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

/// The placeholder for the day of the data in an extra tag.
const DATE: &str = "{date}";

/// Returns the extra tags of a dataset. `{date}` becomes the day on which the dataset was built. If its content has no
/// date, the caller passes the date of its manifest. Without a date, tags with `{date}` are skipped.
pub(crate) fn dated(tags: &[String], built: Option<Timestamp>) -> Vec<String> {
    let day = built.map(|built| built.to_zoned(TimeZone::UTC).date().to_string());
    let dated = |tag: &String| match (tag.contains(DATE), &day) {
        (false, _) => Some(tag.clone()),
        (true, day) => Some(tag.replace(DATE, day.as_ref()?)),
    };
    tags.iter().filter_map(dated).collect()
}

/// Whether an extra tag contains the day of the data.
pub(crate) fn is_dated(tag: &str) -> bool {
    tag.contains(DATE)
}

/// Returns the warning for extra tags that were skipped because the date is unknown.
pub(crate) fn undated(dataset: &str, tags: &[String], built: Option<Timestamp>) -> Option<String> {
    let unset: Vec<&str> = tags.iter().map(String::as_str).filter(|tag| is_dated(tag)).collect();
    (built.is_none() && !unset.is_empty()).then(|| {
        format!(
            "{dataset} does not get the tag {}: neither its content nor its manifest has a date",
            unset.join(", ")
        )
    })
}

/// The content that a registry has under a manifest that this host did not push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExistingContent {
    /// Data of this date, in this layer.
    Built(OthersData),
    /// Content that Trivy cannot use or that has no date.
    Unusable,
}

/// Reads the layer of a database in a registry, because only the layer has the date on which the data was built. The
/// date of a manifest is later, and some tools set it to the time of their push.
///
/// # Errors
/// [`TargetError::Remote`] if the layer cannot be read. A layer that is missing or invalid is no error.
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
        "reading the date of the data at {reference}, because trivy-ferry did not push its manifest"
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

/// Returns the warning for existing data whose layer cannot be read. The date of its manifest is the floor then.
pub(crate) fn unread(reference: &Repository, error: &TargetError) -> String {
    format!(
        "cannot read the build date of the data at {reference} ({error}); the date of its manifest is used instead"
    )
}

/// Returns the creation date of a manifest, if it has one. It is later than the date of its content.
pub(crate) fn date_of(manifest: &[u8]) -> Option<Timestamp> {
    Manifest::parse(manifest).ok()?.annotations.get(oci::CREATED)?.parse().ok()
}

/// Returns upstream's version from a manifest, if it has one.
pub(crate) fn version_of(manifest: &[u8]) -> Option<String> {
    Manifest::parse(manifest).ok()?.annotations.get(oci::VERSION).cloned()
}

/// Returns the digests of the layers of a manifest.
pub(crate) fn layers_of(manifest: &[u8]) -> Option<Vec<Digest>> {
    Some(Manifest::parse(manifest).ok()?.layers.iter().map(|layer| layer.digest).collect())
}
