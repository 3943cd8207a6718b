//! The paths of datasets in a cache directory, for the layouts of Trivy and of Harbor. This module does no I/O.

use std::fmt;

use crate::dataset::{Kind, Name, RelPath};

/// The layout of a cache directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// The layout of Trivy: all four datasets (Trivy v0.74.0, `pkg/db`, `pkg/javadb`, `pkg/policy`,
    /// `pkg/vex/repo`).
    #[default]
    Trivy,
    /// The layout of Harbor's adapter, `<data_volume>/trivy-adapter/trivy`: the two databases and
    /// VEX repositories, owned by [`HARBOR_OWNER`]. The adapter scans only for vulnerabilities, so
    /// there are no checks.
    Harbor,
}

/// The user and the group of Harbor's adapter.
pub const HARBOR_OWNER: crate::targets::Owner = crate::targets::Owner { uid: 10000, gid: 10000 };

/// The place of one dataset in a cache directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    kind: Kind,
    path: String,
}

const VEX_TOP: &str = "vex/repositories";

impl Slot {
    pub(crate) fn of(layout: Layout, kind: Kind, vex_repository: &str) -> Option<Slot> {
        let path = match (layout, kind) {
            (_, Kind::TrivyDb) => "db".into(),
            (_, Kind::TrivyJavaDb) => "java-db".into(),
            (Layout::Harbor, Kind::TrivyChecks) => return None,
            (Layout::Trivy, Kind::TrivyChecks) => "policy".into(),
            (_, Kind::Vex) => {
                let name: RelPath = vex_repository.parse().ok()?;
                // A single directory whose name cannot be that of a working file.
                if name.components().count() != 1
                    || vex_repository.starts_with('.')
                    || vex_repository.len() > 200
                {
                    return None;
                }
                format!("{VEX_TOP}/{vex_repository}")
            }
        };
        Some(Slot { kind, path })
    }

    /// Returns the slot with this path, which the journal stores.
    pub(crate) fn from_path(path: &str) -> Option<Slot> {
        let (kind, repository) = match path {
            "db" => (Kind::TrivyDb, ""),
            "java-db" => (Kind::TrivyJavaDb, ""),
            "policy" => (Kind::TrivyChecks, ""),
            other => (Kind::Vex, other.strip_prefix(VEX_TOP)?.strip_prefix('/')?),
        };
        Slot::of(Layout::Trivy, kind, repository)
    }

    /// Returns the slot with this [`Slot::key`].
    pub(crate) fn from_key(key: &str) -> Option<Slot> {
        match key.strip_prefix("vex-") {
            Some(repository) => Slot::of(Layout::Trivy, Kind::Vex, repository),
            None => Slot::from_path(key),
        }
    }

    /// Returns the kind of its dataset.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the path relative to the cache directory: `db`, `vex/repositories/default`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the directory above, relative to the cache directory; empty for the cache directory itself.
    pub(crate) fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// Returns the last component of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }

    /// Returns a name without slashes for working files.
    pub(crate) fn key(&self) -> String {
        match self.kind {
            Kind::Vex => format!("vex-{}", self.name()),
            _ => self.path.clone(),
        }
    }

    /// Returns the file with the data, relative to the slot; for trees, the directory.
    pub(crate) fn main(&self) -> &'static str {
        match self.kind {
            Kind::TrivyDb => "trivy.db",
            Kind::TrivyJavaDb => "trivy-java.db",
            Kind::TrivyChecks => "content",
            Kind::Vex => crate::dataset::catalogue::VEX_SPEC,
        }
    }

    /// Returns the file by which Trivy decides whether the dataset is valid. It is put in place last.
    pub(crate) fn seal(&self) -> &'static str {
        match self.kind {
            Kind::Vex => "cache.json",
            _ => "metadata.json",
        }
    }

    /// Returns the rank of a file in a switch file by file. Files with a higher rank are put in place later, because
    /// Trivy finds the others through them.
    pub(crate) fn rank(&self, path: &str) -> u8 {
        match (self.kind, path) {
            (_, path) if path == self.seal() => 3,
            (Kind::Vex, "vex-repository.json") => 2,
            (Kind::Vex, "0.1/index.json") => 1,
            _ => 0,
        }
    }

    pub(crate) fn is_database(&self) -> bool {
        self.kind.is_large()
    }

    /// Returns the name of the dataset on the command line, derived from the slot.
    pub(crate) fn dataset(&self) -> String {
        match self.kind {
            Kind::TrivyDb => "trivy-db".into(),
            Kind::TrivyJavaDb => "trivy-java-db".into(),
            Kind::TrivyChecks => "trivy-checks".into(),
            Kind::Vex => Name::vex(self.name()).map_or_else(|_| self.key(), |name| name.as_str().into()),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_found_again_by_path_and_key() {
        for (kind, path, key) in [
            (Kind::TrivyDb, "db", "db"),
            (Kind::TrivyJavaDb, "java-db", "java-db"),
            (Kind::TrivyChecks, "policy", "policy"),
            (Kind::Vex, "vex/repositories/corp", "vex-corp"),
        ] {
            let slot = Slot::of(Layout::Trivy, kind, "corp").unwrap();
            assert_eq!((slot.path(), slot.key().as_str()), (path, key));
            assert_eq!(Slot::from_path(path).as_ref(), Some(&slot));
            assert_eq!(Slot::from_key(key).as_ref(), Some(&slot));
            assert_eq!(format!("{}/{}", slot.parent(), slot.name()).trim_start_matches('/'), path);
        }
    }

    #[test]
    fn no_slot_is_outside_the_cache_directory() {
        for bad in ["", "..", "a/b", "/etc", ".trivy-ferry", "a\nb"] {
            assert_eq!(Slot::of(Layout::Trivy, Kind::Vex, bad), None, "{bad:?}");
        }
        for bad in ["", "etc", "../db", "vex/repositories/", "vex/repositories/a/b", "fanal"] {
            assert_eq!(Slot::from_path(bad), None, "{bad:?}");
        }
        assert_eq!(Slot::of(Layout::Harbor, Kind::TrivyChecks, ""), None);
    }
}
