//! Makes the files of a dataset from its delta while the bundle is read, and passes them to the receiver.
//!
//! This module does not know where the base comes from, or where the files go.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use crate::bundle::payload::Member;
use crate::bundle::payload::delta::{Base, Delta, DeltaFile, Encoding, Rows};
use crate::bundle::reader::MemberReader;
use crate::bundle::{BundleError, Dataset};
use crate::dataset::check::{Checker, UnpackError, UnpackLimits};
use crate::delta::file_writer::FileWriter;
use crate::delta::java::build::{BuildError, MEMORY, build};
use crate::delta::java::extract::{ExtractError, extract};
use crate::delta::java::head::Head;
use crate::delta::patch::{self, ApplyError};
use crate::delta::stream::{Form, Stream};
use crate::error::Error;
use crate::intake::receiver::{Receiver, not_as_signed, same};
use crate::progress::Progress;
use crate::util::pipe::for_each_chunk;

/// A wanted dataset with a delta, and the members of the delta that were read.
pub(super) struct Rebuilding<'d> {
    dataset: &'d Dataset,
    delta: &'d Delta,
    /// The file that the patch is applied to, and the index of its base; `None` if only the bytes are checked.
    base: Option<(usize, File)>,
    /// The files that are carried whole, and the head of a database, by the path of their member.
    small: Vec<(String, Vec<u8>)>,
}

impl<'d> Rebuilding<'d> {
    /// Returns one for each wanted dataset with a delta.
    ///
    /// # Errors
    /// [`Error::Unexpected`] if the base cannot be opened a second time.
    pub(super) fn of<R: Receiver>(datasets: &'d [Dataset], receiver: &R) -> Result<Vec<Self>, Error> {
        let with_delta = datasets.iter().filter_map(|dataset| Some((dataset, dataset.delta.as_ref()?)));
        with_delta
            .map(|(dataset, delta)| {
                let base =
                    receiver.base(dataset).map_err(Error::unexpected("opening the base of a difference"))?;
                Ok(Rebuilding { dataset, delta, base, small: Vec::new() })
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
        let patched = self.patched(*index).filter(|(_, base)| base.patch.path() == path);
        let Some((form, wanted)) = patched else {
            if self.delta.files.iter().any(|file| is_small(file, &path)) {
                let mut bytes = Vec::new();
                let bundle = member.bundle_path().to_path_buf();
                // The rules of the payload limit its size.
                member.read_to_end(&mut bytes).map_err(|error| BundleError::from_io(&bundle, error))?;
                self.small.push((path, bytes));
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
        let temporary = || receiver.temporary();
        let made = self.make(&mut checker, &mut member, &Source { form, base, wanted }, &temporary);
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
            MakeError::Temporary(error) => {
                Error::unexpected("writing temporary files for a difference")(error)
            }
        })?;
        same(&bundle, self.dataset, &contents)?;
        receiver.complete(self.dataset, sink)
    }
}

impl Rebuilding<'_> {
    /// Returns a base of the file that is patched, and the form of its stream.
    fn patched(&self, index: usize) -> Option<(Form, &Base)> {
        self.delta.files.iter().find_map(|file| match &file.encoding {
            Encoding::Whole { .. } => None,
            Encoding::Patched { form, bases, .. } => Some((*form, bases.get(index)?)),
        })
    }

    /// Passes all files to the checker, in the order of the contents.
    fn make(
        &self,
        checker: &mut Checker<'_>,
        patch: &mut MemberReader<'_>,
        source: &Source<'_>,
        temporary: &dyn Fn() -> io::Result<File>,
    ) -> Result<(), MakeError> {
        for (file, wanted) in self.delta.files.iter().zip(&self.dataset.contents.files) {
            checker.begin(file.path.clone(), wanted.size)?;
            match &file.encoding {
                Encoding::Whole { whole } => checker.data(self.small(&whole.path()))?,
                Encoding::Patched { rows: None, .. } => apply(checker, patch, source)?,
                Encoding::Patched { rows: Some(rows), .. } => {
                    let database = self.build(patch, source, rows, wanted.size, temporary)?;
                    for_each_chunk(&database, MakeError::Temporary, |bytes| Ok(checker.data(bytes)?))?;
                }
            }
            checker.end()?;
        }
        Ok(())
    }

    /// Makes a database from its rows, in a temporary file.
    fn build(
        &self,
        patch: &mut MemberReader<'_>,
        source: &Source<'_>,
        rows: &Rows,
        size: u64,
        temporary: &dyn Fn() -> io::Result<File>,
    ) -> Result<File, MakeError> {
        let head = Head::parse(self.small(&rows.head.path()))
            .map_err(|error| MakeError::Patch(error.to_string()))?;
        let from = temporary().map_err(MakeError::Temporary)?;
        extract(source.base, &from)?;
        let from = Stream::new(from, source.form).map_err(MakeError::Temporary)?;
        let to = temporary().map_err(MakeError::Temporary)?;
        let found = patch::apply(Some(&from), &source.wanted.segments, patch, &mut &to)?;
        if found != rows.stream.digest {
            return Err(MakeError::Patch("the patch does not make the signed rows".into()));
        }
        drop(from);
        let database = temporary().map_err(MakeError::Temporary)?;
        build(&to, &head, &database, size, MEMORY)?;
        (&database).rewind().map_err(MakeError::Temporary)?;
        Ok(database)
    }

    /// Returns a member that was kept in memory.
    fn small(&self, path: &str) -> &[u8] {
        self.small.iter().find(|(known, _)| known == path).map_or(&[][..], |(_, bytes)| bytes)
    }
}

/// The base of a file, and the patch that is applied to it.
struct Source<'s> {
    form: Form,
    base: &'s File,
    wanted: &'s Base,
}

/// Applies a patch, and passes the file to the checker.
fn apply(
    checker: &mut Checker<'_>,
    patch: &mut MemberReader<'_>,
    source: &Source<'_>,
) -> Result<(), MakeError> {
    let base = source.base.try_clone().and_then(|base| Stream::new(base, source.form));
    let base = base.map_err(MakeError::Temporary)?;
    let mut taken = CheckerWriter { checker, failed: None };
    let mut writer = FileWriter::new(&mut taken, source.form);
    let applied = patch::apply(Some(&base), &source.wanted.segments, patch, &mut writer);
    let finished = writer.finish();
    if let Some(error) = taken.failed {
        return Err(error.into());
    }
    applied?;
    finished.map_err(UnpackError::Sink)?;
    Ok(())
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

/// Whether a member is kept in memory for a file: the file itself, or its head.
fn is_small(file: &DeltaFile, path: &str) -> bool {
    match &file.encoding {
        Encoding::Whole { whole } => whole.path() == path,
        Encoding::Patched { rows, .. } => rows.as_ref().is_some_and(|rows| rows.head.path() == path),
    }
}

/// The reason why the files could not be made.
enum MakeError {
    /// The checker rejected the files, or the sink failed.
    Unpack(UnpackError),
    /// The patch cannot be applied. The text is a clause.
    Patch(String),
    /// The base cannot be read, or a temporary file cannot be written.
    Temporary(io::Error),
}

impl From<UnpackError> for MakeError {
    fn from(error: UnpackError) -> Self {
        MakeError::Unpack(error)
    }
}

impl From<ExtractError> for MakeError {
    fn from(error: ExtractError) -> Self {
        match error {
            ExtractError::Io(error) => MakeError::Temporary(error),
            error @ ExtractError::NotRows(_) => MakeError::Patch(error.to_string()),
        }
    }
}

impl From<ApplyError> for MakeError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Read(error) => UnpackError::Read(error).into(),
            ApplyError::Write(error) => MakeError::Temporary(error),
            error => MakeError::Patch(error.to_string()),
        }
    }
}

impl From<BuildError> for MakeError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Io(error) => MakeError::Temporary(error),
            error => MakeError::Patch(error.to_string()),
        }
    }
}
