//! The destination of the datasets of a bundle while it is unpacked.
//!
//! This module does not read bundles.

use std::fs::File;
use std::io;

use crate::bundle::payload::Blob;
use crate::bundle::{BundleError, Dataset};
use crate::dataset::{Contents, Discard, Sink};
use crate::error::Error;
use crate::util::fs;

/// The destination of the datasets of a bundle.
pub(crate) trait Receiver {
    /// The sink for the files of one dataset.
    type Sink: Sink + Send;

    /// Whether a dataset is wanted.
    fn wants(&self, dataset: &Dataset) -> bool;

    /// Whether the images are checked too.
    fn wants_images(&self) -> bool {
        false
    }

    /// Returns the file that a delta of a wanted dataset is applied to, and the index of its base. `None` if there is no
    /// such file: then only the bytes of the bundle are checked.
    ///
    /// # Errors
    /// If the file cannot be opened a second time.
    fn base(&self, _: &Dataset) -> io::Result<Option<(usize, File)>> {
        Ok(None)
    }

    /// Creates an unnamed file with space for a database.
    fn temporary(&self) -> io::Result<File> {
        fs::tempfile_in(&std::env::temp_dir())
    }

    /// Returns the sink for a wanted dataset.
    fn sink(&mut self, dataset: &Dataset) -> Result<Self::Sink, Error>;

    /// Converts the error of a sink.
    fn failed(&self, dataset: &Dataset, error: io::Error) -> Error;

    /// Accepts a dataset that is complete and matches the signed description.
    fn complete(&mut self, dataset: &Dataset, sink: Self::Sink) -> Result<(), Error>;
}

/// A receiver that checks datasets and discards them.
pub(crate) enum Check {
    /// Checks everything, including images.
    All,
    /// Checks the datasets with these references.
    Only(Vec<String>),
}

impl Receiver for Check {
    type Sink = Discard;

    fn wants(&self, dataset: &Dataset) -> bool {
        match self {
            Check::All => true,
            Check::Only(references) => references.contains(&dataset.reference()),
        }
    }

    fn wants_images(&self) -> bool {
        matches!(self, Check::All)
    }

    fn sink(&mut self, _: &Dataset) -> Result<Discard, Error> {
        Ok(Discard)
    }

    fn failed(&self, _: &Dataset, error: io::Error) -> Error {
        Error::unexpected("checking a dataset")(error)
    }

    fn complete(&mut self, _: &Dataset, _: Discard) -> Result<(), Error> {
        Ok(())
    }
}

pub(super) fn not_as_signed(path: &std::path::Path, dataset: &Dataset, why: &str) -> Error {
    let member = dataset.content_layer().map_or_else(String::new, Blob::path);
    let why = format!("does not contain the signed {}: {why}", dataset.name);
    BundleError::Member { path: path.into(), member: member.into(), why: why.into() }.into()
}

pub(super) fn same(path: &std::path::Path, dataset: &Dataset, contents: &Contents) -> Result<(), Error> {
    match contents.difference(&dataset.contents) {
        Some(what) => Err(not_as_signed(path, dataset, &what)),
        None => Ok(()),
    }
}
