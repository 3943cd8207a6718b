//! The report of an import.
//!
//! This module is plain data. It neither runs the import nor prints the report.

use serde::Serialize;

use crate::delivery::admitted::AdmittedBundle;
use crate::delivery::report::{DeliveryStatus, TargetReport};
use crate::delivery::target_id::TargetId;
use crate::error::{Category, Error, gravest};
use crate::hint::Hint;
use crate::intake::rebuild::Rebuilt;

/// The results of all targets.
#[derive(Debug, Serialize)]
#[non_exhaustive]
#[must_use = "a target may have failed: see `errors`"]
pub struct ImportReport {
    /// The targets, each with its datasets, warnings and errors.
    pub targets: Vec<TargetReport>,
    /// Warnings that belong to no target.
    pub warnings: Vec<String>,
    /// The files that were rebuilt from parity, for each bundle; the warnings list them too.
    #[serde(skip)]
    pub repaired: Vec<Rebuilt>,
    /// Errors after all targets were finished.
    #[serde(skip)]
    pub(crate) errors_at_the_end: Vec<Error>,
}

impl ImportReport {
    /// Returns all errors, those of the targets first.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        self.targets.iter().flat_map(|target| &target.errors).chain(&self.errors_at_the_end)
    }

    /// Returns the gravest category of all errors; `None` if everything went well.
    pub fn gravest(&self) -> Option<Category> {
        gravest(self.errors())
    }

    /// Returns all errors, those of the targets first. If there are several targets, an error names its target, and an
    /// error that all of them share appears once.
    pub fn into_errors(self) -> Vec<Error> {
        let ImportReport { targets, errors_at_the_end, .. } = self;
        let count = targets.len();
        let mut all: Vec<(Vec<TargetId>, Error)> = Vec::new();
        for TargetReport { target, errors, .. } in targets {
            for error in errors {
                let same = all.iter_mut().find(|(of, other)| {
                    !of.contains(&target)
                        && (other.to_string(), other.hint()) == (error.to_string(), error.hint())
                });
                match same {
                    Some((of, _)) => of.push(target.clone()),
                    None => all.push((vec![target.clone()], error)),
                }
            }
        }
        let named = |(of, error): (Vec<TargetId>, Error)| {
            // The error of a bundle belongs to no target.
            if of.len() == count || matches!(error.original(), Error::Bundle(_)) {
                error
            } else {
                error.of_targets(&of)
            }
        };
        all.into_iter().map(named).chain(errors_at_the_end).collect()
    }

    /// Returns the file names of the bundles that every target has accepted, so that they are no longer needed.
    pub(crate) fn imported(&self) -> Vec<String> {
        let has_failed = |target: &TargetReport| {
            let rows = target.datasets.iter().map(|row| row.status);
            let all = rows.chain(target.images.iter().map(|image| image.status));
            all.into_iter()
                .any(|status| matches!(status, DeliveryStatus::Failed | DeliveryStatus::Installing))
        };
        if self.targets.iter().any(has_failed) {
            return Vec::new();
        }
        let bundles = self.targets.iter().flat_map(|target| &target.bundles);
        let name = |source: &AdmittedBundle| Some(source.path.file_name()?.to_string_lossy().into_owned());
        bundles.filter_map(name).collect()
    }
}
