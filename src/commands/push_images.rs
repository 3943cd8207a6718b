//! Pushing the images that travel beside the datasets: whatever of them a registry lacks, and their
//! names at the end. What there is to do is decided by asking the registry.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::fate::left_out;
use super::import::Setup;
use super::import_report::{ImageRow, Report, Status};
use super::memory::{Memory, image_key};
use super::place::Place;
use super::registries::is_out;
use crate::bundle::payload::Blob;
use crate::bundle::{BundleError, Image, VerifiedBundle};
use crate::cli::Import;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci;
use crate::progress::{Counted, Progress};
use crate::remote::Repository;
use crate::target::registry::{PushError, Registry};
use crate::trust::Refusal;
use crate::trust::acceptance::{Admission, Verdict, judge};

/// An image of one of the bundles.
struct Choice {
    bundle: usize,
    created: Timestamp,
    image: Image,
}

/// Pushes the wanted images of the admitted bundles, of each name the newest. What fails keeps no other
/// from its place.
#[allow(clippy::too_many_arguments)] // One call; a struct would only rename them.
pub(super) fn push_images(
    args: &Import,
    setup: &Setup,
    registry: &Registry<'_>,
    place: &Place,
    bundles: &[VerifiedBundle],
    admitted: &[Option<Admission>],
    memory: &mut Memory<'_>,
    report: &mut Report,
    progress: &dyn Progress,
) {
    let mut taken = of_datasets(args, bundles);
    let mut out = false;
    for choice in wanted(args, bundles, admitted) {
        let name = &choice.image.name;
        let Some(reference) = place.image(name) else { continue };
        let mut row = ImageRow::new(&choice.image);
        let pushed = reference.map_err(Error::from).and_then(|reference| {
            row.reference = Some(reference.to_string());
            if let Some(other) = taken.insert(reference.to_string(), name.clone()) {
                return Err(Error::usage(
                    format!("{other} and {name} would both be {reference}"),
                    "Push one of them with --also NAME, or give --registry another prefix.",
                ));
            }
            if out {
                return Ok(Status::Failed);
            }
            let seen = admitted.get(choice.bundle).and_then(Option::as_ref).is_some_and(|it| it.seen)
                && memory.state().floors.contains_key(&image_key(name));
            let status = push(&choice, setup, registry, &reference, bundles, memory, report, progress)?;
            Ok(if seen && status == Status::Pushed { Status::Restored } else { status })
        });
        match pushed {
            Ok(status) => row.status = status,
            Err(error) => {
                // Whom nobody reaches, nobody asks sixty times.
                out |= matches!(&error, Error::Target(error) if is_out(error));
                report.errors.push(error);
            }
        }
        report.images.push(row);
    }
}

/// The references that datasets have in this run, with what has them: no image may take one.
fn of_datasets(args: &Import, bundles: &[VerifiedBundle]) -> BTreeMap<String, String> {
    let mut taken = BTreeMap::new();
    for dataset in bundles.iter().flat_map(|bundle| &bundle.payload().datasets) {
        let tags = args.registry.extra_tag.iter().map(String::as_str).chain([dataset.tag.as_str()]);
        for (tag, place) in tags.flat_map(|tag| args.registry.places.iter().map(move |place| (tag, place))) {
            if let Ok(Some(reference)) = place.repository(&dataset.name, tag) {
                taken.insert(reference.to_string(), dataset.name.to_string());
            }
        }
    }
    taken
}

/// Whether the bundles hold every image that is asked for.
///
/// # Errors
/// One that is in none of them.
pub(super) fn check_asked(args: &Import, bundles: &[VerifiedBundle]) -> Result<(), Error> {
    let held: BTreeSet<&str> =
        bundles.iter().flat_map(|bundle| &bundle.payload().images).map(|image| image.name.as_str()).collect();
    if !args.also.is_empty() && args.registry.places.iter().all(|place| place.dataset().is_some()) {
        return Err(Error::usage(
            "--also names an image, and no --registry takes images",
            "Name one as HOST[/PREFIX] as well.",
        ));
    }
    let missing = args.also.iter().map(ToString::to_string).find(|name| !held.contains(name.as_str()));
    let Some(name) = missing else { return Ok(()) };
    let next = match held.into_iter().collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => "No image is in them at all: export it with --also.".into(),
        names => format!("What they hold is {names}."),
    };
    Err(Error::usage(format!("no bundle here holds {name}, which --also asks for"), next))
}

/// Of each name the image of the newest admitted bundle.
fn wanted(args: &Import, bundles: &[VerifiedBundle], admitted: &[Option<Admission>]) -> Vec<Choice> {
    let asked: BTreeSet<String> = args.also.iter().map(ToString::to_string).collect();
    let mut newest: BTreeMap<String, Choice> = BTreeMap::new();
    let mut doubles = Vec::new();
    let all = asked.is_empty() && args.selection.only.is_empty();
    for (index, (bundle, admission)) in bundles.iter().zip(admitted).enumerate() {
        let images = bundle.payload().images.iter().filter(|_| admission.is_some());
        for image in images.filter(|image| all || asked.contains(&image.name)) {
            let created = bundle.payload().created;
            let choice = Choice { bundle: index, created, image: image.clone() };
            // Where it goes, its host does not: two names may mean one place, and the newer bundle has it.
            match newest.get(&image_key(&image.name)) {
                Some(other) if other.bundle == index => doubles.push(choice),
                _ => drop(newest.insert(image_key(&image.name), choice)),
            }
        }
    }
    newest.into_values().chain(doubles).collect()
}

#[allow(clippy::too_many_arguments)] // One call; a struct would only rename them.
fn push(
    choice: &Choice,
    setup: &Setup,
    registry: &Registry<'_>,
    reference: &Repository,
    bundles: &[VerifiedBundle],
    memory: &mut Memory<'_>,
    report: &mut Report,
    progress: &dyn Progress,
) -> Result<Status, Error> {
    let Choice { bundle, created, image } = choice;
    let found = registry.manifest(reference)?.map(|bytes| Digest::of(&bytes));
    if found == Some(image.manifest.digest) && is_whole(registry, reference, image)? {
        return Ok(Status::Unchanged);
    }
    let floor = memory.state().floors.get(&image_key(&image.name)).copied();
    if let Verdict::Older { floor } = judge(Some(*created), floor)
        && !setup.policy.allow_rollback
    {
        if found.is_none() {
            let dataset = image.name.clone();
            return Err(Refusal::MissingAndOlder { dataset, date: *created, floor }.into());
        }
        report.warnings.push(left_out(&image.name, "not pushed", *created, floor));
        return Ok(Status::Older);
    }
    memory.about_to_change(setup.host.now)?;
    let Some(bundle) = bundles.get(*bundle) else { return Ok(Status::Failed) };
    for blob in &image.blobs {
        push_blob(registry, reference, bundle, image, blob, progress)?;
    }
    let manifests = || image.manifests.iter().chain([&image.manifest]);
    let bytes = bundle.small_members(&manifests().map(Blob::path).collect(), oci::MAX_MANIFEST)?;
    for manifest in manifests() {
        // Its name comes last: until then nothing but digests leads to what is below.
        let named = manifest.digest == image.manifest.digest;
        let under = if named { reference.clone() } else { reference.by_digest(manifest.digest) };
        let Some(bytes) = bytes.get(&manifest.path()) else {
            let why = format!("it has no blob {}", manifest.digest);
            return Err(BundleError::Payload { path: bundle.path().to_path_buf(), why }.into());
        };
        registry.push_manifest(&under, &manifest.media_type, bytes)?;
    }
    Ok(Status::Pushed)
}

/// Whether a registry has everything below an image's name.
fn is_whole(registry: &Registry<'_>, reference: &Repository, image: &Image) -> Result<bool, Error> {
    for manifest in &image.manifests {
        if registry.manifest(&reference.by_digest(manifest.digest))?.is_none() {
            return Ok(false);
        }
    }
    Ok(registry.has_all(reference, image.blobs.iter().map(|blob| (blob.digest, blob.size)))?)
}

fn push_blob(
    registry: &Registry<'_>,
    reference: &Repository,
    bundle: &VerifiedBundle,
    image: &Image,
    blob: &Blob,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let path = bundle.path().to_path_buf();
    let member = bundle.blob(blob.digest)?;
    let step = progress.begin(&image.name, blob.size, reference.host());
    match registry.push_blob(reference, blob.digest, blob.size, Counted::new(member, step)) {
        Ok(_) => Ok(()),
        Err(PushError::Target(error)) => Err(error.into()),
        Err(PushError::Source(error)) => Err(BundleError::from_io(&path, error).into()),
    }
}
