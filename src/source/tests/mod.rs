//! Tests of sources against servers and directories.

mod directory;
mod layouts;
mod registry;
mod testing;
mod transfer;
