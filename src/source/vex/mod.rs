//! VEX repositories over HTTP: the manifest, then the archive from the first location that gives it.
//!
//! Knows version 0.1 of the specification of VEX repositories as far as it is needed to find the archive.
//! The content of the archive is the business of `dataset`.

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

/// How many locations of an archive are tried.
const MAX_LOCATIONS: usize = 16;
/// How much of an archive is kept in memory before it goes to a temporary file, in bytes: an export
/// may carry dozens.
pub(in crate::source) const IN_MEMORY: usize = 1 << 20;

/// A VEX repository that has been fetched.
pub struct VexRepository {
    /// Where it is from: its URL or its folder.
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
    /// How it is packed, by its first bytes and its name, which agree.
    pub format: ArchiveFormat,
    /// The directory inside the archive that holds `index.json`, as the location has it; empty for the top. May be a
    /// pattern with `*`.
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

/// The locations, unread, that a manifest gives for the version that Trivy reads: the first
/// entry of that version, as Trivy takes it (v0.74.0, pkg/vex/repo: `selectSupportedVersion`).
pub(in crate::source) fn locations(repository: &str, manifest: &[u8]) -> Result<Vec<String>, SourceError> {
    let unusable = |why: String, hint: &str| SourceError::Vex {
        repository: repository.to_owned(),
        why,
        hint: hint.to_owned(),
    };
    let manifest: Manifest = crate::util::json::from_slice(manifest).map_err(|error| {
        let why = format!("its {MANIFEST} is not as it should be: {}", text::escape(&error.to_string()));
        unusable(why, "Check that it is the repository's own file and that it is complete.")
    })?;
    let version = manifest.versions.into_iter().find(|version| version.spec_version == VEX_SPEC);
    let version = version.ok_or_else(|| {
        let why = format!("it has no data for version {VEX_SPEC} of the specification");
        unusable(why, "Ask its maintainer: Trivy reads no other version.")
    })?;
    Ok(version.locations.into_iter().map(|place| place.url).collect())
}

/// Fetches a repository. `any_http`: plain HTTP is allowed everywhere.
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
            hint: "Ask its maintainer: Trivy cannot use it either.".into(),
        }
    } else {
        SourceError::Locations { repository: source, tried }
    })
}

/// What the place of the manifest allows to the archive.
struct Origin<'a> {
    remote: &'a Remote,
    /// Plain HTTP is allowed everywhere.
    any_http: bool,
    /// The address that the user gave.
    named: &'a Url,
    /// Where the manifest is.
    url: Url,
}

impl Origin<'_> {
    /// The login for an address in the manifest, if the user named its host. The manifest must not choose which of the
    /// user's logins is used for what is then carried and signed.
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
        unusable(why, "Fetch the archive with another tool, and give a folder with it and the manifest.")
    })?;
    if location.url.scheme() == "http" && !from.any_http && !is_loopback(&host_of(&location.url)) {
        let why = format!("its location {} uses plain HTTP", shown(text));
        return Err(unusable(why, "Give --insecure if plain HTTP is what you want here."));
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

/// A location as it is shown.
fn shown(location: &str) -> String {
    text::escape(&Redacted::new(location).to_string())
}

/// An archive that was put aside.
pub(in crate::source) struct Spooled {
    pub file: SpooledTempFile,
    pub size: u64,
    pub digest: Digest,
    pub format: ArchiveFormat,
}

/// Puts an archive aside, in memory while it is small, and finds out what it is.
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
        hint: "Check the archive's address: it must be a .tar.gz, .tgz or .zip file, and be named so.".into(),
    };
    match (ArchiveFormat::of(&start), ArchiveFormat::by_name(name)) {
        (Some(format), Some(named)) if format == named => {
            Ok(Spooled { file, size, digest: hasher.finish(), format })
        }
        (_, None) => Err(unusable(format!("{subject} is not named as a .tar.gz, .tgz or .zip archive"))),
        (None, _) => Err(unusable(format!("{subject} is not an archive"))),
        _ => Err(unusable(format!("{subject} is another kind of archive than its name says"))),
    }
}

/// An archive's name where it is plain, else one that says only how it is packed.
pub(in crate::source) fn plain_name(name: &str, format: ArchiveFormat) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let good = !name.starts_with('.') && name.len() <= 128 && name.bytes().all(plain);
    match (good && ArchiveFormat::by_name(name) == Some(format), format) {
        (true, _) => name.to_owned(),
        (false, ArchiveFormat::TarGzip) => "repository.tar.gz".into(),
        (false, ArchiveFormat::Zip) => "repository.zip".into(),
    }
}
