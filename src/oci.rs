//! OCI descriptors, manifests and image indexes, as far as this program reads them.
//!
//! A manifest is kept as the bytes that upstream published: what is parsed here is a view of
//! them and is never written back, so that digests survive the trip. Knows no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Media type of an OCI image manifest (image-spec v1.1, manifest.md).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index (image-spec v1.1, image-index.md).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of Docker's image manifest, which registries may answer for older pushes.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The annotation that names a layer's file (image-spec v1.1, annotations.md).
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation that holds an artifact's version.
pub const VERSION: &str = "org.opencontainers.image.version";
/// The annotation that holds an artifact's creation time.
pub const CREATED: &str = "org.opencontainers.image.created";
/// The annotation by which an image layout names a manifest (image-layout.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The largest manifest that is read, in bytes: the limit of the distribution specification
/// (v1.1, "Pushing Manifests", 4 MiB).
pub const MAX_MANIFEST: u64 = 4 << 20;

/// What names a blob: its type, its digest and its size in bytes (image-spec v1.1, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The blob's media type.
    pub media_type: String,
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// Free-form properties, such as [`TITLE`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The view of an image manifest that this program needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type; some publishers leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What kind of artifact this is, where the publisher says so here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration blob. Trivy never looks at it.
    pub config: Descriptor,
    /// The content.
    pub layers: Vec<Descriptor>,
    /// Free-form properties, such as [`VERSION`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest's bytes.
    ///
    /// # Errors
    /// In words, for the caller to put beside the source's name: not JSON, an index or a list of
    /// platforms where a manifest should be, or a manifest of another schema.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            schema_version: Option<u32>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        if bytes.trim_ascii_start().first() == Some(&b'<') {
            return Err("an HTML page stands where a manifest should be".into());
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(|e| format!("not a JSON manifest: {e}"))?;
        if probe.manifests.is_some() {
            return Err("an image index stands where a single manifest should be".into());
        }
        if probe.schema_version != Some(2) {
            return Err("not an image manifest of schema version 2".into());
        }
        serde_json::from_slice(bytes).map_err(|e| format!("not an image manifest: {e}"))
    }

    /// The configuration and the layers, in that order.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// An image layout's `index.json` (image-spec v1.1, image-layout.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// One descriptor a reference; its name stands in the annotation [`REF_NAME`].
    pub manifests: Vec<Descriptor>,
}
