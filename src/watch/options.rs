//! Which directory is watched, how patiently, and where what comes goes.

use std::path::PathBuf;

use crate::import::options::ImportOptions;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// Which directory is watched, how patiently, and where what comes goes.
#[derive(Clone)]
#[non_exhaustive]
pub struct WatchOptions {
    /// The directory into which bundles, volumes and parity come.
    pub inbox: PathBuf,
    /// How often it is looked at.
    pub interval: Age,
    /// How long a file must not have changed.
    pub settle: Age,
    /// How long what is incomplete is kept.
    pub give_up_after: Age,
    /// How many imported bundles are kept.
    pub keep_processed: u32,
    /// How many rejected bundles are kept.
    pub keep_quarantined: u32,
    /// How much room what waits may take; `None` for any.
    pub max_waiting: Option<ByteSize>,
    /// Ends when all that is there has been dealt with or waits for more.
    pub once: bool,
    /// A shell command that runs after each outcome.
    pub exec_outcome: Option<String>,
    /// How bundles are imported.
    pub import: ImportOptions,
}

impl WatchOptions {
    /// Options that watch a directory: every 10 s, for files that have not changed for 10 s. What is incomplete is
    /// kept for 3 days, and of what was imported and rejected the 3 and 10 latest bundles.
    #[must_use]
    pub fn new(inbox: PathBuf, import: ImportOptions) -> Self {
        WatchOptions {
            inbox,
            interval: Age::seconds(10),
            settle: Age::seconds(10),
            give_up_after: Age::seconds(3 * 24 * 60 * 60),
            keep_processed: 3,
            keep_quarantined: 10,
            max_waiting: None,
            once: false,
            exec_outcome: None,
            import,
        }
    }
}
