//! An OCI artifact as a source describes it: its reference, and the bytes of its manifest.

use crate::digest::Digest;
use crate::oci::Manifest;
use crate::source::ArtifactSource;

/// A manifest, as its source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is from.
    pub source: ArtifactSource,
    /// The manifest's bytes as they were published.
    pub manifest_bytes: Vec<u8>,
    /// The digest of `manifest_bytes`, computed here and equal to every digest claimed for them.
    pub manifest_digest: Digest,
    /// The manifest's media type: its own word for it, else the registry's, else OCI's.
    pub manifest_media_type: String,
    /// What the bytes say.
    pub manifest: Manifest,
}

/// A manifest or an index, of which only the digest was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The bytes as they were published.
    pub bytes: Vec<u8>,
    /// Their digest, computed here and equal to every digest claimed for them.
    pub digest: Digest,
    /// The media type that the source gives it.
    pub media_type: Option<String>,
}
