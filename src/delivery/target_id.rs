//! The name of a target in the state, in reports and in the log.
//!
//! This module parses and prints names. It does not read the data of targets.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{self, Path, PathBuf};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::delivery::registry_place::RegistryPlace;

/// A place that datasets are delivered to. Its text, such as `cache:/var/cache/trivy`, is its name in JSON, in the
/// log and in the state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TargetId {
    /// Trivy's cache directory, without symbolic links.
    Cache(PathBuf),
    /// A place in a registry.
    Registry(RegistryPlace),
    /// The directory of a web server, without symbolic links.
    WebRoot(PathBuf),
    /// A server of trivy-ferry, by the address that it listens on.
    Server {
        /// The address; `None` in the ledger, which identifies a server by its port.
        address: Option<IpAddr>,
        /// The TCP port.
        port: u16,
    },
    /// A name in a state file that this version cannot parse.
    Other(String),
}

impl TargetId {
    /// Returns the name of the target in the ledger.
    pub(crate) fn in_ledger(&self) -> TargetId {
        match self {
            TargetId::Server { port, .. } => TargetId::Server { address: None, port: *port },
            other => other.clone(),
        }
    }

    /// Whether a name that the user gave means this target: the name that `status` prints, with or
    /// without its kind. A directory may be given by any path that leads to it.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let whole = self.to_string();
        let kind = whole.split_once(':').map_or("", |(kind, _)| kind);
        let place = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':')).unwrap_or(name);
        if let Some(directory) = self.directory() {
            let resolved = Path::new(place).canonicalize().or_else(|_| path::absolute(place));
            return directory == Path::new(place) || resolved.is_ok_and(|resolved| resolved == *directory);
        }
        let place = place.trim_end_matches('/');
        whole == name || !kind.is_empty() && whole.strip_prefix(kind) == Some(&format!(":{place}"))
    }

    /// Returns the directory of a cache or a web root.
    pub(crate) fn directory(&self) -> Option<&PathBuf> {
        match self {
            TargetId::Cache(dir) | TargetId::WebRoot(dir) => Some(dir),
            _ => None,
        }
    }

    fn understood(text: &str) -> Option<TargetId> {
        let (kind, place) = text.split_once(':')?;
        let id = match kind {
            "cache" => TargetId::Cache(place.into()),
            "registry" => TargetId::Registry(place.parse().ok()?),
            "web" => TargetId::WebRoot(place.into()),
            "serve" => match place.parse() {
                Ok(port) => TargetId::Server { address: None, port },
                Err(_) => place.parse::<SocketAddr>().ok()?.into(),
            },
            _ => return None,
        };
        // Only a name that is written in exactly this form is this target.
        (id.to_string() == text).then_some(id)
    }
}

impl From<SocketAddr> for TargetId {
    fn from(address: SocketAddr) -> Self {
        TargetId::Server { address: Some(address.ip()), port: address.port() }
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetId::Cache(dir) => write!(f, "cache:{}", dir.display()),
            TargetId::Registry(place) => write!(f, "registry:{place}"),
            TargetId::WebRoot(dir) => write!(f, "web:{}", dir.display()),
            TargetId::Server { address: Some(ip), port } => {
                write!(f, "serve:{}", SocketAddr::new(*ip, *port))
            }
            TargetId::Server { address: None, port } => write!(f, "serve:{port}"),
            TargetId::Other(text) => f.write_str(text),
        }
    }
}

impl FromStr for TargetId {
    type Err = Infallible;

    /// Parses every name. A name that this version cannot parse becomes [`TargetId::Other`].
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(TargetId::understood(text).unwrap_or_else(|| TargetId::Other(text.to_owned())))
    }
}

impl Serialize for TargetId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TargetId {
        text.parse().unwrap()
    }

    /// A name that changed would count as a new target without floors.
    #[test]
    fn names_in_state_files_are_printed_unchanged() {
        for text in [
            "cache:/var/cache/trivy",
            "cache:/srv/a:b/é",
            "web:/srv/www",
            "registry:registry.corp:5000/security",
            "registry:registry.corp",
            "registry:trivy-db=registry.corp/mirror/db:2",
            "serve:8080",
            "serve:127.0.0.1:8080",
            "serve:[::1]:8080",
            "serve:0.0.0.0:80",
        ] {
            assert_eq!(id(text).to_string(), text);
            assert!(!matches!(id(text), TargetId::Other(_)), "{text}");
        }
        for text in ["", "cache", "moon:/x", "serve:", "serve:08080", "registry:", "registry:https://x/"] {
            assert_eq!(id(text), TargetId::Other(text.into()));
            assert_eq!(id(text).to_string(), text);
        }
    }

    #[test]
    fn people_name_a_target_with_and_without_its_kind() {
        for (target, name) in [
            ("cache:/var/cache/trivy", "cache:/var/cache/trivy"),
            ("cache:/var/cache/trivy", "/var/cache/trivy/"),
            ("cache:/var/cache/trivy", "cache:/var/cache/trivy/"),
            ("web:/", "/usr/.."),
            ("registry:r.corp:5000/p", "r.corp:5000/p"),
            ("registry:r.corp:5000/p", "registry:r.corp:5000/p/"),
            ("serve:8080", "8080"),
            ("moon:/x", "moon:/x"),
        ] {
            assert!(id(target).is_called(name), "{target} {name}");
        }
        let here = std::env::current_dir().unwrap();
        assert!(TargetId::Cache(here.join("no-such/cache")).is_called("no-such/cache"), "from here");
        for (target, name) in [("registry:r.corp/p", "r.corp"), ("cache:/x", ""), ("cache:/x", "web:/x")] {
            assert!(!id(target).is_called(name), "{target} {name}");
        }
    }

    #[test]
    fn the_ledger_identifies_a_server_by_its_port() {
        assert_eq!(id("serve:127.0.0.1:8080").in_ledger().to_string(), "serve:8080");
        assert_eq!(id("cache:/x").in_ledger(), id("cache:/x"));
    }
}
