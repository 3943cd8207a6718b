//! Directories that are used through file descriptors only.
//!
//! Everything below a top directory is opened component by component, never through a symbolic link and
//! never upwards, because an import may run as root in a directory that another user owns. A name is one
//! component of a path; anything else that a caller passes is an error. This module is not specific to Trivy.

mod entry;
pub(crate) mod lock;
pub(crate) mod write;

pub use entry::Owner;
pub(crate) use entry::{DirEntry, FileMode, Mount, Room};

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::util::step;

/// The most directories that are open at once, and so the depth of a tree that can be walked. Paths in archives
/// have a lower limit.
const MAX_DEPTH: u32 = 300;

/// An open directory. The path is only for messages.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// Returns the effective user ID.
pub(crate) fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a user is root or the user of this process.
fn is_root_or_self(uid: u32) -> bool {
    [0, euid()].contains(&uid)
}

/// Whether an error says that the file system does not support the call.
pub(crate) fn unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOTTY))
}

/// Whether an error says that a directory cannot be moved: it is a mount point, or belongs to the lower layer of
/// an overlay.
pub(crate) fn immovable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::XDEV | Errno::BUSY))
}

/// Turns "no such file" into `Ok(None)`.
fn maybe<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Checks that a name is one component of a path, so that no call can leave its directory.
pub(super) fn component(name: &OsStr) -> io::Result<&OsStr> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(not_a_name()),
        bytes if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) => Err(not_a_name()),
        _ => Ok(name),
    }
}

// The error has no system error number: `EINVAL` would mean that the file system does not support the call.
fn not_a_name() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file")
}

/// Opens one name in a directory. Kernels since 5.6 enforce that this neither leaves the directory nor
/// follows a link. Older kernels and sandboxes that forbid `openat2` get `NOFOLLOW`; the caller has checked the
/// name.
pub(super) fn open_at(dir: &OwnedFd, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match fs::openat2(dir, name, flags, mode, beneath) {
        Err(Errno::NOSYS | Errno::PERM) => fs::openat(dir, name, flags, mode),
        other => other,
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// The flags for a directory that is only passed through and need not be readable.
const THROUGH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// A callback that gets each directory before an entry of it is used.
pub(crate) type Visit<'v> = dyn FnMut(&Dir) -> io::Result<()> + 'v;

/// The owner and the mode of missing directories that are created.
#[derive(Clone, Copy)]
pub(crate) struct Make<'m> {
    pub owner: Option<Owner>,
    /// Returns the mode of a new directory in this one.
    pub mode: &'m dyn Fn(&DirEntry) -> u32,
}

/// The place where a walk along a path ended.
enum End {
    /// The directory that the path names.
    Dir(Dir),
    /// The directory that holds the last component, and that component, which is not a link.
    In(Dir, OsString),
}

/// A walk along a path, one component after the other.
struct Walk<'w, 'v> {
    make: Option<Make<'w>>,
    /// Ends in the directory that holds the last component.
    to_parent: bool,
    visit: &'w mut Visit<'v>,
}

impl Walk<'_, '_> {
    fn root() -> io::Result<Dir> {
        let flags = DIRECTORY | OFlags::CLOEXEC;
        Ok(Dir { fd: fs::open("/", flags, Mode::empty())?, path: "/".into() })
    }

    fn go(&mut self, path: &Path) -> io::Result<End> {
        /// The number of links that Linux follows (path_resolution(7)).
        const MAX_LINKS: usize = 40;
        let mut dir = Walk::root()?;
        let mut links = 0;
        let mut left = parts(&std::path::absolute(path)?);
        left.reverse();
        while let Some(name) = left.pop() {
            if name == "/" {
                dir = Walk::root()?;
                continue;
            }
            (self.visit)(&dir)?;
            if name == ".." {
                dir = dir.above(left.is_empty())?;
                continue;
            }
            match dir.find(&name)? {
                Some(entry) if entry.is_symlink() => {
                    links += 1;
                    let is_ours = dir.keeps_names()? && is_root_or_self(entry.owner.uid);
                    if links > MAX_LINKS || !is_ours || dir.is_magic(&name)? {
                        return Err(Errno::LOOP.into());
                    }
                    let target = fs::readlinkat(&dir.fd, &name, Vec::new())?;
                    let mut target = parts(Path::new(OsStr::from_bytes(target.to_bytes())));
                    target.reverse();
                    left.extend(target);
                }
                _ if self.to_parent && left.is_empty() => return Ok(End::In(dir, name)),
                Some(_) if left.is_empty() => dir = dir.open(&name)?,
                Some(_) => dir = dir.pass(&name)?,
                None => dir = self.make(&dir, &name, left.is_empty())?,
            }
        }
        match self.to_parent {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(End::Dir(dir)),
        }
    }

    fn make(&self, dir: &Dir, name: &OsStr, last: bool) -> io::Result<Dir> {
        let Some(Make { owner, mode }) = self.make else { return Err(Errno::NOENT.into()) };
        // A new directory gets the owner if it is the last one of the path, or if its parent already belongs to the
        // owner. Other directories belong to this user.
        let parent = dir.entry()?;
        let mode = mode(&parent);
        match owner.filter(|owner| last || owner.uid == parent.owner.uid) {
            Some(owner) => dir.open_or_make(name, mode, Some(owner)),
            None => dir.open_or_make_plain(name, mode),
        }
    }
}

/// Returns the components of a path without `.`.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().map(|part| part.as_os_str()).filter(|part| *part != ".").map(OsString::from).collect()
}

impl Dir {
    /// Opens a top directory by path, one component after the other. A symbolic link on the way is
    /// followed only if it and its directory belong to root or to this user: another user could
    /// change the target of their own link, or rename links in their own directory. The path of the
    /// result has no links.
    pub fn top(path: &Path) -> io::Result<Dir> {
        Dir::top_seen(path, None, &mut |_| Ok(()))
    }

    /// Opens a top directory as [`Dir::top`] does, and creates missing directories for this owner.
    pub fn top_or_make(path: &Path, owner: Option<Owner>) -> io::Result<Dir> {
        let mode = |parent: &DirEntry| parent.directory_mode(FileMode::Shared(0o755));
        Dir::top_seen(path, Some(Make { owner, mode: &mode }), &mut |_| Ok(()))
    }

    /// Opens a top directory as [`Dir::top`] does, or with `make` as [`Dir::top_or_make`] does. Calls `visit`
    /// for each directory on the way, but not for the one that is opened.
    pub fn top_seen(path: &Path, make: Option<Make<'_>>, visit: &mut Visit<'_>) -> io::Result<Dir> {
        match (Walk { make, to_parent: false, visit }).go(path)? {
            End::Dir(dir) | End::In(dir, _) => Ok(dir),
        }
    }

    /// Opens a directory through any link, for callers that trust the path.
    pub fn by_path(path: &Path) -> io::Result<Dir> {
        let flags = DIRECTORY | OFlags::CLOEXEC;
        Ok(Dir { fd: fs::open(path, flags, Mode::empty())?, path: path.into() })
    }

    /// Resolves all links of a path, including the last. Returns the directory that it leads to and the final name,
    /// which need not exist. Calls `visit` for each directory.
    ///
    /// # Errors
    /// If a directory on the way cannot be opened, a link on the way must not be followed (see
    /// [`Dir::top`]), `visit` fails, or the path ends in `..` or names the root.
    pub fn holding(path: &Path, visit: &mut Visit<'_>) -> io::Result<(Dir, OsString)> {
        match (Walk { make: None, to_parent: true, visit }).go(path)? {
            End::In(dir, name) => Ok((dir, name)),
            End::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Whether only root and this user can rename entries of this directory. Another user could give one link the
    /// name of another.
    fn keeps_names(&self) -> io::Result<bool> {
        const STICKY: u32 = 0o1000;
        let entry = self.entry()?;
        // As in `util::trusted`, a group with this user's number, or root's, counts as that user.
        let others = if is_root_or_self(entry.owner.gid) { 0o002 } else { 0o022 };
        Ok(is_root_or_self(entry.owner.uid) && (entry.mode & others == 0 || entry.mode & STICKY != 0))
    }

    /// Whether a link in this directory leads elsewhere than its text says, as `/proc/N/root` and
    /// `/proc/N/cwd` do.
    fn is_magic(&self, link: &OsStr) -> io::Result<bool> {
        let is_proc = fs::fstatfs(&self.fd)?.f_type == fs::PROC_SUPER_MAGIC;
        Ok(is_proc && !matches!(link.as_bytes(), b"self" | b"thread-self"))
    }

    /// Opens the parent directory. A directory on the way (not `last`) need not be readable.
    fn above(&self, last: bool) -> io::Result<Dir> {
        let path = self.path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let flags = if last { DIRECTORY } else { THROUGH } | OFlags::CLOEXEC;
        Ok(Dir { fd: fs::openat(&self.fd, "..", flags, Mode::empty())?, path })
    }

    fn pass(&self, name: &OsStr) -> io::Result<Dir> {
        let fd = open_at(&self.fd, component(name)?, THROUGH, Mode::empty())?;
        Ok(Dir { fd, path: self.at(name) })
    }

    /// Returns a path that leads to exactly this directory while it is open, for code that takes paths.
    pub fn pinned(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    pub fn try_clone(&self) -> io::Result<Dir> {
        Ok(Dir { fd: self.fd.try_clone()?, path: self.path.clone() })
    }

    /// Opens a directory in this one. A link is an error.
    pub fn open(&self, name: impl AsRef<OsStr>) -> io::Result<Dir> {
        let name = component(name.as_ref())?;
        Ok(Dir { fd: open_at(&self.fd, name, DIRECTORY, Mode::empty())?, path: self.at(name) })
    }

    /// Opens the directory at a relative path. Returns `None` if a directory on the way is missing. The empty path
    /// is this directory.
    pub fn open_path(&self, path: &str) -> io::Result<Option<Dir>> {
        let mut dir = self.try_clone()?;
        for name in path.split('/').filter(|_| !path.is_empty()) {
            match dir.open(name) {
                Ok(inner) => dir = inner,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(dir))
    }

    pub fn find(&self, name: impl AsRef<OsStr>) -> io::Result<Option<DirEntry>> {
        let stat = maybe(fs::statat(&self.fd, component(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(stat.map(DirEntry::of))
    }

    pub fn entry(&self) -> io::Result<DirEntry> {
        Ok(DirEntry::of(fs::fstat(&self.fd)?))
    }

    /// Returns the device and inode numbers, which no other directory has.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = fs::fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Returns the names in this directory, sorted by bytes.
    pub fn list(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Creates a directory in this one and opens it. A file system that does not support modes or owners ignores
    /// them.
    pub fn make(
        &self,
        name: impl AsRef<OsStr>,
        mode: impl Into<FileMode>,
        owner: Option<Owner>,
    ) -> io::Result<Dir> {
        let name = component(name.as_ref())?;
        let mode = self.entry()?.directory_mode(mode.into());
        step("mkdir", name)?;
        fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))?;
        let dir = self.open(name)?;
        // Another user who may write here could have replaced the new directory. If it has another
        // owner and `chown` works, then it is not the new one. File systems that do not support
        // owners, such as FAT and network shares, show one owner for all files.
        let foreign = dir.entry()?.owner.uid != euid()
            && fs::fchown(&dir.fd, Some(fs::Uid::from_raw(euid())), None).is_ok()
            && dir.entry()?.owner.uid == euid();
        if foreign || !dir.list()?.is_empty() {
            return Err(io::Error::other("another directory was put in the place of a new one"));
        }
        give(&dir.fd, mode, owner)?;
        Ok(dir)
    }

    /// Opens a directory in this one, and creates it if it is missing.
    pub fn open_or_make(
        &self,
        name: impl AsRef<OsStr>,
        mode: impl Into<FileMode>,
        owner: Option<Owner>,
    ) -> io::Result<Dir> {
        let name = name.as_ref();
        match self.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.make(name, mode, owner) {
                // Another run created it first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.open(name),
                other => other,
            },
            other => other,
        }
    }

    /// Opens or creates a directory that several runs may create and fill at the same time. It gets no owner, so
    /// that it does not matter which run created it.
    fn open_or_make_plain(&self, name: &OsStr, mode: u32) -> io::Result<Dir> {
        let name = component(name)?;
        step("mkdir", name)?;
        match fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode & 0o777)) {
            Err(Errno::EXIST) => self.open(name),
            Err(error) => Err(error.into()),
            Ok(()) => {
                let dir = self.open(name)?;
                // The umask may have removed the permissions of the group.
                if mode & 0o2000 != 0 && dir.entry()?.owner.uid == euid() {
                    give(&dir.fd, mode, None)?;
                }
                Ok(dir)
            }
        }
    }

    /// Opens or creates every directory of a relative path. The empty path is this directory.
    pub fn open_or_make_path(&self, path: &str, owner: Option<Owner>) -> io::Result<Dir> {
        let mut dir = self.try_clone()?;
        for name in path.split('/').filter(|_| !path.is_empty()) {
            dir = dir.open_or_make(name, FileMode::Shared(0o755), owner)?;
        }
        Ok(dir)
    }

    /// Gives the group of the parent directory access to this one as well, if the parent is shared and this user
    /// owns this directory. It is no error if the file system does not support this.
    ///
    /// # Errors
    /// If the mode or the group cannot be changed for another reason.
    pub fn share_as(&self, parent: &DirEntry) -> io::Result<()> {
        let entry = self.entry()?;
        let mode = parent.directory_mode(FileMode::Shared(entry.mode & 0o777));
        let is_as_wanted = entry.mode == mode && entry.owner.gid == parent.owner.gid;
        if !parent.is_shared() || entry.owner.uid != euid() || is_as_wanted {
            return Ok(());
        }
        give(&self.fd, mode, Some(Owner { uid: euid(), gid: parent.owner.gid }))
    }

    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// If the name exists (`AlreadyExists`), or the file cannot be created.
    pub fn create(
        &self,
        name: impl AsRef<OsStr>,
        mode: impl Into<FileMode>,
        owner: Option<Owner>,
    ) -> io::Result<File> {
        let (name, mode) = (component(name.as_ref())?, mode.into());
        step("create", name)?;
        let bits = if let FileMode::Shared(_) = mode { self.entry()?.file_mode(mode) } else { mode.bits() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = open_at(&self.fd, name, flags, Mode::from_raw_mode(bits))?;
        if !matches!(mode, FileMode::AtMost(_)) {
            give(&fd, bits, owner)?;
        }
        Ok(File::from(fd))
    }

    /// Opens a regular file for reading. Returns `None` if it is missing, and an error if it is not a regular file.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<Option<File>> {
        let name = component(name.as_ref())?;
        let Some(fd) = maybe(open_at(&self.fd, name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()))?
        else {
            return Ok(None);
        };
        regular(fd).map(Some)
    }

    /// Opens a regular file to read it and to append to it, and creates it if it is missing. Also returns whether it
    /// was created. Returns an error if it is not a regular file.
    pub fn append(&self, name: impl AsRef<OsStr>, mode: impl Into<FileMode>) -> io::Result<(File, bool)> {
        let name = component(name.as_ref())?;
        let mode = self.entry()?.file_mode(mode.into());
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK;
        loop {
            match open_at(&self.fd, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                other => return Ok((regular(other?)?, false)),
            }
            step("create", name)?;
            let create = flags | OFlags::CREATE | OFlags::EXCL;
            match open_at(&self.fd, name, create, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => {}
                other => {
                    let fd = other?;
                    give(&fd, mode, None)?;
                    return Ok((File::from(fd), true));
                }
            }
        }
    }

    /// Reads a regular file of at most `most` bytes. Returns `None` if it is missing.
    ///
    /// # Errors
    /// If it is larger (`FileTooLarge`), is not a regular file, or cannot be read.
    pub fn read_small(&self, name: impl AsRef<OsStr>, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    pub fn rename(&self, name: impl AsRef<OsStr>, to: &Dir, as_name: impl AsRef<OsStr>) -> io::Result<()> {
        let (name, as_name) = (component(name.as_ref())?, component(as_name.as_ref())?);
        step("rename", as_name)?;
        Ok(fs::renameat(&self.fd, name, &to.fd, as_name)?)
    }

    /// Renames an entry as [`Dir::rename`] does, but never over an existing entry.
    ///
    /// # Errors
    /// If the new name exists (`AlreadyExists`), or the entry cannot be renamed.
    pub fn rename_new(
        &self,
        name: impl AsRef<OsStr>,
        to: &Dir,
        as_name: impl AsRef<OsStr>,
    ) -> io::Result<()> {
        let (name, as_name) = (component(name.as_ref())?, component(as_name.as_ref())?);
        rename_new(&self.fd, Path::new(name), &to.fd, Path::new(as_name))
    }

    /// Exchanges two entries in one step.
    pub fn exchange(&self, name: impl AsRef<OsStr>, with: &Dir, other: impl AsRef<OsStr>) -> io::Result<()> {
        let (name, other) = (component(name.as_ref())?, component(other.as_ref())?);
        step("exchange", name)?;
        #[cfg(test)]
        crate::util::fault::exchange()?;
        Ok(fs::renameat_with(&self.fd, name, &with.fd, other, RenameFlags::EXCHANGE)?)
    }

    pub fn link(&self, name: impl AsRef<OsStr>, to: &Dir, as_name: impl AsRef<OsStr>) -> io::Result<()> {
        let (name, as_name) = (component(name.as_ref())?, component(as_name.as_ref())?);
        step("link", as_name)?;
        Ok(fs::linkat(&self.fd, name, &to.fd, as_name, AtFlags::empty())?)
    }

    /// Removes a directory if it exists and is empty. Returns whether it no longer exists.
    pub fn remove_empty(&self, name: impl AsRef<OsStr>) -> io::Result<bool> {
        let name = component(name.as_ref())?;
        step("rmdir", name)?;
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, a link or a directory tree of any depth. It is no error if the name does not exist. A link
    /// is not followed.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = name.as_ref();
        if !self.unlink(name)? {
            return Ok(());
        }
        let top = self.open(name)?;
        let (mut lifted, mut before) = (0, None);
        // Each round removes the directories that the previous round moved up, until there are none.
        while before != Some(lifted) {
            before = Some(lifted);
            for inner in top.list()? {
                top.remove_below(&inner, 1, &top, &mut lifted)?;
            }
        }
        step("rmdir", name)?;
        Ok(fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes an entry that is not a directory. Returns whether a directory has the name.
    fn unlink(&self, name: &OsStr) -> io::Result<bool> {
        let Some(entry) = self.find(name)? else { return Ok(false) };
        if !entry.is_dir() {
            step("unlink", name)?;
            fs::unlinkat(&self.fd, name, AtFlags::empty())?;
        }
        Ok(entry.is_dir())
    }

    /// Removes one entry. A directory that is too deep is moved into `top`, for the next round.
    fn remove_below(&self, name: &OsStr, depth: u32, top: &Dir, lifted: &mut u64) -> io::Result<()> {
        if !self.unlink(name)? {
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            let free = loop {
                *lifted += 1;
                let free = format!(".trivy-ferry-lifted-{lifted}");
                if top.find(&free)?.is_none() {
                    break free;
                }
            };
            return self.rename(name, top, free);
        }
        let dir = self.open(name)?;
        for inner in dir.list()? {
            dir.remove_below(&inner, depth + 1, top, lifted)?;
        }
        step("rmdir", name)?;
        Ok(fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?)
    }

    /// Calls `each` for every entry below this directory that is not a directory, with its relative path. Names that
    /// are not UTF-8 have replacement characters.
    pub fn walk(
        &self,
        mut each: impl FnMut(&str, &Dir, &OsStr, &DirEntry) -> io::Result<()>,
    ) -> io::Result<()> {
        self.walk_below("", 0, &mut each)
    }

    fn walk_below(
        &self,
        prefix: &str,
        depth: u32,
        each: &mut impl FnMut(&str, &Dir, &OsStr, &DirEntry) -> io::Result<()>,
    ) -> io::Result<()> {
        if depth >= MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nested too deeply"));
        }
        for name in self.list()? {
            let Some(entry) = self.find(&name)? else { continue };
            let path = format!("{prefix}{}", name.to_string_lossy());
            if entry.is_dir() {
                self.open(&name)?.walk_below(&format!("{path}/"), depth + 1, each)?;
            } else {
                each(&path, self, &name, &entry)?;
            }
        }
        Ok(())
    }

    /// Makes renames in this directory durable. It is no error if the file system does not support this.
    pub fn sync(&self) -> io::Result<()> {
        match fs::fsync(&self.fd) {
            Err(error) if !unsupported(&error.into()) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Makes everything on this directory's file system durable.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.fd)?)
    }

    pub fn mount(&self) -> io::Result<Mount> {
        mount(&self.fd, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    pub fn mount_of(&self, name: impl AsRef<OsStr>) -> io::Result<Mount> {
        mount(&self.fd, component(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub fn room(&self) -> io::Result<Room> {
        let stat = fs::fstatvfs(&self.fd)?;
        let blocks = if euid() == 0 { stat.f_bfree } else { stat.f_bavail };
        Ok(Room {
            bytes: blocks.saturating_mul(stat.f_frsize),
            inodes: (stat.f_files > 0).then_some(stat.f_ffree),
            block: stat.f_bsize.clamp(512, 1 << 20),
        })
    }
}

/// Returns a descriptor as a file, if it is a regular one.
pub(super) fn regular(fd: OwnedFd) -> io::Result<File> {
    match DirEntry::of(fs::fstat(&fd)?).is_file() {
        true => Ok(File::from(fd)),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Renames, but never over an existing entry. On a file system without `RENAME_NOREPLACE` (FAT), this first checks
/// that the new name is free.
///
/// # Errors
/// If the new name exists (`AlreadyExists`), or the entry cannot be renamed.
pub(crate) fn rename_new(from_dir: impl AsFd, from: &Path, to_dir: impl AsFd, to: &Path) -> io::Result<()> {
    step("rename", to.file_name().unwrap_or(to.as_os_str()))?;
    match fs::renameat_with(&from_dir, from, &to_dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if fs::statat(&to_dir, to, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(fs::renameat(&from_dir, from, &to_dir, to)?)
        }
        other => Ok(other?),
    }
}

/// Sets mode and owner. It is no error if the file system does not support them. FAT fails with `EPERM` even for root.
pub(super) fn give(fd: impl AsFd, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    if let Some(owner) = owner {
        let (uid, gid) = (fs::Uid::from_raw(owner.uid), fs::Gid::from_raw(owner.gid));
        tolerate(fs::fchown(&fd, Some(uid), Some(gid)))?;
    }
    tolerate(fs::fchmod(&fd, Mode::from_raw_mode(mode)))
}

fn tolerate(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(error) if error != Errno::PERM && !unsupported(&error.into()) => Err(error.into()),
        _ => Ok(()),
    }
}

fn mount(fd: &OwnedFd, name: &OsStr, flags: AtFlags) -> io::Result<Mount> {
    let stat = fs::statx(fd, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    let id = (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id);
    // Kernels before 5.8 report no mount number, but they report whether this is the root of a mount.
    let root = (id.is_none() && stat.stx_attributes_mask.contains(fs::StatxAttributes::MOUNT_ROOT))
        .then(|| stat.stx_attributes.contains(fs::StatxAttributes::MOUNT_ROOT));
    Ok(Mount { device: (stat.stx_dev_major, stat.stx_dev_minor), id, root })
}

/// Returns the owner of a directory for the files that root creates in it, and `None` for other users.
pub(crate) fn parent_owner(dir: &Dir) -> io::Result<Option<Owner>> {
    if euid() == 0 { Ok(Some(dir.entry()?.owner)) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
