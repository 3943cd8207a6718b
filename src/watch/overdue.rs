//! The choice of the bundles that have waited too long.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::watch::options::WatchOptions;
use crate::watch::seen::{SeenBundle, Todo};
use crate::watch::state::WaitingTimes;

/// A bundle that has waited too long.
pub(crate) struct Overdue {
    pub(crate) key: String,
    /// Whether a trusted key signed its head.
    pub(crate) trusted: bool,
    /// The time for which it has waited.
    pub(crate) waited: Duration,
    /// The reason why the watch stops waiting for it.
    pub(crate) why: &'static str,
}

/// Returns the bundles that have waited too long, or whose files take too much room together.
pub(crate) fn overdue<'k>(
    keys: impl Iterator<Item = &'k str>,
    seen: &BTreeMap<String, SeenBundle>,
    waiting_times: &WaitingTimes,
    options: &WatchOptions,
) -> Vec<Overdue> {
    let limit = options.give_up_after.duration().unsigned_abs();
    let mut waiting: Vec<(bool, Reverse<Duration>, String, u64)> = Vec::new();
    for key in keys {
        let Some(seen) = seen.get(key) else { continue };
        let bytes = || seen.look.iter().fold(0u64, |all, (_, length, ..)| all.saturating_add(*length));
        let (waited, bytes) = match seen.todo {
            Todo::Wait | Todo::JudgeAt(_) => (waiting_times.of(key), bytes()),
            // The time starts again for a bundle that is changing. Its size does not count, because it may be complete
            // and imported soon.
            Todo::Try => (seen.restless.elapsed(), 0),
            // Bundles that failed and are retried wait without a limit, but only if a trusted key signed them.
            Todo::TryAt(_) if seen.trusted => continue,
            Todo::TryAt(_) => (waiting_times.of(key), bytes()),
        };
        waiting.push((seen.trusted, Reverse(waited), key.to_owned(), bytes));
    }
    // Bundles without a trusted signature are chosen first.
    waiting.sort();
    let mut all = waiting.iter().fold(0u64, |all, (.., bytes)| all.saturating_add(*bytes));
    let most = options.max_waiting.map_or(u64::MAX, |size| size.bytes());
    let mut overdue = Vec::new();
    for (trusted, Reverse(waited), key, bytes) in waiting {
        let judged = seen.get(&key).is_some_and(|seen| seen.failed.is_some());
        let why = match () {
            () if waited >= limit && judged => "it has waited too long and still cannot be imported",
            () if waited >= limit => "it has waited too long for the missing files",
            () if all > most && bytes > 0 => {
                "waiting files exceed --max-waiting, and this bundle has waited longest"
            }
            () => continue,
        };
        all = all.saturating_sub(bytes);
        overdue.push(Overdue { key, trusted, waited, why });
    }
    overdue
}
