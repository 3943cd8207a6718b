//! The datasets of the admitted bundles that are candidates for a target, and the newest candidate for each place.

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
    /// Whether a newer bundle was accepted before this one. If so, older data in it needs no warning.
    pub(crate) late: bool,
}

/// Returns the date by which a dataset is compared with another. Datasets without a date, such as checks, get
/// the date of their bundle, so that an old bundle cannot replace newer checks.
pub(crate) fn floor_date(dataset: &Dataset, created: Timestamp) -> Timestamp {
    dataset.contents.updated_at.unwrap_or(created)
}

/// Returns the selected datasets of the admitted bundles, in the order of the bundles.
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

/// Returns the newest candidate for each place, in the order of the places' names. If candidates have the same
/// date, returns the last one. Each place has a name and the caller's own data.
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
