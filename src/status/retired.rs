//! Finds the targets that runs no longer use, from the state alone.
//!
//! A target whose job has stopped looks almost like a target that was removed from a job, so one
//! run without a target is not enough. `forget` retires a target at once.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::delivery::target_id::TargetId;
use crate::trust::state::TargetState;

/// The time for which other targets are used before a target counts as retired.
const UNUSED: SignedDuration = SignedDuration::from_hours(14 * 24);
/// The time for which other targets are used before a target that their runs omit counts as
/// retired. A manual import into one of two caches does not mean that the other is unused.
const LEFT_OUT: SignedDuration = SignedDuration::from_hours(3 * 24);
/// The number of bundles that other targets accept before a target that their runs omit, or whose
/// directory is gone, counts as retired.
const BUNDLES: usize = 2;
/// The time for which other targets are used before the errors of a target say how to retire it.
const HINT: SignedDuration = SignedDuration::from_hours(25);

/// The use of a target, compared with the others of its stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Whether runs no longer use it.
    pub(crate) retired: bool,
    /// Whether other targets have been used since, so that it may be retired.
    pub(crate) lags: bool,
}

/// Compares a target with the others of its stream. It is retired if others have accepted
/// [`BUNDLES`] newer bundles and either its directory is gone, or runs of the same targets have
/// omitted it for [`LEFT_OUT`]; or if others are used for [`UNUSED`] longer. One run is not enough:
/// the last bundle may have been imported again to repair one target.
pub(crate) fn usage(name: &str, targets: &BTreeMap<String, TargetState>, now: Timestamp) -> Usage {
    let mut usage = Usage::default();
    let Some((of, used)) = targets.get(name).and_then(|of| Some((of, last_use(of, now)?))) else {
        return usage;
    };
    for (other, state) in targets {
        let Some(later) = last_use(state, now).filter(|later| *later > used) else { continue };
        let lag = later.duration_since(used);
        let was_dropped = of.beside.contains(other) && !state.beside.iter().any(|beside| beside == name);
        let is_left_out = was_dropped && lag >= LEFT_OUT;
        let is_unused = newer_bundles(of, state) >= BUNDLES && (is_left_out || is_gone(name));
        usage.retired |= is_unused || lag >= UNUSED;
        usage.lags |= lag >= HINT;
    }
    usage
}

/// Returns the time at which a target was last used. A clock that was fast must not make all others
/// look unused.
fn last_use(of: &TargetState, now: Timestamp) -> Option<Timestamp> {
    let used = of.used.or_else(|| Some(of.last.as_ref()?.created));
    used.map(|used| used.min(now))
}

fn is_gone(name: &str) -> bool {
    let Ok(target) = name.parse::<TargetId>();
    target.directory().is_some_and(|directory| {
        directory.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    })
}

/// Returns the number of bundles that `other` has accepted since the last bundle of `of`.
fn newer_bundles(of: &TargetState, other: &TargetState) -> usize {
    let last = of.seen.last();
    let known = other.seen.iter().position(|seen| Some(seen) == last);
    other.seen.len() - known.map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const NOW: &str = "2026-11-30T12:00:00Z";

    fn state(used: &str, beside: &[&str], seen: u8) -> TargetState {
        TargetState {
            used: Some(used.parse().unwrap()),
            beside: beside.iter().map(|name| (*name).to_owned()).collect(),
            seen: (0..seen).map(|number| Digest::of(&[number])).collect(),
            ..TargetState::default()
        }
    }

    fn retired(old: TargetState, new: TargetState, old_name: &str) -> (bool, bool) {
        let targets = BTreeMap::from([(old_name.to_owned(), old), ("registry:b".to_owned(), new)]);
        let usage = usage(old_name, &targets, NOW.parse().unwrap());
        assert!(!super::usage("registry:b", &targets, NOW.parse().unwrap()).retired);
        (usage.retired, usage.lags)
    }

    #[test]
    fn only_a_target_that_is_certainly_unused_is_retired() {
        let (day, later) = ("2026-11-20T02:00:00Z", "2026-11-29T02:00:00Z");
        let a = "registry:a";
        // Two jobs, one of which may have stopped: not certain enough.
        assert_eq!(retired(state(day, &[], 3), state(later, &[], 9), a), (false, true));
        // Two jobs that run 1 minute apart every night.
        assert_eq!(retired(state(day, &[], 3), state("2026-11-20T02:01:00Z", &[], 3), a), (false, false));
        // One job, which omits it now.
        assert_eq!(retired(state(day, &["registry:b"], 3), state(later, &[], 9), a), (true, true));
        assert!(!retired(state(day, &["registry:b"], 3), state(later, &[a], 9), a).0);
        // Imports by hand into the other target: after 2 hours, 1 day before the limit, 1 second
        // before the limit, and at the limit.
        let beside = || state(day, &["registry:b"], 3);
        for (used, is_retired) in [
            ("2026-11-20T04:00:00Z", false),
            ("2026-11-22T02:00:00Z", false),
            ("2026-11-23T01:59:59Z", false),
            ("2026-11-23T02:00:00Z", true),
        ] {
            assert_eq!(retired(beside(), state(used, &[], 5), a).0, is_retired, "{used}");
        }
        // Only the other target accepted one more bundle.
        assert!(!retired(state(day, &["registry:b"], 3), state(later, &[], 4), a).0);
        assert!(retired(state(day, &["registry:b"], 3), state(later, &[], 5), a).0);
        // It was last used more than 14 days before the other target.
        assert!(retired(state("2026-11-10T02:00:00Z", &[], 3), state(later, &[], 9), a).0);
        // Its directory is gone, and more than one bundle was received.
        let gone = "cache:/nonexistent/cache";
        assert!(retired(state(day, &[], 3), state(later, &[], 5), gone).0);
        assert!(retired(state(day, &["registry:b"], 3), state("2026-11-20T04:00:00Z", &[], 5), gone).0);
        assert!(!retired(state(day, &[], 3), state(later, &[], 4), gone).0);
        assert!(!retired(state(day, &[], 3), state(later, &[], 9), "cache:/").0);
        // A clock that was fast once retires no target.
        assert!(!retired(state(day, &[], 3), state("2036-11-20T02:00:00Z", &[], 4), a).0);
    }

    #[test]
    fn a_target_without_a_time_of_use_is_judged_by_its_last_bundle() {
        let mut old = state(NOW, &[], 3);
        old.used = None;
        assert_eq!(
            retired(old.clone(), state(NOW, &[], 9), "registry:a"),
            (false, false),
            "the last use is unknown"
        );
        old.last = Some(crate::trust::state::Accepted {
            identity: Digest::of(b"x"),
            created: "2026-10-01T00:00:00Z".parse().unwrap(),
            expires: None,
            sequence: None,
            missing_items: Vec::new(),
        });
        assert!(retired(old, state(NOW, &[], 9), "registry:a").0);
    }
}
