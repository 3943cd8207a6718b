//! The staging directory, in which a bundle is assembled from volumes on several media.
//!
//! The files there are trusted as little as those on a medium. They are written and removed through the descriptor
//! of the directory that was checked.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::bundle::names::PARTIAL;
use crate::bundle::{BundleError, open_regular};
use crate::error::Error;
use crate::intake::file_sets::{Inputs, key, named_date};
use crate::intake::open::no_bundle;
use crate::intake::skipped::SkippedFile;
use crate::progress::{Counted, Progress};
use crate::trust::TrustError;
use crate::util::dir::write::{Durability, PendingFile};
use crate::util::dir::{Dir, FileMode};
use crate::util::pipe::for_each_chunk;
use crate::util::text::escape;
use crate::util::trusted::TrustedUsers;

/// The name of trivy-ferry's own directory in the directory that the user names. Nothing outside it
/// is overwritten or removed.
const OWN: &str = "trivy-ferry-staging";

/// The staging directory.
pub(crate) struct Staging {
    /// The descriptor of trivy-ferry's own directory. It stays valid if the directory is renamed.
    dir: Dir,
    own: PathBuf,
}

impl Staging {
    /// Opens trivy-ferry's own directory in the named one, and creates it if it is missing.
    ///
    /// # Errors
    /// [`Error::Trust`] if the named directory or one of its parents is writable by others;
    /// [`Error::Usage`] if trivy-ferry's own directory is not private, or is one of the inputs;
    /// [`Error::Destination`] if it cannot be created.
    pub(crate) fn open(directory: &Path, inputs: &[PathBuf]) -> Result<Self, Error> {
        let own = directory.join(OWN);
        let failed = |error: io::Error| failed(&own, &error);
        let trust = TrustedUsers::own().with_groups();
        let (dir, on_the_way) = trust.directory(directory, Some(0o755)).map_err(failed)?;
        // Another user who could replace the directory could make this user remove files elsewhere.
        let judged = on_the_way.into_iter().next().map_or(Ok(()), Err);
        let parent = dir.entry().map_err(failed)?;
        judged.and_then(|()| trust.judge(directory, &parent)).map_err(TrustError::from)?;
        let mode = if trust.shares(&parent) { 0o2770 } else { 0o700 };
        let dir = dir.open_or_make(OWN, mode, None);
        let dir = dir.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => not_private(&own),
            _ => failed(error),
        })?;
        let entry = dir.entry().map_err(failed)?;
        let is_mine = entry.owner.uid == rustix::process::geteuid().as_raw() && entry.mode & 0o077 == 0;
        if !is_mine && !trust.shares(&entry) {
            return Err(not_private(&own));
        }
        let place = own.canonicalize().map_err(failed)?;
        let is_own = |input: &PathBuf| input.canonicalize().is_ok_and(|input| input.starts_with(&place));
        if inputs.iter().any(is_own) {
            return Err(Error::usage(
                format!("--staging names {}, which is also an input of this import", own.display()),
                "Name another directory with --staging, because its files are removed after the import.",
            ));
        }
        Ok(Staging { dir, own })
    }

    /// Returns the path of trivy-ferry's own directory.
    pub(crate) fn path(&self) -> &Path {
        &self.own
    }

    /// Copies the files of bundles into it. Files with the same name are replaced, because they may be damaged
    /// volumes that the user copied again. Unreadable files are skipped, because parity may replace them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the inputs hold no bundle; [`Error::Destination`] if the directory cannot
    /// be written.
    pub(crate) fn take(&self, inputs: &[PathBuf], progress: &dyn Progress) -> Result<(), Error> {
        let there = Inputs::read(inputs)?;
        // Files that resemble volumes are copied too: the head on a later medium decides whether they are volumes.
        let renamed = there.like_volumes().cloned();
        let files: Vec<PathBuf> = there.keys().flat_map(|key| there.all(key)).chain(renamed).collect();
        if files.is_empty() {
            let names: Vec<SkippedFile> = there.not_named().collect();
            let mut skipped = there.ignored;
            names.into_iter().for_each(|file| skipped.add(file));
            return Err(no_bundle(inputs, skipped));
        }
        for (number, file) in files.into_iter().enumerate() {
            match self.copy(&file, number, progress) {
                Err(Error::Bundle(error)) => {
                    progress.warn(&format!("{error}; the other files are copied"));
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn copy(&self, file: &Path, number: usize, progress: &dyn Progress) -> Result<(), Error> {
        let name = file.file_name().unwrap_or_default();
        let (source, length) = match open_regular(file) {
            Ok(open) => open,
            // A directory or a device is not a file of a bundle, even if its name matches.
            Err(BundleError::NotAFile { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let step = progress.begin(&escape(&name.to_string_lossy()), length, &file.display().to_string());
        let (hidden, to) = (format!("{number}{PARTIAL}"), self.own.join(name));
        let failed = |error: io::Error| failed(&to, &error);
        let created = self
            .dir
            .remove(&hidden)
            .and_then(|()| PendingFile::create(&self.dir, hidden, FileMode::Shared(0o644), None));
        let mut copy = created.map_err(failed)?;
        let unreadable = |error| BundleError::Read { path: file.into(), error }.into();
        for_each_chunk(Counted::new(source, step), unreadable, |bytes| {
            copy.write_all(bytes).map_err(failed)
        })?;
        copy.replace(name, Durability::Synced).map_err(failed)
    }

    /// Removes the imported bundles, and the files of older ones, which are not needed anymore.
    ///
    /// # Errors
    /// [`Error::Unexpected`] if the directory cannot be read; [`Error::Destination`] if a file cannot be
    /// removed.
    pub(crate) fn clear(&self, imported: &[String]) -> Result<(), Error> {
        let there = Inputs::read(std::slice::from_ref(&self.own))?;
        let newest = imported.iter().filter_map(|name| named_date(&name.to_lowercase())).max();
        let is_over = |name: &&str| {
            let bundle = |imported: &String| key(Path::new(imported)).is_some_and(|key| key == **name);
            imported.iter().any(bundle)
                || named_date(name).zip(newest).is_some_and(|(date, newest)| date < newest)
        };
        // A file with an unknown name may be a volume of a bundle that is still incomplete.
        let all_over = !imported.is_empty() && there.keys().all(|key| is_over(&key));
        let renamed = there.like_volumes().filter(|_| all_over).cloned();
        for file in there.keys().filter(is_over).flat_map(|key| there.all(key)).chain(renamed) {
            let name = file.file_name().unwrap_or_default();
            self.dir.remove(name).map_err(|error| failed(&file, &error))?;
        }
        Ok(())
    }
}

fn not_private(own: &Path) -> Error {
    Error::usage(
        format!("{} is not a private directory of this user", own.display()),
        "Name another directory with --staging, or remove that one.",
    )
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::Destination {
        path: path.into(),
        what: error.to_string(),
        hint: "Name a writable directory with enough space for the bundle with --staging.".into(),
    }
}
