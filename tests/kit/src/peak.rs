//! Measures the peak memory of a command with the kernel's accounting.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The memory limit for every command, in bytes.
pub const MAX: u64 = 64 << 20;
/// GNU time. The shell keyword `time` does not measure memory.
const TIME: &str = "/usr/bin/time";

/// A command that has ended.
#[derive(Debug)]
pub struct Measured {
    /// Its peak resident memory in bytes.
    pub peak: u64,
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Its output on stdout.
    pub out: String,
    /// Its output on stderr.
    pub err: String,
}

/// Runs a command to its end and measures its peak memory. Its environment has only the variables
/// that are set in the command, such as those of [`crate::host::Host::program`].
pub fn peak(command: &Command) -> Measured {
    assert!(Path::new(TIME).exists(), "{TIME} is missing: install the package `time`");
    let scratch = tempfile::tempdir().unwrap();
    let [measured, out, err] = ["measured", "out", "err"].map(|name| scratch.path().join(name));
    let mut timed = Command::new(TIME);
    timed.args(["--quiet", "--format", "%M", "--output"]).arg(&measured);
    timed.arg(command.get_program()).args(command.get_args()).env_clear();
    timed.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        timed.current_dir(dir);
    }
    timed.stdin(std::process::Stdio::null());
    timed.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let status = timed.status().unwrap();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let kibibytes: u64 = text(&measured).trim().parse().unwrap();
    Measured { peak: kibibytes * 1024, code: status.code().unwrap_or(-1), out: text(&out), err: text(&err) }
}

/// Runs a command to its end and asserts that it stays below the limit.
///
/// # Panics
/// If it reaches the limit.
#[track_caller]
pub fn bounded(command: &Command) -> Measured {
    let measured = peak(command);
    let args: Vec<_> = command.get_args().collect();
    println!(
        "{} KiB, {} bytes out, {} bytes err: {args:?}",
        measured.peak >> 10,
        measured.out.len(),
        measured.err.len()
    );
    assert!(measured.peak < MAX, "{} MiB: {args:?}", measured.peak >> 20);
    measured
}

/// Returns the peak memory so far of a running process, in bytes.
pub fn high_water(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
