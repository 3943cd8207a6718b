//! Admission: which bundles a target accepts, as far as the command line, the memory and the clock
//! decide.

use crate::bundle::VerifiedBundle;
use crate::delivery::admitted::Source;
use crate::delivery::context::Setup;
use crate::delivery::ledger::TargetLedger;
use crate::delivery::report::{NEWER_BUNDLE, Report};
use crate::error::Error;
use crate::intake::open::Ignored;
use crate::intake::verify::candidate;
use crate::trust::Refusal;
use crate::trust::acceptance::{Admission, admit, present, record};
use crate::trust::state::TargetState;

/// Judges every bundle for one target; what is refused stands in the report.
pub(crate) fn admit_all(
    bundles: &[VerifiedBundle],
    memory: &TargetState,
    setup: &Setup,
    report: &mut Report,
) -> Vec<Option<Admission>> {
    let Setup { host, keyring, policy, .. } = setup;
    let mut admitted = Vec::new();
    let several = bundles.iter().any(|bundle| bundle.payload().stream.as_str() == policy.stream);
    // Bundles of one folder are judged in the order of their creation, each after the one before.
    let before = memory;
    let mut memory = memory.clone();
    let mut refused = Vec::new();
    for bundle in bundles {
        let candidate = candidate(bundle);
        match admit(&candidate, &memory, policy, host.now) {
            Ok(mut admission) => {
                // A second copy in the folder is not what earlier imports accepted.
                admission.seen = before.seen.contains(&candidate.identity);
                record(&mut memory, &candidate, &admission, [], host.now);
                report.bundles.push(Source::new(bundle, &admission, keyring, host.now));
                admitted.push(Some(admission));
            }
            // Another stream's bundle on the same medium is somebody else's.
            Err(refusal @ Refusal::Stream { .. }) if several => {
                report.ignored.push(Ignored { name: bundle.name(), why: refusal.to_string() });
                admitted.push(None);
            }
            Err(refusal) => {
                refused.push((bundle, refusal));
                admitted.push(None);
            }
        }
    }
    let good = bundles.iter().zip(&admitted).filter(|(_, admission)| admission.is_some());
    let newest = good.map(|(bundle, _)| bundle.payload().created).max();
    for (bundle, refusal) in refused {
        // Last month's bundle may stay on the stick: what is in use is newer.
        let surpassed = newest.is_some_and(|newest| bundle.payload().created < newest);
        match refusal {
            Refusal::Rollback { .. } | Refusal::Expired { .. } if surpassed => {
                let why = format!("{refusal}; a newer bundle is here");
                report.ignored.push(Ignored { name: bundle.name(), why });
            }
            refusal => {
                let source = Source::new(bundle, &Admission::default(), keyring, host.now);
                report.refused.push((source, refusal.to_string()));
                report.errors.push(refusal.into());
            }
        }
    }
    admitted
}

/// The end of an import into a target: what is remembered of it, and what is too old in it.
pub(crate) fn conclude(ledger: TargetLedger<'_>, setup: &Setup, report: &mut Report) {
    watch_expiry(ledger.state(), setup, report);
    if let Err(error) = ledger.finish(report.has_changed()) {
        report.errors.push(error);
    }
    report.warn_of_old(setup.host.now, NEWER_BUNDLE);
}

/// What is installed may have passed its exporter's date while nothing newer came.
pub(crate) fn watch_expiry(memory: &TargetState, setup: &Setup, report: &mut Report) {
    let last = memory.last.as_ref().and_then(|last| last.expires);
    let expires = memory.expires.values().copied().chain(last).min();
    if let Some(expires) = expires.filter(|expires| *expires <= present(setup.host.now, memory))
        && !setup.policy.allow_expired
    {
        let already =
            report.errors.iter().any(|error| matches!(error, Error::Refused(Refusal::Expired { .. })));
        if !already {
            report
                .errors
                .push(Refusal::InstalledExpired { stream: setup.policy.stream.clone(), expires }.into());
        }
    }
}
