//! Finds out which version of Trivy is installed on this host.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dataset::catalogue::TrivyVersion;

/// The most of an answer of the `trivy` on the PATH that is read, in bytes.
pub(crate) const MAX_ANSWER: u64 = 16 << 10;

/// What the `trivy` on the PATH says is its version; `None` where there is none.
pub(crate) fn trivy_on_path() -> Option<String> {
    /// Trivy answers at once; what does not is no Trivy to wait for.
    const TIME_LIMIT: Duration = Duration::from_secs(10);
    // A cache directory that is not there keeps it from reading anybody's databases, and a folder
    // without a trivy.yaml from reading a stick's.
    let mut child = Command::new("trivy")
        .args(["--cache-dir", "/nonexistent", "--version"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let began = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if began.elapsed() > TIME_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut text = String::new();
    child.stdout?.take(MAX_ANSWER).read_to_string(&mut text).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix("Version: "))?.trim().to_owned())
}

/// The version of the `trivy` on the PATH, where it is one that can be served; else the newest.
pub(crate) fn trivy_version() -> TrivyVersion {
    trivy_on_path().and_then(|version| version.parse().ok()).unwrap_or_else(TrivyVersion::newest)
}
