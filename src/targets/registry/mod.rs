//! OCI registries as targets.
//!
//! - `client`: asks a registry, and pushes manifests.
//! - `blob`: sends blobs, whole or in chunks; `session` is what it knows of an upload.

mod blob;
mod client;
mod session;

pub use blob::LEAST_CHUNK;
pub(crate) use client::push_under;
pub use client::{BlobBody, BlobContent, PushError, PushOutcome, Registry};
