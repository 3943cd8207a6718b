//! The state of a bundle in the inbox that has not been handled yet.

use std::time::Instant;

use crate::error::Error;
use crate::watch::portion::Look;

/// The state of a bundle that has not been handled yet.
pub(crate) struct SeenBundle {
    pub(crate) look: Look,
    /// The time of its last change.
    pub(crate) since: Instant,
    /// The time since which it has been changing.
    pub(crate) restless: Instant,
    /// The next action.
    pub(crate) todo: Todo,
    /// The reason why it waits.
    pub(crate) why: String,
    /// The error of the last failed attempt in this run.
    pub(crate) failed: Option<Error>,
    /// Whether a trusted key signed its head.
    pub(crate) trusted: bool,
}

impl SeenBundle {
    /// Creates the state of a bundle that is new or has changed.
    pub(crate) fn changed(look: Look, before: Option<&SeenBundle>) -> Self {
        let since = Instant::now();
        let changing = before.filter(|seen| matches!(seen.todo, Todo::Try));
        let restless = changing.map_or(since, |seen| seen.restless);
        let (why, todo, failed) = ("it is still arriving".into(), Todo::Try, None);
        SeenBundle { look, since, restless, todo, why, failed, trusted: false }
    }
}

/// The next action for a settled bundle.
pub(crate) enum Todo {
    /// Imports it for the first time.
    Try,
    /// Waits until its files change, because it is incomplete.
    Wait,
    /// Retries the import at this time.
    TryAt(Instant),
    /// Retries at this time, within the time limit for waiting. A clock that may be corrected
    /// caused the rejection.
    JudgeAt(Instant),
}
