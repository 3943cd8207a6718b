//! Streams blobs from their sources into a bundle without another copy, and decides which party caused a
//! failure.
//!
//! This module depends on sources and the pending bundle. It does not choose sources.

use std::io::{self, Seek, Write};

use crate::bundle::Member;
use crate::bundle::writer::{BundleWriter, WriteError};
use crate::collect::artifact::CollectedDataset;
use crate::collect::best_source::Rejected;
use crate::collect::images::CollectedImage;
use crate::collect::validate::{Examined, bad_content, broke_off, validate_while};
use crate::error::Error;
use crate::export::output::PendingBundle;
use crate::export::resumed_blob::ResumedBlob;
use crate::oci::Descriptor;
use crate::progress::{Counted, Progress};
use crate::source::{ArtifactSource, Network, SourceError};
use crate::util::text::format_size;

/// The reason why no bundle was written.
pub(crate) enum ExportFailure {
    /// A failure that another source would not prevent.
    Other(Error),
    /// A leftover file of an earlier export was bad.
    Leftover(Error),
    /// A layer cannot be fetched from its sources.
    Source(Box<Rejected>),
    /// A blob of an image cannot be fetched.
    Image(Box<FailedImage>),
}

/// An image with a blob that cannot be fetched.
pub(crate) struct FailedImage {
    /// Its name.
    pub(crate) name: String,
    pub(crate) error: Error,
}

impl From<Error> for ExportFailure {
    fn from(error: Error) -> Self {
        ExportFailure::Other(error)
    }
}

impl From<Rejected> for ExportFailure {
    fn from(rejected: Rejected) -> Self {
        ExportFailure::Source(Box::new(rejected))
    }
}

/// Streams blobs from the network to the pending bundle.
pub(crate) struct BlobStreamer<'a> {
    pub(crate) network: &'a Network<'a>,
    pub(crate) destination: &'a PendingBundle,
    pub(crate) progress: &'a dyn Progress,
}

impl BlobStreamer<'_> {
    /// Fetches a blob of an image. Only its digest is verified.
    ///
    /// # Errors
    /// If its source or the destination fails.
    pub(crate) fn image_blob<W: Write + Seek>(
        &self,
        writer: &mut BundleWriter<W>,
        image: &CollectedImage,
        (source, blob): (&ArtifactSource, &Descriptor),
        member: &Member,
    ) -> Result<(), ExportFailure> {
        let name = &image.planned.image.name;
        let failed = |error| ExportFailure::Image(Box::new(FailedImage { name: name.clone(), error }));
        let blob = self.open(vec![source.clone()], blob, member).map_err(|error| failed(error.into()))?;
        let known = blob.known();
        let step = self.progress.begin(&source.to_string(), member.size, source.host().unwrap_or(""));
        let error = match writer.member(Counted::new(blob, step)) {
            Ok(()) => return Ok(()),
            Err(WriteError::Source { error, .. }) => match SourceError::from_io(error) {
                Ok(error) => return Err(failed(error.into())),
                Err(error) => Error::unexpected(format!("reading {source}"))(error),
            },
            // The writer, and not the source, computes the digest.
            Err(WriteError::Digest { found, .. }) => {
                self.destination.spoil(member, known > 0);
                let subject = format!("blob {} of {source}", member.digest);
                let error = SourceError::Digest { subject, wanted: member.digest, found }.into();
                return Err(if known > 0 { ExportFailure::Leftover(error) } else { failed(error) });
            }
            Err(error) => self.destination.failed(error),
        };
        Err(error.into())
    }

    /// Fetches a large layer while another thread decompresses and validates it.
    ///
    /// # Errors
    /// If its sources fail or have content that Trivy could not use, or if the destination fails.
    pub(crate) fn layer<W: Write + Seek>(
        &self,
        writer: &mut BundleWriter<W>,
        item: &CollectedDataset,
        member: &Member,
    ) -> Result<Examined, ExportFailure> {
        let dataset = &item.planned.dataset;
        let artifact = item.artifact.as_ref();
        let descriptor =
            artifact.and_then(|a| a.manifest.blobs().find(|blob| blob.digest == member.digest).cloned());
        let (Some(artifact), Some(descriptor)) = (artifact, descriptor) else {
            return Err(Error::unexpected("writing")(io::Error::other("a layer without its artifact")).into());
        };
        let sources: Vec<_> = std::iter::once(&artifact.source).chain(&item.others).cloned().collect();
        let bad = |error| ExportFailure::from(Rejected::from(error, dataset, member.digest, &sources));
        let blob = self.open(sources.clone(), &descriptor, member).map_err(|error| bad(error.into()))?;
        let known = blob.known();
        if known > 0 {
            self.progress.info(&format!(
                "{}: resuming with {} of {} from an interrupted export",
                dataset.reference(),
                format_size(known),
                format_size(member.size)
            ));
        }
        let host = artifact.source.host().unwrap_or("");
        let step = self.progress.begin(&dataset.reference(), member.size, host);
        let written = validate_while(dataset.name.kind(), blob, step, |layer| writer.member(layer))?;
        // If a part came from a leftover file, the sources are not to blame.
        let wrong = |error: Error| {
            self.destination.spoil(member, known > 0);
            if known > 0 { ExportFailure::Leftover(error) } else { bad(error) }
        };
        match written {
            (Ok(()), Ok(examined)) => Ok(examined),
            (Err(WriteError::Source { error, .. }), validated) => {
                // A broken pipe means that the validation found bad content; a broken connection does not.
                let seen = error.kind() == io::ErrorKind::BrokenPipe;
                let error = broke_off(dataset, error, &validated);
                Err(if seen { wrong(error) } else { bad(error) })
            }
            // The writer, and not the source, computes the digest.
            (Err(WriteError::Digest { found, .. }), _) => {
                let subject = format!("blob {} of {}", descriptor.digest, artifact.source);
                Err(wrong(SourceError::Digest { subject, wanted: descriptor.digest, found }.into()))
            }
            (Err(error @ WriteError::Content { .. }), _) => {
                self.destination.spoil(member, known > 0);
                Err(self.destination.failed(error).into())
            }
            (Err(error), _) => Err(self.destination.failed(error).into()),
            (Ok(()), Err(error)) => {
                self.destination.spoil(member, false);
                Err(Rejected::anywhere(bad_content(dataset, &error.to_string()), dataset, member.digest)
                    .into())
            }
        }
    }

    /// Opens a blob, with its start from a leftover file if possible.
    fn open(
        &self,
        sources: Vec<ArtifactSource>,
        blob: &Descriptor,
        member: &Member,
    ) -> Result<ResumedBlob<'_>, SourceError> {
        ResumedBlob::open(self.network, sources, blob, self.destination.prefix(member.digest, member.size))
    }
}
