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

/// The way to every source.
pub struct Network<'p> {
    pub(super) remote: Remote,
    pub(super) retry_policy: RetryPolicy<'p>,
}

impl<'p> Network<'p> {
    /// Prepares the way. What went wrong and is tried again is told to `progress`.
    ///
    /// # Errors
    /// [`SourceError::Remote`] if a file of certificates cannot be used, or the system gives no thread.
    pub fn new(
        options: RemoteOptions,
        limits: RunLimits,
        progress: &'p dyn Progress,
    ) -> Result<Self, SourceError> {
        let retry_policy = RetryPolicy::new(limits, progress);
        let remote = Remote::new(options, limits)?;
        Ok(Network { remote, retry_policy })
    }

    /// Fetches an artifact's manifest. Its digest is computed from the bytes, and compared with
    /// that of the reference and that which the registry claims.
    ///
    /// # Errors
    /// [`SourceError::Remote`] if the registry cannot be reached or does not have it;
    /// [`SourceError::Layout`] or [`SourceError::Local`] if a directory is not a usable layout;
    /// [`SourceError::Manifest`] if the bytes are not the manifest of an artifact; [`SourceError::Digest`]
    /// if they have another digest; [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the time is over.
    pub fn resolve(&self, source: &ArtifactSource) -> Result<Artifact, SourceError> {
        let manifest = self.manifest(source)?;
        let manifest = match source {
            ArtifactSource::Layout { directory, tag } => layout::only_child(directory, tag, manifest)?,
            ArtifactSource::Registry(_) => manifest,
        };
        registry::artifact(source.clone(), manifest)
    }

    /// Fetches what a source names, be it a manifest or an index.
    ///
    /// # Errors
    /// The errors of [`Network::resolve`], except that any manifest or index will do.
    pub fn manifest(&self, source: &ArtifactSource) -> Result<RawManifest, SourceError> {
        match source {
            ArtifactSource::Registry(repository) => self.registry_manifest(repository),
            ArtifactSource::Layout { directory, tag } => layout::manifest(directory, tag),
        }
    }

    /// Fetches a manifest that an index of a source names.
    ///
    /// # Errors
    /// The errors of [`Network::resolve`], except that any manifest or index will do.
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

    /// Begins to read a blob of an artifact. Its bytes are checked as they are read: see [`Blob`].
    ///
    /// # Errors
    /// [`SourceError::Remote`] if the registry cannot be reached or does not have it;
    /// [`SourceError::Layout`] or [`SourceError::Local`] if the layout does not have it;
    /// [`SourceError::Length`] if the source announces another length than the descriptor;
    /// [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the time is over.
    pub fn blob(&self, source: &ArtifactSource, descriptor: &Descriptor) -> Result<Blob<'_>, SourceError> {
        self.blob_of(std::slice::from_ref(source), descriptor)
    }

    /// As [`Network::blob`], where several sources should have it: where one fails, the next goes on.
    ///
    /// # Errors
    /// The errors of [`Network::blob`], of the source that was tried last.
    pub fn blob_of(
        &self,
        sources: &[ArtifactSource],
        descriptor: &Descriptor,
    ) -> Result<Blob<'_>, SourceError> {
        self.open(sources, descriptor, 0)
    }

    /// As [`Network::blob_of`], from the blob's byte `at` on: of a part no digest can be compared.
    ///
    /// # Errors
    /// The errors of [`Network::blob`], of the source that was tried last.
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

    /// Fetches a whole VEX repository: its manifest and its archive, whose size no one can know
    /// before.
    ///
    /// # Errors
    /// [`SourceError::Remote`] or [`SourceError::Locations`] if a server does not give the repository or
    /// its archive; [`SourceError::Local`] if a directory cannot be read; [`SourceError::Vex`] if the
    /// repository breaks the specification; [`SourceError::TooLarge`] if it is larger than is allowed;
    /// [`SourceError::Temporary`] if the archive cannot be stored; [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the time is
    /// over.
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

    /// So long, or until the deadline.
    pub fn within_deadline(&self, pause: std::time::Duration) -> std::time::Duration {
        self.remote.http.within_deadline(pause).0
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// [`RemoteError::Deadline`](crate::remote::RemoteError::Deadline) if the time is over.
    pub fn check_deadline(&self) -> Result<(), SourceError> {
        Ok(self.retry_policy.check()?)
    }

    /// The hosts that were asked so far, those behind redirects as well.
    pub fn hosts(&self) -> BTreeSet<String> {
        self.remote.http.hosts()
    }

    /// The remarks since they were last taken, each worth a line: credentials that were not
    /// accepted, a helper that failed.
    pub fn take_warnings(&self) -> Vec<String> {
        self.remote.take_warnings()
    }
}
