//! The state of uploads to a registry.

use reqwest::Url;

/// A failed upload that may be retried.
pub(super) enum Unfinished {
    /// The registry may still have the bytes that it received.
    Upload(Session),
    /// The bytes that it received are useless.
    Nothing,
}

/// An upload that the registry has begun.
pub(super) struct Session {
    /// The URL for the next bytes.
    pub(super) location: Url,
    /// The number of bytes that the registry has.
    pub(super) sent: u64,
    /// The number of bytes in the last request.
    pub(super) request: u64,
    /// The smallest chunk that the registry accepts, except for the last one.
    pub(super) least: u64,
    /// Whether an earlier attempt began it.
    pub(super) resumed: bool,
    /// Whether its last request was rejected and the login was then renewed.
    pub(super) renewed: bool,
}
