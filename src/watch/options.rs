//! The options of `watch`.

use std::path::PathBuf;

use crate::import::options::ImportOptions;
use crate::util::age::Age;
use crate::util::byte_size::ByteSize;

/// The options of `watch`: the inbox, the times and limits, and the options of the imports.
#[derive(Clone)]
#[non_exhaustive]
pub struct WatchOptions {
    /// The directory in which bundles, volumes and parity files arrive.
    pub inbox: PathBuf,
    /// The pause between two looks.
    pub interval: Age,
    /// The time for which a file must be unchanged before it is handled.
    pub settle: Age,
    /// The time to wait for the missing files of a bundle.
    pub give_up_after: Age,
    /// The number of imported bundles that are kept.
    pub keep_processed: u32,
    /// The number of rejected bundles that are kept.
    pub keep_quarantined: u32,
    /// The maximum total size of waiting files; `None` for no limit.
    pub max_waiting: Option<ByteSize>,
    /// Whether the watch ends when all files have been handled or wait for more files.
    pub once: bool,
    /// A shell command that runs after each outcome.
    pub exec_outcome: Option<String>,
    /// The options of the imports.
    pub import: ImportOptions,
}

impl WatchOptions {
    /// Creates the default options: the watch looks at the directory every 10 s and handles files that have not
    /// changed for 10 s. Incomplete bundles wait for 3 days. The latest 3 imported and 10 rejected bundles are kept.
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
