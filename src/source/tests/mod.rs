//! Tests of sources against servers and directories.

mod directory;
mod registry;
mod testing;
mod transfer;
