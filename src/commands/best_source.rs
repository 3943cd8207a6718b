//! Which of its sources a dataset is fetched from: the first that has it, unless that one lags behind.
//!
//! Pull-through caches and mirrors go on serving what they have when nobody refreshes them, and say
//! nothing. Dates are those that manifests announce: good enough to prefer one source, and not believed
//! for anything else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::collect::{Collected, WantedArtifact, announced, complete};
use super::fate::believable;
use crate::dataset::Name;
use crate::error::Error;
use crate::progress::Progress;
use crate::remote::{RemoteError, Unreachable};
use crate::source::{Artifact, ArtifactSource, Network, SourceError};
use crate::text::moments;

/// Data of this age needs no comparison: trivy-db is built four times a day.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

/// A source that was not taken.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PassedOver {
    pub(super) source: String,
    pub(super) why: String,
}

impl PassedOver {
    fn of((source, error): &(ArtifactSource, Error)) -> Self {
        PassedOver { source: source.to_string(), why: error.to_string() }
    }
}

/// Chooses between sources for a whole run.
pub(super) struct BestSource<'a> {
    network: &'a Network<'a>,
    /// The newest date signed of each dataset, by reference name.
    floors: BTreeMap<String, Timestamp>,
    now: Timestamp,
    /// Hosts that nobody reached: they are asked once, and not for every dataset.
    out: BTreeSet<String>,
    progress: &'a dyn Progress,
}

impl<'a> BestSource<'a> {
    pub(super) fn new(
        network: &'a Network<'a>,
        floors: BTreeMap<String, Timestamp>,
        progress: &'a dyn Progress,
    ) -> Self {
        BestSource { network, floors, now: Timestamp::now(), out: BTreeSet::new(), progress }
    }

    /// Fetches all of a dataset but its large layer, from the best of its sources.
    ///
    /// # Errors
    /// That of the last source, where none is good.
    pub(super) fn collect(&mut self, wanted: &WantedArtifact) -> Result<Collected, Error> {
        let WantedArtifact { name, tag, .. } = wanted;
        let mut failed = Vec::new();
        let (candidates, unasked) = self.candidates(wanted, &mut failed);
        let (mut good, stale) = self.sift(name, tag, candidates);
        let lagging: Vec<PassedOver> = stale.iter().map(|(_, passed)| passed.clone()).collect();
        // What lags behind is still better than nothing, and judged like all else before it is signed.
        good.extend(stale.into_iter().map(|(artifact, _)| artifact));
        for (index, artifact) in good.iter().enumerate() {
            let source = &artifact.source;
            let collected = match complete(self.network, name, tag, artifact.clone()) {
                Ok(collected) => collected,
                Err(error) => {
                    failed.push((source.clone(), error));
                    continue;
                }
            };
            let same = |other: &&Artifact| other.manifest.layers == artifact.manifest.layers;
            let others = good[index + 1..].iter().filter(same).map(|other| other.source.clone());
            let others = others.chain(unasked.iter().cloned()).collect();
            let passed_over = failed.iter().map(PassedOver::of).chain(lagging);
            let passed_over = passed_over.filter(|passed| passed.source != source.to_string()).collect();
            self.say(&passed_over);
            return Ok(Collected { others, passed_over, ..collected });
        }
        // One reason is for the end, and the others for the log.
        let last = failed.pop();
        self.say(&failed.iter().map(PassedOver::of).collect());
        Err(last.map(|(_, error)| error).unwrap_or_else(|| {
            Error::usage(
                format!("there is no source for {name}"),
                "Name one: see `trivy-ferry export --help`.",
            )
        }))
    }

    fn say(&self, passed_over: &Vec<PassedOver>) {
        for PassedOver { source, why } in passed_over {
            self.progress.note(&format!("{source} is passed over: {why}"));
        }
    }

    /// The sources that answer, with their manifests, and those that need not be asked.
    fn candidates<'w>(
        &mut self,
        wanted: &'w WantedArtifact,
        failed: &mut Vec<(ArtifactSource, Error)>,
    ) -> (Vec<Artifact>, &'w [ArtifactSource]) {
        let mut candidates: Vec<Artifact> = Vec::new();
        for (index, source) in wanted.sources.iter().enumerate() {
            let host = source.host().unwrap_or_default().to_owned();
            if self.out.contains(&host) {
                let (subject, why) =
                    (source.to_string(), Unreachable::Other("it did not answer before".into()));
                let error = SourceError::from(RemoteError::Unreachable { subject, host, why });
                failed.push((source.clone(), error.into()));
                continue;
            }
            let resolved = self.network.resolve(source);
            self.network.take_notes().iter().for_each(|note| self.progress.note(note));
            match resolved {
                Ok(artifact) => {
                    let date = believable(announced(&artifact), self.now);
                    let fresh = date.is_some_and(|date| self.now.duration_since(date) < FRESH);
                    candidates.push(artifact);
                    if fresh {
                        return (candidates, &wanted.sources[index + 1..]);
                    }
                }
                Err(error) => {
                    if matches!(error, SourceError::Remote(RemoteError::Unreachable { .. })) {
                        self.out.insert(host);
                    }
                    failed.push((source.clone(), error.into()));
                }
            }
        }
        (candidates, &[])
    }

    /// The candidates in the order in which to take them, and those that are older than others or than
    /// what was signed before.
    fn sift(
        &self,
        name: &Name,
        tag: &str,
        candidates: Vec<Artifact>,
    ) -> (Vec<Artifact>, Vec<(Artifact, PassedOver)>) {
        let date = |artifact: &Artifact| believable(announced(artifact), self.now);
        let newest = candidates.iter().filter_map(date).max();
        let layers = |wanted: Option<Timestamp>| {
            candidates
                .iter()
                .find(|artifact| date(artifact) == wanted)
                .map(|artifact| artifact.manifest.layers.clone())
        };
        let of_newest = layers(newest);
        let floor = self.floors.get(&format!("{name}-{tag}")).copied();
        let (mut good, mut stale) = (Vec::new(), Vec::new());
        for artifact in candidates {
            let why = match (date(&artifact), newest, floor) {
                (Some(date), _, Some(floor)) if date < floor => {
                    let (date, floor) = moments(date, floor);
                    Some(format!("its data is of {date}, and this stream has signed some of {floor}"))
                }
                // The same data under another manifest is not older.
                (Some(date), Some(newest), _)
                    if date < newest && of_newest.as_ref() != Some(&artifact.manifest.layers) =>
                {
                    let (date, newest) = moments(date, newest);
                    Some(format!("its data is of {date}, and another source has some of {newest}"))
                }
                _ => None,
            };
            match why {
                Some(why) => {
                    let source = artifact.source.to_string();
                    stale.push((artifact, PassedOver { source, why }));
                }
                None => good.push(artifact),
            }
        }
        (good, stale)
    }
}
