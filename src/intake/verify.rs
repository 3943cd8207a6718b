//! `verify`: everything that import would check, changing nothing.

use std::path::PathBuf;
use std::{fmt, io};

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::{BundleError, Dataset, VerifiedBundle};
use crate::cli::Outcome;
use crate::cli::args::Verify;
use crate::dataset::Discard;
use crate::digest::Digest;
use crate::error::Error;
use crate::intake::file_sets::Inputs;
use crate::intake::open::{self, Ignored};
use crate::intake::signer::Signer;
use crate::intake::unpack::{Receiver, unload};
use crate::progress::Progress;
use crate::trust::Refusal;
use crate::trust::acceptance::{Candidate, Policy, admit};
use crate::trust::keyring::Keyring;
use crate::trust::state::TargetState;
use crate::util::clock;
use crate::util::text::{age, line, size};

#[derive(Serialize)]
struct Report {
    bundles: Vec<Row>,
    ignored: Vec<Ignored>,
    warnings: Vec<String>,
    errors: Vec<serde_json::Value>,
}

#[derive(Serialize)]
struct Row {
    #[serde(serialize_with = "crate::util::text::path")]
    path: PathBuf,
    identity: Digest,
    signers: Vec<Signer>,
    stream: String,
    created: Timestamp,
    length: u64,
    members: usize,
    datasets: Vec<String>,
    images: Vec<String>,
    #[serde(skip)]
    age: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.bundles {
            let signers: Vec<String> = row.signers.iter().map(Signer::to_string).collect();
            writeln!(
                f,
                "{}   signed by {}, created {} ago",
                line(&row.path.display().to_string()),
                signers.join(" and "),
                row.age
            )?;
            writeln!(
                f,
                "  good: {} members, {}, content as signed: {}",
                row.members + 1,
                size(row.length),
                row.datasets.join(", ")
            )?;
            if !row.images.is_empty() {
                writeln!(f, "  images: {}", row.images.join(", "))?;
            }
            writeln!(f, "  payload {}", row.identity)?;
        }
        for ignored in &self.ignored {
            writeln!(f, "ignored: {}: {}", ignored.name, ignored.why)?;
        }
        Ok(())
    }
}

/// Unpacks everything and keeps nothing.
struct Checking;

impl Receiver for Checking {
    type Sink = Discard;

    fn wants(&self, _: &Dataset) -> bool {
        true
    }

    fn wants_images(&self) -> bool {
        true
    }

    fn sink(&mut self, _: &Dataset) -> Result<Discard, Error> {
        Ok(Discard)
    }

    fn failed(&self, _: &Dataset, error: io::Error) -> Error {
        Error::unexpected("checking")(error)
    }

    fn complete(&mut self, _: &Dataset, _: Discard) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn run(args: &Verify, progress: &dyn Progress) -> Result<Outcome, Error> {
    let keyring = Keyring::load(&args.keys.trust)?;
    let deep = |error| name_all_damage(error, &args.bundle, &keyring, progress);
    let mut found = match open::open(&args.bundle, &keyring, None) {
        Err(Error::Bundle(error)) => return Err(deep(error).into()),
        other => other?,
    };
    let single = found.bundles.len() == 1 && found.damaged.is_empty();
    let mut errors: Vec<Error> =
        std::mem::take(&mut found.damaged).into_iter().map(deep).map(Error::from).collect();
    let warnings = found.warnings;
    let mut report = Report { bundles: Vec::new(), ignored: found.ignored, warnings, errors: Vec::new() };
    let mut expired = Vec::new();
    for bundle in &found.bundles {
        match check(bundle, args, &keyring, progress) {
            Ok(row) => report.bundles.push(row),
            Err(error) if single => return Err(error),
            Err(Error::Refused(refusal @ Refusal::Expired { .. })) => {
                expired.push((bundle.payload().created, bundle.name(), refusal));
            }
            Err(error) => errors.push(error),
        }
    }
    // As import does: what is in use is newer.
    let newest = report.bundles.iter().map(|row| row.created).max();
    for (created, name, refusal) in expired {
        match newest {
            Some(newest) if created < newest => {
                report.ignored.push(Ignored { name, why: format!("{refusal}; a newer bundle is here") });
            }
            _ => errors.push(refusal.into()),
        }
    }
    report.errors = errors.iter().map(Error::to_json).collect();
    let outcome = Outcome::done(&report);
    Ok(Outcome { warnings: report.warnings, errors, ..outcome })
}

/// Where volumes are missing or cut off, whoever has to copy them wants to know at once which others to copy
/// again.
fn name_all_damage(
    error: BundleError,
    inputs: &[PathBuf],
    keyring: &Keyring,
    progress: &dyn Progress,
) -> BundleError {
    let BundleError::Volumes { path, .. } = &error else { return error };
    progress.note("The bundle is not whole; reading its other volumes …");
    let there = Inputs::read(inputs).ok();
    there.and_then(|there| there.bad_volumes(path, keyring)).unwrap_or(error)
}

fn check(
    bundle: &VerifiedBundle,
    args: &Verify,
    keyring: &Keyring,
    progress: &dyn Progress,
) -> Result<Row, Error> {
    let now = clock::now();
    let candidate = candidate(bundle);
    let policy = Policy {
        stream: args.stream.as_ref().map_or_else(|| candidate.stream.clone(), |stream| stream.to_string()),
        allow_rollback: false,
        allow_future: args.overrides.allow_future,
        allow_expired: args.overrides.allow_expired,
    };
    admit(&candidate, &TargetState::default(), &policy, now)?;
    unload(bundle, &mut Checking, progress)?;
    let payload = bundle.payload();
    Ok(Row {
        path: bundle.path().into(),
        identity: bundle.identity(),
        signers: Signer::of(bundle.signers(), keyring),
        stream: payload.stream.to_string(),
        created: payload.created,
        length: payload.length,
        members: payload.members.len(),
        datasets: payload.datasets.iter().map(Dataset::reference).collect(),
        images: payload.images.iter().map(|image| image.name.clone()).collect(),
        age: age(payload.created, now),
    })
}

/// Compares every byte with what was signed, and looks at no content.
pub(crate) fn check_bytes(bundle: &VerifiedBundle, progress: &dyn Progress) -> Result<(), BundleError> {
    bundle.check(|member| {
        let step = progress.begin(&member.path, member.size, "");
        move |count| step.advance(count)
    })
}

/// What a bundle says of itself, for the rules of acceptance.
pub(crate) fn candidate(bundle: &VerifiedBundle) -> Candidate {
    let payload = bundle.payload();
    Candidate {
        bundle: bundle.name(),
        identity: bundle.identity(),
        stream: payload.stream.to_string(),
        created: payload.created,
        expires: payload.expires,
        sequence: payload.sequence,
    }
}
