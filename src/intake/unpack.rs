//! Unpacks the datasets of a verified bundle in one pass, and compares the result with the signed description. It
//! does not depend on the targets of the data.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::SpooledTempFile;

use crate::bundle::payload::{self, Blob};
use crate::bundle::reader::MemberReader;
use crate::bundle::{BundleError, Dataset, VerifiedBundle};
use crate::dataset::Contents;
use crate::dataset::check::{UnpackError, UnpackLimits};
use crate::dataset::layer::{self, CHUNK};
use crate::error::{Error, panicked};
use crate::intake::rebuild_delta::Rebuilding;
use crate::intake::receiver::{Receiver, not_as_signed, same};
use crate::progress::{Progress, Step};
use crate::util::pipe::{PipeWriter, pipe};
use crate::util::spool::{IN_MEMORY, spool};

/// Reads the bundle from front to back. Compares every header and every byte of a wanted dataset with the signed
/// manifest, and skips large layers that are not wanted.
///
/// # Errors
/// [`Error::Bundle`] if the bundle is damaged, or its content does not match the signed description; the error of the
/// receiver if it or its sink fails; [`Error::Unexpected`] if a temporary file cannot be written.
pub(crate) fn unpack_bundle<R: Receiver>(
    bundle: &VerifiedBundle,
    receiver: &mut R,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let path = bundle.path().to_path_buf();
    let datasets: Vec<Dataset> =
        bundle.payload().datasets.iter().filter(|dataset| receiver.wants(dataset)).cloned().collect();
    let large = |member: &payload::Member| {
        datasets.iter().find(|d| {
            d.name.kind().is_large()
                && d.delta.is_none()
                && d.content_layer().is_some_and(|l| l.path() == member.path)
        })
    };
    let mut deltas = Rebuilding::of(&datasets, receiver)?;
    let skippable = skippable(bundle.payload(), receiver.wants_images());
    let mut small: BTreeMap<String, SpooledTempFile> = BTreeMap::new();
    let mut in_memory = IN_MEMORY;
    let mut members = bundle.members();
    while let Some(member) = members.next()? {
        if let Some(delta) = deltas.iter_mut().find(|delta| delta.needs(member.member())) {
            delta.take(member, receiver, progress)?;
        } else if let Some(dataset) = large(member.member()) {
            let step = progress.begin(&dataset.reference(), member.member().size, "");
            let mut sink = receiver.sink(dataset)?;
            let contents = stream(member, dataset, &mut sink, &*step, receiver)?;
            same(&path, dataset, &contents)?;
            receiver.complete(dataset, sink)?;
        } else if skippable.contains(&member.member().path) {
            continue;
        } else if let Some(name) = content_of(&datasets, member.member()) {
            // A bundle may have 64 of them, so their memory is limited together.
            let most = in_memory.min(member.member().size);
            let failed = |error| BundleError::from_io(&path, error).into();
            let spooled = spool(member, most, failed, Error::spooling)?;
            in_memory -= if spooled.is_rolled() { 0 } else { most };
            small.insert(name, spooled);
        } else if let Some(dataset) = datasets.iter().find(|d| d.manifest.path() == member.member().path) {
            check_manifest(member, dataset)?;
        } else {
            member.check()?;
        }
    }
    for dataset in datasets.iter().filter(|dataset| !dataset.name.kind().is_large()) {
        let missing = || BundleError::Payload {
            path: path.clone(),
            why: format!("{} has no layer", dataset.reference()).into(),
        };
        let mut sink = receiver.sink(dataset)?;
        let layer = dataset.content_layer().ok_or_else(missing)?;
        let file = small.get_mut(&layer.path()).ok_or_else(missing)?;
        file.rewind().map_err(Error::spooling)?;
        let unpacked = dataset.unpack(file, &mut sink);
        let contents = unpacked.map_err(|error| match error {
            UnpackError::Sink(error) => receiver.failed(dataset, error),
            UnpackError::Read(error) => Error::spooling(error),
            UnpackError::Content(error) => not_as_signed(&path, dataset, &error.to_string()),
        })?;
        same(&path, dataset, &contents)?;
        receiver.complete(dataset, sink)?;
    }
    Ok(())
}

/// Checks that the manifest of a dataset names the signed blobs.
fn check_manifest(mut member: MemberReader<'_>, dataset: &Dataset) -> Result<(), BundleError> {
    let path = member.bundle_path().to_path_buf();
    // The rules of the payload limit its size.
    let mut manifest = Vec::new();
    member.read_to_end(&mut manifest).map_err(|error| BundleError::from_io(&path, error))?;
    dataset.agrees_with(&manifest).map_err(|why| {
        let why = format!("{}: {}", dataset.reference(), crate::util::text::escape(&why));
        BundleError::Payload { path, why: why.into() }
    })
}

/// Returns the members that may be skipped: large layers, and blobs that only images use.
fn skippable(payload: &payload::Payload, images: bool) -> BTreeSet<String> {
    let of_datasets = || payload.datasets.iter().flat_map(Dataset::blobs);
    let small: BTreeSet<String> = of_datasets().filter(|blob| !blob.is_large()).map(Blob::path).collect();
    let of_images = payload.images.iter().filter(|_| !images).flat_map(payload::Image::all);
    let paths = of_datasets().filter(|blob| blob.is_large()).chain(of_images).map(Blob::path);
    paths.filter(|path| !small.contains(path)).collect()
}

/// Returns the name of the member if it holds the content of one of these datasets.
fn content_of(datasets: &[Dataset], member: &payload::Member) -> Option<String> {
    let mut layers = datasets.iter().filter_map(Dataset::content_layer);
    layers.any(|layer| layer.path() == member.path).then(|| member.path.clone())
}

/// Unpacks a large layer while it is read. This thread reads and hashes; another one inflates, hashes and writes.
fn stream<R: Receiver>(
    member: MemberReader<'_>,
    dataset: &Dataset,
    sink: &mut R::Sink,
    step: &dyn Step,
    receiver: &R,
) -> Result<Contents, Error> {
    let path = member.bundle_path().to_path_buf();
    let (writer, reader) = pipe();
    let sink_failed = AtomicBool::new(false);
    let (read, unpacked) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let limits = UnpackLimits::exactly(&dataset.contents);
            let result = layer::unpack(dataset.name.kind(), reader, limits, sink);
            sink_failed.store(matches!(result, Err(UnpackError::Sink(_))), Ordering::Relaxed);
            result
        });
        let read = feed(member, writer, &sink_failed, step);
        (read, worker.join())
    });
    let unpacked = unpacked.map_err(panicked("unpacking"))?;
    if let Err(UnpackError::Sink(error)) = unpacked {
        return Err(receiver.failed(dataset, error));
    }
    // Damage causes both errors. The wrong digest is the more helpful one.
    read.map_err(|error| BundleError::from_io(&path, error))?;
    unpacked.map_err(|error| not_as_signed(&path, dataset, &error.to_string()))
}

/// Reads to the end, even if the reader on the other thread has stopped, because only the end shows whether the
/// digest is the signed one.
fn feed(
    mut member: MemberReader<'_>,
    writer: PipeWriter,
    stop: &AtomicBool,
    step: &dyn Step,
) -> io::Result<()> {
    let mut writer = Some(writer);
    let mut buffer = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        let count = member.read(&mut buffer)?;
        if count == 0 {
            if let Some(writer) = writer.take() {
                writer.finish();
            }
            break;
        }
        if writer.as_mut().is_some_and(|writer| writer.write_all(&buffer[..count]).is_err()) {
            writer = None;
        }
        step.advance(count as u64);
    }
    Ok(())
}
