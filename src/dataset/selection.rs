//! Which datasets are selected.

use crate::dataset::name::Name;

/// Which datasets are wanted: all, if both lists are empty.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these, if there are any.
    pub only: Vec<Name>,
    /// All but these.
    pub skip: Vec<Name>,
}

impl Selection {
    /// Whether a dataset is wanted.
    pub fn wants(&self, name: &Name) -> bool {
        (self.only.is_empty() || self.only.contains(name)) && !self.skip.contains(name)
    }
}
