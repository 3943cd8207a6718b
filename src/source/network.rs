//! Fetches from every kind of source, with one set of connections, retries and limits.

use std::collections::BTreeSet;

use crate::oci::Descriptor;
use crate::progress::Progress;
use crate::remote::{Remote, RemoteOptions, Repository, RetryPolicy, RunLimits, host_of};
use crate::source::artifact::{Artifact, RawManifest};
use crate::source::blob::Pieces;
use crate::source::transfer::Transfer;
use crate::source::{
    ArtifactSource, Blob, SourceError, UnhashedBlob, VexRepository, VexSource, layout, registry, vex,
};

/// Fetches from every kind of source.
pub struct Network<'p> {
    pub(super) remote: Remote,
    pub(super) retry_policy: RetryPolicy<'p>,
}

impl<'p> Network<'p> {
    /// Prepares the connections. Failures that are retried are reported to `progress`.
    ///
    /// # Errors
    /// [`SourceError::Remote`] if a file of certificates cannot be used, or if the system cannot start a
    /// thread.
    pub fn new(
        options: RemoteOptions,
        limits: RunLimits,
        progress: &'p dyn Progress,
    ) -> Result<Self, SourceError> {
        let retry_policy = RetryPolicy::new(limits, progress);
        let remote = Remote::new(options, limits)?;
        Ok(Network { remote, retry_policy })
    }

    /// Fetches an artifact's manifest. Computes its digest, and compares it with the digest in the reference
    /// and with the one that the registry claims.
    ///
    /// # Errors
    /// [`SourceError::Remote`] if the registry cannot be reached or does not have it;
    /// [`SourceError::Layout`] or [`SourceError::Local`] if a directory is not a usable layout;
    /// [`SourceError::Manifest`] if the bytes are not the manifest of an artifact; [`SourceError::Digest`]
    /// if they have another digest; [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the
    /// deadline has passed.
    pub fn resolve(&self, source: &ArtifactSource) -> Result<Artifact, SourceError> {
        let manifest = self.manifest(source)?;
        let manifest = match source {
            ArtifactSource::Layout { directory, tag } => layout::only_child(directory, tag, manifest)?,
            ArtifactSource::Registry(_) => manifest,
        };
        registry::artifact(source.clone(), manifest)
    }

    /// Fetches the manifest or the index that a source names.
    ///
    /// # Errors
    /// If it cannot be fetched, as in [`Network::resolve`]. Any kind of manifest or index is accepted.
    pub fn manifest(&self, source: &ArtifactSource) -> Result<RawManifest, SourceError> {
        match source {
            ArtifactSource::Registry(repository) => self.registry_manifest(repository),
            ArtifactSource::Layout { directory, tag } => layout::manifest(directory, tag),
        }
    }

    /// Fetches a manifest that an index of a source names.
    ///
    /// # Errors
    /// If it cannot be fetched, as in [`Network::resolve`]. Any kind of manifest or index is accepted.
    pub fn child(
        &self,
        source: &ArtifactSource,
        descriptor: &Descriptor,
    ) -> Result<RawManifest, SourceError> {
        match source {
            ArtifactSource::Registry(repository) => {
                self.registry_manifest(&repository.by_digest(descriptor.digest))
            }
            ArtifactSource::Layout { directory, tag } => layout::described(directory, tag, descriptor),
        }
    }

    fn registry_manifest(&self, repository: &Repository) -> Result<RawManifest, SourceError> {
        self.retry_policy.retry(repository.host(), || registry::manifest(&self.remote, repository))
    }

    /// Opens a blob of an artifact. Its bytes are verified as they are read; see [`Blob`].
    ///
    /// # Errors
    /// [`SourceError::Remote`] if the registry cannot be reached or does not have it;
    /// [`SourceError::Layout`] or [`SourceError::Local`] if the layout does not have it;
    /// [`SourceError::Length`] if the source announces a different length than the descriptor;
    /// [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the deadline has passed.
    pub fn blob(&self, source: &ArtifactSource, descriptor: &Descriptor) -> Result<Blob<'_>, SourceError> {
        self.blob_of(std::slice::from_ref(source), descriptor)
    }

    /// Opens a blob that several sources should have. If one of them fails, the transfer resumes from the
    /// next.
    ///
    /// # Errors
    /// If every source fails: the error of the source that was tried last, as in [`Network::blob`].
    pub fn blob_of(
        &self,
        sources: &[ArtifactSource],
        descriptor: &Descriptor,
    ) -> Result<Blob<'_>, SourceError> {
        self.open(sources, descriptor, 0)
    }

    /// Opens a blob that several sources should have, beginning at its byte `at`. The digest of such a part
    /// cannot be compared.
    ///
    /// # Errors
    /// If every source fails: the error of the source that was tried last, as in [`Network::blob`].
    pub fn blob_from(
        &self,
        sources: &[ArtifactSource],
        descriptor: &Descriptor,
        at: u64,
    ) -> Result<UnhashedBlob<'_>, SourceError> {
        Ok(self.open(sources, descriptor, at)?.unhashed())
    }

    fn open(
        &self,
        sources: &[ArtifactSource],
        descriptor: &Descriptor,
        at: u64,
    ) -> Result<Blob<'_>, SourceError> {
        if let Some(ArtifactSource::Layout { directory, tag }) = sources.first() {
            return layout::blob(directory, tag, descriptor, at);
        }
        let repositories: Vec<Repository> =
            sources.iter().filter_map(ArtifactSource::repository).cloned().collect();
        let what = (descriptor.digest, descriptor.size);
        let transfer = Transfer::begin(&self.remote, &self.retry_policy, &repositories, what, at)?;
        let subject = transfer.subject().to_owned();
        Ok(Blob::new(Pieces::Registry(Box::new(transfer)), subject, descriptor, at))
    }

    /// Fetches a VEX repository: its manifest and its archive, whose size is not known in advance.
    ///
    /// # Errors
    /// [`SourceError::Remote`] or [`SourceError::Locations`] if a server does not provide the repository or
    /// its archive; [`SourceError::Local`] if a directory cannot be read; [`SourceError::Vex`] if the
    /// repository breaks the specification; [`SourceError::TooLarge`] if it is larger than the limit;
    /// [`SourceError::Temporary`] if the archive cannot be stored;
    /// [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the deadline has passed.
    pub fn vex(&self, source: &VexSource) -> Result<VexRepository, SourceError> {
        let most = crate::dataset::Kind::Vex.max_packed();
        match source {
            VexSource::Url(url) => {
                let options = &self.remote.options;
                let any_http = options.insecure || options.plain_http;
                let host = host_of(url);
                self.retry_policy.retry(&host, || vex::fetch(&self.remote, url, any_http, most))
            }
            VexSource::Directory(directory) => crate::source::vex::directory::read(directory, most),
        }
    }

    /// Returns `pause`, shortened to the time until the deadline.
    pub fn within_deadline(&self, pause: std::time::Duration) -> std::time::Duration {
        self.remote.http.within_deadline(pause).0
    }

    /// Checks that the deadline has not passed.
    ///
    /// # Errors
    /// [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if it has.
    pub fn check_deadline(&self) -> Result<(), SourceError> {
        Ok(self.retry_policy.check()?)
    }

    /// The hosts that have been contacted so far, including those behind redirects.
    pub fn hosts(&self) -> BTreeSet<String> {
        self.remote.http.hosts()
    }

    /// Returns the warnings since the last call, one line each: rejected credentials, a credential helper
    /// that failed.
    pub fn take_warnings(&self) -> Vec<String> {
        self.remote.take_warnings()
    }
}
