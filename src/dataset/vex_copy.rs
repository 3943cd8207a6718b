//! A copy of a VEX repository on a web server of one's own: what its files are called, and its
//! `vex-repository.json`, which points at the copy.
//!
//! Trivy (v0.74.0, pkg/vex/repo/repo.go: `Manifest`) downloads `vex-repository.json` once and keeps it
//! for as long as it keeps its cache; only the archive is asked for again. So the location that stands
//! in it must stay good: the archive's name holds no version and no digest, and changes only with the
//! folder inside the archive, which stands in the location too. Does no I/O.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::VEX_SPEC;
use super::vex::ArchiveFormat;
use crate::digest::Digest;

/// The file that describes a VEX repository.
pub const MANIFEST: &str = "vex-repository.json";
/// The folder in which Trivy looks for [`MANIFEST`] on a web server.
pub const WELL_KNOWN: &str = ".well-known";
/// Where our own record stands in the manifest. Trivy passes over fields that it does not know.
const RECORD: &str = "trivy_ferry";

/// What is kept in the manifest of a copy about what was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The archive's digest.
    pub archive: Digest,
    /// By which the copy is older or newer than another.
    pub updated_at: Timestamp,
}

/// The name of the archive to which a copy's location points.
pub fn archive_name(format: ArchiveFormat, subdir: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let folder: String = subdir.chars().map(plain).collect();
    let dash = if folder.is_empty() { "" } else { "-" };
    format!("repository{dash}{folder}{}", format.extension())
}

/// The location of the folder `subdir` inside an archive at `url`, as go-getter reads it. `None` where
/// the folder's name would be read as something else.
pub fn location(url: &str, subdir: &str) -> Option<String> {
    let readable =
        |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '?' | '#' | '*' | '[' | '%' | '\\');
    match subdir {
        "" => Some(url.to_owned()),
        folder => folder.chars().all(readable).then(|| format!("{url}//{folder}")),
    }
}

/// Rewrites upstream's `vex-repository.json` for a copy: of the versions the one that Trivy reads, with
/// one location. Everything else that upstream says stays.
///
/// # Errors
/// A sentence's end: what is wrong with upstream's.
pub fn point_at(upstream: &[u8], location: &str, record: &Record) -> Result<Vec<u8>, String> {
    let mut manifest: Value =
        serde_json::from_slice(upstream).map_err(|error| format!("its {MANIFEST} is not JSON: {error}"))?;
    let none = || format!("its {MANIFEST} has no version {VEX_SPEC}");
    let fields = manifest.as_object_mut().ok_or_else(none)?;
    let versions = fields.get_mut("versions").and_then(Value::as_array_mut).ok_or_else(none)?;
    versions.retain(|version| version.get("spec_version").and_then(Value::as_str) == Some(VEX_SPEC));
    versions.truncate(1);
    let version = versions.first_mut().and_then(Value::as_object_mut).ok_or_else(none)?;
    version.insert("locations".into(), serde_json::json!([{ "url": location }]));
    let record = serde_json::to_value(record).map_err(|error| error.to_string())?;
    fields.insert(RECORD.into(), record);
    let mut bytes = serde_json::to_vec_pretty(&manifest).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Where a manifest says that its archive is.
pub fn location_of(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest.pointer("/versions/0/locations/0/url")?.as_str()?.to_owned())
}

/// What the manifest of a copy says of it; `None` where it is nobody's copy.
pub fn record(manifest: &[u8]) -> Option<Record> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    serde_json::from_value(manifest.get(RECORD)?.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &[u8] = include_bytes!("../../fixtures/sample/vex-hub/vex-repository.json");

    fn a_record() -> Record {
        Record { archive: Digest::of(b"a"), updated_at: "2026-11-20T00:00:00Z".parse().unwrap() }
    }

    #[test]
    fn names_stay_while_the_folder_stays() {
        assert_eq!(archive_name(ArchiveFormat::TarGzip, "vexhub-main"), "repository-vexhub-main.tar.gz");
        assert_eq!(archive_name(ArchiveFormat::Zip, ""), "repository.zip");
        assert_eq!(archive_name(ArchiveFormat::Zip, "a/../b c"), "repository-a-..-b-c.zip");
        for name in [archive_name(ArchiveFormat::TarGzip, "a"), archive_name(ArchiveFormat::Zip, "a")] {
            // Trivy unpacks by the name alone.
            assert!(ArchiveFormat::by_name(&name).is_some(), "{name}");
        }
        assert_eq!(location("http://h/x.zip", "").unwrap(), "http://h/x.zip");
        assert_eq!(location("http://h/x.zip", "a/b").unwrap(), "http://h/x.zip//a/b");
        assert_eq!(location("http://h/x.zip", "a?b"), None);
    }

    #[test]
    fn the_copy_is_named_and_the_rest_stays() {
        let bytes = point_at(UPSTREAM, "https://h/vex-hub/x.tar.gz//main", &a_record()).unwrap();
        let (before, after): (Value, Value) =
            (serde_json::from_slice(UPSTREAM).unwrap(), serde_json::from_slice(&bytes).unwrap());
        assert_eq!(after["name"], before["name"]);
        assert_eq!(after["versions"][0]["update_interval"], before["versions"][0]["update_interval"]);
        let locations = &after["versions"][0]["locations"];
        assert_eq!(*locations, serde_json::json!([{ "url": "https://h/vex-hub/x.tar.gz//main" }]));
        assert_eq!(record(&bytes), Some(a_record()));
        assert_eq!(record(UPSTREAM), None);
    }

    #[test]
    fn other_versions_point_nowhere_here_and_are_left_out() {
        let two = br#"{"versions":[{"spec_version":"0.2","locations":[{"url":"https://x/"}]},{"spec_version":"0.1"}]}"#;
        let after: Value = serde_json::from_slice(&point_at(two, "u", &a_record()).unwrap()).unwrap();
        assert_eq!(after["versions"].as_array().unwrap().len(), 1);
        assert_eq!(after["versions"][0]["spec_version"], "0.1");
        for bad in [&b"[]"[..], b"{}", br#"{"versions":[{"spec_version":"0.2"}]}"#, b"x"] {
            assert!(point_at(bad, "u", &a_record()).is_err());
        }
    }
}
