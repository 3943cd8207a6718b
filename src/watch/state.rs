//! The notes that a watch keeps between rounds and runs: waiting times, imported bundles, and the count of files
//! without a trusted signature. They may be lost without harm; waiting times then start again.

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

/// The waiting times of bundles. They are counted and not computed from the system's clock, which may jump.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct WaitingTimes {
    seconds: BTreeMap<String, f64>,
    /// The time of the last count by the system's clock, for the time between two runs.
    at: Option<Timestamp>,
    #[serde(skip)]
    counted: Option<Instant>,
}

impl WaitingTimes {
    const FILE: &str = "waiting.json";
    /// The maximum time in seconds that counts between two runs, so that a clock that jumps by years does not end a
    /// wait.
    const MAX: f64 = 24.0 * 60.0 * 60.0;

    pub(crate) fn load(own: &Path) -> Self {
        let read = fs::read(own.join(Self::FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Adds the time since the last count to the bundles that are there. Removes all others.
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

    /// Saves the waiting times, best effort: if this fails, they start again after a restart.
    pub(crate) fn save(&self, own: &Path) {
        write_note(own, Self::FILE, self);
    }
}

/// The bundles that were imported, the latest last.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct ImportedBundles(Vec<ImportedBundle>);

/// A bundle that was imported. Its name alone does not identify it, because other files can have the same name.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ImportedBundle {
    /// Its name in lower case.
    pub(crate) key: String,
    /// The sha256 of its signed payload.
    pub(crate) identity: Digest,
    /// The volumes that follow its head volume; none if it is a single file.
    pub(crate) volumes: Vec<Volume>,
}

impl ImportedBundles {
    const FILE: &str = "done.json";
    /// The maximum number of bundles, enough for years of daily ones.
    const MAX: usize = 2000;

    pub(crate) fn load(own: &Path) -> Self {
        let read = fs::read(own.join(Self::FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Whether all heads and volumes of this name belong to one imported bundle. Parity files are ignored, because they
    /// do not say to which bundle they belong.
    pub(crate) fn has_all(&self, there: &Inputs, key: &str) -> bool {
        let identity = |path: &PathBuf| UnverifiedBundle::open(path).ok().map(|head| head.identity());
        let heads: Vec<Option<Digest>> = there.heads(key).iter().map(identity).collect();
        self.0.iter().any(|imported| {
            // A head identifies its bundle. Volumes do not, because two bundles may share volumes.
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

    /// Saves the list, best effort: if this fails, late files of a bundle wait until the limit is reached.
    pub(crate) fn save(&self, own: &Path) {
        write_note(own, Self::FILE, self);
    }
}

/// The number of files without a trusted signature that were handled one by one. Anyone who can write to the inbox can
/// send any number of them, so beyond an hourly limit they are handled and reported together.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct UnsignedQuota {
    /// The beginning of the hour.
    since: Option<Timestamp>,
    /// The number of files that were reported by name in it.
    named: u64,
    /// The number of files that were only counted since the last report.
    counted: u64,
    /// The time of the last report.
    told: Option<Timestamp>,
}

impl UnsignedQuota {
    const FILE: &str = "unsigned.json";
    /// The maximum number of files that are reported by name in 1 hour.
    const MAX: u64 = 20;
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    pub(crate) fn load(own: &Path) -> Self {
        let read = fs::read(own.join(Self::FILE)).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Saves the counts, best effort: if this fails, more files are reported by name after a restart.
    pub(crate) fn save(&self, own: &Path) {
        write_note(own, Self::FILE, self);
    }

    /// Whether 1 hour has passed. Returns `true` if the clock was set back.
    fn is_over(since: Option<Timestamp>, now: Timestamp) -> bool {
        since.is_none_or(|since| !(SignedDuration::ZERO..Self::HOUR).contains(&now.duration_since(since)))
    }

    /// Whether another file may be reported by name.
    pub(crate) fn has_room(&self, now: Timestamp) -> bool {
        self.named < Self::MAX || Self::is_over(self.since, now)
    }

    /// Records that a file was reported by name.
    pub(crate) fn name(&mut self, now: Timestamp) {
        if Self::is_over(self.since, now) {
            (self.since, self.named) = (Some(now), 0);
        }
        self.named += 1;
    }

    /// Records files that were not reported by name.
    pub(crate) fn count(&mut self, more: usize) {
        self.counted = self.counted.saturating_add(more as u64);
    }

    /// Returns the number of counted files and resets it, at most once an hour.
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
    fn a_few_files_are_reported_by_name_and_the_number_of_others_once_an_hour() {
        let minute = |minute: i64| {
            "2026-11-21T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minute)
        };
        let mut unsigned = UnsignedQuota::default();
        for _ in 0..UnsignedQuota::MAX {
            assert!(unsigned.has_room(minute(0)));
            unsigned.name(minute(0));
        }
        assert!(!unsigned.has_room(minute(59)) && unsigned.has_room(minute(60)));
        assert!(unsigned.has_room(minute(-1)), "a clock that was set back suppresses no report");
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
        assert_eq!(counted("2001-01-01T00:00:00Z"), (10 + 24 * 60 * 60, 0), "years ahead count as a day");
        assert_eq!(counted("2999-01-01T00:00:00Z"), (10, 0), "a clock that was set back adds no time");
    }
}
