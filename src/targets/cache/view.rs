//! Reads a cache: returns the metadata of installed datasets, and compares them with the content of a bundle. It writes
//! nothing.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::content_digest::{ContentDigest, content_digest_of};
use crate::dataset::{self, Contents, Kind, Name, Tree};
use crate::targets::cache::layout::{Layout, Slot};
use crate::targets::cache::metadata::{self, CachedDataset, Metadata};
use crate::targets::cache::working;
use crate::targets::error::{At, TargetError};
use crate::util::dir::Dir;

/// The limit for a metadata file in bytes.
const MAX_METADATA: u64 = 1 << 20;
/// The limit for a VEX index in bytes.
const MAX_INDEX: u64 = 16 << 20;

/// A cache directory that is read without a lock.
#[derive(Debug)]
pub struct View {
    pub(crate) root: Dir,
    pub(crate) layout: Layout,
}

impl View {
    /// Returns the path of the cache directory, with links resolved.
    pub fn dir(&self) -> &Path {
        self.root.path()
    }

    /// Returns the slot of a dataset; `None` if the layout has none. `vex_repository` is the name of a VEX repository in
    /// Trivy's configuration and must be a single directory name. Other kinds ignore it.
    pub fn slot(&self, name: &Name, vex_repository: &str) -> Option<Slot> {
        Slot::of(self.layout, name.kind(), vex_repository)
    }

    /// Returns the metadata of the dataset in a slot; `None` if there is none or Trivy could not read it.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of
    /// the directory; else the error of the system if it cannot be read.
    pub fn installed(&self, slot: &Slot) -> Result<Option<CachedDataset>, TargetError> {
        let Some(dir) = working::open_slot(&self.root, slot.path())? else { return Ok(None) };
        let main = dir.find(slot.main()).at("look it up", dir.at(slot.main()))?;
        if !main.is_some_and(|main| if slot.is_database() { main.is_file() } else { main.is_dir() }) {
            return Ok(None);
        }
        let seal = small(&dir, slot.seal())?;
        Ok(match slot.kind() {
            Kind::TrivyDb | Kind::TrivyJavaDb => seal.and_then(|bytes| metadata::read_database(&bytes)),
            Kind::TrivyChecks => seal.and_then(|bytes| metadata::read_checks(&bytes)),
            Kind::Vex => match working::open_slot(&dir, slot.main())? {
                Some(tree) => index(&tree)?.and_then(|index| metadata::read_vex(index, seal.as_deref())),
                None => None,
            },
        })
    }

    /// Whether exactly these contents are in place, with the metadata that `fresh` would write except for its times. Compares
    /// sizes first, then hashes every file, and accepts no other files in a tree.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of
    /// the directory; else the error of the system if a file cannot be read.
    pub fn holds(&self, slot: &Slot, contents: &Contents, fresh: &Metadata) -> Result<bool, TargetError> {
        let Some(installed) = self.installed(slot)? else { return Ok(false) };
        let Some(dir) = working::open_slot(&self.root, slot.path())? else { return Ok(false) };
        if installed.downloaded_at.is_none() {
            return Ok(false);
        }
        match fresh {
            Metadata::Database { .. } => {
                let same = installed.schema == contents.schema
                    && installed.updated_at == contents.updated_at
                    && installed.next_update == contents.next_update;
                Ok(same && files_match(&dir, slot, contents)?)
            }
            Metadata::Checks { manifest_digest, major, .. } => {
                let same =
                    installed.manifest_digest == Some(*manifest_digest) && installed.major == Some(*major);
                Ok(same && tree_matches(&dir, slot, contents)?)
            }
            Metadata::Vex { manifest_json, .. } => {
                let same = small(&dir, "vex-repository.json")?.as_ref() == Some(manifest_json)
                    && small(&dir, slot.seal())?.is_some_and(|bytes| metadata::vex_cache_is_clean(&bytes));
                Ok(same && tree_matches(&dir, slot, contents)?)
            }
        }
    }
}

impl View {
    /// Returns the main file of a database if it is one of these versions, and the index of that version. It is hashed and
    /// returned through one descriptor, because other programs may replace the file at any time.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of
    /// the directory; else the error of the system if a file cannot be read.
    pub fn base(
        &self,
        slot: &Slot,
        versions: &[(ContentDigest, u64)],
    ) -> Result<Option<(usize, File)>, TargetError> {
        match working::open_slot(&self.root, slot.path())? {
            Some(dir) => version_in(&dir, slot, versions),
            None => Ok(None),
        }
    }

    /// Whether the installed files have the number and the sizes of these contents. It reads no files, so it is fast.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of
    /// the directory; else the error of the system if a directory cannot be read.
    pub fn measures(&self, slot: &Slot, contents: &Contents) -> Result<bool, TargetError> {
        let Some(dir) = working::open_slot(&self.root, slot.path())? else { return Ok(false) };
        // An import rewrites the metadata of a database.
        for wanted in contents.files.iter().filter(|file| file.path.as_str() != slot.seal()) {
            let path = wanted.path.as_str();
            let found = dir.find(path).at("look it up", dir.at(path))?;
            if !found.is_some_and(|found| found.is_file() && found.size == wanted.size) {
                return Ok(false);
            }
        }
        let Some(wanted) = &contents.tree else { return Ok(true) };
        let Some(top) = working::open_slot(&dir, slot.main())? else { return Ok(false) };
        let (mut files, mut size) = (0u64, 0u64);
        let walked = top.walk(|_, _, _, entry| {
            files += 1;
            size = size.saturating_add(entry.size);
            Ok(())
        });
        let walked = unreadable_is_none(walked.map(Some)).at("read", top.path())?;
        Ok(walked.is_some() && (files, size) == (wanted.files, wanted.size))
    }
}

/// Returns the bytes of a small file; `None` if Trivy could not read it either.
fn small(dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, TargetError> {
    unreadable_is_none(dir.read_small(name, MAX_METADATA)).at("read", dir.at(name))
}

fn index(tree: &Dir) -> Result<Option<impl io::Read>, TargetError> {
    let file = unreadable_is_none(tree.open_file("index.json")).at("read", tree.at("index.json"))?;
    Ok(file.map(|file| io::Read::take(file, MAX_INDEX)))
}

/// Treats a link, a device or a huge file as missing, because it is not metadata. Other errors are kept.
fn unreadable_is_none<T>(result: io::Result<Option<T>>) -> io::Result<Option<T>> {
    use rustix::io::Errno;
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge) => {
            Ok(None)
        }
        Err(error)
            if matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NXIO | Errno::ISDIR)) =>
        {
            Ok(None)
        }
        other => other,
    }
}

/// Returns the main file in a directory if it is one of these versions, and the index of that version.
pub(crate) fn version_in(
    dir: &Dir,
    slot: &Slot,
    versions: &[(ContentDigest, u64)],
) -> Result<Option<(usize, File)>, TargetError> {
    let path = slot.main();
    let file = unreadable_is_none(dir.open_file(path)).at("read", dir.at(path))?;
    let Some(file) = file.filter(|_| slot.is_database()) else { return Ok(None) };
    let size = file.metadata().at("read", dir.at(path))?.len();
    if !versions.iter().any(|(_, version)| *version == size) {
        return Ok(None);
    }
    let copy = file.try_clone().at("read", dir.at(path))?;
    let found = content_digest_of(buffered(copy)).at("read", dir.at(path))?;
    Ok(versions.iter().position(|version| *version == found).map(|index| (index, file)))
}

/// Compares the files of a database, except its metadata, which an import rewrites and which is compared by field.
fn files_match(dir: &Dir, slot: &Slot, contents: &Contents) -> Result<bool, TargetError> {
    let mut main = false;
    for wanted in contents.files.iter().filter(|file| file.path.as_str() != slot.seal()) {
        let path = wanted.path.as_str();
        main |= path == slot.main();
        let file = unreadable_is_none(dir.open_file(path)).at("read", dir.at(path))?;
        let Some(file) = file else { return Ok(false) };
        if !file_matches(file, wanted).at("read", dir.at(path))? {
            return Ok(false);
        }
    }
    Ok(main)
}

fn file_matches(file: File, wanted: &dataset::File) -> io::Result<bool> {
    if file.metadata()?.len() != wanted.size {
        return Ok(false);
    }
    Ok(content_digest_of(buffered(file))? == (wanted.digest, wanted.size))
}

fn buffered(file: File) -> io::BufReader<File> {
    io::BufReader::with_capacity(256 << 10, file)
}

fn tree_matches(dir: &Dir, slot: &Slot, contents: &Contents) -> Result<bool, TargetError> {
    let (Some(wanted), Some(top)) = (&contents.tree, working::open_slot(dir, slot.main())?) else {
        return Ok(false);
    };
    let (mut files, mut size, mut plain) = (0u64, 0u64, true);
    let walked = top.walk(|path, _, name, entry| {
        plain &= entry.is_file() && name.to_str().is_some() && path.parse::<dataset::RelPath>().is_ok();
        files += 1;
        size = size.saturating_add(entry.size);
        Ok(())
    });
    // Signed content is never nested too deeply to be walked.
    let walked = unreadable_is_none(walked.map(Some)).at("read", top.path())?;
    if walked.is_none() || !plain || (files, size) != (wanted.files, wanted.size) {
        return Ok(false);
    }
    let mut found = Vec::new();
    top.walk(|path, directory, name, _| {
        if let (Some(file), Ok(path)) = (directory.open_file(name)?, path.parse()) {
            let (digest, size) = content_digest_of(buffered(file))?;
            found.push(dataset::File { path, size, digest });
        }
        Ok(())
    })
    .at("read", top.path())?;
    Ok(Tree::of(found) == *wanted)
}
