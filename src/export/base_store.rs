//! The layers of earlier exports of a stream: the versions that deltas start from.
//!
//! This module stores and removes layers. It does not read their content, and what it returns is not trusted: a layer is
//! used only if its unpacked file has the recorded digest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::content_digest::ContentDigest;
use crate::digest::Digest;
use crate::error::Error;
use crate::export::options::{ExportOptions, FullEvery};
use crate::util::dir::write::{Durability, PendingFile};
use crate::util::dir::{Dir, FileMode};
use crate::util::json;

/// The file that lists the versions.
const INDEX: &str = "bases.json";
/// The limit of the list in bytes. Eight versions of two databases take 8 KiB.
const MAX_INDEX: u64 = 1 << 20;
/// The form of the list.
const FORMAT: u32 = 1;
/// The name of a layer that is being fetched.
const INCOMING: &str = "incoming";

/// A version of a database that an export carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredBase {
    /// The reference name of the dataset.
    pub(crate) dataset: String,
    /// The digest of its layer, which names the stored file.
    pub(crate) layer: Digest,
    /// The content digest of its large file.
    pub(crate) digest: ContentDigest,
    /// The length of that file in bytes.
    pub(crate) size: u64,
    /// When upstream built it.
    pub(crate) updated_at: Option<Timestamp>,
    /// When the bundle with it was created.
    pub(crate) created: Timestamp,
    /// Whether the bundle carried it whole.
    pub(crate) whole: bool,
}

#[derive(Serialize, Deserialize)]
struct Index {
    format: u32,
    bases: Vec<StoredBase>,
}

/// The base store of a stream.
pub(crate) struct BaseStore {
    dir: Dir,
    /// The versions, oldest first.
    bases: Vec<StoredBase>,
}

impl BaseStore {
    /// Opens the store, and creates its directory if it is missing. The caller holds the lock of the exporter's state.
    ///
    /// # Errors
    /// If the directory or the list cannot be read or created, or a newer version of this program wrote the list.
    pub(crate) fn open(path: &Path, stream: &str) -> io::Result<Self> {
        let top = Dir::top_or_make(path, None)?;
        let dir = top.open_or_make(stream, FileMode::AtMost(0o700), None)?;
        for name in dir.list()? {
            if name.to_string_lossy().starts_with(INCOMING) {
                dir.remove(&name)?;
            }
        }
        let bases = match dir.read_small(INDEX, MAX_INDEX)? {
            None => Vec::new(),
            Some(bytes) => {
                let index: Index = json::from_slice(&bytes)?;
                if index.format != FORMAT {
                    return Err(io::Error::other(format!("{INDEX} has the unknown form {}", index.format)));
                }
                index.bases
            }
        };
        Ok(BaseStore { dir, bases })
    }

    /// Opens the store of these options; `None` if they ask for no deltas. `state` is the exporter's state directory.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is neither a directory for the store nor a state directory; [`Error::Destination`] if the
    /// store cannot be opened.
    pub(crate) fn of_options(options: &ExportOptions, state: Option<&Path>) -> Result<Option<Self>, Error> {
        let Some(delta) = &options.delta else { return Ok(None) };
        let Some(path) = delta.base_store.clone().or(state.map(|state| state.join("bases"))) else {
            return Err(Error::usage(
                "--delta requires a directory for the versions that differences start from",
                "Give it with --base-store DIR.",
            ));
        };
        BaseStore::open(&path, options.stream.as_str()).map(Some).map_err(|error| Error::Destination {
            path,
            what: error.to_string(),
            hint: "Name another directory with --base-store.".into(),
        })
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the versions of a dataset, newest first.
    pub(crate) fn of(&self, dataset: &str) -> impl Iterator<Item = &StoredBase> {
        self.bases.iter().rev().filter(move |base| base.dataset == dataset)
    }

    /// Whether the next bundle carries the databases whole: none was carried whole yet, or the last time is too long ago.
    pub(crate) fn is_due(&self, full_every: FullEvery, now: Timestamp) -> bool {
        let Some(last) = self.bases.iter().filter(|base| base.whole).map(|base| base.created).max() else {
            return true;
        };
        match full_every {
            FullEvery::Age(age) => now.duration_since(last) >= age.duration(),
            FullEvery::Exports(number) => {
                let after: BTreeSet<Timestamp> =
                    self.bases.iter().map(|base| base.created).filter(|created| *created > last).collect();
                after.len() + 1 >= number as usize
            }
        }
    }

    /// Opens the layer with this digest if an earlier run, which wrote no bundle, has stored it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn fetched(&self, layer: &Digest) -> io::Result<Option<File>> {
        self.dir.open_file(name(layer))
    }

    /// Creates the file for a layer that is being fetched. [`BaseStore::keep`] gives it its name.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn incoming(&self, layer: &Digest) -> io::Result<PendingFile<'_>> {
        PendingFile::create(&self.dir, format!("{INCOMING}-{}", layer.hex()), FileMode::AtMost(0o600), None)
    }

    /// Gives a layer that was fetched its name, and opens it. The next bundle that is written removes it, unless it is
    /// part of that bundle.
    ///
    /// # Errors
    /// If it cannot be synced, renamed or opened.
    pub(crate) fn keep(&self, file: PendingFile<'_>, layer: &Digest) -> io::Result<File> {
        file.replace(name(layer), Durability::Synced)?;
        self.fetched(layer)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Adds the versions of a new bundle, and removes those that no later delta can use: `most` of each dataset are kept,
    /// among them the newest one that was carried whole.
    ///
    /// # Errors
    /// If the list cannot be written, or a file cannot be removed.
    pub(crate) fn add(&mut self, new: Vec<StoredBase>, most: usize) -> io::Result<()> {
        for base in new {
            self.bases.retain(|old| (&old.dataset, old.digest) != (&base.dataset, base.digest));
            self.bases.push(base);
        }
        let bases = std::mem::take(&mut self.bases);
        self.bases = bases.iter().filter(|base| is_needed(base, &bases, most)).cloned().collect();
        let index = serde_json::to_vec(&Index { format: FORMAT, bases: self.bases.clone() })?;
        self.dir.replace(INDEX, &index, FileMode::AtMost(0o600), None, Durability::Synced)?;
        let kept: Vec<String> = self.bases.iter().map(|base| name(&base.layer)).collect();
        for file in self.dir.list()? {
            let file = file.to_string_lossy().into_owned();
            if file.ends_with(SUFFIX) && !kept.contains(&file) {
                self.dir.remove(&file)?;
            }
        }
        Ok(())
    }
}

/// The suffix of a stored layer.
const SUFFIX: &str = ".tar.gz";

/// Returns the name of a stored layer.
pub(crate) fn name(layer: &Digest) -> String {
    format!("{}{SUFFIX}", layer.hex())
}

/// Whether a version is one of the newest of its dataset, or the newest that was carried whole.
fn is_needed(base: &StoredBase, all: &[StoredBase], most: usize) -> bool {
    let newer = || all.iter().filter(|other| other.dataset == base.dataset && other.created > base.created);
    let last_whole = base.whole && !newer().any(|other| other.whole);
    last_whole || newer().count() < most - 1
}
