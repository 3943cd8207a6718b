//! Artifacts in an OCI image layout on disk (image-spec v1.1, image-layout.md) that another tool has
//! fetched. They are checked as strictly as the answers of a registry.

use std::io::{Seek, SeekFrom};
use std::path::Path;

use crate::digest::Digest;
use crate::oci::{self, Descriptor, Index};
use crate::source::artifact::RawManifest;
use crate::source::blob::{Blob, Pieces};
use crate::source::error::SourceError;
use crate::source::{ArtifactSource, files};
use crate::util::text;

/// Finds a tag's manifest in a layout.
///
/// Where `index.json` holds a single manifest that has no name at all, it is taken whatever the
/// tag: crane writes such layouts, and there is nothing else that could be meant. A single
/// manifest with another name is refused.
pub(super) fn manifest(directory: &Path, tag: &str) -> Result<RawManifest, SourceError> {
    let broken = |why: String| SourceError::Layout { directory: directory.into(), why };
    let index = files::read(directory, &["index.json"], oci::MAX_MANIFEST)?;
    let index: Index = crate::util::json::from_slice(&index).map_err(|error| {
        broken(format!("its index.json is not an image index: {}", text::escape(&error.to_string())))
    })?;
    let descriptor = select(&index, tag).map_err(broken)?;
    described(directory, tag, descriptor)
}

/// The manifest that a descriptor names.
pub(super) fn described(
    directory: &Path,
    tag: &str,
    descriptor: &Descriptor,
) -> Result<RawManifest, SourceError> {
    let subject = ArtifactSource::Layout { directory: directory.into(), tag: tag.into() }.to_string();
    if descriptor.size > oci::MAX_MANIFEST {
        return Err(SourceError::TooLarge { subject, most: oci::MAX_MANIFEST });
    }
    let bytes = files::read(directory, &["blobs", "sha256", &descriptor.digest.hex()], oci::MAX_MANIFEST)?;
    let found = Digest::of(&bytes);
    if found != descriptor.digest {
        return Err(SourceError::Digest { subject, wanted: descriptor.digest, found });
    }
    Ok(RawManifest { bytes, digest: found, media_type: Some(descriptor.media_type.clone()) })
}

fn select<'i>(index: &'i Index, tag: &str) -> Result<&'i Descriptor, String> {
    let name = |entry: &'i Descriptor| entry.annotations.get(oci::REF_NAME).map(String::as_str);
    let mut named = index.manifests.iter().filter(|entry| name(entry) == Some(tag));
    if let Some(first) = named.next() {
        return match named.find(|other| other.digest != first.digest) {
            None => Ok(first),
            Some(_) => Err(format!("its index.json has several manifests with the name {tag}")),
        };
    }
    match index.manifests.as_slice() {
        [] => Err("its index.json names no manifest".into()),
        [only] if name(only).is_none() => Ok(only),
        all => {
            let names: Vec<&str> = all.iter().filter_map(name).collect();
            Err(match text::escape(&names.join(", ")) {
                names if names.is_empty() => format!("none of its manifests has the name {tag}, or any name"),
                names => format!("none of its manifests has the name {tag}; it has {names}"),
            })
        }
    }
}

/// Opens a blob of a layout.
pub(super) fn blob(
    directory: &Path,
    tag: &str,
    descriptor: &Descriptor,
    at: u64,
) -> Result<Blob<'static>, SourceError> {
    let hex = descriptor.digest.hex();
    let (mut file, announced) = files::open(directory, &["blobs", "sha256", &hex])?;
    let source = ArtifactSource::Layout { directory: directory.into(), tag: tag.into() };
    let subject = format!("blob {} of {source}", descriptor.digest);
    if announced != descriptor.size {
        return Err(SourceError::Length { subject, wanted: descriptor.size, announced });
    }
    let path = directory.join("blobs").join("sha256").join(hex);
    if let Err(error) = file.seek(SeekFrom::Start(at)) {
        return Err(SourceError::Local { path, error });
    }
    Ok(Blob::new(Pieces::File { file, path }, subject, descriptor, at))
}
