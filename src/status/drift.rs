//! Detects whether a target still holds the data that was imported into it. Changes nothing.

use std::cmp::Ordering;
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::open_regular;
use crate::dataset::vex::MAX_MANIFEST;
use crate::dataset::vex_copy::{MANIFEST, WELL_KNOWN, archive_at, location_of, record};
use crate::dataset::{DatasetRef, Kind, Name};
use crate::delivery::ledger::IMAGE;
use crate::delivery::registry_access::{date_of, layers_of};
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::target_id::TargetId;
use crate::digest::{Digest, digest_of};
use crate::oci::Document;
use crate::remote::Repository;
use crate::targets::TargetError;
use crate::targets::cache::{Cache, Layout};
use crate::targets::registry::Registry;
use crate::trust::state::{Origin, OthersData};

/// The state of one dataset or image at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DriftState {
    /// It matches the imported data in a check that does not read complete databases.
    InPlace,
    /// It is missing.
    Missing,
    /// Something else is in its place.
    Differs,
    /// Older data is in its place, as after `--restore`.
    Older,
    /// Newer data is in its place, which trivy-ferry did not install.
    Newer,
    /// Another stream has replaced it since.
    Superseded,
    /// It is a database that no accepted bundle contained.
    NotAccepted,
    /// It was not checked.
    NotLookedAt,
}

impl DriftState {
    /// Whether this state is an error.
    pub(crate) fn is_wrong(self) -> bool {
        use DriftState::{Differs, Missing, Newer, Older};
        matches!(self, Missing | Differs | Older | Newer)
    }

    /// Returns the hint for a dataset or an image in this state. `bundle` is the bundle that
    /// restores it. `None` if this state is no error.
    pub(crate) fn hint(self, reference: &str, bundle: &str) -> Option<String> {
        let is_image = reference.starts_with(IMAGE);
        let hint = match self {
            DriftState::Missing if is_image => {
                format!("Import {bundle} again, with --image, to restore it.")
            }
            DriftState::Differs if is_image => format!(
                "Find out who replaced the tag; to set it to the bundle's image again, import {bundle} with --image and --replace-image-tags."
            ),
            DriftState::Missing | DriftState::Differs => {
                format!("Import {bundle} again to restore it.")
            }
            DriftState::Older => format!(
                "Import {bundle} again, unless the older data was restored on purpose (--restore); the next newer bundle clears this error too."
            ),
            DriftState::Newer => {
                "If the state is older than the target (it was restored, or imports used another --state-dir or path), import the newest bundle again; if something else updates the target, give the scanner the settings that `import` prints: they keep it offline."
                    .into()
            }
            DriftState::InPlace
            | DriftState::NotLookedAt
            | DriftState::NotAccepted
            | DriftState::Superseded => return None,
        };
        Some(hint)
    }
}

/// The depth of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Checks only dates, as after every import.
    Dates,
    /// Checks dates, sizes, and the files of a web root.
    Content,
}

/// The state of the data in a target, and its date if it has one.
type Observed = (DriftState, Option<Timestamp>);

const NOT_LOOKED_AT: Observed = (DriftState::NotLookedAt, None);

/// Checks a dataset in a cache or a web root.
///
/// # Errors
/// If the target cannot be read.
pub(crate) fn on_disk(
    target: &TargetId,
    reference: &str,
    accepted: Timestamp,
    origin: Option<&Origin>,
    depth: Depth,
) -> Result<Observed, TargetError> {
    let Ok(DatasetRef { name, .. }) = reference.parse() else { return Ok(NOT_LOOKED_AT) };
    match target {
        TargetId::Cache(dir) => in_cache(dir, &name, accepted, origin, depth),
        TargetId::WebRoot(dir) if depth == Depth::Content => {
            Ok((in_web_root(&dir.join(name.to_string())), None))
        }
        _ => Ok(NOT_LOOKED_AT),
    }
}

fn in_cache(
    dir: &Path,
    name: &Name,
    accepted: Timestamp,
    origin: Option<&Origin>,
    depth: Depth,
) -> Result<Observed, TargetError> {
    let repository = origin.and_then(|origin| origin.repository.as_deref());
    // The directory of a VEX repository has the name that the scanner here uses. Without the name,
    // the directory cannot be found.
    if name.kind() == Kind::Vex && repository.is_none() {
        return Ok(NOT_LOOKED_AT);
    }
    let missing = (DriftState::Missing, None);
    let Some(view) = Cache::inspect(dir, Layout::Trivy)? else { return Ok(missing) };
    let Some(slot) = view.slot(name, repository.unwrap_or_default()) else { return Ok(NOT_LOOKED_AT) };
    let Some(installed) = view.installed(&slot)? else { return Ok(missing) };
    let date = installed.updated_at;
    let by_date = match date.map(|date| date.cmp(&accepted)) {
        Some(Ordering::Less) => DriftState::Older,
        Some(Ordering::Greater) => DriftState::Newer,
        // Checks and some VEX repositories have no date.
        None if name.kind().is_large() => DriftState::Differs,
        None | Some(Ordering::Equal) => DriftState::InPlace,
    };
    if by_date != DriftState::InPlace {
        return Ok((by_date, date));
    }
    let manifest = origin.and_then(|origin| origin.manifest);
    let is_same = match (name.kind(), manifest, origin.and_then(|origin| origin.contents.as_ref())) {
        (Kind::TrivyChecks, Some(manifest), _) if installed.manifest_digest != Some(manifest) => false,
        (_, _, Some(contents)) if depth == Depth::Content => view.measures(&slot, contents)?,
        // Earlier versions recorded neither.
        _ => true,
    };
    Ok((if is_same { DriftState::InPlace } else { DriftState::Differs }, date))
}

/// Returns the date in the metadata of a database in a cache; `None` if there is none.
///
/// # Errors
/// If the cache cannot be read.
pub(crate) fn date_in_cache(dir: &Path, name: &Name) -> Result<Option<Timestamp>, TargetError> {
    let Some(view) = Cache::inspect(dir, Layout::Trivy)? else { return Ok(None) };
    let Some(slot) = view.slot(name, "") else { return Ok(None) };
    Ok(view.installed(&slot)?.and_then(|installed| installed.updated_at))
}

/// Checks a VEX repository in a web root: its manifest, and the archive to which the manifest points.
fn in_web_root(directory: &Path) -> DriftState {
    let read = || -> Option<Vec<u8>> {
        let (file, _) = open_regular(&directory.join(WELL_KNOWN).join(MANIFEST)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let Some(manifest) = read() else { return DriftState::Missing };
    let (Some(record), Some(url)) = (record(&manifest), location_of(&manifest)) else {
        return DriftState::Differs;
    };
    let Ok((file, _)) = open_regular(&directory.join(archive_at(&url))) else { return DriftState::Missing };
    match digest_of(file) {
        Ok((digest, _)) if digest == record.archive => DriftState::InPlace,
        _ => DriftState::Differs,
    }
}

/// The records of the state about a dataset or an image in a registry.
#[derive(Clone, Copy)]
pub(crate) struct KnownData<'s> {
    /// The origin of the imported data.
    pub(crate) origin: Option<&'s Origin>,
    /// Data that others put in its place.
    pub(crate) others: Option<&'s OthersData>,
}

/// The kind of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DateOf {
    /// When the data was built.
    Content,
    /// When the manifest was created.
    Manifest,
}

/// Checks a dataset or an image in a registry. If the registry has lost a layer, the dataset or the
/// image counts as missing, because a scanner cannot download it.
///
/// # Errors
/// If the registry cannot be reached, or rejects the request.
pub(crate) fn in_registry(
    registry: &Registry<'_>,
    place: &RegistryPlace,
    reference: &str,
    known: KnownData<'_>,
) -> Result<(DriftState, Option<(Timestamp, DateOf)>), TargetError> {
    let KnownData { origin, others } = known;
    let image = reference.strip_prefix(IMAGE);
    let at = match (image, reference.parse::<DatasetRef>().ok()) {
        (Some(image), _) => place_of_image(place, image, origin),
        (None, Some(dataset)) => place.repository(&dataset.name, &dataset.tag)?,
        (None, None) => None,
    };
    let Some(at) = at else { return Ok((DriftState::NotLookedAt, None)) };
    let Some(manifest) = registry.manifest(&at)? else { return Ok((DriftState::Missing, None)) };
    let is_same = match (origin, image) {
        // Earlier versions recorded no digests.
        (None | Some(Origin { manifest: None, .. }), _) => true,
        (Some(origin), Some(_)) => origin.manifest == Some(Digest::of(&manifest)),
        (Some(origin), None) => layers_of(&manifest).is_some_and(|layers| layers == origin.layers),
    };
    if !is_same {
        let is_known = |others: &&OthersData| layers_of(&manifest).is_some_and(|of| of == [others.layer]);
        let built = others.filter(is_known).map(|others| (others.updated_at, DateOf::Content));
        let made = || date_of(&manifest).map(|date| (date, DateOf::Manifest));
        return Ok((DriftState::Differs, built.or_else(made)));
    }
    Ok((
        if is_complete(registry, &at, &manifest, 0)? { DriftState::InPlace } else { DriftState::Missing },
        None,
    ))
}

/// Returns the extra tags that an import set for a dataset, if the registry has lost them or they
/// name other data.
///
/// # Errors
/// If the registry cannot be reached, or rejects the request.
pub(crate) fn lost_tags(
    registry: &Registry<'_>,
    place: &RegistryPlace,
    reference: &str,
    origin: &Origin,
) -> Result<Vec<String>, TargetError> {
    let Ok(dataset) = reference.parse::<DatasetRef>() else { return Ok(Vec::new()) };
    let Some(at) = place.repository(&dataset.name, &dataset.tag)? else { return Ok(Vec::new()) };
    let mut lost = Vec::new();
    for tag in &origin.tags {
        let found = registry.manifest(&at.tagged(tag))?;
        if found.as_deref().and_then(layers_of).is_none_or(|layers| layers != origin.layers) {
            lost.push(tag.clone());
        }
    }
    Ok(lost)
}

/// Returns the recorded reference of an image.
fn place_of_image(place: &RegistryPlace, image: &str, origin: Option<&Origin>) -> Option<Repository> {
    if let Some(recorded) = origin.and_then(|origin| origin.reference.as_deref()) {
        return Repository::read(recorded).ok().filter(|at| at.host() == place.host());
    }
    // Earlier versions recorded the image's name without its host, and pushed the image below the
    // prefix.
    let RegistryPlace::Registry { host, prefix } = place else { return None };
    let separator = if prefix.is_empty() { "" } else { "/" };
    Repository::read(&format!("{host}/{prefix}{separator}{image}")).ok()
}

/// Whether a registry has everything that a manifest or an index names, by digest and size.
fn is_complete(
    registry: &Registry<'_>,
    at: &Repository,
    document: &[u8],
    depth: usize,
) -> Result<bool, TargetError> {
    /// The maximum depth. An index names manifests or, if BuildKit built it, another index.
    const DEEPEST: usize = 3;
    /// The maximum number of entries. No image has so many platforms.
    const MAX: usize = 200;
    match Document::parse(document, None) {
        Ok((_, Document::Manifest(blobs))) => {
            registry.has_all(at, blobs.iter().map(|blob| (blob.digest, blob.size)))
        }
        Ok((_, Document::Index(entries))) if depth < DEEPEST && entries.len() <= MAX => {
            for entry in entries {
                let digest = entry.descriptor.digest;
                match registry.manifest(&at.by_digest(digest))? {
                    Some(child) if Digest::of(&child) == digest => {
                        if !is_complete(registry, at, &child, depth + 1)? {
                            return Ok(false);
                        }
                    }
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        // Scanners cannot read it either.
        _ => Ok(false),
    }
}
