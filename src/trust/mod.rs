//! Trust: decides which keys signed a bundle, and whether it is acceptable here and now.
//!
//! This module handles keys, signatures, the state of earlier imports and exports, and the rules of
//! acceptance. It does not depend on archives, targets or networks.

pub mod acceptance;
pub mod envelope;
mod error;
pub mod export_log;
mod hint;
pub mod key;
pub mod key_files;
pub mod keyring;
pub mod log;
pub mod max_age;
pub mod message;
pub mod secret;
pub mod signer;
pub mod state;
mod target_runs;

pub use error::{Rejection, TrustError};
