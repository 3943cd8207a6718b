//! Whether a target still holds what was imported into it. Looks, and changes nothing.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::place::Place;
use super::registries::{date_of, layers_of};
use crate::dataset::vex_copy::{MANIFEST, WELL_KNOWN};
use crate::dataset::{Kind, Name};
use crate::digest::Digest;
use crate::oci::Document;
use crate::remote::Repository;
use crate::target::TargetError;
use crate::target::cache::{Cache, Layout};
use crate::target::registry::Registry;
use crate::trust::state::Origin;

/// What a look at a target found of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// What was imported, as far as a quick look can tell: no database is read through.
    InPlace,
    /// Nothing.
    Missing,
    /// Something else.
    Differs,
    /// Nobody looked.
    NotLookedAt,
}

/// What a target holds, and the date of it, where it has one.
type Found = (State, Option<Timestamp>);

const NOBODY_LOOKED: Found = (State::NotLookedAt, None);

/// The name and the tag in a reference name: `trivy-db` and 2 in `trivy-db-2`. `None` for an image.
pub(super) fn name_and_tag(reference: &str) -> Option<(Name, &str)> {
    let (name, tag) = reference.rsplit_once('-')?;
    Some((name.parse().ok()?, tag))
}

/// Looks at a cache or a web root, by the target's name in the state.
pub(super) fn on_disk(target: &str, reference: &str, accepted: Timestamp, origin: Option<&Origin>) -> Found {
    let Some((name, _)) = name_and_tag(reference) else { return NOBODY_LOOKED };
    match target.split_once(':') {
        Some(("cache", dir)) => in_cache(Path::new(dir), &name, accepted, origin),
        Some(("web", dir)) => (in_web_root(Path::new(dir), &name), None),
        _ => NOBODY_LOOKED,
    }
}

fn in_cache(dir: &Path, name: &Name, accepted: Timestamp, origin: Option<&Origin>) -> Found {
    let repository = origin.and_then(|origin| origin.repository.as_deref());
    // Without its name here nobody knows where to look.
    if name.kind() == Kind::Vex && repository.is_none() {
        return NOBODY_LOOKED;
    }
    let installed = Cache::inspect(dir, Layout::Trivy).ok().flatten().and_then(|view| {
        let slot = view.slot(name, repository.unwrap_or_default())?;
        view.installed(&slot).ok().flatten()
    });
    let Some(installed) = installed else { return (State::Missing, None) };
    let is_same = match name.kind() {
        // Checks have no date, and an older program kept no digest of theirs.
        Kind::TrivyChecks => {
            let manifest = origin.and_then(|origin| origin.manifest);
            manifest.is_none() || installed.manifest_digest == manifest
        }
        // Nor has every VEX repository a date.
        Kind::Vex => installed.updated_at.is_none_or(|date| date == accepted),
        Kind::TrivyDb | Kind::TrivyJavaDb => installed.updated_at == Some(accepted),
    };
    (if is_same { State::InPlace } else { State::Differs }, installed.updated_at)
}

/// Whether a web root hands out a VEX repository.
fn in_web_root(dir: &Path, name: &Name) -> State {
    let manifest = dir.join(name.to_string()).join(WELL_KNOWN).join(MANIFEST);
    if manifest.is_file() { State::InPlace } else { State::Missing }
}

/// Asks a registry. What it has lost of a manifest's layers is missing: a scanner cannot download that.
///
/// # Errors
/// Any error of the network, and a registry that refuses to say.
pub(super) fn in_registry(
    registry: &Registry<'_>,
    place: &Place,
    reference: &str,
    origin: Option<&Origin>,
) -> Result<Found, TargetError> {
    let image = reference.strip_prefix("image:");
    let at = match (image, name_and_tag(reference)) {
        // Its own host counts for nothing there.
        (Some(image), _) => place.image(&format!("localhost/{image}")).and_then(Result::ok),
        (None, Some((name, tag))) => place.repository(&name, tag)?,
        (None, None) => None,
    };
    let Some(at) = at else { return Ok(NOBODY_LOOKED) };
    let Some(manifest) = registry.manifest(&at)? else { return Ok((State::Missing, None)) };
    let is_same = match (origin, image) {
        // An older program kept no digests.
        (None | Some(Origin { manifest: None, .. }), _) => true,
        (Some(origin), Some(_)) => origin.manifest == Some(Digest::of(&manifest)),
        (Some(origin), None) => layers_of(&manifest).is_some_and(|layers| layers == origin.layers),
    };
    if !is_same {
        return Ok((State::Differs, date_of(&manifest)));
    }
    Ok((if is_whole(registry, &at, &manifest, 0)? { State::InPlace } else { State::Missing }, None))
}

/// Whether a registry has everything that a manifest or an index names, by the digests and lengths.
fn is_whole(
    registry: &Registry<'_>,
    at: &Repository,
    document: &[u8],
    depth: usize,
) -> Result<bool, TargetError> {
    /// An index names manifests, or one more index, as BuildKit makes them.
    const DEEPEST: usize = 3;
    /// More than any image has platforms.
    const MOST: usize = 100;
    match Document::parse(document, None) {
        Ok((_, Document::Manifest(blobs))) => {
            registry.has_all(at, blobs.iter().map(|blob| (blob.digest, blob.size)))
        }
        Ok((_, Document::Index(entries))) if depth < DEEPEST && entries.len() <= MOST => {
            for entry in entries {
                let digest = entry.descriptor.digest;
                match registry.manifest(&at.by_digest(digest))? {
                    Some(child) if Digest::of(&child) == digest => {
                        if !is_whole(registry, at, &child, depth + 1)? {
                            return Ok(false);
                        }
                    }
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        // No scanner understands it either.
        _ => Ok(false),
    }
}
