//! Tests that mount file systems, in private mount namespaces.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::needs_root;

/// The variable with the directory of the mounts, for a test that [`again_in_mounts`] runs again.
const MOUNTS: &str = "TRIVY_FERRY_TEST_MOUNTS";

/// Fails a test that mounts file systems if it may not. Such tests are marked
/// `#[ignore = "tools"]` as well.
///
/// # Panics
/// If the tests may not mount, or the test is not marked.
pub fn needs_mounts() {
    static MAY_MOUNT: LazyLock<bool> = LazyLock::new(|| {
        let mut mount = Command::new("unshare");
        mount.args(["--mount", "mount", "-t", "tmpfs", "tests", "/tmp"]).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    });
    needs_root();
    assert!(*MAY_MOUNT, "this test mounts file systems, which needs CAP_SYS_ADMIN");
}

/// Runs the calling test again in a private mount namespace, after a shell script. In the script, `$D` is a directory
/// with a file system in memory. Returns true in that run, and false in the first run after that run has passed.
///
/// # Panics
/// If that run fails, or the test may not mount.
#[must_use]
pub fn again_in_mounts(script: &str) -> bool {
    if std::env::var_os(MOUNTS).is_some() {
        return true;
    }
    needs_mounts();
    let thread = std::thread::current();
    let dir = tempfile::tempdir().unwrap();
    let line = format!(
        "set -e; D=${MOUNTS}; mount -t tmpfs -o size=512m none \"$D\"; {script}\n\
         exec \"$EXE\" $NAME --exact --include-ignored --nocapture"
    );
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "bash", "-c", &line])
        .env(MOUNTS, dir.path())
        .env("EXE", std::env::current_exe().unwrap())
        .env("NAME", thread.name().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Returns the directory of the mounts.
///
/// # Panics
/// If the test was not started by [`again_in_mounts`].
#[must_use]
pub fn mounts() -> PathBuf {
    PathBuf::from(std::env::var_os(MOUNTS).unwrap())
}
