//! One dataset as collected from a source: its manifest, its small blobs, and the manifest's description of
//! the large one.

use std::collections::BTreeMap;
use std::io::Seek;

use jiff::Timestamp;
use serde::Serialize;
use tempfile::SpooledTempFile;

use crate::bundle::Dataset;
use crate::bundle::payload::Blob;
use crate::bundle::writer::PlannedDataset;
use crate::collect::validate;
use crate::dataset::check::{UnpackError, UnpackLimits};
use crate::dataset::examine::{Examination, Examiner};
use crate::dataset::{Contents, DatasetRef, Discard, Kind, Name, RelPath, catalogue, vex};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Descriptor, Manifest};
use crate::source::{Artifact, ArtifactSource, Network, SourceError, VexRepository, VexSource};
use crate::util::spool::{ONE_IN_MEMORY, spool};
use crate::util::text::escape;

/// The configuration of an artifact without one (OCI image specification, "empty descriptor").
const EMPTY_CONFIG: &[u8] = b"{}";

/// A dataset whose manifest and small blobs have been fetched.
pub(crate) struct CollectedDataset {
    /// The requested name and tag. The content may declare another tag.
    pub(crate) wanted: DatasetRef,
    /// Its entry in the plan of the bundle.
    pub(crate) planned: PlannedDataset,
    /// The artifact that its large layer is fetched from.
    pub(crate) artifact: Option<Artifact>,
    /// Further sources of the same data.
    pub(crate) others: Vec<ArtifactSource>,
    /// The sources that were skipped.
    pub(crate) skipped: Vec<SkippedSource>,
    /// The small blobs.
    pub(crate) held: BTreeMap<Digest, SpooledTempFile>,
    /// The date that the manifest announces. It is not trusted.
    pub(crate) announced: Option<Timestamp>,
    /// The findings about the content; `None` until it is read.
    pub(crate) examination: Option<Examination>,
    /// Remarks for the operator.
    pub(crate) remarks: Vec<String>,
    /// The override flag that made trivy-ferry sign it although a check failed.
    pub(crate) by_override: Option<String>,
}

impl CollectedDataset {
    /// Unpacks the small content layer as an importer does, and compares the result with the description to
    /// sign. Data that importers would reject is thus found before it is carried. A large layer is not checked
    /// here: its description comes from unpacking it.
    ///
    /// # Errors
    /// [`Error::Content`] if an importer would find something else; [`Error::Unexpected`] if a temporary file
    /// cannot be read.
    pub(crate) fn check_as_importer(&mut self) -> Result<(), Error> {
        let dataset = &self.planned.dataset;
        let layer = dataset.content_layer().filter(|_| !dataset.name.kind().is_large());
        let Some(held) = layer.and_then(|layer| self.held.get_mut(&layer.digest)) else { return Ok(()) };
        held.rewind().map_err(Error::spooling)?;
        let why = match dataset.unpack(held, &mut Discard) {
            Ok(found) => found.difference(&dataset.contents),
            Err(UnpackError::Content(error)) => Some(error.to_string()),
            Err(UnpackError::Read(error) | UnpackError::Sink(error)) => return Err(Error::spooling(error)),
        };
        match why {
            Some(why) => Err(Error::Content {
                dataset: dataset.name.to_string(),
                source_name: dataset.source.clone(),
                why: format!("importers would reject it: {}", escape(&why)),
            }),
            None => Ok(()),
        }
    }
}

/// Returns the creation date in a manifest. It is not trusted.
pub(crate) fn announced(artifact: &Artifact) -> Option<Timestamp> {
    artifact.manifest.annotations.get(oci::CREATED).and_then(|date| date.parse().ok())
}

/// Explains that a layer or a configuration has more bytes than its limit.
fn too_large(is_layer: bool, size: u64, most: u64) -> String {
    let what = if is_layer { "layer" } else { "configuration" };
    format!("its {what} is too large ({size} bytes; limit: {most})")
}

/// Fetches and validates the small blobs of an artifact.
///
/// # Errors
/// [`Error::Source`] if a blob cannot be fetched; [`Error::Content`] if Trivy could not use the manifest or
/// the content; [`Error::Unexpected`] if a temporary file cannot be written.
pub(crate) fn fetch_small_blobs(
    network: &Network<'_>,
    name: &Name,
    tag: &str,
    artifact: Artifact,
) -> Result<CollectedDataset, Error> {
    let source = &artifact.source.clone();
    let kind = name.kind();
    let bad =
        |why: String| Error::Content { dataset: name.to_string(), source_name: source.to_string(), why };
    kind.check_manifest(&artifact.manifest)
        .map_err(|why| bad(format!("Trivy cannot use its manifest: {}", escape(&why))))?;
    let wanted = DatasetRef::new(name.clone(), tag);
    let version = artifact.manifest.annotations.get(oci::VERSION).map(|version| escape(version));
    let tag = match kind {
        Kind::TrivyChecks => checks_major(version.as_deref(), source, tag),
        _ => tag.to_owned(),
    };
    let mut held = BTreeMap::new();
    let (mut contents, mut examination) = (empty(), None);
    for descriptor in artifact.manifest.blobs() {
        let is_layer = artifact.manifest.layers.contains(descriptor);
        if is_layer && kind.is_large() || held.contains_key(&descriptor.digest) {
            continue;
        }
        if descriptor.size > kind.max_packed() {
            return Err(bad(too_large(is_layer, descriptor.size, kind.max_packed())));
        }
        let mut spool = fetch(network, source, descriptor)?;
        if is_layer {
            let examined = validate::examine(kind, &mut spool).map_err(|e| bad(e.to_string()))?;
            (contents, examination) = (examined.contents, Some(examined.examination));
        }
        held.insert(descriptor.digest, spool);
    }
    let announced = announced(&artifact);
    let manifest = Blob {
        media_type: artifact.manifest_media_type.clone(),
        digest: artifact.manifest_digest,
        size: artifact.manifest_bytes.len() as u64,
    };
    let dataset = Dataset {
        name: name.clone(),
        tag,
        source: source.to_string(),
        manifest,
        config: Blob::from(&artifact.manifest.config),
        layers: artifact.manifest.layers.iter().map(Blob::from).collect(),
        delta: None,
        version,
        subdir: None,
        contents,
    };
    let (others, skipped, remarks, by_override) = Default::default();
    Ok(CollectedDataset {
        wanted,
        planned: PlannedDataset { dataset, manifest: artifact.manifest_bytes.clone() },
        artifact: Some(artifact),
        others,
        skipped,
        held,
        announced,
        examination,
        remarks,
        by_override,
    })
}

/// Returns the major version of a checks bundle, which Trivy requests as a tag. The version in the manifest
/// takes precedence over the requested tag.
pub(crate) fn checks_major(version: Option<&str>, source: &ArtifactSource, asked: &str) -> String {
    let major = |text: &str| {
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        (1..=4).contains(&digits.len()).then_some(digits)
    };
    let tag = source.to_string();
    let tag = tag.rsplit(':').next().unwrap_or_default();
    version.and_then(major).or_else(|| major(tag)).unwrap_or_else(|| asked.to_owned())
}

pub(crate) fn fetch(
    network: &Network<'_>,
    source: &ArtifactSource,
    descriptor: &Descriptor,
) -> Result<SpooledTempFile, Error> {
    let failed = |error| match SourceError::from_io(error) {
        Ok(error) => Error::from(error),
        Err(error) => Error::unexpected(format!("reading {source}"))(error),
    };
    spool(network.blob(source, descriptor)?, ONE_IN_MEMORY, failed, Error::spooling)
}

/// Fetches a VEX repository and turns it into an OCI artifact of its archive and its original manifest.
pub(crate) fn vex_repository(
    network: &Network<'_>,
    name: &Name,
    source: &VexSource,
) -> Result<CollectedDataset, Error> {
    let mut repository = network.vex(source)?;
    let (contents, examination) = vex_contents(name, &mut repository)?;
    let subdir = vex_subdir(name, &repository)?;
    let manifest = vex_manifest(&repository);
    let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::unexpected("describing VEX")(e.into()))?;
    let dataset = Dataset {
        name: name.clone(),
        tag: catalogue::VEX_SPEC.into(),
        source: repository.source,
        manifest: Blob {
            media_type: oci::MANIFEST.into(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        },
        config: Blob::from(&manifest.config),
        layers: manifest.layers.iter().map(Blob::from).collect(),
        delta: None,
        version: None,
        subdir,
        contents,
    };
    let mut held = BTreeMap::from([(repository.archive_digest, repository.archive)]);
    for bytes in [EMPTY_CONFIG, &repository.manifest_json] {
        held.insert(Digest::of(bytes), spool(bytes, ONE_IN_MEMORY, Error::spooling, Error::spooling)?);
    }
    Ok(CollectedDataset {
        wanted: dataset.dataset_ref(),
        planned: PlannedDataset { dataset, manifest: bytes },
        artifact: None,
        others: Vec::new(),
        skipped: Vec::new(),
        held,
        announced: None,
        examination: Some(examination),
        remarks: Vec::new(),
        by_override: None,
    })
}

/// Reads the archive of a VEX repository and returns its contents. Resolves the directory in its location.
///
/// The date is that of its index. If the index has no date, the contents have none either, because importers
/// read only the content.
fn vex_contents(name: &Name, repository: &mut VexRepository) -> Result<(Contents, Examination), Error> {
    let VexRepository { format, archive, subdir, source, .. } = repository;
    let bad = |error: UnpackError| Error::Content {
        dataset: name.to_string(),
        source_name: source.clone(),
        why: error.to_string(),
    };
    let place = vex::find_directory(*format, &mut *archive, subdir).map_err(bad)?;
    archive.rewind().map_err(Error::spooling)?;
    let mut examiner = Examiner::new(Kind::Vex);
    let limits = UnpackLimits::of(Kind::Vex);
    let contents = vex::unpack(*format, archive, &place.path, limits, &mut examiner).map_err(bad)?;
    let mut examination = examiner.finish();
    examination.remarks.extend(place.remark);
    *subdir = place.path;
    Ok((contents, examination))
}

/// Returns the directory of the archive that holds the repository; `None` for the top.
fn vex_subdir(name: &Name, repository: &VexRepository) -> Result<Option<RelPath>, Error> {
    match repository.subdir.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Error::Content {
            dataset: name.to_string(),
            source_name: repository.source.clone(),
            why: format!("its location names the invalid directory {:?}", escape(text)),
        }),
    }
}

/// Describes a VEX repository as an artifact with two layers: the archive and the repository's manifest.
fn vex_manifest(repository: &VexRepository) -> Manifest {
    let layer = |media_type: &str, digest: Digest, size: u64, title: &str| Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        annotations: BTreeMap::from([(oci::TITLE.to_owned(), title.to_owned())]),
    };
    let archive = layer(
        repository.format.media_type(),
        repository.archive_digest,
        repository.archive_size,
        &repository.archive_name,
    );
    let json = &repository.manifest_json;
    let manifest =
        layer(catalogue::VEX_MANIFEST_LAYER, Digest::of(json), json.len() as u64, "vex-repository.json");
    Manifest {
        schema_version: 2,
        media_type: Some(oci::MANIFEST.into()),
        artifact_type: Some(catalogue::VEX_ARTIFACT.into()),
        config: Descriptor {
            media_type: "application/vnd.oci.empty.v1+json".into(),
            digest: Digest::of(EMPTY_CONFIG),
            size: EMPTY_CONFIG.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers: vec![archive, manifest],
        annotations: BTreeMap::new(),
    }
}

/// The contents of a dataset that has not been read yet.
pub(crate) fn empty() -> Contents {
    Contents { schema: None, updated_at: None, next_update: None, files: Vec::new(), tree: None }
}

/// A source that was skipped.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SkippedSource {
    /// The source.
    pub source: String,
    /// The reason.
    pub why: String,
}
