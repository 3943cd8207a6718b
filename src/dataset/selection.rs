//! The selection of datasets.

use crate::dataset::name::Name;

/// The wanted datasets: all, if both lists are empty.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The only wanted datasets, unless the list is empty.
    pub only: Vec<Name>,
    /// The datasets to skip.
    pub skip: Vec<Name>,
}

impl Selection {
    /// Whether a dataset is wanted.
    pub fn wants(&self, name: &Name) -> bool {
        (self.only.is_empty() || self.only.contains(name)) && !self.skip.contains(name)
    }
}
