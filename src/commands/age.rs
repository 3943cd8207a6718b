//! Ages on the command line: `36h`, `3d`, `2w`, and lists of them by dataset.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::dataset::Name;
use crate::text;
use crate::trust::Refusal;

/// A length of time in whole seconds, minutes, hours, days or weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(SignedDuration);

/// A string that is not an age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as a number above 0 with s, m, h, d or w: 30s, 36h, 3d")]
pub struct InvalidAge;

impl Age {
    /// The age as a duration.
    pub fn duration(self) -> SignedDuration {
        self.0
    }
}

impl FromStr for Age {
    type Err = InvalidAge;

    fn from_str(text: &str) -> Result<Self, InvalidAge> {
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(InvalidAge)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            "w" => 7 * 24 * 60 * 60,
            _ => return Err(InvalidAge),
        };
        let number: u32 = number.parse().map_err(|_| InvalidAge)?;
        // A century is more than anyone means, and keeps all sums of dates in range.
        let total = i64::from(number) * seconds;
        let in_range = (1..=100 * 366 * 24 * 60 * 60).contains(&total);
        if in_range { Ok(Age(SignedDuration::from_secs(total))) } else { Err(InvalidAge) }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        match self.0.as_secs() {
            seconds if seconds % DAY == 0 => write!(f, "{} d", seconds / DAY),
            seconds if seconds % HOUR == 0 => write!(f, "{} h", seconds / HOUR),
            seconds if seconds % MINUTE == 0 => write!(f, "{} min", seconds / MINUTE),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

/// The greatest age by dataset. A bare age means trivy-db, which is the one that changes daily.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaxAge(BTreeMap<Name, Age>);

/// A string that is not a list of ages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMaxAge {
    /// An age is wrong.
    #[error(transparent)]
    Age(#[from] InvalidAge),
    /// A dataset's name is wrong.
    #[error(transparent)]
    Name(#[from] crate::dataset::InvalidName),
    /// A dataset without a date.
    #[error("trivy-checks carry no date that could be too old")]
    Undated,
}

impl FromStr for MaxAge {
    type Err = InvalidMaxAge;

    fn from_str(text: &str) -> Result<Self, InvalidMaxAge> {
        let mut ages = BTreeMap::new();
        for part in text.split(',') {
            let (name, age) = part.split_once('=').unwrap_or(("trivy-db", part));
            let name: Name = name.parse()?;
            if name == Name::trivy_checks() {
                return Err(InvalidMaxAge::Undated);
            }
            ages.insert(name, age.parse()?);
        }
        Ok(MaxAge(ages))
    }
}

impl MaxAge {
    /// Checks a dataset's date.
    ///
    /// # Errors
    /// [`Refusal::TooOld`].
    pub fn check(&self, name: &Name, updated_at: Option<Timestamp>, now: Timestamp) -> Result<(), Refusal> {
        match (self.0.get(name), updated_at) {
            (Some(allowed), Some(date)) if now.duration_since(date) > allowed.0 => Err(Refusal::TooOld {
                dataset: name.to_string(),
                updated_at: date,
                age: text::age(date, now),
                allowed: allowed.to_string(),
            }),
            _ => Ok(()),
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
            ("2w", 20160, "14 d"),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.duration().as_mins(), age.to_string().as_str()), (minutes, said));
        }
        assert_eq!("45s".parse::<Age>().unwrap().to_string(), "45 s");
        for bad in ["", "d", "3", "3y", "-3d", "3.5d", "99999999d", "ä"] {
            assert_eq!(bad.parse::<Age>(), Err(InvalidAge), "{bad}");
        }
    }

    #[test]
    fn a_bare_age_means_the_database() {
        let ages: MaxAge = "3d,trivy-java-db=14d".parse().unwrap();
        let (now, date): (Timestamp, Timestamp) =
            ("2026-11-21T00:00:00Z".parse().unwrap(), "2026-11-17T00:00:00Z".parse().unwrap());
        let check = |name: &str| ages.check(&name.parse().unwrap(), Some(date), now);
        assert!(check("trivy-db").unwrap_err().to_string().contains("4 d old, and --max-age allows 3 d"));
        assert!(check("trivy-java-db").is_ok());
        assert!(check("trivy-checks").is_ok());
        assert!("db=3d".parse::<MaxAge>().is_err());
    }
}
