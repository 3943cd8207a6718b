//! What is said when somebody ends a run with Ctrl-C: whether anything of it is kept.

use std::io::Write;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// What a shell takes a program for that ended because of SIGINT.
const INTERRUPTED: i32 = 130;

/// From now on, an interrupt says this line and ends the program. Not if whoever started it has it ignore interrupts,
/// as a shell does for what it starts in the background; and if the signal cannot be waited for, it ends the
/// program as it always did.
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
        // What comes before ends the program without a word.
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
