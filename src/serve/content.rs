//! Adds the content of verified bundles to a server: datasets and images as repositories, and VEX repositories as
//! files.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::bundle::chunks::CHUNK;
use crate::bundle::{BundleError, Dataset, Image, VerifiedBlob, VerifiedBlobs, VerifiedBundle};
use crate::dataset::Kind;
use crate::dataset::vex::ArchiveFormat;
use crate::dataset::vex_copy::{self, MANIFEST, Record, WELL_KNOWN};
use crate::delivery::candidates::DatasetCandidate;
use crate::delivery::image_place::path_of;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci;
use crate::progress::Progress;
use crate::remote::Repository;
use crate::serve::http::{Blob, File, Site};
use crate::util::text::escape;

/// Verifies the chosen datasets and images of one bundle, and adds them to the site.
pub(crate) fn add(
    site: &mut Site,
    bundle: &VerifiedBundle,
    mine: &[&ServeChoice],
    images: &[&Image],
    progress: &dyn Progress,
) -> Result<(), Error> {
    let path = bundle.path().to_path_buf();
    let of_images = images.iter().flat_map(|image| image.all());
    let wanted: BTreeSet<Digest> = mine
        .iter()
        .flat_map(|choice| choice.candidate.dataset.blobs())
        .chain(of_images)
        .map(|blob| blob.digest)
        .collect();
    let what = |digest: Digest| {
        let mut datasets = mine.iter().map(|choice| &choice.candidate.dataset);
        let dataset = datasets.find(|dataset| dataset.blobs().any(|blob| blob.digest == digest));
        let image = images.iter().find(|image| image.all().any(|blob| blob.digest == digest));
        dataset.map(Dataset::reference).or(image.map(|image| image.name.clone())).unwrap_or_default()
    };
    let verified = bundle.verify_in_chunks(&wanted, what, progress)?;
    for choice in mine {
        let dataset = &choice.candidate.dataset;
        let lacks = |why: String| BundleError::Payload {
            path: path.clone(),
            why: format!("{}: {}", dataset.reference(), escape(&why)).into(),
        };
        let manifest = read_all(&verified, dataset.manifest.digest, oci::MAX_MANIFEST)
            .map_err(|error| BundleError::from_io(&path, error))?;
        dataset.agrees_with(&manifest).map_err(&lacks)?;
        if dataset.delta.is_some() {
            let (dataset, target) = (dataset.name.to_string(), "a server".into());
            return Err(BundleError::NeedsLayer { path, dataset, target }.into());
        }
        for blob in std::iter::once(&dataset.config).chain(&dataset.layers) {
            let verified = verified.blob(blob.digest).ok_or_else(|| lacks("a blob is missing".into()))?;
            site.blob(dataset.name.as_str(), blob.digest, Arc::new(verified));
        }
        site.manifest(dataset.name.as_str(), Some(&dataset.tag), &dataset.manifest.media_type, manifest);
        if dataset.name.kind() == Kind::Vex {
            add_vex(site, &verified, &choice.candidate).map_err(lacks)?;
        }
    }
    for image in images {
        add_image(site, &verified, image).map_err(|why| {
            let why = format!("{}: {}", image.name, escape(&why));
            Error::from(BundleError::Payload { path: path.clone(), why: why.into() })
        })?;
    }
    Ok(())
}

/// The reference under which an image is served.
pub(crate) struct ServedAs {
    repository: String,
    tag: Option<String>,
    digest: Digest,
}

impl fmt::Display for ServedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.repository),
            None => write!(f, "{}@{}", self.repository, self.digest),
        }
    }
}

/// Returns the reference under which an image is served. Its repository begins with the host of its source, so that it
/// never has the name of a dataset. Returns `None` if the image's name is not a valid reference.
pub(crate) fn served_as(image: &Image) -> Option<ServedAs> {
    let name = Repository::parse(&image.name, "latest").ok()?;
    let (tag, digest) = (name.tag().map(str::to_owned), image.manifest.digest);
    Some(ServedAs { repository: path_of(&name), tag, digest })
}

/// Adds the manifests and blobs of an image.
///
/// # Errors
/// If its name is invalid or a blob is missing or cannot be read. The caller completes the message.
fn add_image(site: &mut Site, verified: &Arc<VerifiedBlobs>, image: &Image) -> Result<(), String> {
    let ServedAs { repository: name, tag, .. } =
        served_as(image).ok_or("its name is not a valid image reference")?;
    for blob in &image.blobs {
        let blob_of = verified.blob(blob.digest).ok_or("a blob is missing")?;
        site.blob(&name, blob.digest, Arc::new(blob_of));
    }
    for manifest in image.manifests.iter().chain([&image.manifest]) {
        let bytes =
            read_all(verified, manifest.digest, oci::MAX_MANIFEST).map_err(|error| error.to_string())?;
        let tag = tag.as_deref().filter(|_| manifest.digest == image.manifest.digest);
        site.manifest(&name, tag, &manifest.media_type, bytes);
    }
    Ok(())
}

/// Adds the files of a VEX repository, below the dataset's name.
///
/// # Errors
/// If the archive is missing, the manifest cannot be read, or the archive's path is not valid in a
/// URL. The caller completes the message.
fn add_vex(
    site: &mut Site,
    verified: &Arc<VerifiedBlobs>,
    candidate: &DatasetCandidate,
) -> Result<(), String> {
    let dataset = &candidate.dataset;
    let [layer, described] = dataset.layers.as_slice() else { return Err("its archive is missing".into()) };
    let format = ArchiveFormat::by_media_type(&layer.media_type);
    let subdir = dataset.subdir.as_ref().map_or("", |subdir| subdir.as_str()).to_owned();
    let name = dataset.name.clone();
    let archive = vex_copy::archive_name(format, &subdir);
    let record = Record { archive: layer.digest, updated_at: candidate.date };
    let upstream = read_all(verified, described.digest, crate::dataset::vex::MAX_MANIFEST)
        .map_err(|error| error.to_string())?;
    let file = format!("{name}/{archive}");
    let naming = move |base: &str| {
        let location = vex_copy::location(&format!("{base}/{name}/{archive}"), &subdir);
        vex_copy::point_at(&upstream, &location.ok_or("its name is not valid in a URL")?, &record)
    };
    // Finds an invalid URL now and not at the first request.
    naming("http://localhost")?;
    let media_type = match format {
        ArchiveFormat::TarGzip => "application/gzip",
        ArchiveFormat::Zip => "application/zip",
    };
    let verified = verified.blob(layer.digest).ok_or("its archive is missing")?;
    site.file(&file, File::Fixed(Arc::new(verified), media_type));
    let well_known = format!("{}/{WELL_KNOWN}/{MANIFEST}", dataset.name);
    site.file(&well_known, File::Naming(Box::new(move |base| naming(base).ok())));
    Ok(())
}

/// Reads a blob of at most `most` bytes.
fn read_all(verified: &Arc<VerifiedBlobs>, digest: Digest, most: u64) -> std::io::Result<Vec<u8>> {
    let missing = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let blob = verified.blob(digest).filter(|blob| blob.size() <= most).ok_or_else(missing)?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.size() {
        bytes.extend(blob.chunk(bytes.len() as u64 / CHUNK)?);
    }
    Ok(bytes)
}

impl Blob for VerifiedBlob {
    fn size(&self) -> u64 {
        VerifiedBlob::size(self)
    }

    fn read(&self, offset: u64) -> std::io::Result<Bytes> {
        let within = usize::try_from(offset % CHUNK).unwrap_or(usize::MAX);
        let chunk = Bytes::from(self.chunk(offset / CHUNK)?);
        if within < chunk.len() {
            Ok(chunk.slice(within..))
        } else {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// A dataset to serve.
pub(crate) struct ServeChoice {
    pub(crate) candidate: DatasetCandidate,
    /// Whether it is older than the data that was served before, and accepted with `--allow-rollback`.
    pub(crate) rollback: bool,
}
