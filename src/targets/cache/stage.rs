//! Staging: writes the files of a dataset into a private directory on the file system of its slot. The switch, which
//! puts them in place, begins only when all of them are written.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};

use crate::dataset::{Kind, RelPath, Sink};
use crate::targets::cache::layout::Slot;
use crate::targets::cache::metadata::{self, Metadata};
use crate::targets::cache::working::{self, WorkingNames, WorkingPlace};
use crate::targets::error::{At, TargetError};
use crate::util::dir::{Dir, FileMode, Owner};
use crate::util::step;

/// The limit for the `metadata.json` of a database in bytes. Upstream's have about 150 bytes.
const MAX_METADATA: u64 = 1 << 20;

/// A dataset that is being staged. It receives its files as a [`Sink`]. If it is dropped before its activation, it
/// removes them.
pub struct Stage {
    slot: Slot,
    metadata: Metadata,
    root: Dir,
    place: WorkingPlace,
    names: WorkingNames,
    dir: Dir,
    owner: Option<Owner>,
    open: Option<Open>,
    directory: Option<(String, Dir)>,
    /// The files of a database. For a tree they are read from the disk when needed, because their names could take
    /// megabytes.
    files: BTreeSet<String>,
    has_main: bool,
    has_index: bool,
    upstream: Option<Vec<u8>>,
    complete: bool,
    /// Whether the replaced data is kept as the previous generation.
    keeps_replaced: bool,
}

/// The file that is being written.
struct Open {
    path: String,
    left: u64,
    to: To,
}

enum To {
    File(File),
    /// Upstream's `metadata.json`, which is rewritten.
    Memory(Vec<u8>),
}

impl Stage {
    pub(crate) fn new(
        root: &Dir,
        slot: &Slot,
        place: WorkingPlace,
        metadata: Metadata,
        owner: Option<Owner>,
    ) -> Result<Stage, TargetError> {
        let names = WorkingNames::of(slot);
        let path = place.dir.at(&names.stage);
        place.dir.remove(&names.stage).at("clear the staging directory", &path)?;
        // The mode follows the directory of the slot, not the working directory, which root never shares.
        let above = working::deepest(root, slot)?.0.entry().at("look it up", root.path())?;
        let top = root.entry().at("look it up", root.path())?;
        let mode = [top, above].map(|entry| entry.directory_mode(FileMode::Shared(0o755)));
        let dir = place
            .dir
            .make(&names.stage, mode[0] | mode[1], owner)
            .at("create the staging directory", &path)?;
        Ok(Stage {
            slot: slot.clone(),
            metadata,
            root: root.try_clone().at("open", root.path())?,
            place,
            names,
            dir,
            owner,
            open: None,
            directory: None,
            files: BTreeSet::new(),
            has_main: false,
            has_index: false,
            upstream: None,
            complete: false,
            keeps_replaced: true,
        })
    }

    /// Discards the replaced data because it is damaged: the kept generation stays the previous one.
    pub fn discards_replaced(mut self) -> Self {
        self.keeps_replaced = false;
        self
    }

    pub(crate) fn keeps_replaced(&self) -> bool {
        self.keeps_replaced
    }

    /// Returns the slot of the dataset.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Returns the path in the slot for a file of the content.
    fn place_of(&self, path: &RelPath) -> Result<String, TargetError> {
        match self.slot.kind() {
            Kind::TrivyDb | Kind::TrivyJavaDb => {
                if path.as_str() != self.slot.main() && path.as_str() != self.slot.seal() {
                    return Err(self.content(format!("unexpected file {path}")));
                }
                Ok(path.as_str().into())
            }
            Kind::TrivyChecks | Kind::Vex => Ok(format!("{}/{path}", self.slot.main())),
        }
    }

    fn content(&self, what: String) -> TargetError {
        TargetError::Content { path: self.root.at(self.slot.path()), what }
    }

    fn create(&mut self, path: &str) -> Result<File, TargetError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.directory.as_ref().is_none_or(|(known, _)| known != directory) {
            let dir = self
                .dir
                .open_or_make_path(directory, self.owner)
                .at("create a directory", self.dir.at(directory))?;
            self.directory = Some((directory.into(), dir));
        }
        let dir = self.directory.as_ref().map_or(&self.dir, |(_, dir)| dir);
        let file = dir.create(name, FileMode::Shared(0o644), self.owner).at("create a file", dir.at(name))?;
        if self.slot.is_database() {
            self.files.insert(path.into());
        }
        let below = path.strip_prefix(self.slot.main());
        self.has_main |= below.is_some_and(|below| below.is_empty() || below.starts_with('/'));
        self.has_index |= path == "0.1/index.json";
        Ok(file)
    }

    fn write_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), TargetError> {
        let mut file = self.create(path)?;
        step("write", OsStr::new(path)).at("write", self.dir.at(path))?;
        file.write_all(bytes).at("write", self.dir.at(path))
    }

    /// Writes the metadata, checks that no file is missing, and syncs all files.
    pub(crate) fn seal(&mut self) -> Result<(), TargetError> {
        if let Some(open) = &self.open {
            return Err(self.content(format!("{} is not complete", open.path)));
        }
        let seal = self.slot.seal();
        match self.metadata.clone() {
            Metadata::Database { downloaded_at } => {
                let upstream =
                    self.upstream.take().ok_or_else(|| self.content("it has no metadata.json".into()))?;
                let bytes =
                    metadata::downloaded(&upstream, downloaded_at).map_err(|what| self.content(what))?;
                self.write_file(seal, &bytes)?;
            }
            Metadata::Checks { manifest_digest, major, version, downloaded_at } => {
                let bytes = metadata::checks(&manifest_digest, major, version, downloaded_at);
                self.write_file(seal, &bytes.map_err(|what| self.content(what))?)?;
            }
            Metadata::Vex { manifest_json, updated_at } => {
                if !self.has_index {
                    return Err(self.content("it has no index.json".into()));
                }
                self.write_file("vex-repository.json", &manifest_json)?;
                let bytes = metadata::vex_cache(updated_at).map_err(|what| self.content(what))?;
                self.write_file(seal, &bytes)?;
            }
        }
        if !self.has_main {
            return Err(self.content(format!("it has no {}", self.slot.main())));
        }
        self.sync().at("sync the files", self.dir.path())
    }

    /// Syncs the two files of a database separately, and a tree with its hundreds of files by syncing the file system.
    fn sync(&self) -> io::Result<()> {
        if self.slot.is_database() {
            for file in &self.files {
                if let Some(file) = self.dir.open_file(file)? {
                    file.sync_all()?;
                }
            }
            self.dir.sync()?;
        } else {
            self.dir.sync_file_system()?;
        }
        self.place.dir.sync()
    }

    /// Passes the staged files to the switch: the slot, the working directory, the inode of the staged directory and the
    /// paths of all files.
    pub(crate) fn hand_over(mut self) -> Result<(Slot, WorkingPlace, u64, BTreeSet<String>), TargetError> {
        let inode = self.dir.entry().at("look it up", self.dir.path())?.inode;
        let dir = self.place.dir.try_clone().at("open", self.place.dir.path())?;
        let place = WorkingPlace { dir, inside: self.place.inside };
        if !self.slot.is_database() {
            let files = &mut self.files;
            let walked = self.dir.walk(|path, _, _, _| {
                files.insert(path.to_owned());
                Ok(())
            });
            walked.at("read", self.dir.path())?;
        }
        self.complete = true;
        Ok((self.slot.clone(), place, inode, std::mem::take(&mut self.files)))
    }

    fn begin_file(&mut self, path: &RelPath, size: u64) -> Result<(), TargetError> {
        if let Some(open) = &self.open {
            return Err(self.content(format!("{} is not complete", open.path)));
        }
        let path = self.place_of(path)?;
        let to = if self.slot.is_database() && path == self.slot.seal() {
            if size > MAX_METADATA || self.upstream.is_some() {
                return Err(self.content("its metadata.json is too large or occurs twice".into()));
            }
            To::Memory(Vec::new())
        } else {
            To::File(self.create(&path)?)
        };
        self.open = Some(Open { path, left: size, to });
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), TargetError> {
        let path = self.root.at(self.slot.path());
        let Some(open) = &mut self.open else {
            return Err(TargetError::Content { path, what: "data before the first file".into() });
        };
        open.left = open.left.checked_sub(bytes.len() as u64).ok_or_else(|| TargetError::Content {
            path,
            what: format!("{} is longer than announced", open.path),
        })?;
        match &mut open.to {
            To::Memory(held) => held.extend_from_slice(bytes),
            To::File(file) => {
                let target = self.dir.path().join(&open.path);
                step("write", OsStr::new(&open.path)).at("write", &target)?;
                file.write_all(bytes).at("write", &target)?;
            }
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), TargetError> {
        match self.open.take() {
            Some(Open { left: 0, to: To::Memory(held), .. }) => self.upstream = Some(held),
            Some(Open { left: 0, .. }) => {}
            Some(open) => {
                return Err(self.content(format!("{} is shorter than announced", open.path)));
            }
            None => return Err(self.content("a file ends before it begins".into())),
        }
        Ok(())
    }
}

/// Errors are [`TargetError`]s inside an `io::Error`. [`io::Error::into_inner`] and a downcast return them.
impl Sink for Stage {
    fn begin(&mut self, path: &RelPath, size: u64) -> io::Result<()> {
        self.begin_file(path, size).map_err(TargetError::into_io)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.take(bytes).map_err(TargetError::into_io)
    }

    fn end(&mut self) -> io::Result<()> {
        self.end_file().map_err(TargetError::into_io)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.complete {
            // If it cannot be removed now, the next import removes it.
            let _ = self.place.dir.remove(&self.names.stage);
            let _ = working::tidy(&self.root, &self.slot, &self.place);
        }
    }
}
