//! The hints for the errors of targets.

use std::path::Path;

use crate::hint::Hint;
use crate::targets::error::TargetError;

impl Hint for TargetError {
    fn hint(&self) -> String {
        match self {
            TargetError::Remote(error) => error.hint(),
            TargetError::UploadAddress { host, .. } => format!(
                "The registry uses a wrong external address: let the proxy at {host} forward Host and X-Forwarded-Proto to it, or set its external URL."
            ),
            TargetError::ReadBack { .. } => {
                "Find out whether another program pushes to this tag or a cache in front of the registry returns an old answer, then run the command again.".into()
            }
            TargetError::DamagedBlob { .. } => {
                "Delete the blob or the repository with the tools of the registry, then run the command again.".into()
            }
            TargetError::NoCacheDirectory => "Name it with --cache-dir DIR.".into(),
            TargetError::NoDirectory { .. } => "Create the directory, or name another one; the data itself was imported.".into(),
            TargetError::WebRootDenied { .. } => {
                "Run the command as its owner, or allow this user to write there.".into()
            }
            TargetError::NoWebRoot { .. } => "Create the directory that the web server serves, or mount it if it is not mounted.".into(),
            TargetError::NotADirectory { .. } => "Move it away, or name another path.".into(),
            TargetError::NotAFile { .. } => "Move it away, then run the command again.".into(),
            TargetError::Symlink { path } => format!(
                "Replace {} with its target (for a directory, a bind mount works too), or name the target instead.",
                path.display()
            ),
            TargetError::DatabaseDirectory { path } => of_database_directory(path),
            TargetError::Foreign { path, .. } => format!(
                "Always import into this cache as the same user, or remove {} (and with it the generation kept for --restore) and run the command again.",
                path.display()
            ),
            TargetError::Working { path, .. } => format!(
                "Remove {} (and with it the generation kept for --restore), then run the command again.",
                path.parent().unwrap_or(path).display()
            ),
            TargetError::Owner { uid, .. } => format!("Run the import as root or as user {uid}, or omit --owner."),
            TargetError::Locked { .. } => "Wait until it has finished, then run the command again.".into(),
            TargetError::ScanLock { .. } => {
                "Run the import again after the scan, or end the process that holds the lock (fuser shows it); nothing was changed.".into()
            }
            TargetError::Space { advice, .. } => advice.clone(),
            TargetError::Inodes { .. } => {
                "Remove small files there, or name a --cache-dir on another file system.".into()
            }
            TargetError::Full { .. } => {
                "Free space or skip a dataset with --skip, then run the import again; the old data is still in place.".into()
            }
            TargetError::Permission { .. } => {
                "Run the command as the owner of the directory or as root (with --owner for the user who scans); if a group shares the directory, make all of it writable for the group, and its directories setgid.".into()
            }
            TargetError::ReadOnly { .. } => "Mount it writable for the import, or name another --cache-dir.".into(),
            TargetError::MountInside { path } => of_mount_inside(path),
            TargetError::Unfinished { .. } => {
                "Fix the cause and run the import again: it first finishes this switch.".into()
            }
            TargetError::Content { .. } => "Get a new bundle from the connected side; nothing was changed.".into(),
            TargetError::Exists { advice, .. } => (*advice).into(),
            TargetError::Value { .. } => {
                "Use a path without spaces, quotes and dollar signs, or set the variable yourself.".into()
            }
            TargetError::Io { .. } => "Check the disk and the system log, then run the command again.".into(),
        }
    }
}

fn of_database_directory(path: &Path) -> String {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            format!("Name the directory above it: --cache-dir {}.", parent.display())
        }
        _ => "Name the directory above it with --cache-dir.".into(),
    }
}

fn of_mount_inside(path: &Path) -> String {
    match path.parent() {
        Some(parent) => format!("Mount {} instead.", parent.display()),
        None => "Mount the directory above it instead.".into(),
    }
}
