//! `export`: collects every wanted dataset, checks it, and writes one signed bundle.

pub(crate) mod drop_folder;
pub(crate) mod heartbeat;
pub mod options;
pub(crate) mod output;
pub(crate) mod report;
pub(crate) mod resumed_blob;
pub(crate) mod retention;
pub(crate) mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::bundle::writer::{BundleWriter, Head, Plan};
use crate::bundle::{Dataset, heartbeat as format};
use crate::collect::artifact::Collected;
use crate::collect::best_source::{BestSource, Rejected};
use crate::collect::quorum::Quorum;
use crate::collect::validate::bad_content;
use crate::collect::wanted::{self, Wanted};
use crate::collect::{self, images};
use crate::dataset::Contents;
use crate::dataset::catalogue::OLD;
use crate::digest::Digest;
use crate::error::Error;
use crate::export::drop_folder::DropFolder;
use crate::export::options::ExportOptions;
use crate::export::output::Destination;
use crate::export::report::{ImageRow, ParityRow, Report, Row, Written};
use crate::export::retention::retain;
use crate::export::stream::{Bad, Straight};
use crate::hint::Hint;
use crate::hook::hook;
use crate::progress::Progress;
use crate::source::Network;
use crate::trust::acceptance::CLOCK_TOLERANCE;
use crate::trust::signer::Signer;
use crate::trust::state::{ExportState, Side, StateDir};
use crate::trust::{Refusal, TrustError};
use crate::util::clock;
use crate::util::text::{moment, moments, safe};

/// How often a run begins anew because of what earlier ones left.
const MOST_LEFTOVERS: u32 = 4;

/// What opens the key: it may ask for a passphrase.
pub(crate) type OpenSigner<'s> = dyn Fn() -> Result<Box<dyn Signer>, Error> + 's;

/// Collects what the options name, and writes one signed bundle. `open` is asked for what signs once the options
/// have been checked.
///
/// # Errors
/// Whatever keeps the bundle from being written. What went wrong after that is in the report.
pub(crate) fn export(
    options: &ExportOptions,
    open: &OpenSigner<'_>,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let mut done = collect_and_write(options, open, progress);
    if let Some(command) = &options.exec_after {
        let (result, bundle) = match &done {
            Ok((Report { bundle: Some(bundle), .. }, _)) => ("written", bundle.path.display().to_string()),
            Ok(_) => ("unchanged", String::new()),
            Err(_) => ("failed", String::new()),
        };
        let environment = [("TRIVY_FERRY_RESULT", result.to_owned()), ("TRIVY_FERRY_BUNDLE", bundle)];
        match (hook(command, "the export is over", false, &environment), &mut done) {
            (Ok(()), _) => {}
            (Err(error), Ok((_, errors))) => errors.push(error),
            // The first error is the one that matters.
            (Err(error), Err(_)) => progress.alarm(&format!("{error}. {}", error.hint())),
        }
    }
    let (report, errors) = done?;
    Ok(Report { errors, ..report })
}

/// Finds out what an export would collect, from where and how large, and writes nothing.
///
/// # Errors
/// As [`export`].
pub(crate) fn preview(options: &ExportOptions, progress: &dyn Progress) -> Result<Report, Error> {
    let network = Network::new(options.remote.clone(), options.limits, progress)?;
    let wanted = wanted::wanted(&options.sources, &options.vex, !options.image.is_empty())?;
    dry_run(options, &network, &wanted, progress)
}

/// What an export has to say, and what went wrong beside it.
type Done = (Report, Vec<Error>);

fn collect_and_write(
    options: &ExportOptions,
    open: &OpenSigner<'_>,
    progress: &dyn Progress,
) -> Result<Done, Error> {
    options.check()?;
    let signer = open()?;
    let network = Network::new(options.remote.clone(), options.limits, progress)?;
    let wanted = wanted::wanted(&options.sources, &options.vex, !options.image.is_empty())?;
    let destination = Destination::new(&options.output, options.stream.as_str())?;
    if let Some(folder) = &options.drop_into {
        DropFolder(folder).check()?;
        if destination.folder().is_none() {
            return Err(Error::usage(
                "--drop needs one folder for --output, in which bundles are named after their stream",
                "Name it with --output DIR.",
            ));
        }
    }
    let state = state(options, progress)?;
    let last = match &state {
        Some(state) => state.exports(options.stream.as_str())?,
        None => None,
    };
    let floors = last.as_ref().map(|last| last.floors.clone()).unwrap_or_default();
    let beats = match (options.heartbeat, options.drop_into.as_deref().or(destination.folder())) {
        (false, _) => None,
        (true, Some(folder)) => Some(folder.to_path_buf()),
        (true, None) => {
            return Err(Error::usage(
                "--heartbeat needs a folder to put the file into",
                "Name it with --drop DIR, or a folder with --output DIR.",
            ));
        }
    };
    let run =
        Run { options, signer: &*signer, destination, network: &network, state, last, floors, progress };
    let mut done = run.export(&wanted);
    if let Some(folder) = beats {
        match (run.beat(&folder, &done), &mut done) {
            (Ok(path), Ok((report, _))) => report.heartbeat = Some(path),
            (Ok(_), Err(_)) => {}
            (Err(error), Ok((_, errors))) => errors.push(error),
            // The first error is the one that matters.
            (Err(error), Err(_)) => progress.alarm(&format!("{error}. {}", error.hint())),
        }
    }
    done
}

/// An export that writes.
struct Run<'r> {
    options: &'r ExportOptions,
    signer: &'r dyn Signer,
    destination: Destination,
    network: &'r Network<'r>,
    state: Option<StateDir>,
    /// What the stream's last bundle was.
    last: Option<ExportState>,
    /// The newest date that was signed of each dataset.
    floors: BTreeMap<String, Timestamp>,
    progress: &'r dyn Progress,
}

impl Run<'_> {
    /// Says what the export came to.
    fn beat(&self, folder: &std::path::Path, done: &Result<Done, Error>) -> Result<PathBuf, Error> {
        let export = match done {
            Ok((report, _)) if report.bundle.is_some() => format::Export::Written,
            Ok(_) => format::Export::Unchanged,
            Err(_) => format::Export::Failed,
        };
        let stream = &self.options.stream;
        let last = match &self.state {
            Some(state) => state.exports(stream.as_str())?,
            None => None,
        };
        heartbeat::send(folder, stream, export, last.as_ref(), self.signer)
    }

    /// Collects and writes, and begins again where what was collected turns out to be bad as it comes.
    fn export(&self, wanted: &[Wanted]) -> Result<Done, Error> {
        let Run { options, network, progress, .. } = *self;
        let mut best = BestSource::new(network, self.floors.clone(), quorum(options), progress);
        let mut leftovers = 0;
        loop {
            let collected = collect::collect(network, wanted, &mut best, progress)?;
            let images = images::collect(&options.image, options.platform.as_ref(), network, progress)?;
            let of_last = |last: &ExportState| last.manifests == manifests(&collected, &images);
            if options.if_changed && self.last.as_ref().is_some_and(of_last) {
                let (mut report, mut errors) = unchanged(options, &collected, &images, &self.floors)?;
                // What an earlier run could not put there is not new any more, and still to be sent.
                if let Some(last) = self.last.as_ref().filter(|last| last.to_drop) {
                    match self.send(last) {
                        Ok(sent) => report.dropped = sent,
                        Err(error) => errors.push(error),
                    }
                }
                return Ok((report, errors));
            }
            // A source that answers well may still turn out to have a bad layer, or none.
            let written = match entangled(&collected) {
                Some(bad) => Err(bad),
                None => self.write(collected, &images),
            };
            match written {
                Ok(done) => return Ok(done),
                Err(Bad::Leftover(error)) if leftovers < MOST_LEFTOVERS => {
                    progress.note(&format!("{error}; all of it is fetched again"));
                    leftovers += 1;
                }
                Err(Bad::Source(rejected)) => {
                    let mut artifacts = wanted.iter().filter_map(Wanted::artifact);
                    match artifacts.find(|artifact| artifact.name == rejected.dataset) {
                        Some(artifact) => best.reject(*rejected, artifact)?,
                        None => return Err(rejected.error),
                    }
                }
                Err(Bad::Leftover(error) | Bad::Other(error)) => return Err(error),
            }
        }
    }

    /// Puts the newest bundles into the folder of `--drop`, where there is one, and remembers that it was done.
    fn send(&self, last: &ExportState) -> Result<Vec<PathBuf>, Error> {
        let (Some(into), Some(from)) = (&self.options.drop_into, self.destination.folder()) else {
            return Ok(Vec::new());
        };
        let stream = self.options.stream.as_str();
        let sent = DropFolder(into).send(&[from.to_path_buf()], stream, self.options.repeat as usize)?;
        if let Some(state) = self.state.as_ref().filter(|_| last.to_drop) {
            state.save_exports(stream, &ExportState { to_drop: false, ..last.clone() })?;
        }
        Ok(sent)
    }

    /// Writes and signs a bundle of what was collected.
    fn write(&self, mut collected: Vec<Collected>, images: &[images::Collected]) -> Result<Done, Bad> {
        let Run { options, signer, network, progress, .. } = *self;
        let (last, floors) = (self.last.as_ref(), &self.floors);
        let destination = self.destination.clone();
        let created = destination.free_moment(created(last, progress)?)?;
        for item in &collected {
            let dataset = &item.planned.dataset;
            judge(options, dataset, dataset.contents.updated_at, floors, created)?;
        }
        let head = Head {
            stream: options.stream.clone(),
            created,
            expires: options.expires.map(|age| expiry(created, age)).transpose()?,
            sequence: self.state.as_ref().map(|_| last.map_or(1, |last| last.sequence.saturating_add(1))),
            previous: last.map(|last| last.identity),
            volume_size: None,
        };
        let datasets = collected.iter().map(|item| item.planned.clone()).collect();
        let planned = images.iter().map(|image| image.planned.clone()).collect();
        let head = Head { volume_size: destination.volume_size(options.volume_size), ..head };
        let plan = Plan::new(head, datasets, planned).map_err(|why| {
            Error::usage(
                format!("this makes no bundle: {why}"),
                "Leave something out with --skip or fewer --image, or give another --volume-size.",
            )
        })?;
        let folder = destination.folder().map(std::path::Path::to_path_buf);
        let most = destination.volume_size(options.volume_size);
        let parity = options.parity.map(|percent| (percent, most));
        let destination = destination.create(&plan, created, parity, progress)?;
        let file = destination.writer(&plan)?;
        let mut writer = BundleWriter::new(plan, file).map_err(|e| destination.failed(e))?;
        let straight = Straight { network, destination: &destination, progress };
        let mut contents: BTreeMap<String, Contents> = BTreeMap::new();
        while let Some(member) = writer.wants().cloned() {
            let has = |item: &Collected| item.planned.dataset.blobs().any(|blob| blob.path() == member.path);
            let Some(item) = collected.iter_mut().find(|item| has(item)) else {
                if let Some((source, blob)) = images.iter().find_map(|image| image.blob(&member.path)) {
                    straight.image_blob(&mut writer, source, blob, &member)?;
                    continue;
                }
                let nothing = io::Error::other(format!("nothing brings {}", member.path));
                return Err(Error::unexpected("writing")(nothing).into());
            };
            if let Some(blob) = item.held.get_mut(&member.digest) {
                blob.rewind().map_err(Error::unexpected("reading what was fetched"))?;
                writer.member(blob).map_err(|e| destination.failed(e))?;
                continue;
            }
            let dataset = &item.planned.dataset;
            let found = straight.layer(&mut writer, item, &member)?;
            // Whoever has this layer has the same.
            judge(options, dataset, found.updated_at, floors, created)
                .map_err(|error| Rejected::anywhere(error, dataset, member.digest))?;
            contents.insert(dataset.reference(), found);
        }
        let (payload, identity, file) = writer.finish(contents, signer).map_err(|e| destination.failed(e))?;
        let mut synced = destination.sync(file)?;
        destination.add_parity(&mut synced, identity, progress)?;
        let parity = destination.parity().map(ParityRow::new);
        if options.verify_after_write {
            let step = progress.begin("reading back", payload.length, "");
            destination.read_back(&synced, &signer.public(), identity, &*step)?;
        }
        let files = destination.publish(synced)?;
        // The bundle is there whatever becomes of the memory, and the report must say so.
        let mut errors = Vec::new();
        let export = {
            let mut floors = floors.clone();
            for dataset in &payload.datasets {
                if let Some(date) = dataset.contents.updated_at {
                    floors.insert(dataset.reference(), date);
                }
            }
            let sequence = payload.sequence.unwrap_or(1);
            let manifests = manifests(&collected, images);
            let to_drop = options.drop_into.is_some();
            ExportState { identity, created, sequence, floors, manifests, to_drop }
        };
        if let Some(state) = &self.state {
            errors.extend(state.save_exports(options.stream.as_str(), &export).err().map(Error::from));
        }
        let dropped = self.send(&export).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let removed = match (options.keep, &folder) {
            (Some(keep), Some(folder)) => {
                retain(folder, options.stream.as_str(), &signer.public(), created, keep as usize)
            }
            _ => Ok(Vec::new()),
        };
        let removed = removed.unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let now = clock::now();
        let passed_over = |dataset: &Dataset| {
            let item = collected.iter().find(|item| item.planned.dataset.reference() == dataset.reference());
            item.map_or(&[][..], |item| &item.passed_over)
        };
        let rows = payload
            .datasets
            .iter()
            .map(|d| Row::new(d, d.contents.updated_at, passed_over(d), now))
            .collect();
        let warnings = payload.datasets.iter().filter_map(|d| old(d, d.contents.updated_at, now));
        let report = Report {
            removed,
            dropped,
            warnings: warnings.collect(),
            datasets: rows,
            images: payload.images.iter().map(ImageRow::new).collect(),
            bundle: Some(Written {
                on_medium: files.iter().any(|path| apart_from_root(path)),
                read_back: options.verify_after_write,
                path: files[0].clone(),
                files,
                parity,
                length: payload.length,
                identity,
                fingerprint: signer.public().id().fingerprint(),
                stream: payload.stream.to_string(),
                created,
                expires: payload.expires,
                sequence: payload.sequence,
            }),
            ..Report::default()
        };
        Ok((report, errors))
    }
}

/// A large layer that a manifest shares with something else: nobody would look at it as what it is to be.
fn entangled(collected: &[Collected]) -> Option<Bad> {
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    for item in collected {
        let dataset = &item.planned.dataset;
        let layers = || dataset.layers.iter().map(|layer| layer.digest);
        let shared = |layer: &Digest| {
            seen.contains(layer) || *layer == dataset.config.digest || *layer == dataset.manifest.digest
        };
        if let (true, Some(artifact)) = (dataset.name.kind().is_large(), &item.artifact)
            && let Some(layer) = layers().find(shared)
        {
            let error = bad_content(dataset, &format!("its layer {layer} is something else as well"));
            let source = std::slice::from_ref(&artifact.source);
            return Some(Rejected::from(error, dataset, layer, source).into());
        }
        seen.extend(dataset.blobs().map(|blob| blob.digest));
    }
    None
}

/// The exporter's memory; without any, bundles carry no sequence number.
fn state(options: &ExportOptions, progress: &dyn Progress) -> Result<Option<StateDir>, Error> {
    match StateDir::open(options.state_dir.as_deref(), Side::Export) {
        Ok(state) => {
            state.warnings().iter().for_each(|warning| progress.alarm(warning));
            Ok(Some(state))
        }
        Err(error @ TrustError::NoStateDir { .. }) => {
            progress.note(&format!("{error}; this bundle gets no sequence number. {}", error.hint()));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn dry_run(
    options: &ExportOptions,
    network: &Network<'_>,
    wanted: &[Wanted],
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let mut best = BestSource::new(network, BTreeMap::new(), quorum(options), progress);
    let hosts = || {
        let mut hosts = network.hosts();
        // Those that would be asked if the ones before them failed.
        hosts.extend(wanted.iter().flat_map(Wanted::hosts));
        hosts
    };
    let collected = collect::collect(network, wanted, &mut best, progress).inspect_err(|_| {
        // It may be the firewall that is in the way, and this is for it.
        let hosts: Vec<String> = hosts().into_iter().collect();
        progress.note(&format!("A firewall must let through at least: {}", safe(&hosts.join(", "))));
    })?;
    let images = images::collect(&options.image, options.platform.as_ref(), network, progress)?;
    let now = clock::now();
    let mut report = Report {
        dry_run: true,
        images: images.iter().map(|image| ImageRow::new(&image.planned.image)).collect(),
        ..Report::default()
    };
    for item in &collected {
        let date = item.planned.dataset.contents.updated_at.or(item.announced);
        if let Some(max_age) = &options.max_age {
            max_age.check(&item.planned.dataset.name, date, now)?;
        }
        report.datasets.push(Row::new(&item.planned.dataset, date, &item.passed_over, now));
        // Registries keep large layers elsewhere, and say where only when they are asked for one.
        if let Some(artifact) = &item.artifact
            && let Some(layer) = artifact.manifest.layers.first()
        {
            drop(network.blob(&artifact.source, layer)?);
        }
    }
    for (source, blob) in images.iter().filter_map(images::Collected::first_blob) {
        drop(network.blob(source, blob)?);
    }
    report.hosts = hosts();
    Ok(report)
}

fn quorum(options: &ExportOptions) -> Quorum<'_> {
    let wait = options.quorum_wait.map_or(std::time::Duration::ZERO, |age| age.duration().unsigned_abs());
    Quorum { wanted: options.quorum, mirrors: &options.sources.registry_mirror, wait }
}

/// The manifests of everything that is to be signed, by name.
fn manifests(collected: &[Collected], images: &[images::Collected]) -> BTreeMap<String, Digest> {
    let datasets = collected.iter().map(|item| {
        let dataset = &item.planned.dataset;
        (dataset.reference(), dataset.manifest.digest)
    });
    let images = images.iter().map(|item| {
        let image = &item.planned.image;
        (image.name.clone(), image.manifest.digest)
    });
    datasets.chain(images).collect()
}

/// What is worth a warning: VEX documents and checks stay true for long, and databases do not.
fn old(dataset: &Dataset, date: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let old = dataset.name.kind().is_large() && date.is_some_and(|date| now.duration_since(date) > OLD);
    old.then(|| {
        format!(
            "{} is more than 7 days old already: another source may have a newer one",
            dataset.reference()
        )
    })
}

/// Upstream has nothing that the last bundle lacks. What has become too old meanwhile is still no success.
fn unchanged(
    options: &ExportOptions,
    collected: &[Collected],
    images: &[images::Collected],
    floors: &BTreeMap<String, Timestamp>,
) -> Result<Done, Error> {
    let now = clock::now();
    let (mut datasets, mut warnings) = (Vec::new(), Vec::new());
    for item in collected {
        let dataset = &item.planned.dataset;
        let date = floors.get(&dataset.reference()).copied();
        if let Some(max_age) = &options.max_age {
            max_age.check(&dataset.name, date, now)?;
        }
        warnings.extend(old(dataset, date, now));
        datasets.push(Row::new(dataset, date, &item.passed_over, now));
    }
    let report = Report {
        unchanged: true,
        datasets,
        images: images.iter().map(|image| ImageRow::new(&image.planned.image)).collect(),
        warnings,
        ..Report::default()
    };
    Ok((report, Vec::new()))
}

/// Whether a file is on another file system than this one's root, as a medium is.
fn apart_from_root(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &std::path::Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(path) != device(std::path::Path::new("/"))
}

/// Returns when a bundle expires, in whole seconds, and never at its creation.
fn expiry(created: Timestamp, age: crate::util::age::Age) -> Result<Timestamp, Error> {
    let age = age.duration();
    let seconds = age.as_secs() + i64::from(age.subsec_nanos() != 0);
    created.checked_add(jiff::SignedDuration::from_secs(seconds)).map_err(|_| {
        Error::usage(
            "--expires names a time beyond the year 9999",
            "Give a shorter time, such as --expires 30d.",
        )
    })
}

/// Now, in whole seconds, and always after the stream's last bundle: importers refuse two of one
/// moment.
fn created(last: Option<&ExportState>, progress: &dyn Progress) -> Result<Timestamp, Error> {
    let now = clock::now_in_seconds();
    let Some(last) = last.filter(|last| last.created >= now) else { return Ok(now) };
    let ahead = last.created.duration_since(now);
    let next = last.created.checked_add(jiff::SignedDuration::from_secs(1)).ok();
    // No importer takes a bundle from beyond the tolerance: that trip would be wasted.
    let Some(next) = next.filter(|_| ahead < CLOCK_TOLERANCE) else {
        return Err(Error::usage(
            format!(
                "the stream's last export is dated {}, and this host's clock says {}",
                moment(last.created),
                moment(now)
            ),
            "Correct the clock; if it was wrong back then, export with a new --stream, which importers must be told.",
        ));
    };
    if ahead > jiff::SignedDuration::from_secs(60) {
        progress.note(&format!(
            "this host's clock ({}) is behind the stream's last export; the bundle is dated {}",
            moment(now),
            moment(next)
        ));
    }
    Ok(next)
}

/// What must hold for a dataset before it is signed.
fn judge(
    options: &ExportOptions,
    dataset: &Dataset,
    updated_at: Option<Timestamp>,
    floors: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Result<(), Error> {
    if let Some(max_age) = &options.max_age {
        max_age.check(&dataset.name, updated_at, now)?;
    }
    if let Some(date) = updated_at.filter(|date| *date > now) {
        let (date, now) = moments(date, now);
        return Err(bad_content(dataset, &format!("it is dated {date}, and this host's clock says {now}")));
    }
    match (updated_at, floors.get(&dataset.reference())) {
        (Some(date), Some(floor)) if date < *floor => Err(Refusal::OlderThanSigned {
            dataset: dataset.name.to_string(),
            source_name: dataset.source.clone(),
            updated_at: date,
            floor: *floor,
        }
        .into()),
        _ => Ok(()),
    }
}
