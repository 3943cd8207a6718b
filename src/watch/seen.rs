//! What a watch knows of a bundle that is not dealt with yet.

use std::time::Instant;

use crate::error::Error;
use crate::watch::portion::Look;

/// What is known of a bundle that is not dealt with yet.
pub(crate) struct SeenBundle {
    pub(crate) look: Look,
    /// Since when it has looked like this.
    pub(crate) since: Instant,
    /// Since when it has been changing.
    pub(crate) restless: Instant,
    /// What is to be done with it.
    pub(crate) todo: Todo,
    /// Why it has to wait.
    pub(crate) why: String,
    /// What it was tried for without success, in this run.
    pub(crate) failed: Option<Error>,
    /// Whether a trusted key signed its head.
    pub(crate) trusted: bool,
}

impl SeenBundle {
    /// A bundle that looks different from before, if it was there before.
    pub(crate) fn changed(look: Look, before: Option<&SeenBundle>) -> Self {
        let since = Instant::now();
        let changing = before.filter(|seen| matches!(seen.todo, Todo::Try));
        let restless = changing.map_or(since, |seen| seen.restless);
        let (why, todo, failed) = ("it is still coming".into(), Todo::Try, None);
        SeenBundle { look, since, restless, todo, why, failed, trusted: false }
    }
}

/// What is to be done with a bundle that has come to rest.
pub(crate) enum Todo {
    /// It was not tried yet.
    Try,
    /// It lacks something: there is nothing to do until it looks different.
    Wait,
    /// It could not be imported, and is tried again then.
    TryAt(Instant),
    /// A clock was in its way, and may be corrected: it is judged again then, and not for ever.
    JudgeAt(Instant),
}
