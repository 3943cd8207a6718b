//! The metadata of an entry of a directory and of its file system.

use std::fs::File;
use std::io;

use rustix::fs::{self, FileType};

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The numeric user ID.
    pub uid: u32,
    /// The numeric group ID.
    pub gid: u32,
}

/// The metadata of an entry. Links are not followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirEntry {
    pub kind: FileType,
    pub size: u64,
    pub inode: u64,
    pub owner: Owner,
    pub mode: u32,
}

impl DirEntry {
    pub(super) fn of(stat: fs::Stat) -> Self {
        DirEntry {
            kind: FileType::from_raw_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            inode: stat.st_ino,
            owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
            mode: stat.st_mode & 0o7777,
        }
    }

    /// Returns the metadata of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(DirEntry::of(fs::fstat(file)?))
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a directory that a group shares, such as a Kubernetes volume: it has the setgid bit and is
    /// writable by the group. The members of the group are not considered.
    pub fn is_shared(&self) -> bool {
        const SETGID_AND_GROUP_WRITE: u32 = 0o2020;
        self.is_dir() && self.mode & SETGID_AND_GROUP_WRITE == SETGID_AND_GROUP_WRITE
    }

    /// Returns the mode bits of a new file in this directory.
    pub fn file_mode(&self, mode: FileMode) -> u32 {
        match mode {
            FileMode::Shared(mode) if self.is_shared() => mode | (mode & 0o700) >> 3,
            mode => mode.bits(),
        }
    }

    /// Returns the mode bits of a new directory in this one. A directory in a shared directory is shared as well.
    pub fn directory_mode(&self, mode: FileMode) -> u32 {
        let setgid = if matches!(mode, FileMode::Shared(_)) && self.is_shared() { 0o2000 } else { 0 };
        self.file_mode(mode) | setgid
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub fn is_symlink(&self) -> bool {
        self.kind == FileType::Symlink
    }
}

/// The free space of a file system for this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Free bytes.
    pub bytes: u64,
    /// Free inodes; `None` if the file system has no such limit.
    pub inodes: Option<u64>,
    /// The size of a block in bytes.
    pub block: u64,
}

/// The mount of a directory. Two directories with equal values can exchange their entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mount {
    pub(super) device: (u32, u32),
    pub(super) id: Option<u64>,
    pub(super) root: Option<bool>,
}

/// The mode of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileMode {
    /// This mode, whatever the umask is. For files that others must be able to read, or must not be able to read.
    Exactly(u32),
    /// This mode, reduced by the umask. For files that an operator passes on: the operator decides who may read them.
    AtMost(u32),
    /// This mode. In a directory that a group shares, the group gets the permissions of the owner as well, because
    /// several users write to such a directory in turn and must be able to replace each other's files.
    Shared(u32),
}

impl FileMode {
    /// Returns the requested mode bits.
    pub(crate) fn bits(self) -> u32 {
        match self {
            FileMode::Exactly(mode) | FileMode::AtMost(mode) | FileMode::Shared(mode) => mode,
        }
    }

    /// Returns the mode of working files. They are shared, except for root: root must not depend on files that the
    /// members of a group can write.
    pub(crate) fn working(mode: u32) -> Self {
        if rustix::process::geteuid().is_root() { FileMode::Exactly(mode) } else { FileMode::Shared(mode) }
    }
}

impl From<u32> for FileMode {
    fn from(mode: u32) -> Self {
        FileMode::Exactly(mode)
    }
}
