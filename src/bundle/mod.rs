//! The bundle format: one signed tar file, or the same file split into volumes. `bundle-format.md` specifies it.
//!
//! This module reads, writes, signs and verifies bundles, encodes their parity and rebuilds them from it. It
//! accesses no networks, sources or targets.

mod assemble;
pub mod chunks;
mod content;
mod error;
pub mod format;
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

pub use chunks::{VerifiedBlob, VerifiedBlobs};
pub(crate) use content::{begins_with, open_regular};
pub use error::BundleError;
pub use format::{FORMAT, MANIFEST, MAX_MANIFEST, MAX_MEMBER, PAYLOAD_TYPE, SUMS};
pub use heartbeat::Heartbeat;
#[cfg(feature = "cli")]
pub(crate) use hint::{REPAIR_ADVICE, VERIFY_ADVICE};
pub use payload::{Dataset, Image, Member, Payload, Stream};
pub use read_back::read_back;
pub use reader::{SignedBundle, UnverifiedBundle, VerifiedBundle};
pub use writer::{BundlePlan, BundleWriter};
