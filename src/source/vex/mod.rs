//! VEX repositories over HTTP: the manifest, then the archive from the first location that provides it.
//!
//! This module implements only the part of version 0.1 of the VEX repository specification that
//! leads to the archive. It does not interpret the content of the archive (`dataset` does).

pub(crate) mod directory;
pub(crate) mod place;

use std::io::{Read, Seek, SeekFrom, Write};

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use tempfile::SpooledTempFile;

use crate::dataset::catalogue::VEX_SPEC;
use crate::dataset::vex::{ArchiveFormat, MAX_MANIFEST};
use crate::digest::{Digest, Hasher};
use crate::remote::{Answer, Http, Remote, RemoteError, Request, Service, host_of, is_html, is_loopback};
use crate::source::error::SourceError;
use crate::source::vex::place::{Location, MANIFEST, VexSource, manifest_url};
use crate::util::redacted::Redacted;
use crate::util::text;

/// The maximum number of locations that are tried.
const MAX_LOCATIONS: usize = 16;
/// The maximum size of an archive in memory, in bytes. Larger archives are stored in a temporary
/// file. The limit is small because an export may carry dozens of archives.
pub(in crate::source) const IN_MEMORY: usize = 1 << 20;

/// A VEX repository that has been fetched.
pub struct VexRepository {
    /// Its URL or its directory.
    pub source: String,
    /// The original `vex-repository.json`, byte for byte.
    pub manifest_json: Vec<u8>,
    /// The archive, rewound.
    pub archive: SpooledTempFile,
    /// The archive's length in bytes.
    pub archive_size: u64,
    /// The archive's digest.
    pub archive_digest: Digest,
    /// The archive's file name, such as `main.tar.gz`: a plain name of `[A-Za-z0-9._-]`.
    pub archive_name: String,
    /// Its format. The first bytes and the name agree on it.
    pub format: ArchiveFormat,
    /// The directory in the archive that holds `index.json`, as written in the location; empty for the top.
    /// May be a pattern with `*`.
    pub subdir: String,
}

/// The part of a repository's manifest that leads to its archive.
#[derive(serde::Deserialize)]
struct Manifest {
    versions: Vec<Version>,
}

#[derive(serde::Deserialize)]
struct Version {
    spec_version: String,
    #[serde(default)]
    locations: Vec<Place>,
}

#[derive(serde::Deserialize)]
struct Place {
    url: String,
}

/// Returns the locations, not parsed, for the version that Trivy reads: those of the first entry with that
/// version, as in Trivy (v0.74.0, `pkg/vex/repo`: `selectSupportedVersion`).
pub(in crate::source) fn locations(repository: &str, manifest: &[u8]) -> Result<Vec<String>, SourceError> {
    let unusable = |why: String, hint: &str| SourceError::Vex {
        repository: repository.to_owned(),
        why,
        hint: hint.to_owned(),
    };
    let manifest: Manifest = crate::util::json::from_slice(manifest).map_err(|error| {
        let why = format!("its {MANIFEST} is not valid: {}", text::escape(&error.to_string()));
        unusable(why, "Check that it is the repository's own file and that it is complete.")
    })?;
    let version = manifest.versions.into_iter().find(|version| version.spec_version == VEX_SPEC);
    let version = version.ok_or_else(|| {
        let why = format!("it has no data for version {VEX_SPEC} of the specification");
        unusable(why, "Ask its maintainer to publish this version: Trivy reads no other.")
    })?;
    Ok(version.locations.into_iter().map(|place| place.url).collect())
}

/// Fetches a repository. `any_http` allows plain HTTP for every host.
pub(in crate::source) fn fetch(
    remote: &Remote,
    url: &Url,
    any_http: bool,
    most: u64,
) -> Result<VexRepository, SourceError> {
    let (http, source) = (&remote.http, VexSource::Url(url.clone()).to_string());
    let manifest_url = manifest_url(url);
    let answer = get(http, manifest_url.clone(), None, remote.web_login(&manifest_url))?;
    let (subject, host) = (answer.subject.clone(), answer.host());
    let manifest_json = http.bytes(answer, MAX_MANIFEST)?;
    if is_html(None, &manifest_json) {
        return Err(RemoteError::Html { subject, host, service: Service::Web }.into());
    }
    let mut tried = Vec::new();
    let any_http = any_http || url.scheme() == "http";
    let from = Origin { remote, any_http, named: url, url: manifest_url };
    for location in locations(&source, &manifest_json)?.into_iter().take(MAX_LOCATIONS) {
        match archive(&location, &source, &from, most) {
            Ok((spooled, location)) => {
                return Ok(VexRepository {
                    source,
                    manifest_json,
                    archive_name: plain_name(&location.name, spooled.format),
                    archive: spooled.file,
                    archive_size: spooled.size,
                    archive_digest: spooled.digest,
                    format: spooled.format,
                    subdir: location.subdir,
                });
            }
            Err(error) => tried.push((shown(&location), error)),
        }
    }
    Err(if tried.is_empty() {
        SourceError::Vex {
            repository: source,
            why: "its manifest names no location of an archive".into(),
            hint: "Ask its maintainer to add one: Trivy cannot use it either.".into(),
        }
    } else {
        SourceError::Locations { repository: source, tried }
    })
}

/// The origin of a manifest, which decides about plain HTTP and logins for the archive.
struct Origin<'a> {
    remote: &'a Remote,
    /// Whether plain HTTP is allowed for every host.
    any_http: bool,
    /// The address that the user gave.
    named: &'a Url,
    /// The address of the manifest.
    url: Url,
}

impl Origin<'_> {
    /// Returns the login for an address in the manifest, if the user named its host. A manifest must not
    /// choose which of the user's logins is used to fetch data that is then signed.
    fn login(&self, url: &Url) -> Option<HeaderValue> {
        let is_named = [self.named, &self.url].iter().any(|named| named.origin() == url.origin());
        self.remote.web_login(url).filter(|_| is_named)
    }
}

fn archive(
    text: &str,
    source: &str,
    from: &Origin<'_>,
    most: u64,
) -> Result<(Spooled, Location), SourceError> {
    let unusable = |why: String, hint: &str| SourceError::Vex {
        repository: source.to_owned(),
        why,
        hint: hint.to_owned(),
    };
    let location = Location::parse(text).map_err(|why| {
        let why = format!("its location {} cannot be used: {why}", shown(text));
        unusable(
            why,
            "Fetch the archive with another tool, and give a directory with the archive and the manifest.",
        )
    })?;
    if location.url.scheme() == "http" && !from.any_http && !is_loopback(&host_of(&location.url)) {
        let why = format!("its location {} uses plain HTTP", shown(text));
        return Err(unusable(why, "Give --insecure to allow plain HTTP."));
    }
    let login = from.login(&location.url);
    let http = &from.remote.http;
    let answer = get(http, location.url.clone(), Some(from.url.clone()), login)?;
    if answer.response.content_length().is_some_and(|length| length > most) {
        return Err(SourceError::TooLarge { subject: answer.subject, most });
    }
    let subject = answer.subject.clone();
    let mut body = http.stream(answer);
    let mut pieces = || Ok(body.next()?);
    let spooled = spool(&subject, &location.name, most, source, &mut pieces)?;
    Ok((spooled, location))
}

fn get(
    http: &Http,
    url: Url,
    named_by: Option<Url>,
    authorization: Option<HeaderValue>,
) -> Result<Answer, SourceError> {
    let request = Request::get(Redacted::from(&url).to_string(), url);
    let answer = http.send(Request { named_by, authorization, ..request })?;
    if answer.response.status() != StatusCode::OK {
        return Err(http.refusal(answer, Service::Web).into());
    }
    if is_html(answer.header(CONTENT_TYPE.as_str()), b"") {
        let host = answer.host();
        return Err(RemoteError::Html { subject: answer.subject, host, service: Service::Web }.into());
    }
    Ok(answer)
}

/// A location for messages, redacted.
fn shown(location: &str) -> String {
    text::escape(&Redacted::new(location).to_string())
}

/// An archive in memory or in a temporary file.
pub(in crate::source) struct Spooled {
    pub file: SpooledTempFile,
    pub size: u64,
    pub digest: Digest,
    pub format: ArchiveFormat,
}

/// Stores an archive, in memory if it is small, and detects its format.
pub(in crate::source) fn spool(
    subject: &str,
    name: &str,
    most: u64,
    repository: &str,
    pieces: &mut dyn FnMut() -> Result<Option<bytes::Bytes>, SourceError>,
) -> Result<Spooled, SourceError> {
    let local = |error| SourceError::Temporary { directory: std::env::temp_dir(), error };
    let mut file = SpooledTempFile::new(IN_MEMORY);
    let mut hasher = Hasher::new();
    let mut size = 0u64;
    while let Some(piece) = pieces()? {
        size += piece.len() as u64;
        if size > most {
            return Err(SourceError::TooLarge { subject: subject.to_owned(), most });
        }
        hasher.update(&piece);
        file.write_all(&piece).map_err(local)?;
    }
    file.seek(SeekFrom::Start(0)).map_err(local)?;
    let mut start = Vec::new();
    (&mut file).take(4).read_to_end(&mut start).map_err(local)?;
    file.seek(SeekFrom::Start(0)).map_err(local)?;
    let unusable = |why: String| SourceError::Vex {
        repository: repository.to_owned(),
        why,
        hint:
            "Check the address of the archive: it must be a .tar.gz, .tgz or .zip file with that extension."
                .into(),
    };
    match (ArchiveFormat::of(&start), ArchiveFormat::by_name(name)) {
        (Some(format), Some(named)) if format == named => {
            Ok(Spooled { file, size, digest: hasher.finish(), format })
        }
        (_, None) => Err(unusable(format!("{subject} does not have the extension .tar.gz, .tgz or .zip"))),
        (None, _) => Err(unusable(format!("{subject} is not an archive"))),
        _ => Err(unusable(format!("{subject} is a different kind of archive than its extension indicates"))),
    }
}

/// Returns an archive's name if it is plain, else a generic name for its format.
pub(in crate::source) fn plain_name(name: &str, format: ArchiveFormat) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let good = !name.starts_with('.') && name.len() <= 128 && name.bytes().all(plain);
    match (good && ArchiveFormat::by_name(name) == Some(format), format) {
        (true, _) => name.to_owned(),
        (false, ArchiveFormat::TarGzip) => "repository.tar.gz".into(),
        (false, ArchiveFormat::Zip) => "repository.zip".into(),
    }
}
