//! The names of artifacts: `HOST/REPOSITORY:TAG` in a registry, `oci-layout:DIR:TAG` on disk.
//!
//! Knows how such a name is written, and nothing of how it is fetched.

use std::fmt;
use std::path::PathBuf;

use oci_client::Reference;

use super::error::SourceError;
use crate::digest::Digest;

/// The prefix of a source that is an OCI image layout on disk.
const LAYOUT: &str = "oci-layout:";
/// What a person reads when a reference is wrong.
const FORM: &str =
    "Write it as HOST/REPOSITORY:TAG, such as ghcr.io/aquasecurity/trivy-db:2, or as oci-layout:DIR:TAG.";

/// Where an artifact is fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ArtifactSource {
    /// A repository in a registry.
    Registry(Repository),
    /// An OCI image layout in a folder.
    Layout {
        /// The folder that holds `index.json`.
        folder: PathBuf,
        /// The name of the manifest in `index.json`.
        tag: String,
    },
}

/// One tag or digest of a repository in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    host: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ArtifactSource {
    /// Reads a source as it stands on the command line. Where it has neither tag nor digest,
    /// `default_tag` is taken: a source without a tag would mean `latest`, which differs from
    /// what Trivy asks for.
    ///
    /// # Errors
    /// [`SourceError::Address`] for anything that names no repository.
    pub fn parse(text: &str, default_tag: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        match text.strip_prefix(LAYOUT) {
            Some(rest) => Self::parse_layout(rest, default_tag),
            None => Repository::parse(text, default_tag).map(ArtifactSource::Registry),
        }
    }

    fn parse_layout(rest: &str, default_tag: &str) -> Result<Self, SourceError> {
        let (folder, tag) = match rest.rsplit_once(':') {
            Some((folder, tag)) if is_tag(tag) => (folder, tag),
            _ => (rest, default_tag),
        };
        if folder.is_empty() {
            return Err(wrong(&format!("{LAYOUT}{rest}"), "it names no folder"));
        }
        Ok(ArtifactSource::Layout { folder: folder.into(), tag: tag.into() })
    }

    /// The registry's host with its port, as it is written in references; `None` for a folder.
    pub fn host(&self) -> Option<&str> {
        match self {
            ArtifactSource::Registry(repository) => Some(&repository.host),
            ArtifactSource::Layout { .. } => None,
        }
    }
}

impl Repository {
    fn parse(text: &str, default_tag: &str) -> Result<Self, SourceError> {
        if text.contains("://") {
            return Err(wrong(text, "a registry's repository has no scheme such as https://"));
        }
        let Some((first, rest)) = text.split_once('/') else {
            return Err(wrong(text, "it has no repository behind the host"));
        };
        // The parser does not know IPv6 hosts: it gets another in their place.
        let (host, reference) = if first.starts_with('[') {
            if !is_ipv6_host(first) {
                return Err(wrong(text, "its host is not an IPv6 address"));
            }
            (Some(first), Reference::try_from(format!("localhost/{rest}").as_str()))
        } else {
            (None, Reference::try_from(text))
        };
        let reference = reference.map_err(|e| wrong(text, &e.to_string()))?;
        let digest = match reference.digest().map(str::parse) {
            None => None,
            Some(Ok(digest)) => Some(digest),
            Some(Err(_)) => return Err(wrong(text, "its digest is not a lower-case sha256")),
        };
        // The parser puts `latest` where nothing stands.
        let tagged = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tag = if digest.is_some() || tagged { reference.tag() } else { Some(default_tag) };
        Ok(Repository {
            host: host.unwrap_or(reference.registry()).to_owned(),
            name: reference.repository().to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The host with its port, as people write it: `docker.io` for Docker Hub.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's name without the host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag, where one is given or was taken by default.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the manifest must have, where one is given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The host that serves the registry's API: Docker Hub's is another than its name.
    pub(super) fn api_host(&self) -> &str {
        if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host }
    }

    /// What the manifest is asked by: the digest where there is one.
    pub(super) fn asked_by(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => String::new(),
        }
    }
}

/// Whether a host, with or without a port, is this machine itself: reached over plain HTTP where
/// HTTPS does not answer (go-containerregistry v0.22.1, pkg/name/registry.go: `Scheme`, which
/// Trivy uses; the private address ranges that it adds are left out, since another machine could
/// take the place of one and would be given passwords in the clear).
pub(super) fn is_loopback(host: &str) -> bool {
    let name = if host.starts_with('[') {
        host.split(']').next().unwrap_or(host).trim_start_matches('[')
    } else {
        host.split(':').next().unwrap_or(host)
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `[ADDRESS]` or `[ADDRESS]:PORT`.
fn is_ipv6_host(host: &str) -> bool {
    let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    address.parse::<std::net::Ipv6Addr>().is_ok()
        && (port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()))
}

/// A tag by the distribution specification (v1.1, "Pulling manifests").
fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

fn wrong(text: &str, why: &str) -> SourceError {
    SourceError::Address { text: text.into(), why: why.into(), next: FORM.into() }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The canonical form, always with a tag or a digest.
impl fmt::Display for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactSource::Registry(repository) => repository.fmt(f),
            ArtifactSource::Layout { folder, tag } => write!(f, "{LAYOUT}{}:{tag}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_print_canonically_with_their_tag() {
        let digest = format!("r.example/x@sha256:{HEX}");
        let both = format!("r.example:443/x:3@sha256:{HEX}");
        for (text, wanted) in [
            ("ghcr.io/aquasecurity/trivy-db", "ghcr.io/aquasecurity/trivy-db:2"),
            ("ghcr.io/aquasecurity/trivy-db:7", "ghcr.io/aquasecurity/trivy-db:7"),
            ("localhost:5000/trivy-db", "localhost:5000/trivy-db:2"),
            ("localhost:5000/trivy-db:latest", "localhost:5000/trivy-db:latest"),
            ("[::1]:5000/a/b", "[::1]:5000/a/b:2"),
            ("[::1]/a:1", "[::1]/a:1"),
            ("aquasec/trivy-db", "docker.io/aquasec/trivy-db:2"),
            ("oci-layout:dir", "oci-layout:dir:2"),
            ("oci-layout:/a/b:c/d", "oci-layout:/a/b:c/d:2"),
            ("oci-layout:/a/b:latest", "oci-layout:/a/b:latest"),
            (&digest, &digest),
            (&both, &both),
        ] {
            assert_eq!(ArtifactSource::parse(text, "2").unwrap().to_string(), wanted, "{text}");
        }
        let source = ArtifactSource::parse("[::1]:5000/a/b", "2").unwrap();
        assert_eq!(source.host(), Some("[::1]:5000"));
        assert_eq!(ArtifactSource::parse("oci-layout:x", "2").unwrap().host(), None);
    }

    #[test]
    fn wrong_references_are_usage_errors() {
        let long = format!("r.example/x@sha512:{HEX}{HEX}");
        for text in [
            "",
            "trivy-db",
            "localhost:5000",
            "https://ghcr.io/aquasecurity/trivy-db:2",
            "oci://ghcr.io/x:2",
            "ghcr.io/UPPER/x",
            "ghcr.io/x:a b",
            "[::g]:5000/x",
            "[::1]x/y",
            "oci-layout:",
            "oci-layout::2",
            &long,
        ] {
            let error = ArtifactSource::parse(text, "2").unwrap_err();
            assert!(error.is_usage(), "{text}: {error}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "a.localhost", "127.0.0.1:80", "127.3.2.1", "[::1]:5000"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "127.example", "[::2]", "192.168.0.1:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
