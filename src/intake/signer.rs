//! The signers of a bundle in reports.

use serde::Serialize;

use crate::trust::keyring::Keyring;
use crate::util::text::escape;

/// A trusted key that signed a bundle.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SignerInfo {
    /// The name of the trusted key on this host.
    pub name: String,
    /// Its fingerprint, which people compare.
    pub fingerprint: String,
    /// Its key ID in hexadecimal.
    pub keyid: String,
    /// The beginning of its fingerprint.
    #[serde(skip)]
    pub short: String,
}

impl SignerInfo {
    /// Returns the signers with the names of their keys on this host.
    pub(crate) fn of(signers: &[crate::trust::key::KeyId], keyring: &Keyring) -> Vec<SignerInfo> {
        let name = |id| keyring.find(id).map_or_else(String::new, |key| escape(&key.name()));
        let signer = |id: &crate::trust::key::KeyId| SignerInfo {
            name: name(*id),
            fingerprint: id.fingerprint(),
            keyid: id.hex(),
            short: id.short(),
        };
        signers.iter().map(signer).collect()
    }
}
