//! An OCI artifact as its source describes it: its reference and the bytes of its manifest.

use crate::digest::Digest;
use crate::oci::Manifest;
use crate::source::ArtifactSource;

/// An artifact's manifest as fetched from its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The source that it was fetched from.
    pub source: ArtifactSource,
    /// The manifest's bytes as they were published.
    pub manifest_bytes: Vec<u8>,
    /// The digest of `manifest_bytes`, computed here and equal to every digest claimed for them.
    pub manifest_digest: Digest,
    /// The manifest's media type: the one in the manifest, else the one from the registry, else that of OCI.
    pub manifest_media_type: String,
    /// The parsed manifest.
    pub manifest: Manifest,
}

/// A manifest or an index whose bytes are not parsed yet; only its digest was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The bytes as they were published.
    pub bytes: Vec<u8>,
    /// Their digest, computed here and equal to every digest claimed for them.
    pub digest: Digest,
    /// The media type that the source declares.
    pub media_type: Option<String>,
}
