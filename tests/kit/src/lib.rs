//! What the tests of trivy-ferry share, unit tests and integration tests alike.
//!
//! - [`host`]: a computer of one of the users, with a home and an environment of its own;
//!   [`process`]: a command that has ended, and a process that ends with its test.
//! - [`http`]: a web server that answers as a test says, and [`answers`]: answers good and bad;
//!   [`registry`]: an OCI registry in memory; [`files`]: a server of files with faults;
//!   [`authority`]: a private certificate authority for all of them.
//! - [`real`]: real registries; [`squid`]: a real proxy; [`artifact`]: OCI artifacts as upstream publishes
//!   them, and the sample data; [`vex_hub`]: VEX Hub on a web server.
//! - [`peak`]: the peak of a command's memory; [`noise`]: bytes and choices that look random and repeat;
//!   [`sha256`]: digests.
//!
//! The kit knows the formats of Trivy and OCI, and nothing of trivy-ferry's code: what it asserts with is
//! made independently of what is tested.

pub mod answers;
pub mod artifact;
pub mod authority;
pub mod files;
pub mod host;
pub mod http;
pub mod noise;
pub mod peak;
pub mod process;
pub mod real;
pub mod registry;
pub mod sha256;
pub mod squid;
pub mod vex_hub;

use std::path::Path;

/// The directory of the real tools: Trivy, crane, regctl, registry, actionlint, the OCI conformance suite and kube.
///
/// # Panics
/// If `TRIVY_FERRY_TOOLS` is not set or a tool is missing there. Tests that call this are marked
/// `#[ignore = "tools"]`; `tests/run` sets the variable and runs them.
#[must_use]
pub fn tools() -> String {
    let tools = std::env::var("TRIVY_FERRY_TOOLS")
        .expect("TRIVY_FERRY_TOOLS must name the directory of the real tools: run tests/run");
    for tool in ["trivy", "crane", "regctl", "registry", "actionlint", "conformance", "kube"] {
        assert!(Path::new(&tools).join(tool).is_file(), "{tool} is missing in {tools}: run tests/run");
    }
    tools
}

/// Fails a test that only root can run. Such tests are marked `#[ignore = "tools"]` as well.
///
/// # Panics
/// If the tests do not run as root.
pub fn needs_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}

/// Whether counts are raised and seeds are random, as `tests/run --nightly` asks for by
/// `TRIVY_FERRY_NIGHTLY=1`.
#[must_use]
pub fn nightly() -> bool {
    std::env::var_os("TRIVY_FERRY_NIGHTLY").is_some_and(|value| value == "1")
}

/// How often a test repeats something: `usual` times, `nightly` times in a nightly run, and
/// `TRIVY_FERRY_RUNS` times if that is set.
///
/// # Panics
/// If `TRIVY_FERRY_RUNS` is no number.
#[must_use]
pub fn runs(usual: u64, nightly: u64) -> u64 {
    let asked = std::env::var("TRIVY_FERRY_RUNS").ok().map(|runs| runs.parse().unwrap());
    asked.unwrap_or(if self::nightly() { nightly } else { usual })
}
