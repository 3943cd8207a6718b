//! The end of a run by a signal: the message after Ctrl-C, and SIGTERM for the first process of a container.

use std::io::Write;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// The exit code of a program that SIGINT ended, by the convention of shells.
const INTERRUPTED: i32 = 130;

/// The exit code of a program that SIGTERM ended, by the convention of shells.
const TERMINATED: i32 = 143;

/// Ends the program at SIGTERM if it is the first process of a container. The kernel ignores a signal without a handler
/// for this process (pid_namespaces(7)), so that stopping the container would wait until it is killed.
pub(crate) fn end_at_sigterm_in_containers() {
    if std::process::id() == 1 {
        on(SignalKind::terminate(), || std::process::exit(TERMINATED));
    }
}

/// Installs a handler that prints this line when an interrupt ends the program. Does nothing if the
/// process ignores interrupts, as background jobs of a shell do. If the handler cannot be
/// installed, an interrupt ends the program without the line.
pub(crate) fn says(line: &'static str) {
    if is_ignored() {
        return;
    }
    on(SignalKind::interrupt(), move || {
        let _ = writeln!(std::io::stderr(), "\n{line}");
        std::process::exit(INTERRUPTED);
    });
}

/// Calls a function when the process gets a signal. Returns once the handler is installed.
fn on(kind: SignalKind, then: impl FnOnce() + Send + 'static) {
    let (ready, waits) = std::sync::mpsc::channel();
    let listen = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(mut signals) = signal(kind) else { return };
            let _ = ready.send(());
            if signals.recv().await.is_some() {
                then();
            }
        });
    };
    if thread::Builder::new().name("signal".into()).spawn(listen).is_ok() {
        // Wait for the handler: an earlier signal would have the effect that it has without one.
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
