//! One file for each command, or for those that are alike: options in, report out.

pub(crate) mod bundle;
pub(crate) mod completions;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod trust;
