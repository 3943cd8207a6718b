//! Admission: uses the options, the ledger and the clock to decide which bundles a target accepts.

use crate::bundle::VerifiedBundle;
use crate::delivery::admitted::AdmittedBundle;
use crate::delivery::context::DeliveryContext;
use crate::delivery::ledger::TargetLedger;
use crate::delivery::report::{NEWER_BUNDLE, TargetReport};
use crate::error::Error;
use crate::intake::skipped::SkippedFile;
use crate::intake::verify::candidate;
use crate::trust::Rejection;
use crate::trust::acceptance::{Admission, admit, present, record};
use crate::trust::state::TargetState;

/// Decides on every bundle for one target, and adds the bundles to the report.
pub(crate) fn admit_all(
    bundles: &[VerifiedBundle],
    state: &TargetState,
    context: &DeliveryContext,
    report: &mut TargetReport,
) -> Vec<Option<Admission>> {
    let DeliveryContext { host, keyring, policy, .. } = context;
    let mut admitted = Vec::new();
    let several = bundles.iter().any(|bundle| bundle.payload().stream.as_str() == policy.stream);
    // Each bundle is judged as if the ones created before it had been imported already.
    let before = state;
    let mut state = state.clone();
    let mut rejected = Vec::new();
    for bundle in bundles {
        let candidate = candidate(bundle);
        match admit(&candidate, &state, policy, host.now) {
            Ok(mut admission) => {
                // A second copy in the directory does not count as accepted by an earlier import.
                admission.seen = before.seen.contains(&candidate.identity);
                record(&mut state, &candidate, &admission, [], host.now);
                report.bundles.push(AdmittedBundle::new(bundle, &admission, keyring, host.now));
                admitted.push(Some(admission));
            }
            // A medium may carry bundles of other streams for other hosts.
            Err(rejection @ Rejection::Stream { .. }) if several => {
                report.ignored.push(SkippedFile { name: bundle.name(), why: rejection.to_string() });
                admitted.push(None);
            }
            Err(rejection) => {
                rejected.push((bundle, rejection));
                admitted.push(None);
            }
        }
    }
    report.warn_of_missing();
    let good = bundles.iter().zip(&admitted).filter(|(_, admission)| admission.is_some());
    let newest = good.map(|(bundle, _)| bundle.payload().created).max();
    for (bundle, rejection) in rejected {
        // An old bundle may stay on the medium if a newer one was accepted.
        let surpassed = newest.is_some_and(|newest| bundle.payload().created < newest);
        match rejection {
            Rejection::Rollback { .. } | Rejection::Expired { .. } if surpassed => {
                let why = format!("{rejection}; a newer bundle was found");
                report.ignored.push(SkippedFile { name: bundle.name(), why });
            }
            rejection => {
                let source = AdmittedBundle::new(bundle, &Admission::default(), keyring, host.now);
                report.rejected.push((source, rejection.to_string()));
                report.errors.push(rejection.into());
            }
        }
    }
    admitted
}

/// Ends an import into a target: saves the ledger and warns of old data.
pub(crate) fn conclude(ledger: TargetLedger<'_>, context: &DeliveryContext, report: &mut TargetReport) {
    watch_expiry(ledger.state(), context, report);
    if let Err(error) = ledger.finish(report.has_changed()) {
        report.errors.push(error);
    }
    report.warn_of_old(context.host.now, NEWER_BUNDLE);
}

/// Reports an error if installed data has expired and no newer bundle was accepted.
pub(crate) fn watch_expiry(state: &TargetState, context: &DeliveryContext, report: &mut TargetReport) {
    let last = state.last.as_ref().and_then(|last| last.expires);
    let expires = state.expires.values().copied().chain(last).min();
    if let Some(expires) = expires.filter(|expires| *expires <= present(context.host.now, state))
        && !context.policy.allow_expired
    {
        let already =
            report.errors.iter().any(|error| matches!(error, Error::Rejected(Rejection::Expired { .. })));
        if !already {
            report
                .errors
                .push(Rejection::InstalledExpired { stream: context.policy.stream.clone(), expires }.into());
        }
    }
}
