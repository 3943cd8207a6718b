//! Streams one large layer to several registries at once, and validates it at the same time.
//!
//! The layer is fetched once for all registries and is not stored: each upload is a thread that reads from a
//! pipe of about 1 MiB. The slowest registry limits the speed; if one fails, the others continue. A pipe is
//! finished only after the complete layer is valid and accepted. If a pipe is dropped instead, its upload
//! is aborted and the registry keeps nothing.
//!
//! The cost is small: two places in one registry both receive the bytes, although the second could have
//! mounted the blob of the first.
//!
//! This module does not depend on the rules of a place or on the access to a registry.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bundle::Dataset;
use crate::collect::validate::{bad_content, broke_off, validate_while};
use crate::dataset::Contents;
use crate::error::{Error, panicked};
use crate::oci::Descriptor;
use crate::progress::Step;
use crate::remote::Repository;
use crate::source::Blob;
use crate::targets::registry::{PushError, Registry};
use crate::util::pipe::{CHUNK, PipeWriter, pipe};

/// A repository that receives the layer.
pub(crate) struct Taker<'a> {
    pub(crate) registry: &'a Registry<'a>,
    pub(crate) repository: &'a Repository,
}

/// The result of a fan-out.
pub(crate) struct FannedOut {
    /// The contents, or the reason why they are not valid; `None` if every upload failed before the end.
    pub(crate) contents: Option<Result<Contents, Error>>,
    /// The result of each taker's upload, in their order.
    pub(crate) uploads: Vec<Result<(), PushError>>,
}

/// Fetches a layer for some registries, and validates it even if a registry already has it. `wants` decides
/// for each taker after the content is known to be valid.
///
/// # Errors
/// If a thread panics. Errors of the source, the content and the registries are in the result.
pub(crate) fn fan_out<'a>(
    dataset: &Dataset,
    layer: &Descriptor,
    blob: Blob,
    step: Box<dyn Step>,
    takers: &[Taker<'a>],
    wants: impl Fn(usize, &Contents) -> bool,
) -> Result<FannedOut, Error> {
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let start = |taker: &Taker<'a>| {
            let (writer, reader) = pipe();
            let (registry, repository) = (taker.registry, taker.repository.clone());
            let failed = &failed;
            let upload = scope.spawn(move || {
                let pushed = registry.push_blob_once(&repository, layer.digest, layer.size, reader);
                failed.fetch_add(usize::from(pushed.is_err()), Ordering::Relaxed);
                pushed.map(|_| ())
            });
            (Some(writer), upload)
        };
        let (mut pipes, uploads): (Vec<Option<PipeWriter>>, Vec<_>) = takers.iter().map(start).unzip();
        let all_failed = || failed.load(Ordering::Relaxed) == takers.len();
        let passed =
            validate_while(dataset.name.kind(), blob, step, |layer| pass(layer, &mut pipes, &all_failed));
        let contents = passed.map(|passed| match passed {
            (Ok(true), Ok(examined)) => Some(Ok(examined.contents)),
            (Ok(true), Err(error)) => Some(Err(bad_content(dataset, &error.to_string()))),
            (Ok(false), _) => None,
            (Err(error), validated) => Some(Err(broke_off(dataset, error, &validated))),
        });
        for (index, pipe) in pipes.into_iter().enumerate() {
            // Dropping a pipe without finishing it aborts its upload.
            let Some(pipe) = pipe else { continue };
            if let Ok(Some(Ok(contents))) = &contents
                && wants(index, contents)
            {
                pipe.finish();
            }
        }
        let uploads: Result<Vec<_>, Error> =
            uploads.into_iter().map(|upload| upload.join().map_err(panicked("pushing"))).collect();
        Ok(FannedOut { contents: contents?, uploads: uploads? })
    })
}

/// Copies a layer to every pipe that is still read. Returns `false` if every upload failed before the end.
fn pass(
    mut layer: impl Read,
    pipes: &mut [Option<PipeWriter>],
    all_failed: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match layer.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if count == 0 {
            return Ok(true);
        }
        for pipe in pipes.iter_mut() {
            // An upload that failed, or whose registry has the layer, no longer reads.
            pipe.take_if(|pipe| pipe.write_all(&buffer[..count]).is_err());
        }
        if all_failed() {
            return Ok(false);
        }
    }
}
