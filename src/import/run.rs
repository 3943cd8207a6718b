//! One run of an import: its context together with the bundles and the ledger that its targets work on.

use crate::delivery::context::DeliveryContext;
use crate::delivery::ledger::Ledger;
use crate::import::options::ImportOptions;
use crate::intake::open::OpenedBundles;
use crate::progress::Progress;

/// What every target of a run is given.
pub(crate) struct ImportRun<'r> {
    pub(crate) options: &'r ImportOptions,
    pub(crate) context: &'r DeliveryContext,
    /// The bundles. A target takes out those that turn out to be damaged.
    pub(crate) found: &'r mut OpenedBundles,
    pub(crate) ledger: &'r mut Ledger,
    pub(crate) progress: &'r dyn Progress,
}
