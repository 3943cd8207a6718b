//! Reports as text.

mod bundle;
pub(crate) mod delivery;
mod export;
mod rehearse;
mod status;
mod watch;
