//! A folder in which a bundle is put together whose parts come on several media, one after the other.
//!
//! What lies there is believed no more than what lies on a medium.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::inputs::Inputs;
use super::parts::{PARTIAL, sync_folder};
use crate::bundle::{BundleError, open_regular};
use crate::error::Error;
use crate::progress::{Counted, Progress};
use crate::text::safe;

/// The folder.
pub(super) struct Staging<'s>(pub(super) &'s Path);

impl Staging<'_> {
    /// Copies what belongs to bundles into it. What has a name there already is replaced: it may be a volume
    /// that was to be copied again.
    ///
    /// # Errors
    /// Where a medium fails, or the folder cannot be written.
    pub(super) fn take(&self, inputs: &[PathBuf], progress: &dyn Progress) -> Result<(), Error> {
        let there = Inputs::read(inputs)?;
        fs::create_dir_all(self.0).map_err(|error| self.failed(self.0, &error))?;
        for file in there.keys().flat_map(|key| there.all(key)) {
            self.copy(&file, progress)?;
        }
        Ok(())
    }

    fn copy(&self, file: &Path, progress: &dyn Progress) -> Result<(), Error> {
        let name = file.file_name().unwrap_or_default();
        let (source, length) = match open_regular(file) {
            Ok(open) => open,
            // It is none of a bundle's files, whatever its name is.
            Err(BundleError::NotAFile { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let step = progress.begin(&safe(&name.to_string_lossy()), length, &file.display().to_string());
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(PARTIAL);
        let (hidden, to) = (self.0.join(hidden), self.0.join(name));
        let failed = |error: io::Error| self.failed(&to, &error);
        let _ = fs::remove_file(&hidden);
        let mut copy = File::options().write(true).create_new(true).open(&hidden).map_err(failed)?;
        let copied = copy_all(Counted::new(source, step), &mut copy, file, &failed)
            .and_then(|()| copy.sync_all().map_err(failed))
            .and_then(|()| fs::rename(&hidden, &to).map_err(failed))
            .and_then(|()| sync_folder(&to).map_err(failed));
        copied.inspect_err(|_| {
            let _ = fs::remove_file(&hidden);
        })
    }

    /// Removes what belongs to bundles, which were imported.
    ///
    /// # Errors
    /// Where that fails.
    pub(super) fn clear(&self) -> Result<(), Error> {
        let there = Inputs::read(&[self.0.to_path_buf()])?;
        for file in there.keys().flat_map(|key| there.all(key)) {
            fs::remove_file(&file).map_err(|error| self.failed(&file, &error))?;
        }
        Ok(())
    }

    fn failed(&self, path: &Path, error: &io::Error) -> Error {
        Error::Destination {
            path: path.into(),
            what: error.to_string(),
            next: "Give --staging a folder that may be written and has room for the whole bundle.".into(),
        }
    }
}

/// Copies, and tells the medium's errors from the disk's.
fn copy_all(
    mut from: impl io::Read,
    to: &mut File,
    path: &Path,
    failed: &dyn Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let mut buffer = vec![0; crate::dataset::layer::CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BundleError::Read { path: path.into(), error }.into()),
        }
    }
}
