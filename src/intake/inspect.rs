//! `inspect`: shows the content of a bundle, its age, and the keys that signed it.
//!
//! It shows unverified bundles too and marks them as such. Every text from a bundle is escaped for the
//! terminal.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{BundleError, Payload, UnverifiedBundle};
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets::Inputs;
use crate::intake::open;
use crate::intake::signer::SignerInfo;
use crate::intake::skipped::SkippedFile;
use crate::trust::TrustError;
use crate::trust::keyring::Keyring;
use crate::util::clock;
use crate::util::text::{Unverified, escape, format_count};

/// The result of [`inspect`].
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct InspectReport {
    /// The bundles, those that a trusted key signed first.
    pub bundles: Vec<InspectedBundle>,
    /// The skipped files beside them.
    pub ignored: Vec<SkippedFile>,
}

/// A bundle and its payload.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedBundle {
    /// Its file, or that of its head.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// Whether a trusted key signed it, and its file or all its volumes have the signed length. Only
    /// [`verify`](crate::intake::verify::verify) and an import check the content.
    pub verified: bool,
    /// The reason why it is not verified.
    pub why: Option<String>,
    /// The digest of its payload.
    pub identity: Digest,
    /// The trusted keys that signed it.
    pub signers: Vec<SignerInfo>,
    /// The key IDs that its signatures claim.
    pub claimed_keyids: Vec<Unverified>,
    /// Its payload, which may be forged if the bundle is not verified.
    pub payload: Payload,
    /// When it was inspected.
    #[serde(skip)]
    pub inspected_at: Timestamp,
}

/// Reads the payloads of bundles and the keys that signed them. `trust` names files of trusted public keys; if
/// it is empty, the keys that `trust add` stored are trusted.
///
/// # Errors
/// [`Error::Trust`] if a key cannot be used; [`Error::Usage`] if the inputs hold no bundle;
/// [`Error::Bundle`] if the only input cannot be read as a bundle, or the head of every bundle is missing.
pub fn inspect(inputs: &[PathBuf], trust: &[PathBuf]) -> Result<InspectReport, Error> {
    // Bundles can be shown without any trusted key.
    let keyring = match Keyring::load(trust) {
        Err(TrustError::NoTrustedKeys { .. }) => Keyring::default(),
        other => other?,
    };
    let mut there = Inputs::read(inputs)?;
    let mut skipped = std::mem::take(&mut there.ignored);
    let (mut signed, mut unsigned) = (ShownBundles::default(), ShownBundles::default());
    let mut failed = Vec::new();
    for path in &there.bundles {
        match inspect_bundle(path, &there, &keyring) {
            Ok((row, length)) => {
                let rows = if row.signers.is_empty() { &mut unsigned } else { &mut signed };
                rows.add(row, length);
            }
            Err(error) if there.is_one_file => return Err(error.into()),
            Err(error) => failed.push((path, escape(&error.to_string()))),
        }
    }
    failed.retain(|(path, _)| !there.is_renamed_volume(path));
    for (path, why) in failed {
        let name = escape(&path.file_name().unwrap_or_default().to_string_lossy());
        skipped.add(SkippedFile { name, why });
    }
    there.not_named().for_each(|file| skipped.add(file));
    for (rows, state) in [(&signed, "signed"), (&unsigned, "not signed")] {
        if rows.more > 0 {
            let why = format!("{state} by a trusted key; not shown, because there are too many");
            skipped.add(SkippedFile { name: format_count(rows.more, "bundle"), why });
        }
    }
    let bundles: Vec<InspectedBundle> = signed.rows.into_iter().chain(unsigned.rows).collect();
    if let (true, Some((_, error))) = (bundles.is_empty(), there.headless().next()) {
        return Err(error.into());
    }
    if bundles.is_empty() {
        return Err(open::no_bundle(inputs, skipped));
    }
    Ok(InspectReport { bundles, ignored: skipped.remarks() })
}

/// The shown bundles. Their payloads stay in memory, so they are limited.
#[derive(Default)]
struct ShownBundles {
    rows: Vec<InspectedBundle>,
    /// The bytes of their manifests.
    bytes: usize,
    /// The number of bundles that are not shown.
    more: usize,
}

impl ShownBundles {
    /// The limit of bytes of all manifests. A single larger one is accepted.
    const MAX: usize = 1 << 20;

    fn add(&mut self, row: InspectedBundle, length: usize) {
        if self.rows.is_empty() || self.bytes + length <= Self::MAX {
            self.bytes += length;
            self.rows.push(row);
        } else {
            self.more += 1;
        }
    }
}

/// Reads a bundle, and returns it with the length of its payload.
fn inspect_bundle(
    path: &Path,
    there: &Inputs,
    keyring: &Keyring,
) -> Result<(InspectedBundle, usize), BundleError> {
    let bundle = UnverifiedBundle::open(path)?;
    let claimed_keyids = bundle.claimed_keyids();
    let (identity, length) = (bundle.identity(), bundle.payload_length());
    let claims = bundle.claims();
    let (payload, signers, why) = match bundle.signed(keyring) {
        Ok(signed) => {
            let (payload, signers) = (signed.payload().clone(), SignerInfo::of(signed.signers(), keyring));
            (payload, signers, there.complete(signed).err().map(|error| escape(&error.to_string())))
        }
        // For an unsigned bundle, the missing signature is the reason, even if its payload is invalid too.
        Err(error) => match claims {
            Ok(claims) => (claims, Vec::new(), Some(escape(&error.to_string()))),
            Err(_) => return Err(error),
        },
    };
    let (inspected_at, verified) = (clock::now(), why.is_none());
    let path = path.into();
    let row =
        InspectedBundle { path, verified, why, identity, signers, claimed_keyids, payload, inspected_at };
    Ok((row, length))
}
