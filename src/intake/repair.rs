//! `repair`: rebuilds the missing and damaged files of bundles in place, if a trusted key signed the bundle.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bundle::names::partial_path;
use crate::bundle::{UnverifiedBundle, VerifiedBundle};
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets::Inputs;
use crate::intake::rebuild::{RebuiltBundle, rebuild_bundle, shown};
use crate::intake::verify::check_bytes;
use crate::progress::Progress;
use crate::trust::keyring::Keyring;
use crate::util::fs::{self, Durability};

/// The result of [`repair`].
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RepairReport {
    /// The bundles that are complete now.
    pub bundles: Vec<RepairedBundle>,
    /// The bundles that could not be rebuilt, if others were.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// A bundle that is complete.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct RepairedBundle {
    /// Its file, or that of its head.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// The digest of its payload.
    pub identity: Digest,
    /// Its length in bytes, with all volumes.
    pub length: u64,
    /// The files that were rebuilt.
    #[serde(serialize_with = "crate::util::text::serialize_paths")]
    pub made: Vec<PathBuf>,
    /// The number of missing or damaged shards.
    pub shards: usize,
}

/// Rebuilds the missing and damaged files of bundles from their parity, in place. `trust` names files of trusted
/// public keys; if it is empty, the keys that `trust add` stored are trusted.
///
/// # Errors
/// [`Error::Trust`] if a key cannot be used or none is trusted; [`Error::Usage`] if there is no parity;
/// [`Error::Bundle`] or [`Error::Destination`] if the only bundle cannot be rebuilt.
pub fn repair(inputs: &[PathBuf], trust: &[PathBuf], progress: &dyn Progress) -> Result<RepairReport, Error> {
    let keyring = Keyring::load(trust)?;
    let there = Inputs::read(inputs)?;
    let keys: Vec<&str> = there.with_parity().collect();
    if keys.is_empty() {
        let named: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
        return Err(Error::usage(
            format!("there are no parity files in or beside {}", named.join(" and ")),
            "Copy the files named .par.001 and so on, which `trivy-ferry export --parity 10%` writes.",
        ));
    }
    let mut report = RepairReport { bundles: Vec::new(), errors: Vec::new() };
    let mut errors = Vec::new();
    for key in keys {
        match repair_one(&there, key, &keyring, progress) {
            Ok(row) => report.bundles.push(row),
            Err(error) => errors.push(error),
        }
    }
    if report.bundles.is_empty() && errors.len() == 1 {
        return Err(errors.remove(0));
    }
    report.errors = errors;
    Ok(report)
}

fn repair_one(
    there: &Inputs,
    key: &str,
    keyring: &Keyring,
    progress: &dyn Progress,
) -> Result<RepairedBundle, Error> {
    let Some(rebuilt) = rebuild_bundle(there, key, keyring, &|path| partial_path(path))? else {
        // The parity is not signed, so a parity without damage proves nothing about the bundle.
        let signed = UnverifiedBundle::open(&shown(there, key))?.signed(keyring)?;
        let bundle = there.complete(signed)?;
        check_bytes(&bundle, progress)?;
        return Ok(repaired_bundle(&bundle, bundle.path(), Vec::new(), 0));
    };
    let RebuiltBundle { bundle, made, shards } = rebuilt;
    let kept = check_bytes(&bundle, progress).map_err(Error::from).and_then(|()| keep(&made));
    if let Err(error) = kept {
        for (path, _) in &made {
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    let head = made.iter().find(|(path, _)| path == bundle.path()).map_or(bundle.path(), |(_, name)| name);
    Ok(repaired_bundle(&bundle, head, made.iter().map(|(_, name)| name.clone()).collect(), shards))
}

fn repaired_bundle(
    bundle: &VerifiedBundle,
    head: &Path,
    made: Vec<PathBuf>,
    shards: usize,
) -> RepairedBundle {
    let length = bundle.payload().length;
    RepairedBundle { path: head.into(), identity: bundle.identity(), length, made, shards }
}

/// Renames the rebuilt files to their final names.
fn keep(made: &[(PathBuf, PathBuf)]) -> Result<(), Error> {
    for (path, name) in made {
        fs::rename(path, name, Durability::Synced).map_err(|error| Error::Destination {
            path: name.clone(),
            what: format!("the rebuilt file could not be renamed to this name: {error}"),
            hint: "Check that the medium is writable, or copy all files to a writable directory and repair them there.".into(),
        })?;
    }
    Ok(())
}
