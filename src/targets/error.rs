//! The errors of targets. [`TargetError::io`] sorts the errors of the system by kind.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::remote::{RemoteError, Unreachable};
use crate::util::text;

/// Why a target could not take, show or give back a dataset. Paths are as the caller gave them,
/// with what was found below them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A registry wants an upload at an address that is not its own, and that cannot be reached.
    #[error("{host} wants the upload at {address}, which cannot be reached: {why}")]
    UploadAddress {
        /// The registry.
        host: String,
        /// The address that it named.
        address: String,
        /// In which way it cannot be reached.
        why: Unreachable,
    },
    /// A tag that names something else than what was pushed under it.
    #[error("{reference} should be {wanted} after the push, and is {}", found.map_or_else(|| "not there".into(), |found| found.to_string()))]
    ReadBack {
        /// What was pushed to.
        reference: String,
        /// The digest of the manifest that was pushed.
        wanted: Digest,
        /// The digest of the manifest that came back.
        found: Option<Digest>,
    },
    /// A registry has something of another length under a blob's digest, and keeps it.
    #[error("{blob} is damaged there: it should have {size} bytes, and the registry did not replace it")]
    DamagedBlob {
        /// Which one, and where.
        blob: String,
        /// Its length in bytes.
        size: u64,
    },
    /// There is no home directory to derive Trivy's cache from.
    #[error("no cache directory is named, and neither XDG_CACHE_HOME nor HOME says where Trivy's would be")]
    NoCacheDirectory,
    /// The folder for a settings file is not there.
    #[error("there is no folder {path} to write settings to", path = .path.display())]
    NoDirectory {
        /// The folder.
        path: PathBuf,
    },
    /// There is no web root at the path given.
    #[error("there is no folder {path} to put VEX repositories into", path = .path.display())]
    NoWebRoot {
        /// The path.
        path: PathBuf,
    },
    /// The web root may not be written.
    #[error("the web root {path} cannot be written by this user", path = .path.display())]
    WebRootDenied {
        /// The path.
        path: PathBuf,
    },
    /// Something else stands where a directory must be.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// What stands there.
        path: PathBuf,
    },
    /// Something else stands where a regular file must be.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// What stands there.
        path: PathBuf,
    },
    /// A symbolic link below the cache directory.
    #[error("{} is or leads through a symbolic link that is not followed: it lies in the target, or others can change it", .path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The folder of one database was given in place of the cache directory.
    #[error("{} holds a database itself, so it is a folder inside a cache directory", .path.display())]
    DatabaseDirectory {
        /// What was given.
        path: PathBuf,
    },
    /// The working folder belongs to another user.
    #[error("{} belongs to user {owner}, and is not ours to trust", .path.display())]
    Foreign {
        /// The working folder.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// A file in the working folder is not one that an import wrote.
    #[error("{} is not what an import wrote there: {why}", .path.display())]
    Working {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Only root can give files to another user.
    #[error("only root can give {} to user {uid}", .path.display())]
    Owner {
        /// The cache directory.
        path: PathBuf,
        /// The wanted owner.
        uid: u32,
    },
    /// Another import works on this cache.
    #[error("another import is at work in {}", .path.display())]
    Locked {
        /// The cache directory.
        path: PathBuf,
    },
    /// Running scans hold the scan lock.
    #[error("a running scan has held {} for {} s", .path.display(), .waited.as_secs())]
    ScanLock {
        /// The lock file.
        path: PathBuf,
        /// How long the switch has waited.
        waited: Duration,
    },
    /// Too little free space, found before the first byte.
    #[error("unpacking needs {} in {}, which has {}", text::format_size(*.needed), .path.display(), text::format_size(*.available))]
    Space {
        /// A directory on the file system.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        available: u64,
        /// What would help.
        advice: String,
    },
    /// Too few free inodes, found before the first byte.
    #[error("unpacking needs {needed} files in {}, which has room for {available}", .path.display())]
    Inodes {
        /// A directory on the file system.
        path: PathBuf,
        /// Files needed.
        needed: u64,
        /// Files possible.
        available: u64,
    },
    /// The file system filled up on the way.
    #[error("{} could not be written: the file system is full", .path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// The system denied access.
    #[error("{}: permission denied ({doing})", .path.display())]
    Permission {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error("{} is on a read-only file system ({doing})", .path.display())]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A mount point inside a dataset's folder.
    #[error("{} is a mount point of its own, so that its dataset cannot be switched as one", .path.display())]
    MountInside {
        /// The mount point.
        path: PathBuf,
    },
    /// A switch that could not be completed; the journal has the rest.
    #[error("the switch of {} stopped half-way: {error}", .path.display())]
    Unfinished {
        /// The dataset's folder.
        path: PathBuf,
        /// What stopped it.
        error: io::Error,
    },
    /// The staged files are not what the dataset needs.
    #[error("{} cannot be put in place: {what}", .path.display())]
    Content {
        /// The dataset's folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file of someone else's would be overwritten.
    #[error("{} exists and {what}", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
        /// What would help.
        advice: &'static str,
    },
    /// A value that an environment file cannot hold.
    #[error("{name} cannot be written to {}: \"{}\" has characters that not every reader of environment files takes", .path.display(), text::escape(.value))]
    Value {
        /// The environment file.
        path: PathBuf,
        /// The variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// Any other answer of the operating system.
    #[error("{}: {doing} failed: {error}", .path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl TargetError {
    /// Sorts an operating-system error by kind.
    pub fn io(doing: &'static str, path: impl AsRef<Path>, error: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => TargetError::Permission { doing, path },
            Some(Errno::ROFS) => TargetError::ReadOnly { doing, path },
            Some(Errno::NOSPC | Errno::DQUOT) => TargetError::Full { path },
            Some(Errno::NOTDIR) => TargetError::NotADirectory { path },
            Some(Errno::LOOP) => TargetError::Symlink { path },
            _ => TargetError::Io { doing, path, error },
        }
    }

    /// The same as an `io::Error`, for a [`crate::dataset::Sink`]: [`io::Error::into_inner`] gives
    /// it back.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The kind as a word, for JSON. Never changes its meaning.
    pub fn kind(&self) -> &'static str {
        match self {
            TargetError::Remote(_) | TargetError::UploadAddress { .. } => "registry",
            TargetError::ReadBack { .. } => "read-back",
            TargetError::DamagedBlob { .. } => "damaged-blob",
            TargetError::WebRootDenied { .. } => "permission",
            TargetError::NoCacheDirectory => "no-cache-directory",
            TargetError::NoDirectory { .. } | TargetError::NoWebRoot { .. } => "no-folder",
            TargetError::NotADirectory { .. } => "not-a-directory",
            TargetError::NotAFile { .. } => "not-a-file",
            TargetError::Symlink { .. } => "symlink",
            TargetError::DatabaseDirectory { .. } => "database-folder",
            TargetError::Foreign { .. } => "foreign",
            TargetError::Working { .. } => "working",
            TargetError::Owner { .. } => "owner",
            TargetError::Locked { .. } => "locked",
            TargetError::ScanLock { .. } => "scan-lock",
            TargetError::Space { .. } | TargetError::Inodes { .. } | TargetError::Full { .. } => "space",
            TargetError::Permission { .. } => "permission",
            TargetError::ReadOnly { .. } => "read-only",
            TargetError::MountInside { .. } => "mount-inside",
            TargetError::Unfinished { .. } => "unfinished",
            TargetError::Content { .. } => "content",
            TargetError::Exists { .. } => "exists",
            TargetError::Value { .. } => "value",
            TargetError::Io { .. } => "io",
        }
    }
}

/// Puts what was done, and to which path, to an operating-system error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, TargetError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, TargetError> {
        self.map_err(|error| TargetError::io(doing, path, error))
    }
}
