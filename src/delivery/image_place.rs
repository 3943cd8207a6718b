//! The place of an image at a target. The path begins with the host of the image's source, so that it cannot
//! collide with a dataset or with a repository that exists there already.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use crate::remote::Repository;

/// Returns the path of an image at a target, `<source host>/<repository>`.
///
/// The host becomes one component of a repository's name (distribution specification v1.1, "Pulling
/// manifests"): lower case, and `-` before the port. An IPv6 address is written in full, because a component
/// cannot begin with `[` or `-`.
pub(crate) fn path_of(image: &Repository) -> String {
    format!("{}/{}", component(image.host()), image.name())
}

fn component(host: &str) -> String {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let Some((address, port)) = bracketed else { return host.to_ascii_lowercase().replace(':', "-") };
    let Ok(address) = address.parse::<Ipv6Addr>() else {
        return host.to_ascii_lowercase().replace([':', '[', ']'], "-");
    };
    let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:x}")).collect();
    groups.join("-") + &port.replace(':', "-")
}

/// The repositories of datasets. No image may be pushed to one, under any tag.
#[derive(Debug, Default)]
pub(crate) struct DatasetPlaces(BTreeMap<(String, String), String>);

impl DatasetPlaces {
    /// Adds the repository of a dataset.
    pub(crate) fn add(&mut self, repository: &Repository, dataset: &str) {
        self.0.entry(key(repository)).or_insert_with(|| dataset.to_owned());
    }

    /// Returns the dataset whose repository this is.
    pub(crate) fn dataset_at(&self, reference: &Repository) -> Option<&str> {
        self.0.get(&key(reference)).map(String::as_str)
    }
}

/// Returns host and name. Removes the default ports, so that a registry has one spelling.
fn key(repository: &Repository) -> (String, String) {
    let host = repository.host().to_ascii_lowercase();
    let host = host.strip_suffix(":443").or(host.strip_suffix(":80")).unwrap_or(&host);
    (host.to_owned(), repository.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_becomes_a_component_that_registries_accept() {
        for (image, path) in [
            ("ghcr.io/aquasecurity/trivy-operator:0.1", "ghcr.io/aquasecurity/trivy-operator"),
            ("docker.io/library/alpine:3", "docker.io/library/alpine"),
            ("alpine/git:1", "docker.io/alpine/git"),
            ("registry.corp:5000/a/b:1", "registry.corp-5000/a/b"),
            ("localhost:5000/a:1", "localhost-5000/a"),
            ("GHCR.io/a/b:1", "ghcr.io/a/b"),
            ("127.0.0.1:5000/a:1", "127.0.0.1-5000/a"),
            ("[::1]:5000/a:1", "0-0-0-0-0-0-0-1-5000/a"),
            ("[2001:DB8::a]/a:1", "2001-db8-0-0-0-0-0-a/a"),
        ] {
            let image = Repository::parse(image, "latest").unwrap();
            assert_eq!(path_of(&image), path);
            // The path after a prefix, and its first component alone, must match the specification's pattern.
            let valid = Repository::at("registry", &format!("p/{}", path_of(&image)), "1").unwrap();
            assert_eq!(valid.name(), format!("p/{path}"));
            let first = path.split('/').next().unwrap();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(first.starts_with(plain) && first.ends_with(plain), "{first}");
        }
    }

    #[test]
    fn the_repository_of_a_dataset_is_known_under_every_tag_and_spelling() {
        let at = |text: &str| Repository::parse(text, "latest").unwrap();
        let mut places = DatasetPlaces::default();
        places.add(&at("registry.corp/security/trivy-db:2"), "trivy-db");
        for text in [
            "registry.corp/security/trivy-db:2",
            "registry.corp/security/trivy-db:other",
            "registry.corp:443/security/trivy-db:2",
            "Registry.corp/security/trivy-db:2",
        ] {
            assert_eq!(places.dataset_at(&at(text)), Some("trivy-db"), "{text}");
        }
        assert_eq!(places.dataset_at(&at("registry.corp/security/trivy-db/x:2")), None);
        assert_eq!(places.dataset_at(&at("registry.corp:5000/security/trivy-db:2")), None);
    }
}
