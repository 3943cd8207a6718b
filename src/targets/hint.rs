//! What to do about the errors of targets.

use std::path::Path;

use crate::hint::Hint;
use crate::targets::error::TargetError;

impl Hint for TargetError {
    fn hint(&self) -> String {
        match self {
            TargetError::Remote(error) => error.hint(),
            TargetError::UploadAddress { host, .. } => format!(
                "The registry does not know its own name: have the proxy at {host} pass Host and X-Forwarded-Proto on to it, or set its external URL."
            ),
            TargetError::ReadBack { .. } => {
                "Something else pushes under this tag, or a cache before the registry answers for it: find out which, then run the command again.".into()
            }
            TargetError::DamagedBlob { .. } => {
                "Delete the blob there, or the repository, by the registry's own means, then run the command again.".into()
            }
            TargetError::NoCacheDirectory => "Name it with --cache-dir DIR.".into(),
            TargetError::NoDirectory { .. } => "Make it first, or name another; what was imported is in place.".into(),
            TargetError::WebRootDenied { .. } => {
                "Run the command as its owner, or give this user the right to write there.".into()
            }
            TargetError::NoWebRoot { .. } => "Make it where the web server looks for it, or mount what is missing there.".into(),
            TargetError::NotADirectory { .. } => "Move it away, or name another place.".into(),
            TargetError::NotAFile { .. } => "Move it away, then run the command again.".into(),
            TargetError::Symlink { path } => format!(
                "Replace {} by what it points to (for a directory a bind mount works too), or name the place that it points to.",
                path.display()
            ),
            TargetError::DatabaseDirectory { path } => of_database_directory(path),
            TargetError::Foreign { path, .. } => format!(
                "Import into this cache always as the same user; or remove {} (and with it the generation kept for --restore) and run the command again.",
                path.display()
            ),
            TargetError::Working { path, .. } => format!(
                "Remove {} (and with it the generation kept for --restore), then run the command again.",
                path.parent().unwrap_or(path).display()
            ),
            TargetError::Owner { uid, .. } => format!("Run the import as root or as user {uid}, or leave out --owner."),
            TargetError::Locked { .. } => "Wait until it has finished, then run the command again.".into(),
            TargetError::ScanLock { .. } => {
                "Nothing was changed: run the import again when the scan has ended, or end whatever holds the lock (fuser shows it).".into()
            }
            TargetError::Space { advice, .. } => advice.clone(),
            TargetError::Inodes { .. } => {
                "Make room by removing small files there, or name a --cache-dir on another file system.".into()
            }
            TargetError::Full { .. } => {
                "The old data is still in place: make room, or leave something out with --skip, then run the import again.".into()
            }
            TargetError::Permission { .. } => {
                "Run the command as the owner of the directory or as root (with --owner for the user who scans); if users of one group share it, make all of it writable for the group, and its directories setgid.".into()
            }
            TargetError::ReadOnly { .. } => "Mount it writable for the import, or name another --cache-dir.".into(),
            TargetError::MountInside { path } => of_mount_inside(path),
            TargetError::Unfinished { .. } => {
                "Cure that and run the import again: it begins by finishing this switch.".into()
            }
            TargetError::Content { .. } => "Nothing was changed: get a new bundle from the connected side.".into(),
            TargetError::Exists { advice, .. } => (*advice).into(),
            TargetError::Value { .. } => {
                "Use a path without spaces, quotes or dollar signs, or set the variable by hand.".into()
            }
            TargetError::Io { .. } => "Check the disk and the system log, then run the command again.".into(),
        }
    }
}

fn of_database_directory(path: &Path) -> String {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            format!("Give the folder above it: --cache-dir {}.", parent.display())
        }
        _ => "Give the folder above it as --cache-dir.".into(),
    }
}

fn of_mount_inside(path: &Path) -> String {
    match path.parent() {
        Some(parent) => format!("Mount {} as a whole instead.", parent.display()),
        None => "Mount the folder above it as a whole instead.".into(),
    }
}
