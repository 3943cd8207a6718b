//! The heartbeat: a small signed file without data. With it an importer can distinguish a broken connection
//! from a day without new data. `bundle-format.md`, section 14, specifies it.
//!
//! Its payload has another type than that of a bundle, so that a signature over one is not valid for the
//! other. A heartbeat changes no floor: it does not affect which bundles an importer accepts.

use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bundle::format::FORMAT;
use crate::bundle::reader::{trusted_for, verified};
use crate::bundle::{BundleError, Stream, begins_with, open_regular};
use crate::dataset::MissingItem;
use crate::digest::Digest;
use crate::trust::TrustError;
use crate::trust::envelope::Envelope;
use crate::trust::keyring::Keyring;
use crate::trust::message::PayloadType;
use crate::trust::signer::Signer;
use crate::util::json;
use crate::util::text::{escape, format_stamp, parse_stamp};

/// The type of the payload.
pub const HEARTBEAT_TYPE: PayloadType = PayloadType::new("application/vnd.trivy-ferry.heartbeat.v1+json");
/// The suffix of the file name.
const SUFFIX: &str = ".heartbeat.json";
/// The largest file that is read, in bytes.
const MAX_HEARTBEAT: u64 = 64 << 10;

/// The state of a stream on the exporter after an export, with or without new data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The version of the format.
    pub format: u32,
    /// The stream.
    pub stream: Stream,
    /// The creation time.
    pub created: Timestamp,
    /// The outcome of the export that created it.
    pub export: ExportOutcome,
    /// The newest bundle of the stream, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<NewestBundle>,
    /// The items that the export should have carried but could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingItem>,
}

/// The outcome of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExportOutcome {
    /// It wrote a bundle.
    Written,
    /// Upstream had no newer data than the newest bundle.
    Unchanged,
    /// It failed, for example because a source could not be reached.
    Failed,
}

/// The newest bundle of a stream, which may not have arrived yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewestBundle {
    /// The sha256 of its signed payload.
    pub identity: Digest,
    /// Its creation time.
    pub created: Timestamp,
    /// Its number in the stream.
    pub sequence: u64,
}

impl Heartbeat {
    /// Creates the heartbeat of a stream.
    pub fn new(
        stream: Stream,
        created: Timestamp,
        export: ExportOutcome,
        newest: Option<NewestBundle>,
    ) -> Self {
        Heartbeat { format: FORMAT, stream, created, export, newest, missing: Vec::new() }
    }

    /// Returns the name of its file: the stream and the time in seconds, in characters that FAT and gateways
    /// allow.
    pub fn file_name(&self) -> String {
        format!("{}-{}{SUFFIX}", self.stream.as_str(), format_stamp(self.created))
    }

    /// Whether a file with this name is a heartbeat of any stream.
    pub fn is_named(name: &str) -> bool {
        name.to_lowercase().ends_with(SUFFIX) && !name.starts_with('.')
    }

    /// Whether a file begins like a heartbeat, regardless of its name. Large files and links are not opened.
    pub(crate) fn begins(path: &Path) -> bool {
        let fits = |length: u64| (1..=MAX_HEARTBEAT).contains(&length);
        path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && fits(metadata.len()))
            && begins_with(path, &format!("{{\"payloadType\":\"{}\",", HEARTBEAT_TYPE.as_str()))
    }

    /// Whether a file with this name is a heartbeat of this stream, as named by [`Heartbeat::file_name`].
    pub fn is_named_for(name: &str, stream: &str) -> bool {
        let date = name.strip_prefix(stream).and_then(|rest| rest.strip_prefix('-'));
        let date = date.and_then(|rest| rest.strip_suffix(SUFFIX));
        date.and_then(parse_stamp).is_some()
    }

    /// Signs it and returns the bytes of its file.
    ///
    /// # Errors
    /// [`TrustError::Signing`] or [`TrustError::Signer`] if it cannot be signed; [`TrustError::WrongSignature`] if the
    /// signature is invalid.
    pub fn signed(&self, signer: &dyn Signer) -> Result<Vec<u8>, TrustError> {
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let envelope = Envelope::signed(HEARTBEAT_TYPE, payload, signer)?;
        let room = Envelope::capacity(HEARTBEAT_TYPE, envelope.payload().len());
        let mut bytes = envelope.to_bytes(room).unwrap_or_default();
        bytes.truncate(bytes.trim_ascii_end().len());
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a file, checks its signature and then its payload. Links are not followed.
    ///
    /// # Errors
    /// [`BundleError::Open`], [`BundleError::NotAFile`] or [`BundleError::Read`] if the file cannot be
    /// read; [`BundleError::Heartbeat`] if it is too large or not a heartbeat; [`BundleError::Untrusted`]
    /// or [`BundleError::InvalidSignature`] if no trusted key has signed it; [`BundleError::Unknown`] if its
    /// format is newer.
    pub fn read(path: &Path, keyring: &Keyring) -> Result<Self, BundleError> {
        let (file, length) = open_regular(path)?;
        let damaged = |why: String| BundleError::Heartbeat { path: path.into(), why: why.into() };
        if length > MAX_HEARTBEAT {
            return Err(damaged(format!("it has {length} bytes (limit: {MAX_HEARTBEAT})")));
        }
        let mut bytes = Vec::new();
        let read = file.take(MAX_HEARTBEAT).read_to_end(&mut bytes);
        read.map_err(|error| BundleError::Read { path: path.into(), error })?;
        let envelope = Envelope::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
        if envelope.payload_type() != HEARTBEAT_TYPE.as_str() {
            let why = format!("its payload is of type {:?}", escape(envelope.payload_type()));
            return Err(damaged(why));
        }
        let verified = verified(path, envelope, HEARTBEAT_TYPE, keyring)?;
        let heartbeat: Heartbeat =
            json::from_slice(verified.payload()).map_err(|error| damaged(error.to_string()))?;
        if heartbeat.format != FORMAT {
            let feature = format!("format version {}", heartbeat.format);
            return Err(BundleError::Unknown { path: path.into(), feature: feature.into() });
        }
        MissingItem::check(&heartbeat.missing).map_err(|why| damaged(format!("it {why}")))?;
        trusted_for(path, heartbeat.stream.as_str(), verified.signers(), keyring)?;
        Ok(heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::key::SigningKey;

    fn heartbeat() -> Heartbeat {
        let created = "2026-11-21T09:15:00Z".parse().unwrap();
        let newest = NewestBundle { identity: Digest::of(b"x"), created, sequence: 7 };
        Heartbeat::new("default".parse().unwrap(), created, ExportOutcome::Unchanged, Some(newest))
    }

    fn read(bytes: &[u8], key: &SigningKey) -> Result<Heartbeat, BundleError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.heartbeat.json");
        std::fs::write(&path, bytes).unwrap();
        Heartbeat::read(&path, &Keyring::of(&key.public()))
    }

    #[test]
    fn a_heartbeat_is_read_as_it_was_signed() {
        let key = SigningKey::generate().unwrap();
        let bytes = heartbeat().signed(&key).unwrap();
        assert_eq!(read(&bytes, &key).unwrap(), heartbeat());
        assert_eq!(heartbeat().file_name(), "default-20261121t091500z.heartbeat.json");
        assert!(Heartbeat::is_named(&heartbeat().file_name()));
        assert!(Heartbeat::is_named_for(&heartbeat().file_name(), "default"));
        assert!(!Heartbeat::is_named_for(&heartbeat().file_name(), "def"));
        assert!(!Heartbeat::is_named_for("default-lab-20261121t091500z.heartbeat.json", "default"));
    }

    #[test]
    fn a_heartbeat_is_recognized_by_its_first_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("DEFAULT1.JSO");
        let begins = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Heartbeat::begins(&path)
        };
        let good = heartbeat().signed(&SigningKey::generate().unwrap()).unwrap();
        assert!(begins(&good));
        assert!(!begins(&good[1..]) && !begins(b"") && !begins(b"{}"));
        assert!(!begins(&[&good[..], &vec![b' '; MAX_HEARTBEAT as usize]].concat()), "it is too large");
        let link = dir.path().join("link");
        begins(&good);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(!Heartbeat::begins(&link) && !Heartbeat::begins(dir.path()));
    }

    #[test]
    fn other_keys_and_signatures_of_bundles_are_rejected() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let bytes = heartbeat().signed(&other).unwrap();
        assert!(matches!(read(&bytes, &key), Err(BundleError::Untrusted { .. })));
        let payload = serde_json::to_vec(&heartbeat()).unwrap();
        let envelope = Envelope::signed(crate::bundle::format::PAYLOAD_TYPE, payload, &key).unwrap();
        let as_bundle = envelope.to_bytes(4096).unwrap();
        assert!(matches!(read(&as_bundle, &key), Err(BundleError::Heartbeat { .. })));
        let renamed = String::from_utf8(as_bundle).unwrap().replace(".bundle.", ".heartbeat.");
        assert!(matches!(read(renamed.as_bytes(), &key), Err(BundleError::InvalidSignature { .. })));
    }

    #[test]
    fn a_signed_array_is_rejected() {
        let key = SigningKey::generate().unwrap();
        let good: serde_json::Value = serde_json::to_value(heartbeat()).unwrap();
        let fields = ["format", "stream", "created", "export", "newest"].map(|field| good[field].clone());
        let mut nested = good.clone();
        nested["newest"] = serde_json::json!([
            good["newest"]["identity"],
            good["newest"]["created"],
            good["newest"]["sequence"]
        ]);
        for bad in [serde_json::json!(fields), nested] {
            let envelope = Envelope::signed(HEARTBEAT_TYPE, bad.to_string().into_bytes(), &key).unwrap();
            let error = read(&envelope.to_bytes(4096).unwrap(), &key).unwrap_err();
            assert!(error.to_string().contains("invalid type: sequence"), "{error}");
        }
    }

    #[test]
    fn no_flipped_bit_changes_a_heartbeat_and_a_shorter_or_too_long_one_is_rejected() {
        let key = SigningKey::generate().unwrap();
        let good = heartbeat().signed(&key).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if let Ok(read) = read(&bad, &key) {
                    assert_eq!(read, heartbeat(), "byte {at}");
                }
            }
        }
        for length in 0..good.len() - 1 {
            assert!(read(&good[..length], &key).is_err(), "{length}");
        }
        let long = [&good[..], &vec![b' '; MAX_HEARTBEAT as usize]].concat();
        assert!(matches!(read(&long, &key), Err(BundleError::Heartbeat { .. })));
    }
}
