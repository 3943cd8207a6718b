//! Durations on the command line: `500ms`, `36h`, `1h30m`, `3d`.

use std::fmt;
use std::num::IntErrorKind;
use std::str::FromStr;

use jiff::fmt::friendly::SpanParser;
use jiff::{SignedDuration, SpanRelativeTo};

/// A duration from 1 ms to 100 years. A day has 24 hours and a week has 7 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(SignedDuration);

/// A string that is not a duration of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAge {
    /// It is not written as numbers with units.
    #[error("not a duration. Write numbers with units, such as 500ms, 90s, 1h30m, 36h, 3d or 2w")]
    Syntax,
    /// It has months or years.
    #[error("months and years differ in length. Write the duration in days or weeks, such as 30d")]
    Calendar,
    /// It is negative.
    #[error("a duration cannot be negative. Write it without a sign and without `ago`, such as 3d")]
    Negative,
    /// It is zero or nearly zero.
    #[error("a duration must be at least 1 ms. Write a longer one, such as 500ms or 10s")]
    TooShort,
    /// It is longer than 100 years.
    #[error("a duration must be at most 100 years. Write a shorter one, such as 365d")]
    TooLong,
}

impl Age {
    /// The shortest duration. A loop that waits for less time would use all of a processor.
    const LEAST: SignedDuration = SignedDuration::from_millis(1);
    /// The longest duration, so that sums of dates stay in range.
    const MAX: SignedDuration = SignedDuration::from_hours(100 * 366 * 24);

    /// Returns the age of this number of seconds, at least 1.
    pub(crate) const fn seconds(seconds: u32) -> Self {
        Age(SignedDuration::from_secs(if seconds == 0 { 1 } else { seconds as i64 }))
    }

    /// Returns the age as a duration.
    pub fn duration(self) -> SignedDuration {
        self.0
    }

    fn new(duration: SignedDuration) -> Result<Self, InvalidAge> {
        match duration {
            negative if negative.is_negative() => Err(InvalidAge::Negative),
            short if short < Self::LEAST => Err(InvalidAge::TooShort),
            long if long > Self::MAX => Err(InvalidAge::TooLong),
            duration => Ok(Age(duration)),
        }
    }
}

/// Parses a single number with a unit of one letter. The general parser rejects large numbers that are valid here.
fn simple(text: &str) -> Option<Result<SignedDuration, InvalidAge>> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return None,
    };
    match number.parse::<u32>() {
        Ok(number) => Some(Ok(SignedDuration::from_secs(i64::from(number) * seconds))),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(Err(InvalidAge::TooLong)),
        Err(_) => None,
    }
}

impl FromStr for Age {
    type Err = InvalidAge;

    fn from_str(text: &str) -> Result<Self, InvalidAge> {
        if let Some(duration) = simple(text) {
            return Age::new(duration?);
        }
        let span = SpanParser::new().parse_span(text).map_err(|_| InvalidAge::Syntax)?;
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(InvalidAge::Calendar);
        }
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
        Age::new(duration.map_err(|_| InvalidAge::TooLong)?)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        match self.0.as_secs() {
            _ if self.0.subsec_nanos() != 0 => write!(f, "{} ms", self.0.as_millis()),
            seconds if seconds % DAY == 0 => write!(f, "{} d", seconds / DAY),
            seconds if seconds % HOUR == 0 => write!(f, "{} h", seconds / HOUR),
            seconds if seconds % MINUTE == 0 => write!(f, "{} min", seconds / MINUTE),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_numbers_with_a_unit() {
        for (text, minutes, said) in [
            ("120s", 2, "2 min"),
            ("90m", 90, "90 min"),
            ("36h", 2160, "36 h"),
            ("3d", 4320, "3 d"),
            ("+3d", 4320, "3 d"),
            ("007d", 10080, "7 d"),
            ("2w", 20160, "14 d"),
            ("1h30m", 90, "90 min"),
            ("1h 30m", 90, "90 min"),
            ("1.5h", 90, "90 min"),
            ("01:30:00", 90, "90 min"),
            ("2 weeks, 1 day", 21600, "15 d"),
            ("3days", 4320, "3 d"),
            ("36600d", 52_704_000, "36600 d"),
            // The general parser rejects so many seconds.
            ("3153600000s", 52_560_000, "36500 d"),
        ] {
            let age: Age = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((age.duration().as_mins(), age.to_string().as_str()), (minutes, said), "{text}");
        }
        for (text, millis, said) in [
            ("45s", 45_000, "45 s"),
            ("1ms", 1, "1 ms"),
            ("500ms", 500, "500 ms"),
            ("1.5s", 1500, "1500 ms"),
            ("1s500ms", 1500, "1500 ms"),
            ("1500us", 1, "1 ms"),
        ] {
            let age: Age = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((age.duration().as_millis(), age.to_string().as_str()), (millis, said), "{text}");
        }
    }

    #[test]
    fn an_invalid_age_has_an_error_with_the_reason() {
        use InvalidAge::{Calendar, Negative, Syntax, TooLong, TooShort};
        for (text, wanted) in [
            ("", Syntax),
            ("d", Syntax),
            ("3", Syntax),
            ("3 x", Syntax),
            ("3.5d", Syntax),
            (" 3d", Syntax),
            ("ä", Syntax),
            ("3y", Calendar),
            ("1mo", Calendar),
            ("-3d", Negative),
            ("3d ago", Negative),
            ("-500ms", Negative),
            ("0s", TooShort),
            ("0d", TooShort),
            ("0ms", TooShort),
            ("999us", TooShort),
            ("36601d", TooLong),
            ("36600d1ms", TooLong),
            ("99999999d", TooLong),
            ("99999999999999999999d", TooLong),
        ] {
            assert_eq!(text.parse::<Age>(), Err(wanted), "{text:?}");
        }
    }
}
