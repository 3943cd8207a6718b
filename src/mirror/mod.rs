//! `mirror`: from the sources straight to registries, with the checks of an export and the rules of an
//! import. What there is to do is decided by asking each registry; nothing is remembered.

pub(crate) mod destination;
pub(crate) mod fan_out;
pub mod options;

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use serde::Serialize;

use crate::collect::artifact::Collected;
use crate::collect::best_source::{BestSource, Rejected};
use crate::collect::quorum::Quorum;
use crate::collect::wanted::{WantedArtifact, artifacts};
use crate::dataset::catalogue::TrivyVersion;
use crate::dataset::{Contents, DatasetRef, Kind};
use crate::delivery::registry_access::Registries;
use crate::delivery::registry_place::Place;
use crate::delivery::report::{Report, Status};
use crate::delivery::settings::places_for_settings;
use crate::error::Error;
use crate::mirror::destination::{Lack, Offer, Site};
use crate::mirror::fan_out::{FannedOut, Taker, fan_out};
use crate::mirror::options::MirrorOptions;
use crate::progress::Progress;
use crate::source::Network;
use crate::targets::registry::PushError;
use crate::util::clock;

/// Each place takes some MiB for what is under way to it, and all together stay below 64 MiB.
const MOST_PLACES: usize = 6;

/// What became of all places.
#[derive(Serialize)]
#[non_exhaustive]
pub struct MirrorReport {
    /// Whether nothing was pushed.
    pub dry_run: bool,
    /// The places, each with its datasets, warnings and errors.
    pub targets: Vec<Report>,
    /// What concerns every place: sources that failed.
    #[serde(serialize_with = "crate::error::serialize_all")]
    pub errors: Vec<Error>,
    /// The bytes that a dry run would have fetched.
    #[serde(skip)]
    pub would_fetch: u64,
}

/// A run.
struct Run<'r> {
    options: &'r MirrorOptions,
    now: Timestamp,
    network: &'r Network<'r>,
    sites: Vec<Site<'r>>,
    errors: Vec<Error>,
    would_fetch: u64,
}

/// Fills registries directly from the sources, without a bundle.
#[derive(Clone)]
pub struct Mirror {
    options: MirrorOptions,
}

impl Mirror {
    /// A mirror with these options. They are checked when it runs.
    #[must_use]
    pub fn new(options: MirrorOptions) -> Self {
        Mirror { options }
    }

    /// Brings to each registry what it lacks.
    ///
    /// # Errors
    /// If the options contradict each other, or a registry cannot be prepared. What fails at a source or a
    /// registry is in the report.
    pub fn run(&self, progress: &dyn Progress) -> Result<MirrorReport, Error> {
        mirror(&self.options, progress)
    }
}

fn mirror(options: &MirrorOptions, progress: &dyn Progress) -> Result<MirrorReport, Error> {
    places_for_settings(&options.settings)?;
    let mut places: Vec<&Place> = Vec::new();
    for place in &options.registry.places {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.len() > MOST_PLACES {
        return Err(Error::usage(
            format!("{} places are named, and one run serves {MOST_PLACES} at the most", places.len()),
            "Mirror to the others in a second run.",
        ));
    }
    if places.len() > 1 && options.settings.is_asked_for() {
        return Err(Error::usage(
            "the settings differ from place to place, and several are named",
            "Mirror to one place at a time where --write-env or --write-config is given.",
        ));
    }
    let wanted = wanted(options, &places)?;
    let registries = Registries::new(&options.registry)?;
    let remote = registries.remote()?;
    let network = Network::new(options.from.clone(), options.limits, progress)?;
    let version = options.sources.trivy_version.iter().max().copied().unwrap_or_else(TrivyVersion::newest);
    let sites = places.iter().map(|place| Site::new(place, remote, version)).collect();
    let network = &network;
    let mut best = BestSource::new(network, BTreeMap::new(), Quorum::NONE, progress);
    let mut run = Run { options, now: clock::now(), network, sites, errors: Vec::new(), would_fetch: 0 };
    for (index, artifact) in wanted.iter().enumerate() {
        // Of several versions the highest, which comes last, has the tags that are no version.
        let last = !wanted[index + 1..].iter().any(|later| later.name == artifact.name);
        let tags = if last { options.registry.extra_tag.as_slice() } else { &[] };
        let said: Vec<_> = run.sites.iter().map(Site::said).collect();
        let error = loop {
            let item = match best.collect(artifact) {
                Ok(item) => item,
                Err(error) => {
                    let missing = DatasetRef::new(artifact.name.clone(), artifact.tag.clone());
                    run.sites.iter_mut().for_each(|site| site.goes_without(&missing));
                    break Some(error);
                }
            };
            let Some(rejected) = run.mirror(item, tags, progress)? else { break None };
            if let Err(error) = best.reject(rejected, artifact) {
                break Some(error);
            }
            run.sites.iter_mut().zip(&said).for_each(|(site, said)| site.take_back(*said));
        };
        run.errors.extend(error);
        let notes = run.network.take_notes().into_iter().chain(registries.take_notes());
        notes.for_each(|note| progress.note(&note));
    }
    for site in &mut run.sites {
        if !options.dry_run {
            site.report.warn_of_old(run.now, "another source may have a newer one");
            site.settings(&options.settings, options.registry.remote.ca_cert.is_some(), version, remote);
        }
    }
    let targets = run.sites.into_iter().map(|site| site.report).collect();
    let (dry_run, errors, would_fetch) = (options.dry_run, run.errors, run.would_fetch);
    Ok(MirrorReport { dry_run, targets, errors, would_fetch })
}

/// What is to be mirrored: what the command line asks for, as far as a place takes it.
fn wanted(options: &MirrorOptions, places: &[&Place]) -> Result<Vec<WantedArtifact>, Error> {
    if let Some(name) = options.sources.selection.only.iter().find(|name| name.kind() == Kind::Vex) {
        return Err(Error::usage(
            format!(
                "{name} cannot be mirrored: Trivy fetches VEX repositories over HTTP, not from registries"
            ),
            "Leave it out of --only; `trivy-ferry export` and `import` carry it.",
        ));
    }
    let takes = |artifact: &WantedArtifact| {
        places.iter().any(|place| !matches!(place.repository(&artifact.name, &artifact.tag), Ok(None)))
    };
    let wanted: Vec<_> = artifacts(&options.sources)?.into_iter().filter(takes).collect();
    if wanted.is_empty() {
        return Err(Error::usage(
            "--registry, --only and --skip leave no dataset to mirror",
            "Select at least one that a --registry takes.",
        ));
    }
    Ok(wanted)
}

/// What became of a large layer.
enum Brought {
    /// It was found good, and it is in each place that lacked the dataset or not.
    All { contents: Contents, uploads: Vec<Result<(), PushError>> },
    /// Every place failed before its end.
    Nowhere,
    /// It was not found good, or not at all.
    Bad(Rejected),
}

impl Run<'_> {
    /// Brings one dataset to every place that lacks it; or says why its source is not to be asked again.
    ///
    /// # Errors
    /// Only the unexpected: what fails otherwise is written down.
    fn mirror(
        &mut self,
        mut item: Collected,
        tags: &[String],
        progress: &dyn Progress,
    ) -> Result<Option<Rejected>, Error> {
        let offer = &mut Offer { options: self.options, item: &mut item, tags, now: self.now };
        let lacks: Vec<Option<Lack>> = self.sites.iter_mut().map(|site| site.lacks(offer)).collect();
        if lacks.iter().all(Option::is_none) {
            return Ok(None);
        }
        if self.options.dry_run {
            let fetched = lacking(&mut self.sites, &lacks).map(|(site, _)| site.would_take(offer));
            if fetched.fold(false, |any, one| any | one) {
                self.would_fetch += offer.item.planned.dataset.blobs().map(|blob| blob.size).sum::<u64>();
            }
            return Ok(None);
        }
        let large = offer.item.planned.dataset.name.kind().is_large();
        let brought = if large {
            self.stream(offer, &lacks, progress)?
        } else {
            let nothing_large = lacks.iter().flatten().map(|_| Ok(())).collect();
            let contents = offer.item.planned.dataset.contents.clone();
            Brought::All { contents, uploads: nothing_large }
        };
        match brought {
            Brought::All { contents, uploads } => {
                for ((site, lack), upload) in lacking(&mut self.sites, &lacks).zip(uploads) {
                    site.finish(lack, offer, &contents, upload);
                }
                Ok(None)
            }
            Brought::Nowhere => Ok(None),
            Brought::Bad(rejected) => Ok(Some(rejected)),
        }
    }

    /// Brings the large layer to every place that lacks the dataset.
    ///
    /// # Errors
    /// Only the unexpected.
    fn stream(
        &mut self,
        offer: &Offer<'_>,
        lacks: &[Option<Lack>],
        progress: &dyn Progress,
    ) -> Result<Brought, Error> {
        let dataset = &offer.item.planned.dataset;
        let artifact = offer.item.artifact.as_ref();
        let layer = artifact.and_then(|artifact| Some((artifact, artifact.manifest.layers.first()?)));
        let (artifact, layer) = layer
            .ok_or_else(|| Error::unexpected("pushing")(io::Error::other("a dataset without its layer")))?;
        let takers = || self.sites.iter().zip(lacks).filter_map(|(site, lack)| Some((site, lack.as_ref()?)));
        let sources: Vec<_> = std::iter::once(&artifact.source).chain(&offer.item.others).cloned().collect();
        let fanned = match self.network.blob_of(&sources, layer) {
            Ok(blob) => {
                let host = artifact.source.host().unwrap_or("");
                let step = progress.begin(&dataset.reference(), layer.size, host);
                let to = takers()
                    .map(|(site, lack)| Taker { registry: &site.registry, repository: &lack.reference });
                let wanting: Vec<&Lack> = takers().map(|(_, lack)| lack).collect();
                let wants = |index: usize, contents: &Contents| {
                    wanting.get(index).is_some_and(|lack| lack.wants(offer, contents))
                };
                fan_out(dataset, layer, blob, step, &to.collect::<Vec<_>>(), wants)?
            }
            Err(error) => {
                let uploads = takers().map(|_| Ok(())).collect();
                FannedOut { contents: Some(Err(error.into())), uploads }
            }
        };
        let error = match fanned.contents {
            Some(Ok(contents)) => return Ok(Brought::All { contents, uploads: fanned.uploads }),
            Some(Err(error)) => Some(error),
            None => None,
        };
        for ((site, _), upload) in lacking(&mut self.sites, lacks).zip(fanned.uploads) {
            match upload {
                Err(PushError::Target(error)) => site.fails(dataset, error.into()),
                _ => site.report.set(dataset, Status::Failed, None),
            }
        }
        Ok(match error {
            Some(error) => Brought::Bad(Rejected::from(error, dataset, layer.digest, &sources)),
            None => Brought::Nowhere,
        })
    }
}

/// The places that lack a dataset, with what they lack.
fn lacking<'a, 'r>(
    sites: &'a mut [Site<'r>],
    lacks: &'a [Option<Lack>],
) -> impl Iterator<Item = (&'a mut Site<'r>, &'a Lack)> {
    sites.iter_mut().zip(lacks).filter_map(|(site, lack)| Some((site, lack.as_ref()?)))
}
