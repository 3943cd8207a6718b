//! Ages on the command line: `36h`, `3d`, `2w`, and lists of them by dataset.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::dataset::Name;
use crate::text;
use crate::trust::Refusal;

/// A length of time in whole minutes, hours, days or weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(SignedDuration);

/// A string that is not an age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write an age as a number with m, h, d or w: 36h, 3d, 2w")]
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
        let minutes = match unit {
            "m" => 1,
            "h" => 60,
            "d" => 24 * 60,
            "w" => 7 * 24 * 60,
            _ => return Err(InvalidAge),
        };
        let number: u32 = number.parse().map_err(|_| InvalidAge)?;
        // A century is more than anyone means, and keeps all sums of dates in range.
        let total = i64::from(number) * minutes;
        let in_range = (1..=100 * 366 * 24 * 60).contains(&total);
        if in_range { Ok(Age(SignedDuration::from_mins(total))) } else { Err(InvalidAge) }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_mins() {
            minutes if minutes % (24 * 60) == 0 => write!(f, "{} d", minutes / (24 * 60)),
            minutes if minutes % 60 == 0 => write!(f, "{} h", minutes / 60),
            minutes => write!(f, "{minutes} min"),
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
        for (text, minutes) in [("90m", 90), ("36h", 2160), ("3d", 4320), ("2w", 20160)] {
            assert_eq!(text.parse::<Age>().unwrap().duration().as_mins(), minutes);
        }
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
