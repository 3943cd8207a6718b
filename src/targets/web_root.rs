//! A web root: copies of VEX repositories as plain files, for any web server.
//!
//! Each repository is a directory with the name of the dataset. It contains the archive under a stable name
//! ([`vex_copy::archive_name`]), the same archive under its digest, the previous archive under its digest, and
//! `.well-known/vex-repository.json`, which is replaced last. Every file is written under a temporary name and
//! renamed, so that a reader gets the old or the new one. This module does not depend on bundles.

use std::io::{self, Read, Write};
use std::path::Path;

use rustix::io::Errno;

use crate::dataset::vex::{ArchiveFormat, MAX_MANIFEST};
use crate::dataset::vex_copy::{self, MANIFEST, WELL_KNOWN};
use crate::dataset::{Kind, Name, layer};
use crate::digest::{Digest, Hasher};
use crate::targets::error::{At, TargetError};
use crate::util::dir::write::{Durability, PendingFile, TEMPORARY};
use crate::util::dir::{self, Dir, FileMode, Owner, parent_owner};
use crate::util::file_lock::HeldLock;
use crate::util::text;

const LOCK: &str = ".trivy-ferry.lock";

/// A web root, locked while an import writes to it.
pub struct WebRoot {
    dir: Dir,
    owner: Option<Owner>,
    keep_previous: bool,
    /// The lock; `None` for reading.
    _lock: Option<HeldLock>,
}

/// A copy of a VEX repository for the web root.
#[derive(Debug, Clone)]
pub struct VexCopy {
    /// The name of the dataset, and of its directory.
    pub name: Name,
    /// The digest of the archive.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its format.
    pub format: ArchiveFormat,
    /// The directory in it that holds the repository; may be empty.
    pub subdir: String,
    /// The `vex-repository.json` that points to it.
    pub manifest: Vec<u8>,
}

impl VexCopy {
    /// Returns the name that the manifest points to.
    fn lasting(&self) -> String {
        vex_copy::archive_name(self.format, &self.subdir)
    }

    /// Returns the name with its digest.
    fn by_digest(&self) -> String {
        format!("{}{}{}", BY_DIGEST, self.digest.hex(), self.format.extension())
    }
}

const BY_DIGEST: &str = "sha256-";
const LASTING: &str = "repository";

impl WebRoot {
    /// Opens a web root, which must exist: if it does not, the web server serves another directory.
    ///
    /// # Errors
    /// [`TargetError::NoWebRoot`] if the directory does not exist; [`TargetError::WebRootDenied`] if this
    /// user may not write there; [`TargetError::Locked`] if another import uses it; else the error of the system,
    /// converted by [`TargetError::io`].
    pub fn open(path: &Path, keep_previous: bool) -> Result<Self, TargetError> {
        let dir = open_root(path)?;
        let lock = dir.lock_file(LOCK, FileMode::Shared(0o600)).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => TargetError::WebRootDenied { path: dir.path().into() },
            _ => TargetError::io("open the lock", dir.at(LOCK), error),
        })?;
        if dir::lock::try_lock(&lock).at("lock", dir.at(LOCK))? == Some(false) {
            return Err(TargetError::Locked { path: dir.path().into() });
        }
        let owner = parent_owner(&dir).at("look it up", dir.path())?;
        Ok(WebRoot { dir, owner, keep_previous, _lock: Some(HeldLock::on(lock)) })
    }

    /// Opens a web root for reading, without a lock.
    ///
    /// # Errors
    /// [`TargetError::NoWebRoot`] if the directory does not exist; else the error of the system, converted by
    /// [`TargetError::io`].
    pub fn look(path: &Path) -> Result<Self, TargetError> {
        Ok(WebRoot { dir: open_root(path)?, owner: None, keep_previous: true, _lock: None })
    }

    /// Returns the path of the web root, without symbolic links.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the `vex-repository.json` that is served for a dataset; `None` if there is none.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of a directory; else
    /// the error of the system if the file cannot be read.
    pub fn manifest(&self, name: &Name) -> Result<Option<Vec<u8>>, TargetError> {
        let place = format!("{name}/{WELL_KNOWN}");
        let Some(dir) = self.dir.open_path(&place).at("open", self.dir.at(&place))? else { return Ok(None) };
        match dir.read_small(MANIFEST, MAX_MANIFEST) {
            // Such a file is not a manifest of trivy-ferry. It is replaced.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Some(Vec::new())),
            other => other.at("read", dir.at(MANIFEST)),
        }
    }

    /// Returns the VEX repositories whose copies trivy-ferry wrote.
    ///
    /// # Errors
    /// The error of the system if the web root cannot be listed.
    pub fn repositories(&self) -> Result<Vec<Name>, TargetError> {
        let names = self.dir.list().at("list", self.dir.path())?;
        let names = names.iter().filter_map(|name| name.to_str()?.parse::<Name>().ok());
        let is_copy = |name: &Name| {
            let manifest = self.manifest(name).ok().flatten();
            manifest.as_deref().and_then(vex_copy::record).is_some()
        };
        Ok(names.filter(|name| name.kind() == Kind::Vex && is_copy(name)).collect())
    }

    /// Whether exactly this copy is in place. Reads every byte.
    ///
    /// # Errors
    /// [`TargetError::Symlink`] or [`TargetError::NotADirectory`] if a link or a file is in the place of a directory; else
    /// the error of the system if a file cannot be read.
    pub fn holds(&self, copy: &VexCopy) -> Result<bool, TargetError> {
        if self.manifest(&copy.name)?.as_ref() != Some(&copy.manifest) {
            return Ok(false);
        }
        let Some(directory) = self.directory(&copy.name)? else { return Ok(false) };
        Ok(is(&directory, &copy.by_digest(), copy.digest)? && is(&directory, &copy.lasting(), copy.digest)?)
    }

    /// Checks that there is enough space for these copies.
    ///
    /// # Errors
    /// [`TargetError::Space`] if there is too little space; the error of the system if it cannot be determined.
    pub fn preflight(&self, copies: &[&VexCopy]) -> Result<(), TargetError> {
        /// The space for names and manifests.
        const BESIDE: u64 = 64 << 10;
        let needed = copies.iter().map(|copy| copy.size.saturating_add(BESIDE)).sum();
        let available = self.dir.room().at("determine the free space", self.dir.path())?.bytes;
        if needed <= available {
            return Ok(());
        }
        let advice = format!("Free {} there; nothing was changed.", text::format_size(needed - available));
        Err(TargetError::Space { path: self.dir.path().into(), needed, available, advice })
    }

    /// Writes the archive of a copy under the name with its digest, which no manifest points to. It gets this name only
    /// after `content`, which checks its digest at its end, was read without an error.
    ///
    /// # Errors
    /// The error of `content` if that cannot be read; an error that holds a [`TargetError`] if the archive
    /// cannot be written.
    pub fn stage(&self, copy: &VexCopy, mut content: impl Read) -> io::Result<()> {
        let directory = self
            .dir
            .open_or_make(copy.name.as_str(), FileMode::Shared(0o755), self.owner)
            .at("create the directory", self.dir.at(copy.name.as_str()))
            .map_err(TargetError::into_io)?;
        let unfinished = copy.by_digest() + TEMPORARY;
        let at = directory.at(&unfinished);
        let mut file = self.begin(&directory, unfinished).at("create", &at).map_err(TargetError::into_io)?;
        let mut buffer = vec![0; layer::CHUNK];
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).at("write", &at).map_err(TargetError::into_io)?;
        }
        let placed = file.replace(copy.by_digest(), Durability::Synced);
        placed.at("write", &at).map_err(TargetError::into_io)
    }

    /// Serves a staged copy. Keeps the archive that was served before under its digest, if `keep_previous` is set, and
    /// removes all other files that trivy-ferry wrote.
    ///
    /// # Errors
    /// The error of the system if a file cannot be written, renamed or removed. Either the previous copy or this one is
    /// served then.
    pub fn activate(&self, copy: &VexCopy) -> Result<(), TargetError> {
        let manifest = self.manifest(&copy.name)?.unwrap_or_default();
        let (before, was_at) = (vex_copy::record(&manifest), vex_copy::location_of(&manifest));
        let directory = self.dir.open(copy.name.as_str()).at("open", self.dir.at(copy.name.as_str()))?;
        let (from, to) = (copy.by_digest(), copy.lasting());
        if !is(&directory, &to, copy.digest)? {
            self.double(&directory, &from, &to).at("write", directory.at(&to))?;
        }
        let described =
            directory.open_or_make(WELL_KNOWN, FileMode::Shared(0o755), self.owner).and_then(|dir| {
                dir.replace(
                    MANIFEST,
                    &copy.manifest,
                    FileMode::Shared(0o644),
                    self.owner,
                    Durability::Synced,
                )?;
                directory.sync()?;
                // The directory may be new too.
                self.dir.sync()
            });
        described.at("write", directory.at(WELL_KNOWN).join(MANIFEST))?;
        let before = before.filter(|_| self.keep_previous).map(|record| record.archive);
        self.tidy(&directory, copy, before, was_at.as_deref()).at("remove old files", directory.path())
    }

    /// Begins a file, and replaces any file with its temporary name.
    fn begin<'d>(&self, directory: &'d Dir, temporary: String) -> io::Result<PendingFile<'d>> {
        directory.remove(&temporary)?;
        PendingFile::create(directory, temporary, FileMode::Shared(0o644), self.owner)
    }

    /// Gives a file a second name, and replaces any file with that name. Copies the file if the file system has no hard
    /// links (FAT).
    fn double(&self, directory: &Dir, from: &str, to: &str) -> io::Result<()> {
        let unfinished = format!("{to}{TEMPORARY}");
        directory.remove(&unfinished)?;
        match directory.link(from, directory, &unfinished) {
            Err(error) if dir::unsupported(&error) || Errno::from_io_error(&error) == Some(Errno::PERM) => {}
            other => {
                other?;
                directory.rename(&unfinished, directory, to)?;
                return directory.sync();
            }
        }
        let mut source = directory.open_file(from)?.ok_or(io::ErrorKind::NotFound)?;
        let mut file = self.begin(directory, unfinished)?;
        io::copy(&mut source, &mut file)?;
        file.replace(to, Durability::Synced)
    }

    /// Removes the files of trivy-ferry that are not needed anymore: archives under their digests, temporary files, and
    /// the archive that the previous manifest pointed to. Other files stay.
    fn tidy(
        &self,
        directory: &Dir,
        copy: &VexCopy,
        before: Option<Digest>,
        was_at: Option<&str>,
    ) -> io::Result<()> {
        let (lasting, by_digest) = (copy.lasting(), copy.by_digest());
        let lasted = was_at.and_then(|url| {
            url.split('/').find(|part| part.starts_with(LASTING) && ArchiveFormat::by_name(part).is_some())
        });
        // If the served archive is imported again, the previous one stays the previous one.
        let keep = |digest: Digest| before == Some(digest) || before == Some(copy.digest);
        for name in directory.list()? {
            let Some(name) = name.to_str() else { continue };
            let whole = name.strip_suffix(TEMPORARY).unwrap_or(name);
            let is_lasting = whole == lasting || Some(whole) == lasted;
            let goes = match digest_in(whole) {
                Some(digest) => name != whole || name != by_digest && !keep(digest),
                None => is_lasting && (name != whole || name != lasting),
            };
            if goes {
                directory.remove(name)?;
            }
        }
        directory.sync()
    }

    fn directory(&self, name: &Name) -> Result<Option<Dir>, TargetError> {
        self.dir.open_path(name.as_str()).at("open", self.dir.at(name.as_str()))
    }
}

fn open_root(path: &Path) -> Result<Dir, TargetError> {
    Dir::top(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            TargetError::NoWebRoot { path: path.into() }
        }
        _ => TargetError::io("open the web root", path, error),
    })
}

/// Returns the digest in the name of an archive.
fn digest_in(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix(BY_DIGEST)?;
    let hex = hex.strip_suffix(".tar.gz").or_else(|| hex.strip_suffix(".zip"))?;
    Digest::from_hex(hex).ok()
}

/// Whether a file exists and has this digest.
fn is(directory: &Dir, name: &str, digest: Digest) -> Result<bool, TargetError> {
    let Some(mut file) = directory.open_file(name).at("open", directory.at(name))? else { return Ok(false) };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; layer::CHUNK];
    loop {
        match file.read(&mut buffer).at("read", directory.at(name))? {
            0 => return Ok(hasher.finish() == digest),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::dataset::vex_copy::Record;
    use crate::util::fault;

    fn copy(content: &[u8], subdir: &str) -> VexCopy {
        let upstream = br#"{"versions":[{"spec_version":"0.1"}]}"#;
        let digest = Digest::of(content);
        let record = Record { archive: digest, updated_at: Timestamp::UNIX_EPOCH };
        VexCopy {
            name: "vex-hub".parse().unwrap(),
            digest,
            size: content.len() as u64,
            format: ArchiveFormat::TarGzip,
            subdir: subdir.into(),
            manifest: vex_copy::point_at(
                upstream,
                &vex_copy::location(
                    &format!("http://h/{}", vex_copy::archive_name(ArchiveFormat::TarGzip, subdir)),
                    subdir,
                )
                .unwrap(),
                &record,
            )
            .unwrap(),
        }
    }

    fn put(root: &WebRoot, content: &[u8], copy: &VexCopy) -> Result<(), String> {
        root.stage(copy, content).map_err(|error| error.to_string())?;
        root.activate(copy).map_err(|error| error.to_string())
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir.join("vex-hub"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_replaces_the_previous_one_which_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = WebRoot::open(dir.path(), true).unwrap();
        let (one, two, three) = (copy(b"one", "main"), copy(b"two", "main"), copy(b"three", "other"));
        put(&root, b"one", &one).unwrap();
        assert!(root.holds(&one).unwrap());
        assert_eq!(names(dir.path()), [".well-known", "repository-main.tar.gz", &one.by_digest()]);
        put(&root, b"two", &two).unwrap();
        assert!(root.holds(&two).unwrap() && !root.holds(&one).unwrap());
        let both = std::collections::BTreeSet::from([one.by_digest(), two.by_digest()]);
        assert_eq!(names(dir.path())[2..], both.iter().cloned().collect::<Vec<_>>());
        // After damage, the same copy is imported again. The previous archive stays.
        std::fs::write(dir.path().join("vex-hub/repository-main.tar.gz"), b"other").unwrap();
        assert!(!root.holds(&two).unwrap());
        put(&root, b"two", &two).unwrap();
        assert!(root.holds(&two).unwrap());
        assert_eq!(names(dir.path())[2..], both.into_iter().collect::<Vec<_>>());
        // Another directory in the archive means another name, so that a scanner with the old manifest fails.
        put(&root, b"three", &three).unwrap();
        assert!(!names(dir.path()).contains(&"repository-main.tar.gz".into()));
        assert!(
            names(dir.path()).contains(&two.by_digest()) && !names(dir.path()).contains(&one.by_digest())
        );
    }

    #[test]
    fn a_reader_gets_the_old_or_the_new_copy_after_every_kill() {
        let (one, two) = (copy(b"one", "main"), copy(b"two", "main"));
        for steps in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let root = WebRoot::open(dir.path(), false).unwrap();
            put(&root, b"one", &one).unwrap();
            fault::kill_after(Some(steps));
            let done = put(&root, b"two", &two);
            fault::kill_after(None);
            let served = std::fs::read(dir.path().join("vex-hub/repository-main.tar.gz")).unwrap();
            assert!([&b"one"[..], b"two"].contains(&&served[..]), "{steps}");
            let manifest = root.manifest(&one.name).unwrap().unwrap();
            assert!(manifest == one.manifest || manifest == two.manifest && served == b"two", "{steps}");
            // The next run completes it, and leaves no other files.
            put(&root, b"two", &two).unwrap();
            assert!(root.holds(&two).unwrap());
            assert_eq!(names(dir.path()), [".well-known", "repository-main.tar.gz", &two.by_digest()]);
            if done.is_ok() {
                return;
            }
        }
        panic!("the copy takes 100 steps or more");
    }

    #[test]
    fn files_that_trivy_ferry_did_not_write_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = WebRoot::open(dir.path(), false).unwrap();
        put(&root, b"one", &copy(b"one", "main")).unwrap();
        let others = ["repository-backup.zip", "sha256-mine.tar.gz", "x.trivy-ferry.tmp", "notes"];
        for name in others {
            std::fs::write(dir.path().join("vex-hub").join(name), name).unwrap();
        }
        // A manifest that is too large for trivy-ferry is replaced.
        let manifest = dir.path().join("vex-hub/.well-known/vex-repository.json");
        std::fs::write(manifest, vec![b' '; 2 << 20]).unwrap();
        let two = copy(b"two", "other");
        put(&root, b"two", &two).unwrap();
        assert!(root.holds(&two).unwrap());
        assert!(others.iter().all(|name| names(dir.path()).contains(&(*name).to_owned())));
    }

    #[test]
    fn a_missing_root_and_a_link_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let missing = WebRoot::open(&dir.path().join("none"), true);
        assert!(matches!(missing, Err(TargetError::NoWebRoot { .. })));
        let root = WebRoot::open(dir.path(), true).unwrap();
        assert!(matches!(WebRoot::open(dir.path(), true), Err(TargetError::Locked { .. })));
        std::os::unix::fs::symlink("/tmp", dir.path().join("vex-hub")).unwrap();
        assert!(put(&root, b"one", &copy(b"one", "")).is_err());
        assert!(root.manifest(&"vex-hub".parse().unwrap()).is_err());
    }
}
