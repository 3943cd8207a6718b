//! Blobs that go straight from their source into a bundle, which keeps no other copy; and whose fault it is
//! where one does not arrive.

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

/// Why nothing was written.
pub(crate) enum ExportFailure {
    /// Another source would not help.
    Other(Error),
    /// What an earlier export left was wrong.
    Leftover(Error),
    /// A layer cannot be had from its sources.
    Source(Box<Rejected>),
    /// A blob of an image cannot be had.
    Image(Box<FailedImage>),
}

/// An image of which a blob cannot be had.
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

/// From the network to a file.
pub(crate) struct BlobStreamer<'a> {
    pub(crate) network: &'a Network<'a>,
    pub(crate) destination: &'a PendingBundle,
    pub(crate) progress: &'a dyn Progress,
}

impl BlobStreamer<'_> {
    /// Fetches a blob of an image, of which nothing is known but its digest.
    ///
    /// # Errors
    /// Its source fails, or the destination.
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
            // The writer has hashed in the source's place.
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

    /// Fetches a large layer, while another thread inflates and checks it.
    ///
    /// # Errors
    /// Its sources fail or have another content than Trivy could use, or the destination fails.
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
                "{}: {} of {} are here from an export that was cut short",
                dataset.reference(),
                format_size(known),
                format_size(member.size)
            ));
        }
        let host = artifact.source.host().unwrap_or("");
        let step = self.progress.begin(&dataset.reference(), member.size, host);
        let written = validate_while(dataset.name.kind(), blob, step, |layer| writer.member(layer))?;
        // Where a part of it was here from before, no source is to blame.
        let wrong = |error: Error| {
            self.destination.spoil(member, known > 0);
            if known > 0 { ExportFailure::Leftover(error) } else { bad(error) }
        };
        match written {
            (Ok(()), Ok(examined)) => Ok(examined),
            (Err(WriteError::Source { error, .. }), validated) => {
                // The checker has seen that what came is wrong; that it was cut short is no such thing.
                let seen = error.kind() == io::ErrorKind::BrokenPipe;
                let error = broke_off(dataset, error, &validated);
                Err(if seen { wrong(error) } else { bad(error) })
            }
            // The writer has hashed in the source's place.
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

    /// Begins with what is here already.
    fn open(
        &self,
        sources: Vec<ArtifactSource>,
        blob: &Descriptor,
        member: &Member,
    ) -> Result<ResumedBlob<'_>, SourceError> {
        ResumedBlob::open(self.network, sources, blob, self.destination.prefix(member.digest, member.size))
    }
}
