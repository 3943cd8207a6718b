//! OCI descriptors, manifests and image indexes: the fields that trivy-ferry reads.
//!
//! A manifest is stored as the bytes that upstream published. The parsed form is never written back, so that digests
//! stay the same. This module does no I/O.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::util::json;
use crate::util::text::escape;

/// The media type of an OCI image manifest (image-spec v1.1, `manifest.md`).
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an OCI image index (image-spec v1.1, `image-index.md`).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of Docker's image manifest, which registries may return for older pushes.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of Docker's list of image manifests, one for each platform.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The annotation with the file name of a layer (image-spec v1.1, `annotations.md`).
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation with the version of an artifact.
pub const VERSION: &str = "org.opencontainers.image.version";
/// The annotation with the creation time of an artifact.
pub const CREATED: &str = "org.opencontainers.image.created";
/// The annotation with the name of a manifest in an image layout (`image-layout.md`).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation with the name that containerd gives to an image that it imports from a layout (containerd v2,
/// `core/images`: `AnnotationImageName`).
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// The limit for a manifest in bytes, from the distribution specification (v1.1, "Pushing Manifests", 4 MiB).
pub const MAX_MANIFEST: u64 = 4 << 20;

/// The limit for the manifest of a dataset in bytes. Real ones have a few KiB. Manifests that are rewritten for a
/// registry are parsed in memory and take 16 times their size.
const MAX_ARTIFACT: usize = 1 << 20;

/// The reference to a blob: its type, its digest and its size in bytes (image-spec v1.1, `descriptor.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// The length of the blob in bytes.
    pub size: u64,
    /// Its annotations that trivy-ferry reads, such as [`TITLE`].
    #[serde(default, deserialize_with = "known", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Reads annotations and keeps only the known ones. A manifest of 4 MiB may have 400,000 others, which would take 10
/// times the memory.
fn known<'de, D: Deserializer<'de>>(reader: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Known;
    impl<'de> Visitor<'de> for Known {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("annotations")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut annotations = BTreeMap::new();
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                match [TITLE, VERSION, CREATED, REF_NAME, IMAGE_NAME].contains(&&*key) {
                    true => drop(annotations.insert(key.into_owned(), map.next_value()?)),
                    false => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(annotations)
        }
    }
    reader.deserialize_map(Known)
}

/// The fields of an image manifest that trivy-ferry needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The schema version, always 2.
    pub schema_version: u32,
    /// The media type in the manifest itself, which some publishers omit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of the artifact, which some publishers omit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration blob, which Trivy ignores.
    pub config: Descriptor,
    /// The layers with the content.
    pub layers: Vec<Descriptor>,
    /// Its annotations that trivy-ferry reads, such as [`VERSION`].
    #[serde(default, deserialize_with = "known", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses the bytes of a manifest.
    ///
    /// # Errors
    /// If there are more than 1 MiB of bytes, or if they are not JSON, are an index or a list of
    /// platforms, or have another schema version. The text is a description without the name of the
    /// source, which the caller adds.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            schema_version: Option<u32>,
            manifests: Option<IgnoredAny>,
        }
        if bytes.len() > MAX_ARTIFACT {
            return Err(format!("a manifest of {} bytes (limit: {MAX_ARTIFACT})", bytes.len()));
        }
        if bytes.trim_ascii_start().first() == Some(&b'<') {
            return Err("an HTML page instead of a manifest".into());
        }
        let probe: Probe =
            json::from_slice(bytes).map_err(|e| escape(&format!("not a JSON manifest: {e}")))?;
        if probe.manifests.is_some() {
            return Err("an image index instead of a single manifest".into());
        }
        if probe.schema_version != Some(2) {
            return Err("not an image manifest of schema version 2".into());
        }
        json::from_slice(bytes).map_err(|e| escape(&format!("not an image manifest: {e}")))
    }

    /// Returns the configuration and the layers, in this order.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// The platform of an image (image-spec v1.1, `image-index.md`), written `linux/amd64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The architecture.
    pub architecture: String,
    /// The variant of the architecture; `None` for any.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether an image for `other` runs on this platform.
    pub fn covers(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl std::str::FromStr for Platform {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric());
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() <= 1 && parts.iter().all(plain) => {
                Ok(Platform {
                    os: (*os).into(),
                    architecture: (*architecture).into(),
                    variant: variant.first().map(|variant| (*variant).into()),
                })
            }
            _ => Err("use OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/amd64"),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "WireEntry")]
pub struct IndexEntry {
    /// The manifest.
    pub descriptor: Descriptor,
    /// Its platform, if any.
    pub platform: Option<Platform>,
}

/// An [`IndexEntry`] as JSON. The descriptor is not flattened, because serde would then buffer all unknown fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, deserialize_with = "known")]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

impl From<WireEntry> for IndexEntry {
    fn from(wire: WireEntry) -> Self {
        let WireEntry { media_type, digest, size, annotations, platform } = wire;
        IndexEntry { descriptor: Descriptor { media_type, digest, size, annotations }, platform }
    }
}

/// A layer of an image manifest as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireLayer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, deserialize_with = "known")]
    annotations: BTreeMap<String, String>,
    /// Only the length of the list is kept.
    urls: Option<Vec<IgnoredAny>>,
}

impl From<WireLayer> for Descriptor {
    fn from(wire: WireLayer) -> Self {
        let WireLayer { media_type, digest, size, annotations, .. } = wire;
        Descriptor { media_type, digest, size, annotations }
    }
}

/// A manifest or an index in a registry: the references to other documents and blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image manifest: its configuration and its layers.
    Manifest(Vec<Descriptor>),
    /// An index: its manifests.
    Index(Vec<IndexEntry>),
}

impl Document {
    /// Parses a document of any of the four types in current registries, and returns its type. `claimed` is the media
    /// type that its source states.
    ///
    /// # Errors
    /// If the document has another type, could be read as two types (CVE-2021-41190), or has a layer that is not in its
    /// registry. The text says which.
    pub fn parse(bytes: &[u8], claimed: Option<&str>) -> Result<(&'static str, Self), String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Form {
            schema_version: Option<u32>,
            media_type: Option<String>,
            config: Option<Descriptor>,
            layers: Option<Vec<WireLayer>>,
            manifests: Option<Vec<IndexEntry>>,
        }
        let claimed = claimed.map(|claimed| claimed.split(';').next().unwrap_or_default().trim());
        let schema_1 = |form: &Form| {
            form.schema_version == Some(1)
                || claimed.is_some_and(|claimed| {
                    claimed.starts_with("application/vnd.docker.distribution.manifest.v1")
                })
        };
        let form: Form =
            json::from_slice(bytes).map_err(|error| escape(&format!("it is not a manifest: {error}")))?;
        if schema_1(&form) {
            return Err("it is a Docker manifest of schema 1, which current registries reject".into());
        }
        if form.schema_version != Some(2) {
            return Err("it is not a manifest of schema version 2".into());
        }
        // The media type in the document takes precedence over that of the source, and both over the fields.
        let known = [MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_LIST];
        let type_of = |text: &str| known.into_iter().find(|known| *known == text);
        let media_type = match (form.media_type.as_deref(), claimed.and_then(type_of)) {
            (Some(own), _) => {
                type_of(own).ok_or_else(|| escape(&format!("it has the unknown type {own:?}")))?
            }
            (None, Some(claimed)) => claimed,
            (None, None) if form.manifests.is_some() => INDEX,
            (None, None) => MANIFEST,
        };
        let is_index = [INDEX, DOCKER_LIST].contains(&media_type);
        match (is_index, form) {
            (true, Form { manifests: Some(manifests), config: None, layers: None, .. }) => {
                Ok((media_type, Document::Index(manifests)))
            }
            (false, Form { config: Some(config), layers: Some(layers), manifests: None, .. }) => {
                if let Some(layer) =
                    layers.iter().find(|layer| layer.urls.as_ref().is_some_and(|u| !u.is_empty()))
                {
                    return Err(format!("its layer {} is not in its registry", layer.digest));
                }
                let layers = layers.into_iter().map(Descriptor::from);
                Ok((media_type, Document::Manifest(std::iter::once(config).chain(layers).collect())))
            }
            _ => Err(format!("its fields do not match its type {media_type}")),
        }
    }
}

/// The `index.json` of an image layout (image-spec v1.1, `image-layout.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// The schema version, always 2.
    pub schema_version: u32,
    /// [`INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// One descriptor for each reference, whose name is in the annotation [`REF_NAME`].
    pub manifests: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, claimed: Option<&str>) -> Result<(&'static str, usize), String> {
        Document::parse(text.as_bytes(), claimed).map(|(media_type, document)| match document {
            Document::Manifest(blobs) => (media_type, blobs.len()),
            Document::Index(entries) => (media_type, entries.len()),
        })
    }

    const BLOB: &str = r#"{"mediaType":"x","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}"#;

    #[test]
    fn the_media_type_in_a_document_takes_precedence() {
        let manifest = |own: &str| format!(r#"{{"schemaVersion":2{own},"config":{BLOB},"layers":[{BLOB}]}}"#);
        let index = |own: &str| {
            format!(
                r#"{{"schemaVersion":2{own},"manifests":[{BLOB},{{"platform":{{"os":"linux","architecture":"amd64"}},{}]}}"#,
                &BLOB[1..]
            )
        };
        let typed = |media_type: &str| format!(r#","mediaType":"{media_type}""#);
        for own in [MANIFEST, DOCKER_MANIFEST] {
            assert_eq!(document(&manifest(&typed(own)), Some(INDEX)), Ok((own, 2)));
            assert_eq!(document(&manifest(""), Some(own)), Ok((own, 2)));
        }
        for own in [INDEX, DOCKER_LIST] {
            assert_eq!(document(&index(&typed(own)), None), Ok((own, 2)));
            assert_eq!(document(&index(""), Some(own)), Ok((own, 2)));
        }
        assert_eq!(document(&manifest(""), Some("application/json; charset=utf-8")), Ok((MANIFEST, 2)));
        assert_eq!(document(&index(""), None), Ok((INDEX, 2)));
    }

    #[test]
    fn other_forms_are_rejected_with_the_reason() {
        let both = format!(r#"{{"schemaVersion":2,"config":{BLOB},"layers":[],"manifests":[]}}"#);
        let foreign = format!(
            r#"{{"schemaVersion":2,"config":{BLOB},"layers":[{{"urls":["https://x/"],{}]}}"#,
            &BLOB[1..]
        );
        let own = r#"{"schemaVersion":2,"mediaType":"application/vnd.example+json"}"#;
        let other =
            r#"{"schemaVersion":2,"config":{"mediaType":"x","size":2,"digest":"sha512:00"},"layers":[]}"#;
        for (text, claimed, why) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, "Docker manifest of schema 1"),
            (
                "{}",
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                "Docker manifest of schema 1",
            ),
            (own, None, "unknown type \"application/vnd.example+json\""),
            (&both, Some(MANIFEST), "fields do not match its type"),
            (&both, Some(INDEX), "fields do not match its type"),
            (&foreign, None, "is not in its registry"),
            ("<html>", None, "not a manifest"),
            (other, None, "not a manifest"),
            (r#"{"schemaVersion":2}"#, None, "fields do not match its type"),
        ] {
            let error = document(text, claimed).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_platform_without_a_variant_covers_all_variants() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/arm").covers(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm/v6").covers(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").covers(&platform("windows/amd64")));
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/amd64 "] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
