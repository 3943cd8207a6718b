//! OCI registries as targets.
//!
//! - `client`: sends requests to a registry, and pushes manifests.
//! - `blob`: uploads blobs, in one request or in chunks; `session` is the state of an upload.

mod blob;
mod client;
mod session;

pub use blob::LEAST_CHUNK;
pub(crate) use client::push_under;
pub use client::{BlobBody, BlobContent, PushError, PushOutcome, Registry};
