//! Rewrites manifests for registries that reject those of upstream: Quay rejects configurations with a custom type,
//! Harbor rejects empty configurations, and GitLab rejects artifact types.
//!
//! The layers keep their digests, so Trivy unpacks the same data. Trivy reads neither the configuration nor the
//! artifact type (v0.74.0, `pkg/oci`). The digest of the manifest changes. The result depends only on the bytes of
//! upstream, so that a second push finds the first. This module makes no requests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::oci;

/// The media type of the configuration of an image (image-spec v1.1, `config.md`).
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The smallest valid configuration of an image.
const CONFIG: &str =
    r#"{"architecture":"amd64","config":{},"os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}"#;

/// The limit for a document of an image in bytes. It is parsed in memory and takes 16 times its size.
const MAX_DOCUMENT: usize = 1 << 20;
/// The media types of configurations that every registry accepts.
const IMAGE_CONFIGS: [&str; 2] = [IMAGE_CONFIG, "application/vnd.docker.container.image.v1+json"];

/// A manifest that looks like that of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compat {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// A description of the difference from upstream's manifest.
    pub changed: String,
}

impl Compat {
    /// The media type of the manifest.
    pub const MEDIA_TYPE: &'static str = oci::MANIFEST;

    /// Rewrites a manifest of upstream.
    ///
    /// # Errors
    /// If the bytes are not a manifest. The text is the reason.
    pub fn of(manifest: &[u8]) -> Result<Self, String> {
        oci::Manifest::parse(manifest)?;
        Compat::rewrite(serde_json::from_slice(manifest).map_err(|e| e.to_string())?)
    }

    fn rewrite(mut value: Value) -> Result<Self, String> {
        let object = value.as_object_mut().ok_or("not a JSON object")?;
        let was =
            object.get("config").and_then(|config| config["mediaType"].as_str()).unwrap_or("none").to_owned();
        let artifact_type = object.remove("artifactType").is_some();
        let without = if artifact_type { ", no artifactType" } else { "" };
        object.insert("mediaType".into(), Self::MEDIA_TYPE.into());
        let config = json!({
            "mediaType": IMAGE_CONFIG, "digest": Digest::of(CONFIG.as_bytes()), "size": CONFIG.len()
        });
        object.insert("config".into(), config);
        let changed = format!("configuration of type {IMAGE_CONFIG} instead of {was}{without}");
        let manifest = bytes_of(&value)?;
        Ok(Compat { manifest, changed })
    }

    /// Rewrites a manifest or an index of an image. `known` has the new digests and sizes of the documents below it.
    /// `None` if every registry accepts the document unchanged.
    ///
    /// # Errors
    /// If the document is neither a manifest nor an index, or is larger than 1 MiB. The text is the reason.
    pub fn of_image(
        document: &[u8],
        known: &BTreeMap<Digest, (Digest, u64)>,
    ) -> Result<Option<Vec<u8>>, String> {
        if document.len() > MAX_DOCUMENT {
            return Err(format!("a manifest of {} bytes (limit: {MAX_DOCUMENT})", document.len()));
        }
        let mut value: Value = serde_json::from_slice(document).map_err(|e| e.to_string())?;
        let object = value.as_object_mut().ok_or("not a JSON object")?;
        if let Some(config) = object.get("config") {
            if config["mediaType"].as_str().is_none_or(|it| !IMAGE_CONFIGS.contains(&it)) {
                return Ok(Some(Compat::rewrite(value)?.manifest));
            }
            let is_changed = object.remove("artifactType").is_some();
            return is_changed.then(|| bytes_of(&value)).transpose();
        }
        let mut is_changed = object.remove("artifactType").is_some();
        let entries = object
            .get_mut("manifests")
            .and_then(Value::as_array_mut)
            .ok_or("neither a manifest nor an index")?;
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            is_changed |= entry.remove("artifactType").is_some();
            let digest =
                entry.get("digest").and_then(Value::as_str).and_then(|text| text.parse::<Digest>().ok());
            if let Some((digest, size)) = digest.and_then(|digest| known.get(&digest)) {
                entry.insert("digest".into(), digest.to_string().into());
                entry.insert("size".into(), (*size).into());
                is_changed = true;
            }
        }
        is_changed.then(|| bytes_of(&value)).transpose()
    }

    /// Returns the digest and the bytes of the configuration in rewritten manifests.
    #[must_use]
    pub fn config() -> (Digest, &'static [u8]) {
        (Digest::of(CONFIG.as_bytes()), CONFIG.as_bytes())
    }
}

fn bytes_of(document: &Value) -> Result<Vec<u8>, String> {
    serde_json::to_vec(document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_that_a_registry_rejects_are_rewritten() {
        let none = BTreeMap::new();
        let manifest = |config: &str, artifact: bool| {
            let mut value = json!({
                "schemaVersion": 2, "mediaType": oci::MANIFEST, "layers": [],
                "config": {"mediaType": config, "digest": Digest::of(b"{}"), "size": 2},
            });
            if artifact {
                value["artifactType"] = "application/vnd.x".into();
            }
            value.to_string().into_bytes()
        };
        let rewritten = |config: &str, artifact: bool| {
            let bytes = Compat::of_image(&manifest(config, artifact), &none).unwrap()?;
            Some(serde_json::from_slice::<Value>(&bytes).unwrap())
        };
        for config in IMAGE_CONFIGS {
            assert_eq!(rewritten(config, false), None);
            let value = rewritten(config, true).unwrap();
            assert!(value.get("artifactType").is_none());
            assert_eq!(
                value["config"]["digest"],
                Digest::of(b"{}").to_string(),
                "its own configuration stays"
            );
        }
        let value = rewritten("application/vnd.oci.empty.v1+json", true).unwrap();
        assert_eq!(value["config"]["digest"], Compat::config().0.to_string());
        // An index changes with the documents below it.
        let (child, other) = (Digest::of(b"child"), Digest::of(b"other"));
        let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [
            {"mediaType": oci::MANIFEST, "digest": child, "size": 5, "platform": {"os": "linux"}},
            {"mediaType": oci::MANIFEST, "digest": other, "size": 5},
        ]});
        let index = index.to_string().into_bytes();
        assert_eq!(Compat::of_image(&index, &none).unwrap(), None);
        let known = BTreeMap::from([(child, (Digest::of(b"new"), 3))]);
        let value: Value =
            serde_json::from_slice(&Compat::of_image(&index, &known).unwrap().unwrap()).unwrap();
        assert_eq!(value["manifests"][0]["digest"], Digest::of(b"new").to_string());
        assert_eq!(value["manifests"][0]["platform"]["os"], "linux");
        assert_eq!(value["manifests"][1]["digest"], other.to_string());
        assert!(Compat::of_image(b"<html>", &none).is_err() && Compat::of_image(b"{}", &none).is_err());
    }

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
        assert_eq!(value["config"]["digest"], Compat::config().0.to_string());
        assert!(value.get("artifactType").is_none());
        assert_eq!(
            compat.changed,
            format!(
                "configuration of type {IMAGE_CONFIG} instead of application/vnd.oci.empty.v1+json, no artifactType"
            )
        );
        assert_eq!(Compat::of(upstream.to_string().as_bytes()).unwrap(), compat, "the same every time");
        assert!(Compat::of(b"<html>").is_err());
    }
}
