//! Common code of the unit tests and integration tests of trivy-ferry.
//!
//! - [`host`]: the host of a user, with its own home and environment; [`process`]: a command that has ended, and a
//!   process that ends with its test; [`mounts`]: tests that mount file systems.
//! - [`http`]: a web server whose responses a test defines, and [`answers`]: good and bad responses;
//!   [`registry`]: an OCI registry in memory; [`files`]: a server of files with faults;
//!   [`authority`]: a private certificate authority for all of them.
//! - [`real`]: real registries; [`squid`]: a real proxy; [`artifact`]: OCI artifacts as upstream publishes
//!   them, and the sample data; [`vex_hub`]: VEX Hub on a web server.
//! - [`peak`]: the peak of a command's memory; [`noise`]: pseudorandom bytes and choices;
//!   [`sha256`]: digests.
//!
//! The kit implements the formats of Trivy and OCI without trivy-ferry's code, so that its assertions are
//! independent of the tested code.

pub mod answers;
pub mod artifact;
pub mod authority;
pub mod files;
pub mod host;
pub mod http;
pub mod mounts;
pub mod noise;
pub mod peak;
pub mod process;
pub mod real;
pub mod registry;
pub mod sha256;
pub mod squid;
pub mod vex_hub;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// Returns the directory of the real tools: Trivy, crane, regctl, registry, actionlint,
/// the OCI conformance suite, kube and rules.
///
/// # Panics
/// If `TRIVY_FERRY_TOOLS` is not set, a tool is missing there, or the test that calls this is not marked
/// `#[ignore = "tools"]`. `tests/run` sets the variable and runs the marked tests.
#[must_use]
pub fn tools() -> String {
    is_marked();
    let tools = std::env::var("TRIVY_FERRY_TOOLS").expect(
        "TRIVY_FERRY_TOOLS must name the directory of the real tools: run this test with `tests/run NAME`",
    );
    assert!(Path::new(&tools).is_absolute(), "TRIVY_FERRY_TOOLS must be an absolute path: {tools}");
    for tool in ["trivy", "crane", "regctl", "registry", "actionlint", "conformance", "kube", "rules"] {
        assert!(Path::new(&tools).join(tool).is_file(), "{tool} is missing in {tools}: run `tests/run NAME`");
    }
    tools
}

/// Returns the decisions of Go's libraries for the cases of a table. See `tests/tools/rules`.
///
/// # Panics
/// If the tools are missing, the test is not marked, or the decisions do not match the cases of the table.
#[must_use]
pub fn decided_by_go(table: &str, cases: &[serde_json::Value]) -> Vec<serde_json::Value> {
    let mut command = Command::new(format!("{}/rules", tools()));
    command.arg(table).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), cases).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "rules {table} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Fails a test that needs tools, root or mounts, but is not marked, so that a plain `cargo test` would run it.
fn is_marked() {
    static ALL: LazyLock<Vec<String>> = LazyLock::new(|| listed(&[]));
    static MARKED: LazyLock<Vec<String>> = LazyLock::new(|| listed(&["--ignored"]));
    // The harness names a thread after its test. Threads that a test starts have other names.
    let thread = std::thread::current();
    if let Some(test) = thread.name().filter(|name| ALL.iter().any(|test| test == name)) {
        assert!(MARKED.iter().any(|marked| marked == test), "mark {test} with #[ignore = \"tools\"]");
    }
}

/// Returns the names of the marked tests in this program.
fn listed(flags: &[&str]) -> Vec<String> {
    let mut list = Command::new(std::env::current_exe().unwrap());
    list.args(["--list", "--format", "terse"]).args(flags).stdin(Stdio::null());
    let listed = String::from_utf8(list.output().unwrap().stdout).unwrap();
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Fails a test that needs root if another user runs it. Such tests are marked
/// `#[ignore = "tools"]` as well.
///
/// # Panics
/// If the tests do not run as root, or the test is not marked.
pub fn needs_root() {
    is_marked();
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}

/// Whether tests run with more repetitions and random seeds. `tests/run --nightly` sets
/// `TRIVY_FERRY_NIGHTLY=1`.
#[must_use]
pub fn nightly() -> bool {
    std::env::var_os("TRIVY_FERRY_NIGHTLY").is_some_and(|value| value == "1")
}

/// Returns the number of repetitions of a test: `usual`, `nightly` in a nightly run, and
/// `TRIVY_FERRY_RUNS` if that is set.
///
/// # Panics
/// If `TRIVY_FERRY_RUNS` is not a number.
#[must_use]
pub fn runs(usual: u64, nightly: u64) -> u64 {
    let asked = std::env::var("TRIVY_FERRY_RUNS").ok().map(|runs| runs.parse().unwrap());
    asked.unwrap_or(if self::nightly() { nightly } else { usual })
}
