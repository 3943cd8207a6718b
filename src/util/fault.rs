//! Fault injection for tests. Every change to the file system calls [`step`] just before it happens. This exists in
//! unit tests and in builds with debug assertions; a release build does not contain it.
//!
//! A unit test makes the changes of its thread fail after some steps with `kill_after`, or makes an exchange fail. An
//! integration test starts the program with environment variables:
//!
//! - `TRIVY_FERRY_TEST_KILL_AT=N`: the process sends SIGKILL to itself at its `N`th step, before that change.
//!   The first step is 1. Steps are counted across all threads.
//! - `TRIVY_FERRY_TEST_STEPS=FILE`: the process appends a line for each step to this file, such as
//!   `17 rename "db"`, so that a test can count the steps of a run.
//! - `TRIVY_FERRY_TEST_REFUSE=WHAT:NAME:NUMBERS`: steps of this kind with this name fail one after the other with
//!   these system error numbers, such as `rename:a.tar:0,16,13`. A step with the number 0 succeeds, and so do
//!   all steps after the last number.

#[cfg(test)]
use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::io;

#[cfg(test)]
use rustix::io::Errno;

#[cfg(debug_assertions)]
mod process {
    use std::ffi::OsStr;
    use std::fs::File;
    use std::io::{self, Write};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// The settings in the environment.
    struct Plan {
        kill_at: u64,
        steps: Option<File>,
        refuse: Option<RefusePlan>,
    }

    /// The steps that fail, and their errors.
    struct RefusePlan {
        what: String,
        name: String,
        numbers: Vec<i32>,
        seen: AtomicUsize,
    }

    impl RefusePlan {
        fn of(text: &str) -> Option<RefusePlan> {
            let (what, rest) = text.split_once(':')?;
            let (name, numbers) = rest.rsplit_once(':')?;
            let numbers = numbers.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
            Some(RefusePlan { what: what.into(), name: name.into(), numbers, seen: AtomicUsize::new(0) })
        }

        fn step(&self, what: &str, name: &OsStr) -> io::Result<()> {
            if self.what != what || name != self.name.as_str() {
                return Ok(());
            }
            match self.numbers.get(self.seen.fetch_add(1, Ordering::SeqCst)) {
                None | Some(0) => Ok(()),
                Some(number) => Err(io::Error::from_raw_os_error(*number)),
            }
        }
    }

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    static TAKEN: AtomicU64 = AtomicU64::new(0);

    impl Plan {
        fn of_environment() -> Option<Plan> {
            const KILL_AT: &str = "TRIVY_FERRY_TEST_KILL_AT";
            const STEPS: &str = "TRIVY_FERRY_TEST_STEPS";
            const REFUSE: &str = "TRIVY_FERRY_TEST_REFUSE";
            let kill_at = std::env::var(KILL_AT)
                .ok()
                .map(|number| number.parse().unwrap_or_else(|error| panic!("{KILL_AT}={number:?}: {error}")));
            let steps = std::env::var_os(STEPS).map(|path| {
                let file = File::options().create(true).append(true).open(&path);
                file.unwrap_or_else(|error| panic!("{STEPS}={}: {error}", path.display()))
            });
            let refuse = std::env::var(REFUSE)
                .ok()
                .map(|text| RefusePlan::of(&text).unwrap_or_else(|| panic!("{REFUSE}={text:?}")));
            let is_any = kill_at.is_some() || steps.is_some() || refuse.is_some();
            is_any.then(|| Plan { kill_at: kill_at.unwrap_or(u64::MAX), steps, refuse })
        }
    }

    pub(super) fn step(what: &str, name: &OsStr) -> io::Result<()> {
        let Some(Plan { kill_at, steps, refuse }) = PLAN.get_or_init(Plan::of_environment) else {
            return Ok(());
        };
        let number = TAKEN.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(mut steps) = steps.as_ref() {
            // One call of write(2), so that the lines of threads do not mix.
            let _ = steps.write_all(format!("{number} {what} {name:?}\n").as_bytes());
        }
        if number >= *kill_at {
            let _ = kill_process(getpid(), Signal::KILL);
            // The signal may take a moment to reach this thread, which must not change anything meanwhile.
            loop {
                std::thread::park();
            }
        }
        refuse.as_ref().map_or(Ok(()), |refuse| refuse.step(what, name))
    }
}

/// Kills the process or fails here if a test asks for that.
pub(crate) fn step(what: &str, name: &OsStr) -> io::Result<()> {
    #[cfg(debug_assertions)]
    process::step(what, name)?;
    #[cfg(test)]
    step_of_thread(what, name)?;
    Ok(())
}

#[cfg(test)]
thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    static TRACE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static REFUSE: Cell<Refuse> = const { Cell::new(Refuse::Nothing) };
}

/// The calls that fail as if the file system did not support them.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refuse {
    Nothing,
    /// An exchange, as on FAT and FUSE.
    Exchange,
    /// Moving a directory of the lower layer of an overlay.
    Move,
}

/// Lets `steps` more changes of this thread succeed and none after them. `None` lets all succeed.
#[cfg(test)]
pub(crate) fn kill_after(steps: Option<u32>) {
    LEFT.set(steps);
}

#[cfg(test)]
pub(crate) fn refuse(what: Refuse) {
    REFUSE.set(what);
}

/// Returns the changes of this thread since the last call.
#[cfg(test)]
pub(crate) fn trace() -> Vec<String> {
    TRACE.take()
}

#[cfg(test)]
fn step_of_thread(what: &str, name: &OsStr) -> io::Result<()> {
    match LEFT.get() {
        Some(0) => return Err(io::Error::other("killed by the test")),
        Some(left) => LEFT.set(Some(left - 1)),
        None => {}
    }
    TRACE.with_borrow_mut(|trace| trace.push(format!("{what} {}", name.to_string_lossy())));
    Ok(())
}

#[cfg(test)]
pub(crate) fn exchange() -> io::Result<()> {
    match REFUSE.get() {
        Refuse::Nothing => Ok(()),
        Refuse::Exchange => Err(Errno::INVAL.into()),
        Refuse::Move => Err(Errno::XDEV.into()),
    }
}
