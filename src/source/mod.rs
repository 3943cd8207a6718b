//! The sources of data: registries, web servers and directories.
//!
//! This module fetches data and verifies that an answer is the requested one: its size, its digest
//! and its kind. It does not interpret the content (`dataset` does), and does not implement the
//! protocols of servers (`remote` does).

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
