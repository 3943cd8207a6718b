//! The candidates for a target in the admitted bundles, and of what belongs into one place the newest.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::bundle::{Dataset, VerifiedBundle};
use crate::dataset::Selection;
use crate::trust::acceptance::Admission;

/// A dataset of an admitted bundle.
#[derive(Debug, Clone)]
pub(crate) struct DatasetCandidate {
    /// The index of its bundle.
    pub(crate) bundle: usize,
    pub(crate) dataset: Dataset,
    /// The date that is compared with the floor.
    pub(crate) date: Timestamp,
    /// Its bundle came after newer ones: that most of it is older is no news.
    pub(crate) late: bool,
}

/// The date by which a dataset is older or newer than another. What carries none of its own, as
/// checks do, is dated by its bundle: else a bundle seen long ago would put its old checks over
/// the new ones.
pub(crate) fn floor_date(dataset: &Dataset, created: Timestamp) -> Timestamp {
    dataset.contents.updated_at.unwrap_or(created)
}

/// The wanted datasets of the admitted bundles, in the order of the bundles.
pub(crate) fn candidates(
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
    selection: &Selection,
) -> Vec<DatasetCandidate> {
    let mut candidates = Vec::new();
    for (index, (bundle, admission)) in bundles.iter().zip(admitted).enumerate() {
        let Some(admission) = admission else { continue };
        let payload = bundle.payload();
        let wanted = payload.datasets.iter().filter(|dataset| selection.wants(&dataset.name));
        candidates.extend(wanted.map(|dataset| DatasetCandidate {
            bundle: index,
            dataset: dataset.clone(),
            date: floor_date(dataset, payload.created),
            late: admission.superseded,
        }));
    }
    candidates
}

/// Of the candidates for one place the newest, in the order of the places; of equals the last. A place is
/// given by its name and by what the caller knows of it.
pub(crate) fn newest<P>(
    placed: impl IntoIterator<Item = (String, P, DatasetCandidate)>,
) -> Vec<(P, DatasetCandidate)> {
    let mut newest: BTreeMap<String, (P, DatasetCandidate)> = BTreeMap::new();
    for (name, place, candidate) in placed {
        if newest.get(&name).is_none_or(|(_, have)| candidate.date >= have.date) {
            newest.insert(name, (place, candidate));
        }
    }
    newest.into_values().collect()
}
