//! The wall clock. Every module reads it here.
//!
//! In a build with debug assertions, the environment variable `TRIVY_FERRY_TEST_CLOCK` shifts it by a
//! signed duration such as `+3h` or `-2d`, so that a test need not sleep until something expires. The clock
//! still runs. A release build neither reads the variable nor contains its name. Durations within a run are
//! measured with [`std::time::Instant`], which the variable does not affect.

use std::time::SystemTime;

use jiff::Timestamp;

/// Returns the current time.
pub(crate) fn now() -> Timestamp {
    #[cfg(debug_assertions)]
    let now = Timestamp::now().saturating_add(shift()).unwrap_or(Timestamp::MAX);
    #[cfg(not(debug_assertions))]
    let now = Timestamp::now();
    now
}

/// Returns the current time in whole seconds.
pub(crate) fn now_in_seconds() -> Timestamp {
    Timestamp::from_second(now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns the time to compare with the times of files. Tests do not shift it, because the kernel sets the times
/// of files.
pub(crate) fn of_files() -> SystemTime {
    SystemTime::now()
}

/// Returns the duration by which a test shifts the clock.
#[cfg(debug_assertions)]
fn shift() -> jiff::SignedDuration {
    use std::sync::OnceLock;
    static SHIFT: OnceLock<jiff::SignedDuration> = OnceLock::new();
    *SHIFT.get_or_init(|| {
        let Ok(text) = std::env::var("TRIVY_FERRY_TEST_CLOCK") else { return jiff::SignedDuration::ZERO };
        parse(&text).unwrap_or_else(|error| panic!("TRIVY_FERRY_TEST_CLOCK={text:?}: {error}"))
    })
}

#[cfg(debug_assertions)]
fn parse(text: &str) -> Result<jiff::SignedDuration, jiff::Error> {
    text.parse::<jiff::Span>()?.to_duration(jiff::SpanRelativeTo::days_are_24_hours())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn shifts_are_signed_durations() {
        assert_eq!(parse("+3h").unwrap(), SignedDuration::from_hours(3));
        assert_eq!(parse("-2d").unwrap(), SignedDuration::from_hours(-48));
        assert_eq!(
            parse("1w 1s").unwrap(),
            SignedDuration::from_hours(7 * 24) + SignedDuration::from_secs(1)
        );
        assert!(parse("3").is_err());
        assert!(parse("1mo").is_err());
    }

    #[test]
    fn the_clock_is_that_of_the_system() {
        let before = Timestamp::now();
        let now = now();
        assert!(before <= now && now <= Timestamp::now());
        assert_eq!(now_in_seconds().subsec_nanosecond(), 0);
    }
}
