//! Files and directories that decisions depend on: keys, certificates, passphrases and the state. Finds out
//! whether another user can write to them.
//!
//! A path is walked through file descriptors, and the checks are made on the descriptors that are used
//! afterwards: of the directories on the way, then of the file itself. Links are followed, because Kubernetes
//! Secrets and the CA files of RHEL are links, but only links of root or of this user, in directories that no
//! other user can write to. This module does not parse keys.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::util::dir::{Dir, DirEntry, Make, Owner, Visit, euid};
use crate::util::fs::open_descriptor;

/// A file or directory that another user can write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WritableByOthers {
    /// The file or directory.
    pub path: PathBuf,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Owner(u32),
    Mode(u32),
}

impl WritableByOthers {
    /// Returns the reason why others can write to it: `owned by user 1000`, `mode 0777`.
    pub fn why(&self) -> String {
        match self.why {
            Why::Owner(uid) => format!("owned by user {uid}"),
            Why::Mode(mode) => format!("mode {mode:04o}"),
        }
    }
}

impl fmt::Display for WritableByOthers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.why())
    }
}

/// The reason why a file was not opened.
#[derive(Debug)]
pub(crate) enum TrustedFileError {
    /// Another user can write to it, or to a directory that leads to it.
    Untrusted(WritableByOthers),
    /// It is a directory, a device, a socket or a named pipe.
    NotAFile,
    /// The system reported an error.
    Io(io::Error),
}

impl fmt::Display for TrustedFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustedFileError::Untrusted(untrusted) => {
                write!(f, "{} is writable by others ({})", untrusted.path.display(), untrusted.why())
            }
            TrustedFileError::NotAFile => f.write_str("it is not a regular file"),
            TrustedFileError::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for TrustedFileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::IsADirectory => TrustedFileError::NotAFile,
            _ => TrustedFileError::Io(error),
        }
    }
}

/// The users who may write to a file that decisions depend on.
#[derive(Debug, Clone)]
pub(crate) struct TrustedUsers {
    users: Vec<u32>,
    /// Groups whose members share a directory that is writable by the group and has its setgid bit.
    groups: Vec<u32>,
}

impl TrustedUsers {
    /// Returns root and this user.
    pub fn own() -> Self {
        TrustedUsers { users: vec![0, euid()], groups: Vec::new() }
    }

    /// Returns the users for commands that only read: root and this owner if this process runs as
    /// root, otherwise root and this user.
    pub fn of_owner(owner: Owner) -> Self {
        TrustedUsers { users: vec![0, if euid() == 0 { owner.uid } else { euid() }], groups: Vec::new() }
    }

    /// Adds the groups of this process, for directories that such a group shares: those with the setgid bit and
    /// group write permission, such as Kubernetes volumes. Does nothing for root: in a setgid directory of
    /// root's group, every user could create a directory that belongs to that group.
    pub fn with_groups(mut self) -> Self {
        if euid() == 0 {
            return self;
        }
        self.groups =
            rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
        self.groups.push(rustix::process::getegid().as_raw());
        self
    }

    /// Whether a group of this process shares a directory.
    pub fn shares(&self, directory: &DirEntry) -> bool {
        directory.is_shared() && directory.mode & 0o002 == 0 && self.groups.contains(&directory.owner.gid)
    }

    /// Judges a file or directory by its owner and mode.
    ///
    /// # Errors
    /// [`WritableByOthers`] if a user who is not trusted can write to it.
    pub fn judge(&self, path: &Path, entry: &DirEntry) -> Result<(), WritableByOthers> {
        if self.shares(entry) {
            return Ok(());
        }
        self.judge_plain(path, entry)
    }

    fn judge_plain(&self, path: &Path, entry: &DirEntry) -> Result<(), WritableByOthers> {
        // Many systems give every user a group of the same number. Any other group may have members.
        let own_group = self.users.contains(&entry.owner.gid);
        let others = if own_group { 0o002 } else { 0o022 };
        let why = if entry.mode & others != 0 {
            Why::Mode(entry.mode)
        } else if !self.users.contains(&entry.owner.uid) {
            Why::Owner(entry.owner.uid)
        } else {
            return Ok(());
        };
        Err(WritableByOthers { path: path.into(), why })
    }

    /// Judges a file in a directory that was judged. In a shared directory, its group may write as well.
    ///
    /// # Errors
    /// [`WritableByOthers`] if a user who is not trusted can write to it.
    pub fn judge_in(
        &self,
        directory: &DirEntry,
        path: &Path,
        entry: &DirEntry,
    ) -> Result<(), WritableByOthers> {
        if self.shares(directory) && entry.owner.gid == directory.owner.gid && entry.mode & 0o002 == 0 {
            return Ok(());
        }
        self.judge_plain(path, entry)
    }

    /// Judges a directory on the way. In a sticky directory, other users cannot replace entries that they do not
    /// own.
    fn judge_ancestor(&self, dir: &Dir) -> io::Result<Result<(), WritableByOthers>> {
        const STICKY: u32 = 0o1000;
        let entry = dir.entry()?;
        let sticky = entry.mode & STICKY != 0 && self.users.contains(&entry.owner.uid);
        Ok(if sticky { Ok(()) } else { self.judge(dir.path(), &entry) })
    }

    /// Opens a directory. If `make` is a mode, creates it and its missing parents. Also returns the directories on
    /// the way that another user can write to. The caller judges the directory itself.
    pub fn directory(&self, path: &Path, make: Option<u32>) -> io::Result<(Dir, Vec<WritableByOthers>)> {
        let mut found = Vec::new();
        let mut visit = |dir: &Dir| {
            found.extend(self.judge_ancestor(dir)?.err());
            Ok(())
        };
        let visit: &mut Visit<'_> = &mut visit;
        // In a directory that a group shares, a new one is shared as well.
        let mode = |parent: &DirEntry| match (make, self.shares(parent)) {
            (Some(_), true) => 0o2770,
            (mode, _) => mode.unwrap_or(0o700),
        };
        let dir = Dir::top_seen(path, make.map(|_| Make { owner: None, mode: &mode }), visit)?;
        Ok((dir, found))
    }

    /// Opens the directory that holds a file, and returns the file's name in it, after all links.
    ///
    /// # Errors
    /// [`TrustedFileError::Untrusted`] if a user who is not trusted can write to a directory on the way;
    /// [`TrustedFileError::Io`] if a directory cannot be opened.
    pub fn holding(&self, path: &Path) -> Result<(Dir, std::ffi::OsString), TrustedFileError> {
        let mut found = None;
        let walked = Dir::holding(path, &mut |dir| match self.judge_ancestor(dir)? {
            Ok(()) => Ok(()),
            Err(untrusted) => {
                found = Some(untrusted);
                // This error only stops the walk. `found` is reported.
                Err(io::ErrorKind::PermissionDenied.into())
            }
        });
        match (walked, found) {
            (_, Some(untrusted)) => Err(TrustedFileError::Untrusted(untrusted)),
            (walked, None) => Ok(walked?),
        }
    }

    /// Opens a regular file for reading. The descriptor that is judged is the one that is returned.
    ///
    /// # Errors
    /// [`TrustedFileError::Untrusted`] if a user who is not trusted can write to it or to a directory on the way;
    /// [`TrustedFileError::NotAFile`] if it is not a regular file; [`TrustedFileError::Io`] if it cannot be opened.
    pub fn open(&self, path: &Path) -> Result<File, TrustedFileError> {
        let (dir, name) = self.holding(path)?;
        match dir.find(&name)? {
            Some(entry) if !entry.is_file() => return Err(TrustedFileError::NotAFile),
            _ => {}
        }
        let file = dir.open_file(&name)?.ok_or(io::Error::from(Errno::NOENT))?;
        self.judge(&dir.at(&name), &DirEntry::of_file(&file)?).map_err(TrustedFileError::Untrusted)?;
        Ok(file)
    }
}

/// Opens a file that the operator names. See [`TrustedUsers::open`].
pub(crate) fn open(path: &Path) -> Result<File, TrustedFileError> {
    match descriptor(path) {
        Some(number) => Ok(open_descriptor(number)?),
        None => TrustedUsers::own().open(path),
    }
}

/// Reads a file that the operator names, of at most `most` bytes.
///
/// # Errors
/// [`TrustedFileError::Untrusted`] if a user who is not trusted can write to it or to a directory on the way;
/// [`TrustedFileError::NotAFile`] if it is not a regular file; [`TrustedFileError::Io`] if it cannot be read, or is
/// larger than `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, TrustedFileError> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(TrustedFileError::Io(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Returns the number of a descriptor that the parent process passed, such as `/dev/fd/3` or `/dev/stdin`. It may be a
/// pipe.
fn descriptor(path: &Path) -> Option<u32> {
    if path == Path::new("/dev/stdin") {
        return Some(0);
    }
    let number = ["/dev/fd", "/proc/self/fd"].iter().find_map(|dir| path.strip_prefix(dir).ok())?;
    number.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::Mode;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn read(path: &Path) -> Result<String, TrustedFileError> {
        let mut text = String::new();
        open(path)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn untrusted(path: &Path) -> PathBuf {
        match open(path) {
            Err(TrustedFileError::Untrusted(untrusted)) => untrusted.path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn links_of_this_user_are_followed_and_a_directory_that_is_writable_by_others_is_not_passed() {
        let dir = crate::util::fs::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // As Kubernetes mounts a Secret.
        fs::create_dir_all(at("secret/..2026_11")).unwrap();
        crate::util::fs::put(at("secret/..2026_11/ferry.pub"), "key");
        chmod(&at("secret"), 0o755);
        chmod(&at("secret/..2026_11"), 0o755);
        symlink("..2026_11", at("secret/..data")).unwrap();
        symlink("..data/ferry.pub", at("secret/ferry.pub")).unwrap();
        assert_eq!(read(&at("secret/ferry.pub")).unwrap(), "key");
        chmod(&at("secret"), 0o1777);
        assert_eq!(
            read(&at("secret/ferry.pub")).unwrap(),
            "key",
            "no other user can replace it in a sticky directory"
        );
        chmod(&at("secret"), 0o777);
        assert_eq!(untrusted(&at("secret/ferry.pub")), at("secret"));
        chmod(&at("secret"), 0o755);
        chmod(&at("secret/..2026_11"), 0o777);
        assert_eq!(untrusted(&at("secret/ferry.pub")), at("secret/..2026_11"));
        chmod(&at("secret/..2026_11"), 0o755);
        chmod(&at("secret/..2026_11/ferry.pub"), 0o666);
        assert_eq!(untrusted(&at("secret/ferry.pub")), at("secret/..2026_11/ferry.pub"));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = crate::util::fs::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::from_raw_mode(0o600)).unwrap();
        for path in [&fifo, dir.path(), Path::new("/dev/null"), Path::new("/")] {
            assert!(matches!(open(path), Err(TrustedFileError::NotAFile)), "{}", path.display());
        }
        let missing = open(&dir.path().join("missing"));
        assert!(
            matches!(missing, Err(TrustedFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn a_descriptor_may_be_a_pipe() {
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"secret").unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        assert_eq!(read(&path).unwrap(), "secret");
    }

    #[test]
    fn a_directory_in_a_shared_one_is_shared_as_well() {
        let dir = crate::util::fs::tempdir().unwrap();
        chmod(dir.path(), 0o2775);
        let group = Dir::top(dir.path()).unwrap().entry().unwrap().owner.gid;
        let trust = TrustedUsers { groups: vec![group], ..TrustedUsers::own() };
        let made = trust.directory(&dir.path().join("a/b"), Some(0o700)).unwrap().0.entry().unwrap();
        assert_eq!((made.mode, made.owner.gid), (0o2770, group));
        assert_eq!(trust.judge(dir.path(), &made), Ok(()));
        let own =
            TrustedUsers::own().directory(&dir.path().join("own"), Some(0o700)).unwrap().0.entry().unwrap();
        assert_eq!(own.mode & 0o777, 0o700);
    }

    #[test]
    fn a_link_of_proc_is_not_followed_by_its_text() {
        let path = format!("/proc/{}/root/etc/passwd", std::process::id());
        assert!(
            matches!(open(Path::new(&path)), Err(TrustedFileError::Io(error)) if error.raw_os_error() == Some(40))
        );
        assert!(open(Path::new("/proc/self/status")).is_ok(), "a plain file behind a plain link");
    }

    #[test]
    fn a_group_shares_a_directory_with_its_setgid_bit() {
        let dir = crate::util::fs::tempdir().unwrap();
        let group = rustix::process::getegid().as_raw();
        if euid() == 0 {
            assert_eq!(TrustedUsers::own().with_groups().groups, [0; 0], "root trusts no group");
        }
        let entry = |mode: u32| {
            chmod(dir.path(), mode);
            let mut entry = Dir::top(dir.path()).unwrap().entry().unwrap();
            // Owned by another user of the group. No user here has the number 4242.
            (entry.owner.uid, entry.owner.gid) = (4242, group);
            entry
        };
        let trust = TrustedUsers { groups: vec![group], ..TrustedUsers::own() };
        assert_eq!(trust.judge(dir.path(), &entry(0o2775)), Ok(()));
        assert!(trust.judge(dir.path(), &entry(0o775)).is_err(), "not shared");
        assert!(trust.judge(dir.path(), &entry(0o2777)).is_err(), "writable by all users");
        assert!(
            TrustedUsers::own().judge(dir.path(), &entry(0o2775)).is_err(),
            "keys have no such exception"
        );
    }
}
