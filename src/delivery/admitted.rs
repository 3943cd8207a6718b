//! A bundle that was admitted, and who signed it: what every report says of it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::VerifiedBundle;
use crate::bundle::volumes::Volume;
use crate::digest::Digest;
use crate::intake::signer::Signer;
use crate::trust::acceptance::Admission;
use crate::trust::keyring::Keyring;
use crate::util::text::age;

/// A bundle that was admitted.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    #[serde(serialize_with = "crate::util::text::path")]
    pub(crate) path: PathBuf,
    pub(crate) identity: Digest,
    pub(crate) signers: Vec<Signer>,
    pub(crate) created: Timestamp,
    pub(crate) sequence: Option<u64>,
    pub(crate) first_import: bool,
    pub(crate) seen_before: bool,
    pub(crate) superseded: bool,
    pub(crate) missing: Option<(u64, u64)>,
    pub(crate) overrides: Vec<&'static str>,
    /// The volumes behind its head.
    pub(crate) volumes: Vec<Volume>,
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(skip)]
    pub(crate) age: String,
    /// The names of its datasets and images, and the digests of their manifests.
    #[serde(skip)]
    content: Vec<(String, Digest)>,
}

impl Source {
    pub(crate) fn new(
        bundle: &VerifiedBundle,
        admission: &Admission,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Self {
        let payload = bundle.payload();
        let datasets = payload.datasets.iter().map(|dataset| (dataset.reference(), dataset.manifest.digest));
        let images = payload.images.iter().map(|image| (image.name.clone(), image.manifest.digest));
        Source {
            path: bundle.path().into(),
            identity: bundle.identity(),
            signers: Signer::of(bundle.signers(), keyring),
            created: payload.created,
            sequence: payload.sequence,
            first_import: admission.first,
            seen_before: admission.seen,
            superseded: admission.superseded,
            missing: admission.gap,
            overrides: admission.overrides.clone(),
            volumes: payload.volumes.clone(),
            name: bundle.name(),
            age: age(payload.created, now),
            content: datasets.chain(images).collect(),
        }
    }

    /// Whether a dataset or an image is its.
    pub(crate) fn has(&self, name: &str, digest: Digest) -> bool {
        self.content.iter().any(|(other, of)| other == name && *of == digest)
    }
}
