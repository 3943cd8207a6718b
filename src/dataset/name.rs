//! The names of datasets, such as `trivy-db` and `vex-hub`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::dataset::catalogue::Kind;

/// The name of a dataset: `trivy-db`, `trivy-java-db`, `trivy-checks`, `vex-hub`, or `vex-NAME` for another VEX
/// repository. It is the same on the command line, in JSON and in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A string that cannot name a dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid dataset name: use trivy-db, trivy-java-db, trivy-checks, vex-hub or vex-NAME")]
pub struct InvalidName;

impl Name {
    /// Returns the dataset name of the VEX repository that Trivy's configuration calls `repository`. `default` is
    /// VEX Hub.
    ///
    /// # Errors
    /// If the name is not `[a-z0-9][a-z0-9._-]*` with at most 32 characters, or is `hub`, which would be confused with
    /// VEX Hub.
    pub fn vex(repository: &str) -> Result<Self, InvalidName> {
        match repository {
            "default" => Ok(Name("vex-hub".into())),
            "hub" => Err(InvalidName),
            other => format!("vex-{other}").parse(),
        }
    }

    /// Returns `trivy-db`.
    pub fn trivy_db() -> Self {
        Name("trivy-db".into())
    }

    /// Returns `trivy-java-db`.
    pub fn trivy_java_db() -> Self {
        Name("trivy-java-db".into())
    }

    /// Returns `trivy-checks`.
    pub fn trivy_checks() -> Self {
        Name("trivy-checks".into())
    }

    /// Returns the kind of its content.
    pub fn kind(&self) -> Kind {
        match self.0.as_str() {
            "trivy-db" => Kind::TrivyDb,
            "trivy-java-db" => Kind::TrivyJavaDb,
            "trivy-checks" => Kind::TrivyChecks,
            _ => Kind::Vex,
        }
    }

    /// Returns the name of this VEX repository in Trivy's configuration; `None` for other datasets.
    pub fn vex_repository(&self) -> Option<&str> {
        match self.0.as_str() {
            "vex-hub" => Some("default"),
            name => name.strip_prefix("vex-"),
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good = match text {
            "trivy-db" | "trivy-java-db" | "trivy-checks" => true,
            // `vex-default` would be a second name for `vex-hub`.
            "vex-default" => false,
            other => other.strip_prefix("vex-").is_some_and(|name| {
                name.len() <= 32
                    && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            }),
        };
        if good { Ok(Name(text.into())) } else { Err(InvalidName) }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A dataset with its tag, written `NAME-TAG`, such as `trivy-db-2`. It is the name in the image layout of a bundle,
/// and the key of the floor in the state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetRef {
    /// Its name.
    pub name: Name,
    /// Its tag.
    pub tag: String,
}

impl DatasetRef {
    /// Creates the reference of a dataset.
    pub fn new(name: Name, tag: impl Into<String>) -> Self {
        DatasetRef { name, tag: tag.into() }
    }
}

impl FromStr for DatasetRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (name, tag) = text.rsplit_once('-').ok_or(InvalidName)?;
        Ok(DatasetRef::new(name.parse()?, tag))
    }
}

impl fmt::Display for DatasetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.tag)
    }
}
