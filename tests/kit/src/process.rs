//! Commands that have ended, and processes that end with their test.

use std::fs;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

/// No command may take longer, on however slow a machine: hostile input must not keep one busy.
const LONGEST: Duration = Duration::from_secs(300);

/// How long a command may run between two looks at its memory.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A command that has ended. Its assertions return it, so that they can be chained.
#[derive(Debug, Clone)]
pub struct Run {
    line: String,
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
    /// The peak of its resident memory in KiB, as far as it was seen in time.
    pub peak: u64,
    /// How long it kept a processor busy, in steps of 10 ms. Unlike the time on the clock, that does not
    /// depend on what else the machine does.
    pub busy: Duration,
}

impl Run {
    /// Runs a command to its end, and looks at its memory meanwhile. `line` names it in failures.
    ///
    /// # Panics
    /// If it cannot be started, is still running after five minutes, or writes no UTF-8.
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
                // Until it is waited for, the kernel still knows.
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

    /// The exit code is this one.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Run {
        assert!(self.code == code, "exit {}, not {code}\n{self}", self.code);
        self
    }

    /// It succeeded.
    #[track_caller]
    pub fn good(&self) -> &Run {
        self.exits(0)
    }

    /// It failed.
    #[track_caller]
    pub fn fails(&self) -> &Run {
        assert!(self.code != 0, "this should have failed\n{self}");
        self
    }

    /// Stdout holds these words: results and reports.
    #[track_caller]
    pub fn prints(&self, what: &str) -> &Run {
        assert!(!what.is_empty(), "no words");
        assert!(self.out.contains(what), "{what:?} is not on stdout\n{self}");
        self
    }

    /// Stderr holds these words: progress, warnings and errors.
    #[track_caller]
    pub fn warns(&self, what: &str) -> &Run {
        assert!(!what.is_empty(), "no words");
        assert!(self.err.contains(what), "{what:?} is not on stderr\n{self}");
        self
    }

    /// Neither stdout nor stderr holds these words.
    #[track_caller]
    pub fn does_not_say(&self, what: &str) -> &Run {
        assert!(!what.is_empty(), "no words");
        assert!(!self.out.contains(what) && !self.err.contains(what), "{what:?} is in\n{self}");
        self
    }

    /// It was refused with this exit code, in two sentences on stderr that hold these words. An unknown flag
    /// is not refused in this way: the command line is not the program's own words.
    #[track_caller]
    pub fn fails_with(&self, code: i32, words: &[&str]) -> &Run {
        self.exits(code);
        let at = self.err.find("error: ").unwrap_or_else(|| panic!("no error on stderr: {self}"));
        let lines: Vec<&str> = self.err[at..].lines().collect();
        assert_eq!(lines.len(), 2, "two sentences: {self}");
        for line in &lines {
            assert!(line.len() > 20 && line.ends_with(['.', ')']), "a whole sentence: {line:?}");
        }
        for word in words {
            assert!(!word.is_empty(), "no words");
            assert!(self.err[at..].contains(word), "{word:?} is not in the error\n{self}");
        }
        self
    }

    /// Nothing that a terminal would act on.
    #[track_caller]
    pub fn harmless(&self) -> &Run {
        let control = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!self.out.contains(control) && !self.err.contains(control), "{self:#?}");
        self
    }

    /// Stdout as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.out) {
            Ok(value) => value,
            Err(error) => panic!("{error}\n{self}"),
        }
    }

    /// What an import with `--format json` says of one of its targets.
    #[track_caller]
    pub fn target(&self, index: usize) -> Value {
        self.json()["targets"][index].clone()
    }

    /// What became of each dataset in an import with `--format json`, as `name status`.
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

/// The kernel's own high-water mark in KiB, which is gone once the process has ended.
fn peak_so_far(pid: u32) -> u64 {
    // Until it has become the program, it has this one's memory.
    let exe = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    if exe(&pid.to_string()) == exe("self") {
        return 0;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The processor time of a process and its threads: fields 14 and 15 of proc_pid_stat(5).
fn busy_so_far(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind_the_name) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        behind_the_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// How long this thread has kept a processor busy so far.
///
/// # Panics
/// If the kernel has no clock for that.
#[must_use]
pub fn busy_here() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap()
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Process {
        Process(command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program())))
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The process itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Tells it to end, and waits for its exit code.
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

/// How long [`wait_for`] waits: longer than any limit of the program.
const TIME_LIMIT: Duration = Duration::from_secs(150);

/// Waits until something is there, for as long as a slow machine may need.
///
/// # Panics
/// If it is not there after 150 s; `what` is named then.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait(look, || format!("{what}: not after {TIME_LIMIT:?}"))
}

/// Waits for the end of a process.
///
/// # Panics
/// If it has not ended after 150 s.
#[track_caller]
pub fn ended(child: &mut Child) -> ExitStatus {
    wait_for("its end", || child.try_wait().unwrap())
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

/// A line with these words in a log. A line that is still written, whose end is not there, is none.
fn line_of(log: &Path, words: &str) -> Option<String> {
    let text = fs::read_to_string(log).unwrap();
    let lines = &text[..text.rfind('\n')?];
    lines.lines().find(|line| line.contains(words)).map(str::to_owned)
}

/// Waits for a line with these words in a log that another process writes.
///
/// # Panics
/// If it is not there after 150 s.
#[track_caller]
pub fn wait_for_line(log: &Path, words: &str) -> String {
    wait(|| line_of(log, words), || format!("{words:?} is not in\n{}", fs::read_to_string(log).unwrap()))
}

/// Waits until a server says in its log that it serves, and returns its address on loopback, `HOST:PORT`.
///
/// # Panics
/// If it ends before, or does not say so within 150 s.
#[track_caller]
pub fn wait_for_address(server: &mut Child, log: &Path) -> String {
    let said = || format!("it does not serve:\n{}", fs::read_to_string(log).unwrap());
    let look = || {
        let line = line_of(log, "Serving ");
        assert!(line.is_some() || server.try_wait().unwrap().is_none(), "{}", said());
        line
    };
    let line = wait(look, said);
    line.split([' ', ',']).find(|word| word.starts_with("127.")).unwrap().to_owned()
}
