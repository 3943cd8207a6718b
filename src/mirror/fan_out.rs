//! One large layer to several registries at once, checked on the way.
//!
//! It is fetched once, whatever the number of registries, and nothing of it is kept: each upload is a
//! thread at the end of a pipe that holds about a MiB. The slowest registry sets the pace; one that
//! fails lets the others go on. No pipe says that the layer has ended before all of it was found good
//! and is wanted: an upload whose pipe is dropped breaks off, and its registry keeps nothing.
//!
//! The price of that is small: two places in one registry are both sent the bytes, where the second
//! could have mounted the first's had it waited.

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

/// Where the layer is to go.
pub(crate) struct Taker<'a> {
    pub(crate) registry: &'a Registry<'a>,
    pub(crate) repository: &'a Repository,
}

/// What became of it.
pub(crate) struct FannedOut {
    /// What the content is, or why it is none; `None` where every registry had failed before the end.
    pub(crate) contents: Option<Result<Contents, Error>>,
    /// Whether each taker's registry has the layer now, in their order.
    pub(crate) uploads: Vec<Result<(), PushError>>,
}

/// Fetches a layer for those that are to have it. Where a registry has it already, it is checked all
/// the same. `wants` decides for each taker once the content is known to be good.
///
/// # Errors
/// Only the unexpected.
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
        let in_vain = || failed.load(Ordering::Relaxed) == takers.len();
        let passed =
            validate_while(dataset.name.kind(), blob, step, |layer| pass(layer, &mut pipes, &in_vain));
        let contents = passed.map(|passed| match passed {
            (Ok(true), Ok(examined)) => Some(Ok(examined.contents)),
            (Ok(true), Err(error)) => Some(Err(bad_content(dataset, &error.to_string()))),
            (Ok(false), _) => None,
            (Err(error), validated) => Some(Err(broke_off(dataset, error, &validated))),
        });
        for (index, pipe) in pipes.into_iter().enumerate() {
            // Dropped without having been finished, it tells its upload to break off.
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

/// Copies a layer into every pipe that takes it; says whether to its end, or whether there was nobody
/// left for whom to go on.
fn pass(
    mut layer: impl Read,
    pipes: &mut [Option<PipeWriter>],
    in_vain: &dyn Fn() -> bool,
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
            // Who had the layer, and who failed, reads no further.
            pipe.take_if(|pipe| pipe.write_all(&buffer[..count]).is_err());
        }
        if in_vain() {
            return Ok(false);
        }
    }
}
