//! What a watch keeps in mind between its rounds and its runs: for how long bundles have waited, and which
//! were imported. Without it nothing goes wrong; some waits begin anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::bundle::UnverifiedBundle;
use crate::bundle::volumes::Volume;
use crate::digest::Digest;
use crate::intake::file_sets::Inputs;
use crate::util::clock;
use crate::util::dir::FileMode;
use crate::util::fs::{self, Durability};

/// For how long bundles have waited. Counted, and not taken from the clock, which may jump.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct WaitingTimes {
    seconds: BTreeMap<String, f64>,
    /// When that was counted last, by the system's clock: for runs that end between rounds.
    at: Option<Timestamp>,
    #[serde(skip)]
    counted: Option<Instant>,
}

impl WaitingTimes {
    const FILE: &str = "waiting.json";
    /// What passes between two runs counts as a day at the most: a clock that jumps by years ends no wait.
    const MAX: f64 = 24.0 * 60.0 * 60.0;

    pub(crate) fn load(own: &Path) -> Self {
        let read = fs::read(own.join(Self::FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Counts the time since it was counted last for those that are there.
    pub(crate) fn tick<'k>(&mut self, keys: impl Iterator<Item = &'k str>) {
        let now = clock::now();
        let passed = match (self.counted, self.at) {
            (Some(counted), _) => counted.elapsed().as_secs_f64(),
            (None, Some(at)) => now.duration_since(at).as_secs_f64().clamp(0.0, Self::MAX),
            (None, None) => 0.0,
        };
        (self.counted, self.at) = (Some(Instant::now()), Some(now));
        self.seconds = keys
            .map(|key| (key.to_owned(), self.seconds.get(key).map_or(0.0, |seconds| seconds + passed)))
            .collect();
    }

    pub(crate) fn of(&self, key: &str) -> Duration {
        let seconds = self.seconds.get(key).copied().unwrap_or_default();
        Duration::try_from_secs_f64(seconds).unwrap_or(if seconds > 0.0 {
            Duration::MAX
        } else {
            Duration::ZERO
        })
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.seconds.remove(key);
    }

    /// Best effort: without it, the wait begins anew after a restart.
    pub(crate) fn save(&self, own: &Path) {
        write_note(own, Self::FILE, self);
    }
}

/// The bundles that were imported, the latest last.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct ImportedBundles(Vec<ImportedBundle>);

/// A bundle that was imported. A name alone says nothing: anybody may give it to something else.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ImportedBundle {
    /// Its name, in small letters.
    pub(crate) key: String,
    /// The sha256 of its signed payload.
    pub(crate) identity: Digest,
    /// The volumes behind its head; none where it is one file.
    pub(crate) volumes: Vec<Volume>,
}

impl ImportedBundles {
    const FILE: &str = "done.json";
    /// Years of daily bundles.
    const MAX: usize = 2000;

    pub(crate) fn load(own: &Path) -> Self {
        let read = fs::read(own.join(Self::FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Whether what lies there of a bundle is of one that was imported: each head and volume. Parity does not
    /// matter, since nobody can say whose it is.
    pub(crate) fn has_all(&self, there: &Inputs, key: &str) -> bool {
        let identity = |path: &PathBuf| UnverifiedBundle::open(path).ok().map(|head| head.identity());
        let heads: Vec<Option<Digest>> = there.heads(key).iter().map(identity).collect();
        self.0.iter().any(|imported| {
            // A head says by itself of which bundle it is. Volumes do not: bundles may have some in common.
            (imported.key == key || !heads.is_empty())
                && heads.iter().all(|head| *head == Some(imported.identity))
                && there.has_only(key, &imported.volumes)
        })
    }

    /// Whether a bundle of this identity was imported.
    pub(crate) fn has(&self, identity: Digest) -> bool {
        self.0.iter().any(|imported| imported.identity == identity)
    }

    pub(crate) fn add(&mut self, imported: ImportedBundle) {
        self.0.retain(|known| *known != imported);
        self.0.push(imported);
        let old = self.0.len().saturating_sub(Self::MAX);
        self.0.drain(..old);
    }

    /// Best effort: without it, late parts are waited for in vain, and no more.
    pub(crate) fn save(&self, own: &Path) {
        write_note(own, Self::FILE, self);
    }
}

/// How many files that no trusted key signed were dealt with one by one lately. Whoever may put files there
/// can put any number: beyond some in an hour they are dealt with together, and said together.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct UnsignedQuota {
    /// When the hour began.
    since: Option<Timestamp>,
    /// How many were named in it.
    named: u64,
    /// How many were only counted since the last time that this was written down.
    counted: u64,
    /// When that was.
    told: Option<Timestamp>,
}

impl UnsignedQuota {
    const FILE: &str = "unsigned.json";
    /// How many are named in an hour.
    const MAX: u64 = 20;
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    pub(crate) fn load(own: &Path) -> Self {
        let read = fs::read(own.join(Self::FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Best effort: without it, some more are named after a restart.
    pub(crate) fn save(&self, own: &Path) {
        write_note(own, Self::FILE, self);
    }

    /// Whether an hour has passed. A clock that went back counts as one that has.
    fn is_over(since: Option<Timestamp>, now: Timestamp) -> bool {
        since.is_none_or(|since| !(SignedDuration::ZERO..Self::HOUR).contains(&now.duration_since(since)))
    }

    /// Whether another one may be named.
    pub(crate) fn has_room(&self, now: Timestamp) -> bool {
        self.named < Self::MAX || Self::is_over(self.since, now)
    }

    /// One was named.
    pub(crate) fn name(&mut self, now: Timestamp) {
        if Self::is_over(self.since, now) {
            (self.since, self.named) = (Some(now), 0);
        }
        self.named += 1;
    }

    /// Some were not named.
    pub(crate) fn count(&mut self, more: usize) {
        self.counted = self.counted.saturating_add(more as u64);
    }

    /// How many were counted, once in an hour.
    pub(crate) fn take_untold(&mut self, now: Timestamp) -> Option<u64> {
        if self.counted == 0 || !Self::is_over(self.told, now) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.counted))
    }
}

/// Writes a note of a watch, best effort: it may be lost in a power cut.
fn write_note(own: &Path, name: &str, what: &impl Serialize) {
    if let Ok(text) = serde_json::to_vec(what) {
        let _ = fs::replace(own.join(name), &text, FileMode::working(0o600), Durability::Unsynced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_named_and_the_rest_is_told_once_in_an_hour() {
        let minute = |minute: i64| {
            "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minute)
        };
        let mut unsigned = UnsignedQuota::default();
        for _ in 0..UnsignedQuota::MAX {
            assert!(unsigned.has_room(minute(0)));
            unsigned.name(minute(0));
        }
        assert!(!unsigned.has_room(minute(59)) && unsigned.has_room(minute(60)));
        assert!(unsigned.has_room(minute(-1)), "a clock that went back keeps nothing quiet");
        assert_eq!(unsigned.take_untold(minute(1)), None);
        unsigned.count(5);
        assert_eq!(unsigned.take_untold(minute(1)), Some(5));
        unsigned.count(7);
        unsigned.count(1);
        assert_eq!(unsigned.take_untold(minute(60)), None);
        assert_eq!(unsigned.take_untold(minute(61)), Some(8));
    }

    #[test]
    fn no_clock_ends_a_wait_before_its_time() {
        let counted = |at: &str| {
            let mut waited = WaitingTimes {
                seconds: BTreeMap::from([("a".into(), 10.0)]),
                at: Some(at.parse().unwrap()),
                counted: None,
            };
            waited.tick(["a", "b"].into_iter());
            (waited.of("a").as_secs(), waited.of("b").as_secs())
        };
        assert_eq!(counted("2001-01-01T00:00:00Z"), (10 + 24 * 60 * 60, 0), "years ahead count for a day");
        assert_eq!(counted("2999-01-01T00:00:00Z"), (10, 0), "a clock that went back counts for nothing");
    }
}
