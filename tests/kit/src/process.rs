//! Commands that have ended, and processes that end with their tests.

use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

/// The time limit for any command, even on a slow machine.
const LONGEST: Duration = Duration::from_secs(300);

/// The interval at which the memory of a command is measured.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A command that has ended. Its assertions return it, so that they can be chained.
#[derive(Debug, Clone)]
pub struct Run {
    line: String,
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Its output on stdout.
    pub out: String,
    /// Its output on stderr.
    pub err: String,
    /// Its peak resident memory in KiB, as measured while it ran.
    pub peak: u64,
    /// Its processor time, in steps of 10 ms. Unlike the elapsed time, this does not depend on the load of the
    /// machine.
    pub busy: Duration,
}

impl Run {
    /// Runs a command to its end, and measures its memory meanwhile. `line` names it in failures.
    ///
    /// # Panics
    /// If it cannot be started, runs longer than 5 minutes, or its output is not UTF-8.
    #[track_caller]
    pub fn of(command: &mut Command, line: &str) -> Run {
        let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let began = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        let (mut peak, mut busy) = (0, Duration::ZERO);
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let status = loop {
            peak = peak.max(peak_so_far(child.id()));
            let pause = Timespec::try_from(BETWEEN_LOOKS).unwrap();
            let has_ended = poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&pause)).unwrap() > 0;
            if has_ended {
                // The kernel discards the time when `try_wait` reaps the process.
                busy = busy_so_far(child.id());
            }
            if has_ended && let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LONGEST {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("still running after {LONGEST:?}: {line}");
            }
        };
        let text = |file: &mut fs::File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap_or_else(|e| panic!("{line}: {e}"))
        };
        let code = status.code().unwrap_or(-1);
        Run { line: line.into(), code, out: text(&mut out), err: text(&mut err), peak, busy }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Run {
        assert!(self.code == code, "exit {}, not {code}\n{self}", self.code);
        self
    }

    /// Asserts that it succeeded.
    #[track_caller]
    pub fn good(&self) -> &Run {
        self.exits(0)
    }

    /// Asserts that it failed.
    #[track_caller]
    pub fn fails(&self) -> &Run {
        assert!(self.code != 0, "the command should have failed\n{self}");
        self
    }

    /// Asserts that stdout, which has results and reports, contains these words.
    #[track_caller]
    pub fn prints(&self, what: &str) -> &Run {
        assert!(!what.is_empty(), "no words");
        assert!(self.out.contains(what), "{what:?} is not on stdout\n{self}");
        self
    }

    /// Asserts that stderr, which has progress, warnings and errors, contains these words.
    #[track_caller]
    pub fn warns(&self, what: &str) -> &Run {
        assert!(!what.is_empty(), "no words");
        assert!(self.err.contains(what), "{what:?} is not on stderr\n{self}");
        self
    }

    /// Asserts that neither stdout nor stderr contains these words.
    #[track_caller]
    pub fn does_not_say(&self, what: &str) -> &Run {
        assert!(!what.is_empty(), "no words");
        assert!(!self.out.contains(what) && !self.err.contains(what), "{what:?} is in\n{self}");
        self
    }

    /// Asserts that it failed with this exit code, and an error and a hint on stderr that contain these words. Errors
    /// of the command line parser have another form.
    #[track_caller]
    pub fn fails_with(&self, code: i32, words: &[&str]) -> &Run {
        self.exits(code);
        let at = self.err.find("error: ").unwrap_or_else(|| panic!("no error on stderr: {self}"));
        let lines: Vec<&str> = self.err[at..].lines().collect();
        assert_eq!(lines.len(), 2, "not an error and a hint: {self}");
        for line in &lines {
            assert!(line.len() > 20 && line.ends_with(['.', ')']), "not a complete sentence: {line:?}");
        }
        for word in words {
            assert!(!word.is_empty(), "no words");
            assert!(self.err[at..].contains(word), "{word:?} is not in the error\n{self}");
        }
        self
    }

    /// Asserts that the output has no control characters for a terminal.
    #[track_caller]
    pub fn harmless(&self) -> &Run {
        let control = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!self.out.contains(control) && !self.err.contains(control), "{self:#?}");
        self
    }

    /// Returns stdout as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.out) {
            Ok(value) => value,
            Err(error) => panic!("{error}\n{self}"),
        }
    }

    /// Returns the result of a target in the output of `import --format json`.
    #[track_caller]
    pub fn target(&self, index: usize) -> Value {
        self.json()["targets"][index].clone()
    }

    /// Returns the results of the datasets in the output of `import --format json`, as `name status`.
    #[track_caller]
    pub fn statuses(&self) -> Vec<String> {
        let target = self.target(0);
        let rows = target["datasets"].as_array().unwrap();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let mut rows: Vec<String> =
            rows.iter().map(|row| format!("{} {}", word(&row["name"]), word(&row["status"]))).collect();
        rows.sort();
        rows
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "$ {}\n{}\n--- stderr, exit {}, busy for {:?}\n{}",
            self.line, self.out, self.code, self.busy, self.err
        )
    }
}

/// Returns the peak memory of a running process in KiB.
fn peak_so_far(pid: u32) -> u64 {
    // Before `exec`, the child has the memory of this process.
    let exe = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    if exe(&pid.to_string()) == exe("self") {
        return 0;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Returns the processor time of a process and its threads: fields 14 and 15 of proc_pid_stat(5).
fn busy_so_far(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind_the_name) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        behind_the_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Returns the processor time of this thread.
///
/// # Panics
/// If the kernel does not provide it.
#[must_use]
pub fn busy_here() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap()
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a process.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Process {
        Process(command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program())))
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Returns the process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Returns its process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends SIGTERM, and waits for the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        ended(&mut self.0).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The time limit of [`wait_for`]. This is longer than any time limit of the program.
const TIME_LIMIT: Duration = Duration::from_secs(150);

/// Waits until `look` returns a value.
///
/// # Panics
/// If it returns none for 150 s. The message contains `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait(look, || format!("timeout after {TIME_LIMIT:?}: {what}"))
}

/// Waits for the end of a process.
///
/// # Panics
/// If it has not ended after 150 s.
#[track_caller]
pub fn ended(child: &mut Child) -> ExitStatus {
    wait_for("the end of the process", || child.try_wait().unwrap())
}

#[track_caller]
fn wait<T>(mut look: impl FnMut() -> Option<T>, missed: impl FnOnce() -> String) -> T {
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{}", missed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a line with these words in a log. A line without an end is ignored, because it is still being written.
fn line_of(log: &Path, words: &str) -> Option<String> {
    let text = fs::read_to_string(log).unwrap();
    let lines = &text[..text.rfind('\n')?];
    lines.lines().find(|line| line.contains(words)).map(str::to_owned)
}

/// Waits for a line with these words in a log that another process writes.
///
/// # Panics
/// If there is no such line after 150 s.
#[track_caller]
pub fn wait_for_line(log: &Path, words: &str) -> String {
    wait(|| line_of(log, words), || format!("{words:?} is not in\n{}", fs::read_to_string(log).unwrap()))
}

/// Waits until a server's log has its loopback address, and returns it as `HOST:PORT`.
///
/// # Panics
/// If it ends before that, or the log has no address after 150 s.
#[track_caller]
pub fn wait_for_address(server: &mut Child, log: &Path) -> String {
    let said = || format!("the server's log has no address:\n{}", fs::read_to_string(log).unwrap());
    let look = || {
        let line = line_of(log, "Serving ");
        assert!(line.is_some() || server.try_wait().unwrap().is_none(), "{}", said());
        line
    };
    let line = wait(look, said);
    line.split([' ', ',']).find(|word| word.starts_with("127.")).unwrap().to_owned()
}
