//! The datasets that an export or a mirror selects, and their sources.

use std::collections::BTreeSet;

use crate::collect::options::SourceOptions;
use crate::dataset::catalogue::{self, TrivyVersion};
use crate::dataset::{DatasetRef, Kind, Name};
use crate::error::Error;
use crate::source::{ArtifactSource, VexSource};
use crate::util::redacted::Redacted;
use crate::util::text::escape;

/// One of the OCI artifacts, with its sources in the order in which to try them.
pub(crate) struct WantedArtifact {
    pub(crate) name: Name,
    pub(crate) tag: String,
    pub(crate) sources: Vec<ArtifactSource>,
}

/// A dataset to carry.
pub(crate) enum WantedDataset {
    /// One of the OCI artifacts.
    Artifact(WantedArtifact),
    /// A VEX repository.
    Vex { name: Name, source: VexSource },
}

impl WantedDataset {
    /// The artifact, if the dataset is one.
    pub(crate) fn artifact(&self) -> Option<&WantedArtifact> {
        match self {
            WantedDataset::Artifact(artifact) => Some(artifact),
            WantedDataset::Vex { .. } => None,
        }
    }

    /// Its name with the requested tag.
    pub(crate) fn dataset(&self) -> DatasetRef {
        match self {
            WantedDataset::Artifact(artifact) => DatasetRef::new(artifact.name.clone(), artifact.tag.clone()),
            WantedDataset::Vex { name, .. } => DatasetRef::new(name.clone(), catalogue::VEX_SPEC),
        }
    }

    /// The hosts of all its registries.
    pub(crate) fn hosts(&self) -> Vec<String> {
        match self {
            WantedDataset::Artifact(artifact) => {
                let repositories = artifact.sources.iter().filter_map(ArtifactSource::repository);
                repositories.map(|repository| repository.api_host().to_owned()).collect()
            }
            WantedDataset::Vex { .. } => Vec::new(),
        }
    }
}

/// Returns the selected OCI artifacts.
///
/// # Errors
/// [`Error::Source`] if the text of a source names no repository.
pub(crate) fn artifacts(options: &SourceOptions) -> Result<Vec<WantedArtifact>, Error> {
    let mut wanted: Vec<WantedArtifact> = Vec::new();
    let mut artifact = |name: Name, tag: &str, given: &[String]| -> Result<(), Error> {
        if !options.selection.wants(&name) {
            return Ok(());
        }
        let defaults = name.kind().default_repositories().iter().map(|text| (*text).to_owned());
        let texts: Vec<String> = if given.is_empty() { defaults.collect() } else { given.to_vec() };
        let mut sources = Vec::new();
        for text in &texts {
            let source = ArtifactSource::parse(text, tag)?;
            sources.extend(options.registry_mirror.iter().filter_map(|mirror| mirror.of(&source)));
            sources.push(source);
        }
        // A tag in the reference overrides `tag`, and then two major versions are the same artifact.
        if !wanted.iter().any(|have| have.sources == sources) {
            wanted.push(WantedArtifact { name, tag: tag.into(), sources });
        }
        Ok(())
    };
    artifact(Name::trivy_db(), catalogue::DB_TAG, &options.db_repository)?;
    artifact(Name::trivy_java_db(), catalogue::JAVA_DB_TAG, &options.java_db_repository)?;
    let versions = if options.trivy_version.is_empty() {
        vec![TrivyVersion::newest()]
    } else {
        options.trivy_version.clone()
    };
    let majors: BTreeSet<&str> = versions.into_iter().map(TrivyVersion::checks_tag).collect();
    for major in majors {
        artifact(Name::trivy_checks(), major, &options.checks_bundle_repository)?;
    }
    Ok(wanted)
}

/// Returns the selected datasets. `vex` names VEX repositories, as `NAME=URL` or `NAME=DIR`; if it is empty,
/// VEX Hub is used. The result may be empty if there are images.
///
/// # Errors
/// [`Error::Source`] if the text of a source names nothing that can be fetched; [`Error::Usage`] if a VEX
/// repository has no valid name or is given twice, or if the selection names an unknown dataset or leaves
/// nothing.
pub(crate) fn wanted(
    options: &SourceOptions,
    vex: &[String],
    has_images: bool,
) -> Result<Vec<WantedDataset>, Error> {
    let selection = &options.selection;
    let mut wanted: Vec<WantedDataset> =
        artifacts(options)?.into_iter().map(WantedDataset::Artifact).collect();
    let default = format!("default={}", catalogue::VEX_HUB);
    let vex = if vex.is_empty() { vec![default] } else { vex.to_vec() };
    let mut names = BTreeSet::new();
    for text in &vex {
        let (repository, source) = text.split_once('=').ok_or_else(|| {
            Error::usage(
                format!("--vex {:?} has no name", escape(&Redacted::new(text).to_string())),
                "Give NAME=URL or NAME=DIR; VEX Hub has the name `default`.",
            )
        })?;
        let name = Name::vex(repository).map_err(|_| {
            let hint = match repository {
                "hub" => "Use `default` for VEX Hub, or choose another name for another repository.",
                _ => "Use the name in Trivy's repository.yaml: lower-case letters, digits, '.', '_' and '-'.",
            };
            Error::usage(
                format!("{:?} cannot name a VEX repository", escape(&Redacted::new(repository).to_string())),
                hint,
            )
        })?;
        if !names.insert(name.clone()) {
            return Err(Error::usage(
                format!("--vex {repository} is given twice"),
                "Give each repository once.",
            ));
        }
        if selection.wants(&name) {
            wanted.push(WantedDataset::Vex { name, source: VexSource::parse(source)? });
        }
    }
    // `--skip` may name VEX Hub even if it is not selected; any other unknown name is a typo.
    let hub = Name::vex("default").ok();
    let unknown =
        |name: &&Name| name.kind() == Kind::Vex && !names.contains(name) && hub.as_ref() != Some(name);
    if let Some(name) = selection.only.iter().chain(&selection.skip).find(unknown) {
        return Err(Error::usage(
            format!("--only or --skip names {name}, which has no source in this export"),
            "Give its source with --vex NAME=SOURCE, or correct the name.",
        ));
    }
    if wanted.is_empty() && !has_images {
        return Err(Error::usage(
            "--only and --skip leave no dataset to export",
            "Select at least one dataset.",
        ));
    }
    Ok(wanted)
}
