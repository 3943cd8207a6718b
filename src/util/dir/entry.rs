//! What the kernel reports of an entry of a directory and of its file system.

use std::fs::File;
use std::io;

use rustix::fs::{self, FileType};

/// Who owns what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The numeric user.
    pub uid: u32,
    /// The numeric group.
    pub gid: u32,
}

/// What a name stands for, without following it.
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

    /// Of an open file.
    pub fn of_file(file: &File) -> io::Result<Self> {
        Ok(DirEntry::of(fs::fstat(file)?))
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a directory that a group shares: one with the setgid bit that the group may write, as volumes
    /// have that are used by changing users. Says nothing of who is in the group.
    pub fn is_shared(&self) -> bool {
        const SETGID_AND_GROUP_WRITE: u32 = 0o2020;
        self.is_dir() && self.mode & SETGID_AND_GROUP_WRITE == SETGID_AND_GROUP_WRITE
    }

    /// Returns the bits that a new file in this directory gets.
    pub fn file_mode(&self, mode: FileMode) -> u32 {
        match mode {
            FileMode::Shared(mode) if self.is_shared() => mode | (mode & 0o700) >> 3,
            mode => mode.bits(),
        }
    }

    /// Returns the bits that a new directory in this one gets: what is shared stays so below.
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

/// What a file system has left for this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Free bytes.
    pub bytes: u64,
    /// Free inodes; `None` where the file system has no such limit.
    pub inodes: Option<u64>,
    /// Bytes of the smallest unit that a file takes.
    pub block: u64,
}

/// Which mount a directory stands on: two directories with equal values can exchange their entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mount {
    pub(super) device: (u32, u32),
    pub(super) id: Option<u64>,
    pub(super) root: Option<bool>,
}

/// The mode of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileMode {
    /// This, whatever the umask is: for files that must be readable or must not.
    Exactly(u32),
    /// This without what the umask takes: for files that an operator hands to others, and decides who may read them.
    AtMost(u32),
    /// This and, in a directory that a group shares, for the group what its owner may: such a volume is used by one
    /// user after the other, and each must be able to replace what the one before has written.
    Shared(u32),
}

impl FileMode {
    /// Returns the bits that are asked for.
    pub(crate) fn bits(self) -> u32 {
        match self {
            FileMode::Exactly(mode) | FileMode::AtMost(mode) | FileMode::Shared(mode) => mode,
        }
    }

    /// Returns the mode of working files, which are shared but for root: what root does must not follow from what
    /// the members of a group have written.
    pub(crate) fn working(mode: u32) -> Self {
        if rustix::process::geteuid().is_root() { FileMode::Exactly(mode) } else { FileMode::Shared(mode) }
    }
}

impl From<u32> for FileMode {
    fn from(mode: u32) -> Self {
        FileMode::Exactly(mode)
    }
}
