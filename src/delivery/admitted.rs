//! A bundle that was admitted, and who signed it: what every report says of it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::VerifiedBundle;
use crate::bundle::volumes::Volume;
use crate::dataset::MissingItem;
use crate::digest::Digest;
use crate::intake::signer::SignerInfo;
use crate::trust::acceptance::Admission;
use crate::trust::keyring::Keyring;
use crate::util::text::format_age;

/// A bundle that was admitted.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct AdmittedBundle {
    /// Its file, or that of its head.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// The digest of its payload.
    pub identity: Digest,
    /// The trusted keys that signed it.
    pub signers: Vec<SignerInfo>,
    /// When it was created.
    pub created: Timestamp,
    /// Its number in the stream, if its exporter keeps count.
    pub sequence: Option<u64>,
    /// Nothing of its stream was accepted for this target before.
    pub first_import: bool,
    /// This very bundle was accepted before.
    pub seen_before: bool,
    /// It came late: newer bundles of its stream came before it.
    pub superseded: bool,
    /// The numbers of bundles before it that never came, from and to, both included.
    pub missing: Option<(u64, u64)>,
    /// What its exporter was to carry and could not get.
    pub missing_items: Vec<MissingItem>,
    /// The number of the last bundle, if this newer one has a lower one.
    pub number_before: Option<u64>,
    /// The flags without which it would have been rejected.
    pub overrides: Vec<&'static str>,
    /// The volumes behind its head.
    pub volumes: Vec<Volume>,
    /// The name of its file.
    #[serde(skip)]
    pub name: String,
    /// Its age, for people.
    #[serde(skip)]
    pub age: String,
    /// The names of its datasets and images, and the digests of their manifests.
    #[serde(skip)]
    content: Vec<(String, Digest)>,
}

impl AdmittedBundle {
    pub(crate) fn new(
        bundle: &VerifiedBundle,
        admission: &Admission,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Self {
        let payload = bundle.payload();
        let datasets = payload.datasets.iter().map(|dataset| (dataset.reference(), dataset.manifest.digest));
        let images = payload.images.iter().map(|image| (image.name.clone(), image.manifest.digest));
        AdmittedBundle {
            path: bundle.path().into(),
            identity: bundle.identity(),
            signers: SignerInfo::of(bundle.signers(), keyring),
            created: payload.created,
            sequence: payload.sequence,
            first_import: admission.first,
            seen_before: admission.seen,
            superseded: admission.superseded,
            missing: admission.gap,
            missing_items: payload.missing.clone(),
            number_before: admission.number_before,
            overrides: admission.overrides.clone(),
            volumes: payload.volumes.clone(),
            name: bundle.name(),
            age: format_age(payload.created, now),
            content: datasets.chain(images).collect(),
        }
    }

    /// Whether a dataset or an image is its.
    pub(crate) fn has(&self, name: &str, digest: Digest) -> bool {
        self.content.iter().any(|(other, of)| other == name && *of == digest)
    }
}
