//! Artifacts in an OCI image layout on disk (image-spec v1.1, `image-layout.md`) that another tool fetched.
//! They are verified as strictly as the answers of a registry.

use std::io::{Seek, SeekFrom};
use std::path::Path;

use crate::digest::Digest;
use crate::oci::{self, Descriptor, Document, Index};
use crate::source::artifact::RawManifest;
use crate::source::blob::{Blob, Pieces};
use crate::source::error::SourceError;
use crate::source::{ArtifactSource, files};
use crate::util::text;

/// The maximum depth of nested indexes.
const MAX_DEPTH: usize = 3;

/// Finds a manifest in a layout by its name: a tag, a complete reference or a digest.
///
/// If `index.json` holds a single manifest without a name, it is used for any name: crane writes such
/// layouts, and there is no other candidate. A single manifest with another name is rejected.
pub(super) fn manifest(directory: &Path, name: &str) -> Result<RawManifest, SourceError> {
    let broken = |why: String| SourceError::Layout { directory: directory.into(), why };
    let index = files::read(directory, &["index.json"], oci::MAX_MANIFEST)?;
    let index: Index = crate::util::json::from_slice(&index).map_err(|error| {
        broken(format!("its index.json is not an image index: {}", text::escape(&error.to_string())))
    })?;
    let descriptor = select(&index, name).map_err(broken)?;
    described(directory, name, descriptor)
}

/// Returns the only manifest of an index, if `raw` is one: cosign and others wrap a manifest in an index
/// without a name.
pub(super) fn only_child(directory: &Path, name: &str, raw: RawManifest) -> Result<RawManifest, SourceError> {
    let mut raw = raw;
    for _ in 0..MAX_DEPTH {
        match Document::parse(&raw.bytes, raw.media_type.as_deref()) {
            Ok((_, Document::Index(entries))) if entries.len() == 1 => {
                raw = described(directory, name, &entries[0].descriptor)?;
            }
            _ => break,
        }
    }
    Ok(raw)
}

/// Reads the manifest that a descriptor names.
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

fn select<'i>(index: &'i Index, wanted: &str) -> Result<&'i Descriptor, String> {
    let digest = wanted.rsplit('@').next().and_then(|digest| digest.parse::<Digest>().ok());
    if let Some(digest) = digest {
        let mut entries = index.manifests.iter();
        return entries
            .find(|entry| entry.digest == digest)
            .ok_or_else(|| format!("none of its manifests has the digest {digest}"));
    }
    // An exact match takes precedence over a match of the end.
    let is = |entry: &&Descriptor| names(entry).any(|name| name == wanted);
    let ends = |entry: &&Descriptor| names(entry).any(|name| ends_with(name, wanted));
    let ends_alike = |entry: &&Descriptor| names(entry).any(|name| ends_with(wanted, name));
    let rules: [&dyn Fn(&&Descriptor) -> bool; 3] = [&is, &ends, &ends_alike];
    for rule in rules {
        let mut named = index.manifests.iter().filter(rule);
        if let Some(first) = named.next() {
            return match named.find(|other| other.digest != first.digest) {
                None => Ok(first),
                Some(_) => Err(format!(
                    "its index.json has several manifests with the name {wanted}; give a digest or one of these names: {}",
                    all_names(index)
                )),
            };
        }
    }
    match index.manifests.as_slice() {
        [] => Err("its index.json names no manifest".into()),
        [only] if names(only).next().is_none() => Ok(only),
        _ => Err(match all_names(index) {
            names if names.is_empty() => format!("its manifests have no names, so none matches {wanted}"),
            names => format!("none of its manifests has the name {wanted}; it has {names}"),
        }),
    }
}

/// The names of a manifest. Hauler omits the registry in the first and writes the complete name to the
/// second.
fn names(entry: &Descriptor) -> impl Iterator<Item = &str> {
    [oci::REF_NAME, oci::IMAGE_NAME]
        .into_iter()
        .filter_map(|key| entry.annotations.get(key))
        .map(String::as_str)
}

fn all_names(index: &Index) -> String {
    let names: Vec<&str> = index.manifests.iter().flat_map(names).collect();
    text::escape(&names.join(", "))
}

/// Whether `name` ends with `end` at the boundary of a component: `ghcr.io/a/b:2` ends with `a/b:2` and with
/// `2`.
fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|before| before.ends_with(['/', ':']))
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
