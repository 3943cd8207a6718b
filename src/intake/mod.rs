//! Bundles on media: finds the files that belong together, unpacks them, and implements the commands `inspect`,
//! `verify`, `repair` and `sign`.
//!
//! This module depends on the bundle format and the trusted keys, but not on networks or the targets of an import.

pub(crate) mod file_sets;
pub(crate) mod inspect;
pub(crate) mod namesakes;
pub(crate) mod open;
pub(crate) mod rebuild;
mod rebuild_delta;
pub(crate) mod receiver;
pub(crate) mod renamed;
pub(crate) mod repair;
pub(crate) mod sign;
pub(crate) mod signer;
pub(crate) mod skipped;
pub(crate) mod staging;
pub(crate) mod unpack;
pub(crate) mod verify;
