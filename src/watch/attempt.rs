//! The import of files that were taken from the inbox, and the choice of the directory for them afterwards.

use crate::bundle::volumes::Volume;
use crate::digest::Digest;
use crate::error::{Category, Error, gravest};
use crate::import::Importer;
use crate::progress::Silent;
use crate::trust::Rejection;
use crate::util::text::escape;
use crate::watch::inbox::TakenFiles;
use crate::watch::reason::{Details, Disposition};

/// The result of an import of files that were taken from the inbox.
pub(crate) struct ImportAttempt {
    /// The identity and the volumes of the first bundle that a target accepted.
    pub(crate) first_bundle: Option<(Digest, Vec<Volume>)>,
    /// The volumes that were rebuilt from parity.
    pub(crate) repaired: Vec<String>,
    pub(crate) errors: Vec<Error>,
    pub(crate) category: Option<Category>,
    pub(crate) why: Option<String>,
    /// Whether time is the only reason for the rejection.
    pub(crate) by_clock: bool,
    pub(crate) details: Details<'static>,
}

impl ImportAttempt {
    /// Imports files that were taken. `inbox` is the path of the inbox as the user gave it.
    pub(crate) fn import(importer: &Importer, taken: &TakenFiles, inbox: &str) -> ImportAttempt {
        let imported = importer.run(&taken.directories(), &Silent);
        // The files are in a temporary directory, whose path would not help the user.
        let place = format!("{}/", taken.directory.display());
        let itself = place.trim_end_matches('/').to_owned();
        let details = Details::import(imported.as_ref().ok(), &place);
        let report = imported.as_ref().ok();
        let first_bundle = report.and_then(|report| {
            let source = report.targets.iter().flat_map(|target| &target.bundles).next()?;
            Some((source.identity, source.volumes.clone()))
        });
        let repaired = report.map_or(&[][..], |report| &report.repaired).iter();
        let repaired = repaired.map(|repaired| repaired.to_string().replace(&place, "")).collect();
        let errors = match imported {
            Ok(report) => report.into_errors(),
            Err(error) => vec![error],
        };
        let by_clock = !errors.is_empty() && errors.iter().all(is_by_clock);
        let errors = errors.into_iter().map(|error| error.restated(&place, "").restated(&itself, inbox));
        let errors: Vec<Error> = errors.collect();
        let (category, why) = (gravest(&errors), errors.first().map(|error| escape(&error.to_string())));
        ImportAttempt { first_bundle, repaired, errors, category, why, by_clock, details }
    }

    /// Returns the outcome for the files, or `None` if they stay in the inbox. `unfinished` is true if more of the
    /// bundle may arrive, and `holds_no_bundle` is true if no file is a bundle.
    pub(crate) fn outcome(&self, unfinished: bool, holds_no_bundle: bool) -> Option<Disposition> {
        match self.category {
            None => Some(Disposition::Processed),
            // Such errors concern, for example, expired installed data or other files with this name, and not the
            // accepted bundle.
            Some(Category::Usage | Category::Verification | Category::Rejected)
                if self.first_bundle.is_some() =>
            {
                Some(Disposition::Processed)
            }
            Some(Category::Verification) if !unfinished => Some(Disposition::Quarantined),
            Some(Category::Rejected) if !self.by_clock => Some(Disposition::Quarantined),
            Some(Category::Usage) if holds_no_bundle => Some(Disposition::Quarantined),
            Some(_) => None,
        }
    }
}

/// Whether a bundle was rejected because of a clock, the exporter's or this host's.
fn is_by_clock(error: &Error) -> bool {
    matches!(error, Error::Rejected(Rejection::Future { .. } | Rejection::Expired { .. }))
}
