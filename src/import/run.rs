//! One run of an import: its context, and the bundles and the ledger that all targets share. Plain data.

use crate::delivery::context::DeliveryContext;
use crate::delivery::ledger::Ledger;
use crate::import::options::ImportOptions;
use crate::intake::open::OpenedBundles;
use crate::progress::Progress;

/// The data that every target of a run uses.
pub(crate) struct ImportRun<'r> {
    pub(crate) options: &'r ImportOptions,
    pub(crate) context: &'r DeliveryContext,
    /// The bundles. A target removes those that turn out to be damaged.
    pub(crate) found: &'r mut OpenedBundles,
    pub(crate) ledger: &'r mut Ledger,
    pub(crate) progress: &'r dyn Progress,
}
