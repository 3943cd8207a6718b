//! Validates a large layer while it is read. The caller's thread passes the bytes on; another thread
//! decompresses and validates them. Nothing is stored.
//!
//! `dataset` defines valid content. This module does not depend on the source or the destination of the
//! bytes.

use std::io::{self, Read, Write};

use crate::bundle::Dataset;
use crate::dataset::check::{UnpackError, UnpackLimits};
use crate::dataset::examine::{Examination, Examiner};
use crate::dataset::{Contents, Kind, layer};
use crate::error::{Error, panicked};
use crate::progress::Step;
use crate::source::SourceError;
use crate::util::pipe::{PipeWriter, pipe};
use crate::util::text::escape;

/// The result of the validation.
pub(crate) type Validation = Result<Examined, UnpackError>;

/// The content of a layer, and the findings about it.
pub(crate) struct Examined {
    pub(crate) contents: Contents,
    pub(crate) examination: Examination,
}

/// Unpacks a layer and examines its content.
///
/// # Errors
/// If the layer cannot be read, or if its content is not valid, as in [`layer::unpack`].
pub(crate) fn examine(kind: Kind, packed: impl Read + Send) -> Validation {
    let mut examiner = Examiner::new(kind);
    let contents = layer::unpack(kind, packed, UnpackLimits::of(kind), &mut examiner)?;
    Ok(Examined { contents, examination: examiner.finish() })
}

/// Passes a layer to `take` and validates its content at the same time. Returns the result of `take` and that
/// of the validation. If `take` does not read to the end, the validation fails for that reason.
///
/// # Errors
/// [`Error::Unexpected`] if the validating thread panics. Errors of the source or of the content are in the
/// result.
pub(crate) fn validate_while<R: Read, T>(
    kind: Kind,
    source: R,
    step: Box<dyn Step>,
    take: impl FnOnce(ValidatingReader<R>) -> T,
) -> Result<(T, Validation), Error> {
    let (copy, reader) = pipe();
    let (taken, validated) = std::thread::scope(|scope| {
        let validator = scope.spawn(move || examine(kind, reader));
        let taken = take(ValidatingReader { source, copy: Some(copy), step });
        (taken, validator.join())
    });
    Ok((taken, validated.map_err(panicked("validating a layer"))?))
}

/// Explains why reading a layer failed. A failed read also fails the validation, so the error of the reader
/// comes first, unless the validation stopped the reading.
pub(crate) fn broke_off(dataset: &Dataset, error: io::Error, validated: &Validation) -> Error {
    match validated {
        Err(UnpackError::Content(bad)) if error.kind() == io::ErrorKind::BrokenPipe => {
            bad_content(dataset, &bad.0)
        }
        _ => match SourceError::from_io(error) {
            Ok(error) => error.into(),
            Err(error) => Error::unexpected(format!("reading {}", dataset.source))(error),
        },
    }
}

/// The error for content that Trivy could not use.
pub(crate) fn bad_content(dataset: &Dataset, why: &str) -> Error {
    Error::Content {
        dataset: dataset.name.to_string(),
        source_name: dataset.source.clone(),
        why: escape(why),
    }
}

/// Reads a source and passes a copy of its bytes to the validation. If the validation fails, reading stops:
/// the rest would not be used.
pub(crate) struct ValidatingReader<R> {
    source: R,
    copy: Option<PipeWriter>,
    step: Box<dyn Step>,
}

impl<R: Read> Read for ValidatingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if count == 0 {
            if let Some(copy) = self.copy.take() {
                copy.finish();
            }
        } else if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..count])?;
        }
        self.step.advance(count as u64);
        Ok(count)
    }
}
