//! Finds out which version of Trivy is installed on this host.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dataset::catalogue::TrivyVersion;

/// The maximum output of the `trivy` on the `PATH` that is read, in bytes.
pub(crate) const MAX_ANSWER: u64 = 16 << 10;

/// Returns the version that the `trivy` on the `PATH` reports, or `None` if there is no such
/// program.
pub(crate) fn trivy_on_path() -> Option<String> {
    /// The time limit. Trivy needs less than 1 s.
    const TIME_LIMIT: Duration = Duration::from_secs(10);
    // With a cache directory that does not exist, Trivy reads no databases. In `/`, it does not
    // read the `trivy.yaml` of a medium that is the working directory.
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

/// Returns the version of the `trivy` on the `PATH` if it is supported, else the newest known
/// version.
pub(crate) fn trivy_version() -> TrivyVersion {
    trivy_on_path().and_then(|version| version.parse().ok()).unwrap_or_else(TrivyVersion::newest)
}
