//! The constants of the bundle format: names, types and limits.

use crate::trust::message::PayloadType;

/// The name of the first member, the signed envelope.
pub const MANIFEST: &str = "manifest.dsse.json";

/// The name of the second member, for `sha256sum -c`.
pub const SUMS: &str = "SHA256SUMS";

/// The type of the payload in the envelope of a bundle.
pub const PAYLOAD_TYPE: PayloadType = PayloadType::new("application/vnd.trivy-ferry.bundle.v1+json");

/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;

/// The largest envelope that is read, in bytes. Four datasets need 10 KiB.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// The largest member, in bytes: the largest number that the size field of a ustar header can hold.
pub const MAX_MEMBER: u64 = (8 << 30) - 1;
