//! An admitted bundle with its signers, as every report describes it.

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
    /// The bundle's file, or the file of its head volume.
    #[serde(serialize_with = "crate::util::text::serialize_path")]
    pub path: PathBuf,
    /// The digest of its payload.
    pub identity: Digest,
    /// The trusted keys that signed it.
    pub signers: Vec<SignerInfo>,
    /// When it was created.
    pub created: Timestamp,
    /// Its number in the stream, if the exporter numbers its bundles.
    pub sequence: Option<u64>,
    /// Whether it is the first bundle of its stream that this target accepted.
    pub first_import: bool,
    /// Whether the same bundle was accepted before.
    pub seen_before: bool,
    /// Whether a newer bundle of its stream was accepted before it.
    pub superseded: bool,
    /// The first and the last number of the bundles before it that are missing.
    pub missing: Option<(u64, u64)>,
    /// The items that the exporter was asked for and could not fetch.
    pub missing_items: Vec<MissingItem>,
    /// The number of the last accepted bundle, if this newer bundle has a lower number.
    pub number_before: Option<u64>,
    /// The flags without which it would have been rejected.
    pub overrides: Vec<&'static str>,
    /// The volumes that follow its head volume.
    pub volumes: Vec<Volume>,
    /// The name of its file.
    #[serde(skip)]
    pub name: String,
    /// Its age as text.
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

    /// Whether the bundle contains a dataset or image of this name and digest.
    pub(crate) fn has(&self, name: &str, digest: Digest) -> bool {
        self.content.iter().any(|(other, of)| other == name && *of == digest)
    }
}
