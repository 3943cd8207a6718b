//! Bundles on media: which files belong together, what they hold, and the commands `inspect`, `verify`,
//! `repair` and `sign`.
//!
//! This module knows the format of bundles and the trusted keys. It knows nothing of networks, and not
//! where the data goes.

pub(crate) mod file_sets;
pub(crate) mod inspect;
pub(crate) mod namesakes;
pub(crate) mod open;
pub(crate) mod rebuild;
pub(crate) mod renamed;
pub(crate) mod repair;
pub(crate) mod sign;
pub(crate) mod signer;
pub(crate) mod staging;
pub(crate) mod unpack;
pub(crate) mod verify;
