//! Runs `verify`, `inspect`, `repair` and `sign`.

use crate::bundle::{REPAIR_ADVICE, VERIFY_ADVICE};
use crate::cli::args::{InspectArgs, RepairArgs, SignArgs, VerifyArgs};
use crate::cli::{CommandOutcome, prompt};
use crate::error::Error;
use crate::hint::Hint;
use crate::intake;
use crate::intake::verify::VerifyOptions;
use crate::progress::Progress;
use crate::trust::keyring::Keyring;

pub(crate) fn verify(args: &VerifyArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let options = VerifyOptions {
        inputs: args.bundle.clone(),
        trust: args.keys.trust.clone(),
        min_signers: args.signers.min_signers,
        stream: args.stream.clone(),
        allow_future: args.overrides.allow_future,
        allow_expired: args.overrides.allow_expired,
    };
    let verified = intake::verify::verify(&options, progress);
    let mut report = verified.map_err(|error| without_advice(error, &VERIFY_ADVICE))?;
    report.errors = report.errors.into_iter().map(|error| without_advice(error, &VERIFY_ADVICE)).collect();
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { warnings: report.warnings, errors: report.errors, ..outcome })
}

pub(crate) fn inspect(args: &InspectArgs) -> Result<CommandOutcome, Error> {
    Ok(CommandOutcome::done(&intake::inspect::inspect(&args.bundle, &args.keys.trust)?))
}

pub(crate) fn repair(args: &RepairArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let repaired = intake::repair::repair(&args.bundle, &args.keys.trust, progress);
    let mut report = repaired.map_err(|error| without_advice(error, &REPAIR_ADVICE))?;
    report.errors = report.errors.into_iter().map(|error| without_advice(error, &REPAIR_ADVICE)).collect();
    let outcome = CommandOutcome::done(&report);
    Ok(CommandOutcome { errors: report.errors, ..outcome })
}

/// Removes the advice to run the current command from the hint of an error.
fn without_advice(error: Error, advice: &[&str]) -> Error {
    let hint = error.hint();
    let said = advice.iter().filter(|advice| hint.contains(**advice));
    said.fold(error, |error, advice| error.restated(advice, ""))
}

pub(crate) fn sign(args: &SignArgs, progress: &dyn Progress) -> Result<CommandOutcome, Error> {
    let keyring = Keyring::load(&args.keys.trust)?;
    let signer = prompt::signer(&args.signing)?;
    Ok(CommandOutcome::done(&intake::sign::sign(&args.bundle, &keyring, &*signer, progress)?))
}
