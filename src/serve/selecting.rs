//! What is served of the admitted bundles: of each dataset and image the newest that is acceptable.
//!
//! Knows bundles and what was served before; nothing of the server.

use std::collections::BTreeMap;

use crate::bundle::{Image, VerifiedBundle};
use crate::dataset::Kind;
use crate::delivery::candidates::{newest, offers};
use crate::delivery::context::Setup;
use crate::delivery::decision::{Judged, decide};
use crate::delivery::ledger::{InstalledImage, image_key};
use crate::delivery::report::{ImageRow, Report, Row, Status};
use crate::error::Error;
use crate::serve::content::{Choice, place_of};
use crate::serve::options::ServeOptions;
use crate::trust::Refusal;
use crate::trust::acceptance::{Admission, Verdict, judge};
use crate::trust::state::TargetState;

/// What the selection goes by.
pub(crate) struct Selecting<'a> {
    pub(crate) options: &'a ServeOptions,
    pub(crate) setup: &'a Setup,
    /// The URL under which scanners reach the server.
    pub(crate) url: &'a str,
    pub(crate) state: &'a TargetState,
    pub(crate) bundles: &'a [VerifiedBundle],
}

impl Selecting<'_> {
    /// Returns of each dataset and tag the newest among the admitted bundles, if it is acceptable.
    ///
    /// # Errors
    /// None of its own.
    pub(crate) fn datasets(
        &self,
        admitted: &[Option<Admission>],
        report: &mut Report,
    ) -> Result<Vec<Choice>, Error> {
        let offers = offers(self.bundles, admitted, &self.options.selection).into_iter();
        let placed = offers.map(|offer| (offer.dataset.reference(), (), offer));
        let mut accepted = Vec::new();
        for ((), offer) in newest(placed) {
            let dataset = &offer.dataset;
            let mut row = Row::new(dataset, None, Status::Installing);
            row.reference = Some(match dataset.name.kind() {
                Kind::Vex => format!("{}/{}", self.url, dataset.name),
                _ => format!("{}/{}:{}", self.host(), dataset.name, dataset.tag),
            });
            let judged = Judged {
                dataset,
                repository: None,
                row,
                date: Some(offer.date),
                floor: None,
                vacant: true,
                late: offer.late,
                otherwise: "not served",
                version: None,
            };
            if let Some(taken) = decide(self.setup, self.state, judged, || Ok(false), report)? {
                accepted.push(Choice { offer, rollback: taken.rollback });
            }
        }
        Ok(accepted)
    }

    /// Returns of each requested image the newest among the admitted bundles, unless a newer one was served
    /// before, with the index of its bundle.
    pub(crate) fn images(
        &self,
        admitted: &mut [Option<Admission>],
        report: &mut Report,
    ) -> Vec<(usize, Image)> {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        let mut chosen = Vec::new();
        for (index, image) in newest_images(self.bundles, admitted) {
            if !self.options.image.iter().any(|pattern| pattern.matches(&image.name)) {
                report.images.push(ImageRow::not_requested(&image));
                continue;
            }
            let mut row = ImageRow::new(&image);
            let (Some(place), Some(bundle), Some(Some(admission))) =
                (place_of(&image), self.bundles.get(index), admitted.get_mut(index))
            else {
                report.images.push(row);
                report.errors.push(Error::usage(
                    format!("{} is not served: it has no usable name", image.name),
                    "Export it under another name with --image NAME=SOURCE; everything else is served.",
                ));
                continue;
            };
            let (key, reference) = (image_key(&place), format!("{}/{place}", self.host()));
            row.reference = Some(reference.clone());
            let created = bundle.payload().created;
            let older = match judge(Some(created), self.state.floors.get(&key).copied()) {
                Verdict::Older { floor } => Some(floor),
                Verdict::Take => None,
            };
            let name = || image.name.clone();
            let refusal = match (taken.get(&key).cloned(), older) {
                (Some(other), _) => {
                    let reference = place.to_string();
                    Some(Refusal::SamePlace { image: name(), what: "served", reference, other })
                }
                (None, Some(floor)) if !self.setup.policy.allow_rollback => {
                    Some(Refusal::MissingAndOlder { dataset: name(), date: created, floor })
                }
                _ => None,
            };
            row.status = if refusal.is_some() { Status::Refused } else { Status::Served };
            if let Some(refusal) = refusal {
                report.errors.push(refusal.into());
            } else {
                taken.insert(key.clone(), name());
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

    /// The host and port that the references of scanners begin with.
    fn host(&self) -> &str {
        self.url.split_once("://").map_or(self.url, |(_, host)| host)
    }
}

/// Of each image by its name the newest among the admitted bundles, with the index of its bundle.
fn newest_images(bundles: &[VerifiedBundle], admitted: &[Option<Admission>]) -> Vec<(usize, Image)> {
    let mut newest: BTreeMap<&str, (usize, &Image)> = BTreeMap::new();
    for (index, (bundle, admission)) in bundles.iter().zip(admitted).enumerate() {
        for image in bundle.payload().images.iter().filter(|_| admission.is_some()) {
            newest.insert(&image.name, (index, image));
        }
    }
    newest.into_values().map(|(index, image)| (index, image.clone())).collect()
}
