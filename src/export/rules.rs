//! The rules of an export: how a bundle is dated, and what may be signed.
//!
//! Pure functions of options, dates and the last export.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::bundle::Dataset;
use crate::collect::quorum::Quorum;
use crate::collect::validate::bad_content;
use crate::dataset::catalogue::WARN_AFTER;
use crate::error::Error;
use crate::export::options::ExportOptions;
use crate::progress::Progress;
use crate::trust::Rejection;
use crate::trust::acceptance::CLOCK_TOLERANCE;
use crate::trust::state::ExportState;
use crate::util::clock;
use crate::util::text::{format_distinct, format_minute};

/// How many registries of different origin must name the same manifest.
pub(crate) fn quorum(options: &ExportOptions) -> Quorum<'_> {
    let wait = options.quorum_wait.map_or(std::time::Duration::ZERO, |age| age.duration().unsigned_abs());
    Quorum { wanted: options.quorum, mirrors: &options.sources.registry_mirror, wait }
}

/// What is worth a warning: VEX documents and checks stay true for long, and databases do not.
pub(crate) fn age_warning(dataset: &Dataset, date: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let old =
        dataset.name.kind().is_large() && date.is_some_and(|date| now.duration_since(date) > WARN_AFTER);
    old.then(|| {
        format!(
            "{} is more than 7 days old already: another source may have a newer one",
            dataset.reference()
        )
    })
}

/// Returns when a bundle expires, in whole seconds, and never at its creation.
///
/// # Errors
/// If that is beyond the year 9999.
pub(crate) fn expiry(created: Timestamp, age: crate::util::age::Age) -> Result<Timestamp, Error> {
    let age = age.duration();
    let seconds = age.as_secs() + i64::from(age.subsec_nanos() != 0);
    created.checked_add(jiff::SignedDuration::from_secs(seconds)).map_err(|_| {
        Error::usage(
            "--expires names a time beyond the year 9999",
            "Give a shorter time, such as --expires 30d.",
        )
    })
}

/// Now, in whole seconds, and always after the stream's last bundle: importers refuse two of one
/// moment.
///
/// # Errors
/// If the last bundle is dated more than a day ahead of this host's clock.
pub(crate) fn created(last: Option<&ExportState>, progress: &dyn Progress) -> Result<Timestamp, Error> {
    let now = clock::now_in_seconds();
    let Some(last) = last.filter(|last| last.created >= now) else { return Ok(now) };
    let ahead = last.created.duration_since(now);
    let hint = last.created.checked_add(jiff::SignedDuration::from_secs(1)).ok();
    // No importer takes a bundle from beyond the tolerance: that trip would be wasted.
    let Some(hint) = hint.filter(|_| ahead < CLOCK_TOLERANCE) else {
        return Err(Error::usage(
            format!(
                "the stream's last export is dated {}, and this host's clock says {}",
                format_minute(last.created),
                format_minute(now)
            ),
            "Correct the clock; if it was wrong back then, export with a new --stream, which importers must be told.",
        ));
    };
    if ahead > jiff::SignedDuration::from_secs(60) {
        progress.info(&format!(
            "this host's clock ({}) is behind the stream's last export; the bundle is dated {}",
            format_minute(now),
            format_minute(hint)
        ));
    }
    Ok(hint)
}

/// What must hold for a dataset before it is signed.
///
/// # Errors
/// If it is older than the options allow or than what was signed before, or dated in the future.
pub(crate) fn judge(
    options: &ExportOptions,
    dataset: &Dataset,
    updated_at: Option<Timestamp>,
    floors: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Result<(), Error> {
    if let Some(max_age) = &options.max_age {
        max_age.check(&dataset.name, updated_at, now)?;
    }
    if let Some(date) = updated_at.filter(|date| *date > now) {
        let (date, now) = format_distinct(date, now);
        return Err(bad_content(dataset, &format!("it is dated {date}, and this host's clock says {now}")));
    }
    match (updated_at, floors.get(&dataset.reference())) {
        (Some(date), Some(floor)) if date < *floor => Err(Rejection::OlderThanSigned {
            dataset: dataset.name.to_string(),
            source_name: dataset.source.clone(),
            updated_at: date,
            floor: *floor,
        }
        .into()),
        _ => Ok(()),
    }
}
