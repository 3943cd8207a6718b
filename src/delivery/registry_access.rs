//! The registries of a run: how they are reached, and what is asked of each before anything is pushed.
//!
//! Knows tags and dates; nothing of where the data comes from.

use jiff::Timestamp;

use crate::dataset::catalogue::{self, TrivyVersion};
use crate::dataset::{DatasetRef, Name};
use crate::delivery::options::RegistryOptions;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{ExistingDataset, TargetReport};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Manifest};
use crate::remote::{Remote, RemoteError, RemoteOptions, Repository};
use crate::targets::TargetError;
use crate::targets::registry::Registry;

/// The way to the registries of a run; none where no `--registry` is given.
pub(crate) struct RegistryAccess {
    remote: Option<Remote>,
}

impl RegistryAccess {
    /// Prepares the way for pushing.
    pub(crate) fn new(flags: &RegistryOptions) -> Result<Self, Error> {
        for tag in &flags.extra_tag {
            Repository::at("localhost", "x", tag).map_err(|_| {
                Error::usage(
                    format!("{tag:?} cannot be a tag"),
                    "Use letters, digits, '.', '_' and '-', at most 128 of them.",
                )
            })?;
        }
        RegistryAccess::to(&flags.places, &flags.remote)
    }

    /// Prepares the way to some places.
    pub(crate) fn to(places: &[RegistryPlace], options: &RemoteOptions) -> Result<Self, Error> {
        if places.is_empty() {
            return Ok(RegistryAccess { remote: None });
        }
        let mut hosts: Vec<&str> = places.iter().map(RegistryPlace::host).collect();
        hosts.dedup();
        if options.login.is_some() && hosts.len() > 1 {
            return Err(Error::usage(
                "--username is for one registry, and several are named",
                "Log in to each with `docker login HOST` instead.",
            ));
        }
        Ok(RegistryAccess { remote: Some(Remote::new(options.clone())?) })
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
    pub(crate) fn to_push(&self) -> Option<Registry<'_>> {
        self.remote.as_ref().map(Registry::new)
    }

    /// What is only read with.
    pub(crate) fn to_read(&self) -> Option<Registry<'_>> {
        self.remote.as_ref().map(Registry::to_read)
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
        TargetError::Remote(
            RemoteError::Unreachable { .. }
                | RemoteError::Certificate { .. }
                | RemoteError::ClientCertificateWanted { .. }
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

/// When upstream built what a manifest describes, as far as the manifest says so.
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
