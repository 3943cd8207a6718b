//! Pulls manifests from an OCI registry (distribution specification v1.1, "Pull").

use reqwest::header::CONTENT_TYPE;

use crate::digest::Digest;
use crate::oci::{self, Manifest};
use crate::remote::{Remote, RemoteError, Repository, Service, is_html};
use crate::source::artifact::{Artifact, RawManifest};
use crate::source::{ArtifactSource, SourceError};

/// The media types of manifests. Indexes are included so that the error can say that one was found; otherwise
/// the registry answers "not found".
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Fetches a manifest and compares it with every known digest of it.
pub(super) fn manifest(remote: &Remote, repository: &Repository) -> Result<RawManifest, SourceError> {
    let subject = repository.to_string();
    let path = format!("manifests/{}", repository.asked_by());
    let answer = remote.get(repository, &path, &subject, Some(ACCEPT))?;
    let host = answer.host();
    let typed = answer.header(CONTENT_TYPE.as_str()).map(str::to_owned);
    let claimed = answer.header("docker-content-digest").and_then(|value| value.parse::<Digest>().ok());
    if is_html(typed.as_deref(), b"") {
        return Err(RemoteError::Html { subject, host, service: Service::Registry }.into());
    }
    let bytes = remote.http.bytes(answer, oci::MAX_MANIFEST)?;
    if is_html(None, &bytes) {
        return Err(RemoteError::Html { subject, host, service: Service::Registry }.into());
    }
    let found = Digest::of(&bytes);
    for wanted in [repository.digest(), claimed].into_iter().flatten() {
        if wanted != found {
            return Err(SourceError::Digest { subject, wanted, found });
        }
    }
    Ok(RawManifest { bytes, digest: found, media_type: typed })
}

/// Parses a manifest's bytes into an artifact.
pub(super) fn artifact(source: ArtifactSource, raw: RawManifest) -> Result<Artifact, SourceError> {
    let RawManifest { bytes, digest: manifest_digest, media_type: typed } = raw;
    let manifest = Manifest::parse(&bytes).map_err(|why| SourceError::Manifest {
        subject: source.to_string(),
        why: crate::util::text::escape(&why),
    })?;
    // The media type in the manifest itself takes precedence: a registry compares it when the
    // manifest is pushed.
    let known = |typed: &&str| [oci::MANIFEST, oci::DOCKER_MANIFEST].contains(typed);
    let header = typed.as_deref().map(|typed| typed.split(';').next().unwrap_or_default().trim());
    let manifest_media_type = manifest
        .media_type
        .as_deref()
        .filter(known)
        .or(header.filter(known))
        .unwrap_or(oci::MANIFEST)
        .to_owned();
    Ok(Artifact { source, manifest_bytes: bytes, manifest_digest, manifest_media_type, manifest })
}
