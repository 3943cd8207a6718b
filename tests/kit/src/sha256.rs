//! SHA-256 digests as OCI writes them.

use std::fmt::Write;

use sha2::Digest;

/// Returns the digest of some bytes: 64 hexadecimal digits.
#[must_use]
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digest = sha2::Sha256::digest(bytes.as_ref());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Returns the digest of some bytes: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn digest(bytes: impl AsRef<[u8]>) -> String {
    format!("sha256:{}", hex(bytes))
}
