//! The record of a target's runs, in addition to its accepted bundles: its last use, its failure,
//! and the reset of its floors.

use jiff::Timestamp;

use crate::trust::state::{Failure, TargetState};

impl TargetState {
    /// Removes every date and number that was accepted, so that the next bundle is judged
    /// as the first.
    pub fn reset_floors(&mut self, now: Timestamp) {
        let TargetState { origins, images, overrides, hook_due, used, beside, failure, forgotten, .. } =
            std::mem::take(self);
        let floors_reset = Some(now);
        *self = TargetState {
            origins,
            images,
            overrides,
            hook_due,
            used,
            beside,
            failure,
            forgotten,
            floors_reset,
            ..TargetState::default()
        };
    }

    /// Records that a run used the target together with others, and why it failed there, if it did. Returns whether the
    /// failure needs another line in the log: a failure that repeats every minute gets one line per hour.
    pub fn note_run(&mut self, beside: Vec<String>, why: Option<String>, now: Timestamp) -> bool {
        const SECONDS: i64 = 60 * 60;
        (self.used, self.beside, self.forgotten) = (Some(now), beside, None);
        let before = self.failure.take();
        let Some(why) = why else { return false };
        let hour = |at: Timestamp| at.as_second().div_euclid(SECONDS);
        let is_news = before.as_ref().is_none_or(|had| had.why != why || hour(had.at) != hour(now));
        let since = before.map_or(now, |had| had.since);
        self.failure = Some(Failure { since, at: now, why });
        is_news
    }
}
