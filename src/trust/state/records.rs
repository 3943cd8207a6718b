//! The records of the state: plain data. This module does no I/O.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataset::{Contents, MissingItem};
use crate::digest::Digest;

/// The record of the data that one target accepted from one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetState {
    /// The newest bundle that was accepted: the floor for the creation time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Accepted>,
    /// The identities of accepted bundles, oldest first.
    #[serde(default)]
    pub seen: Vec<Digest>,
    /// The number of the newest bundle, even if an older one was admitted after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// The sequence numbers that were never received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<u64>,
    /// The newest accepted date of each dataset, by reference name.
    #[serde(default)]
    pub floors: BTreeMap<String, Timestamp>,
    /// The origins of the items in place, by reference name; empty if an older program wrote this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
    /// Data that others put in a dataset's place, by reference name. It is kept because finding its date needs a
    /// download.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, OthersData>,
    /// The image tags that trivy-ferry set in a registry, by reference: `HOST/REPOSITORY:TAG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, SetTag>,
    /// The expiry dates of the items in place, by reference name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expires: BTreeMap<String, Timestamp>,
    /// Bundles that were admitted with an override.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// When a change began for which the operator's command has not run yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_due: Option<Timestamp>,
    /// When a run last used the target, successfully or not, by this host's clock; `None` if an older program wrote
    /// this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// The other targets of that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// The failure of that run here, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When `forget` retired the target. The next run that uses it removes this date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
    /// When the floors were reset after a key was stolen. Until a bundle is accepted, the target's own data is no floor
    /// either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors_reset: Option<Timestamp>,
}

/// The failure of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The time since which every run has failed there.
    pub since: Timestamp,
    /// When the last run failed.
    pub at: Timestamp,
    /// The error of the last run.
    pub why: String,
}

/// The origin of a dataset or an image, and its digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The bundle that contained it: the sha256 of its signed payload.
    pub bundle: Digest,
    /// The digest of its manifest; `None` if an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The digests of a dataset's layers. In a registry, another manifest may name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    /// The contents of a dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The name of a VEX repository in the configuration of the scanner on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The reference of an image at the target; `None` for a dataset, or if an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The extra tags of a dataset in a registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The source from which its exporter fetched it.
    pub source: String,
    /// The upstream version, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The trusted keys that signed the bundle, by their names on this host.
    pub signers: Vec<String>,
    /// The signing keys in a directory of trusted keys. Empty if an older program wrote this,
    /// or if the keys were named one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeptKey>,
}

/// A key in a directory of trusted keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptKey {
    /// Its identifier in hexadecimal.
    pub keyid: String,
    /// Its file at the time of the import.
    pub file: String,
}

/// Data at a target that no import of this host installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OthersData {
    /// The digest of its layer.
    pub layer: Digest,
    /// When it was built, according to its content.
    pub updated_at: Timestamp,
}

/// The manifest to which trivy-ferry set an image tag. Only a tag that still names it may be replaced without a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTag {
    /// The digest of the manifest that the tag was set to. It is saved before the push, so that the tag is known even
    /// if the run is killed after the push.
    pub manifest: Digest,
    /// The digest that was set before; present only until the push has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// The image that the tag was set for. Another image must not replace it without a flag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl SetTag {
    /// Whether trivy-ferry set the tag to `found`.
    pub fn is(&self, found: Digest) -> bool {
        self.manifest == found || self.before == Some(found)
    }
}

/// A bundle that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The sha256 of its signed payload.
    pub identity: Digest,
    /// When it was created.
    pub created: Timestamp,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its number in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The requested items that its exporter could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_items: Vec<MissingItem>,
}

/// A bundle that was admitted or signed with an override.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// When it was admitted or signed.
    pub at: Timestamp,
    /// The digest of the payload of the bundle.
    pub identity: Digest,
    /// The flags that were needed.
    pub flags: Vec<String>,
}

/// The last heartbeat of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedHeartbeat {
    /// When it was created, by the exporter's clock.
    pub created: Timestamp,
    /// When it was received, by this host's clock.
    pub received: Timestamp,
    /// The outcome of the export: `written`, `unchanged` or `failed`.
    pub export: String,
    /// The newest bundle of the exporter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Accepted>,
    /// The requested items that the export could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingItem>,
}

/// The record of the imports from one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// The last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<ReceivedHeartbeat>,
    /// The records by target, such as `cache:/var/cache/trivy`.
    pub targets: BTreeMap<String, TargetState>,
}

/// The size of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSize {
    /// The size of its files, in bytes.
    pub bytes: u64,
    /// Its entries, if they could be counted: buckets, artifacts, checks or packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// The last export of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportState {
    /// The sha256 of the last payload.
    pub identity: Digest,
    /// Its creation time.
    pub created: Timestamp,
    /// Its number.
    pub sequence: u64,
    /// The newest signed date of each dataset, by reference name.
    pub floors: BTreeMap<String, Timestamp>,
    /// The manifests of its items, by reference name; empty if an older program wrote this.
    #[serde(default)]
    pub manifests: BTreeMap<String, Digest>,
    /// The size of each dataset when it was last signed, by reference name; empty if an older program wrote this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, DatasetSize>,
    /// Bundles that were signed with an override.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Whether it still has to be copied into the directory of `--drop`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_drop: bool,
}
