//! `export --image`: the images that a bundle carries beside the datasets, how they are named, and how they
//! are collected.

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

/// What one `--image` of an export names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedImage {
    /// What it is called on both sides.
    pub name: Repository,
    /// Where it is fetched from.
    pub source: ArtifactSource,
}

/// A string that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write HOST/REPOSITORY:TAG, or NAME=oci-layout:DIR:TAG")]
pub struct InvalidImage(String);

/// The tag that is meant where none stands, as everywhere else with images.
const TAG: &str = "latest";

impl FromStr for CarriedImage {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let (name, source) = text.split_once('=').unwrap_or((text, text));
        if name.starts_with("oci-layout:") {
            return Err(InvalidImage("a layout does not say what its image is called".into()));
        }
        if !name.is_empty() && !name.contains('/') {
            let name = Redacted::new(name);
            return Err(InvalidImage(format!("for an image of Docker Hub's own, write library/{name}")));
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

/// An image whose manifests are here.
pub(crate) struct CollectedImage {
    /// What goes into the plan.
    pub(crate) planned: PlannedImage,
    source: source::Image,
}

impl CollectedImage {
    /// Any of its blobs, and where it is fetched from.
    pub(crate) fn first_blob(&self) -> Option<(&ArtifactSource, &Descriptor)> {
        Some((&self.source.source, self.source.blobs.first()?))
    }

    /// Where a blob of it is fetched from.
    pub(crate) fn blob(&self, path: &str) -> Option<(&ArtifactSource, &Descriptor)> {
        let index = self.planned.image.blobs.iter().position(|blob| blob.path() == path)?;
        Some((&self.source.source, self.source.blobs.get(index)?))
    }
}

/// Fetches the manifests of every image that an export is to take along. Adds to `missing` those that their source
/// does not give and the bundle need not hold; what stands there already is skipped.
///
/// # Errors
/// [`Error::Usage`] if there are too many images, one is given twice, or one has another digest than its
/// name; [`Error::Source`] if all are required and a source does not have one, or registries would reject it.
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
            format!("{} images are named, and a bundle takes {MAX_IMAGES}", images.len()),
            "Take the others in a second bundle, of a stream of its own.",
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
        network.take_warnings().iter().for_each(|warning| progress.info(warning));
        let source = match source {
            Ok(source) => source,
            Err(error) => {
                missing.push(requirements.without_image(&name, error.into())?);
                continue;
            }
        };
        if let Some(pinned) = carried.name.digest().filter(|pinned| *pinned != source.top.digest) {
            return Err(Error::usage(
                format!(
                    "{} is {} where it is fetched, and its name says {pinned}",
                    carried.source, source.top.digest
                ),
                "Leave the digest out of the name, or take another source; with --platform an index has another digest than what is carried.",
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
