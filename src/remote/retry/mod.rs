//! Decides from an error whether a retry can help, and how long to wait before it.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::remote::error::{PROXY_LOGIN, RemoteError, Unreachable};
use crate::remote::hint::is_full;

mod policy;

pub(crate) use policy::Deadline;
pub use policy::{PAUSE, RETRIES, RetryLimits, RunLimits, STALL};
pub(crate) use policy::{Retry, RetryPolicy, Retryable};

impl RemoteError {
    /// Whether the same request may succeed later.
    pub(crate) fn retry(&self) -> Retry {
        match self {
            RemoteError::RateLimited { retry_after, .. } => Retry::After(*retry_after),
            // A full disk stays full.
            RemoteError::Status { said, .. } if is_full(said) => Retry::Never,
            // 408: the server timed out; 425: the request was too early. The others mean that a
            // backend may answer later.
            RemoteError::Status { status: 408 | 425 | 500 | 502..=504, retry_after, .. } => {
                Retry::After(*retry_after)
            }
            RemoteError::Lost { .. } | RemoteError::Stalled { .. } => Retry::After(None),
            // A retry cannot supply the login that the proxy requires.
            RemoteError::Unreachable { why: Unreachable::Other(said), .. } if said == PROXY_LOGIN => {
                Retry::Never
            }
            RemoteError::Unreachable { .. } => Retry::After(None),
            _ => Retry::Never,
        }
    }
}

/// Parses a `Retry-After` header (RFC 9110, 10.2.3): seconds or a date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// Returns the time in the message of an error, as ghcr.io sends it: `retry-after: 825.911µs, allowed:
/// 44000/minute`.
pub(super) fn retry_after_in_message(said: &str) -> Option<Duration> {
    let said = said.to_lowercase();
    let (_, after) = said.split_once("retry-after:")?;
    let word = after.trim_start().split([',', ' ', ';']).next()?;
    go_duration(word)
}

/// Parses a duration in the form of Go's `time.Duration`, such as `1m30.5s` (package `time`, `ParseDuration`).
fn go_duration(mut text: &str) -> Option<Duration> {
    let mut total = 0.0;
    while !text.is_empty() {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(unit_at);
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        text = rest;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_retry_after_is_read() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for (value, wanted) in [
            ("17", Some(17)),
            (" 0 ", Some(0)),
            ("Sat, 21 Nov 2026 10:00:30 GMT", Some(30)),
            ("Sat, 21 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), wanted.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn the_durations_of_go_are_read() {
        for (said, nanos) in [
            ("TOOMANYREQUESTS, retry-after: 825.911µs, allowed: 44000/minute", Some(825_911)),
            ("Retry-After: 1m30s", Some(90_000_000_000)),
            ("retry-after: 1.5h", Some(5_400_000_000_000)),
            ("retry-after: 35ms;", Some(35_000_000)),
            ("retry-after: 12", None),
            ("retry-after: s", None),
            ("retry-after: 1e99s", None),
            ("retry-after: -5s", None),
            ("slow down", None),
        ] {
            assert_eq!(retry_after_in_message(said), nanos.map(Duration::from_nanos), "{said}");
        }
    }
}
