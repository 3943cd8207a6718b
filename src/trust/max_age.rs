//! The greatest age of the data of a bundle, by dataset: `3d,trivy-java-db=14d`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;

use crate::dataset::Name;
use crate::trust::Rejection;
use crate::util::age::{Age, InvalidAge};
use crate::util::text;

/// The greatest age by dataset. A bare age means trivy-db, which is the one that changes daily.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaxAge {
    ages: BTreeMap<Name, Age>,
    /// The datasets that stand there by their names.
    explicit: BTreeSet<Name>,
}

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
    /// Whether it says anything of a dataset.
    pub fn covers(&self, name: &Name) -> bool {
        self.ages.contains_key(name)
    }

    /// The datasets that stand there by their names.
    pub fn explicit(&self) -> impl Iterator<Item = &Name> {
        self.explicit.iter()
    }

    /// Checks a dataset's date.
    ///
    /// # Errors
    /// [`Rejection::TooOld`] if the data is older than is allowed for the dataset.
    pub fn check(&self, name: &Name, updated_at: Option<Timestamp>, now: Timestamp) -> Result<(), Rejection> {
        match (self.ages.get(name), updated_at) {
            (Some(allowed), Some(date)) if now.duration_since(date) > allowed.duration() => {
                let (age, allowed) = (text::format_age(date, now), allowed.to_string());
                // Both are cut to whole units: `7 d old, and 7 d are allowed` would look like a mistake.
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
        assert!("1d, 2h".parse::<MaxAge>().is_err(), "a comma separates datasets, and not units");
    }
}
