//! The rules of an export for the date of a bundle and for the data that may be signed.
//!
//! These are pure functions of options, dates and the last export. They do no I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::bundle::Dataset;
use crate::collect::quorum::Quorum;
use crate::collect::validate::bad_content;
use crate::dataset::catalogue::WARN_AFTER;
use crate::dataset::examine::Examination;
use crate::error::Error;
use crate::export::options::ExportOptions;
use crate::progress::Progress;
use crate::trust::Rejection;
use crate::trust::acceptance::CLOCK_TOLERANCE;
use crate::trust::state::{DatasetSize, ExportState};
use crate::util::clock;
use crate::util::text::format_minute;

/// Returns the quorum that the options require.
pub(crate) fn quorum(options: &ExportOptions) -> Quorum<'_> {
    let wait = options.quorum_wait.map_or(std::time::Duration::ZERO, |age| age.duration().unsigned_abs());
    Quorum { wanted: options.quorum, mirrors: &options.sources.registry_mirror, wait }
}

/// Returns a warning if a database is old. VEX documents and checks stay valid for a long time.
pub(crate) fn age_warning(dataset: &Dataset, date: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let old =
        dataset.name.kind().is_large() && date.is_some_and(|date| now.duration_since(date) > WARN_AFTER);
    old.then(|| {
        format!("{} is already more than 7 days old; another source may have newer data", dataset.reference())
    })
}

/// Returns the date when a bundle expires, rounded up to seconds, so that it is always after its creation.
///
/// # Errors
/// If the date is after the year 9999.
pub(crate) fn expiry(created: Timestamp, age: crate::util::age::Age) -> Result<Timestamp, Error> {
    let age = age.duration();
    let seconds = age.as_secs() + i64::from(age.subsec_nanos() != 0);
    created.checked_add(jiff::SignedDuration::from_secs(seconds)).map_err(|_| {
        Error::usage(
            "the date of --expires is after the year 9999",
            "Give a shorter time, such as --expires 30d.",
        )
    })
}

/// `--allow-earlier-date` has an effect only if the last bundle is dated more than this time ahead
/// of this host's clock.
const EARLIER_FROM: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// The flag that dates a bundle by this host's clock even if the stream's last bundle is dated later.
const EARLIER_DATE: &str = "--allow-earlier-date";

/// Returns the date of the new bundle, and the override flag that it needed. The date is the current second,
/// or later if the stream's last bundle is dated later: importers reject two bundles with the same date.
///
/// # Errors
/// [`Rejection::LastExportAhead`] if the last bundle is dated more than 1 day ahead of this host's clock.
pub(crate) fn created(
    options: &ExportOptions,
    last: Option<&ExportState>,
    progress: &dyn Progress,
) -> Result<(Timestamp, Option<&'static str>), Error> {
    let now = clock::now_in_seconds();
    let Some(last) = last.filter(|last| last.created >= now) else { return Ok((now, None)) };
    let ahead = last.created.duration_since(now);
    // A date before the last one is used only if needed: importers may have accepted the last bundle.
    if options.allow_earlier_date && ahead > EARLIER_FROM {
        return Ok((now, Some(EARLIER_DATE)));
    }
    let next = last.created.checked_add(jiff::SignedDuration::from_secs(1)).ok();
    // Importers reject a bundle that is dated further ahead.
    let Some(next) = next.filter(|_| ahead < CLOCK_TOLERANCE) else {
        return Err(Rejection::LastExportAhead { last: last.created, now }.into());
    };
    if ahead > jiff::SignedDuration::from_secs(60) {
        progress.info(&format!(
            "this host's clock ({}) is behind the date of the stream's last export, so the bundle is dated {}",
            format_minute(now),
            format_minute(next)
        ));
    }
    Ok((next, None))
}

/// The result of examining a dataset.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Warnings for the operator.
    pub(crate) warnings: Vec<String>,
    /// The override flag that it needed to be signed.
    pub(crate) by_override: Option<String>,
}

/// Checks that a dataset has not shrunk since the stream's last bundle, and that Trivy can use it.
///
/// # Errors
/// If a table is missing; or if 1/3 of its bytes or entries is gone, a database is empty, or Trivy
/// cannot read 1/3 of the documents of a VEX repository, and the options do not accept that.
pub(crate) fn examine(
    options: &ExportOptions,
    dataset: &Dataset,
    found: &Examination,
    last: Option<&DatasetSize>,
) -> Result<Verdict, Error> {
    if let Some(why) = &found.lacks {
        return Err(bad_content(dataset, why));
    }
    let reference = dataset.reference();
    let warn = |what: &str| format!("{reference}: {what}");
    let mut warnings: Vec<String> = found.remarks.iter().map(|remark| warn(remark)).collect();
    let (lost, suspect) = shrunk(found, last);
    warnings.extend(lost.iter().map(|what| warn(what)));
    if let Some(max_age) = &options.max_age
        && max_age.covers(&dataset.name)
        && !dataset.name.kind().is_large()
        && dataset.contents.updated_at.is_none()
    {
        warnings.push(warn("it has no date, so --max-age cannot be applied"));
    }
    let mut refused = suspect;
    if dataset.name.kind().is_large() && found.entries == Some(0) {
        refused.push(format!("it holds no {}", found.unit));
    }
    let unreadable = found.vex.fault();
    let is_accepted = options.accept.contains(&dataset.name);
    match unreadable {
        Some(why) if found.vex.is_mostly_unusable() && !is_accepted => {
            let error = bad_content(dataset, &why);
            let hint = format!(
                "Tell its maintainer, or use a complete copy; to sign it anyway, give --accept {}.",
                dataset.name
            );
            return Err(Error::Restated { what: error.to_string(), hint, original: Box::new(error) });
        }
        Some(why) if found.vex.is_mostly_unusable() => refused.push(why),
        Some(why) => warnings.push(warn(&why)),
        None => {}
    }
    if refused.is_empty() {
        return Ok(Verdict { warnings, by_override: None });
    }
    let why = refused.join("; ");
    if is_accepted {
        warnings.push(warn(&format!("{why}; signed because of --accept")));
        return Ok(Verdict { warnings, by_override: Some(format!("--accept {}", dataset.name)) });
    }
    let (dataset, source_name) = (dataset.name.to_string(), dataset.source.clone());
    Err(Rejection::Suspect { dataset, source_name, why }.into())
}

/// Returns the losses since the last bundle, as warnings (from 1/10) and as reasons to reject the
/// dataset (from 1/3).
fn shrunk(found: &Examination, last: Option<&DatasetSize>) -> (Vec<String>, Vec<String>) {
    /// The size in bytes below which a single document makes too much of a difference.
    const FEW: u64 = 64 << 10;
    let Some(last) = last else { return Default::default() };
    let bytes = (last.bytes >= FEW).then_some((found.bytes, last.bytes, "bytes"));
    let entries = found.entries.zip(last.entries).map(|(now, before)| (now, before, found.unit));
    let (mut warnings, mut refused) = (Vec::new(), Vec::new());
    for (now, before, unit) in [bytes, entries].into_iter().flatten() {
        let lost = before.saturating_sub(now);
        let what = format!("it has {now} {unit}, but had {before} in the stream's last bundle that holds it");
        if lost > 0 && lost.saturating_mul(3) >= before {
            refused.push(what);
        } else if lost > 0 && lost.saturating_mul(10) >= before {
            warnings.push(what);
        }
    }
    (warnings, refused)
}

/// Checks the date of a dataset before it is signed.
///
/// # Errors
/// If it is older than the options allow or than data signed before, or if it is dated in the future.
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
        return Err(Rejection::AheadOfClock {
            dataset: dataset.name.to_string(),
            source_name: dataset.source.clone(),
            updated_at: date,
            now,
        }
        .into());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_one_tenth_is_a_warning_and_a_loss_of_one_third_a_rejection() {
        let last = DatasetSize { bytes: 900_000, entries: Some(90) };
        let judged = |bytes: u64, entries: Option<u64>, last: Option<&DatasetSize>| {
            let found = Examination { bytes, entries, unit: "buckets", ..Examination::default() };
            let (warnings, refused) = shrunk(&found, last);
            (warnings.len(), refused.len())
        };
        for (bytes, entries, wanted) in [
            (900_000, Some(90), (0, 0)),
            (2_000_000, Some(200), (0, 0)),
            (810_001, Some(82), (0, 0)),
            (810_000, Some(90), (1, 0)),
            (900_000, Some(81), (1, 0)),
            (700_000, Some(61), (2, 0)),
            (600_000, Some(90), (0, 1)),
            (900_000, Some(60), (0, 1)),
            (0, Some(0), (0, 2)),
            // Without a count of entries, only the bytes are compared.
            (500_000, None, (0, 1)),
        ] {
            assert_eq!(judged(bytes, entries, Some(&last)), wanted, "{bytes} {entries:?}");
        }
        assert_eq!(judged(0, Some(0), None), (0, 0), "nothing to compare with");
        let small = DatasetSize { bytes: 5000, entries: Some(3) };
        assert_eq!(judged(10, Some(3), Some(&small)), (0, 0), "bytes of a few documents");
        assert_eq!(judged(10, Some(2), Some(&small)), (0, 1));
        let before = DatasetSize { bytes: 1, entries: None };
        assert_eq!(judged(10, Some(0), Some(&before)), (0, 0), "an older state has no entries");
    }
}
