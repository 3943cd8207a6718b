//! The stories that users live through, told with the real program from end to end.
//!
//! Those that need other tools (Trivy, registries, skopeo, openssl) run with `TRIVY_FERRY_E2E=1`
//! and the folder of the tools in `TRIVY_FERRY_TOOLS`, as `tests/run` sets them; then a missing
//! tool is a failure. Without it they say that they were skipped.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod auditor;
mod images;
mod keys;
mod kill;
mod mirror;
mod pipelines;
mod registry;
mod registry_full;
mod registry_makes;
mod schedule;
mod serve;
mod stick;
mod trip;
mod upstream;
mod web;
