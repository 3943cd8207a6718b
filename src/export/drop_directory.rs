//! `--drop`: copies bundles to a directory from which a diode or a gateway takes every named file.
//!
//! A file gets its name after it is complete and synced, and the head volume of a bundle gets its name last.
//! The originals stay in the output directory, so that they can be sent again.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::bundle::names::PARTIAL;
use crate::bundle::volumes::{VolumeNumber, parse_name};
use crate::error::Error;
use crate::export::output::dated;
use crate::intake::file_sets::Inputs;
use crate::util::dir::FileMode;
use crate::util::dir::write::{Durability, PendingFile};
use crate::util::fs::{self, Links};

/// The drop directory.
pub(crate) struct DropDirectory<'d>(pub(crate) &'d Path);

impl DropDirectory<'_> {
    /// Checks the directory before anything is fetched.
    ///
    /// # Errors
    /// If it is not a directory.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.0.is_dir() {
            true => Ok(()),
            false => Err(Error::usage(
                format!("the drop directory {} does not exist", self.0.display()),
                "Create it, or check that it is mounted.",
            )),
        }
    }

    /// Copies bundles of a stream from some directories, the oldest first: the newest `count` that are
    /// dated no later than `last`. Keeps files that were not taken yet. Returns the paths of the copies.
    ///
    /// # Errors
    /// If a directory cannot be read, or if a copy cannot be written. The originals stay.
    pub(crate) fn send(
        &self,
        from: &[PathBuf],
        stream: &str,
        count: usize,
        last: Timestamp,
    ) -> Result<Vec<PathBuf>, Error> {
        let there = Inputs::read(from)?;
        let mut bundles: Vec<Vec<PathBuf>> = there
            .keys()
            .filter(|key| dated(key, stream).is_some_and(|date| date <= last) && !there.heads(key).is_empty())
            .map(|key| there.all(key))
            .collect();
        // The names end with dates, so the keys are in the order of dates.
        let old = bundles.len().saturating_sub(count);
        let mut sent = Vec::new();
        for files in bundles.split_off(old) {
            let is_first = |file: &PathBuf| {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let volume = parse_name(&name).map(|(_, number)| number);
                volume == Some(VolumeNumber::HEAD)
                    || volume.is_none() && name.to_lowercase().ends_with(".tar")
            };
            let (first, others): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(is_first);
            for file in others.into_iter().chain(first) {
                sent.extend(self.put(&file)?);
            }
        }
        Ok(sent)
    }

    /// Copies a file, unless a file with its name exists.
    fn put(&self, file: &Path) -> Result<Option<PathBuf>, Error> {
        let to = self.0.join(file.file_name().unwrap_or_default());
        let from = fs::open_regular(file, Links::Follow).map_err(io::Error::from);
        match from.and_then(|mut file| put_new(&to, &mut file)) {
            Ok(true) => Ok(Some(to)),
            Ok(false) => Ok(None),
            Err(error) => Err(Error::Destination {
                path: to,
                what: format!("the copy could not be written: {error}"),
                hint: "The bundle itself was written: free space or repair the directory, then copy the bundle there, its head volume last."
                    .into(),
            }),
        }
    }
}

/// Writes a file that gets its name after it is complete and synced. Returns `false` if the name exists; that
/// file stays.
pub(crate) fn put_new(to: &Path, from: &mut dyn io::Read) -> io::Result<bool> {
    let (directory, name) = fs::holding(to)?;
    if directory.find(name)?.is_some() {
        return Ok(false);
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(PARTIAL);
    let mut copy = PendingFile::create(&directory, hidden, FileMode::AtMost(0o644), None)?;
    io::copy(from, &mut copy)?;
    copy.put_new(name, Durability::Synced)?;
    Ok(true)
}

/// Removes hidden files with the suffix of unfinished ones, such as those that [`put_new`] leaves when its process is
/// killed. `is_ours` decides by the name between the dot and the suffix. No process may be writing them.
pub(crate) fn remove_partials(directory: &Path, is_ours: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(PARTIAL));
        if of.is_some_and(&is_ours) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
