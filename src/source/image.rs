//! An image as it stands in a registry: a manifest, or an index with manifests below it, and the blobs
//! that they name.
//!
//! Fetches the manifests only; blobs are read when they are needed. Everything below is named by its
//! digest, so that nothing can be put in its place.

use std::collections::HashSet;

use super::{ArtifactSource, Network, RawManifest, SourceError};
use crate::bundle::MAX_MEMBER;
use crate::digest::Digest;
use crate::oci::{Descriptor, Document, Platform};
use crate::text::safe;

/// The most manifests of one image: some platforms with an attestation each.
const MOST_MANIFESTS: usize = 128;
/// The most bytes of all its manifests, which are held in memory.
const MOST_BYTES: usize = 8 << 20;
/// The most blobs of one image.
const MOST_BLOBS: usize = 4096;
/// How deep indexes may stand in indexes.
const MOST_DEPTH: usize = 3;

/// An image, without its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it is from.
    pub source: ArtifactSource,
    /// What its name stands for.
    pub top: ImageManifest,
    /// The manifests below, each before those that name it.
    pub below: Vec<ImageManifest>,
    /// The configurations and layers, each once.
    pub blobs: Vec<Descriptor>,
}

/// A manifest or an index with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its media type.
    pub media_type: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes, as they were published.
    pub bytes: Vec<u8>,
}

struct Gathered<'n> {
    network: &'n Network,
    source: &'n ArtifactSource,
    below: Vec<ImageManifest>,
    blobs: Vec<Descriptor>,
    seen: HashSet<Digest>,
    bytes: usize,
}

pub(super) fn fetch(
    network: &Network,
    source: &ArtifactSource,
    platform: Option<&Platform>,
) -> Result<Image, SourceError> {
    let (below, blobs, seen, bytes) = Default::default();
    let mut gathered = Gathered { network, source, below, blobs, seen, bytes };
    let raw = network.manifest(source)?;
    let raw = match platform {
        Some(platform) => gathered.for_platform(raw, platform)?,
        None => raw,
    };
    let top = gathered.gather(raw, 0)?;
    let Gathered { below, blobs, .. } = gathered;
    Ok(Image { source: source.clone(), top, below, blobs })
}

impl Gathered<'_> {
    fn bad(&self, why: impl AsRef<str>) -> SourceError {
        SourceError::Manifest { subject: self.source.to_string(), why: safe(why.as_ref()) }
    }

    fn parse(&self, raw: &RawManifest) -> Result<(&'static str, Document), SourceError> {
        Document::parse(&raw.bytes, raw.media_type.as_deref()).map_err(|why| self.bad(why))
    }

    /// The one manifest for a platform; what is for no platform in particular stays as it is.
    fn for_platform(&self, raw: RawManifest, wanted: &Platform) -> Result<RawManifest, SourceError> {
        let (_, Document::Index(entries)) = self.parse(&raw)? else { return Ok(raw) };
        let fits = |platform: &Option<Platform>| platform.as_ref().is_some_and(|have| wanted.covers(have));
        match entries.iter().find(|entry| fits(&entry.platform)) {
            Some(entry) => self.network.child(self.source, &entry.descriptor),
            None => {
                let has: Vec<String> = entries
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref())
                    .map(Platform::to_string)
                    .collect();
                Err(self.bad(format!("it has nothing for {wanted}, only for {}", has.join(", "))))
            }
        }
    }

    /// Takes a manifest, and all that it names.
    fn gather(&mut self, raw: RawManifest, depth: usize) -> Result<ImageManifest, SourceError> {
        let (media_type, document) = self.parse(&raw)?;
        self.bytes += raw.bytes.len();
        if depth > MOST_DEPTH || self.below.len() >= MOST_MANIFESTS || self.bytes > MOST_BYTES {
            return Err(self.bad("it has too many manifests"));
        }
        match document {
            Document::Manifest(blobs) => {
                for blob in blobs {
                    if blob.size > MAX_MEMBER {
                        return Err(self.bad(format!("its blob {} is too large", blob.digest)));
                    }
                    if self.seen.insert(blob.digest) {
                        self.blobs.push(blob);
                    } else if self.blobs.iter().any(|b| b.digest == blob.digest && b.size != blob.size) {
                        return Err(self.bad(format!("its blob {} has two sizes", blob.digest)));
                    }
                }
                if self.blobs.len() > MOST_BLOBS {
                    return Err(self.bad("it has too many layers"));
                }
            }
            Document::Index(entries) => {
                for entry in entries {
                    if !self.seen.insert(entry.descriptor.digest) {
                        continue;
                    }
                    let raw = self.network.child(self.source, &entry.descriptor)?;
                    let manifest = self.gather(raw, depth + 1)?;
                    self.below.push(manifest);
                }
            }
        }
        Ok(ImageManifest { media_type, digest: raw.digest, bytes: raw.bytes })
    }
}
