//! A local mirror of a registry: a pull-through cache that is tried before the registry itself.
//!
//! This module parses the option for such a mirror and maps sources to it. It sends no request.

use std::str::FromStr;

use crate::remote::{RemoteError, Repository};
use crate::source::ArtifactSource;
use crate::util::redacted::Redacted;

/// `HOST=MIRROR[/PREFIX]`: `MIRROR` has the repositories of `HOST` below `PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryMirror {
    origin: String,
    host: String,
    prefix: String,
}

impl FromStr for RegistryMirror {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let hint = || "Give it as HOST=MIRROR[/PREFIX], such as ghcr.io=harbor.corp.example/ghcr.".to_owned();
        let wrong =
            |why: &str| RemoteError::Address { text: Redacted::new(text), why: why.into(), hint: hint() };
        let (origin, place) =
            text.split_once('=').ok_or_else(|| wrong("it does not name the registry that it mirrors"))?;
        let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
        if host.contains('@') {
            return Err(wrong("it holds a login; use `docker login` instead"));
        }
        let mirror = RegistryMirror { origin: origin.into(), host: host.into(), prefix: prefix.into() };
        // Both must be valid in the name of a repository.
        for (host, name) in [(origin, "x".to_owned()), (host, mirror.below("x"))] {
            Repository::at(host, &name, "1").map_err(|_| wrong("the host or the prefix is not valid"))?;
        }
        Ok(mirror)
    }
}

impl RegistryMirror {
    /// Returns the place of a source in the mirror; `None` if it mirrors another registry.
    pub(crate) fn of(&self, source: &ArtifactSource) -> Option<ArtifactSource> {
        let repository = source.repository().filter(|repository| repository.host() == self.origin)?;
        let name = self.below(repository.name());
        Some(ArtifactSource::Registry(repository.moved(&self.host, &name)))
    }

    /// Returns the registry that a source in this mirror copies, and the length of the mirror's prefix;
    /// `None` if the source is not in this mirror.
    pub(crate) fn origin(&self, source: &ArtifactSource) -> Option<(&str, usize)> {
        let repository = source.repository().filter(|repository| repository.host() == self.host)?;
        repository.name().starts_with(&self.below("")).then_some((self.origin.as_str(), self.prefix.len()))
    }

    fn below(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> ArtifactSource {
        ArtifactSource::parse(text, "2").unwrap()
    }

    #[test]
    fn a_mirror_has_the_repositories_of_its_registry_below_its_prefix() {
        let mirror: RegistryMirror = "ghcr.io=harbor.example:8443/ghcr".parse().unwrap();
        let upstream = source("ghcr.io/aquasecurity/trivy-db");
        let mirrored = source("harbor.example:8443/ghcr/aquasecurity/trivy-db");
        assert_eq!(mirror.of(&upstream), Some(mirrored.clone()));
        assert_eq!(mirror.of(&source("docker.io/aquasec/trivy-db")), None);
        assert_eq!(mirror.of(&source("oci-layout:x")), None);
        assert_eq!(mirror.origin(&mirrored), Some(("ghcr.io", 4)));
        assert_eq!(mirror.origin(&source("harbor.example:8443/ghcr2/x")), None);
        assert_eq!(mirror.origin(&upstream), None);
        let complete: RegistryMirror = "docker.io=cache.example".parse().unwrap();
        assert_eq!(complete.of(&source("aquasec/trivy-db")), Some(source("cache.example/aquasec/trivy-db")));
        assert_eq!(complete.origin(&source("cache.example/x/y")), Some(("docker.io", 0)));
    }

    #[test]
    fn text_that_names_no_registries_is_rejected() {
        for bad in
            ["", "ghcr.io", "ghcr.io=", "=harbor.example", "a b=harbor.example", "ghcr.io=h/UPPER", "x=h/a:1"]
        {
            assert!(bad.parse::<RegistryMirror>().is_err(), "{bad}");
        }
    }
}
