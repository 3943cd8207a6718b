//! One module for each command or group of commands, which turns flags into options and the report into an outcome.

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
