//! Makes the files of a dataset from its delta while the bundle is read, and passes them to the receiver.
//!
//! This module does not know where the base comes from, or where the files go.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::bundle::delta::{Base, Delta, DeltaFile, Encoding};
use crate::bundle::payload::Member;
use crate::bundle::reader::MemberReader;
use crate::bundle::{BundleError, Dataset};
use crate::dataset::Contents;
use crate::dataset::check::{Checker, UnpackError, UnpackLimits};
use crate::delta::patch::{self, ApplyError};
use crate::delta::file_writer::FileWriter;
use crate::delta::stream::{Form, Stream};
use crate::error::Error;
use crate::intake::unpack::{Receiver, not_as_signed, same};
use crate::progress::Progress;

/// A wanted dataset with a delta, and what was read of it so far.
pub(super) struct Rebuilding<'d> {
    dataset: &'d Dataset,
    delta: &'d Delta,
    /// The file that the patch is applied to, and the index of its base; `None` if only the bytes are checked.
    base: Option<(usize, File)>,
    /// The files that are carried whole, by the path of their member.
    whole: Vec<(String, Vec<u8>)>,
}

impl<'d> Rebuilding<'d> {
    /// Returns one for each wanted dataset with a delta.
    pub(super) fn of<R: Receiver>(datasets: &'d [Dataset], receiver: &mut R) -> Vec<Rebuilding<'d>> {
        let with_delta = datasets.iter().filter_map(|dataset| Some((dataset, dataset.delta.as_ref()?)));
        with_delta
            .map(|(dataset, delta)| Rebuilding {
                dataset,
                delta,
                base: receiver.base(dataset),
                whole: Vec::new(),
            })
            .collect()
    }

    /// Whether a member is part of the delta.
    pub(super) fn needs(&self, member: &Member) -> bool {
        self.delta.blobs().any(|blob| blob.path() == member.path)
    }

    /// Reads a member of the delta. The patch of the base comes after the files that are carried whole, because it is
    /// a large member.
    ///
    /// # Errors
    /// [`Error::Bundle`] if the bundle is damaged, or the result does not match the signed description; the error of the
    /// receiver if it or its sink fails.
    pub(super) fn take<R: Receiver>(
        &mut self,
        mut member: MemberReader<'_>,
        receiver: &mut R,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let Some((index, base)) = &self.base else { return Ok(member.check()?) };
        let path = member.member().path.clone();
        let patched = self.patched(*index).filter(|(_, _, base)| base.patch.path() == path);
        let Some((file, form, wanted)) = patched else {
            if self.delta.files.iter().any(|file| is_whole(file, &path)) {
                let mut bytes = Vec::new();
                let bundle = member.bundle_path().to_path_buf();
                // The rules of the payload limit its size.
                member.read_to_end(&mut bytes).map_err(|error| BundleError::from_io(&bundle, error))?;
                self.whole.push((path, bytes));
                return Ok(());
            }
            // It is the patch of another base.
            return Ok(member.check()?);
        };
        let step = progress.begin(&self.dataset.reference(), wanted.patch.size, "");
        let bundle = member.bundle_path().to_path_buf();
        let mut sink = receiver.sink(self.dataset)?;
        let limits = UnpackLimits::exactly(&self.dataset.contents);
        let mut checker = Checker::new(self.dataset.name.kind(), limits, &mut sink);
        let stream = base.try_clone().and_then(|base| Stream::new(base, form));
        let stream = stream.map_err(Error::unexpected("reading the base of a difference"))?;
        let made = self.make(&mut checker, &mut member, (file, form), (&stream, wanted));
        step.advance(wanted.patch.size);
        let made = made.and_then(|()| Ok(checker.finish()?));
        // Damage causes other errors too. The wrong digest is the most helpful one.
        member.check().map_err(Error::from)?;
        let contents = made.map_err(|error| match error {
            MakeError::Unpack(UnpackError::Sink(error)) => receiver.failed(self.dataset, error),
            MakeError::Unpack(UnpackError::Read(error)) => BundleError::from_io(&bundle, error).into(),
            MakeError::Unpack(UnpackError::Content(error)) => {
                not_as_signed(&bundle, self.dataset, &error.to_string())
            }
            MakeError::Patch(why) => not_as_signed(&bundle, self.dataset, &why),
        })?;
        same(&bundle, self.dataset, &contents)?;
        receiver.complete(self.dataset, sink)
    }
}

impl Rebuilding<'_> {
    /// Returns the file that is made from a base, with that base.
    fn patched(&self, index: usize) -> Option<(&DeltaFile, Form, &Base)> {
        self.delta.files.iter().find_map(|file| match &file.encoding {
            Encoding::Whole { .. } => None,
            Encoding::Patched { form, bases } => Some((file, *form, bases.get(index)?)),
        })
    }

    /// Passes all files to the checker, in the order of the contents.
    fn make(
        &self,
        checker: &mut Checker<'_>,
        patch: &mut MemberReader<'_>,
        (patched, form): (&DeltaFile, Form),
        (stream, base): (&Stream, &Base),
    ) -> Result<(), MakeError> {
        for (file, wanted) in self.delta.files.iter().zip(&self.dataset.contents.files) {
            checker.begin(file.path.clone(), wanted.size)?;
            if file.path == patched.path {
                let mut taken = CheckerWriter { checker: &mut *checker, failed: None };
                let mut writer = FileWriter::new(&mut taken, form);
                let applied = patch::apply(Some(stream), &base.segments, &mut *patch, &mut writer);
                let finished = writer.finish();
                match (applied, finished, taken.failed) {
                    (_, _, Some(error)) => return Err(error.into()),
                    (Err(ApplyError::Read(error)), _, _) => return Err(UnpackError::Read(error).into()),
                    (Err(error), _, _) => return Err(MakeError::Patch(error.to_string())),
                    (Ok(_), finished, None) => {
                        finished.map_err(UnpackError::Sink)?;
                    }
                }
            } else {
                let bytes = self.whole.iter().find(|(path, _)| is_whole(file, path));
                checker.data(bytes.map_or(&[][..], |(_, bytes)| bytes))?;
            }
            checker.end()?;
        }
        Ok(())
    }
}

/// Passes the bytes of a file to the checker.
struct CheckerWriter<'c, 's> {
    checker: &'c mut Checker<'s>,
    /// The reason why the checker rejected the bytes.
    failed: Option<UnpackError>,
}

impl Write for CheckerWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.checker.data(bytes).map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the file was rejected")
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a file is this member.
fn is_whole(file: &DeltaFile, path: &str) -> bool {
    matches!(&file.encoding, Encoding::Whole { whole } if whole.path() == path)
}

/// The reason why the files could not be made.
enum MakeError {
    /// The checker rejected the files, or the sink failed.
    Unpack(UnpackError),
    /// The patch cannot be applied. The text is a clause.
    Patch(String),
}

impl From<UnpackError> for MakeError {
    fn from(error: UnpackError) -> Self {
        MakeError::Unpack(error)
    }
}
