//! The names of artifacts in registries: `HOST/REPOSITORY:TAG`.
//!
//! This module parses and formats such names. It sends no request.

use std::fmt;

use oci_client::Reference;

use crate::digest::Digest;
use crate::remote::error::RemoteError;
use crate::util::redacted::Redacted;

/// The hint for an invalid reference.
const FORM: &str = "Give it as HOST/REPOSITORY:TAG, such as ghcr.io/aquasecurity/trivy-db:2.";

/// One tag or digest of a repository in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    host: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Repository {
    /// Parses a reference as users write it. If it has neither tag nor digest, `default_tag` is used: Trivy
    /// never requests `latest`.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the text has a scheme, a login or no repository, or breaks the rules of
    /// references.
    pub fn parse(text: &str, default_tag: &str) -> Result<Self, RemoteError> {
        if text.contains("://") {
            return Err(wrong(text, "the name of a repository has no scheme such as https://"));
        }
        let Some((first, rest)) = text.split_once('/') else {
            return Err(wrong(text, "it has no repository after the host"));
        };
        if first.contains('@') {
            return Err(wrong(text, "it holds a login; log in with `docker login` instead"));
        }
        // The parser does not support IPv6 hosts, so it gets another host instead.
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
            Some(Err(_)) => return Err(wrong(text, "its digest is not a sha256 in lower case")),
        };
        // The parser adds `latest` if there is no tag.
        let tagged = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tag = if digest.is_some() || tagged { reference.tag() } else { Some(default_tag) };
        Ok(Repository {
            host: host.unwrap_or(reference.registry()).to_owned(),
            name: reference.repository().to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Returns a repository on a host whose name may lack both a dot and a port. In other
    /// references, `registry/trivy-db` means a repository of Docker Hub.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the host, the name or the tag is not valid.
    pub fn at(host: &str, name: &str, tag: &str) -> Result<Self, RemoteError> {
        let text = format!("{host}/{name}:{tag}");
        if host.starts_with('[') {
            return Repository::parse(&text, tag);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong(&text, "its host is not valid"));
        }
        let repository = Repository::parse(&format!("localhost/{name}:{tag}"), tag)?;
        Ok(Repository { host: host.to_owned(), ..repository })
    }

    /// Parses the output of [`fmt::Display`], in which the first component is always the host.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the text is not a complete reference, or if its digest is not a sha256 in
    /// lower case.
    pub(crate) fn read(text: &str) -> Result<Self, RemoteError> {
        let none = || wrong(text, "it has no repository after the host");
        let (host, rest) = text.split_once('/').ok_or_else(none)?;
        let (path, digest) = match rest.split_once('@') {
            Some((path, digest)) => (
                path,
                Some(digest.parse().map_err(|_| wrong(text, "its digest is not a sha256 in lower case"))?),
            ),
            None => (rest, None),
        };
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        let repository = Repository::at(host, name, tag.unwrap_or("latest"))?;
        let tag = tag.map(str::to_owned);
        Ok(Repository {
            tag: if digest.is_some() { tag } else { repository.tag.clone() },
            digest,
            ..repository
        })
    }

    /// The same repository with another tag.
    pub fn tagged(&self, tag: &str) -> Self {
        Repository { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The manifest with this digest in the same repository.
    pub fn by_digest(&self, digest: Digest) -> Self {
        Repository { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same tag or digest in another repository, whose name is known to be valid.
    pub(crate) fn moved(&self, host: &str, name: &str) -> Self {
        Repository { host: host.to_owned(), name: name.to_owned(), ..self.clone() }
    }

    /// The host with its port, as users write it: `docker.io` for Docker Hub.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's name without the host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag, given or by default.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The required digest of the manifest, if given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The host that serves the registry's API, which differs from the name for Docker Hub.
    pub(crate) fn api_host(&self) -> &str {
        if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host }
    }

    /// The reference to request the manifest by: the digest if there is one.
    pub(crate) fn asked_by(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => String::new(),
        }
    }
}

/// Whether a host, with or without a port, is this machine, which may be reached over plain HTTP if HTTPS
/// does not answer (go-containerregistry v0.22.1, `pkg/name/registry.go`: `Scheme`, which Trivy uses). That
/// code also accepts private address ranges. This function does not, because another machine could take such
/// an address and receive passwords in plain text.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = if host.starts_with('[') {
        host.split(']').next().unwrap_or(host).trim_start_matches('[')
    } else {
        host.split(':').next().unwrap_or(host)
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a host has the form `[ADDRESS]` or `[ADDRESS]:PORT`.
fn is_ipv6_host(host: &str) -> bool {
    let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    address.parse::<std::net::Ipv6Addr>().is_ok()
        && (port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()))
}

/// Whether a text is a tag by the distribution specification (v1.1, "Pulling manifests").
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

fn wrong(text: &str, why: &str) -> RemoteError {
    RemoteError::Address { text: Redacted::new(text), why: why.into(), hint: FORM.into() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_reference_is_parsed_to_the_same_repository() {
        let digest = Digest::of(b"x");
        for text in ["registry/a/b:1", "registry:5000/a:1", "[::1]:5000/a:1", "docker.io/a/b:1"] {
            assert_eq!(Repository::read(text).unwrap().to_string(), text);
            let pinned = Repository::read(text).unwrap().by_digest(digest);
            assert_eq!(Repository::read(&pinned.to_string()).unwrap(), pinned);
        }
        for bad in ["", "registry", "registry/a:1@sha256:0", "registry/a b:1"] {
            assert!(Repository::read(bad).is_err(), "{bad}");
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
