//! One export: collects, writes, signs and publishes a bundle.
//!
//! This module depends on sources and destinations. It does not run the command of `--exec-after`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::bundle::payload::Payload;
use crate::bundle::payload::delta::MAX_BASES;
use crate::bundle::writer::{BundleInfo, BundlePlan, BundleWriter};
use crate::bundle::{Dataset, Heartbeat, heartbeat as format};
use crate::collect::artifact::CollectedDataset;
use crate::collect::best_source::{BestSource, Rejected};
use crate::collect::requirement::{self, MissingSource, Requirements};
use crate::collect::validate::{Examined, bad_content};
use crate::collect::wanted::{self, WantedDataset};
use crate::collect::{self, images};
use crate::dataset::{Contents, MissingItem};
use crate::digest::Digest;
use crate::error::Error;
use crate::export::base_store::BaseStore;
use crate::export::delta::{self, DeltaMaker, Prepared};
use crate::export::drop_directory::{DropDirectory, remove_partials};
use crate::export::options::ExportOptions;
use crate::export::output::{Destination, dated};
use crate::export::own_program::OwnProgram;
use crate::export::report::{
    ExportReport, ExportResult, ExportedDataset, ExportedImage, WrittenBundle, WrittenParity,
};
use crate::export::retention::retain;
use crate::export::rules::{age_warning, created, examine, expiry, judge, quorum};
use crate::export::stream::{BlobStreamer, ExportFailure};
use crate::export::{heartbeat, log};
use crate::hint::Hint;
use crate::progress::{Progress, Silent};
use crate::source::Network;
use crate::trust::TrustError;
use crate::trust::signer::Signer;
use crate::trust::state::{DatasetSize, ExportState, Override, Side, StateDir, waits_for};
use crate::util::clock;

/// Opens the signer: a key, which may prompt for a passphrase, or a command.
pub type OpenSigner<'s> = dyn Fn() -> Result<Box<dyn Signer + 's>, Error> + 's;

/// The number of times that a run starts over because of bad leftover files.
const MAX_LEFTOVERS: u32 = 4;

/// Collects the selected datasets and images, writes a bundle, and writes a heartbeat if the options say so.
///
/// # Errors
/// If no bundle was written, as in [`Exporter::run_with`](crate::export::Exporter::run_with).
pub(crate) fn collect_and_write(
    options: &ExportOptions,
    open: &OpenSigner<'_>,
    progress: &dyn Progress,
) -> Result<ExportReport, Error> {
    options.check()?;
    let signer = open()?;
    let network = Network::new(options.remote.clone(), options.limits.begin(), progress)?;
    let wanted = wanted::wanted(&options.sources, &options.vex, !options.image.is_empty())?;
    let destination = Destination::new(&options.output, options.stream.as_str())?;
    if let Some(directory) = &options.drop_into {
        DropDirectory(directory).check()?;
        if destination.directory().is_none() {
            return Err(Error::usage(
                "--drop requires that --output is a single directory",
                "Give a directory with --output DIR.",
            ));
        }
    }
    let state = state(options, progress)?;
    let last = match &state {
        Some(state) => state.exports(options.stream.as_str())?,
        None => None,
    };
    let floors = last.as_ref().map(|last| last.floors.clone()).unwrap_or_default();
    let heartbeat_directory = heartbeat_directory(options, &destination)?;
    if state.is_some() {
        remove_leftovers(options, heartbeat_directory.as_deref());
    }
    let mut program = options.with_self.then(|| OwnProgram::signed(&*signer)).transpose()?;
    let run = ExportRun {
        options,
        signer: &*signer,
        destination,
        network: &network,
        state,
        last,
        floors,
        progress,
    };
    let mut done = run.export(&wanted);
    if let (Ok(report), Some(program)) = (&mut done, &mut program) {
        add_own_program(program, report);
    }
    if let Some(directory) = heartbeat_directory {
        match (run.write_heartbeat(&directory, &done), &mut done) {
            (Ok(path), Ok(report)) => report.heartbeat = Some(path),
            (Ok(_), Err(_)) => {}
            (Err(error), Ok(report)) => report.errors.push(error),
            // The first error is the one that matters.
            (Err(error), Err(_)) => progress.warn(&format!("{error}. {}", error.hint())),
        }
    }
    done
}

/// Plans a bundle: its properties, and the order of its members.
///
/// # Errors
/// If the members are too many or too large for a bundle.
pub(crate) fn plan(
    info: BundleInfo,
    collected: &[CollectedDataset],
    images: &[images::CollectedImage],
) -> Result<BundlePlan, Error> {
    let datasets = collected.iter().map(|item| item.planned.clone()).collect();
    let planned = images.iter().map(|image| image.planned.clone()).collect();
    BundlePlan::new(info, datasets, planned).map_err(|why| {
        Error::usage(
            format!("cannot build a bundle: {why}"),
            "Carry less, with --skip or fewer --image, or give another --volume-size.",
        )
    })
}

/// Puts the program beside the bundle, if one was written.
fn add_own_program(program: &mut OwnProgram, report: &mut ExportReport) {
    let Some(bundle) = &report.bundle else { return };
    let directory = bundle.path.parent().filter(|path| !path.as_os_str().is_empty());
    match program.put(directory.unwrap_or(Path::new("."))) {
        Ok(paths) => {
            report.program = paths;
            if program.needs_libraries {
                report.warnings.push(
                    "the program that was put beside the bundle needs the libraries of this host; use the static program of a release (docs/install.md)"
                        .into(),
                );
            }
        }
        Err(error) => report.errors.push(error),
    }
}

/// Returns the directory for heartbeats, if the options ask for them.
fn heartbeat_directory(options: &ExportOptions, destination: &Destination) -> Result<Option<PathBuf>, Error> {
    match (options.heartbeat, options.drop_into.as_deref().or(destination.directory())) {
        (false, _) => Ok(None),
        (true, Some(directory)) => Ok(Some(directory.to_path_buf())),
        (true, None) => Err(Error::usage(
            "--heartbeat requires a directory for its file",
            "Give it with --drop DIR or --output DIR.",
        )),
    }
}

/// Removes the leftover files of earlier exports of the stream that were killed while they wrote a bundle or
/// a heartbeat to a drop directory. The caller has locked the state, so no other export of the stream runs.
fn remove_leftovers(options: &ExportOptions, heartbeats: Option<&Path>) {
    let stream = options.stream.as_str();
    if let Some(directory) = &options.drop_into {
        remove_partials(directory, |name| dated(name, stream).is_some());
    }
    if let Some(directory) = heartbeats {
        remove_partials(directory, |name| Heartbeat::is_named_for(name, stream));
    }
}

/// An export that writes.
struct ExportRun<'r> {
    options: &'r ExportOptions,
    signer: &'r dyn Signer,
    destination: Destination,
    network: &'r Network<'r>,
    state: Option<StateDir>,
    /// The stream's last export.
    last: Option<ExportState>,
    /// The newest signed date of each dataset.
    floors: BTreeMap<String, Timestamp>,
    progress: &'r dyn Progress,
}

impl ExportRun<'_> {
    /// Writes a heartbeat with the result of the export.
    fn write_heartbeat(
        &self,
        directory: &Path,
        done: &Result<ExportReport, Error>,
    ) -> Result<PathBuf, Error> {
        let export = match done {
            Ok(report) if report.bundle.is_some() => format::ExportOutcome::Written,
            Ok(_) => format::ExportOutcome::Unchanged,
            Err(_) => format::ExportOutcome::Failed,
        };
        let stream = &self.options.stream;
        let last = match &self.state {
            Some(state) => state.exports(stream.as_str())?,
            None => None,
        };
        let missing = done.as_ref().map_or(&[][..], |report| &report.missing);
        heartbeat::send(directory, stream, (export, missing), last.as_ref(), self.signer)
    }

    /// Collects and writes. Starts over if the data turns out to be bad while it is read.
    fn export(&self, wanted: &[WantedDataset]) -> Result<ExportReport, Error> {
        let ExportRun { options, network, progress, .. } = *self;
        let requirements = &Requirements::new(&options.require, &options.accept, wanted)?;
        let mut best = BestSource::new(network, self.floors.clone(), quorum(options), progress);
        let mut leftovers = 0;
        let mut missing = Vec::new();
        loop {
            let collected =
                collect::collect(network, wanted, requirements, &mut missing, &mut best, progress)?;
            let collected = self.judged(collected, requirements, &mut missing)?;
            let platform = options.platform.as_ref();
            let images =
                images::collect(&options.image, platform, requirements, &mut missing, network, progress)?;
            if collected.is_empty() && images.is_empty() && !missing.is_empty() {
                return Err(missing.remove(0).error);
            }
            if let Some(last) = self.last.as_ref().filter(|_| options.if_changed)
                && nothing_is_new(last, &manifests(&collected, &images), &missing)
                // If the last bundle is dated in the future, a new one corrects that.
                && created(options, Some(last), &Silent)?.1.is_none()
            {
                return Ok(self.unchanged(last, &collected, &images)?.without(missing));
            }
            // The layer of a source may still turn out to be bad or missing.
            let written = match shared_layer(&collected) {
                Some(bad) => Err(bad),
                None => self.write(collected, &images, requirement::items(&missing)),
            };
            match written {
                Ok(done) => return Ok(done.without(missing)),
                Err(ExportFailure::Leftover(error)) if leftovers < MAX_LEFTOVERS => {
                    progress.info(&format!("{error}; fetching all of it again"));
                    leftovers += 1;
                }
                Err(ExportFailure::Source(rejected)) => {
                    let mut items = wanted.iter().filter(|item| item.dataset().name == rejected.dataset);
                    let Some((item, artifact)) = items.find_map(|item| Some((item, item.artifact()?))) else {
                        return Err(rejected.error);
                    };
                    if let Err(error) = best.reject(*rejected, artifact) {
                        missing.push(requirements.without_dataset(&item.dataset(), error)?);
                    }
                }
                Err(ExportFailure::Image(failed)) => {
                    missing.push(requirements.without_image(&failed.name, failed.error)?);
                }
                Err(ExportFailure::Leftover(error) | ExportFailure::Other(error)) => return Err(error),
            }
        }
    }

    /// Checks the datasets whose content is known. Moves those that may not be signed to `missing`, if the
    /// bundle does not require them.
    fn judged(
        &self,
        collected: Vec<CollectedDataset>,
        requirements: &Requirements<'_>,
        missing: &mut Vec<MissingSource>,
    ) -> Result<Vec<CollectedDataset>, Error> {
        let mut good = Vec::new();
        for mut item in collected {
            match self.judge_content(&mut item) {
                Ok(()) => good.push(item),
                Err(error) => missing.push(requirements.without_dataset(&item.wanted, error)?),
            }
        }
        Ok(good)
    }

    /// Checks the date and the content of a dataset, if they are known.
    fn judge_content(&self, item: &mut CollectedDataset) -> Result<(), Error> {
        let dataset = &item.planned.dataset;
        judge(self.options, dataset, dataset.contents.updated_at, &self.floors, clock::now())?;
        if let Some(found) = &item.examination {
            let verdict = examine(self.options, dataset, found, self.last_size(dataset))?;
            (item.remarks, item.by_override) = (verdict.warnings, verdict.by_override);
        }
        item.check_as_importer()
    }

    /// The size of each dataset when it was last signed.
    fn sizes(&self, signed: &[CollectedDataset]) -> BTreeMap<String, DatasetSize> {
        let mut sizes = self.last.as_ref().map(|last| last.sizes.clone()).unwrap_or_default();
        for item in signed {
            if let Some(found) = &item.examination {
                let size = DatasetSize { bytes: found.bytes, entries: found.entries };
                sizes.insert(item.planned.dataset.reference(), size);
            }
        }
        sizes
    }

    /// The most recent overrides, including those of this bundle.
    fn overrides(&self, written: &WrittenBundle) -> Vec<Override> {
        const MOST: usize = 256;
        let mut overrides = self.last.as_ref().map(|last| last.overrides.clone()).unwrap_or_default();
        let flags = written.overrides.clone();
        if !flags.is_empty() {
            overrides.push(Override { at: clock::now(), identity: written.identity, flags });
        }
        overrides.drain(..overrides.len().saturating_sub(MOST));
        overrides
    }

    /// The size of a dataset when it was last signed.
    fn last_size(&self, dataset: &Dataset) -> Option<&DatasetSize> {
        self.last.as_ref()?.sizes.get(&dataset.reference())
    }

    /// Returns the report if upstream has nothing new. Fails if data has become too old since the last
    /// bundle.
    fn unchanged(
        &self,
        last: &ExportState,
        collected: &[CollectedDataset],
        images: &[images::CollectedImage],
    ) -> Result<ExportReport, Error> {
        let mut report = unchanged(self.options, collected, images, &self.floors)?;
        // An earlier run may have failed to copy the last bundle to the drop directory.
        if last.to_drop {
            match self.send(last) {
                Ok(sent) => report.dropped = sent,
                Err(error) => report.errors.push(error),
            }
        }
        Ok(report)
    }

    /// Copies the newest bundles to the directory of `--drop`, if there is one, and records that in the
    /// state.
    fn send(&self, last: &ExportState) -> Result<Vec<PathBuf>, Error> {
        let (Some(into), Some(from)) = (&self.options.drop_into, self.destination.directory()) else {
            return Ok(Vec::new());
        };
        let stream = self.options.stream.as_str();
        let from = [from.to_path_buf()];
        let sent = DropDirectory(into).send(&from, stream, self.options.repeat as usize, last.created)?;
        if let Some(state) = self.state.as_ref().filter(|_| last.to_drop) {
            state.save_exports(stream, &ExportState { to_drop: false, ..last.clone() })?;
        }
        Ok(sent)
    }

    /// Writes and signs a bundle of the collected datasets and images.
    fn write(
        &self,
        mut collected: Vec<CollectedDataset>,
        images: &[images::CollectedImage],
        missing: Vec<MissingItem>,
    ) -> Result<ExportReport, ExportFailure> {
        let ExportRun { options, signer, progress, .. } = *self;
        let (created, earlier) = created(options, self.last.as_ref(), progress)?;
        let created = self.destination.free_timestamp(created)?;
        let mut store = BaseStore::of_options(options, self.state.as_ref().map(StateDir::path))?;
        let mut prepared = match &store {
            Some(store) => self.prepare(store, &mut collected, created)?,
            None => Prepared::default(),
        };
        let plan = self.plan(&collected, images, missing, created)?;
        let most = self.destination.volume_size(options.volume_size);
        let parity = options.parity.map(|percent| (percent, most));
        let destination = self.destination.clone().create(&plan, created, parity, progress)?;
        let file = destination.writer(&plan)?;
        let mut writer = BundleWriter::new(plan, file).map_err(|e| destination.failed(e))?;
        let streamer = BlobStreamer { network: self.network, destination: &destination, progress };
        let contents =
            self.write_members(&mut writer, &streamer, &mut collected, images, (&mut prepared, created))?;
        let (payload, identity, file) = writer.finish(contents, signer).map_err(|e| destination.failed(e))?;
        let mut synced = destination.sync(file)?;
        destination.add_parity(&mut synced, identity, progress)?;
        let parity = destination.parity().map(WrittenParity::new);
        if options.verify_after_write {
            let step = progress.begin("reading back", payload.length, "");
            destination.read_back(&synced, &signer.public(), identity, &*step)?;
        }
        let files = destination.publish(synced)?;
        // Several versions of one dataset have one flag.
        let accepted: BTreeSet<String> =
            collected.iter().filter_map(|item| item.by_override.clone()).collect();
        let written = WrittenBundle {
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
            overrides: earlier.map(str::to_owned).into_iter().chain(accepted).collect(),
        };
        let mut report = self.conclude(written, &payload, &collected, images);
        if let Some(store) = &mut store {
            let bases = delta::bases(&payload);
            report.errors.extend(store.add(bases, MAX_BASES).err().map(|error| delta::broken(store, error)));
        }
        report.deltas = prepared.deltas;
        Ok(report)
    }

    /// Plans the bundle: its properties, and the order of its members.
    fn plan(
        &self,
        collected: &[CollectedDataset],
        images: &[images::CollectedImage],
        missing: Vec<MissingItem>,
        created: Timestamp,
    ) -> Result<BundlePlan, Error> {
        let (options, last) = (self.options, self.last.as_ref());
        let info = BundleInfo {
            stream: options.stream.clone(),
            created,
            expires: options.expires.map(|age| expiry(created, age)).transpose()?,
            sequence: self.state.as_ref().map(|_| last.map_or(1, |last| last.sequence.saturating_add(1))),
            previous: last.map(|last| last.identity),
            volume_size: self.destination.volume_size(options.volume_size),
            missing,
        };
        plan(info, collected, images)
    }

    /// Writes every member of the plan. Returns the contents of the large layers.
    fn write_members<'i, W: io::Write + Seek>(
        &self,
        writer: &mut BundleWriter<W>,
        streamer: &BlobStreamer<'_>,
        collected: &mut [CollectedDataset],
        images: &'i [images::CollectedImage],
        (prepared, created): (&mut Prepared, Timestamp),
    ) -> Result<BTreeMap<String, Contents>, ExportFailure> {
        let stored = prepared.layers.iter();
        let mut contents: BTreeMap<String, Contents> =
            stored.map(|(dataset, layer)| (dataset.clone(), layer.examined.contents.clone())).collect();
        while let Some(member) = writer.wants().cloned() {
            let has =
                |item: &CollectedDataset| item.planned.dataset.blobs().any(|blob| blob.path() == member.path);
            let Some(item) = collected.iter_mut().find(|item| has(item)) else {
                let blob = |image: &'i images::CollectedImage| Some((image, image.blob(&member.path)?));
                if let Some((image, blob)) = images.iter().find_map(blob) {
                    streamer.image_blob(writer, image, blob, &member)?;
                    continue;
                }
                let nothing = io::Error::other(format!("no dataset or image has {}", member.path));
                return Err(Error::unexpected("writing")(nothing).into());
            };
            if let Some(blob) = item.held.get_mut(&member.digest) {
                blob.rewind().map_err(Error::unexpected("reading a fetched blob"))?;
                writer.member(blob).map_err(|e| streamer.destination.failed(e))?;
                continue;
            }
            let dataset = &item.planned.dataset;
            if let Some(layer) = prepared.layers.get_mut(&dataset.reference()) {
                layer.file.rewind().map_err(Error::unexpected("reading a stored layer"))?;
                writer.member(&layer.file).map_err(|e| streamer.destination.failed(e))?;
                continue;
            }
            let examined = streamer.layer(writer, item, &member)?;
            self.judge_layer(item, &examined, member.digest, created)?;
            contents.insert(item.planned.dataset.reference(), examined.contents);
            item.examination = Some(examined.examination);
        }
        Ok(contents)
    }

    /// Checks the date and the content of a large layer that was read.
    fn judge_layer(
        &self,
        item: &mut CollectedDataset,
        examined: &Examined,
        layer: Digest,
        created: Timestamp,
    ) -> Result<(), ExportFailure> {
        let dataset = &item.planned.dataset;
        let Examined { contents, examination } = examined;
        // Every source has the same content for this layer, so it is rejected from all of them.
        judge(self.options, dataset, contents.updated_at, &self.floors, created.max(clock::now()))
            .and_then(|()| examine(self.options, dataset, examination, self.last_size(dataset)))
            .map_err(|error| Rejected::anywhere(error, dataset, layer))
            .map(|verdict| (item.remarks, item.by_override) = (verdict.warnings, verdict.by_override))?;
        Ok(())
    }

    /// Fetches all large layers into the base store, and replaces those by patches that it can.
    fn prepare(
        &self,
        store: &BaseStore,
        collected: &mut [CollectedDataset],
        created: Timestamp,
    ) -> Result<Prepared, ExportFailure> {
        let whole =
            self.options.delta.as_ref().is_none_or(|options| store.is_due(options.full_every, created));
        let maker = DeltaMaker { network: self.network, store, whole, progress: self.progress };
        let mut prepared = Prepared::default();
        for item in collected.iter_mut().filter(|item| item.planned.dataset.name.kind().is_large()) {
            let layer = maker.fetch(item)?;
            let digest = item.planned.dataset.content_layer().map(|layer| layer.digest);
            self.judge_layer(
                item,
                &layer.examined,
                digest.unwrap_or(item.planned.dataset.manifest.digest),
                created,
            )?;
            item.examination = Some(layer.examined.examination.clone());
            prepared.deltas.extend(maker.replace(item, &layer)?);
            prepared.layers.insert(item.planned.dataset.reference(), layer);
        }
        Ok(prepared)
    }

    /// Records the bundle, copies it to the drop directory, and removes older ones. Adds errors to the report,
    /// because the bundle is already written.
    fn conclude(
        &self,
        written: WrittenBundle,
        payload: &Payload,
        collected: &[CollectedDataset],
        images: &[images::CollectedImage],
    ) -> ExportReport {
        let ExportRun { options, signer, .. } = *self;
        let stream = options.stream.as_str();
        let mut errors = Vec::new();
        let mut floors = self.floors.clone();
        for dataset in &payload.datasets {
            if let Some(date) = dataset.contents.updated_at {
                floors.insert(dataset.reference(), date);
            }
        }
        let export = ExportState {
            sizes: self.sizes(collected),
            overrides: self.overrides(&written),
            identity: written.identity,
            created: written.created,
            sequence: payload.sequence.unwrap_or(1),
            floors,
            manifests: manifests(collected, images),
            to_drop: options.drop_into.is_some(),
        };
        if let Some(state) = &self.state {
            errors.extend(state.save_exports(stream, &export).err().map(Error::from));
            let entry = log::entry(&written, payload, signer);
            let logged = state.export_log().and_then(|log| log.append(&entry));
            errors.extend(logged.err().map(Error::from));
        }
        let dropped = self.send(&export).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let removed = match (options.keep, self.destination.directory()) {
            (Some(keep), Some(directory)) => {
                retain(directory, stream, &signer.public(), written.created, keep as usize)
            }
            _ => Ok(Vec::new()),
        };
        let removed = removed.unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let now = clock::now();
        let skipped = |dataset: &Dataset| {
            let item = collected.iter().find(|item| item.planned.dataset.reference() == dataset.reference());
            item.map_or(&[][..], |item| &item.skipped)
        };
        let rows = payload.datasets.iter();
        let rows = rows.map(|d| ExportedDataset::new(d, d.contents.updated_at, skipped(d), now)).collect();
        let old = payload.datasets.iter().filter_map(|d| age_warning(d, d.contents.updated_at, now));
        let warnings = collected.iter().flat_map(|item| item.remarks.clone()).chain(old);
        let is_complete = payload.missing.is_empty();
        ExportReport {
            result: if is_complete { ExportResult::Written } else { ExportResult::Incomplete },
            removed,
            dropped,
            warnings: warnings.collect(),
            datasets: rows,
            images: payload.images.iter().map(ExportedImage::new).collect(),
            bundle: Some(written),
            errors,
            ..ExportReport::default()
        }
    }
}

/// Finds a large layer that is also another blob. It would be written as that blob, and not validated as
/// a layer.
fn shared_layer(collected: &[CollectedDataset]) -> Option<ExportFailure> {
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
            let error =
                bad_content(dataset, &format!("its layer {layer} is also another blob of the bundle"));
            let source = std::slice::from_ref(&artifact.source);
            return Some(Rejected::from(error, dataset, layer, source).into());
        }
        seen.extend(dataset.blobs().map(|blob| blob.digest));
    }
    None
}

/// Opens the exporter's state directory. Without one, bundles have no sequence number.
fn state(options: &ExportOptions, progress: &dyn Progress) -> Result<Option<StateDir>, Error> {
    let waits = |path: &Path| progress.info(&waits_for(path));
    match StateDir::open_telling(options.state_dir.as_deref(), Side::Export, &waits) {
        Ok(state) => {
            state.warnings().iter().for_each(|warning| progress.warn(warning));
            Ok(Some(state))
        }
        Err(error @ TrustError::NoStateDir { .. }) => {
            progress.info(&format!("{error}; this bundle has no sequence number. {}", error.hint()));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The manifest digests of everything to sign, by name.
fn manifests(collected: &[CollectedDataset], images: &[images::CollectedImage]) -> BTreeMap<String, Digest> {
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

/// Whether the stream's last bundle holds all of this. An item that is missing now counts as unchanged: it is
/// no reason for another bundle.
fn nothing_is_new(last: &ExportState, now: &BTreeMap<String, Digest>, missing: &[MissingSource]) -> bool {
    let is_missing =
        |key: &String| !now.contains_key(key) && missing.iter().any(|missing| missing.item.is(key));
    let is_same = |(key, digest): (&String, &Digest)| now.get(key) == Some(digest) || is_missing(key);
    last.manifests.iter().all(is_same) && now.keys().all(|key| last.manifests.contains_key(key))
}

/// The report of an export that writes nothing.
fn unchanged(
    options: &ExportOptions,
    collected: &[CollectedDataset],
    images: &[images::CollectedImage],
    floors: &BTreeMap<String, Timestamp>,
) -> Result<ExportReport, Error> {
    let now = clock::now();
    let (mut datasets, mut warnings) = (Vec::new(), Vec::new());
    for item in collected {
        let dataset = &item.planned.dataset;
        let date = floors.get(&dataset.reference()).copied();
        if let Some(max_age) = &options.max_age {
            max_age.check(&dataset.name, date, now)?;
        }
        warnings.extend(item.remarks.clone());
        warnings.extend(age_warning(dataset, date, now));
        datasets.push(ExportedDataset::new(dataset, date, &item.skipped, now));
    }
    Ok(ExportReport {
        result: ExportResult::Unchanged,
        unchanged: true,
        datasets,
        images: images.iter().map(|image| ExportedImage::new(&image.planned.image)).collect(),
        warnings,
        ..ExportReport::default()
    })
}

/// Whether a file is on another file system than the root directory, such as that of a medium.
fn apart_from_root(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(path) != device(Path::new("/"))
}
