//! A manifest for registries that reject the one of upstream: Quay rejects a configuration of its own type,
//! Harbor an empty one, and GitLab an artifact type.
//!
//! The layers keep their digests, so Trivy unpacks the same data. Trivy reads neither the configuration nor
//! the artifact type (v0.74.0, pkg/oci). The digest of the manifest changes. The result depends on the
//! bytes of upstream alone, so that a second push finds the first.

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::oci;

/// Media type of an image's configuration (image-spec v1.1, config.md).
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The least that is an image's configuration.
const CONFIG: &str =
    r#"{"architecture":"amd64","config":{},"os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}"#;

/// A manifest that looks like an image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compat {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The configuration that it names.
    pub config: &'static [u8],
    /// What differs from upstream's, in words.
    pub changed: String,
}

impl Compat {
    /// The manifest's media type.
    pub const MEDIA_TYPE: &'static str = oci::MANIFEST;

    /// Rewrites upstream's manifest.
    ///
    /// # Errors
    /// If the bytes are not a manifest. The text says what is wrong with them.
    pub fn of(manifest: &[u8]) -> Result<Self, String> {
        oci::Manifest::parse(manifest)?;
        let mut value: Value = serde_json::from_slice(manifest).map_err(|e| e.to_string())?;
        let object = value.as_object_mut().ok_or("not a JSON object")?;
        let was =
            object.get("config").and_then(|config| config["mediaType"].as_str()).unwrap_or("none").to_owned();
        let artifact_type = object.remove("artifactType").is_some();
        object.insert("mediaType".into(), Self::MEDIA_TYPE.into());
        let config =
            json!({"mediaType": IMAGE_CONFIG, "digest": Digest::of(CONFIG.as_bytes()), "size": CONFIG.len()});
        object.insert("config".into(), config);
        let manifest = serde_json::to_vec(&value).map_err(|e| e.to_string())?;
        let without = if artifact_type { ", no artifactType" } else { "" };
        let changed = format!("configuration of type {IMAGE_CONFIG} in place of {was}{without}");
        Ok(Compat { manifest, config: CONFIG.as_bytes(), changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_annotations_stay() {
        let layer = json!({"mediaType": "x", "digest": Digest::of(b"layer"), "size": 5, "annotations": {oci::TITLE: "db.tar.gz"}});
        let upstream = json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST, "artifactType": "application/vnd.aquasec.trivy.config.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2},
            "layers": [layer], "annotations": {oci::CREATED: "2026-11-20T00:00:00Z"},
        });
        let compat = Compat::of(upstream.to_string().as_bytes()).unwrap();
        let value: Value = serde_json::from_slice(&compat.manifest).unwrap();
        assert_eq!(
            (&value["layers"], &value["annotations"]),
            (&upstream["layers"], &upstream["annotations"])
        );
        assert_eq!(value["config"]["mediaType"], IMAGE_CONFIG);
        assert_eq!(value["config"]["digest"], Digest::of(compat.config).to_string());
        assert!(value.get("artifactType").is_none());
        assert_eq!(
            compat.changed,
            format!(
                "configuration of type {IMAGE_CONFIG} in place of application/vnd.oci.empty.v1+json, no artifactType"
            )
        );
        assert_eq!(Compat::of(upstream.to_string().as_bytes()).unwrap(), compat, "the same every time");
        assert!(Compat::of(b"<html>").is_err());
    }
}
