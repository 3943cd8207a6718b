//! Uploads that a registry has begun, and what is left of them.

use reqwest::Url;

/// What is left of an upload that failed and may be tried again.
pub(super) enum Unfinished {
    /// The registry may still have what it got.
    Upload(Session),
    /// What it had was of no use.
    Nothing,
}

/// An upload that the registry has begun.
pub(super) struct Session {
    /// Where the next bytes go.
    pub(super) location: Url,
    /// How many bytes the registry has.
    pub(super) sent: u64,
    /// How many bytes the last request had.
    pub(super) request: u64,
    /// The least that is sent at once, but for the last bytes.
    pub(super) least: u64,
    /// It was begun by an earlier attempt.
    pub(super) resumed: bool,
    /// Its last request was refused, and there is another login now.
    pub(super) renewed: bool,
}
