//! The context of a delivery: the host, the keyring and the policy, shared by all targets of a run.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::dataset::catalogue::TrivyVersion;
use crate::delivery::options::AcceptanceOptions;
use crate::scanner::vex_config::VexConfig;
use crate::trust::acceptance::Policy;
use crate::trust::keyring::Keyring;
use crate::trust::max_age::MaxAge;

/// The facts about this host that decisions depend on.
pub(crate) struct HostContext {
    pub(crate) now: Timestamp,
    pub(crate) version: TrivyVersion,
    pub(crate) vex: VexConfig,
    /// The scanner's `XDG_DATA_HOME` as an absolute path, if one was given.
    pub(crate) data_home: Option<PathBuf>,
}

/// The data that all targets of a run share.
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
