//! `--registry`: the place of each dataset in a registry.
//!
//! This module parses places on the command line. It pushes nothing.

use std::fmt;
use std::str::FromStr;

use crate::dataset::{Kind, Name};
use crate::delivery::image_place::path_of;
use crate::remote::{RemoteError, Repository};

/// The value of one `--registry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryPlace {
    /// `HOST[:PORT][/PREFIX]`: every dataset under its own name and tag.
    Registry {
        /// The host with its port.
        host: String,
        /// The path before each dataset's name; may be empty.
        prefix: String,
    },
    /// `DATASET=HOST/PATH[:TAG]`: one dataset, in a repository that the operator named.
    Repository {
        /// The dataset.
        dataset: Name,
        /// The host with its port.
        host: String,
        /// The repository's name.
        name: String,
        /// The tag, if the operator chose one.
        tag: Option<String>,
    },
}

/// A string that is not a valid place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPlace(String);

impl RegistryPlace {
    /// Returns the repository and tag of a dataset here. Returns `None` if the place is for another dataset.
    ///
    /// # Errors
    /// If the name or the tag is not valid for a repository.
    pub fn repository(&self, dataset: &Name, tag: &str) -> Result<Option<Repository>, RemoteError> {
        match self {
            RegistryPlace::Registry { host, prefix } => {
                let separator = if prefix.is_empty() { "" } else { "/" };
                Repository::at(host, &format!("{prefix}{separator}{dataset}"), tag).map(Some)
            }
            RegistryPlace::Repository { dataset: own, host, name, tag: given } if own == dataset => {
                Repository::at(host, name, given.as_deref().unwrap_or(tag)).map(Some)
            }
            RegistryPlace::Repository { .. } => Ok(None),
        }
    }

    /// Returns the reference of an image here. Returns `None` if the place is for one dataset.
    ///
    /// # Errors
    /// If the name is not valid for a repository, for example because it is too long.
    pub(crate) fn image(&self, image: &Repository) -> Option<Result<Repository, RemoteError>> {
        let RegistryPlace::Registry { host, prefix } = self else { return None };
        let separator = if prefix.is_empty() { "" } else { "/" };
        let path = format!("{prefix}{separator}{}", path_of(image));
        let at = Repository::at(host, &path, image.tag().unwrap_or("latest"));
        Some(match (image.tag(), image.digest()) {
            (None, Some(digest)) => at.map(|at| at.by_digest(digest)),
            _ => at,
        })
    }

    /// Returns the dataset that the place is for. Returns `None` if it is for all.
    pub fn dataset(&self) -> Option<&Name> {
        match self {
            RegistryPlace::Registry { .. } => None,
            RegistryPlace::Repository { dataset, .. } => Some(dataset),
        }
    }

    /// Returns the registry's host with its port.
    pub fn host(&self) -> &str {
        match self {
            RegistryPlace::Registry { host, .. } | RegistryPlace::Repository { host, .. } => host,
        }
    }
}

impl FromStr for RegistryPlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let wrong =
            |why: &str| InvalidPlace(format!("{why}; write HOST[:PORT][/PREFIX] or DATASET=HOST/PATH[:TAG]"));
        if text.contains("://") {
            return Err(wrong("a registry has no scheme such as https://"));
        }
        let place = match text.split_once('=') {
            None => {
                let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
                if host.contains('@') {
                    return Err(wrong("it holds a login; use `docker login` instead"));
                }
                if prefix.contains([':', '@']) {
                    return Err(wrong("a prefix must not have a tag"));
                }
                if prefix.chars().any(|c| c.is_ascii_uppercase()) {
                    return Err(wrong("the names of repositories are in lower case"));
                }
                RegistryPlace::Registry { host: host.into(), prefix: prefix.trim_end_matches('/').into() }
            }
            Some((dataset, rest)) => {
                let dataset: Name = dataset.parse().map_err(|e| wrong(&format!("{e}")))?;
                if dataset.kind() == Kind::Vex {
                    return Err(InvalidPlace(
                        "VEX repositories are not pushed, because Trivy fetches them over HTTP; write them for a web server with `import --web-root`"
                            .into(),
                    ));
                }
                let (host, path) = rest.split_once('/').ok_or_else(|| wrong("it names no repository"))?;
                let (name, tag) = match path.rsplit_once(':') {
                    Some((name, tag)) => (name, Some(tag.to_owned())),
                    None => (path, None),
                };
                RegistryPlace::Repository { dataset, host: host.into(), name: name.into(), tag }
            }
        };
        let probe = match &place {
            RegistryPlace::Repository { dataset, .. } => place.repository(dataset, "1"),
            RegistryPlace::Registry { .. } => place.repository(&Name::trivy_db(), "1"),
        };
        probe.map_err(|error| wrong(&error.to_string()))?;
        Ok(place)
    }
}

impl fmt::Display for RegistryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryPlace::Registry { host, prefix } if prefix.is_empty() => f.write_str(host),
            RegistryPlace::Registry { host, prefix } => write!(f, "{host}/{prefix}"),
            RegistryPlace::Repository { dataset, host, name, tag } => {
                write!(f, "{dataset}={host}/{name}")?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_to(place: &str, dataset: &str) -> Option<String> {
        let place: RegistryPlace = place.parse().unwrap();
        place.repository(&dataset.parse().unwrap(), "2").unwrap().map(|repository| repository.to_string())
    }

    #[test]
    fn the_first_part_is_always_the_host() {
        for (place, wanted) in [
            ("harbor.corp.example/security", "harbor.corp.example/security/trivy-db:2"),
            ("harbor.corp.example/a/b/", "harbor.corp.example/a/b/trivy-db:2"),
            ("registry", "registry/trivy-db:2"),
            ("registry/security", "registry/security/trivy-db:2"),
            ("localhost:5000", "localhost:5000/trivy-db:2"),
            ("[::1]:5000/x", "[::1]:5000/x/trivy-db:2"),
            ("trivy-db=registry/mirror/db", "registry/mirror/db:2"),
            ("trivy-db=registry:5000/mirror/db:stable", "registry:5000/mirror/db:stable"),
        ] {
            assert_eq!(goes_to(place, "trivy-db").as_deref(), Some(wanted), "{place}");
            assert_eq!(place.parse::<RegistryPlace>().unwrap().to_string(), place.trim_end_matches('/'));
        }
        assert_eq!(goes_to("trivy-db=registry/x", "trivy-checks"), None);
    }

    #[test]
    fn an_image_is_pushed_below_the_host_of_its_source() {
        for (place, image, wanted) in [
            (
                "registry.corp:5000/security",
                "ghcr.io/a/b:0.1",
                Some("registry.corp:5000/security/ghcr.io/a/b:0.1"),
            ),
            ("registry", "aquasec/trivy:1", Some("registry/docker.io/aquasec/trivy:1")),
            ("registry/p", "x.corp:5000/trivy-db:2", Some("registry/p/x.corp-5000/trivy-db:2")),
            ("trivy-db=registry/x", "ghcr.io/a/b:1", None),
        ] {
            let (place, image) =
                (place.parse::<RegistryPlace>().unwrap(), Repository::parse(image, "latest").unwrap());
            assert_eq!(place.image(&image).map(|at| at.unwrap().to_string()).as_deref(), wanted);
        }
    }

    #[test]
    fn an_invalid_place_is_rejected_with_a_reason() {
        for (text, why) in [
            ("https://harbor.corp.example", "no scheme"),
            ("", "its host is not valid"),
            ("/x", "its host is not valid"),
            ("h ost/x", "its host is not valid"),
            ("user:secret@host/x", "it holds a login"),
            ("host/UPPER", "lower case"),
            ("host/security/trivy-db:2", "must not have a tag"),
            ("trivy-db=host", "names no repository"),
            ("vex-hub=host/x", "over HTTP"),
            ("trivy=host/x", "not a valid dataset name"),
            ("trivy-db=host/x:a b", "not a usable address"),
        ] {
            let error = text.parse::<RegistryPlace>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
