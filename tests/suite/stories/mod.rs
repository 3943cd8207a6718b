//! The steps of users, with the real program from end to end.

use test_kit::host::Host;

use crate::forge::PROGRAM;

mod auditor;
mod conformance;
mod images;
mod keys;
mod kill;
mod medium;
mod mirror;
mod pipelines;
mod registry;
mod registry_full;
mod registry_makes;
mod schedule;
mod serve;
mod trip;
mod upstream;
mod web;

/// Returns a host with trivy-ferry and no other tool.
pub(crate) fn bare() -> Host {
    Host::bare(PROGRAM)
}

/// Returns a host with trivy-ferry and the real tools.
fn equipped(tools: &str) -> Host {
    Host::with(PROGRAM, tools)
}
