//! One file for each command, or for those that are alike: options in, report out.

pub(crate) mod bundle;
pub(crate) mod completions;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod keygen;
pub(crate) mod man;
pub(crate) mod mirror;
pub(crate) mod rehearse;
pub(crate) mod serve;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod trust;
pub(crate) mod watch;
