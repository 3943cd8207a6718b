//! Pushes the requested images of the bundles: the blobs and manifests that a registry lacks, then the tags. This
//! module does not depend on other targets.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::bundle::payload::Blob;
use crate::bundle::{BundleError, Image, VerifiedBundle};
use crate::dataset::Name;
use crate::delivery::context::DeliveryContext;
use crate::delivery::decision::older_data_warning;
use crate::delivery::image_pattern::ChosenPlace;
use crate::delivery::image_place::DatasetPlaces;
use crate::delivery::ledger::{InstalledImage, TargetLedger, image_key};
use crate::delivery::registry_access::is_out;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{DeliveryStatus, ImageResult, TargetReport};
use crate::digest::Digest;
use crate::error::Error;
use crate::import::options::ImportOptions;
use crate::import::registry::image_compat::{self, RewrittenImage};
use crate::import::registry::push::MemberSource;
use crate::oci;
use crate::progress::Progress;
use crate::remote::Repository;
use crate::targets::registry::{PushError, Registry};
use crate::trust::Rejection;
use crate::trust::acceptance::{Admission, DatasetDecision, judge};

/// Validates `--image` against `--registry`.
///
/// # Errors
/// If an image has no registry that it can be pushed to.
pub(crate) fn check_places(options: &ImportOptions) -> Result<(), Error> {
    let places = &options.registry.places;
    for chosen in options.image.iter().filter_map(|wanted| wanted.place.as_ref()) {
        if home_of(chosen, places).is_none() {
            return Err(Error::usage(
                format!("--image names a place on {}, but no --registry names that host", chosen.host()),
                format!("Add --registry {}, or choose a reference on another host.", chosen.host()),
            ));
        }
    }
    let takes_none = places.iter().all(|place| place.dataset().is_some());
    match options.image.iter().find(|wanted| wanted.place.is_none()) {
        Some(wanted) if takes_none => Err(Error::usage(
            format!("--image {wanted} requests an image, but no --registry is for images"),
            "Add --registry HOST[/PREFIX], or choose a reference with --image NAME=HOST/PATH:TAG.",
        )),
        _ => Ok(()),
    }
}

/// Returns the `--registry` that a chosen reference belongs to: the first with its host, preferably one that is not for
/// a single dataset.
fn home_of<'p>(chosen: &ChosenPlace, places: &'p [RegistryPlace]) -> Option<&'p RegistryPlace> {
    let mine = || places.iter().filter(|place| place.host() == chosen.host());
    mine().find(|place| place.dataset().is_none()).or(mine().next())
}

/// Pushes the images of one run to one target.
pub(crate) struct ImagePusher<'a> {
    pub(crate) options: &'a ImportOptions,
    pub(crate) context: &'a DeliveryContext,
    pub(crate) registry: &'a Registry<'a>,
    pub(crate) place: &'a RegistryPlace,
    pub(crate) bundles: &'a [VerifiedBundle],
    pub(crate) progress: &'a dyn Progress,
}

/// An image of a bundle, and the reference that it gets.
struct ImageChoice {
    bundle: usize,
    created: Timestamp,
    image: Image,
    reference: Repository,
    /// Its key in the ledger.
    key: String,
    /// The documents that `--compat` rewrote, which are not in the bundle.
    documents: BTreeMap<Digest, Vec<u8>>,
}

/// The references that an image gets.
enum RequestedPlaces {
    /// No `--image` names the image.
    No,
    /// These references of the target; empty if the image is for another target.
    To(Vec<Repository>),
}

impl ImagePusher<'_> {
    /// Pushes the newest version of each requested image in the admitted bundles. If one fails, the others are still
    /// pushed; the errors are in the report.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub(crate) fn push_all(
        &self,
        admitted: &mut [Option<Admission>],
        ledger: &mut TargetLedger<'_>,
        report: &mut TargetReport,
    ) -> Result<(), Error> {
        let choices = self.choices(admitted, report);
        if choices.is_empty() {
            return Ok(());
        }
        let datasets = self.datasets(ledger)?;
        let mut claimed = BTreeMap::new();
        let mut out = false;
        for mut choice in choices {
            let mut row = ImageResult::new(&choice.image);
            let installed = |reference| InstalledImage::new(&choice.image, choice.key.clone(), reference);
            let mut installed = installed(choice.reference.to_string());
            let Some(Some(admission)) = admitted.get_mut(choice.bundle) else { continue };
            let done = match self.rewrite(&mut choice).and(Ok(may_go(&choice, &datasets, &mut claimed))) {
                Err(error) => Err(error),
                Ok(Err(rejection)) => Err(rejection.into()),
                Ok(Ok(())) if out => Ok(DeliveryStatus::Failed),
                Ok(Ok(())) => self.deliver(&choice, &mut PushRecords { admission, ledger, report }),
            };
            let reference = choice.reference.to_string();
            row.reference = Some(reference.clone());
            match done {
                Ok(status) => {
                    row.status = status;
                    if status.is_change() && !choice.documents.is_empty() {
                        report.advice.push(format!(
                            "{}: its manifests were rewritten for this registry; the layers keep their digests.",
                            choice.image.name
                        ));
                    }
                    if status.is_in_place() {
                        (installed.in_place, installed.reference) = (choice.image.manifest.digest, reference);
                        report.installed.add_image(installed);
                    }
                }
                Err(error) => {
                    // If the registry is unreachable, the remaining images are not tried.
                    out |= matches!(&error, Error::Target(error) if is_out(error));
                    if matches!(error, Error::Rejected(_)) {
                        row.status = DeliveryStatus::Rejected;
                    }
                    report.errors.push(error);
                }
            }
            report.images.push(row);
        }
        Ok(())
    }

    /// Chooses the newest version of each requested image and reference. Images that are not requested, or have no
    /// valid name, are added to the report.
    fn choices(&self, admitted: &[Option<Admission>], report: &mut TargetReport) -> Vec<ImageChoice> {
        let mut newest: BTreeMap<(String, String), ImageChoice> = BTreeMap::new();
        let mut others: BTreeMap<String, (ImageResult, Option<Error>)> = BTreeMap::new();
        for (bundle, (of, admission)) in self.bundles.iter().zip(admitted).enumerate() {
            for image in of.payload().images.iter().filter(|_| admission.is_some()) {
                let name = image.name.clone();
                match self.asked(image) {
                    Err(error) => drop(others.insert(name, (ImageResult::new(image), Some(error)))),
                    // A `--registry` for a single dataset is not for images.
                    Ok(RequestedPlaces::No) if self.place.dataset().is_some() => {}
                    Ok(RequestedPlaces::No) => {
                        drop(others.insert(name, (ImageResult::not_requested(image), None)))
                    }
                    Ok(RequestedPlaces::To(references)) => {
                        for reference in references {
                            let (created, image) = (of.payload().created, image.clone());
                            let key = image_key(&reference);
                            let by = (name.clone(), key.clone());
                            let documents = BTreeMap::new();
                            let choice = ImageChoice { bundle, created, image, reference, key, documents };
                            newest.insert(by, choice);
                        }
                    }
                }
            }
        }
        for (row, error) in others.into_values() {
            report.images.push(row);
            report.errors.extend(error);
        }
        newest.into_values().collect()
    }

    /// Returns the references that an image gets at this target. A reference that the operator chose takes precedence
    /// over the one that follows from the name.
    ///
    /// # Errors
    /// If the name of the image is invalid as a reference.
    fn asked(&self, image: &Image) -> Result<RequestedPlaces, Error> {
        let mut wanted =
            self.options.image.iter().filter(|wanted| wanted.pattern.matches(&image.name)).peekable();
        if wanted.peek().is_none() {
            return Ok(RequestedPlaces::No);
        }
        let name = Repository::parse(&image.name, "latest")?;
        let wanted: Vec<_> = wanted.map(|wanted| wanted.place.as_ref()).collect();
        let chosen: Vec<&ChosenPlace> = wanted.into_iter().flatten().collect();
        if chosen.is_empty() {
            return Ok(RequestedPlaces::To(self.place.image(&name).transpose()?.into_iter().collect()));
        }
        let mine = chosen
            .into_iter()
            .filter(|chosen| home_of(chosen, &self.options.registry.places) == Some(self.place));
        let references = mine.map(|chosen| chosen.of(&name)).collect::<Result<_, _>>()?;
        Ok(RequestedPlaces::To(references))
    }

    /// Returns the repositories of datasets: those of this run, of earlier runs, and of Trivy's own datasets in each
    /// registry.
    fn datasets(&self, ledger: &TargetLedger<'_>) -> Result<DatasetPlaces, Error> {
        let mut datasets = ledger.dataset_places()?;
        let held = self.bundles.iter().flat_map(|bundle| &bundle.payload().datasets);
        let held = held.map(|dataset| dataset.name.clone());
        let known = [Name::trivy_db(), Name::trivy_java_db(), Name::trivy_checks()];
        for name in held.chain(known) {
            for place in &self.options.registry.places {
                if let Ok(Some(repository)) = place.repository(&name, "latest") {
                    datasets.add(&repository, name.as_str());
                }
            }
        }
        Ok(datasets)
    }

    /// Rewrites the manifests of an image for registries that reject those of upstream, if `--compat` is given.
    fn rewrite(&self, choice: &mut ImageChoice) -> Result<(), Error> {
        let Some(bundle) = self.bundles.get(choice.bundle).filter(|_| self.options.registry.compat) else {
            return Ok(());
        };
        let Some(RewrittenImage { image, documents }) = image_compat::rewrite(bundle, &choice.image)? else {
            return Ok(());
        };
        if choice.reference.digest().is_some() {
            choice.reference = choice.reference.by_digest(image.manifest.digest);
        }
        (choice.image, choice.documents) = (image, documents);
        Ok(())
    }

    /// Pushes an image, if the registry lacks it and the rules of acceptance allow it.
    fn deliver(
        &self,
        choice: &ImageChoice,
        books: &mut PushRecords<'_, '_>,
    ) -> Result<DeliveryStatus, Error> {
        let ImageChoice { bundle, created, image, reference, key, .. } = choice;
        let found = self.found(reference)?;
        if found.is_some_and(|found| found.digest == image.manifest.digest)
            && is_complete(self.registry, reference, image)?
        {
            return Ok(DeliveryStatus::Unchanged);
        }
        let floor = books.ledger.state().floors.get(key).copied();
        let is_known = books.admission.seen && floor.is_some();
        let Some(bundle) = self.bundles.get(*bundle) else { return Ok(DeliveryStatus::Failed) };
        let mut is_rollback = false;
        if let DatasetDecision::Older { floor } = judge(Some(*created), floor) {
            if !self.context.policy.allow_rollback {
                if found.is_none() {
                    let dataset = image.name.clone();
                    return Err(Rejection::MissingAndOlder { dataset, date: *created, floor }.into());
                }
                books.report.warnings.push(older_data_warning(&image.name, "not pushed", *created, floor));
                return Ok(DeliveryStatus::Older);
            }
            is_rollback = true;
        }
        // The tag is checked first, so that gigabytes are not uploaded in vain.
        self.may_name(choice, found, books.ledger)?;
        if is_rollback {
            books.report.rolls_back(bundle, books.admission);
        }
        self.push(choice, bundle, books)?;
        Ok(if is_known { DeliveryStatus::Restored } else { DeliveryStatus::Pushed })
    }

    /// Pushes an image. The tag is set last, so that it never names something incomplete.
    fn push(
        &self,
        choice: &ImageChoice,
        bundle: &VerifiedBundle,
        books: &mut PushRecords<'_, '_>,
    ) -> Result<(), Error> {
        let ImageChoice { image, reference, documents, .. } = choice;
        books.ledger.about_to_change(self.context.host.now)?;
        for blob in &image.blobs {
            self.push_blob(choice, bundle, blob)?;
        }
        let all = image.manifests.iter().chain([&image.manifest]);
        let carried = all.filter(|manifest| !documents.contains_key(&manifest.digest)).map(Blob::path);
        let bytes = bundle.small_members(&carried.collect(), oci::MAX_MANIFEST)?;
        let bytes_of = |manifest: &Blob| {
            let why = format!("it has no blob {}", manifest.digest);
            let lacks = || BundleError::Payload { path: bundle.path().to_path_buf(), why: why.into() };
            documents.get(&manifest.digest).or_else(|| bytes.get(&manifest.path())).ok_or_else(lacks)
        };
        for manifest in &image.manifests {
            let under = reference.by_digest(manifest.digest);
            self.registry.push_manifest(&under, &manifest.media_type, bytes_of(manifest)?)?;
        }
        let top = bytes_of(&image.manifest)?;
        // The upload of the blobs may have taken 1 hour, and another program may have set the tag since.
        let found = self.found(reference)?;
        if self.may_name(choice, found, books.ledger)? == TagRight::ByFlag {
            books.report.replaces_tags(bundle, books.admission);
        }
        let (name, digest) = (reference.to_string(), image.manifest.digest);
        // If another program set the tag to this image before, it is not recorded as set by trivy-ferry.
        let found = found.map(|found| found.digest);
        let is_ours = found != Some(digest) || books.ledger.has_set(&name, &image.name, digest);
        if is_ours && reference.digest().is_none() {
            books.ledger.about_to_set(&name, image, found)?;
        }
        self.registry.push_manifest(reference, &image.manifest.media_type, top)?;
        books.ledger.has_now_set(&name);
        Ok(())
    }

    /// Returns the manifest that a reference names in the registry.
    fn found(&self, reference: &Repository) -> Result<Option<TaggedManifest>, Error> {
        let manifest = self.registry.manifest(reference)?;
        Ok(manifest.map(|bytes| TaggedManifest { digest: Digest::of(&bytes), is_data: is_data(&bytes) }))
    }

    /// Returns why a reference that names `found` may be set to an image.
    ///
    /// # Errors
    /// [`Rejection::ForeignTag`] if trivy-ferry did not set it to `found`; [`Rejection::DatasetPlace`] if `found` is
    /// data that scanners download.
    fn may_name(
        &self,
        choice: &ImageChoice,
        found: Option<TaggedManifest>,
        ledger: &TargetLedger<'_>,
    ) -> Result<TagRight, Rejection> {
        let reference = choice.reference.to_string();
        match found {
            None => Ok(TagRight::Own),
            // A manifest under its digest cannot be replaced.
            Some(_) if choice.reference.digest().is_some() => Ok(TagRight::Own),
            Some(found) if found.digest == choice.image.manifest.digest => Ok(TagRight::Own),
            Some(found) if ledger.has_set(&reference, &choice.image.name, found.digest) => Ok(TagRight::Own),
            Some(TaggedManifest { digest, .. }) if !self.options.replace_image_tags => {
                Err(Rejection::ForeignTag { image: choice.image.name.clone(), reference, found: digest })
            }
            // An image may be such data itself, such as an organization's own checks.
            Some(found)
                if found.is_data && !choice.image.blobs.iter().any(|blob| is_of_data(&blob.media_type)) =>
            {
                let (image, dataset) = (choice.image.name.clone(), "Trivy's data".into());
                Err(Rejection::DatasetPlace { image, reference, dataset })
            }
            Some(_) => Ok(TagRight::ByFlag),
        }
    }

    fn push_blob(&self, choice: &ImageChoice, bundle: &VerifiedBundle, blob: &Blob) -> Result<(), Error> {
        let ImageChoice { image, reference, documents, .. } = choice;
        let failed = |error| match error {
            PushError::Target(error) => Error::from(error),
            PushError::Source(error) => BundleError::from_io(bundle.path(), error).into(),
        };
        if let Some(bytes) = documents.get(&blob.digest) {
            let pushed = self.registry.push_blob(reference, blob.digest, blob.size, &bytes[..]);
            return pushed.map(drop).map_err(failed);
        }
        let source = MemberSource { bundle, progress: self.progress };
        let content = source.content((blob.digest, blob.size), (image.name.clone(), reference.host()), None);
        let pushed = self.registry.push_blob(reference, blob.digest, blob.size, content);
        pushed.map(drop).map_err(failed)
    }
}

/// The manifest that a reference names in a registry.
#[derive(Debug, Clone, Copy)]
struct TaggedManifest {
    digest: Digest,
    /// Whether it is a database or checks that Trivy downloads.
    is_data: bool,
}

/// Whether a manifest has a layer of data that Trivy downloads.
fn is_data(manifest: &[u8]) -> bool {
    oci::Manifest::parse(manifest).is_ok_and(|it| it.layers.iter().any(|layer| is_of_data(&layer.media_type)))
}

/// Whether a layer's type is one of those that Trivy downloads (Trivy v0.74.0: `pkg/db`, `pkg/javadb`,
/// `pkg/policy`).
fn is_of_data(media_type: &str) -> bool {
    const TYPES: [&str; 2] = ["application/vnd.aquasec.trivy.", "application/vnd.cncf.openpolicyagent."];
    TYPES.iter().any(|prefix| media_type.starts_with(prefix))
}

/// The records that the push of an image changes.
struct PushRecords<'b, 's> {
    admission: &'b mut Admission,
    ledger: &'b mut TargetLedger<'s>,
    report: &'b mut TargetReport,
}

/// The reason why a tag may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagRight {
    /// It does not exist, names the image already, or was set by trivy-ferry.
    Own,
    /// Another program set it, and `--replace-image-tags` was given.
    ByFlag,
}

/// Claims a reference for an image.
///
/// # Errors
/// [`Rejection::DatasetPlace`] if the reference is in the repository of a dataset; [`Rejection::SamePlace`] if another
/// image has claimed it.
fn may_go(
    choice: &ImageChoice,
    datasets: &DatasetPlaces,
    claimed: &mut BTreeMap<String, String>,
) -> Result<(), Rejection> {
    let (image, reference) = (choice.image.name.clone(), choice.reference.to_string());
    if let Some(dataset) = datasets.dataset_at(&choice.reference) {
        return Err(Rejection::DatasetPlace { image, reference, dataset: dataset.to_owned() });
    }
    match claimed.get(&reference) {
        Some(other) => Err(Rejection::SamePlace { image, what: "pushed", reference, other: other.clone() }),
        None => {
            claimed.insert(reference, image);
            Ok(())
        }
    }
}

/// Whether a registry has all manifests and blobs of an image.
fn is_complete(registry: &Registry<'_>, reference: &Repository, image: &Image) -> Result<bool, Error> {
    for manifest in &image.manifests {
        if registry.manifest(&reference.by_digest(manifest.digest))?.is_none() {
            return Ok(false);
        }
    }
    Ok(registry.has_all(reference, image.blobs.iter().map(|blob| (blob.digest, blob.size)))?)
}
