//! Where each dataset is in a cache directory. Knows the layouts of Trivy and of Harbor; does no I/O.

use std::fmt;

use crate::dataset::{Kind, Name, RelPath};

/// Whose cache directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Trivy's own: all four datasets (Trivy v0.74.0, pkg/db, pkg/javadb, pkg/policy,
    /// pkg/vex/repo).
    #[default]
    Trivy,
    /// Harbor's adapter, `<data_volume>/trivy-adapter/trivy`: the two databases and VEX repositories, owned by
    /// [`HARBOR_OWNER`]. The adapter asks for vulnerabilities alone, so that checks have no place.
    Harbor,
}

/// The user and group that Harbor's adapter runs as.
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
                // One folder, and none that could be taken for a working file of ours.
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

    /// The slot with a given path, as the journal names it.
    pub(crate) fn from_path(path: &str) -> Option<Slot> {
        let (kind, repository) = match path {
            "db" => (Kind::TrivyDb, ""),
            "java-db" => (Kind::TrivyJavaDb, ""),
            "policy" => (Kind::TrivyChecks, ""),
            other => (Kind::Vex, other.strip_prefix(VEX_TOP)?.strip_prefix('/')?),
        };
        Slot::of(Layout::Trivy, kind, repository)
    }

    /// The slot with a given [`Slot::key`].
    pub(crate) fn from_key(key: &str) -> Option<Slot> {
        match key.strip_prefix("vex-") {
            Some(repository) => Slot::of(Layout::Trivy, Kind::Vex, repository),
            None => Slot::from_path(key),
        }
    }

    /// What stands here.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The path relative to the cache directory: `db`, `vex/repositories/default`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The folder above, relative to the cache directory; empty for the cache directory itself.
    pub(crate) fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }

    /// A name without slashes for working files.
    pub(crate) fn key(&self) -> String {
        match self.kind {
            Kind::Vex => format!("vex-{}", self.name()),
            _ => self.path.clone(),
        }
    }

    /// The file that holds the data, relative to the slot; for trees the folder.
    pub(crate) fn main(&self) -> &'static str {
        match self.kind {
            Kind::TrivyDb => "trivy.db",
            Kind::TrivyJavaDb => "trivy-java.db",
            Kind::TrivyChecks => "content",
            Kind::Vex => crate::dataset::catalogue::VEX_SPEC,
        }
    }

    /// The file by which Trivy judges the rest, and which is therefore put in place last.
    pub(crate) fn seal(&self) -> &'static str {
        match self.kind {
            Kind::Vex => "cache.json",
            _ => "metadata.json",
        }
    }

    /// When a file is put in place, where that happens file by file: those with a higher rank
    /// later, because Trivy finds the others through them.
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

    /// The dataset's name on the command line, as far as the slot tells it.
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
    fn nothing_leaves_the_cache_directory() {
        for bad in ["", "..", "a/b", "/etc", ".trivy-ferry", "a\nb"] {
            assert_eq!(Slot::of(Layout::Trivy, Kind::Vex, bad), None, "{bad:?}");
        }
        for bad in ["", "etc", "../db", "vex/repositories/", "vex/repositories/a/b", "fanal"] {
            assert_eq!(Slot::from_path(bad), None, "{bad:?}");
        }
        assert_eq!(Slot::of(Layout::Harbor, Kind::TrivyChecks, ""), None);
    }
}
