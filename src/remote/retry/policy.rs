//! The retry policy: the number of retries, and the pauses before them.
//!
//! Transient errors are retried per host with exponential backoff, or after the pause that the server asks
//! for. Other errors are not retried. A run can have a deadline, after which no request is sent. This module
//! does not depend on the requested items.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::progress::Progress;
use crate::remote::error::RemoteError;
use crate::util::threads::lock;

/// The first pause. Each further failure doubles it.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause of the backoff.
const LONGEST: Duration = Duration::from_secs(30);
/// The default for the longest pause that a server may ask for; without a deadline, also for the sum of all
/// such pauses in a run. It is limited because another source may be available at once, and other runs wait
/// for this one.
pub const PAUSE: Duration = Duration::from_secs(600);
/// The number of retries for a host that has not answered in this run: its name may be misspelled.
const FIRST_CONTACT_RETRIES: u32 = 2;
/// The default number of retries after transient failures. Together, their pauses take 25 to 51 s.
pub const RETRIES: u32 = 8;

/// The default time that a server may be silent.
pub const STALL: Duration = Duration::from_secs(60);

/// The limits for retries and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// The number of retries in a row for a host.
    pub retries: u32,
    /// The time after which no request is sent.
    pub deadline: Option<Duration>,
    /// The time that a server may be silent.
    pub stall: Duration,
    /// The longest pause that a server may ask for. Without a deadline, it also limits the sum of all such
    /// pauses.
    pub pause: Duration,
}

impl RetryLimits {
    /// Returns the limits of a run that begins now.
    pub(crate) fn begin(self) -> RunLimits {
        self.since(Instant::now())
    }

    /// Returns the limits of a run that began at this time.
    pub(crate) fn since(self, began: Instant) -> RunLimits {
        RunLimits { limits: self, began }
    }
}

/// The limits of a run that has begun. All servers share its beginning and its deadline.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    limits: RetryLimits,
    began: Instant,
}

impl RunLimits {
    /// Returns the deadline.
    pub(crate) fn until(&self) -> Option<Deadline> {
        let given = self.limits.deadline?;
        Some(Deadline { at: self.began.checked_add(given)?, given })
    }

    /// The time that a server may be silent.
    pub(crate) fn stall(&self) -> Duration {
        self.limits.stall
    }
}

/// The deadline of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// The time of the deadline.
    pub(crate) at: Instant,
    /// The time limit that the run was given.
    pub(crate) given: Duration,
}

impl Deadline {
    /// Creates the error of a request to a host that the deadline interrupts.
    pub(crate) fn passed(self, host: String) -> RemoteError {
        RemoteError::Deadline { deadline: self.given, host: Some(host) }
    }
}

impl Default for RetryLimits {
    fn default() -> Self {
        RetryLimits { retries: RETRIES, deadline: None, stall: STALL, pause: PAUSE }
    }
}

/// Whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// A retry cannot help.
    Never,
    /// A retry may help, after the pause that the server asks for, if any.
    After(Option<Duration>),
}

/// An error of a request.
pub(crate) trait Retryable: Display + From<RemoteError> {
    /// Whether the same request may succeed later.
    fn retry(&self) -> Retry;

    /// Whether the host could not be reached.
    fn is_unreachable(&self) -> bool;
}

/// The retry policy of a run.
pub(crate) struct RetryPolicy<'p> {
    run: RunLimits,
    time: Clock,
    hosts: Mutex<HashMap<String, HostState>>,
    /// The sum of the pauses that servers asked for.
    asked: Mutex<Duration>,
    progress: &'p dyn Progress,
}

/// The clock for pauses. In tests, pauses take no real time and the clock still advances.
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

/// The state of a host.
#[derive(Default)]
struct HostState {
    /// Whether it has answered in this run.
    known: bool,
    /// The number of failures in a row.
    failures: u32,
    /// The time before which no request is sent to it.
    paused_until: Option<Instant>,
}

impl<'p> RetryPolicy<'p> {
    pub(crate) fn new(run: RunLimits, progress: &'p dyn Progress) -> Self {
        let (time, hosts, asked) = (Clock::default(), Mutex::default(), Mutex::default());
        RetryPolicy { run, time, hosts, asked, progress }
    }

    /// Retries transient failures until the request succeeds, fails permanently, or fails too often.
    ///
    /// # Errors
    /// If the last attempt fails: its error; [`RemoteError::Deadline`] if the deadline passes before the next one.
    pub(crate) fn retry<T, E: Retryable>(
        &self,
        host: &str,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let done = self.retry_contact(host, &mut attempt)?;
        self.succeeded(host);
        Ok(done)
    }

    /// Retries as [`RetryPolicy::retry`] does, but does not reset the failures of the host: only the
    /// beginning of an answer has arrived.
    ///
    /// # Errors
    /// If the last attempt fails: its error; [`RemoteError::Deadline`] if the deadline passes before the next one.
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

    /// Resets the failures of a host after an answer, or after enough bytes of one.
    pub(crate) fn succeeded(&self, host: &str) {
        *lock(&self.hosts).entry(host.to_owned()).or_default() =
            HostState { known: true, ..HostState::default() };
    }

    /// Records a failure and schedules a retry.
    ///
    /// # Errors
    /// Returns `error` if a retry cannot help, if there were too many, or if there is no time for the pause;
    /// [`RemoteError::LongPause`] if the server asks for a pause that is too long.
    pub(crate) fn failed<E: Retryable>(&self, host: &str, error: E) -> Result<(), E> {
        let again = error.retry();
        self.failed_for(host, error, again)
    }

    /// Records a failure for which the caller decides whether a retry can help.
    ///
    /// # Errors
    /// Returns `error` if a retry cannot help, if there were too many, or if there is no time for the pause;
    /// [`RemoteError::LongPause`] if the server asks for a pause that is too long.
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
            // If this fails, the next request starts with new retries.
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
            self.progress.info(&format!("{error}; retrying in {:.0} s", pause.as_secs_f64().ceil()));
        }
        Ok(())
    }

    /// Waits until a request may be sent to a host.
    ///
    /// # Errors
    /// [`RemoteError::Deadline`] if the deadline has passed.
    pub(crate) fn wait(&self, host: &str) -> Result<(), RemoteError> {
        self.check()?;
        let until = lock(&self.hosts).get(host).and_then(|host| host.paused_until);
        if let Some(pause) = until.and_then(|until| until.checked_duration_since(self.time.now())) {
            self.time.sleep(pause);
        }
        Ok(())
    }

    /// Checks that the deadline has not passed.
    ///
    /// # Errors
    /// [`RemoteError::Deadline`] if it has.
    pub(crate) fn check(&self) -> Result<(), RemoteError> {
        match self.run.limits.deadline {
            Some(deadline) if self.elapsed() >= deadline => {
                Err(RemoteError::Deadline { deadline, host: None })
            }
            _ => Ok(()),
        }
    }

    fn elapsed(&self) -> Duration {
        self.time.now().saturating_duration_since(self.run.began)
    }

    /// Prints an info line.
    pub(crate) fn info(&self, warning: &str) {
        self.progress.info(warning);
    }

    /// Whether a pause ends before the deadline.
    fn has_time_for(&self, pause: Duration) -> bool {
        let left = self.run.limits.deadline.map(|deadline| deadline.saturating_sub(self.elapsed()));
        left.is_none_or(|left| pause < left)
    }

    /// Grants a pause that a server asks for. Rejects it if it is too long, or if the run has no
    /// deadline and the sum of all such pauses is too long. `until` is the end of the current
    /// pause.
    fn grants(&self, pause: Duration, until: Option<Instant>) -> bool {
        let most = self.run.limits.pause;
        if pause > most {
            return false;
        }
        // Several requests may fail at the same time and share a pause.
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

/// Returns the pause after some earlier failures in a row, with random jitter of up to half of it: exporters
/// that were rejected at the same time must not retry at the same time.
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

    /// A policy whose pauses take no time.
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
            assert!(count < 1000, "the retries do not end");
            Err::<(), _>(error())
        });
        (count, result.unwrap_err())
    }

    #[test]
    fn transient_errors_are_retried_as_often_as_the_limit_allows() {
        let limits = |retries| RetryLimits { retries, ..RetryLimits::default() };
        assert_eq!(attempts(limits(3), true, lost).0, 4);
        assert_eq!(attempts(limits(0), true, lost).0, 1);
        assert_eq!(attempts(limits(4), true, rejected).0, 5);
        assert_eq!(attempts(limits(4), false, rejected).0, 3, "a name may be misspelled");
        let gone = || RemoteError::Setup { why: String::new() };
        assert_eq!(attempts(limits(3), true, gone).0, 1, "permanent errors are not retried");
    }

    #[test]
    fn a_retry_waits_as_long_as_the_server_asks() {
        let retry_policy = retry_policy(RetryLimits { retries: 1, ..RetryLimits::default() });
        let asked = || limited(Duration::from_secs(300));
        assert_eq!(attempts_with(&retry_policy, true, asked).0, 2);
        assert!(retry_policy.elapsed() >= Duration::from_secs(300));
        let hours = || limited(Duration::from_secs(3600));
        assert_eq!(attempts(RetryLimits::default(), true, hours).0, 1, "another source may be faster");
    }

    #[test]
    fn the_sum_of_the_pauses_that_servers_ask_for_is_limited() {
        let asked = || limited(Duration::from_secs(250));
        let limits = RetryLimits { retries: 99, ..RetryLimits::default() };
        // The sum counts, regardless of successes in between.
        let policy = retry_policy(limits);
        assert!(policy.failed("h", asked()).is_ok());
        // A concurrent failure shares the pause.
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
        // The sum includes the pauses of other hosts.
        assert!(policy.failed("other", limited(Duration::from_secs(300))).is_err());
        assert!(policy.failed("other", limited(Duration::from_secs(30))).is_ok());
        // The pauses of the backoff do not count.
        assert_eq!(attempts(limits, true, lost).0, 100);
        // With a deadline, only the deadline limits the sum.
        let deadline = Some(Duration::from_secs(3600));
        let policy = retry_policy(RetryLimits { deadline, ..limits });
        assert_eq!(attempts_with(&policy, true, asked).0, 15);
        assert!(policy.elapsed() < Duration::from_secs(3600));
        let (count, error) = attempts(RetryLimits { deadline, ..limits }, true, || limited(2 * PAUSE));
        assert!(count == 1 && matches!(error, RemoteError::LongPause { .. }), "{count} {error}");
    }

    #[test]
    fn all_requests_of_a_run_share_one_deadline() {
        let limits = RetryLimits { deadline: Some(Duration::from_secs(3600)), ..RetryLimits::default() };
        let run = limits.begin();
        let first =
            RetryPolicy { time: Clock { skipped: Some(Mutex::default()) }, ..RetryPolicy::new(run, &Silent) };
        first.time.sleep(Duration::from_secs(3600));
        assert!(first.check().is_err());
        // A policy that is created later has the same deadline.
        let later = RetryPolicy { time: first.time, ..RetryPolicy::new(run, &Silent) };
        assert!(matches!(later.check(), Err(RemoteError::Deadline { .. })));
    }

    #[test]
    fn no_request_is_sent_after_the_deadline() {
        let deadline = Some(Duration::from_secs(3600));
        let (count, error) =
            attempts(RetryLimits { retries: 9999, deadline, ..RetryLimits::default() }, true, lost);
        // After some shorter pauses, each pause takes 15 to 30 s.
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
