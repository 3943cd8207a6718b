//! One file for each command that needs no module of the library.

pub(crate) mod completions;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod trust;
