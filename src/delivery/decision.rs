//! The decision on one dataset at one target: accepted, or rejected and why. The same rules for every
//! kind of target; what there is at the target was looked up before.

use jiff::Timestamp;

use crate::bundle::Dataset;
use crate::delivery::context::DeliveryContext;
use crate::delivery::report::{DatasetResult, DeliveryStatus, TargetReport};
use crate::error::Error;
use crate::trust::Rejection;
use crate::trust::acceptance::{DatasetDecision, believable, judge, present};
use crate::trust::state::TargetState;
use crate::util::text::{escape, format_distinct, format_minute};

/// What decides about a dataset.
pub(crate) struct DecisionInput<'d> {
    pub(crate) dataset: &'d Dataset,
    /// The name that the scanner here has for a VEX repository in a cache.
    pub(crate) repository: Option<String>,
    /// How it is to appear in the report, with the date of what the target has.
    pub(crate) row: DatasetResult,
    /// The date that is compared with the floor.
    pub(crate) date: Option<Timestamp>,
    /// The date of what the target has, where that must not be gone behind.
    pub(crate) floor: Option<Timestamp>,
    /// The target has nothing in its place.
    pub(crate) vacant: bool,
    /// Its bundle came after newer ones: that most of it is older is no news.
    pub(crate) late: bool,
    /// What did not happen where it is too old: `left alone`, `not pushed`.
    pub(crate) otherwise: &'static str,
    /// Upstream's version of what the target has. It decides about checks, which have no date, if
    /// nothing is remembered of them.
    pub(crate) version: Option<String>,
}

/// How a dataset is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AcceptedDataset {
    /// It was accepted here before.
    pub(crate) known: bool,
    /// It is older than what was there, and taken all the same.
    pub(crate) rollback: bool,
}

/// Judges a dataset, and reports it. `None`: it is left out. `same` says whether the target holds it
/// already, which may take a while to find out.
///
/// # Errors
/// Those of `same`.
pub(crate) fn decide(
    context: &DeliveryContext,
    state: &TargetState,
    input: DecisionInput<'_>,
    same: impl FnOnce() -> Result<bool, Error>,
    report: &mut TargetReport,
) -> Result<Option<AcceptedDataset>, Error> {
    let now = context.host.now;
    let DecisionInput { dataset, repository, mut row, date, floor, vacant, late, otherwise, version } = input;
    let mut skip = |mut row: DatasetResult, status: DeliveryStatus| {
        row.status = status;
        report.datasets.push(row);
        Ok(None)
    };
    let max_age = context.max_age.as_ref();
    let age = |age: &crate::trust::max_age::MaxAge| {
        age.check(&dataset.name, dataset.contents.updated_at, present(now, state))
    };
    if let Some(Err(rejection)) = max_age.map(age) {
        report.errors.push(rejection.into());
        return skip(row, DeliveryStatus::Rejected);
    }
    if same()? {
        report.installed.add(dataset, repository);
        row.status = DeliveryStatus::Unchanged;
        report.datasets.push(row);
        return Ok(None);
    }
    let remembered = state.floors.get(&dataset.reference()).copied();
    // What a stolen key may have put there is no floor.
    let (floor, version) = if state.floors_reset.is_some() { (None, None) } else { (floor, version) };
    let believed = believable(floor, now);
    if let (Some(ahead), None) = (floor, believed) {
        report.warnings.push(future_date_warning(&dataset.reference(), ahead));
    }
    let newer = version.filter(|_| remembered.is_none() && dataset.contents.updated_at.is_none());
    let newer = newer.filter(|have| is_newer(have, dataset.version.as_deref()));
    if let Some(have) = newer.filter(|_| !context.policy.allow_rollback) {
        let candidate = dataset.version.as_deref().unwrap_or_default();
        report.warnings.push(format!(
            "{} {} was {otherwise}, because version {} was there already; --allow-rollback takes the older one",
            dataset.reference(),
            escape(candidate),
            escape(&have)
        ));
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
            let date = date.unwrap_or(floor);
            report.warnings.push(older_data_warning(&dataset.reference(), otherwise, date, floor));
        }
        row.was = Some(floor);
        return skip(row, DeliveryStatus::Older);
    }
    report.datasets.push(row);
    let known = state.floors.contains_key(&dataset.reference());
    Ok(Some(AcceptedDataset { known, rollback: verdict != DatasetDecision::Accept }))
}

/// What is said of a date at a target that is ahead of this host's clock.
pub(crate) fn future_date_warning(dataset: &str, date: Timestamp) -> String {
    format!(
        "the date of {dataset} at the target, {}, is more than 24 h ahead of this host's clock and was ignored",
        format_minute(date)
    )
}

/// Whether a version is higher than another. Versions that are not numbers with dots compare as nothing.
fn is_newer(have: &str, candidate: Option<&str>) -> bool {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        let version = version.strip_prefix('v').unwrap_or(version);
        version.split('.').map(|number| number.parse().ok()).collect()
    };
    numbers(have).zip(candidate.and_then(numbers)).is_some_and(|(have, candidate)| have > candidate)
}

/// What is said of data that is older than what a target holds.
pub(crate) fn older_data_warning(
    dataset: &str,
    otherwise: &str,
    date: Timestamp,
    floor: Timestamp,
) -> String {
    let (date, floor) = format_distinct(date, floor);
    format!(
        "{dataset} of {date} was {otherwise}, because {floor} was there already; --allow-rollback takes the older one, and newer vulnerabilities go unseen"
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
