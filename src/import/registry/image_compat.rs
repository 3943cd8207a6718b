//! `--compat` for images: rewrites the parts of their manifests that some registries reject, from the lowest manifest
//! up to the one that the tag names.
//!
//! This module depends on documents and digests, but not on registries.

use std::collections::{BTreeMap, BTreeSet};

use crate::bundle::payload::Blob;
use crate::bundle::{BundleError, Image, VerifiedBundle};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Document};
use crate::targets::compat::{Compat, IMAGE_CONFIG};
use crate::util::text::escape;

/// An image as it is pushed.
pub(crate) struct RewrittenImage {
    /// The image with its new digests.
    pub(crate) image: Image,
    /// The documents that are not in the bundle: rewritten manifests and indexes, and the configuration that they name.
    pub(crate) documents: BTreeMap<Digest, Vec<u8>>,
}

/// Rewrites the manifests of an image; `None` if none has to change.
///
/// # Errors
/// If the bundle cannot be read, or a manifest is invalid.
pub(crate) fn rewrite(bundle: &VerifiedBundle, image: &Image) -> Result<Option<RewrittenImage>, Error> {
    let lacks = |why: String| BundleError::Payload { path: bundle.path().into(), why: why.into() };
    // Each manifest precedes the indexes that name it.
    let all: Vec<&Blob> = image.manifests.iter().chain([&image.manifest]).collect();
    let bytes = bundle.small_members(&all.iter().map(|blob| blob.path()).collect(), oci::MAX_MANIFEST)?;
    let (mut known, mut documents, mut named) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for blob in &all {
        let document =
            bytes.get(&blob.path()).ok_or_else(|| lacks(format!("it has no blob {}", blob.digest)))?;
        let bad = |why: String| lacks(format!("{}: {}", image.name, escape(&why)));
        let rewritten = Compat::of_image(document, &known).map_err(bad)?;
        let (_, content) =
            Document::parse(rewritten.as_ref().unwrap_or(document), Some(&blob.media_type)).map_err(bad)?;
        if let Document::Manifest(blobs) = content {
            named.extend(blobs.into_iter().map(|blob| blob.digest));
        }
        if let Some(bytes) = rewritten {
            let digest = Digest::of(&bytes);
            known.insert(blob.digest, (digest, bytes.len() as u64));
            documents.insert(digest, bytes);
        }
    }
    if known.is_empty() {
        return Ok(None);
    }
    let mut image = image.clone();
    for blob in image.manifests.iter_mut().chain([&mut image.manifest]) {
        if let Some((digest, size)) = known.get(&blob.digest) {
            (blob.digest, blob.size) = (*digest, *size);
        }
    }
    image.blobs.retain(|blob| named.contains(&blob.digest));
    let (digest, config) = Compat::config();
    if named.contains(&digest) && !image.blobs.iter().any(|blob| blob.digest == digest) {
        let media_type = IMAGE_CONFIG.to_owned();
        image.blobs.insert(0, Blob { media_type, digest, size: config.len() as u64 });
        documents.insert(digest, config.to_vec());
    }
    Ok(Some(RewrittenImage { image, documents }))
}
