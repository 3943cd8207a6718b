//! Who signed a bundle, as reports say it.

use std::fmt;

use serde::Serialize;

use crate::trust::keyring::Keyring;
use crate::util::text::safe;

/// A trusted key that signed a bundle.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Signer {
    pub(crate) name: String,
    pub(crate) fingerprint: String,
    pub(crate) keyid: String,
    #[serde(skip)]
    short: String,
}

impl Signer {
    /// The trusted keys that signed a bundle, by the names that they have here.
    pub(crate) fn of(signers: &[crate::trust::key::KeyId], keyring: &Keyring) -> Vec<Signer> {
        let name = |id| keyring.find(id).map_or_else(String::new, |key| safe(&key.name()));
        let signer = |id: &crate::trust::key::KeyId| Signer {
            name: name(*id),
            fingerprint: id.fingerprint(),
            keyid: id.hex(),
            short: id.short(),
        };
        signers.iter().map(signer).collect()
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (trusted: {})", self.short, self.name)
    }
}
