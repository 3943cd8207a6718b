//! A bundle that was admitted, and who signed it: what every report says of it.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::bundle::VerifiedBundle;
use crate::bundle::volumes::Volume;
use crate::digest::Digest;
use crate::intake::signer::Signer;
use crate::trust::acceptance::{Admission, REPLACE_TAGS};
use crate::trust::keyring::Keyring;
use crate::util::text::age;

/// A bundle that was admitted.
#[derive(Debug, Serialize)]
pub(crate) struct Source {
    #[serde(serialize_with = "crate::util::text::path")]
    path: PathBuf,
    pub(crate) identity: Digest,
    pub(crate) signers: Vec<Signer>,
    pub(crate) created: Timestamp,
    pub(crate) sequence: Option<u64>,
    first_import: bool,
    seen_before: bool,
    superseded: bool,
    missing: Option<(u64, u64)>,
    pub(crate) overrides: Vec<&'static str>,
    /// The volumes behind its head.
    volumes: Vec<Volume>,
    #[serde(skip)]
    pub(crate) name: String,
    #[serde(skip)]
    age: String,
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signers: Vec<String> = self.signers.iter().map(Signer::to_string).collect();
        writeln!(f, "{}   signed by {}, created {} ago", self.name, signers.join(" and "), self.age)?;
        if self.first_import {
            writeln!(f, "  first import of this stream here")?;
        }
        if self.superseded {
            writeln!(f, "  late: newer bundles of this stream came before it")?;
        }
        if let Some((from, to)) = self.missing {
            match to - from {
                0 => writeln!(f, "  bundle number {from} of this stream never came here")?,
                _ => writeln!(f, "  bundles number {from} to {to} of this stream never came here")?,
            }
        }
        for flag in &self.overrides {
            match *flag {
                REPLACE_TAGS => writeln!(f, "  replaced image tags because of {flag}; this was recorded")?,
                _ => writeln!(f, "  admitted only because of {flag}; this was written down")?,
            }
        }
        Ok(())
    }
}
