//! What a bundle has to hold to be written, and what it is written without.
//!
//! A source that fails must not keep the data of the others at home. Decides by the category of an error whether
//! it concerns one source only.

use std::fmt;
use std::str::FromStr;

use crate::collect::wanted::WantedDataset;
use crate::dataset::{DatasetRef, InvalidName, MissingItem, Name};
use crate::error::{Category, Error};
use crate::hint::Hint;
use crate::remote::RemoteError;
use crate::source::SourceError;

/// What a bundle must hold to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Everything that was asked for, the images too.
    All,
    /// This dataset.
    Dataset(Name),
}

impl FromStr for Requirement {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "all" => Ok(Requirement::All),
            name => name.parse().map(Requirement::Dataset),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::All => f.write_str("all"),
            Requirement::Dataset(name) => name.fmt(f),
        }
    }
}

/// The requirements of a run.
pub(crate) struct Requirements<'r>(&'r [Requirement]);

impl<'r> Requirements<'r> {
    /// Those that were given. Without any, trivy-db is required if it is asked for: the others are of little use
    /// without it. `accepted` are the datasets that may be signed against the rules.
    ///
    /// # Errors
    /// [`Error::Usage`] if a requirement or `accepted` names a dataset that is not asked for.
    pub(crate) fn new(
        given: &'r [Requirement],
        accepted: &[Name],
        wanted: &[WantedDataset],
    ) -> Result<Self, Error> {
        let is_wanted = |name: &Name| wanted.iter().any(|item| item.dataset().name == *name);
        let required = given.iter().filter_map(|requirement| match requirement {
            Requirement::Dataset(name) => Some(("--require", name)),
            Requirement::All => None,
        });
        let accepted = accepted.iter().map(|name| ("--accept", name));
        match required.chain(accepted).find(|(_, name)| !is_wanted(name)) {
            Some((flag, name)) => Err(Error::usage(
                format!("{flag} names {name}, which this export does not carry"),
                "Correct the name, or give its source; --only and --skip say what is carried.",
            )),
            None => Ok(Requirements(given)),
        }
    }

    fn dataset(&self, name: &Name) -> bool {
        match self.0 {
            [] => *name == Name::trivy_db(),
            given => given.iter().any(|one| match one {
                Requirement::All => true,
                Requirement::Dataset(required) => required == name,
            }),
        }
    }

    /// Does without a dataset whose source failed, if the rest of the bundle can be written.
    ///
    /// # Errors
    /// The error, if the dataset is required, or it is not about its source alone.
    pub(crate) fn without_dataset(&self, dataset: &DatasetRef, error: Error) -> Result<MissingSource, Error> {
        if self.dataset(&dataset.name) || !concerns_one_source(&error) {
            return Err(error);
        }
        Ok(MissingSource { item: MissingItem::dataset(dataset, &error.to_string()), error })
    }

    /// Does without an image, likewise.
    ///
    /// # Errors
    /// The error, if everything is required, or it is not about the source of the image alone.
    pub(crate) fn without_image(&self, name: &str, error: Error) -> Result<MissingSource, Error> {
        if self.0.contains(&Requirement::All) || !concerns_one_source(&error) {
            return Err(error);
        }
        Ok(MissingSource { item: MissingItem::image(name, &error.to_string()), error })
    }
}

/// Whether other sources may do better. If the time is over, none does.
fn concerns_one_source(error: &Error) -> bool {
    !matches!(
        error,
        Error::Source(SourceError::Remote(RemoteError::Deadline { .. }) | SourceError::Temporary { .. })
    ) && matches!(error.category(), Category::Source | Category::Rejected)
}

/// What a bundle is written without, and the error that is the reason.
#[derive(Debug)]
pub(crate) struct MissingSource {
    pub(crate) item: MissingItem,
    pub(crate) error: Error,
}

impl MissingSource {
    /// Whether it is this dataset under this tag.
    pub(crate) fn is(&self, dataset: &DatasetRef) -> bool {
        self.item.name == dataset.name.as_str() && self.item.tag.as_ref() == Some(&dataset.tag)
    }

    /// The error of a run that has written the rest.
    pub(crate) fn into_error(self) -> Error {
        let what = format!("{} is missing from the bundle: {}", self.item.name, self.error);
        Error::Restated { what, hint: self.error.hint(), original: Box::new(self.error) }
    }
}

/// What a payload says of it.
pub(crate) fn items(missing: &[MissingSource]) -> Vec<MissingItem> {
    missing.iter().map(|missing| missing.item.clone()).collect()
}
