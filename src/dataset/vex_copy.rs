//! A copy of a VEX repository on another web server: the names of its files, and its `vex-repository.json`, which
//! points to the copy. This module does no I/O.
//!
//! Trivy (v0.74.0, `pkg/vex/repo/repo.go`: `Manifest`) downloads `vex-repository.json` once and keeps it as long as its
//! cache. It downloads only the archive again. Therefore the location must stay valid: the name of the archive
//! contains neither version nor digest, and changes only with the directory in the archive, which is part of the
//! location too.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dataset::catalogue::VEX_SPEC;
use crate::dataset::vex::ArchiveFormat;
use crate::digest::Digest;
use crate::util::text::escape;

/// The file that describes a VEX repository.
pub const MANIFEST: &str = "vex-repository.json";
/// The directory in which Trivy looks for [`MANIFEST`] on a web server.
pub const WELL_KNOWN: &str = ".well-known";
/// The field of the manifest that holds [`Record`]. Trivy ignores unknown fields.
const RECORD: &str = "trivy_ferry";

/// The data about the original that the manifest of a copy contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The digest of the archive.
    pub archive: Digest,
    /// The date of the content, by which copies are compared.
    pub updated_at: Timestamp,
}

/// Returns the name of the archive that the location of a copy points to.
pub fn archive_name(format: ArchiveFormat, subdir: &str) -> String {
    /// The longest part for the directory, so that every file system accepts the name.
    const MAX: usize = 100;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let directory: String = subdir.chars().map(plain).take(MAX).collect();
    let dash = if directory.is_empty() { "" } else { "-" };
    format!("repository{dash}{directory}{}", format.extension())
}

/// Returns the location of the directory `subdir` in an archive at `url`, as go-getter reads it. `None` if go-getter
/// would interpret characters of the directory.
pub fn location(url: &str, subdir: &str) -> Option<String> {
    let readable =
        |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '?' | '#' | '*' | '[' | '%' | '\\');
    match subdir {
        "" => Some(url.to_owned()),
        directory => directory.chars().all(readable).then(|| format!("{url}//{directory}")),
    }
}

/// Returns the name of the archive in a location that [`location`] returned.
pub fn archive_at(location: &str) -> &str {
    let path = location.split_once("://").map_or(location, |(_, path)| path);
    let archive = path.split_once("//").map_or(path, |(archive, _)| archive);
    archive.rsplit('/').next().unwrap_or_default()
}

/// Returns the `vex-repository.json` of a copy: upstream's fields for the version that Trivy reads,
/// with one location.
///
/// It is written from scratch, because Go also accepts similar names of fields (`verſions`), which could otherwise
/// make Trivy follow upstream's location.
///
/// # Errors
/// If upstream's bytes are not JSON, or have no version that Trivy reads. The text is a clause about the
/// repository.
pub fn point_at(upstream: &[u8], location: &str, record: &Record) -> Result<Vec<u8>, String> {
    let upstream: Value =
        serde_json::from_slice(upstream).map_err(|error| format!("its {MANIFEST} is not JSON: {error}"))?;
    let none = || format!("its {MANIFEST} has no version {VEX_SPEC}");
    let versions = upstream.get("versions").and_then(Value::as_array).ok_or_else(none)?;
    let is_read = |version: &&Value| version.get("spec_version").and_then(Value::as_str) == Some(VEX_SPEC);
    let version = versions.iter().find(is_read).ok_or_else(none)?;
    let text = |key: &str| upstream.get(key).and_then(Value::as_str).map(escape).unwrap_or_default();
    let manifest = json!({
        "name": text("name"),
        "description": text("description"),
        "versions": [{
            "spec_version": VEX_SPEC,
            "locations": [{ "url": location }],
            "update_interval": interval(version),
        }],
        RECORD: record,
    });
    let mut bytes = serde_json::to_vec_pretty(&manifest).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Returns the update interval of scanners: upstream's, but at most 24 hours, so that scanners find
/// newer data in the copy.
fn interval(version: &Value) -> &str {
    let given = version.get("update_interval").and_then(Value::as_str).unwrap_or_default();
    let most = |unit| match unit {
        'h' => 24,
        'm' => 24 * 60,
        _ => 0,
    };
    let number = given.get(..given.len().saturating_sub(1)).and_then(|number| number.parse::<u32>().ok());
    match (number, given.chars().last()) {
        (Some(number), Some(unit)) if (1..=most(unit)).contains(&number) => given,
        _ => "24h",
    }
}

/// Returns the location of the archive in a manifest.
pub fn location_of(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest.pointer("/versions/0/locations/0/url")?.as_str()?.to_owned())
}

/// Returns the record in the manifest of a copy; `None` if the manifest is not that of a copy.
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
    fn a_location_contains_the_name_of_its_archive() {
        for subdir in ["", "vexhub-main", "a/b"] {
            let location = location("https://vex.corp.example/v/vex-hub/repository.zip", subdir).unwrap();
            assert_eq!(archive_at(&location), "repository.zip", "{location}");
        }
        assert_eq!(archive_at(""), "");
    }

    #[test]
    fn the_name_of_the_archive_depends_on_the_directory_and_the_format() {
        assert_eq!(archive_name(ArchiveFormat::TarGzip, "vexhub-main"), "repository-vexhub-main.tar.gz");
        assert_eq!(archive_name(ArchiveFormat::Zip, ""), "repository.zip");
        assert_eq!(archive_name(ArchiveFormat::Zip, "a/../b c"), "repository-a-..-b-c.zip");
        for name in [archive_name(ArchiveFormat::TarGzip, "a"), archive_name(ArchiveFormat::Zip, "a")] {
            // Trivy recognizes the format only by the name.
            assert!(ArchiveFormat::by_name(&name).is_some(), "{name}");
        }
        assert_eq!(location("http://h/x.zip", "").unwrap(), "http://h/x.zip");
        assert_eq!(location("http://h/x.zip", "a/b").unwrap(), "http://h/x.zip//a/b");
        assert_eq!(location("http://h/x.zip", "a?b"), None);
    }

    #[test]
    fn the_manifest_of_a_copy_has_its_own_location() {
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
    fn fields_with_similar_names_are_not_copied() {
        let upstream = "{\"versions\":[{\"spec_version\":\"0.1\",\"update_interval\":\"87600h\",\"locationſ\":[{\"url\":\"http://evil/\"}]}],\"verſions\":[],\"Versions\":[],\"x\":\"http://evil/\"}";
        let bytes = point_at(upstream.as_bytes(), "http://h/", &a_record()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("evil") && !text.contains('ſ') && !text.contains("Versions"), "{text}");
        assert!(text.contains("\"update_interval\": \"24h\""), "{text}");
        assert_eq!(interval(&json!({ "update_interval": "6h" })), "6h");
        for odd in ["25h", "0h", "h", "", "1d", "9999m", "-1h", "1.5h", "é"] {
            assert_eq!(interval(&json!({ "update_interval": odd })), "24h", "{odd}");
        }
        let long =
            format!("{{\"name\":{:?},\"versions\":[{{\"spec_version\":\"0.1\"}}]}}", "x".repeat(1 << 20));
        assert!(point_at(long.as_bytes(), "u", &a_record()).unwrap().len() < 2048);
        assert!(archive_name(ArchiveFormat::Zip, &"d/".repeat(250)).len() < 130);
    }

    #[test]
    fn versions_that_trivy_does_not_read_are_skipped() {
        let two = br#"{"versions":[{"spec_version":"0.2","locations":[{"url":"https://x/"}]},{"spec_version":"0.1"}]}"#;
        let after: Value = serde_json::from_slice(&point_at(two, "u", &a_record()).unwrap()).unwrap();
        assert_eq!(after["versions"].as_array().unwrap().len(), 1);
        assert_eq!(after["versions"][0]["spec_version"], "0.1");
        for bad in [&b"[]"[..], b"{}", br#"{"versions":[{"spec_version":"0.2"}]}"#, b"x"] {
            assert!(point_at(bad, "u", &a_record()).is_err());
        }
    }
}
