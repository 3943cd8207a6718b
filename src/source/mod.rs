//! Where data comes from: registries, web servers and directories.
//!
//! This module fetches, and checks that it got what was asked for: the size, the digest and the kind of the
//! answer. It does not know what the content means, which is the business of `dataset`, nor how a server is
//! talked to, which `remote` knows.

mod artifact;
mod blob;
pub mod error;
mod files;
mod hint;
mod image;
mod layout;
mod network;
mod reference;
mod registry;
mod transfer;
mod vex;

#[cfg(test)]
mod tests;

pub use artifact::{Artifact, RawManifest};
pub use blob::{Blob, UnhashedBlob};
pub use error::SourceError;
pub use image::{Image, ImageManifest};
pub use network::Network;
pub use reference::ArtifactSource;
pub use vex::VexRepository;
pub use vex::place::VexSource;
