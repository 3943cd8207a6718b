//! The bundle: one signed tar file that holds everything, whole or in volumes. `bundle-format.md` specifies
//! it.
//!
//! This room knows the format, its writer and its reader, and the envelope that signs it. It knows
//! nothing of networks or of Trivy's cache.

pub mod chunks;
mod content;
mod error;
mod header;
pub mod heartbeat;
mod hint;
pub(crate) mod names;
pub mod parity;
pub mod payload;
mod read_back;
pub mod reader;
pub mod sign;
pub mod volumes;
pub mod writer;

pub use chunks::{CheckedBlob, CheckedBlobs};
pub(crate) use content::open_regular;
pub use error::BundleError;
pub use heartbeat::Heartbeat;
pub use payload::{Dataset, Image, Member, Payload, Stream};
pub use read_back::read_back;
pub use reader::{SignedBundle, UnverifiedBundle, VerifiedBundle};
pub use writer::{BundleWriter, Plan};

use crate::trust::envelope::PayloadType;

/// The name of the first member, the signed envelope.
pub const MANIFEST: &str = "manifest.dsse.json";
/// The name of the second member, for `sha256sum -c`.
pub const SUMS: &str = "SHA256SUMS";
/// The type of the payload in the envelope of a bundle.
pub const PAYLOAD_TYPE: PayloadType = PayloadType::new("application/vnd.trivy-ferry.bundle.v1+json");
/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;
/// The largest envelope that is read, in bytes. Four datasets need 8 KiB.
pub const MAX_MANIFEST: u64 = 1 << 20;
/// The largest member, in bytes: what the size field of a ustar header can hold.
pub const MAX_MEMBER: u64 = (8 << 30) - 1;
