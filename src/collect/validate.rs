//! Validates a large layer while it is read. The caller's thread passes the bytes on; another thread
//! inflates them and checks the content. Nothing is stored.
//!
//! `dataset` knows what good content is. This module does not know where the bytes come from or go.

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

/// What the checker found.
pub(crate) type Validation = Result<Examined, UnpackError>;

/// The content of a layer, and what is odd about it.
pub(crate) struct Examined {
    pub(crate) contents: Contents,
    pub(crate) examination: Examination,
}

/// Unpacks a layer, and looks at what it holds.
///
/// # Errors
/// Those of [`layer::unpack`].
pub(crate) fn examine(kind: Kind, packed: impl Read + Send) -> Validation {
    let mut examiner = Examiner::new(kind);
    let contents = layer::unpack(kind, packed, UnpackLimits::of(kind), &mut examiner)?;
    Ok(Examined { contents, examination: examiner.finish() })
}

/// Hands a layer to `take` while its content is checked. Says what `take` came to and what was found,
/// in that order: a checker that was left without the end says no more than that.
///
/// # Errors
/// [`Error::Unexpected`] if the checking thread panics. An error of the source or of the content is in the
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
    Ok((taken, validated.map_err(panicked("checking"))?))
}

/// What it means that reading a layer ended with an error. The checker sees a cut stream as the
/// reader's failure, so the reader's own word is better, unless the checker had seen enough.
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

/// Content that a source serves and Trivy could not use.
pub(crate) fn bad_content(dataset: &Dataset, why: &str) -> Error {
    Error::Content {
        dataset: dataset.name.to_string(),
        source_name: dataset.source.clone(),
        why: escape(why),
    }
}

/// Reads a source and hands a copy of its bytes to the checker. A checker that has seen enough
/// stops the reading: there is no point in fetching what nobody will use.
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
