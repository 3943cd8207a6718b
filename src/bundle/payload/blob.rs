//! A member that holds a blob of the OCI image layout.

use serde::{Deserialize, Serialize};

use crate::dataset::Kind;
use crate::digest::Digest;
use crate::oci;

/// The media type of a patch.
pub(super) const PATCH_TYPE: &str = "application/vnd.trivy-ferry.delta.patch.v1+zstd";

/// A blob of the OCI image layout, stored as the member `blobs/sha256/<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Blob {
    /// Returns the name of its member.
    pub fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }

    /// Whether it is the layer of one of the two large databases, or a patch for one of their files.
    pub fn is_large(&self) -> bool {
        self.media_type == PATCH_TYPE
            || [Kind::TrivyDb, Kind::TrivyJavaDb]
                .iter()
                .any(|kind| kind.layer_media_type() == Some(&self.media_type))
    }
}

impl From<&oci::Descriptor> for Blob {
    fn from(descriptor: &oci::Descriptor) -> Self {
        Blob { media_type: descriptor.media_type.clone(), digest: descriptor.digest, size: descriptor.size }
    }
}
