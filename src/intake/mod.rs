//! Bundles on media: which files belong together, what is in them, and the operations on them.

pub(crate) mod file_sets;
pub(crate) mod inspect;
pub(crate) mod namesakes;
pub(crate) mod open;
pub(crate) mod rebuild;
pub(crate) mod repair;
pub(crate) mod sign;
pub(crate) mod signer;
pub(crate) mod staging;
pub(crate) mod unpack;
pub(crate) mod verify;
