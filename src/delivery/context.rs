//! The context of a delivery: the host, the keyring and the rules, the same for all targets of a run.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::options::AcceptanceOptions;
use crate::scanner::vex_config::VexConfig;
use crate::trust::acceptance::Policy;
use crate::trust::keyring::Keyring;
use crate::trust::max_age::MaxAge;

/// Everything about this host that decides.
pub(crate) struct HostContext {
    pub(crate) now: Timestamp,
    pub(crate) version: TrivyVersion,
    pub(crate) vex: VexConfig,
    /// The scanner's XDG_DATA_HOME, where one was named; absolute.
    pub(crate) data_home: Option<PathBuf>,
}

/// Everything that is the same for all targets of a run.
pub(crate) struct DeliveryContext {
    pub(crate) host: HostContext,
    pub(crate) keyring: Keyring,
    pub(crate) policy: Policy,
    pub(crate) max_age: Option<MaxAge>,
}

impl DeliveryContext {
    pub(crate) fn new(host: HostContext, keyring: Keyring, acceptance: &AcceptanceOptions) -> Self {
        DeliveryContext { host, keyring, policy: acceptance.policy(), max_age: acceptance.max_age.clone() }
    }
}
