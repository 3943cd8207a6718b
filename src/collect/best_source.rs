//! Chooses the source of a dataset: the first that has it, unless its data is older than that of another.
//!
//! Pull-through caches and mirrors serve old data without notice if they are not refreshed. The dates are
//! those that manifests announce. They are good enough to prefer one source and are used for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::bundle::Dataset;
use crate::collect::artifact::{CollectedDataset, SkippedSource, announced, fetch_small_blobs};
use crate::collect::quorum::Quorum;
use crate::collect::wanted::WantedArtifact;
use crate::dataset::Name;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{self, Descriptor};
use crate::progress::Progress;
use crate::remote::{RemoteError, Unreachable};
use crate::source::{Artifact, ArtifactSource, Network, SourceError};
use crate::trust::Rejection;
use crate::trust::acceptance::believable;
use crate::util::clock;
use crate::util::text::format_distinct;

/// Data that is younger than this needs no comparison: trivy-db is built 4 times a day.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

/// The number of rejected layers at which a run fails.
const MAX_REJECTED: usize = 16;

/// The pause before a retry if too few registries agree.
const QUORUM_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// A rejected layer.
pub(crate) struct Rejected {
    pub(crate) dataset: Name,
    layer: Digest,
    /// The sources that it is rejected from; empty for all sources.
    from: Vec<ArtifactSource>,
    pub(crate) error: Error,
}

impl Rejected {
    /// A layer that is bad from every source.
    pub(crate) fn anywhere(error: Error, dataset: &Dataset, layer: Digest) -> Self {
        Rejected { dataset: dataset.name.clone(), layer, from: Vec::new(), error }
    }

    /// A layer that could not be fetched from these sources, which are in the order in which they were tried.
    pub(crate) fn from(error: Error, dataset: &Dataset, layer: Digest, sources: &[ArtifactSource]) -> Self {
        // The next source may have the correct bytes for the same digest.
        let wrong = matches!(
            error,
            Error::Content { .. } | Error::Source(SourceError::Digest { .. } | SourceError::Long { .. })
        );
        // A layout is tried alone, and after a registry only registries are tried.
        let alone = wrong || sources.first().is_some_and(|source| source.host().is_none());
        let tried = sources.iter().enumerate().filter(|(index, source)| match alone {
            true => *index == 0,
            false => source.host().is_some(),
        });
        let from = tried.map(|(_, source)| source.clone()).collect();
        Rejected { dataset: dataset.name.clone(), layer, from, error }
    }

    /// Whether this rejects one of these layers from this source.
    fn concerns(&self, layers: &[Descriptor], source: &ArtifactSource) -> bool {
        layers.iter().any(|layer| layer.digest == self.layer)
            && (self.from.is_empty() || self.from.contains(source))
    }

    /// The same error for another source of the same layer.
    fn error_of(&self, source: &ArtifactSource) -> Error {
        let (dataset, source_name) = (self.dataset.to_string(), source.to_string());
        match &self.error {
            Error::Rejected(Rejection::AheadOfClock { updated_at, now, .. }) => {
                Rejection::AheadOfClock { dataset, source_name, updated_at: *updated_at, now: *now }.into()
            }
            Error::Content { why, .. } => Error::Content { dataset, source_name, why: why.clone() },
            other => Error::Content { dataset, source_name, why: other.to_string() },
        }
    }
}

impl SkippedSource {
    fn of((source, error): &(ArtifactSource, Error)) -> Self {
        SkippedSource { source: source.to_string(), why: error.to_string() }
    }
}

/// Chooses between sources during a run.
pub(crate) struct BestSource<'a> {
    network: &'a Network<'a>,
    /// The newest signed date of each dataset, by reference name.
    floors: BTreeMap<String, Timestamp>,
    quorum: Quorum<'a>,
    /// Layers that were selected and turned out to be bad when they were read.
    rejected: Vec<Rejected>,
    now: Timestamp,
    /// Hosts that could not be reached. Each is tried once, and not for every dataset.
    unreachable: BTreeSet<String>,
    progress: &'a dyn Progress,
}

impl<'a> BestSource<'a> {
    pub(crate) fn new(
        network: &'a Network<'a>,
        floors: BTreeMap<String, Timestamp>,
        quorum: Quorum<'a>,
        progress: &'a dyn Progress,
    ) -> Self {
        let (now, rejected, unreachable) = (clock::now(), Vec::new(), BTreeSet::new());
        BestSource { network, floors, quorum, rejected, now, unreachable, progress }
    }

    /// Excludes a layer for the rest of the run, for the sources that it is rejected from.
    ///
    /// # Errors
    /// If there is no other source, or if too many layers were rejected: the error of the layer.
    pub(crate) fn reject(&mut self, rejected: Rejected, wanted: &WantedArtifact) -> Result<(), Error> {
        if wanted.sources.len() < 2 || self.rejected.len() + 1 >= MAX_REJECTED {
            return Err(rejected.error);
        }
        self.progress.info(&format!("{}; trying another source", rejected.error));
        self.rejected.push(rejected);
        Ok(())
    }

    fn rejects(&self, layers: &[Descriptor], source: &ArtifactSource) -> Option<&Rejected> {
        self.rejected.iter().find(|rejected| rejected.concerns(layers, source))
    }

    /// Removes artifacts with rejected layers.
    fn without_rejected(
        &self,
        artifacts: Vec<Artifact>,
        failed: &mut Vec<(ArtifactSource, Error)>,
    ) -> Vec<Artifact> {
        let mut left = Vec::new();
        for artifact in artifacts {
            match self.rejects(&artifact.manifest.layers, &artifact.source) {
                Some(rejected) => {
                    let error = rejected.error_of(&artifact.source);
                    failed.push((artifact.source, error));
                }
                None => left.push(artifact),
            }
        }
        left
    }

    /// Returns the newest signed date of a dataset.
    fn floor(&self, name: &Name, tag: &str) -> Option<Timestamp> {
        self.floors.get(&format!("{name}-{tag}")).copied()
    }

    /// Fetches a dataset from the best of its sources, except for its large layer.
    ///
    /// # Errors
    /// If no source has usable data: the error of the last one, or of the layer that was rejected last;
    /// [`SourceError::Quorum`] if too few sources agree; [`Error::Usage`] if there is no source.
    pub(crate) fn collect(&mut self, wanted: &WantedArtifact) -> Result<CollectedDataset, Error> {
        let collected = self.choose(wanted);
        // If no other source answers, the rejected layer is the reason.
        collected.map_err(|error| {
            let of_it = self.rejected.iter().rposition(|rejected| rejected.dataset == wanted.name);
            of_it.map_or(error, |index| self.rejected.remove(index).error)
        })
    }

    fn choose(&mut self, wanted: &WantedArtifact) -> Result<CollectedDataset, Error> {
        let WantedArtifact { name, tag, .. } = wanted;
        let mut failed = Vec::new();
        let (mut candidates, untried) = self.candidates(wanted, &mut failed);
        let mut lagging = Vec::new();
        if self.quorum.wanted > 1 {
            (candidates, lagging) = self.agreed(wanted, candidates, &mut failed)?;
            // A source with bad bytes still counts for the quorum.
            candidates = self.without_rejected(candidates, &mut failed);
        }
        let (mut good, stale) = self.select(name, tag, candidates);
        lagging.extend(stale.iter().map(|(_, skipped_source)| skipped_source.clone()));
        // Old data is better than none, and is validated like all other data before it is signed.
        good.extend(stale.into_iter().map(|(artifact, _)| artifact));
        for (index, artifact) in good.iter().enumerate() {
            let source = &artifact.source;
            let collected = match fetch_small_blobs(self.network, name, tag, artifact.clone()) {
                Ok(collected) => collected,
                Err(error) => {
                    failed.push((source.clone(), error));
                    continue;
                }
            };
            let same = |other: &&Artifact| other.manifest.layers == artifact.manifest.layers;
            let others = good[index + 1..].iter().filter(same).map(|other| other.source.clone());
            let rejected = |other: &&ArtifactSource| self.rejects(&artifact.manifest.layers, other).is_some();
            let others = others.chain(untried.iter().filter(|source| !rejected(source)).cloned()).collect();
            let skipped = failed.iter().map(SkippedSource::of).chain(lagging);
            let skipped =
                skipped.filter(|skipped_source| skipped_source.source != source.to_string()).collect();
            self.log_skipped(&skipped);
            return Ok(CollectedDataset { others, skipped, ..collected });
        }
        // The last error is returned, and the others are logged. After the deadline, no other source is contacted, so
        // its first error names the source that was waited for.
        let passed = failed.iter().position(|(_, error)| is_deadline(error));
        let last = match passed {
            Some(index) => Some(failed.swap_remove(index)),
            None => failed.pop(),
        };
        self.log_skipped(&failed.iter().map(SkippedSource::of).collect());
        Err(last.map(|(_, error)| error).unwrap_or_else(|| {
            Error::usage(
                format!("there is no source for {name}"),
                "Add a source; see `trivy-ferry export --help`.",
            )
        }))
    }

    /// Returns the candidates that enough sources agree on, and the others. Waits for sources that lag
    /// behind.
    fn agreed(
        &mut self,
        wanted: &WantedArtifact,
        mut candidates: Vec<Artifact>,
        failed: &mut Vec<(ArtifactSource, Error)>,
    ) -> Result<(Vec<Artifact>, Vec<SkippedSource>), Error> {
        let quorum = self.quorum.clone();
        let until = Instant::now() + quorum.wait;
        loop {
            let votes = |one: &Artifact| {
                let same = candidates.iter().filter(|other| claim_of(other) == claim_of(one));
                quorum.votes(same.map(|other| &other.source))
            };
            let enough = candidates.iter().filter(|one| votes(one) >= quorum.wanted);
            // If several groups agree, the newest group is used; of equally new groups, the first.
            let date = |one: &Artifact| believable(announced(one), self.now);
            if let Some(best) = enough.rev().max_by_key(|one| date(one)) {
                let claim = claim_of(best);
                let (agreed, others): (Vec<_>, Vec<_>) =
                    candidates.iter().cloned().partition(|one| claim_of(one) == claim);
                let skipped = |one: &Artifact| SkippedSource {
                    source: one.source.to_string(),
                    why: "its data differs from that of the registries that agree".into(),
                };
                return Ok((agreed, others.iter().map(skipped).collect()));
            }
            let most = candidates.iter().map(votes).max().unwrap_or(0);
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let pause = self.network.within_deadline(left.min(QUORUM_RETRY_INTERVAL));
                self.progress.info(&format!(
                    "the same {} is in {most} of {} required registries; retrying in {} s",
                    wanted.name,
                    quorum.wanted,
                    pause.as_secs()
                ));
                std::thread::sleep(pause);
            }
            if left.is_zero() || self.network.check_deadline().is_err() {
                let named = |artifact: &Artifact| {
                    let layer = artifact.manifest.layers.first().map(|layer| layer.digest.to_string());
                    format!("{} {}", artifact.source, layer.unwrap_or_default())
                };
                let named: Vec<String> = candidates.iter().map(named).collect();
                let named = if named.is_empty() { "no registry answered".into() } else { named.join(", ") };
                let named = match self.network.check_deadline() {
                    Err(_) if !left.is_zero() => format!("{named}; --deadline ended the wait for more"),
                    _ => named,
                };
                let (dataset, wanted) = (wanted.name.to_string(), quorum.wanted);
                return Err(SourceError::Quorum { dataset, agree: most, wanted, named }.into());
            }
            failed.clear();
            self.unreachable.clear();
            candidates = self.candidates(wanted, failed).0;
        }
    }

    fn log_skipped(&self, skipped: &Vec<SkippedSource>) {
        for SkippedSource { source, why } in skipped {
            self.progress.info(&format!("skipped {source}: {why}"));
        }
    }

    /// Returns the artifacts of the sources that answer, and the sources that need not be tried.
    fn candidates<'w>(
        &mut self,
        wanted: &'w WantedArtifact,
        failed: &mut Vec<(ArtifactSource, Error)>,
    ) -> (Vec<Artifact>, &'w [ArtifactSource]) {
        let mut candidates: Vec<Artifact> = Vec::new();
        for (index, source) in wanted.sources.iter().enumerate() {
            let host = source.host().unwrap_or_default().to_owned();
            if self.unreachable.contains(&host) {
                let (subject, why) =
                    (source.to_string(), Unreachable::Other("it did not answer an earlier request".into()));
                let error = SourceError::from(RemoteError::Unreachable { subject, host, why, proxy: None });
                failed.push((source.clone(), error.into()));
                continue;
            }
            let resolved = self.network.resolve(source);
            self.network.take_warnings().iter().for_each(|warning| self.progress.warn(warning));
            match resolved {
                Ok(artifact) => {
                    let accepted = match self.quorum.wanted {
                        1 => self.without_rejected(vec![artifact], failed),
                        _ => vec![artifact],
                    };
                    let date = accepted.first().and_then(|one| believable(announced(one), self.now));
                    let floor = self.floor(&wanted.name, &wanted.tag);
                    let fresh = date.is_some_and(|date| {
                        self.now.duration_since(date) < FRESH && floor.is_none_or(|floor| date >= floor)
                    });
                    candidates.extend(accepted);
                    if fresh && self.quorum.wanted == 1 {
                        return (candidates, &wanted.sources[index + 1..]);
                    }
                }
                Err(error) => {
                    if matches!(error, SourceError::Remote(RemoteError::Unreachable { .. })) {
                        self.unreachable.insert(host);
                    }
                    failed.push((source.clone(), error.into()));
                }
            }
        }
        (candidates, &[])
    }

    /// Splits the candidates into those to use, in order, and those that are older than another candidate or
    /// than data signed before.
    fn select(
        &self,
        name: &Name,
        tag: &str,
        candidates: Vec<Artifact>,
    ) -> (Vec<Artifact>, Vec<(Artifact, SkippedSource)>) {
        let date = |artifact: &Artifact| believable(announced(artifact), self.now);
        let newest = candidates.iter().filter_map(date).max();
        let layers = |wanted: Option<Timestamp>| {
            candidates
                .iter()
                .find(|artifact| date(artifact) == wanted)
                .map(|artifact| artifact.manifest.layers.clone())
        };
        let of_newest = layers(newest);
        let floor = self.floor(name, tag);
        let (mut good, mut stale) = (Vec::new(), Vec::new());
        for artifact in candidates {
            let why = match (date(&artifact), newest, floor) {
                (Some(date), _, Some(floor)) if date < floor => {
                    let (date, floor) = format_distinct(date, floor);
                    Some(format!(
                        "its data is from {date}, and this stream already has signed data from {floor}"
                    ))
                }
                // The same data with another manifest is not older.
                (Some(date), Some(newest), _)
                    if date < newest && of_newest.as_ref() != Some(&artifact.manifest.layers) =>
                {
                    let (date, newest) = format_distinct(date, newest);
                    Some(format!("its data is from {date}, and another source has data from {newest}"))
                }
                _ => None,
            };
            match why {
                Some(why) => {
                    let source = artifact.source.to_string();
                    stale.push((artifact, SkippedSource { source, why }));
                }
                None => good.push(artifact),
            }
        }
        (good, stale)
    }
}

/// Whether the deadline ended a request that was sent.
fn is_deadline(error: &Error) -> bool {
    matches!(error, Error::Source(SourceError::Remote(RemoteError::Deadline { host: Some(_), .. })))
}

/// The claim that a quorum agrees on: the layers and their version.
fn claim_of(artifact: &Artifact) -> (Vec<Digest>, Option<&String>) {
    let layers = artifact.manifest.layers.iter().map(|layer| layer.digest);
    (layers.collect(), artifact.manifest.annotations.get(oci::VERSION))
}
