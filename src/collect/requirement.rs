//! The datasets that a bundle requires, and those that it is written without.
//!
//! A failed source must not keep the data of other sources out of the bundle. This module decides by the
//! category of an error whether it concerns one source only.

use std::fmt;
use std::str::FromStr;

use crate::collect::wanted::WantedDataset;
use crate::dataset::{DatasetRef, InvalidName, MissingItem, Name};
use crate::error::{Category, Error};
use crate::hint::Hint;
use crate::remote::RemoteError;
use crate::source::SourceError;

/// An item that a bundle must hold to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Everything that was selected, including images.
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
    /// Checks the given requirements. Without any, trivy-db is required if it is selected: the other datasets
    /// are of little use without it. `accepted` are the datasets that may be signed even if a check fails.
    ///
    /// # Errors
    /// [`Error::Usage`] if a requirement or `accepted` names a dataset that is not selected.
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
                "Correct the name, add its source, or change --only and --skip, which select the datasets.",
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

    /// Records a dataset as missing, if the bundle can be written without it.
    ///
    /// # Errors
    /// Returns `error` if the dataset is required, or if the error does not concern its source alone.
    pub(crate) fn without_dataset(&self, dataset: &DatasetRef, error: Error) -> Result<MissingSource, Error> {
        if self.dataset(&dataset.name) || !concerns_one_source(&error) {
            return Err(error);
        }
        Ok(MissingSource { item: MissingItem::dataset(dataset, &error.to_string()), error })
    }

    /// Records an image as missing, if the bundle can be written without it.
    ///
    /// # Errors
    /// Returns `error` if everything is required, or if the error does not concern the image's source alone.
    pub(crate) fn without_image(&self, name: &str, error: Error) -> Result<MissingSource, Error> {
        if self.0.contains(&Requirement::All) || !concerns_one_source(&error) {
            return Err(error);
        }
        Ok(MissingSource { item: MissingItem::image(name, &error.to_string()), error })
    }
}

/// Whether other sources may still succeed. After the deadline none can.
fn concerns_one_source(error: &Error) -> bool {
    !matches!(
        error,
        Error::Source(SourceError::Remote(RemoteError::Deadline { .. }) | SourceError::Temporary { .. })
    ) && matches!(error.category(), Category::Source | Category::Rejected)
}

/// An item that a bundle is written without, and the error that is the reason.
#[derive(Debug)]
pub(crate) struct MissingSource {
    pub(crate) item: MissingItem,
    pub(crate) error: Error,
}

impl MissingSource {
    /// Whether the item is this dataset with this tag.
    pub(crate) fn is(&self, dataset: &DatasetRef) -> bool {
        self.item.name == dataset.name.as_str() && self.item.tag.as_ref() == Some(&dataset.tag)
    }

    /// The error of a run that wrote a bundle without the item.
    pub(crate) fn into_error(self) -> Error {
        let what = format!("{} is missing from the bundle: {}", self.item.name, self.error);
        Error::Restated { what, hint: self.error.hint(), original: Box::new(self.error) }
    }
}

/// The missing items for the payload.
pub(crate) fn items(missing: &[MissingSource]) -> Vec<MissingItem> {
    missing.iter().map(|missing| missing.item.clone()).collect()
}
