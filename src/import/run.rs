//! One run of an import: what is the same for all its targets.

use crate::delivery::context::Setup;
use crate::delivery::ledger::Ledger;
use crate::import::options::ImportOptions;
use crate::intake::open::Found;
use crate::progress::Progress;

/// What every target of a run is given.
pub(crate) struct Run<'r> {
    pub(crate) options: &'r ImportOptions,
    pub(crate) setup: &'r Setup,
    /// The bundles. A target takes out those that turn out to be damaged.
    pub(crate) found: &'r mut Found,
    pub(crate) ledger: &'r mut Ledger,
    pub(crate) progress: &'r dyn Progress,
}
