//! `verify`: checks everything that an import would check, and writes nothing.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{BundleError, Dataset, Stream, VerifiedBundle};
use crate::dataset::MissingItem;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets::Inputs;
use crate::intake::open;
use crate::intake::receiver::Check;
use crate::intake::signer::SignerInfo;
use crate::intake::skipped::SkippedFile;
use crate::intake::unpack::unpack_bundle;
use crate::progress::Progress;
use crate::trust::Rejection;
use crate::trust::acceptance::{BundleCandidate, Policy, admit};
use crate::trust::keyring::Keyring;
use crate::trust::state::TargetState;
use crate::util::clock;

/// The inputs of [`verify`], and the rules to apply.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// A bundle, or directories that hold bundles and their volumes.
    pub inputs: Vec<PathBuf>,
    /// Files of trusted public keys; if there are none, the keys that `trust add` stored are trusted.
    pub trust: Vec<PathBuf>,
    /// The number of different trusted keys that must have signed a bundle. `None` uses the setting of
    /// `trust require`, or 1.
    pub min_signers: Option<u32>,
    /// The stream that is accepted; `None` accepts any.
    pub stream: Option<Stream>,
    /// Accepts a bundle with a creation time in the future.
    pub allow_future: bool,
    /// Accepts a bundle after its expiry date.
    pub allow_expired: bool,
}

impl VerifyOptions {
    /// Creates options that check these inputs by the default rules.
    #[must_use]
    pub fn new(inputs: Vec<PathBuf>) -> Self {
        VerifyOptions { inputs, ..VerifyOptions::default() }
    }
}

/// The result of [`verify`].
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The valid bundles.
    pub bundles: Vec<ValidBundle>,
    /// The skipped files beside them.
    pub ignored: Vec<SkippedFile>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
    /// The errors of rejected bundles, if others are valid.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
}

/// A valid bundle: every byte and all content match the signed manifest.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct ValidBundle {
    /// Its file, or that of its head.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// The digest of its payload.
    pub identity: Digest,
    /// The trusted keys that signed it.
    pub signers: Vec<SignerInfo>,
    /// Its stream.
    pub stream: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its length in bytes, with all volumes.
    pub length: u64,
    /// The number of its members without the envelope.
    pub members: usize,
    /// The references of its datasets, such as `trivy-db-2`.
    pub datasets: Vec<String>,
    /// The names of its images.
    pub images: Vec<String>,
    /// The items that its exporter should have carried but could not get.
    pub missing_items: Vec<MissingItem>,
    /// When it was checked.
    #[serde(skip)]
    pub checked_at: Timestamp,
}

/// Checks everything that an import would check, and writes nothing.
///
/// # Errors
/// [`Error::Trust`] if a key cannot be used or none is trusted; [`Error::Usage`] if the inputs hold no bundle;
/// [`Error::Bundle`] or [`Error::Rejected`] if the only bundle is damaged or rejected.
pub fn verify(options: &VerifyOptions, progress: &dyn Progress) -> Result<VerifyReport, Error> {
    let stream = options.stream.as_ref().map(Stream::as_str);
    let keyring = Keyring::load(&options.trust)?.requiring(options.min_signers, stream)?;
    let deep = |error| name_all_damage(error, &options.inputs, &keyring, progress);
    let mut found = match open::open(&options.inputs, &keyring, None) {
        Err(Error::Bundle(error)) => return Err(deep(error).into()),
        other => other?,
    };
    let single = found.bundles.len() == 1 && found.damaged.is_empty();
    let mut errors: Vec<Error> =
        std::mem::take(&mut found.damaged).into_iter().map(deep).map(Error::from).collect();
    let warnings = found.warnings;
    let mut report =
        VerifyReport { bundles: Vec::new(), ignored: found.ignored, warnings, errors: Vec::new() };
    let mut expired = Vec::new();
    for bundle in &found.bundles {
        match check(bundle, options, &keyring, progress) {
            Ok(row) => report.bundles.push(row),
            Err(error) if single => return Err(error),
            Err(Error::Rejected(rejection @ Rejection::Expired { .. })) => {
                expired.push((bundle.payload().created, bundle.name(), rejection));
            }
            Err(error) => errors.push(error),
        }
    }
    // Like an import, skip an expired bundle if a newer one is valid.
    let newest = report.bundles.iter().map(|row| row.created).max();
    for (created, name, rejection) in expired {
        match newest {
            Some(newest) if created < newest => {
                report
                    .ignored
                    .push(SkippedFile { name, why: format!("{rejection}; a newer bundle was found") });
            }
            _ => errors.push(rejection.into()),
        }
    }
    report.errors = errors;
    Ok(report)
}

/// Reads the other volumes too if some are missing or truncated, so that the error names all
/// volumes to copy again.
fn name_all_damage(
    error: BundleError,
    inputs: &[PathBuf],
    keyring: &Keyring,
    progress: &dyn Progress,
) -> BundleError {
    let BundleError::Volumes { path, .. } = &error else { return error };
    progress.info(&format!("{} is incomplete; checking its other volumes …", path.display()));
    let there = Inputs::read(inputs).ok();
    there.and_then(|there| there.bad_volumes(path, keyring)).unwrap_or(error)
}

fn check(
    bundle: &VerifiedBundle,
    options: &VerifyOptions,
    keyring: &Keyring,
    progress: &dyn Progress,
) -> Result<ValidBundle, Error> {
    let now = clock::now();
    let candidate = candidate(bundle);
    let policy = Policy {
        stream: options.stream.as_ref().map_or_else(|| candidate.stream.clone(), |stream| stream.to_string()),
        allow_rollback: false,
        allow_future: options.allow_future,
        allow_expired: options.allow_expired,
    };
    admit(&candidate, &TargetState::default(), &policy, now)?;
    unpack_bundle(bundle, &mut Check::All, progress)?;
    let payload = bundle.payload();
    Ok(ValidBundle {
        path: bundle.path().into(),
        identity: bundle.identity(),
        signers: SignerInfo::of(bundle.signers(), keyring),
        stream: payload.stream.to_string(),
        created: payload.created,
        length: payload.length,
        members: payload.members.len(),
        datasets: payload.datasets.iter().map(Dataset::reference).collect(),
        images: payload.images.iter().map(|image| image.name.clone()).collect(),
        missing_items: payload.missing.clone(),
        checked_at: now,
    })
}

/// Compares every byte with the signed digests, without unpacking the content.
pub(crate) fn check_bytes(bundle: &VerifiedBundle, progress: &dyn Progress) -> Result<(), BundleError> {
    bundle.check(|member| {
        let step = progress.begin(&member.path, member.size, "");
        move |count| step.advance(count)
    })
}

/// Returns the properties of a bundle that the acceptance rules need.
pub(crate) fn candidate(bundle: &VerifiedBundle) -> BundleCandidate {
    let payload = bundle.payload();
    BundleCandidate {
        bundle: bundle.name(),
        identity: bundle.identity(),
        stream: payload.stream.to_string(),
        created: payload.created,
        expires: payload.expires,
        sequence: payload.sequence,
        missing_items: payload.missing.clone(),
    }
}
