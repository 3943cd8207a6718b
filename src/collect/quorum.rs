//! Counts how many independent registries have the same data. This is the only check that detects a registry
//! that serves forged data.
//!
//! This module decides by the names of sources which of them are independent. It does not look at their data.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::collect::registry_mirror::RegistryMirror;
use crate::remote::is_loopback;
use crate::source::ArtifactSource;

/// The number of registries that must agree, and the time limit for it.
#[derive(Debug, Clone)]
pub(crate) struct Quorum<'a> {
    pub(crate) wanted: u32,
    /// Mirrors, which are not independent of their registries.
    pub(crate) mirrors: &'a [RegistryMirror],
    /// The time to wait for sources that lag behind.
    pub(crate) wait: Duration,
}

impl Quorum<'_> {
    pub(crate) const NONE: Quorum<'static> = Quorum { wanted: 1, mirrors: &[], wait: Duration::ZERO };

    /// Counts the independent sources. A mirror depends on its registry and on the mirror's operator; each of
    /// the two may count only once.
    pub(crate) fn votes<'s>(&self, sources: impl Iterator<Item = &'s ArtifactSource>) -> u32 {
        let mut voters: Vec<(String, String)> = sources.map(|source| self.origin_and_host(source)).collect();
        // Registries come before mirrors, because a mirror uses up two names.
        voters.sort_by_key(|(origin, host)| origin != host);
        let mut counted = BTreeSet::new();
        let new = |(origin, host): &(String, String)| {
            let new = !counted.contains(origin) && !counted.contains(host);
            counted.extend([origin.clone(), host.clone()]);
            new
        };
        voters.iter().map(new).filter(|new| *new).count() as u32
    }

    /// Returns the registry that a source copies, and the host that serves it.
    fn origin_and_host(&self, source: &ArtifactSource) -> (String, String) {
        // The registry that a layout was fetched from is not known.
        let Some(host) = source.host() else { return ("a layout".into(), "a layout".into()) };
        let host = canonical(host);
        let mirrored = self.mirrors.iter().filter_map(|mirror| mirror.origin(source));
        // If two mirrors are on one host, the one with the longer prefix applies.
        let mirrored = mirrored.max_by_key(|(_, prefix)| *prefix).map(|(origin, _)| canonical(origin));
        let origin = mirrored.unwrap_or_else(|| match host.as_str() {
            // A pull-through cache of Docker Hub.
            "mirror.gcr.io" => "docker.io".into(),
            own => own.into(),
        });
        (origin, host)
    }
}

/// Returns one name for all names of a registry.
fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) && !port.is_empty() => (name, port),
        _ => (host.as_str(), ""),
    };
    let name = match name.trim_end_matches('.') {
        name if is_loopback(name) => "localhost",
        "registry-1.docker.io" | "index.docker.io" => "docker.io",
        name => name,
    };
    match port {
        "" | "80" | "443" => name.to_owned(),
        port => format!("{name}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(mirrors: &[&str], sources: &[&str]) -> u32 {
        let mirrors: Vec<RegistryMirror> = mirrors.iter().map(|mirror| mirror.parse().unwrap()).collect();
        let quorum = Quorum { mirrors: &mirrors, ..Quorum::NONE };
        let sources: Vec<_> =
            sources.iter().map(|source| ArtifactSource::parse(source, "2").unwrap()).collect();
        quorum.votes(sources.iter())
    }

    #[test]
    fn a_registry_counts_once() {
        assert_eq!(votes(&[], &["ghcr.io/a/b", "public.ecr.aws/a/b", "a/b"]), 3);
        for one in [
            &["ghcr.io/a/b", "ghcr.io/c/d"][..],
            &["mirror.gcr.io/a/b", "a/b"],
            &["docker.io/a/b", "registry-1.docker.io/a/b"],
            &["ghcr.io/a/b", "GHCR.io/a/b", "ghcr.io:443/a/b"],
            &["localhost:5000/a", "127.0.0.1:5000/a", "[::1]:5000/a"],
            &["oci-layout:x", "oci-layout:./x", "oci-layout:y"],
        ] {
            assert_eq!(votes(&[], one), 1, "{one:?}");
        }
    }

    #[test]
    fn a_mirror_counts_for_its_registry_and_for_its_host() {
        let both = ["ghcr.io=harbor.example/ghcr", "docker.io=harbor.example/hub"];
        // Two prefixes on one Harbor.
        assert_eq!(votes(&both, &["harbor.example/ghcr/a/b", "harbor.example/hub/a/b"]), 1);
        assert_eq!(votes(&both, &["harbor.example/ghcr/a/b", "ghcr.io/a/b"]), 1);
        assert_eq!(votes(&both, &["harbor.example/ghcr/a/b", "docker.io/a/b"]), 2);
        assert_eq!(votes(&both, &["harbor.example/ghcr/a/b", "harbor.example/own/a"]), 1);
        // The prefix of one mirror is below that of the other.
        let below = ["ghcr.io=harbor.example", "docker.io=harbor.example/hub"];
        assert_eq!(votes(&below, &["harbor.example/hub/a/b", "docker.io/a/b"]), 1);
        assert_eq!(votes(&below, &["harbor.example/hub/a/b", "ghcr.io/a/b"]), 2);
    }
}
