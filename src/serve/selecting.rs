//! Selects the newest acceptable version of each dataset and image from the admitted bundles.
//!
//! This module handles bundles and the ledger. It does not depend on the server.

use std::collections::BTreeMap;

use crate::bundle::{Image, VerifiedBundle};
use crate::dataset::Kind;
use crate::delivery::candidates::{candidates, newest};
use crate::delivery::context::DeliveryContext;
use crate::delivery::decision::{DecisionInput, decide};
use crate::delivery::ledger::{InstalledImage, image_key};
use crate::delivery::report::{DatasetResult, DeliveryStatus, ImageResult, TargetReport};
use crate::error::Error;
use crate::serve::content::{ServeChoice, served_as};
use crate::serve::options::ServeOptions;
use crate::trust::Rejection;
use crate::trust::acceptance::{Admission, DatasetDecision, judge};
use crate::trust::state::TargetState;

/// The input of the selection.
pub(crate) struct ServeSelection<'a> {
    pub(crate) options: &'a ServeOptions,
    pub(crate) context: &'a DeliveryContext,
    /// The URL under which scanners reach the server.
    pub(crate) url: &'a str,
    pub(crate) state: &'a TargetState,
    pub(crate) bundles: &'a [VerifiedBundle],
}

impl ServeSelection<'_> {
    /// Returns the newest version of each dataset and tag among the admitted bundles, if it is acceptable.
    ///
    /// # Errors
    /// If a decision fails. No decision reads a target here, so this does not happen.
    pub(crate) fn datasets(
        &self,
        admitted: &[Option<Admission>],
        report: &mut TargetReport,
    ) -> Result<Vec<ServeChoice>, Error> {
        let candidates = candidates(self.bundles, admitted, &self.options.selection).into_iter();
        let placed = candidates.map(|candidate| (candidate.dataset.reference(), (), candidate));
        let mut accepted = Vec::new();
        for ((), candidate) in newest(placed) {
            let dataset = &candidate.dataset;
            let mut row = DatasetResult::new(dataset, None, DeliveryStatus::Installing);
            row.reference = Some(match dataset.name.kind() {
                Kind::Vex => format!("{}/{}", self.url, dataset.name),
                _ => format!("{}/{}:{}", self.host(), dataset.name, dataset.tag),
            });
            let input = DecisionInput {
                dataset,
                repository: None,
                row,
                date: Some(candidate.date),
                floor: None,
                vacant: true,
                late: candidate.late,
                otherwise: "not served",
                version: None,
                foreign: false,
            };
            if let Some(decision) = decide(self.context, self.state, input, || Ok(false), report)? {
                accepted.push(ServeChoice { candidate, rollback: decision.rollback });
            }
        }
        Ok(accepted)
    }

    /// Returns the newest version of each requested image among the admitted bundles, with the index of its bundle.
    /// A version that is older than one that was served before is rejected, unless an override allows it.
    pub(crate) fn images(
        &self,
        admitted: &mut [Option<Admission>],
        report: &mut TargetReport,
    ) -> Vec<(usize, Image)> {
        let mut claimed: BTreeMap<String, String> = BTreeMap::new();
        let mut chosen = Vec::new();
        for (index, image) in newest_images(self.bundles, admitted) {
            if !self.options.image.iter().any(|pattern| pattern.matches(&image.name)) {
                report.images.push(ImageResult::not_requested(&image));
                continue;
            }
            let mut row = ImageResult::new(&image);
            let (Some(place), Some(bundle), Some(Some(admission))) =
                (served_as(&image), self.bundles.get(index), admitted.get_mut(index))
            else {
                report.images.push(row);
                report.errors.push(Error::usage(
                    format!("{} is not served: its name is not a valid image reference", image.name),
                    "Export it under another name with --image NAME=SOURCE; everything else is served.",
                ));
                continue;
            };
            let (key, reference) = (image_key(&place), format!("{}/{place}", self.host()));
            row.reference = Some(reference.clone());
            let created = bundle.payload().created;
            let older = match judge(Some(created), self.state.floors.get(&key).copied()) {
                DatasetDecision::Older { floor } => Some(floor),
                DatasetDecision::Accept => None,
            };
            let name = || image.name.clone();
            let rejection = match (claimed.get(&key).cloned(), older) {
                (Some(other), _) => {
                    let reference = place.to_string();
                    Some(Rejection::SamePlace { image: name(), what: "served", reference, other })
                }
                (None, Some(floor)) if !self.context.policy.allow_rollback => {
                    Some(Rejection::MissingAndOlder { dataset: name(), date: created, floor })
                }
                _ => None,
            };
            row.status = if rejection.is_some() { DeliveryStatus::Rejected } else { DeliveryStatus::Served };
            if let Some(rejection) = rejection {
                report.errors.push(rejection.into());
            } else {
                claimed.insert(key.clone(), name());
                if older.is_some() {
                    report.rolls_back(bundle, admission);
                }
                report.installed.add_image(InstalledImage::new(&image, key, reference));
                chosen.push((index, image));
            }
            report.images.push(row);
        }
        chosen
    }

    /// Returns the host and port with which the references of scanners begin.
    fn host(&self) -> &str {
        self.url.split_once("://").map_or(self.url, |(_, host)| host)
    }
}

/// Returns the newest version of each image by name among the admitted bundles, with the index of its bundle.
fn newest_images(bundles: &[VerifiedBundle], admitted: &[Option<Admission>]) -> Vec<(usize, Image)> {
    let mut newest: BTreeMap<&str, (usize, &Image)> = BTreeMap::new();
    for (index, (bundle, admission)) in bundles.iter().zip(admitted).enumerate() {
        for image in bundle.payload().images.iter().filter(|_| admission.is_some()) {
            newest.insert(&image.name, (index, image));
        }
    }
    newest.into_values().map(|(index, image)| (index, image.clone())).collect()
}
