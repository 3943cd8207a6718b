//! The content checks: they decide whether Trivy accepts the files of a dataset.
//!
//! A `Checker` receives every file while it is unpacked. It hashes the file, keeps the bytes that it needs, and
//! returns [`Contents`] or the first fault. It runs at export, when a bad download can still be retried, and again
//! at import on the bytes that are installed. It opens no files.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;

use jiff::Timestamp;
use serde::Deserialize;

use crate::content_digest::{ContentDigest, ContentHasher};
use crate::dataset::tree::{Contents, File, RelPath, Sink, Tree};
use crate::dataset::vex_index::VexIndex;
use crate::dataset::{Kind, bolt, sqlite};

/// Content that breaks the rules of its kind. The text is a clause; the caller adds the name of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ContentError(pub String);

/// The reason why unpacking stopped.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The content is invalid.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The packed bytes could not be read.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// The sink failed.
    #[error("cannot write: {0}")]
    Sink(io::Error),
}

/// Returns an [`UnpackError::Content`] with this text.
pub(super) fn bad(text: impl Into<String>) -> UnpackError {
    UnpackError::Content(ContentError(crate::util::text::escape(&text.into())))
}

/// The limits of unpacking. Nothing is written beyond them, regardless of the sizes that an archive claims.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// The sum of the lengths of all files in bytes.
    pub unpacked: u64,
    /// The number of files.
    pub files: u64,
    /// The number of directories. Each takes an inode and space on the disk.
    pub directories: u64,
}

/// The limit of components of a path. Trivy's checks and VEX Hub have fewer than 10.
const MAX_DEPTH: usize = 32;

impl UnpackLimits {
    /// Returns the limits for content without a signed description.
    pub fn of(kind: Kind) -> Self {
        let (files, directories) = if kind.is_large() { (2, 0) } else { (100_000, 50_000) };
        UnpackLimits { unpacked: kind.max_unpacked(), files, directories }
    }

    /// Returns the limits for content that a signed payload describes.
    pub fn exactly(contents: &Contents) -> Self {
        UnpackLimits {
            unpacked: contents.unpacked_size(),
            files: contents.file_count(),
            directories: contents.directory_count(),
        }
    }
}

/// The number of bytes at the beginning of a database that are kept: the largest page of bbolt and SQLite.
const HEAD: usize = 64 << 10;
/// The limit for a `metadata.json` or an `index.json` in bytes.
const MAX_JSON: usize = 16 << 20;
/// The limit in bytes for all paths of the files of a dataset. They stay in memory until the digest of the tree is
/// known. VEX Hub has 13 KB, and 100,000 files with names of its average length have 6.4 MB.
pub const MAX_NAMES: u64 = 8 << 20;

/// The `metadata.json` of both databases (trivy-db, `pkg/metadata`; trivy-java-db, `pkg/db`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    version: u32,
    next_update: Timestamp,
    updated_at: Timestamp,
}

/// Returns the hash of a path.
fn hash(path: &str) -> u128 {
    ContentDigest::of(path.as_bytes()).short()
}

/// Checks the files of one dataset.
pub(crate) struct Checker<'a> {
    kind: Kind,
    limits: UnpackLimits,
    sink: &'a mut dyn Sink,
    files: Vec<File>,
    /// The length of all their paths in bytes.
    names: u64,
    /// The hashes of the paths of all files, and of all directories followed by a `/`. The paths themselves would
    /// take twice the memory. Two paths with the same hash are rejected, not confused.
    taken: HashSet<u128>,
    directories: u64,
    unpacked: u64,
    skipped: u64,
    current: Option<Current>,
    head: Vec<u8>,
    json: Vec<u8>,
}

struct Current {
    path: RelPath,
    size: u64,
    left: u64,
    hasher: ContentHasher,
    keep: Keep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    Head,
    Json,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(kind: Kind, limits: UnpackLimits, sink: &'a mut dyn Sink) -> Self {
        Checker {
            kind,
            limits,
            sink,
            files: Vec::new(),
            names: 0,
            taken: HashSet::new(),
            directories: 0,
            unpacked: 0,
            skipped: 0,
            current: None,
            head: Vec::new(),
            json: Vec::new(),
        }
    }

    /// Begins a file. Its name must be expected and new, and its size within the limits.
    pub(crate) fn begin(&mut self, path: RelPath, size: u64) -> Result<(), UnpackError> {
        let keep = match (self.kind, path.as_str()) {
            (Kind::TrivyDb, "trivy.db") | (Kind::TrivyJavaDb, "trivy-java.db") => Keep::Head,
            (Kind::TrivyDb | Kind::TrivyJavaDb, "metadata.json") | (Kind::Vex, "index.json") => Keep::Json,
            (Kind::TrivyDb | Kind::TrivyJavaDb, other) => {
                return Err(bad(format!("the archive contains the unexpected file {other}")));
            }
            (Kind::TrivyChecks | Kind::Vex, _) => Keep::Nothing,
        };
        if keep == Keep::Json && size > MAX_JSON as u64 {
            return Err(bad(format!("{path} has {size} bytes (limit: {MAX_JSON})")));
        }
        self.claim(&path)?;
        self.names += path.as_str().len() as u64;
        if self.names > MAX_NAMES {
            return Err(bad(format!("the names of its files take more than {MAX_NAMES} bytes")));
        }
        if keep == Keep::Json {
            self.json.reserve_exact(usize::try_from(size).unwrap_or(MAX_JSON));
        }
        self.unpacked = self.unpacked.saturating_add(size);
        if self.unpacked > self.limits.unpacked || self.files.len() as u64 >= self.limits.files {
            return Err(bad(format!(
                "it unpacks to more than {} bytes or more than {} files",
                self.limits.unpacked, self.limits.files
            )));
        }
        self.sink.begin(&path, size).map_err(UnpackError::Sink)?;
        self.current = Some(Current { path, size, left: size, hasher: ContentHasher::new(), keep });
        Ok(())
    }

    /// Skips a file. Its bytes are inflated anyway, so they are limited too.
    pub(super) fn skip(&mut self, path: &RelPath, size: u64) -> Result<(), UnpackError> {
        self.skipped = self.skipped.saturating_add(size);
        let most = self.kind.max_unpacked();
        if self.skipped > most {
            return Err(bad(format!("{path} and the other skipped files take more than {most} bytes")));
        }
        Ok(())
    }

    /// Whether a file is an AppleDouble file, `._NAME`, which macOS adds to an archive for extended attributes. In the
    /// archive of a database, trivy-ferry skips such files, as Trivy does. In a tree, they are ordinary files.
    pub(super) fn is_appledouble(&self, path: &RelPath) -> bool {
        let is = |name: &str| name.starts_with("._") && name.len() > 2;
        self.kind.is_large() && path.components().last().is_some_and(is)
    }

    /// Skips an AppleDouble file, and reports it to the sink.
    pub(super) fn skip_appledouble(&mut self, path: &RelPath, size: u64) -> Result<(), UnpackError> {
        self.sink.skipped(path);
        self.skip(path, size)
    }

    /// Records a path. Rejects a second file with the same name, and a file that is also a directory.
    fn claim(&mut self, path: &RelPath) -> Result<(), UnpackError> {
        let text = path.as_str();
        let twice = || bad(format!("the archive contains {text} twice"));
        if self.has(&format!("{text}/")) {
            return Err(twice());
        }
        if path.components().count() > MAX_DEPTH {
            return Err(bad(format!("{text} is nested deeper than {MAX_DEPTH} directories")));
        }
        for (at, _) in text.match_indices('/') {
            if self.has(&text[..at]) {
                return Err(twice());
            }
            if self.taken.insert(hash(&text[..=at])) {
                self.directories += 1;
                if self.directories > self.limits.directories {
                    return Err(bad(format!(
                        "it unpacks to more than {} directories",
                        self.limits.directories
                    )));
                }
            }
        }
        if self.taken.insert(hash(text)) { Ok(()) } else { Err(twice()) }
    }

    /// Whether this file, or this directory if the path ends with a `/`, was recorded.
    fn has(&self, path: &str) -> bool {
        self.taken.contains(&hash(path))
    }

    /// Takes the next bytes of the current file.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        let Some(current) = &mut self.current else {
            return Err(bad("the archive contains bytes before the first file"));
        };
        current.left = current
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| bad(format!("{} is longer than the archive states", current.path)))?;
        current.hasher.update(bytes);
        match current.keep {
            Keep::Nothing => {}
            Keep::Head => {
                let room = HEAD - self.head.len();
                self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Keep::Json => self.json.extend_from_slice(bytes),
        }
        self.sink.data(bytes).map_err(UnpackError::Sink)
    }

    /// Ends the current file.
    pub(crate) fn end(&mut self) -> Result<(), UnpackError> {
        let Some(current) = self.current.take() else {
            return Err(bad("a file ends before it begins"));
        };
        if current.left != 0 {
            return Err(bad(format!("{} is shorter than the archive states", current.path)));
        }
        self.files.push(File { path: current.path, size: current.size, digest: current.hasher.finish() });
        self.sink.end().map_err(UnpackError::Sink)
    }

    /// Checks the content after the last file.
    pub(crate) fn finish(self) -> Result<Contents, UnpackError> {
        match self.kind {
            Kind::TrivyDb => self.database("trivy.db", 2, bolt::check),
            Kind::TrivyJavaDb => self.database("trivy-java.db", 1, sqlite::check),
            Kind::TrivyChecks => self.checks(),
            Kind::Vex => self.vex(),
        }
    }

    fn database(
        mut self,
        name: &str,
        schema: u32,
        check: fn(&[u8], u64) -> Result<(), String>,
    ) -> Result<Contents, UnpackError> {
        for wanted in [name, "metadata.json"] {
            if !self.has(wanted) {
                return Err(bad(format!("the archive does not contain {wanted}")));
            }
        }
        let size = self.files.iter().find(|file| file.path.as_str() == name).map_or(0, |file| file.size);
        check(&self.head, size).map_err(|what| bad(format!("{name} {what}")))?;
        let metadata: Metadata = crate::util::json::from_slice(&self.json)
            .map_err(|e| bad(format!("metadata.json cannot be read: {e}")))?;
        if metadata.version != schema {
            return Err(bad(format!(
                "metadata.json names schema version {}, but Trivy reads version {schema}",
                metadata.version
            )));
        }
        if metadata.updated_at < Timestamp::UNIX_EPOCH || metadata.next_update < metadata.updated_at {
            return Err(bad("metadata.json contains implausible dates"));
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Contents {
            schema: Some(schema),
            updated_at: Some(metadata.updated_at),
            next_update: Some(metadata.next_update),
            files: self.files,
            tree: None,
        })
    }

    /// Requires checks and their libraries. If Trivy uses downloaded checks, it disables its embedded checks
    /// and libraries, and silently drops a check whose library is missing (seen with Trivy v0.74.0).
    fn checks(self) -> Result<Contents, UnpackError> {
        let rego = |file: &&File| {
            file.path.as_str().starts_with("policies/") && file.path.as_str().ends_with(".rego")
        };
        let is_library = |file: &File| file.path.components().any(|part| part == "lib");
        let (libraries, checks): (Vec<_>, Vec<_>) =
            self.files.iter().filter(rego).partition(|file| is_library(file));
        if checks.is_empty() {
            return Err(bad("the archive contains no .rego file below policies/"));
        }
        if libraries.is_empty() {
            return Err(bad("the archive contains no libraries for its checks (policies/*/lib)"));
        }
        Ok(self.tree(None))
    }

    fn vex(mut self) -> Result<Contents, UnpackError> {
        let Checker { sink, taken, json, .. } = &mut self;
        let sink = RefCell::new(sink);
        let has = |location: &str, format: &str| {
            sink.borrow_mut().listed(location, format);
            taken.contains(&hash(location))
        };
        let index = VexIndex::parse(json, &has);
        let index = index.map_err(|e| bad(format!("index.json cannot be read: {e}")))?;
        if index.listed > 0 && index.found == 0 {
            return Err(bad("index.json lists packages, but none of their documents is in the archive"));
        }
        let updated_at = index.updated_at.filter(|time| *time > Timestamp::UNIX_EPOCH);
        Ok(self.tree(updated_at))
    }

    fn tree(self, updated_at: Option<Timestamp>) -> Contents {
        Contents {
            schema: None,
            updated_at,
            next_update: None,
            files: Vec::new(),
            tree: Some(Tree::of(self.files)),
        }
    }
}
