//! The errors of targets. [`TargetError::io`] converts errors of the system by their kind.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::digest::Digest;
use crate::remote::{RemoteError, Unreachable};
use crate::util::text;

/// The reason why a target could not store, show or restore a dataset. Each path begins with the one that the caller
/// passed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The registry, or the connection to it, failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A registry sends an upload to another address, which cannot be reached.
    #[error("{host} redirects the upload to {address}, which cannot be reached: {why}")]
    UploadAddress {
        /// The registry.
        host: String,
        /// The address of the upload.
        address: String,
        /// The reason why it cannot be reached.
        why: Unreachable,
    },
    /// A tag refers to another manifest than the pushed one.
    #[error("{reference} should be {wanted} after the push, but is {}", found.map_or_else(|| "missing".into(), |found| found.to_string()))]
    ReadBack {
        /// The reference that was pushed to.
        reference: String,
        /// The digest of the pushed manifest.
        wanted: Digest,
        /// The digest of the manifest that was read back.
        found: Option<Digest>,
    },
    /// A registry has a blob with the wrong length, and does not replace it.
    #[error("{blob} is damaged in the registry, which did not replace it: it should have {size} bytes")]
    DamagedBlob {
        /// The blob and its repository.
        blob: String,
        /// The length of the intact blob in bytes.
        size: u64,
    },
    /// The environment names no default cache directory of Trivy.
    #[error(
        "no cache directory is named, and Trivy's default is unknown because neither XDG_CACHE_HOME nor HOME is set"
    )]
    NoCacheDirectory,
    /// The directory for a settings file does not exist.
    #[error("the directory {path} for the settings file does not exist", path = .path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The web root does not exist.
    #[error("the web root {path} does not exist", path = .path.display())]
    NoWebRoot {
        /// The path.
        path: PathBuf,
    },
    /// The user may not write to the web root.
    #[error("this user may not write to the web root {path}", path = .path.display())]
    WebRootDenied {
        /// The path.
        path: PathBuf,
    },
    /// The path must be a directory, but is something else.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path must be a regular file, but is something else.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic link in the target, or one that is writable by others.
    #[error("{} is or contains a symbolic link that is not followed, because it is in the target or writable by others", .path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// The directory of one database was given instead of the cache directory.
    #[error("{} contains a database, so it is a directory inside a cache directory", .path.display())]
    DatabaseDirectory {
        /// The given path.
        path: PathBuf,
    },
    /// The working directory belongs to another user.
    #[error("{} belongs to user {owner} and cannot be trusted", .path.display())]
    Foreign {
        /// The working directory.
        path: PathBuf,
        /// The user ID of its owner.
        owner: u32,
    },
    /// A file in the working directory was not written by an import.
    #[error("{} was not written by an import: {why}", .path.display())]
    Working {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// Only root can give files to another user.
    #[error("only root can change the owner of {} to user {uid}", .path.display())]
    Owner {
        /// The cache directory.
        path: PathBuf,
        /// The wanted owner.
        uid: u32,
    },
    /// Another import uses this target.
    #[error("another import is using {}", .path.display())]
    Locked {
        /// The cache directory.
        path: PathBuf,
    },
    /// A running scan holds the scan lock.
    #[error("a running scan has held the lock {} for {} s", .path.display(), .waited.as_secs())]
    ScanLock {
        /// The lock file.
        path: PathBuf,
        /// The time that the switch has waited.
        waited: Duration,
    },
    /// A check before the first write found too little free space.
    #[error("unpacking needs {} in {}, but only {} are free", text::format_size(*.needed), .path.display(), text::format_size(*.available))]
    Space {
        /// A directory on the file system.
        path: PathBuf,
        /// The bytes that are needed.
        needed: u64,
        /// The free bytes.
        available: u64,
        /// The hint.
        advice: String,
    },
    /// A check before the first write found too few free inodes.
    #[error("unpacking needs {needed} inodes in {}, but only {available} are free", .path.display())]
    Inodes {
        /// A directory on the file system.
        path: PathBuf,
        /// The inodes that are needed.
        needed: u64,
        /// The free inodes.
        available: u64,
    },
    /// The file system became full while it was written.
    #[error("{} could not be written: the file system is full", .path.display())]
    Full {
        /// The file that was being written.
        path: PathBuf,
    },
    /// The system denied access.
    #[error("{}: cannot {doing}: permission denied", .path.display())]
    Permission {
        /// The operation: a verb with its object.
        doing: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error("{}: cannot {doing}: the file system is read-only", .path.display())]
    ReadOnly {
        /// The operation: a verb with its object.
        doing: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A mount point is inside the directory of a dataset.
    #[error("{} is a mount point inside the directory of a dataset, so the dataset cannot be replaced as a unit", .path.display())]
    MountInside {
        /// The mount point.
        path: PathBuf,
    },
    /// A switch could not be completed. The journal has the remaining steps.
    #[error("the switch of {} is incomplete: {error}", .path.display())]
    Unfinished {
        /// The directory of the dataset.
        path: PathBuf,
        /// The error that stopped it.
        error: io::Error,
    },
    /// The staged files do not form the dataset.
    #[error("{} cannot be put in place: {what}", .path.display())]
    Content {
        /// The directory of the dataset.
        path: PathBuf,
        /// The reason.
        what: String,
    },
    /// A file that trivy-ferry did not write would be overwritten.
    #[error("{} exists and {what}", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// A clause about its content.
        what: &'static str,
        /// The hint.
        advice: &'static str,
    },
    /// A value cannot be written to an environment file.
    #[error("{name} cannot be written to {}: \"{}\" contains characters that not every reader of environment files accepts", .path.display(), text::escape(.value))]
    Value {
        /// The environment file.
        path: PathBuf,
        /// The variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// Any other error of the system.
    #[error("{}: cannot {doing}: {error}", .path.display())]
    Io {
        /// The operation: a verb with its object.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

impl TargetError {
    /// Converts an error of the system by its kind. `doing` completes the sentence "cannot …".
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

    /// Wraps it in an `io::Error`, for a [`crate::dataset::Sink`]. [`io::Error::into_inner`] returns it.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Returns the kind as a word for JSON, which is stable.
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

/// Adds the operation and the path to an error of the system.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, TargetError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, TargetError> {
        self.map_err(|error| TargetError::io(doing, path, error))
    }
}
