//! The message when the user ends a run with Ctrl-C.

use std::io::Write;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a program that SIGINT ended, by the convention of shells.
const INTERRUPTED: i32 = 130;

/// Installs a handler that prints this line when an interrupt ends the program. Does nothing if the
/// process ignores interrupts, as background jobs of a shell do. If the handler cannot be
/// installed, an interrupt ends the program without the line.
pub(crate) fn says(line: &'static str) {
    if is_ignored() {
        return;
    }
    let (ready, waits) = std::sync::mpsc::channel();
    let listen = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut interrupts) = signal(SignalKind::interrupt()) else { return };
            let _ = ready.send(());
            if interrupts.recv().await.is_some() {
                let _ = writeln!(std::io::stderr(), "\n{line}");
                std::process::exit(INTERRUPTED);
            }
        });
    };
    if thread::Builder::new().name("interrupt".into()).spawn(listen).is_ok() {
        // Wait for the handler: an earlier interrupt would end the program without the line.
        let _ = waits.recv();
    }
}

/// Whether this process ignores SIGINT (proc_pid_status(5): `SigIgn`).
fn is_ignored() -> bool {
    const SIGINT_BIT: u64 = 1 << 1;
    let status = crate::util::fs::read("/proc/self/status").unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGINT_BIT != 0)
}
