//! The maximum age of data, by dataset: `3d,trivy-java-db=14d`. This module depends on dates,
//! but not on bundles or targets.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;

use crate::dataset::Name;
use crate::trust::Rejection;
use crate::util::age::{Age, InvalidAge};
use crate::util::text;

/// The maximum age by dataset. A bare age means trivy-db, which changes daily.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaxAge {
    ages: BTreeMap<Name, Age>,
    /// The datasets that are listed by name.
    explicit: BTreeSet<Name>,
}

/// The reason why a string is not a list of ages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMaxAge {
    /// An age is invalid.
    #[error(transparent)]
    Age(#[from] InvalidAge),
    /// The name of a dataset is invalid.
    #[error(transparent)]
    Name(#[from] crate::dataset::InvalidName),
    /// The dataset has no date.
    #[error("trivy-checks has no date, so it cannot have a maximum age")]
    Undated,
}

impl FromStr for MaxAge {
    type Err = InvalidMaxAge;

    fn from_str(text: &str) -> Result<Self, InvalidMaxAge> {
        let (mut ages, mut explicit) = (BTreeMap::new(), BTreeSet::new());
        for part in text.split(',') {
            let (name, age) = part.split_once('=').unwrap_or(("trivy-db", part));
            let name: Name = name.parse()?;
            if name == Name::trivy_checks() {
                return Err(InvalidMaxAge::Undated);
            }
            if part.contains('=') {
                explicit.insert(name.clone());
            }
            ages.insert(name, age.parse()?);
        }
        Ok(MaxAge { ages, explicit })
    }
}

impl MaxAge {
    /// Whether a dataset has a maximum age.
    pub fn covers(&self, name: &Name) -> bool {
        self.ages.contains_key(name)
    }

    /// The datasets that are listed by name.
    pub fn explicit(&self) -> impl Iterator<Item = &Name> {
        self.explicit.iter()
    }

    /// Checks a dataset's date.
    ///
    /// # Errors
    /// [`Rejection::TooOld`] if the data is older than the maximum age of the dataset.
    pub fn check(&self, name: &Name, updated_at: Option<Timestamp>, now: Timestamp) -> Result<(), Rejection> {
        match (self.ages.get(name), updated_at) {
            (Some(allowed), Some(date)) if now.duration_since(date) > allowed.duration() => {
                let (age, allowed) = (text::format_age(date, now), allowed.to_string());
                // Both are rounded down: `7 d old, and --max-age allows 7 d` would look like a mistake.
                let age = if age == allowed { format!("more than {age}") } else { age };
                Err(Rejection::TooOld { dataset: name.to_string(), updated_at: date, age, allowed })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_age_means_the_database() {
        let ages: MaxAge = "3d,trivy-java-db=14d".parse().unwrap();
        let (now, date): (Timestamp, Timestamp) =
            ("2026-11-21T00:00:00Z".parse().unwrap(), "2026-11-17T00:00:00Z".parse().unwrap());
        let check = |name: &str| ages.check(&name.parse().unwrap(), Some(date), now);
        assert!(check("trivy-db").unwrap_err().to_string().contains("4 d old, and --max-age allows 3 d"));
        assert!(check("trivy-java-db").is_ok());
        let late =
            ages.check(&"trivy-db".parse().unwrap(), Some(date), "2026-11-20T05:00:00Z".parse().unwrap());
        assert!(late.unwrap_err().to_string().contains("more than 3 d old, and --max-age allows 3 d"));
        assert!(check("trivy-checks").is_ok());
        assert!("db=3d".parse::<MaxAge>().is_err());
        assert!("1d, 2h".parse::<MaxAge>().is_err(), "a comma separates datasets, not units");
    }
}
