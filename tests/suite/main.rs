//! The integration tests: one program, so that the library is linked once.
//!
//! - [`stories`]: the steps of users, from end to end.
//! - [`forge`]: creates hosts and bundles for the tests of bad input.
//! - All others: one module for each property that users rely on.
//!
//! Tests marked `#[ignore = "tools"]` need tools of the system, the real Trivy and registries, or
//! root. `tests/run` downloads and builds the tools, and runs these tests too.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod acceptance;
mod bad_internet;
mod bad_media;
mod cache_filesystems;
mod cache_settings;
mod cli;
mod clocks;
mod content;
mod contrib;
mod damage;
mod debug_log;
mod deltas;
mod forge;
mod golden;
mod golden_state;
mod heartbeat;
mod hostile_clients;
mod hostile_owner;
mod hostile_registry;
mod hostile_sources;
mod import_log;
mod json_contract;
mod locks;
mod memory;
mod memory_limits;
mod missing;
mod month;
mod odd_sources;
mod parity;
mod power_cut;
mod pushes;
mod registry_dates;
mod remarks;
mod replicas;
mod samples;
mod secrets;
mod shared_volume;
mod shell;
mod site_network;
mod special_files;
mod status;
mod status_targets;
mod stories;
mod terminal;
mod trust_rules;
mod volumes;
mod watch;
