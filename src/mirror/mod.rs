//! `mirror`: streams datasets from the sources to registries, with the checks of an export and the rules of
//! an import.
//!
//! This module queries each registry to decide which datasets to push. It keeps no state and
//! uses no bundle.

pub(crate) mod destination;
pub(crate) mod fan_out;
pub mod options;

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use crate::collect::artifact::CollectedDataset;
use crate::collect::best_source::{BestSource, Rejected};
use crate::collect::quorum::Quorum;
use crate::collect::wanted::{WantedArtifact, artifacts};
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Contents, DatasetRef, Kind};
use crate::delivery::registry_access::RegistryAccess;
use crate::delivery::registry_place::RegistryPlace;
use crate::delivery::report::{DeliveryStatus, TargetReport};
use crate::delivery::settings::places_for_settings;
use crate::error::Error;
use crate::mirror::destination::{MirrorCandidate, MirrorTarget, PendingPush, not_pushed};
use crate::mirror::fan_out::{Taker, fan_out};
use crate::mirror::options::MirrorOptions;
use crate::oci::Descriptor;
use crate::progress::Progress;
use crate::source::{ArtifactSource, Network};
use crate::targets::registry::PushError;
use crate::util::clock;

/// The maximum number of places. Each needs a few MiB of memory for its uploads; together, they
/// need less than 64 MiB.
const MAX_PLACES: usize = 6;

/// The report of a mirror run.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct MirrorReport {
    /// Whether nothing was pushed because of `--dry-run`.
    pub dry_run: bool,
    /// The places, each with its datasets, warnings and errors.
    pub targets: Vec<TargetReport>,
    /// Errors that concern every place: sources that failed.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
    /// The number of bytes that a run would fetch; only after a dry run.
    #[serde(skip)]
    pub would_fetch: u64,
}

/// A mirror run.
struct MirrorRun<'r> {
    options: &'r MirrorOptions,
    now: Timestamp,
    network: &'r Network<'r>,
    targets: Vec<MirrorTarget<'r>>,
    errors: Vec<Error>,
    would_fetch: u64,
}

/// Fills registries directly from the sources, without a bundle.
#[derive(Clone)]
pub struct Mirror {
    options: MirrorOptions,
}

impl Mirror {
    /// Creates a mirror with these options. They are validated when it runs.
    #[must_use]
    pub fn new(options: MirrorOptions) -> Self {
        Mirror { options }
    }

    /// Pushes the missing and newer datasets to each registry.
    ///
    /// # Errors
    /// If the options contradict each other, or if access to a registry cannot be prepared. Failures of a
    /// source or a registry are in the report.
    pub fn run(&self, progress: &dyn Progress) -> Result<MirrorReport, Error> {
        mirror(&self.options, progress)
    }
}

fn mirror(options: &MirrorOptions, progress: &dyn Progress) -> Result<MirrorReport, Error> {
    let places = places(options)?;
    let wanted = wanted(options, &places)?;
    let began = Instant::now();
    let registries = RegistryAccess::new(&options.registry, began)?;
    let remote = registries.remote()?;
    let network = Network::new(options.from.clone(), options.limits.since(began), progress)?;
    let version = options.sources.trivy_version.iter().max().copied().unwrap_or_else(TrivyVersion::newest);
    let pushed = places.iter().filter_map(|place| Some((*place, registries.to_push(progress)?)));
    let targets = pushed.map(|(place, registry)| MirrorTarget::new(place, registry, version)).collect();
    let network = &network;
    let mut best = BestSource::new(network, BTreeMap::new(), Quorum::NONE, progress);
    let mut run =
        MirrorRun { options, now: clock::now(), network, targets, errors: Vec::new(), would_fetch: 0 };
    for (index, artifact) in wanted.iter().enumerate() {
        // Only the highest of several versions, which is the last one, gets the extra tags.
        let last = !wanted[index + 1..].iter().any(|later| later.name == artifact.name);
        let tags = if last { options.registry.extra_tag.as_slice() } else { &[] };
        let counts: Vec<_> = run.targets.iter().map(MirrorTarget::message_counts).collect();
        let error = loop {
            let item = match best.collect(artifact) {
                Ok(item) => item,
                Err(error) => {
                    let missing = DatasetRef::new(artifact.name.clone(), artifact.tag.clone());
                    run.targets.iter_mut().for_each(|target| target.report_missing(&missing));
                    break Some(error);
                }
            };
            let Some(rejected) = run.mirror(item, tags, progress)? else { break None };
            if let Err(error) = best.reject(rejected, artifact) {
                break Some(error);
            }
            run.targets
                .iter_mut()
                .zip(&counts)
                .for_each(|(target, counts)| target.truncate_messages(*counts));
        };
        run.errors.extend(error);
        let warnings = run.network.take_warnings().into_iter().chain(registries.take_warnings());
        warnings.for_each(|warning| progress.warn(&warning));
    }
    for target in &mut run.targets {
        if !options.dry_run {
            target.report.warn_of_old(run.now, "another source may have newer data");
            target.settings(&options.settings, options.registry.remote.ca_cert.is_some(), version, remote);
        }
    }
    let targets = run.targets.into_iter().map(|target| target.report).collect();
    let (dry_run, errors, would_fetch) = (options.dry_run, run.errors, run.would_fetch);
    Ok(MirrorReport { dry_run, targets, errors, would_fetch })
}

/// Returns the places to fill, each once.
fn places(options: &MirrorOptions) -> Result<Vec<&RegistryPlace>, Error> {
    places_for_settings(&options.settings)?;
    let mut places: Vec<&RegistryPlace> = Vec::new();
    for place in &options.registry.places {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.len() > MAX_PLACES {
        return Err(Error::usage(
            format!("{} places are given, but one run supports at most {MAX_PLACES}", places.len()),
            "Mirror to the others in a second run.",
        ));
    }
    if places.len() > 1 && options.settings.is_asked_for() {
        return Err(Error::usage(
            "several places are given, but each needs different scanner settings",
            "With --write-env or --write-config, mirror to one place at a time.",
        ));
    }
    Ok(places)
}

/// Returns the selected datasets that at least one place accepts.
fn wanted(options: &MirrorOptions, places: &[&RegistryPlace]) -> Result<Vec<WantedArtifact>, Error> {
    if let Some(name) = options.sources.selection.only.iter().find(|name| name.kind() == Kind::Vex) {
        return Err(Error::usage(
            format!(
                "{name} cannot be mirrored: Trivy fetches VEX repositories over HTTP, not from registries"
            ),
            "Remove it from --only, and use `trivy-ferry export` and `import` to carry it.",
        ));
    }
    let takes = |artifact: &WantedArtifact| {
        places.iter().any(|place| !matches!(place.repository(&artifact.name, &artifact.tag), Ok(None)))
    };
    let wanted: Vec<_> = artifacts(&options.sources)?.into_iter().filter(takes).collect();
    if wanted.is_empty() {
        return Err(Error::usage(
            "--registry, --only and --skip leave no dataset to mirror",
            "Select at least one dataset that a --registry accepts.",
        ));
    }
    Ok(wanted)
}

/// The result of streaming a large layer.
struct Streamed {
    /// The result for each place; `None` if its upload did not end.
    uploads: Vec<Option<Result<(), Error>>>,
    /// The contents, if they are valid.
    found: Option<Contents>,
    /// The error of the source or of the content.
    error: Option<Error>,
}

/// The outcome for a large layer.
enum LayerOutcome {
    /// The layer is valid. `uploads` holds the result for each place that needed it; `None` for an error that
    /// is reported elsewhere.
    All { contents: Contents, uploads: Vec<Result<(), Option<Error>>> },
    /// Every upload failed before the end of the layer.
    Nowhere,
    /// The layer is not valid, or no source has it.
    Bad(Rejected),
}

impl MirrorRun<'_> {
    /// Pushes one dataset to every place that needs it. Returns a rejection if its source must not be used
    /// again.
    ///
    /// # Errors
    /// If a thread panics, or the dataset has no layer. Failures of sources and registries are in the
    /// report.
    fn mirror(
        &mut self,
        mut item: CollectedDataset,
        tags: &[String],
        progress: &dyn Progress,
    ) -> Result<Option<Rejected>, Error> {
        let candidate =
            &mut MirrorCandidate { options: self.options, item: &mut item, tags, now: self.now, progress };
        let pushes: Vec<Option<PendingPush>> =
            self.targets.iter_mut().map(|target| target.plan_push(candidate)).collect();
        if pushes.iter().all(Option::is_none) {
            return Ok(None);
        }
        if self.options.dry_run {
            let fetched = with_pending_push(&mut self.targets, &pushes)
                .map(|(target, _)| target.would_accept(candidate));
            if fetched.fold(false, |any, one| any | one) {
                self.would_fetch += candidate.item.planned.dataset.blobs().map(|blob| blob.size).sum::<u64>();
            }
            return Ok(None);
        }
        let large = candidate.item.planned.dataset.name.kind().is_large();
        let outcome = if large {
            self.stream(candidate, &pushes, progress)?
        } else {
            let nothing_large = pushes.iter().flatten().map(|_| Ok(())).collect();
            let contents = candidate.item.planned.dataset.contents.clone();
            LayerOutcome::All { contents, uploads: nothing_large }
        };
        match outcome {
            LayerOutcome::All { contents, uploads } => {
                for ((target, push), upload) in with_pending_push(&mut self.targets, &pushes).zip(uploads) {
                    target.finish(push, candidate, &contents, upload);
                }
                Ok(None)
            }
            LayerOutcome::Nowhere => Ok(None),
            LayerOutcome::Bad(rejected) => Ok(Some(rejected)),
        }
    }

    /// Streams the large layer to every place that needs the dataset. Fetches it again for uploads with
    /// transient failures.
    ///
    /// # Errors
    /// If a thread panics, or the dataset has no layer.
    fn stream(
        &mut self,
        candidate: &MirrorCandidate<'_>,
        pushes: &[Option<PendingPush>],
        progress: &dyn Progress,
    ) -> Result<LayerOutcome, Error> {
        let dataset = &candidate.item.planned.dataset;
        let artifact = candidate.item.artifact.as_ref();
        let layer = artifact.and_then(|artifact| Some((artifact, artifact.manifest.layers.first()?)));
        let (artifact, layer) = layer
            .ok_or_else(|| Error::unexpected("pushing")(io::Error::other("a dataset without its layer")))?;
        let sources: Vec<_> =
            std::iter::once(&artifact.source).chain(&candidate.item.others).cloned().collect();
        let takers: Vec<(&MirrorTarget<'_>, &PendingPush)> = self
            .targets
            .iter()
            .zip(pushes)
            .filter_map(|(target, push)| Some((target, push.as_ref()?)))
            .collect();
        let streamed = self.rounds(candidate, (layer, &sources), &takers, progress)?;
        let Streamed { uploads, found, error } = streamed;
        let rejected = |error| Rejected::from(error, dataset, layer.digest, &sources);
        if let Some(contents) = found {
            // If the source fails in a later round, the uploads that still wait for it fail as well.
            let mut error = error;
            let uploads = uploads.into_iter().map(|upload| match upload {
                Some(done) => done.map_err(Some),
                None => Err(error.take()),
            });
            return Ok(LayerOutcome::All { contents, uploads: uploads.collect() });
        }
        let outcome = error.map_or(LayerOutcome::Nowhere, |error| LayerOutcome::Bad(rejected(error)));
        for ((target, _), upload) in with_pending_push(&mut self.targets, pushes).zip(uploads) {
            match upload {
                Some(Err(error @ Error::Target(_))) => target.fails(dataset, error),
                _ => target.report.set(dataset, DeliveryStatus::Failed, None),
            }
        }
        Ok(outcome)
    }

    /// Fetches a layer once per round, until no upload can be retried.
    ///
    /// # Errors
    /// If a thread panics.
    fn rounds(
        &self,
        candidate: &MirrorCandidate<'_>,
        (layer, sources): (&Descriptor, &[ArtifactSource]),
        takers: &[(&MirrorTarget<'_>, &PendingPush)],
        progress: &dyn Progress,
    ) -> Result<Streamed, Error> {
        let dataset = &candidate.item.planned.dataset;
        let host = sources.first().and_then(ArtifactSource::host).unwrap_or_default();
        let mut uploads: Vec<Option<Result<(), Error>>> = takers.iter().map(|_| None).collect();
        let mut found = None;
        let error = loop {
            let open: Vec<usize> = (0..takers.len()).filter(|index| uploads[*index].is_none()).collect();
            if open.is_empty() {
                break None;
            }
            let step = progress.begin(&dataset.reference(), layer.size, host);
            let to = |index: &usize| {
                let (target, push) = takers[*index];
                Taker { registry: &target.registry, repository: &push.reference }
            };
            let to: Vec<Taker<'_>> = open.iter().map(to).collect();
            let wants = |index: usize, contents: &Contents| {
                open.get(index).is_some_and(|index| takers[*index].1.wants(candidate, contents))
            };
            let fanned = match self.network.blob_of(sources, layer) {
                Ok(blob) => fan_out(dataset, layer, blob, step, &to, wants)?,
                Err(error) => break Some(error.into()),
            };
            let is_good = !matches!(fanned.contents, Some(Err(_)));
            for (index, (upload, taker)) in open.iter().zip(fanned.uploads.into_iter().zip(&to)) {
                uploads[*index] = match upload {
                    Err(error @ PushError::Target(_)) if is_good => taker
                        .registry
                        .may_retry(taker.repository, layer.digest, error)
                        .err()
                        .map(not_pushed)
                        .map(Err),
                    other => Some(other.map_err(not_pushed)),
                };
            }
            match fanned.contents {
                Some(Ok(contents)) => found = Some(contents),
                Some(Err(error)) => break Some(error),
                None => {}
            }
        };
        Ok(Streamed { uploads, found, error })
    }
}

/// The targets that need a push, each with its push.
fn with_pending_push<'a, 'r>(
    targets: &'a mut [MirrorTarget<'r>],
    pushes: &'a [Option<PendingPush>],
) -> impl Iterator<Item = (&'a mut MirrorTarget<'r>, &'a PendingPush)> {
    targets.iter_mut().zip(pushes).filter_map(|(target, push)| Some((target, push.as_ref()?)))
}
