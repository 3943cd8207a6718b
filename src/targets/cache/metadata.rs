//! The small JSON files with the age and the version of a dataset: parses those in a cache, and creates new ones. This
//! module does no I/O.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;

/// The values for the metadata of a staged dataset.
#[derive(Debug, Clone)]
pub enum Metadata {
    /// trivy-db and trivy-java-db: upstream's `metadata.json` with `DownloadedAt` set.
    Database {
        /// The time of the import.
        downloaded_at: Timestamp,
    },
    /// trivy-checks: `policy/metadata.json` (Trivy v0.74.0, `pkg/policy/policy.go` `Metadata`).
    Checks {
        /// The digest of upstream's OCI manifest.
        manifest_digest: Digest,
        /// The major version of the checks, from the manifest's version annotation.
        major: u32,
        /// Upstream's version, if the manifest has one.
        version: Option<String>,
        /// The time of the import.
        downloaded_at: Timestamp,
    },
    /// A VEX repository: `vex-repository.json` and `cache.json` (Trivy v0.74.0,
    /// `pkg/vex/repo/repo.go`).
    Vex {
        /// Upstream's `vex-repository.json`, byte for byte.
        manifest_json: Vec<u8>,
        /// The time of the import, at which the update interval of the repository begins for Trivy.
        updated_at: Timestamp,
    },
}

/// The metadata of a dataset in a cache. A field is `None` if the files do not contain it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CachedDataset {
    /// The schema version of the database.
    pub schema: Option<u32>,
    /// When upstream built the data: `UpdatedAt`, or `updated_at` in the VEX index. Trivy stores no such date for checks.
    pub updated_at: Option<Timestamp>,
    /// When upstream planned to publish the next build.
    pub next_update: Option<Timestamp>,
    /// When the data was imported or downloaded. Go's zero time counts as unknown.
    pub downloaded_at: Option<Timestamp>,
    /// Checks: the digest of the OCI manifest.
    pub manifest_digest: Option<Digest>,
    /// Checks: the major version.
    pub major: Option<u32>,
    /// Checks: upstream's version, if trivy-ferry wrote it.
    pub version: Option<String>,
}

/// `metadata.json` of both databases, with the order of fields that Trivy writes (trivy-db `pkg/metadata/metadata.go`
/// and trivy-java-db `pkg/db/metadata.go`, in the versions of Trivy v0.74.0).
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Database {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_update: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    downloaded_at: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `policy/metadata.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checks {
    digest: String,
    downloaded_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    major_version: Option<u32>,
    /// A field of trivy-ferry. Trivy ignores unknown fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// `cache.json` of a VEX repository. `ETags` is never written: an old ETag makes the server return 304, after which
/// Trivy before 0.73 empties the repository. A missing field decodes to the same nil map as `null`.
#[derive(Serialize, Deserialize)]
struct VexCache {
    #[serde(rename = "UpdatedAt")]
    updated_at: String,
    #[serde(rename = "ETags", default, skip_serializing)]
    etags: Option<Map<String, Value>>,
}

/// Formats a time like Go's `time.Time`: RFC 3339 in UTC with up to 9 decimals.
fn go_time(time: Timestamp) -> String {
    time.to_string()
}

/// Parses a time that Go wrote. `None` for its zero time (`0001-01-01T00:00:00Z`).
fn parse_time(text: Option<&str>) -> Option<Timestamp> {
    let time: Timestamp = text?.parse().ok()?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

/// Serializes a document followed by a newline, like Go's encoder.
fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Returns upstream's `metadata.json` with `DownloadedAt` set and all other fields unchanged.
///
/// # Errors
/// If the bytes are not the `metadata.json` of a database. The text is the reason.
pub(crate) fn downloaded(upstream: &[u8], at: Timestamp) -> Result<Vec<u8>, String> {
    let mut metadata: Database =
        serde_json::from_slice(upstream).map_err(|error| format!("its metadata.json is invalid: {error}"))?;
    metadata.downloaded_at = Some(go_time(at));
    encode(&metadata)
}

pub(crate) fn checks(
    digest: &Digest,
    major: u32,
    version: Option<String>,
    at: Timestamp,
) -> Result<Vec<u8>, String> {
    let (digest, downloaded_at) = (digest.to_string(), go_time(at));
    encode(&Checks { digest, downloaded_at, major_version: Some(major), version })
}

pub(crate) fn vex_cache(at: Timestamp) -> Result<Vec<u8>, String> {
    encode(&VexCache { updated_at: go_time(at), etags: None })
}

/// Parses the `metadata.json` of a database; `None` if Trivy could not read it.
pub(crate) fn read_database(bytes: &[u8]) -> Option<CachedDataset> {
    let metadata: Database = serde_json::from_slice(bytes).ok()?;
    Some(CachedDataset {
        schema: Some(metadata.version?),
        updated_at: parse_time(metadata.updated_at.as_deref()),
        next_update: parse_time(metadata.next_update.as_deref()),
        downloaded_at: parse_time(metadata.downloaded_at.as_deref()),
        ..CachedDataset::default()
    })
}

/// Parses `policy/metadata.json`.
pub(crate) fn read_checks(bytes: &[u8]) -> Option<CachedDataset> {
    let metadata: Checks = serde_json::from_slice(bytes).ok()?;
    Some(CachedDataset {
        downloaded_at: parse_time(Some(&metadata.downloaded_at)),
        manifest_digest: metadata.digest.parse().ok(),
        major: metadata.major_version,
        version: metadata.version,
        ..CachedDataset::default()
    })
}

/// Parses the `0.1/index.json` and `cache.json` of a VEX repository.
pub(crate) fn read_vex(index: impl std::io::Read, cache: Option<&[u8]>) -> Option<CachedDataset> {
    #[derive(Deserialize)]
    struct Index {
        updated_at: Option<String>,
    }
    let index: Index = serde_json::from_reader(std::io::BufReader::new(index)).ok()?;
    let cache: Option<VexCache> = cache.and_then(|bytes| serde_json::from_slice(bytes).ok());
    Some(CachedDataset {
        updated_at: parse_time(index.updated_at.as_deref()),
        downloaded_at: parse_time(cache.map(|cache| cache.updated_at).as_deref()),
        ..CachedDataset::default()
    })
}

/// Whether `cache.json` contains a date and no ETag.
pub(crate) fn vex_cache_is_clean(bytes: &[u8]) -> bool {
    serde_json::from_slice::<VexCache>(bytes).is_ok_and(|cache| {
        parse_time(Some(&cache.updated_at)).is_some() && cache.etags.is_none_or(|etags| etags.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_downloaded_at_changes() {
        let upstream = br#"{"Version":2,"NextUpdate":"2026-11-22T06:12:30.123456789Z","UpdatedAt":"2026-11-21T06:12:30.120Z","DownloadedAt":"0001-01-01T00:00:00Z","Extra":{"b":1,"a":[2]}}"#;
        let at: Timestamp = "2026-11-21T09:00:00.5Z".parse().unwrap();
        let text = String::from_utf8(downloaded(upstream, at).unwrap()).unwrap();
        assert!(text.starts_with(r#"{"Version":2,"NextUpdate":"2026-11-22T06:12:30.123456789Z","UpdatedAt":"2026-11-21T06:12:30.120Z","DownloadedAt":"2026-11-21T09:00:00.5Z","Extra":"#), "{text}");
        assert!(text.ends_with("}\n"));
        let installed = read_database(text.as_bytes()).unwrap();
        assert_eq!((installed.schema, installed.downloaded_at), (Some(2), Some(at)));
        assert_eq!(read_database(upstream).unwrap().downloaded_at, None, "Go's zero time counts as unknown");
        assert!(downloaded(b"<html>", at).is_err());
    }

    #[test]
    fn checks_and_vex_are_written_as_trivy_reads_them() {
        let at: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let digest = Digest::of(b"");
        let bytes = checks(&digest, 2, Some("2.1.0".into()), at).unwrap();
        let wanted = format!(
            "{{\"Digest\":\"{digest}\",\"DownloadedAt\":\"2026-11-21T09:00:00Z\",\"MajorVersion\":2,\"Version\":\"2.1.0\"}}\n"
        );
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), wanted);
        let read = read_checks(&bytes).unwrap();
        assert_eq!((read.manifest_digest, read.version.as_deref()), (Some(digest), Some("2.1.0")));
        let cache = vex_cache(at).unwrap();
        assert_eq!(cache, b"{\"UpdatedAt\":\"2026-11-21T09:00:00Z\"}\n");
        assert!(vex_cache_is_clean(&cache));
        assert!(vex_cache_is_clean(br#"{"UpdatedAt":"2026-11-21T09:00:00Z","ETags":null}"#));
        assert!(!vex_cache_is_clean(br#"{"UpdatedAt":"2026-11-21T09:00:00Z","ETags":{"https://x":"y"}}"#));
        assert!(!vex_cache_is_clean(br#"{"UpdatedAt":"0001-01-01T00:00:00Z"}"#));
        let vex =
            read_vex(&br#"{"updated_at":"2026-11-20T00:00:00Z","packages":[{"id":"x"}]}"#[..], Some(&cache));
        assert_eq!(vex.unwrap().downloaded_at, Some(at));
        assert_eq!(read_vex(&b"\0\0"[..], None), None);
    }
}
