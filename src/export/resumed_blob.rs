//! The bytes of a blob: first those that an earlier export fetched, then the rest from its sources.
//!
//! This module verifies nothing. Its reader must compare the digest of all bytes before it uses them.

use std::io::{self, Read};

use crate::export::output::resume::Prefix;
use crate::oci::Descriptor;
use crate::source::{ArtifactSource, Network, SourceError, UnhashedBlob};

/// A blob that is read once from start to end.
pub(crate) struct ResumedBlob<'n> {
    network: &'n Network<'n>,
    sources: Vec<ArtifactSource>,
    descriptor: Descriptor,
    prefix: Option<Prefix>,
    rest: Option<UnhashedBlob<'n>>,
    at: u64,
}

impl<'n> ResumedBlob<'n> {
    /// Opens a blob whose start is in `prefix`. Without a prefix, the sources are contacted now.
    ///
    /// # Errors
    /// If no source can provide the blob, as in [`Network::blob`].
    pub(crate) fn open(
        network: &'n Network<'n>,
        sources: Vec<ArtifactSource>,
        descriptor: &Descriptor,
        prefix: Option<Prefix>,
    ) -> Result<Self, SourceError> {
        let at = prefix.as_ref().map_or(0, Prefix::left);
        let mut resumed =
            ResumedBlob { network, sources, descriptor: descriptor.clone(), prefix, rest: None, at };
        if at == 0 {
            resumed.open_rest()?;
        }
        Ok(resumed)
    }

    /// The number of bytes from an earlier export.
    pub(crate) fn known(&self) -> u64 {
        self.at
    }

    fn open_rest(&mut self) -> Result<(), SourceError> {
        self.rest = Some(self.network.blob_from(&self.sources, &self.descriptor, self.at)?);
        Ok(())
    }
}

impl Read for ResumedBlob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(prefix) = self.prefix.as_mut().filter(|prefix| prefix.left() > 0) {
            return prefix.read(buffer);
        }
        if self.rest.is_none() {
            if self.at == self.descriptor.size {
                return Ok(0);
            }
            // The sources are contacted only after the prefix was read, because a server would not wait that
            // long.
            self.open_rest()?;
        }
        self.rest.as_mut().map_or(Ok(0), |rest| rest.read(buffer))
    }
}
