//! A disk that remembers what was made to last, and forgets the rest when the power is cut.
//!
//! A change of names is remembered as a whole: from the sync of one of the folders that it concerns, as file
//! systems with a journal do it, but no sooner. What is in a file is remembered from its sync.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::trace::Op;

/// A file or a folder, whatever its names are.
type Inode = usize;

#[derive(Clone, Default)]
struct Content {
    is_dir: bool,
    mode: u32,
    now: Vec<u8>,
    /// What is there after a power cut.
    lasting: Vec<u8>,
}

/// One change of names, which happens as a whole: in which folder a name stands for what from then on.
#[derive(Clone)]
struct Naming {
    changes: Vec<(Inode, String, Option<Inode>)>,
    lasts: bool,
}

/// What is on the disk, and how it came there.
#[derive(Clone)]
pub struct Disk {
    inodes: Vec<Content>,
    /// The names now.
    names: BTreeMap<(Inode, String), Inode>,
    /// The names at the beginning.
    before: BTreeMap<(Inode, String), Inode>,
    namings: Vec<Naming>,
}

/// What the power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All of it: a kill, or luck.
    Nothing,
    /// All names, and of the files what was synced.
    Data,
    /// What was synced.
    Everything,
}

const ROOT: Inode = 0;

/// Files by path from the top, with their modes. Folders have no bytes.
pub type Tree = BTreeMap<String, (u32, Option<Vec<u8>>)>;

impl Disk {
    /// A disk with what lies in a folder, all of which lasts.
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

    /// Does it, where it is about something below `top`. Says whether it changed anything.
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

    /// What is there when the power comes back.
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

/// Writes it into an empty folder. What names the folder `was` names this one.
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
