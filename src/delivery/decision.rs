//! The decision on one dataset at one target: accepted, or rejected with a reason.
//!
//! The rules are the same for every kind of target. The caller looks up the data of the target.

use jiff::Timestamp;

use crate::bundle::Dataset;
use crate::delivery::context::DeliveryContext;
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport};
use crate::error::Error;
use crate::trust::Rejection;
use crate::trust::acceptance::{DatasetDecision, believable, judge, present};
use crate::trust::state::TargetState;
use crate::util::text::{escape, format_distinct, format_minute};

/// The facts on which the decision on a dataset depends.
pub(crate) struct DecisionInput<'d> {
    pub(crate) dataset: &'d Dataset,
    /// The scanner's name for a VEX repository in a cache.
    pub(crate) repository: Option<String>,
    /// The row of the report, with the date of the target's data.
    pub(crate) row: DatasetResult,
    /// The date that is compared with the floor.
    pub(crate) date: Option<Timestamp>,
    /// The date of the target's data, if older data must not replace it.
    pub(crate) floor: Option<Timestamp>,
    /// Whether the target has no such dataset.
    pub(crate) vacant: bool,
    /// Whether a newer bundle was accepted before this one. If so, older data in it needs no warning.
    pub(crate) late: bool,
    /// The words for a dataset that is too old: `skipped`, `not pushed`.
    pub(crate) otherwise: &'static str,
    /// Upstream's version of the target's data. Checks have no date and are compared by version if
    /// the ledger has no floor for them or another program put them there.
    pub(crate) version: Option<String>,
    /// Whether the target has data that no known import of this host put there.
    pub(crate) foreign: bool,
}

/// The acceptance of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptedDataset {
    /// Whether the dataset was accepted here before.
    pub(crate) known: bool,
    /// Whether it is older than the target's data and was accepted with an override.
    pub(crate) rollback: bool,
}

/// Decides on a dataset and adds it to the report. Returns `None` if the dataset is not to be installed. `same`
/// returns whether the target already has the dataset. It is called only if needed, because it may
/// be slow.
///
/// # Errors
/// If `same` cannot read the target.
pub(crate) fn decide(
    context: &DeliveryContext,
    state: &TargetState,
    input: DecisionInput<'_>,
    same: impl FnOnce() -> Result<bool, Error>,
    report: &mut TargetReport,
) -> Result<Option<AcceptedDataset>, Error> {
    let now = context.host.now;
    let DecisionInput {
        dataset,
        repository,
        mut row,
        date,
        floor,
        vacant,
        late,
        otherwise,
        version,
        foreign,
    } = input;
    let mut skip = |mut row: DatasetResult, status: DeliveryStatus| {
        log::debug!("{}: {status:?} (candidate {date:?}, floor {floor:?})", dataset.reference());
        row.status = status;
        report.datasets.push(row);
        Ok(None)
    };
    let (max_age, date_now) = (context.max_age.as_ref(), present(now, state));
    let judged = max_age.map(|age| age.check(&dataset.name, dataset.contents.updated_at, date_now));
    if let Some(Err(rejection)) = judged {
        report.errors.push(rejection.into());
        return skip(row, DeliveryStatus::Rejected);
    }
    if same()? {
        report.installed.add(dataset, repository, row.extra_tags.clone());
        return skip(row, DeliveryStatus::Unchanged);
    }
    let remembered = state.floors.get(&dataset.reference()).copied();
    // After a reset of the floors, the target's data may be from a bundle that was signed with a
    // stolen key. It does not count as a floor then.
    let is_floor = state.floors_reset.is_none();
    let (floor, by_version) = (floor.filter(|_| is_floor), is_floor && (remembered.is_none() || foreign));
    let believed = believable(floor, now);
    if let (Some(ahead), None) = (floor, believed) {
        report.warnings.push(future_date_warning(&dataset.reference(), ahead));
    }
    let have = version.filter(|_| by_version);
    if let Some(warning) = have.and_then(|have| older_version(dataset, &have, otherwise, context)) {
        report.warnings.push(warning);
        return skip(row, DeliveryStatus::Older);
    }
    let floor = remembered.max(believed);
    let verdict = judge(date, floor);
    if let DatasetDecision::Older { floor } = verdict
        && !context.policy.allow_rollback
    {
        if let (true, Some(date)) = (vacant, date) {
            let rejection = Rejection::MissingAndOlder { dataset: dataset.reference(), date, floor };
            report.errors.push(rejection.into());
            return skip(row, DeliveryStatus::Rejected);
        }
        if !late {
            let warning = older_data_warning(&dataset.reference(), otherwise, date.unwrap_or(floor), floor);
            report.warnings.push(warning);
        }
        row.was = Some(floor);
        return skip(row, DeliveryStatus::Older);
    }
    report.datasets.push(row);
    Ok(Some(AcceptedDataset { known: remembered.is_some(), rollback: verdict != DatasetDecision::Accept }))
}

/// Returns the warning for checks that are older than the target's version `have`. Returns `None` if they are not
/// older, or if a rollback is allowed.
fn older_version(
    dataset: &Dataset,
    have: &str,
    otherwise: &str,
    context: &DeliveryContext,
) -> Option<String> {
    let candidate = dataset.version.as_deref();
    let is_older = dataset.contents.updated_at.is_none() && is_newer(have, candidate);
    (is_older && !context.policy.allow_rollback).then(|| {
        format!(
            "{} {} was {otherwise}, because the target has version {}; --allow-rollback accepts the older one",
            dataset.reference(),
            escape(candidate.unwrap_or_default()),
            escape(have)
        )
    })
}

/// Returns the warning for a date at a target that is ahead of this host's clock.
pub(crate) fn future_date_warning(dataset: &str, date: Timestamp) -> String {
    format!(
        "the date of {dataset} at the target, {}, is more than 24 h ahead of this host's clock and was ignored",
        format_minute(date)
    )
}

/// Whether the version `have` is higher than `candidate`. Returns `false` if one of them is not made of numbers
/// and dots.
fn is_newer(have: &str, candidate: Option<&str>) -> bool {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        let version = version.strip_prefix('v').unwrap_or(version);
        version.split('.').map(|number| number.parse().ok()).collect()
    };
    numbers(have).zip(candidate.and_then(numbers)).is_some_and(|(have, candidate)| have > candidate)
}

/// Returns the warning for data that is older than the target's.
pub(crate) fn older_data_warning(
    dataset: &str,
    otherwise: &str,
    date: Timestamp,
    floor: Timestamp,
) -> String {
    let (date, floor) = format_distinct(date, floor);
    format!(
        "{dataset} of {date} was {otherwise}, because the target has data of {floor}; --allow-rollback accepts the older data, but scans then miss newer vulnerabilities"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_newer("2.10.0", Some("2.9.1")));
        assert!(is_newer("v2.1.0", Some("2.0.9")));
        for (have, candidate) in
            [("2.1.0", Some("2.1.0")), ("2.1.0", None), ("latest", Some("1")), ("1", Some("main"))]
        {
            assert!(!is_newer(have, candidate), "{have} {candidate:?}");
        }
    }
}
