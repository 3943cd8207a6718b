//! The retry policy: how often a request is repeated, and after what pause.
//!
//! Errors that may pass are retried per host, after pauses that grow or that the server asks for. Other
//! errors are not retried. A run can have a deadline, after which no server is asked.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::progress::Progress;
use crate::remote::error::RemoteError;
use crate::util::threads::lock;

/// The first pause. Each one after a further failure is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause that nobody asked for.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest pause that a server may ask for, and without a deadline also the sum of all such pauses of a run, where
/// nobody says otherwise: another source may be had at once, the next run is not far, and others wait for this one.
pub const PAUSE: Duration = Duration::from_secs(600);
/// How often a host is retried that has not answered in this run: a name may be misspelled.
const FIRST_CONTACT_RETRIES: u32 = 2;
/// How often a request that failed for a while is repeated, where nobody says otherwise: for about a
/// minute.
pub const RETRIES: u32 = 8;

/// How long a server may be silent, where nobody says otherwise.
pub const STALL: Duration = Duration::from_secs(60);

/// How long to keep on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// How often in a row a host is asked again.
    pub retries: u32,
    /// After how long nothing is asked any more.
    pub deadline: Option<Duration>,
    /// How long a server may be silent.
    pub stall: Duration,
    /// The longest pause that a server may ask for. Without a deadline all of them together take no longer.
    pub pause: Duration,
}

impl RetryLimits {
    /// The limits of a run that begins now.
    pub(crate) fn begin(self) -> RunLimits {
        self.since(Instant::now())
    }

    /// The limits of a run that began at this moment.
    pub(crate) fn since(self, began: Instant) -> RunLimits {
        RunLimits { limits: self, began }
    }
}

/// The limits of a run that has begun. There is one beginning, whatever is asked first or last: the deadline is the same
/// moment for all servers.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    limits: RetryLimits,
    began: Instant,
}

impl RunLimits {
    /// When the time is over.
    pub(crate) fn until(&self) -> Option<Deadline> {
        let given = self.limits.deadline?;
        Some(Deadline { at: self.began.checked_add(given)?, given })
    }

    /// How long a server may be silent.
    pub(crate) fn stall(&self) -> Duration {
        self.limits.stall
    }
}

/// The end of a run's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The moment.
    pub(crate) at: Instant,
    /// How long the run was given.
    pub(crate) given: Duration,
}

impl Default for RetryLimits {
    fn default() -> Self {
        RetryLimits { retries: RETRIES, deadline: None, stall: STALL, pause: PAUSE }
    }
}

/// Whether an error goes away by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It stays until somebody changes something.
    Never,
    /// It may be gone after a while; the server may have said after how long.
    After(Option<Duration>),
}

/// An error that a request ends with.
pub(crate) trait Retryable: Display + From<RemoteError> {
    /// Whether the same request may succeed later.
    fn retry(&self) -> Retry;

    /// Whether the host could not be talked to.
    fn is_unreachable(&self) -> bool;
}

/// The retry policy of a run.
pub(crate) struct RetryPolicy<'p> {
    run: RunLimits,
    time: Clock,
    hosts: Mutex<HashMap<String, HostState>>,
    /// How long the pauses were that servers asked for.
    asked: Mutex<Duration>,
    progress: &'p dyn Progress,
}

/// The time that pauses take. In a test they take none, and the time goes on all the same.
#[derive(Default)]
struct Clock {
    #[cfg(test)]
    skipped: Option<Mutex<Duration>>,
}

impl Clock {
    fn now(&self) -> Instant {
        #[cfg(test)]
        if let Some(skipped) = &self.skipped {
            return Instant::now() + *lock(skipped);
        }
        Instant::now()
    }

    fn sleep(&self, pause: Duration) {
        #[cfg(test)]
        if let Some(skipped) = &self.skipped {
            *lock(skipped) += pause;
            return;
        }
        std::thread::sleep(pause);
    }
}

/// What is remembered of a host.
#[derive(Default)]
struct HostState {
    /// It has answered in this run.
    known: bool,
    /// How often in a row it has failed.
    failures: u32,
    /// Not to be asked before.
    paused_until: Option<Instant>,
}

impl<'p> RetryPolicy<'p> {
    pub(crate) fn new(run: RunLimits, progress: &'p dyn Progress) -> Self {
        let (time, hosts, asked) = (Clock::default(), Mutex::default(), Mutex::default());
        RetryPolicy { run, time, hosts, asked, progress }
    }

    /// Repeats what fails for a while, until it succeeds, or fails for good or too often.
    ///
    /// # Errors
    /// The error of the last attempt, or [`RemoteError::Deadline`] if the time is over before the next one.
    pub(crate) fn retry<T, E: Retryable>(
        &self,
        host: &str,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.retry_contact(host, &mut attempt)?;
        self.succeeded(host);
        Ok(done)
    }

    /// As [`RetryPolicy::retry`], where it is still to be seen what a success is worth: an answer has begun.
    ///
    /// # Errors
    /// The error of the last attempt, or [`RemoteError::Deadline`] if the time is over before the next one.
    pub(crate) fn retry_contact<T, E: Retryable>(
        &self,
        host: &str,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            self.wait(host)?;
            match attempt() {
                Ok(done) => {
                    lock(&self.hosts).entry(host.to_owned()).or_default().known = true;
                    return Ok(done);
                }
                Err(error) => self.failed(host, error)?,
            }
        }
    }

    /// A host has answered, or gone on for long enough to forget what was before.
    pub(crate) fn succeeded(&self, host: &str) {
        *lock(&self.hosts).entry(host.to_owned()).or_default() =
            HostState { known: true, ..HostState::default() };
    }

    /// Takes note of a failure. Hands the error back where asking again is of no use.
    ///
    /// # Errors
    /// The given error, if a retry cannot help, there were too many, or there is no time for the pause.
    pub(crate) fn failed<E: Retryable>(&self, host: &str, error: E) -> Result<(), E> {
        let again = error.retry();
        self.failed_for(host, error, again)
    }

    /// As [`RetryPolicy::failed`], where the caller knows better than the error whether a retry helps.
    ///
    /// # Errors
    /// The given error, if a retry cannot help, there were too many, or there is no time for the pause;
    /// [`RemoteError::LongPause`] if the server asks for a longer pause than a run takes.
    pub(crate) fn failed_for<E: Retryable>(&self, host: &str, error: E, again: Retry) -> Result<(), E> {
        let Retry::After(asked) = again else { return Err(error) };
        let pause = {
            let mut hosts = lock(&self.hosts);
            let entry = hosts.entry(host.to_owned()).or_default();
            let first_contact = !entry.known && error.is_unreachable();
            let retries = self.run.limits.retries;
            let most = if first_contact { FIRST_CONTACT_RETRIES.min(retries) } else { retries };
            let pause =
                asked.map_or_else(|| backoff(entry.failures), |asked| asked.saturating_add(backoff(0)));
            // Whoever asks next begins anew.
            let failures = std::mem::take(&mut entry.failures);
            if failures >= most || !self.has_time_for(pause) {
                return Err(error);
            }
            if asked.is_some() && !self.grants(pause, entry.paused_until) {
                let (why, most) = (error.to_string(), self.run.limits.pause);
                return Err(RemoteError::LongPause { why, most }.into());
            }
            entry.failures = failures + 1;
            entry.paused_until = Some(self.time.now() + pause);
            pause
        };
        log::debug!("retrying {host} after {} ms", pause.as_millis());
        if pause >= Duration::from_secs(1) {
            self.progress.info(&format!("{error}; asking again in {:.0} s", pause.as_secs_f64().ceil()));
        }
        Ok(())
    }

    /// Waits until a host may be asked.
    ///
    /// # Errors
    /// [`RemoteError::Deadline`] if the time is over.
    pub(crate) fn wait(&self, host: &str) -> Result<(), RemoteError> {
        self.check_for(Some(host))?;
        let until = lock(&self.hosts).get(host).and_then(|host| host.paused_until);
        if let Some(pause) = until.and_then(|until| until.checked_duration_since(self.time.now())) {
            self.time.sleep(pause);
        }
        Ok(())
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// [`RemoteError::Deadline`] if the time is over.
    pub(crate) fn check(&self) -> Result<(), RemoteError> {
        self.check_for(None)
    }

    fn check_for(&self, host: Option<&str>) -> Result<(), RemoteError> {
        match self.run.limits.deadline {
            Some(deadline) if self.elapsed() >= deadline => {
                Err(RemoteError::Deadline { deadline, host: host.map(str::to_owned) })
            }
            _ => Ok(()),
        }
    }

    fn elapsed(&self) -> Duration {
        self.time.now().saturating_duration_since(self.run.began)
    }

    /// Says something that is worth a line.
    pub(crate) fn info(&self, warning: &str) {
        self.progress.info(warning);
    }

    /// Whether a pause ends before the deadline.
    fn has_time_for(&self, pause: Duration) -> bool {
        let left = self.run.limits.deadline.map(|deadline| deadline.saturating_sub(self.elapsed()));
        left.is_none_or(|left| pause < left)
    }

    /// Grants a pause that a server asks for, beside the one until `until` that it has: unless it is too long, or without
    /// a deadline, all such pauses together are.
    fn grants(&self, pause: Duration, until: Option<Instant>) -> bool {
        let most = self.run.limits.pause;
        if pause > most {
            return false;
        }
        // Several requests may fail at once, and then wait together.
        let running = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(self.time.now()));
        let mut asked = lock(&self.asked);
        let all = asked.saturating_add(pause.saturating_sub(running));
        let is_granted = all <= most || self.run.limits.deadline.is_some();
        if is_granted {
            *asked = all;
        }
        is_granted
    }
}

/// The pause after so many failures in a row before this one, between half of it and all of it: many
/// exporters that were refused at once must not come back at once.
fn backoff(failures: u32) -> Duration {
    let pause = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    let jitter = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::remote::error::Unreachable;

    impl Retryable for RemoteError {
        fn retry(&self) -> Retry {
            RemoteError::retry(self)
        }

        fn is_unreachable(&self) -> bool {
            matches!(self, RemoteError::Unreachable { .. })
        }
    }

    fn lost() -> RemoteError {
        let (subject, host, why) = ("x".into(), "h".into(), "reset".into());
        RemoteError::Lost { subject, host, got: 0, why }
    }

    fn rejected() -> RemoteError {
        let (subject, host) = ("x".into(), "h".into());
        RemoteError::Unreachable { subject, host, why: Unreachable::Refused, proxy: None }
    }

    fn limited(retry_after: Duration) -> RemoteError {
        let (subject, host) = ("x".into(), "h".into());
        RemoteError::RateLimited { subject, host, retry_after: Some(retry_after) }
    }

    /// Pauses take no time.
    fn retry_policy(limits: RetryLimits) -> RetryPolicy<'static> {
        let time = Clock { skipped: Some(Mutex::default()) };
        RetryPolicy { time, ..RetryPolicy::new(limits.begin(), &Silent) }
    }

    fn attempts(limits: RetryLimits, known: bool, error: impl Fn() -> RemoteError) -> (u32, RemoteError) {
        attempts_with(&retry_policy(limits), known, error)
    }

    fn attempts_with(
        retry_policy: &RetryPolicy<'_>,
        known: bool,
        error: impl Fn() -> RemoteError,
    ) -> (u32, RemoteError) {
        if known {
            retry_policy.succeeded("h");
        }
        let mut count = 0;
        let result = retry_policy.retry("h", || {
            count += 1;
            assert!(count < 1000, "it is asked for ever");
            Err::<(), _>(error())
        });
        (count, result.unwrap_err())
    }

    #[test]
    fn transient_errors_are_retried_as_often_as_was_said() {
        let limits = |retries| RetryLimits { retries, ..RetryLimits::default() };
        assert_eq!(attempts(limits(3), true, lost).0, 4);
        assert_eq!(attempts(limits(0), true, lost).0, 1);
        assert_eq!(attempts(limits(4), true, rejected).0, 5);
        assert_eq!(attempts(limits(4), false, rejected).0, 3, "a name may be misspelled");
        let gone = || RemoteError::Setup { why: String::new() };
        assert_eq!(attempts(limits(3), true, gone).0, 1, "what stays is not repeated");
    }

    #[test]
    fn a_server_that_says_when_is_asked_then() {
        let retry_policy = retry_policy(RetryLimits { retries: 1, ..RetryLimits::default() });
        let asked = || limited(Duration::from_secs(300));
        assert_eq!(attempts_with(&retry_policy, true, asked).0, 2);
        assert!(retry_policy.elapsed() >= Duration::from_secs(300));
        let hours = || limited(Duration::from_secs(3600));
        assert_eq!(attempts(RetryLimits::default(), true, hours).0, 1, "another source is sooner");
    }

    #[test]
    fn the_pauses_that_servers_ask_for_end() {
        let asked = || limited(Duration::from_secs(250));
        let limits = RetryLimits { retries: 99, ..RetryLimits::default() };
        // In sum, and whatever goes well between them.
        let policy = retry_policy(limits);
        assert!(policy.failed("h", asked()).is_ok());
        // One that failed beside it waits for the same.
        assert!(policy.failed("h", asked()).is_ok());
        policy.wait("h").unwrap();
        policy.succeeded("h");
        assert!(policy.retry("other", || Ok::<_, RemoteError>(())).is_ok());
        let (count, error) = attempts_with(&policy, true, asked);
        assert_eq!(count, 2);
        assert!((500..520).contains(&policy.elapsed().as_secs()), "{:?}", policy.elapsed());
        let said = error.to_string();
        assert!(matches!(error, RemoteError::LongPause { .. }), "{said}");
        assert!(said.contains("h limits") && said.contains("250 s") && said.contains("600 s"), "{said}");
        // The same from another host.
        assert!(policy.failed("other", limited(Duration::from_secs(300))).is_err());
        assert!(policy.failed("other", limited(Duration::from_secs(30))).is_ok());
        // Growing pauses that nobody asked for are no such ones.
        assert_eq!(attempts(limits, true, lost).0, 100);
        // Whoever gives a deadline waits for as long.
        let deadline = Some(Duration::from_secs(3600));
        let policy = retry_policy(RetryLimits { deadline, ..limits });
        assert_eq!(attempts_with(&policy, true, asked).0, 15);
        assert!(policy.elapsed() < Duration::from_secs(3600));
        let (count, error) = attempts(RetryLimits { deadline, ..limits }, true, || limited(2 * PAUSE));
        assert!(count == 1 && matches!(error, RemoteError::LongPause { .. }), "{count} {error}");
    }

    #[test]
    fn all_of_a_run_has_one_deadline() {
        let limits = RetryLimits { deadline: Some(Duration::from_secs(3600)), ..RetryLimits::default() };
        let run = limits.begin();
        let first =
            RetryPolicy { time: Clock { skipped: Some(Mutex::default()) }, ..RetryPolicy::new(run, &Silent) };
        first.time.sleep(Duration::from_secs(3600));
        assert!(first.check().is_err());
        // What is prepared later has no later one.
        let later = RetryPolicy { time: first.time, ..RetryPolicy::new(run, &Silent) };
        assert!(matches!(later.check(), Err(RemoteError::Deadline { .. })));
    }

    #[test]
    fn nothing_is_asked_after_the_deadline() {
        let deadline = Some(Duration::from_secs(3600));
        let (count, error) =
            attempts(RetryLimits { retries: 9999, deadline, ..RetryLimits::default() }, true, lost);
        // After some shorter pauses, each takes 15 to 30 s.
        assert!((120..260).contains(&count), "{count}");
        assert!(matches!(error, RemoteError::Lost { .. }), "{error}");
        let retry_policy = RetryPolicy::new(
            RetryLimits { retries: 1, deadline: Some(Duration::ZERO), ..RetryLimits::default() }.begin(),
            &Silent,
        );
        let error = retry_policy.retry("h", || Ok(())).unwrap_err();
        assert!(matches!(error, RemoteError::Deadline { .. }));
    }
}
