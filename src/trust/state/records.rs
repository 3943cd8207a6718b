//! What the state remembers: plain data, which knows no files.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dataset::{Contents, MissingItem};
use crate::digest::Digest;

/// What one target accepted from one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetState {
    /// The newest bundle that was accepted: the floor for the creation time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Accepted>,
    /// The identities of accepted bundles, oldest first.
    #[serde(default)]
    pub seen: Vec<Digest>,
    /// The number up to which was counted: that of the newest bundle, also where an older one was
    /// admitted after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
    /// The sequence numbers that never came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<u64>,
    /// The newest date accepted of each dataset, by reference name.
    #[serde(default)]
    pub floors: BTreeMap<String, Timestamp>,
    /// Where what is in place came from, by reference name; empty where an older program wrote this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
    /// What others put in a dataset's place, by reference name: read once, since a database has no other date.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, OthersData>,
    /// The image tags that trivy-ferry set in a registry, by reference: `HOST/REPOSITORY:TAG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, SetTag>,
    /// After when what is in place must not be used any more, by reference name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expires: BTreeMap<String, Timestamp>,
    /// Bundles that were admitted against the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// When something was about to change of which the operator's command has not been told yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_due: Option<Timestamp>,
    /// When a run last worked on the target, well or not, by this host's clock; none where an older program
    /// wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
    /// The other targets of that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// How that run failed here, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When `forget` retired the target. The next run that works on it takes that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
    /// When the floors were reset, after a key was stolen: until something is accepted, what the target holds is no
    /// floor either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors_reset: Option<Timestamp>,
}

/// How a target failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Since when every run has failed there.
    pub since: Timestamp,
    /// When the last one did.
    pub at: Timestamp,
    /// What it said.
    pub why: String,
}

/// Where a dataset or an image came from, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The bundle that brought it: the sha256 of its signed payload.
    pub bundle: Digest,
    /// The digest of its manifest; none where an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The digests of a dataset's layers, which a registry has under whatever manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
    /// What a dataset holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The name that the scanner here has for a VEX repository in a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Where a target has an image; none for a dataset, and where an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The further tags that a registry has for a dataset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Where its exporter had it from.
    pub source: String,
    /// Upstream's version, where it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The trusted keys that signed the bundle, by the names that they had here.
    pub signers: Vec<String>,
    /// Those of them that lay in a directory of trusted keys; none if an older program wrote this, or if the keys were
    /// named one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeptKey>,
}

/// A key in a directory of trusted keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptKey {
    /// Its identifier in hexadecimal.
    pub keyid: String,
    /// Its file at that time.
    pub file: String,
}

/// Data at a target that no import of this host put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OthersData {
    /// The digest of its layer.
    pub layer: Digest,
    /// When it was built, as its content says.
    pub updated_at: Timestamp,
}

/// What trivy-ferry set an image tag to. Only a tag that still names it may be replaced without a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTag {
    /// The digest of the manifest that the tag was set to. It is written down before the push, so that a
    /// run that is killed after it still knows the tag.
    pub manifest: Digest,
    /// The digest that was set before; present only while a push is not known to have ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// The image that it was set for: another image does not inherit the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl SetTag {
    /// Whether a tag names what trivy-ferry set it to.
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
    /// After when it must not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Its number in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What its exporter was to carry and could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_items: Vec<MissingItem>,
}

/// A bundle that was admitted or signed against the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// When.
    pub at: Timestamp,
    /// Which bundle.
    pub identity: Digest,
    /// By which flags.
    pub flags: Vec<String>,
}

/// The last heartbeat of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedHeartbeat {
    /// When it was made, by the exporter's clock.
    pub created: Timestamp,
    /// When it came, by this host's.
    pub received: Timestamp,
    /// What the export came to: `written`, `unchanged` or `failed`.
    pub export: String,
    /// The newest bundle that the exporter has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Accepted>,
    /// What the export was to carry and could not get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingItem>,
}

/// What one stream's targets accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// The last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<ReceivedHeartbeat>,
    /// By target, such as `cache:/var/cache/trivy`.
    pub targets: BTreeMap<String, TargetState>,
}

/// How much a dataset held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSize {
    /// The bytes of its files.
    pub bytes: u64,
    /// Its entries, if they could be counted: buckets, artifacts, checks or packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// What the last export of a stream was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportState {
    /// The sha256 of the last payload.
    pub identity: Digest,
    /// Its creation time.
    pub created: Timestamp,
    /// Its number.
    pub sequence: u64,
    /// The newest date signed of each dataset, by reference name.
    pub floors: BTreeMap<String, Timestamp>,
    /// The manifests of all that it holds, by reference name; empty where an older program wrote this.
    #[serde(default)]
    pub manifests: BTreeMap<String, Digest>,
    /// How much each dataset held when it was signed last, by reference name; empty where an older program wrote this.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, DatasetSize>,
    /// Bundles that were signed against the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// It was to be put into a folder of `--drop`, and has not been yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_drop: bool,
}
