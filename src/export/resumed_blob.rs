//! A blob's bytes: first those that an earlier export has fetched, then the rest from its sources.
//!
//! Nothing vouches for either before whoever reads them has compared the digest of all.

use std::io::{self, Read};

use crate::export::output::resume::Prefix;
use crate::oci::Descriptor;
use crate::source::{ArtifactSource, Network, SourceError, UnhashedBlob};

/// A blob that is read to its end once.
pub(crate) struct ResumedBlob<'n> {
    network: &'n Network<'n>,
    sources: Vec<ArtifactSource>,
    descriptor: Descriptor,
    prefix: Option<Prefix>,
    rest: Option<UnhashedBlob<'n>>,
    at: u64,
}

impl<'n> ResumedBlob<'n> {
    /// A blob of which `prefix` is here. Its sources are asked now, unless nothing is left to ask for.
    ///
    /// # Errors
    /// Those of the sources.
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
            resumed.ask()?;
        }
        Ok(resumed)
    }

    /// How many of its bytes were here from before.
    pub(crate) fn known(&self) -> u64 {
        self.at
    }

    fn ask(&mut self) -> Result<(), SourceError> {
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
            // Where the start came from a file, its sources are asked when that has been read: a server
            // would not wait.
            self.ask()?;
        }
        self.rest.as_mut().map_or(Ok(0), |rest| rest.read(buffer))
    }
}
