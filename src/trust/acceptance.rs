//! Acceptance: decides whether a bundle with a valid signature may be used here and now.
//!
//! The rules depend on the bundle's claims, the state of earlier imports and the time, but not on files, targets or
//! networks. A signature proves who made a bundle. These rules reject a replayed old bundle, one of two bundles with
//! the same creation time, a bundle of another stream, and an expired bundle.

use jiff::{SignedDuration, Timestamp};

use crate::dataset::MissingItem;
use crate::digest::Digest;
use crate::trust::error::Rejection;
use crate::trust::state::{Accepted, ImportState, ReceivedHeartbeat, TargetState};

/// The time by which a bundle's creation time may be ahead of this host's clock.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// The claims of a bundle that acceptance depends on.
#[derive(Debug, Clone)]
pub struct BundleCandidate {
    /// The file name, for messages.
    pub bundle: String,
    /// The sha256 of the signed payload.
    pub identity: Digest,
    /// The stream that it belongs to.
    pub stream: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires, if its exporter set a date.
    pub expires: Option<Timestamp>,
    /// Its number in the stream, if its exporter counts bundles.
    pub sequence: Option<u64>,
    /// The requested items that its exporter could not get.
    pub missing_items: Vec<MissingItem>,
}

/// The rules by which this import accepts bundles.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The one stream that is accepted.
    pub stream: String,
    /// Admits a bundle older than the last one, and lowers the floors to it.
    pub allow_rollback: bool,
    /// Admits a bundle that is dated in the future, without raising the floors to it.
    pub allow_future: bool,
    /// Admits an expired bundle.
    pub allow_expired: bool,
}

/// The admission of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// Whether it is the first bundle of this stream that this target accepts.
    pub first: bool,
    /// Whether this bundle was accepted before.
    pub seen: bool,
    /// Whether it is a late bundle that fills a known gap. That is no error, and only datasets that no newer bundle
    /// contained are imported from it.
    pub superseded: bool,
    /// The first and the last number of the bundles that were never received.
    pub gap: Option<(u64, u64)>,
    /// The number of the last bundle, if this newer bundle has a lower one: its exporter lost or restored its state,
    /// or two exporters use the stream.
    pub number_before: Option<u64>,
    /// The flags without which it would have been rejected.
    pub overrides: Vec<&'static str>,
}

impl Admission {
    /// Records that older data replaced newer data because of `--allow-rollback`.
    pub fn rolls_back(&mut self) {
        self.overrides_by(ROLLBACK);
    }

    /// Records that an image replaced a tag that trivy-ferry did not set, because of `--replace-image-tags`.
    pub fn replaces_tags(&mut self) {
        self.overrides_by(REPLACE_TAGS);
    }

    fn overrides_by(&mut self, flag: &'static str) {
        if !self.by_override(flag) {
            self.overrides.push(flag);
        }
    }

    fn by_override(&self, flag: &str) -> bool {
        self.overrides.contains(&flag)
    }
}

const ROLLBACK: &str = "--allow-rollback";
const FUTURE: &str = "--allow-future";
const EXPIRED: &str = "--allow-expired";
/// The flag that replaces image tags that trivy-ferry did not set.
pub const REPLACE_TAGS: &str = "--replace-image-tags";

/// Returns the later of the system's clock and the last accepted creation time, so that a clock that was set back
/// does not make old data look fresh.
pub fn present(system: Timestamp, state: &TargetState) -> Timestamp {
    state.last.as_ref().map_or(system, |last| last.created.max(system))
}

/// Judges a bundle for one target.
///
/// # Errors
/// [`Rejection::Stream`] if it is of another stream; [`Rejection::Future`] if it was created more
/// than 24 h after now; [`Rejection::Expired`] if it has expired; [`Rejection::Rollback`] if it is
/// older than the last one accepted; [`Rejection::Equivocation`] if it has the same creation time
/// but different content. A flag of the policy overrides each, except the first.
pub fn admit(
    candidate: &BundleCandidate,
    state: &TargetState,
    policy: &Policy,
    system: Timestamp,
) -> Result<Admission, Rejection> {
    let bundle = || candidate.bundle.clone();
    let created = candidate.created;
    if candidate.stream != policy.stream {
        let (found, wanted) = (candidate.stream.clone(), policy.stream.clone());
        return Err(Rejection::Stream { bundle: bundle(), found, wanted });
    }
    let mut admission = Admission {
        first: state.last.is_none() && state.seen.is_empty(),
        seen: state.seen.contains(&candidate.identity),
        ..Admission::default()
    };
    if created.duration_since(system) > CLOCK_TOLERANCE {
        if !policy.allow_future {
            return Err(Rejection::Future { bundle: bundle(), created, now: system });
        }
        admission.overrides.push(FUTURE);
    }
    if let Some(expires) = candidate.expires.filter(|expires| *expires <= present(system, state)) {
        if !policy.allow_expired {
            return Err(Rejection::Expired { bundle: bundle(), expires });
        }
        admission.overrides.push(EXPIRED);
    }
    let Some(last) = &state.last else { return Ok(admission) };
    if admission.seen {
        return Ok(admission);
    }
    if created < last.created && candidate.sequence.is_some_and(|number| state.missing.contains(&number)) {
        admission.superseded = true;
        return Ok(admission);
    }
    let rejection = if created == last.created {
        Some(Rejection::Equivocation { bundle: bundle(), created, accepted: last.identity })
    } else if created < last.created {
        let ahead_of = (last.created > system).then_some(system);
        Some(Rejection::Rollback { bundle: bundle(), created, floor: last.created, ahead_of })
    } else {
        None
    };
    match rejection {
        Some(rejection) if !policy.allow_rollback => return Err(rejection),
        Some(_) => admission.overrides.push(ROLLBACK),
        None => {
            let counted = state.counted.or(last.sequence);
            admission.gap = gap(counted, candidate.sequence);
            admission.number_before =
                counted.filter(|last| candidate.sequence.is_some_and(|next| next <= *last));
        }
    }
    Ok(admission)
}

/// Records a heartbeat. It changes no floor.
///
/// # Errors
/// [`Rejection::Future`] if it was made more than 24 h after now; [`Rejection::Late`] if it is no
/// newer than the last one, unless that one is ahead of this host's clock.
pub fn receive_heartbeat(
    state: &mut ImportState,
    name: &str,
    received: ReceivedHeartbeat,
    system: Timestamp,
) -> Result<(), Rejection> {
    let (bundle, created) = (name.to_owned(), received.created);
    if created.duration_since(system) > CLOCK_TOLERANCE {
        return Err(Rejection::Future { bundle, created, now: system });
    }
    // A heartbeat that is ahead of the clock was received while both clocks were fast. It must not block later ones.
    let believable =
        state.heard.as_ref().filter(|last| last.created.duration_since(system) <= CLOCK_TOLERANCE);
    if let Some(last) = believable.filter(|last| last.created >= created) {
        return Err(Rejection::Late { heartbeat: bundle, created, last: last.created });
    }
    state.heard = Some(received);
    Ok(())
}

/// Returns the first and the last number between two bundles. `None` if the exporter lost its state and counts from 1
/// again.
fn gap(last: Option<u64>, next: Option<u64>) -> Option<(u64, u64)> {
    let (from, to) = (last?.checked_add(1)?, next?.checked_sub(1)?);
    (from <= to).then_some((from, to))
}

/// The decision about one dataset of an admitted bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasetDecision {
    /// It may be installed.
    Accept,
    /// It is older than the data that this target has or had, and is skipped.
    Older {
        /// The date of the newer data.
        floor: Timestamp,
    },
}

/// Judges one dataset by its date. `floor` is the newest date that was accepted before or, if
/// nothing was, the date of the target's data.
pub fn judge(updated_at: Option<Timestamp>, floor: Option<Timestamp>) -> DatasetDecision {
    match (updated_at, floor) {
        (Some(date), Some(floor)) if date < floor => DatasetDecision::Older { floor },
        _ => DatasetDecision::Accept,
    }
}

/// Records an accepted bundle and its datasets. Called after activation, so that a run that was
/// killed earlier can be repeated.
pub fn record(
    state: &mut TargetState,
    candidate: &BundleCandidate,
    admission: &Admission,
    datasets: impl IntoIterator<Item = (String, Option<Timestamp>)>,
    system: Timestamp,
) {
    /// The limit of identities, enough for 4 years of weekly bundles. The floors cover older identities.
    const MAX: usize = 256;
    let rollback = admission.by_override(ROLLBACK);
    let future = admission.by_override(FUTURE);
    if !admission.overrides.is_empty() {
        state.overrides.push(crate::trust::state::Override {
            at: system,
            identity: candidate.identity,
            flags: admission.overrides.iter().map(|flag| (*flag).to_owned()).collect(),
        });
    }
    let newer = state.last.as_ref().is_none_or(|last| candidate.created >= last.created);
    if newer && !rollback && !future {
        state.counted = candidate.sequence;
    }
    if rollback || (newer && !future) {
        state.last = Some(Accepted {
            identity: candidate.identity,
            created: candidate.created,
            expires: candidate.expires,
            sequence: candidate.sequence,
            missing_items: candidate.missing_items.clone(),
        });
    }
    if let Some((from, to)) = admission.gap {
        state.missing.extend((from..=to).take(MAX));
    }
    state.missing.retain(|number| Some(*number) != candidate.sequence);
    if !state.seen.contains(&candidate.identity) {
        state.seen.push(candidate.identity);
    }
    for (key, date) in datasets {
        state.floors_reset = None;
        match candidate.expires {
            Some(expires) => state.expires.insert(key.clone(), expires),
            None => state.expires.remove(&key),
        };
        // A date ahead of the clock would block all later data.
        let Some(date) = date.filter(|date| date.duration_since(system) <= CLOCK_TOLERANCE) else { continue };
        let floor = state.floors.entry(key).or_insert(date);
        *floor = if rollback { date } else { date.max(*floor) };
    }
    keep_newest(&mut state.seen, MAX);
    keep_newest(&mut state.missing, MAX);
    keep_newest(&mut state.overrides, MAX);
}

fn keep_newest<T>(list: &mut Vec<T>, most: usize) {
    list.drain(..list.len().saturating_sub(most));
}

/// Returns the date of a target's data, as a floor. `None` if the date is in the future: in a
/// target that others can write to, it must not block genuine data.
pub(crate) fn believable(was: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    was.filter(|date| date.duration_since(now) <= CLOCK_TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T12:00:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn candidate(created: &str, content: &str, sequence: Option<u64>) -> BundleCandidate {
        BundleCandidate {
            bundle: "b.tar".into(),
            identity: Digest::of(content.as_bytes()),
            stream: "default".into(),
            created: time(created),
            expires: None,
            sequence,
            missing_items: Vec::new(),
        }
    }

    fn policy() -> Policy {
        Policy { stream: "default".into(), ..Policy::default() }
    }

    /// Returns the state after accepting these bundles in order.
    fn after(bundles: &[BundleCandidate]) -> TargetState {
        let mut state = TargetState::default();
        for bundle in bundles {
            let admission = admit(bundle, &state, &policy(), time(NOW)).unwrap();
            record(&mut state, bundle, &admission, [], time(NOW));
        }
        state
    }

    fn verdict(bundle: &BundleCandidate, state: &TargetState) -> Result<Admission, Rejection> {
        admit(bundle, state, &policy(), time(NOW))
    }

    #[test]
    fn a_newer_bundle_and_a_known_one_are_admitted() {
        let (old, new) =
            (candidate("2026-11-14T09:00:00Z", "a", None), candidate("2026-11-21T09:00:00Z", "b", None));
        assert!(verdict(&old, &TargetState::default()).unwrap().first);
        let state = after(&[old.clone(), new.clone()]);
        assert!(verdict(&new, &state).unwrap().seen);
        assert!(verdict(&old, &state).unwrap().seen, "a bundle seen before is never rejected");
        assert_eq!(state.last.unwrap().identity, new.identity);
    }

    #[test]
    fn rollback_and_equivocation_are_rejected_and_can_be_overridden() {
        let state = after(&[candidate("2026-11-20T09:00:00Z", "a", None)]);
        let older = candidate("2026-11-13T09:00:00Z", "b", None);
        let twin = candidate("2026-11-20T09:00:00Z", "c", None);
        assert!(matches!(verdict(&older, &state), Err(Rejection::Rollback { .. })));
        assert!(matches!(verdict(&twin, &state), Err(Rejection::Equivocation { .. })));
        let forced = Policy { allow_rollback: true, ..policy() };
        let admission = admit(&older, &state, &forced, time(NOW)).unwrap();
        assert_eq!(admission.overrides, ["--allow-rollback"]);
        let mut state = state;
        state.floors.insert("trivy-db-2".into(), time("2026-11-20T06:00:00Z"));
        let dated = [("trivy-db-2".to_owned(), Some(time("2026-11-13T06:00:00Z")))];
        record(&mut state, &older, &admission, dated, time(NOW));
        assert_eq!(state.last.unwrap().created, older.created, "the floor is lowered to this bundle");
        assert_eq!(state.floors["trivy-db-2"], time("2026-11-13T06:00:00Z"));
        assert_eq!(state.overrides.len(), 1);
    }

    #[test]
    fn a_heartbeat_is_received_once_and_moves_no_floor() {
        let mut state = ImportState::default();
        let mut heard = |created: &str| {
            let (created, received) = (time(created), time(NOW));
            let heard = ReceivedHeartbeat {
                created,
                received,
                export: "unchanged".into(),
                newest: None,
                missing: Vec::new(),
            };
            receive_heartbeat(&mut state, "h", heard, time(NOW)).map(|()| state.targets.len())
        };
        assert_eq!(heard("2026-11-21T09:00:00Z"), Ok(0));
        assert!(matches!(heard("2026-11-21T09:00:00Z"), Err(Rejection::Late { .. })), "replayed");
        assert!(matches!(heard("2026-11-20T09:00:00Z"), Err(Rejection::Late { .. })));
        assert!(matches!(heard("2029-01-01T00:00:00Z"), Err(Rejection::Future { .. })), "ahead of the clock");
        assert_eq!(heard("2026-11-21T10:00:00Z"), Ok(0));
        // It was received while both clocks were fast.
        state.heard.as_mut().unwrap().created = time("2026-12-24T00:00:00Z");
        let next = ReceivedHeartbeat { created: time(NOW), ..state.heard.clone().unwrap() };
        assert_eq!(receive_heartbeat(&mut state, "h", next, time(NOW)), Ok(()));
    }

    #[test]
    fn another_stream_is_rejected_by_name() {
        let mut other = candidate("2026-11-20T09:00:00Z", "a", None);
        other.stream = "lab".into();
        let error = verdict(&other, &TargetState::default()).unwrap_err();
        assert!(error.to_string().contains("\"lab\""), "{error}");
    }

    #[test]
    fn a_bundle_dated_in_the_future_is_rejected_and_never_raises_a_floor() {
        let future = candidate("2036-01-01T00:00:00Z", "a", None);
        assert!(matches!(verdict(&future, &TargetState::default()), Err(Rejection::Future { .. })));
        let nearly = candidate("2026-11-22T11:59:00Z", "b", None);
        assert!(verdict(&nearly, &TargetState::default()).is_ok(), "clocks may differ by 24 h");
        let forced = Policy { allow_future: true, ..policy() };
        let mut state = TargetState::default();
        let admission = admit(&future, &state, &forced, time(NOW)).unwrap();
        let dated = [("trivy-db-2".to_owned(), Some(time("2036-01-01T00:00:00Z")))];
        record(&mut state, &future, &admission, dated, time(NOW));
        assert_eq!((state.last, state.floors.len()), (None, 0));
    }

    #[test]
    fn expiry_counts_from_the_later_of_clock_and_last_bundle() {
        let mut bundle = candidate("2026-11-10T00:00:00Z", "a", None);
        bundle.expires = Some(time("2026-11-15T00:00:00Z"));
        let early = time("2026-11-11T00:00:00Z");
        assert!(admit(&bundle, &TargetState::default(), &policy(), early).is_ok());
        assert!(matches!(verdict(&bundle, &TargetState::default()), Err(Rejection::Expired { .. })));
        let state = after(&[candidate("2026-11-20T00:00:00Z", "b", None)]);
        let fell_back = admit(&bundle, &state, &policy(), early);
        assert!(matches!(fell_back, Err(Rejection::Expired { .. })), "the clock cannot be turned back");
    }

    #[test]
    fn gaps_are_reported_and_late_bundles_are_superseded() {
        let one = candidate("2026-11-01T00:00:00Z", "1", Some(1));
        let four = candidate("2026-11-04T00:00:00Z", "4", Some(4));
        let state = after(std::slice::from_ref(&one));
        assert_eq!(verdict(&four, &state).unwrap().gap, Some((2, 3)));
        let mut state = after(&[one, four]);
        let three = candidate("2026-11-03T00:00:00Z", "3", Some(3));
        let late = verdict(&three, &state).unwrap();
        assert!(late.superseded);
        record(&mut state, &three, &late, [], time(NOW));
        assert_eq!((state.missing.as_slice(), state.last.as_ref().unwrap().sequence), (&[2][..], Some(4)));
        let forged = candidate("2026-11-03T00:00:01Z", "3b", Some(3));
        assert!(matches!(verdict(&forged, &state), Err(Rejection::Rollback { .. })), "a gap is filled once");
        let twin = candidate("2026-11-04T00:00:00Z", "4b", Some(2));
        assert!(
            matches!(verdict(&twin, &state), Err(Rejection::Equivocation { .. })),
            "a late bundle is older than the last one"
        );
        let restarted = candidate("2026-11-05T00:00:00Z", "r", Some(1));
        assert_eq!(verdict(&restarted, &state).unwrap().gap, None);
    }

    #[test]
    fn after_a_rollback_no_received_bundle_is_reported_as_missing() {
        let bundles =
            [1, 2, 3].map(|n| candidate(&format!("2026-11-0{n}T00:00:00Z"), &n.to_string(), Some(n)));
        let mut state = after(&bundles[..2]);
        let back = Admission { seen: true, overrides: vec![ROLLBACK], ..Admission::default() };
        record(&mut state, &bundles[0], &back, [], time(NOW));
        assert_eq!(state.last.as_ref().unwrap().sequence, Some(1));
        assert_eq!(verdict(&bundles[2], &state).unwrap().gap, None);
    }

    #[test]
    fn an_older_dataset_is_skipped() {
        let (old, new) = (Some(time("2026-11-01T00:00:00Z")), Some(time("2026-11-02T00:00:00Z")));
        assert_eq!(judge(new, old), DatasetDecision::Accept);
        assert_eq!(judge(new, new), DatasetDecision::Accept);
        assert_eq!(judge(old, new), DatasetDecision::Older { floor: new.unwrap() });
        assert_eq!(judge(None, new), DatasetDecision::Accept, "checks have no date");
    }
}
