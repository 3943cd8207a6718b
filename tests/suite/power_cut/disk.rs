//! A simulated disk that keeps only synced changes after a power cut.
//!
//! A change of names is durable as a whole after one of its directories is synced, as on file
//! systems with a journal, but not earlier. The content of a file is durable after the file is
//! synced.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::trace::Op;

/// The number of a file or a directory, which does not depend on its names.
type Inode = usize;

#[derive(Clone, Default)]
struct Content {
    is_dir: bool,
    mode: u32,
    now: Vec<u8>,
    /// The content after a power cut.
    lasting: Vec<u8>,
}

/// A change of names, which happens as a whole: the directory, the name, and the new file.
#[derive(Clone)]
struct Naming {
    changes: Vec<(Inode, String, Option<Inode>)>,
    lasts: bool,
}

/// The content of the disk, and the history of its names.
#[derive(Clone)]
pub struct Disk {
    inodes: Vec<Content>,
    /// The names now.
    names: BTreeMap<(Inode, String), Inode>,
    /// The names at the beginning.
    before: BTreeMap<(Inode, String), Inode>,
    namings: Vec<Naming>,
}

/// The unsynced changes that a power cut destroys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// No changes, as after a kill.
    Nothing,
    /// The unsynced content of files, but no names.
    Data,
    /// All unsynced changes.
    Everything,
}

const ROOT: Inode = 0;

/// Files by path from the top, with their modes. Directories have no bytes.
pub type Tree = BTreeMap<String, (u32, Option<Vec<u8>>)>;

impl Disk {
    /// Returns a disk with the synced content of a directory.
    pub fn of(top: &Path) -> Self {
        let root = Content { is_dir: true, mode: 0o755, ..Content::default() };
        let mut disk =
            Disk { inodes: vec![root], names: BTreeMap::new(), before: BTreeMap::new(), namings: Vec::new() };
        disk.take(top, ROOT);
        disk.before = disk.names.clone();
        disk
    }

    fn take(&mut self, directory: &Path, of: Inode) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let bytes = if metadata.is_dir() { Vec::new() } else { fs::read(entry.path()).unwrap() };
            let inode = self.inodes.len();
            self.inodes.push(Content {
                is_dir: metadata.is_dir(),
                mode: metadata.permissions().mode() & 0o7777,
                now: bytes.clone(),
                lasting: bytes,
            });
            self.names.insert((of, entry.file_name().into_string().unwrap()), inode);
            if metadata.is_dir() {
                self.take(&entry.path(), inode);
            }
        }
    }

    /// Applies a change if it is below `top`. Returns whether it changed anything.
    pub fn apply(&mut self, op: &Op, top: &Path) -> bool {
        let inside = |path: &Path| path.strip_prefix(top).ok().map(|path| path.to_str().unwrap().to_owned());
        match op {
            Op::Create(path, mode) | Op::Mkdir(path, mode) => {
                let Some(path) = inside(path) else { return false };
                if self.find(&path).is_some() {
                    return false;
                }
                let is_dir = matches!(op, Op::Mkdir(..));
                let inode = self.inodes.len();
                self.inodes.push(Content { is_dir, mode: mode & !0o022, ..Content::default() });
                self.name(vec![self.place(&path, Some(inode))]);
            }
            Op::Truncate(path) => {
                let Some(inode) = inside(path).and_then(|path| self.find(&path)) else { return false };
                self.inodes[inode].now.clear();
            }
            Op::Append(path, bytes) => {
                let Some(inode) = inside(path).and_then(|path| self.find(&path)) else { return false };
                self.inodes[inode].now.extend(bytes);
            }
            Op::Overwrite(path, offset, bytes) => {
                let Some(inode) = inside(path).and_then(|path| self.find(&path)) else { return false };
                let now = &mut self.inodes[inode].now;
                now.resize(now.len().max(offset + bytes.len()), 0);
                now[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Op::Chmod(path, mode) => {
                let Some(inode) = inside(path).and_then(|path| self.find(&path)) else { return false };
                self.inodes[inode].mode = *mode;
            }
            Op::Rename(from, to) => {
                let Some((from, to)) = inside(from).zip(inside(to)) else { return false };
                let inode = self.find(&from).unwrap();
                self.name(vec![self.place(&from, None), self.place(&to, Some(inode))]);
            }
            Op::Exchange(one, other) => {
                let Some((one, other)) = inside(one).zip(inside(other)) else { return false };
                let (first, second) = (self.find(&one), self.find(&other));
                self.name(vec![self.place(&one, second), self.place(&other, first)]);
            }
            Op::Link(from, to) => {
                let Some((from, to)) = inside(from).zip(inside(to)) else { return false };
                self.name(vec![self.place(&to, self.find(&from))]);
            }
            Op::Remove(path) => {
                let Some(path) = inside(path) else { return false };
                self.name(vec![self.place(&path, None)]);
            }
            Op::Sync(path) => {
                let Some(inode) = inside(path).and_then(|path| self.find(&path)) else { return false };
                self.sync(inode);
            }
            Op::SyncAll => (0..self.inodes.len()).for_each(|inode| self.sync(inode)),
        }
        true
    }

    fn sync(&mut self, inode: Inode) {
        let content = &mut self.inodes[inode];
        content.lasting.clone_from(&content.now);
        for naming in &mut self.namings {
            naming.lasts |= naming.changes.iter().any(|(directory, ..)| *directory == inode);
        }
    }

    fn name(&mut self, changes: Vec<(Inode, String, Option<Inode>)>) {
        change(&mut self.names, &changes);
        self.namings.push(Naming { changes, lasts: false });
    }

    fn place(&self, path: &str, inode: Option<Inode>) -> (Inode, String, Option<Inode>) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(directory).unwrap_or_else(|| panic!("there is no {directory:?}")), name.to_owned(), inode)
    }

    fn find(&self, path: &str) -> Option<Inode> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts
            .into_iter()
            .try_fold(ROOT, |directory, part| self.names.get(&(directory, part.to_owned())).copied())
    }

    /// Returns the files after a power cut.
    pub fn after(&self, cut: Cut) -> Tree {
        let mut names = self.before.clone();
        for naming in self.namings.iter().filter(|naming| naming.lasts || cut != Cut::Everything) {
            change(&mut names, &naming.changes);
        }
        let mut tree = Tree::new();
        self.list(&names, ROOT, "", cut, &mut tree);
        tree
    }

    fn list(
        &self,
        names: &BTreeMap<(Inode, String), Inode>,
        directory: Inode,
        path: &str,
        cut: Cut,
        tree: &mut Tree,
    ) {
        for ((_, name), inode) in names.range((directory, String::new())..(directory + 1, String::new())) {
            let content = &self.inodes[*inode];
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            let bytes = if cut == Cut::Nothing { &content.now } else { &content.lasting };
            tree.insert(path.clone(), (content.mode, (!content.is_dir).then(|| bytes.clone())));
            self.list(names, *inode, &path, cut, tree);
        }
    }
}

fn change(names: &mut BTreeMap<(Inode, String), Inode>, changes: &[(Inode, String, Option<Inode>)]) {
    for (directory, name, inode) in changes {
        match inode {
            Some(inode) => names.insert((*directory, name.clone()), *inode),
            None => names.remove(&(*directory, name.clone())),
        };
    }
}

/// Writes the files into an empty directory, and replaces the path `was` with this directory in
/// their content.
pub fn lay_out(tree: &Tree, top: &Path, was: &Path) {
    let (was, is) = (was.to_str().unwrap().as_bytes(), top.to_str().unwrap().as_bytes());
    for (path, (mode, bytes)) in tree {
        let path = top.join(path);
        match bytes {
            None => fs::DirBuilder::new().mode(*mode).create(path).unwrap(),
            Some(bytes) => {
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(*mode).open(path).unwrap();
                std::io::Write::write_all(&mut file, &replaced(bytes, was, is)).unwrap();
            }
        }
    }
}

fn replaced(bytes: &[u8], was: &[u8], is: &[u8]) -> Vec<u8> {
    assert_eq!(was.len(), is.len());
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(was.len()).position(|window| window == was) {
        bytes[at + found..at + found + was.len()].copy_from_slice(is);
        at += found + was.len();
    }
    bytes
}
