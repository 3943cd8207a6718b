//! Collecting: which datasets an export wants, from where, and everything about them that can be
//! known before the first byte of a bundle is written.

pub(crate) mod best_source;
pub mod images;
pub(crate) mod quorum;
pub mod registry_mirror;
pub(crate) mod validate;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tempfile::SpooledTempFile;

use crate::bundle::Dataset;
use crate::bundle::payload::Blob;
use crate::bundle::writer::PlannedDataset;
use crate::cli::args::{Export, Sources};
use crate::collect::best_source::{BestSource, PassedOver};
use crate::dataset::catalogue::{self, TrivyVersion};
use crate::dataset::check::Limits;
use crate::dataset::{Contents, Discard, Kind, Name, layer, vex};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Descriptor, Manifest};
use crate::progress::Progress;
use crate::source::{Artifact, ArtifactSource, Network, SourceError, VexSource};
use crate::util::redacted::Redacted;
use crate::util::spool::{ONE_IN_MEMORY, spool};
use crate::util::text::safe;

/// One of the OCI artifacts, with its sources in the order in which to ask them.
pub(crate) struct WantedArtifact {
    pub(crate) name: Name,
    pub(crate) tag: String,
    pub(crate) sources: Vec<ArtifactSource>,
}

/// A dataset that is to be carried.
pub(crate) enum Wanted {
    /// One of the OCI artifacts.
    Artifact(WantedArtifact),
    /// A VEX repository.
    Vex { name: Name, source: VexSource },
}

impl Wanted {
    /// The artifact, where it is one.
    pub(crate) fn artifact(&self) -> Option<&WantedArtifact> {
        match self {
            Wanted::Artifact(artifact) => Some(artifact),
            Wanted::Vex { .. } => None,
        }
    }

    /// The hosts of all its registries.
    pub(crate) fn hosts(&self) -> Vec<String> {
        match self {
            Wanted::Artifact(artifact) => {
                let repositories = artifact.sources.iter().filter_map(ArtifactSource::repository);
                repositories.map(|repository| repository.api_host().to_owned()).collect()
            }
            Wanted::Vex { .. } => Vec::new(),
        }
    }
}

/// A dataset whose manifest and small blobs are here.
pub(crate) struct Collected {
    /// What goes into the plan.
    pub(crate) planned: PlannedDataset,
    /// Where its large layer is to be fetched from.
    pub(crate) artifact: Option<Artifact>,
    /// Where else it may be had.
    pub(crate) others: Vec<ArtifactSource>,
    /// The sources that were not taken.
    pub(crate) passed_over: Vec<PassedOver>,
    /// The small blobs.
    pub(crate) held: BTreeMap<Digest, SpooledTempFile>,
    /// The date that the manifest announces, of which nothing is believed.
    pub(crate) announced: Option<Timestamp>,
}

/// The OCI artifacts that the command line asks for.
///
/// # Errors
/// A source that is none.
pub(crate) fn artifacts(args: &Sources) -> Result<Vec<WantedArtifact>, Error> {
    let mut wanted: Vec<WantedArtifact> = Vec::new();
    let mut artifact = |name: Name, tag: &str, given: &[String]| -> Result<(), Error> {
        if !args.selection.wants(&name) {
            return Ok(());
        }
        let defaults = name.kind().default_repositories().iter().map(|text| (*text).to_owned());
        let texts: Vec<String> = if given.is_empty() { defaults.collect() } else { given.to_vec() };
        let mut sources = Vec::new();
        for text in &texts {
            let source = ArtifactSource::parse(text, tag)?;
            sources.extend(args.registry_mirror.iter().filter_map(|mirror| mirror.of(&source)));
            sources.push(source);
        }
        // A tag in the reference overrides ours, and then two majors would be the same artifact.
        if !wanted.iter().any(|have| have.sources == sources) {
            wanted.push(WantedArtifact { name, tag: tag.into(), sources });
        }
        Ok(())
    };
    artifact(Name::trivy_db(), catalogue::DB_TAG, &args.db_repository)?;
    artifact(Name::trivy_java_db(), catalogue::JAVA_DB_TAG, &args.java_db_repository)?;
    let versions =
        if args.trivy_version.is_empty() { vec![TrivyVersion::newest()] } else { args.trivy_version.clone() };
    let majors: BTreeSet<&str> = versions.into_iter().map(TrivyVersion::checks_tag).collect();
    for major in majors {
        artifact(Name::trivy_checks(), major, &args.checks_bundle_repository)?;
    }
    Ok(wanted)
}

/// What the command line asks for.
///
/// # Errors
/// A source that is none, or a selection that leaves nothing.
pub(crate) fn wanted(args: &Export) -> Result<Vec<Wanted>, Error> {
    let selection = &args.sources.selection;
    let mut wanted: Vec<Wanted> = artifacts(&args.sources)?.into_iter().map(Wanted::Artifact).collect();
    let default = format!("default={}", catalogue::VEX_HUB);
    let vex = if args.vex.is_empty() { vec![default] } else { args.vex.clone() };
    let mut names = BTreeSet::new();
    for text in &vex {
        let (repository, source) = text.split_once('=').ok_or_else(|| {
            Error::usage(
                format!("--vex {:?} has no name", safe(&Redacted::new(text).to_string())),
                "Write NAME=URL or NAME=DIR; the name `default` is VEX Hub's.",
            )
        })?;
        let name = Name::vex(repository).map_err(|_| {
            let next = match repository {
                "hub" => {
                    "It would be taken for VEX Hub, whose name here is `default`: choose that or another."
                }
                _ => "Use the name in Trivy's repository.yaml: lower-case letters, digits, '.', '_' and '-'.",
            };
            Error::usage(
                format!("{:?} cannot name a VEX repository", safe(&Redacted::new(repository).to_string())),
                next,
            )
        })?;
        if !names.insert(name.clone()) {
            return Err(Error::usage(
                format!("--vex {repository} is given twice"),
                "Give each repository once.",
            ));
        }
        if selection.wants(&name) {
            wanted.push(Wanted::Vex { name, source: VexSource::parse(source)? });
        }
    }
    // VEX Hub may be left out also where it is not asked for; another name is a slip of the pen.
    let hub = Name::vex("default").ok();
    let unknown =
        |name: &&Name| name.kind() == Kind::Vex && !names.contains(name) && hub.as_ref() != Some(name);
    if let Some(name) = selection.only.iter().chain(&selection.skip).find(unknown) {
        return Err(Error::usage(
            format!("--only or --skip names {name}, which this export does not know"),
            "Give its source with --vex NAME=SOURCE, or correct the name.",
        ));
    }
    if wanted.is_empty() && args.image.is_empty() {
        return Err(Error::usage("--only and --skip leave no dataset to export", "Select at least one."));
    }
    Ok(wanted)
}

/// Resolves every dataset, and fetches and checks the small ones.
///
/// # Errors
/// A dataset that no source has in a usable form.
pub(crate) fn collect(
    network: &Network<'_>,
    wanted: &[Wanted],
    best: &mut BestSource<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Collected>, Error> {
    let mut collected = Vec::new();
    for item in wanted {
        collected.push(match item {
            Wanted::Artifact(artifact) => best.collect(artifact)?,
            Wanted::Vex { name, source } => vex_repository(network, name, source)?,
        });
        network.take_notes().iter().for_each(|note| progress.note(note));
    }
    Ok(collected)
}

/// When a manifest says that it was made, of which nothing is believed.
pub(crate) fn announced(artifact: &Artifact) -> Option<Timestamp> {
    artifact.manifest.annotations.get(oci::CREATED).and_then(|date| date.parse().ok())
}

/// Fetches and checks the small blobs of an artifact.
///
/// # Errors
/// A source that fails, or content that Trivy could not use.
pub(crate) fn complete(
    network: &Network<'_>,
    name: &Name,
    tag: &str,
    artifact: Artifact,
) -> Result<Collected, Error> {
    let source = &artifact.source.clone();
    let kind = name.kind();
    let bad =
        |why: String| Error::Content { dataset: name.to_string(), source_name: source.to_string(), why };
    kind.check_manifest(&artifact.manifest)
        .map_err(|why| bad(format!("its manifest does not suit Trivy: {}", safe(&why))))?;
    let version = artifact.manifest.annotations.get(oci::VERSION).map(|version| safe(version));
    let tag = match kind {
        Kind::TrivyChecks => checks_major(version.as_deref(), source, tag),
        _ => tag.to_owned(),
    };
    let mut held = BTreeMap::new();
    let mut contents = empty();
    for descriptor in artifact.manifest.blobs() {
        let is_layer = artifact.manifest.layers.contains(descriptor);
        if is_layer && kind.is_large() || held.contains_key(&descriptor.digest) {
            continue;
        }
        if descriptor.size > kind.max_packed() {
            return Err(bad(format!("its configuration has {} bytes", descriptor.size)));
        }
        let mut spool = fetch(network, source, descriptor)?;
        if is_layer {
            contents = layer::unpack(kind, &mut spool, Limits::of(kind), &mut Discard)
                .map_err(|e| bad(e.to_string()))?;
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
        version,
        subdir: None,
        contents,
    };
    let planned = PlannedDataset { dataset, manifest: artifact.manifest_bytes.clone() };
    let (others, passed_over) = Default::default();
    Ok(Collected { planned, artifact: Some(artifact), others, passed_over, held, announced })
}

/// The major version of a checks bundle: what Trivy asks for as a tag. The bundle's own word is
/// better than the tag by which it was asked for.
fn checks_major(version: Option<&str>, source: &ArtifactSource, asked: &str) -> String {
    let major = |text: &str| {
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        (1..=4).contains(&digits.len()).then_some(digits)
    };
    let tag = source.to_string();
    let tag = tag.rsplit(':').next().unwrap_or_default();
    version.and_then(major).or_else(|| major(tag)).unwrap_or_else(|| asked.to_owned())
}

fn fetch(
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

/// A VEX repository becomes an OCI artifact of ours: its archive and its original manifest.
fn vex_repository(network: &Network<'_>, name: &Name, source: &VexSource) -> Result<Collected, Error> {
    let mut repository = network.vex(source)?;
    let format = repository.format;
    let limits = Limits::of(Kind::Vex);
    let mut contents = vex::unpack(format, &mut repository.archive, &repository.subdir, limits, &mut Discard)
        .map_err(|error| Error::Content {
            dataset: name.to_string(),
            source_name: repository.source.clone(),
            why: error.to_string(),
        })?;
    contents.updated_at = contents.updated_at.or(repository.last_modified);
    let layer = |media_type: &str, digest: Digest, size: u64, title: &str| Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        annotations: BTreeMap::from([(oci::TITLE.to_owned(), title.to_owned())]),
    };
    let json = repository.manifest_json;
    let config = b"{}".to_vec();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(oci::MANIFEST.into()),
        artifact_type: Some(catalogue::VEX_ARTIFACT.into()),
        config: Descriptor {
            media_type: "application/vnd.oci.empty.v1+json".into(),
            digest: Digest::of(&config),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers: vec![
            layer(
                format.media_type(),
                repository.archive_digest,
                repository.archive_size,
                &repository.archive_name,
            ),
            layer(catalogue::VEX_MANIFEST_LAYER, Digest::of(&json), json.len() as u64, "vex-repository.json"),
        ],
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::unexpected("describing VEX")(e.into()))?;
    let subdir = match repository.subdir.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| Error::Content {
            dataset: name.to_string(),
            source_name: repository.source.clone(),
            why: format!("its location names the folder {:?}", safe(text)),
        })?),
    };
    let mut held = BTreeMap::from([(repository.archive_digest, repository.archive)]);
    for bytes in [config, json] {
        held.insert(Digest::of(&bytes), spool(&bytes[..], ONE_IN_MEMORY, Error::spooling, Error::spooling)?);
    }
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
        version: None,
        subdir,
        contents,
    };
    Ok(Collected {
        planned: PlannedDataset { dataset, manifest: bytes },
        artifact: None,
        others: Vec::new(),
        passed_over: Vec::new(),
        held,
        announced: None,
    })
}

/// The contents of a dataset that was not looked at yet.
fn empty() -> Contents {
    Contents { schema: None, updated_at: None, next_update: None, files: Vec::new(), tree: None }
}
