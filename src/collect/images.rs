//! `export --image`: the images that a bundle carries beside the datasets, their names, and how they are
//! collected.

use std::fmt;
use std::str::FromStr;

use crate::bundle::format::MAX_MEMBER;
use crate::bundle::payload::{Blob, Image, MAX_IMAGES};
use crate::bundle::writer::PlannedImage;
use crate::collect::requirement::{MissingSource, Requirements};
use crate::error::Error;
use crate::oci::{Descriptor, Platform};
use crate::progress::Progress;
use crate::remote::Repository;
use crate::source::{self, ArtifactSource, Network};
use crate::util::redacted::Redacted;

/// The image that one `--image` of an export names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedImage {
    /// Its name at the source and at the destination.
    pub name: Repository,
    /// The source that it is fetched from.
    pub source: ArtifactSource,
}

/// The error for a string that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; give HOST/REPOSITORY:TAG, or NAME=oci-layout:DIR:TAG")]
pub struct InvalidImage(String);

/// The default tag, as usual for images.
const TAG: &str = "latest";

impl FromStr for CarriedImage {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let (name, source) = text.split_once('=').unwrap_or((text, text));
        if name.starts_with("oci-layout:") {
            return Err(InvalidImage("an OCI layout does not hold the name of its image".into()));
        }
        if !name.is_empty() && !name.contains('/') {
            let name = Redacted::new(name);
            return Err(InvalidImage(format!(
                "an official image of Docker Hub is written as library/{name}"
            )));
        }
        let name = Repository::parse(name, TAG).map_err(|error| InvalidImage(error.to_string()))?;
        let source = ArtifactSource::parse(source, name.tag().unwrap_or(TAG))
            .map_err(|error| InvalidImage(error.to_string()))?;
        Ok(CarriedImage { name, source })
    }
}

impl fmt::Display for CarriedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// An image whose manifests have been fetched.
pub(crate) struct CollectedImage {
    /// Its entry in the plan of the bundle.
    pub(crate) planned: PlannedImage,
    source: source::Image,
}

impl CollectedImage {
    /// The first of its blobs, and the source of the image.
    pub(crate) fn first_blob(&self) -> Option<(&ArtifactSource, &Descriptor)> {
        Some((&self.source.source, self.source.blobs.first()?))
    }

    /// Returns the source and the descriptor of one of its blobs.
    pub(crate) fn blob(&self, path: &str) -> Option<(&ArtifactSource, &Descriptor)> {
        let index = self.planned.image.blobs.iter().position(|blob| blob.path() == path)?;
        Some((&self.source.source, self.source.blobs.get(index)?))
    }
}

/// Fetches the manifests of every image that an export carries. Adds an image to `missing` if its source does
/// not have it and the bundle does not require it; skips images that `missing` already holds.
///
/// # Errors
/// [`Error::Usage`] if there are too many images, if one is given twice, or if its digest differs from the
/// one in its name; [`Error::Source`] if images are required and one cannot be fetched or would be rejected
/// by registries.
pub(crate) fn collect(
    images: &[CarriedImage],
    platform: Option<&Platform>,
    requirements: &Requirements<'_>,
    missing: &mut Vec<MissingSource>,
    network: &Network<'_>,
    progress: &dyn Progress,
) -> Result<Vec<CollectedImage>, Error> {
    if images.len() > MAX_IMAGES {
        return Err(Error::usage(
            format!("{} images are given, but a bundle holds at most {MAX_IMAGES}", images.len()),
            "Carry the others in a second bundle, with a stream of its own.",
        ));
    }
    let mut collected: Vec<CollectedImage> = Vec::new();
    for (index, carried) in images.iter().enumerate() {
        let name = carried.name.to_string();
        if images[..index].iter().any(|other| other.name == carried.name) {
            return Err(Error::usage(format!("--image {name} is given twice"), "Give each image once."));
        }
        if missing.iter().any(|missing| missing.item.is(&name)) {
            continue;
        }
        let source = network.image(&carried.source, platform, MAX_MEMBER);
        network.take_warnings().iter().for_each(|warning| progress.warn(warning));
        let source = match source {
            Ok(source) => source,
            Err(error) => {
                missing.push(requirements.without_image(&name, error.into())?);
                continue;
            }
        };
        if let Some(pinned) = carried.name.digest().filter(|pinned| *pinned != source.top.digest) {
            return Err(Error::usage(
                format!("{} has the digest {}, but its name has {pinned}", carried.source, source.top.digest),
                "Remove the digest from the name, or use another source; with --platform, the digest of the index differs from that of the carried manifest.",
            ));
        }
        let manifest = |manifest: &source::ImageManifest| Blob {
            media_type: manifest.media_type.into(),
            digest: manifest.digest,
            size: manifest.bytes.len() as u64,
        };
        let image = Image {
            name,
            source: carried.source.to_string(),
            manifest: manifest(&source.top),
            manifests: source.below.iter().map(manifest).collect(),
            blobs: source.blobs.iter().map(Blob::from).collect(),
        };
        let manifests = source.below.iter().chain([&source.top]).map(|m| m.bytes.clone()).collect();
        collected.push(CollectedImage { planned: PlannedImage { image, manifests }, source });
    }
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_full_name() {
        for (text, name, source) in [
            ("aquasec/trivy:0.74.0", "docker.io/aquasec/trivy:0.74.0", "docker.io/aquasec/trivy:0.74.0"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io/a/b:latest"),
            ("ghcr.io/a/b:1=oci-layout:/x", "ghcr.io/a/b:1", "oci-layout:/x:1"),
            ("ghcr.io/a/b:1=localhost:5000/c:2", "ghcr.io/a/b:1", "localhost:5000/c:2"),
        ] {
            let carried: CarriedImage = text.parse().unwrap();
            assert_eq!(
                (carried.name.to_string().as_str(), carried.source.to_string().as_str()),
                (name, source)
            );
        }
        for bad in ["", "trivy", "oci-layout:/x:1", "https://ghcr.io/a/b:1", "a/b:1=", "=x/y:1"] {
            assert!(bad.parse::<CarriedImage>().is_err(), "{bad}");
        }
    }
}
