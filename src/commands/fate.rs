//! The fate of one dataset at one target: taken, or left out and why. The same rules for every
//! kind of target; what there is at the target was looked up before.

use jiff::Timestamp;

use super::import::Setup;
use super::import_report::{Report, Row, Status};
use crate::error::Error;
use crate::text::moments;
use crate::trust::Refusal;
use crate::trust::acceptance::{CLOCK_TOLERANCE, Verdict, judge, present};
use crate::trust::state::TargetState;

/// What decides about a dataset.
pub(super) struct Judged {
    /// How it is to appear in the report, with the date of what the target has.
    pub(super) row: Row,
    /// By which the floor is judged.
    pub(super) date: Option<Timestamp>,
    /// The date of what the target has, where that must not be gone behind.
    pub(super) floor: Option<Timestamp>,
    /// The target has nothing in its place.
    pub(super) vacant: bool,
    /// Its bundle came after newer ones: that most of it is older is no news.
    pub(super) late: bool,
    /// What did not happen where it is too old: `left alone`, `not pushed`.
    pub(super) otherwise: &'static str,
}

/// How a dataset is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// It was accepted here before.
    pub(super) known: bool,
    /// It is older than what was there, and taken all the same.
    pub(super) rollback: bool,
}

/// Judges a dataset, and reports it. `None`: it is left out. `same` says whether the target holds it
/// already, which may take a while to find out.
///
/// # Errors
/// Those of `same`.
pub(super) fn decide(
    setup: &Setup,
    state: &TargetState,
    judged: Judged,
    same: impl FnOnce() -> Result<bool, Error>,
    report: &mut Report,
) -> Result<Option<Taken>, Error> {
    let now = setup.host.now;
    let Judged { mut row, date, floor, vacant, late, otherwise } = judged;
    let Some(dataset) = row.dataset.clone() else { return Ok(None) };
    let mut leave = |mut row: Row, status: Status| {
        row.status = status;
        report.rows.push(row);
        Ok(None)
    };
    let max_age = setup.max_age.as_ref();
    let age =
        |age: &super::age::MaxAge| age.check(&dataset.name, dataset.contents.updated_at, present(now, state));
    if let Some(Err(refusal)) = max_age.map(age) {
        report.errors.push(refusal.into());
        return leave(row, Status::Refused);
    }
    if same()? {
        return leave(row, Status::Unchanged);
    }
    let floor = state.floors.get(&dataset.reference()).copied().max(believable(floor, now));
    let verdict = judge(date, floor);
    if let Verdict::Older { floor } = verdict
        && !setup.policy.allow_rollback
    {
        if let (true, Some(date)) = (vacant, date) {
            let refusal = Refusal::MissingAndOlder { dataset: dataset.reference(), date, floor };
            report.errors.push(refusal.into());
            return leave(row, Status::Refused);
        }
        if !late {
            let date = date.unwrap_or(floor);
            report.warnings.push(left_out(&dataset.reference(), otherwise, date, floor));
        }
        row.was = Some(floor);
        return leave(row, Status::Older);
    }
    report.rows.push(row);
    let known = state.floors.contains_key(&dataset.reference());
    Ok(Some(Taken { known, rollback: verdict != Verdict::Take }))
}

/// The date of what a target holds, as a floor. A date from the future in a target that others write
/// must not lock out true data.
pub(super) fn believable(was: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    was.filter(|date| date.duration_since(now) <= CLOCK_TOLERANCE)
}

/// What is said of data that is older than what a target holds.
pub(super) fn left_out(dataset: &str, otherwise: &str, date: Timestamp, floor: Timestamp) -> String {
    let (date, floor) = moments(date, floor);
    format!(
        "{dataset} of {date} was {otherwise}, because {floor} was there already; --allow-rollback takes the older one, and newer vulnerabilities go unseen"
    )
}
