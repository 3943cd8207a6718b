//! The destination of an export. Files have temporary names while they are written, and get their final names
//! after everything is signed and synced. The next export finds the leftover files of an interrupted one.
//!
//! This module depends on names, files and free space, but not on the sources of the data.

pub(crate) mod resume;
pub(crate) mod room;
pub(crate) mod volume_files;
pub(crate) mod write_behind;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use crate::bundle::names::{self, PARTIAL};
use crate::bundle::parity::{self, Percent, Shape};
use crate::bundle::volumes::{self, VolumeNumber};
use crate::bundle::writer::{BundlePlan, WriteError};
use crate::bundle::{self, Member};
use crate::digest::Digest;
use crate::error::Error;
use crate::export::output::resume::{Geometry, Leftover, PLAN, PartialFile, Prefix};
use crate::export::output::room::{FAT_MOST, is_fat, place};
use crate::export::output::volume_files::VolumeFiles;
use crate::progress::{Progress, Step};
use crate::trust::key::PublicKey;
use crate::util::byte_size::ByteSize;
use crate::util::fs::{self, Durability, is_at};
use crate::util::text::{format_size, parse_stamp};

/// The suffix of a leftover file whose name another export needs.
const OLD: &str = ".old";
/// The maximum number of leftover files that are examined.
const MAX_LEFTOVERS: usize = 4;
/// The number of attempts, and the pause between them, for a name that another run holds briefly.
const TRIES: u32 = 50;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// The default size of volumes in bytes, if several directories need them.
const DEFAULT_VOLUME: u64 = 1 << 30;

/// The place that a bundle is written to.
#[derive(Clone)]
pub(crate) struct Destination {
    /// Its directories; several if the bundle may use several media.
    directories: Vec<PathBuf>,
    /// The file name, if the user chose it.
    name: Option<String>,
    stream: String,
}

/// A bundle that is being written. If it is dropped before it is published, it keeps the files that the next
/// export can resume, if any.
pub(crate) struct PendingBundle {
    /// The final names of its files, in order.
    names: Vec<PathBuf>,
    /// Their temporary names.
    partials: Vec<PathBuf>,
    /// Their parity files.
    parity: Option<Parity>,
    /// The leftover files of earlier exports that this one may use.
    leftovers: Vec<Leftover>,
    /// Whether it cannot be resumed, because the medium is full or gone.
    failed: Cell<bool>,
    /// Whether the files belong to this run, and not to another one.
    ours: Cell<bool>,
    /// The offset of the first byte of bad data.
    spoiled: Cell<Option<u64>>,
    /// Whether the leftover files of earlier exports have bad data as well.
    leftovers_spoiled: Cell<bool>,
    geometry: Geometry,
    published: bool,
}

/// The parity files of a bundle.
pub(crate) struct Parity {
    pub(crate) shape: Shape,
    /// The shards of each of its files.
    shards: Vec<std::ops::Range<usize>>,
    pub(crate) names: Vec<PathBuf>,
}

/// A complete bundle that is synced under its temporary names, and its parity files.
pub(crate) struct Synced {
    volume_files: VolumeFiles,
    parity: Option<VolumeFiles>,
}

const MOUNTED: &str = "Create it, or check that the medium is mounted.";
const FILE: &str = "Create it, check that the medium is mounted, or give a file name that ends in .tar.";

impl Destination {
    /// The directory in which bundles are named after their stream; `None` if the user chose a name or
    /// several directories.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match (&self.name, self.directories.as_slice()) {
            (None, [one]) => Some(one),
            _ => None,
        }
    }

    /// Checks the place before anything is fetched.
    ///
    /// # Errors
    /// If a directory does not exist, or if the file exists.
    pub(crate) fn new(outputs: &[PathBuf], stream: &str) -> Result<Self, Error> {
        let [output] = outputs else {
            return match outputs.iter().find(|output| !output.is_dir()) {
                Some(none) => Err(no_directory(none, MOUNTED)),
                None => Ok(Destination { directories: outputs.into(), name: None, stream: stream.into() }),
            };
        };
        if output.is_dir() {
            return Ok(Destination { directories: outputs.into(), name: None, stream: stream.into() });
        }
        let name = output.file_name().map(|name| name.to_string_lossy().into_owned());
        let parent =
            output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A missing mount point must not become a file with its name.
        let named_as_directory = !output.as_os_str().to_string_lossy().to_lowercase().ends_with(".tar");
        let (Some(name), true, false) = (name, parent.is_dir(), named_as_directory) else {
            return Err(match named_as_directory {
                true => no_directory(output, FILE),
                false => no_directory(parent, MOUNTED),
            });
        };
        let destination =
            Destination { directories: vec![parent.into()], name: Some(name.clone()), stream: stream.into() };
        if let Some(existing) = destination.existing(&name) {
            let path = output.with_file_name(existing.file_name().unwrap_or_default());
            return Err(Error::usage(
                format!("{} already exists, and a bundle is never overwritten", path.display()),
                "Give a new file name, or a directory: the file is then named after the stream and the date.",
            ));
        }
        Ok(destination)
    }

    /// Returns the existing file with the name of this bundle or of its head volume.
    fn existing(&self, name: &str) -> Option<PathBuf> {
        let names = [name.to_owned(), volumes::name(name, VolumeNumber::HEAD)];
        let paths =
            self.directories.iter().flat_map(|directory| names.iter().map(|name| directory.join(name)));
        paths.into_iter().find(|path| path.symlink_metadata().is_ok())
    }

    /// The size in bytes above which a bundle is split: the requested size, or the one that the directories
    /// need.
    pub(crate) fn volume_size(&self, asked: Option<ByteSize>) -> Option<u64> {
        let several = (self.directories.len() > 1).then_some(DEFAULT_VOLUME);
        let fat = self.directories.iter().any(|directory| is_fat(directory)).then_some(FAT_MOST);
        match asked.map(ByteSize::bytes).or(several) {
            Some(size) => Some(size.min(fat.unwrap_or(u64::MAX))),
            None => fat,
        }
    }

    /// Returns the first date, not before `created`, that no bundle in the directory has in its name. The
    /// state has no record of a bundle of a second exporter, or of an export that was killed after it
    /// renamed its files.
    pub(crate) fn free_timestamp(&self, created: Timestamp) -> Result<Timestamp, Error> {
        /// The number of dates that are tried, more than consecutive runs need. If all of them are
        /// taken, it is an attack.
        const MAX: i64 = 60;
        let moments =
            (0..MAX).filter_map(|seconds| created.checked_add(SignedDuration::from_secs(seconds)).ok());
        let free = |moment: &Timestamp| {
            self.name.is_some() || self.existing(&names::default_name(&self.stream, *moment)).is_none()
        };
        moments.into_iter().find(free).ok_or_else(|| Error::Destination {
            path: self.directories[0].clone(),
            what: "it already holds bundles of this stream with the current date and later ones".into(),
            hint: "Use an empty directory: a bundle with a later date would make importers reject the next ones.".into(),
        })
    }

    /// Checks that there is room for a bundle with this plan and its parity files, if leftover files are
    /// removed.
    ///
    /// # Errors
    /// If there is not enough room.
    pub(crate) fn check_room(
        &self,
        plan: &BundlePlan,
        parity: Option<(Percent, Option<u64>)>,
    ) -> Result<(), Error> {
        let files = Files::new(self.name.clone().unwrap_or_else(|| self.stream.clone()), plan, parity)?;
        let leftovers = self.leftovers(plan, &files);
        let there = leftovers.iter().map(Leftover::length).fold(0, u64::saturating_add);
        let placed = place(&self.directories, &files.lengths, there);
        let placed = placed.map_err(|(path, error)| failed(&path, error))?;
        placed.map(drop).map_err(|free| self.no_room(&files, there, free))
    }

    /// Prepares the files for a bundle with this plan. `parity` is the size of the parity relative to the
    /// bundle, and the maximum size of its files in bytes.
    ///
    /// # Errors
    /// If there is not enough room.
    pub(crate) fn create(
        self,
        plan: &BundlePlan,
        created: Timestamp,
        parity: Option<(Percent, Option<u64>)>,
        progress: &dyn Progress,
    ) -> Result<PendingBundle, Error> {
        let bundle = self.name.clone().unwrap_or_else(|| names::default_name(&self.stream, created));
        let files = Files::new(bundle, plan, parity)?;
        let mut leftovers = self.leftovers(plan, &files);
        let start = self.start(plan, &files, &mut leftovers);
        let directories = self.make_room(&files, &start, &mut leftovers, progress)?;
        let mut names: Vec<PathBuf> = directories
            .into_iter()
            .enumerate()
            .map(|(index, directory)| directory.join(files.name(index)))
            .collect();
        let parity_names = names.split_off(files.volumes);
        let parity = files.parity.map(|(shape, shards)| Parity { shape, shards, names: parity_names });
        let partials =
            start.resumed.unwrap_or_else(|| names.iter().map(|name| names::partial_path(name)).collect());
        let (failed, ours, spoiled, leftovers_spoiled) = Default::default();
        let geometry = Geometry::of(plan);
        let published = false;
        Ok(PendingBundle {
            names,
            partials,
            parity,
            leftovers,
            failed,
            ours,
            spoiled,
            leftovers_spoiled,
            geometry,
            published,
        })
    }

    /// Returns the leftover files of interrupted exports: those that fit this plan first, and the longest of
    /// these first.
    fn leftovers(&self, plan: &BundlePlan, files: &Files) -> Vec<Leftover> {
        // A much larger file was not left by an export like this one.
        let most = plan.length().saturating_mul(4);
        let in_directory =
            |directory: &PathBuf| find_leftovers(directory, &files.name(0), &self.stream, most);
        let mut leftovers: Vec<Leftover> = self.directories.iter().flat_map(in_directory).collect();
        leftovers.sort_by_key(|leftover| (!leftover.fits(plan), std::cmp::Reverse(leftover.good())));
        leftovers
    }

    /// Decides whether the first leftover is resumed. If not, no leftover keeps the name that the new files
    /// need.
    fn start(&self, plan: &BundlePlan, files: &Files, leftovers: &mut Vec<Leftover>) -> Start {
        let fits = leftovers.first().filter(|leftover| leftover.fits(plan) && self.directories.len() == 1);
        if let Some(leftover) = fits {
            let paths = leftover.paths();
            return Start { first: paths[0].clone(), there: leftover.length(), resumed: Some(paths) };
        }
        let first = self.directories[0].join(format!("{}{PARTIAL}", files.name(0)));
        set_aside(&first, leftovers);
        Start { first, there: 0, resumed: None }
    }

    /// Chooses the directory for each file, and removes leftover files until there is room.
    fn make_room(
        &self,
        files: &Files,
        start: &Start,
        leftovers: &mut Vec<Leftover>,
        progress: &dyn Progress,
    ) -> Result<Vec<&Path>, Error> {
        let places = || {
            place(&self.directories, &files.lengths, start.there)
                .map_err(|(path, error)| failed(&path, error))
        };
        // Leftover files only save downloads, so they are removed for a new bundle.
        let mut placed = places()?;
        while placed.is_err() && leftovers.last().is_some_and(|leftover| leftover.path != start.first) {
            if let Some(leftover) = leftovers.pop() {
                progress.info(&format!(
                    "removing {} to make room; its data will be fetched again",
                    leftover.path.display()
                ));
                resume::remove(&leftover.paths());
            }
            placed = places()?;
        }
        placed.map_err(|free| self.no_room(files, start.there, free))
    }

    fn no_room(&self, files: &Files, there: u64, free: u64) -> Error {
        Error::Destination {
            what: match files.lengths.iter().sum::<u64>().saturating_sub(there) {
                all if all > free => format!("the bundle needs {}, but only {} are free", format_size(all), format_size(free)),
                all => format!("the bundle needs {}, and {} are free, but not all volumes fit", format_size(all), format_size(free)),
            },
            path: self.directories[0].clone(),
            hint: "Free space, use a larger medium or several (--output for each), use smaller volumes (--volume-size), or carry less (--skip trivy-java-db)."
                .into(),
        }
    }
}

/// The planned files of a bundle: the only one, or the head volume and the others; then its parity files.
struct Files {
    /// The name of the bundle.
    bundle: String,
    /// The number of files without parity files.
    volumes: usize,
    /// The lengths of all files in bytes.
    lengths: Vec<u64>,
    /// The shape of the parity, and the shards of each of its files.
    parity: Option<(Shape, Vec<std::ops::Range<usize>>)>,
}

impl Files {
    fn new(bundle: String, plan: &BundlePlan, parity: Option<(Percent, Option<u64>)>) -> Result<Self, Error> {
        let mut lengths = plan.files();
        let volumes = lengths.len();
        let shaped = |(percent, most)| {
            let shape = Shape::new(plan.files(), percent)?;
            let shards = shape.parity_files(most);
            Ok((shape, shards))
        };
        let parity = parity.map(shaped).transpose().map_err(|why: String| {
            Error::usage(
                format!("this parity is not possible for the bundle: {why}"),
                "Use larger volumes (--volume-size).",
            )
        })?;
        if let Some((shape, shards)) = &parity {
            lengths.extend(shards.iter().map(|shards| shape.parity_length(shards.len())));
        }
        Ok(Files { bundle, volumes, lengths, parity })
    }

    /// Returns the name of a file.
    fn name(&self, index: usize) -> String {
        let number = |index: usize| index.checked_sub(1).map_or(Some(VolumeNumber::HEAD), VolumeNumber::at);
        match self.volumes {
            count if index >= count => parity::name(&self.bundle, index - count + 1),
            1 => self.bundle.clone(),
            _ => number(index).map_or_else(String::new, |number| volumes::name(&self.bundle, number)),
        }
    }
}

/// The start of writing a bundle.
struct Start {
    /// The temporary name of the first file.
    first: PathBuf,
    /// The files of the leftover that is resumed.
    resumed: Option<Vec<PathBuf>>,
    /// The number of bytes that they already hold.
    there: u64,
}

fn no_directory(path: &Path, hint: &str) -> Error {
    Error::usage(format!("the directory {} does not exist", path.display()), hint)
}

/// Whether a file has the default name of a bundle of this stream, or of one of its volumes or parity files.
pub(crate) fn is_named_for(name: &str, stream: &str) -> bool {
    dated(name, stream).is_some()
}

/// Returns the date in such a name; `None` for any other name.
pub(crate) fn dated(name: &str, stream: &str) -> Option<Timestamp> {
    let parity = parity::parse_name(name);
    let name = parity.as_deref().or(volumes::parse_name(name).map(|(bundle, _)| bundle)).unwrap_or(name);
    let date = name.strip_suffix(".tar").and_then(|rest| rest.strip_prefix(stream)?.strip_prefix('-'));
    date.and_then(parse_stamp)
}

impl PendingBundle {
    /// Opens the files for writing.
    ///
    /// # Errors
    /// If they cannot be created.
    pub(crate) fn writer(&self, plan: &BundlePlan) -> Result<PartialFile, Error> {
        let begin = || match self.leftovers.iter().find(|leftover| leftover.path == self.partials[0]) {
            Some(leftover) => {
                self.ours.set(true);
                leftover.resume()
            }
            None => {
                let mut files = Vec::new();
                for (partial, length) in self.partials.iter().zip(plan.files()) {
                    files.push((create_locked(partial)?, partial.clone(), length));
                    self.ours.set(true);
                }
                PartialFile::new(VolumeFiles::new(files), plan)
            }
        };
        raise_open_file_limit(self.partials.len());
        begin().map_err(|error| self.broke(&self.partials[0], error))
    }

    /// Returns the start of a blob that an earlier export fetched.
    pub(crate) fn prefix(&self, digest: Digest, size: u64) -> Option<Prefix> {
        let found = self.leftovers.iter().filter_map(|leftover| leftover.prefix(digest, size));
        found.max_by_key(Prefix::left)
    }

    /// Marks a blob as bad, so that no export resumes it. If a part of it was `left` by an earlier export,
    /// marks the leftover files as bad as well.
    pub(crate) fn spoil(&self, member: &Member, left: bool) {
        self.leftovers_spoiled.set(self.leftovers_spoiled.get() || left);
        let at = self.geometry.find(member.digest, member.size).unwrap_or(0);
        self.spoiled.set(Some(self.spoiled.get().map_or(at, |earlier| earlier.min(at))));
    }

    fn broke(&self, path: &Path, error: io::Error) -> Error {
        self.failed.set(true);
        failed(path, error)
    }

    /// Writes and syncs everything that is still in memory to the medium.
    ///
    /// # Errors
    /// If the medium fails.
    pub(crate) fn sync(&self, writer: PartialFile) -> Result<Synced, Error> {
        let sync = || {
            let volume_files = writer.into_volume_files()?;
            volume_files.each(|file| {
                // Bundles are readable by all users regardless of the umask. FAT has no modes.
                let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
                Ok(())
            })?;
            if !volume_files.are_complete()? {
                return Err(io::Error::other("its length differs from the plan"));
            }
            volume_files.each(File::sync_all).map(|()| Synced { volume_files, parity: None })
        };
        sync().map_err(|error| self.broke(&self.partials[0], error))
    }

    /// Writes the parity files, if the options ask for them.
    ///
    /// # Errors
    /// If the medium fails.
    pub(crate) fn add_parity(
        &self,
        synced: &mut Synced,
        identity: Digest,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let Some(parity) = &self.parity else { return Ok(()) };
        let step = progress.begin("writing parity", parity.shape.files().iter().sum(), "");
        let make = || {
            let mut files = Vec::new();
            for (name, shards) in parity.names.iter().zip(&parity.shards) {
                let partial = names::partial_path(name);
                // Leftover parity files are replaced by new ones, which costs no download.
                if let Some(abandoned) = abandoned(&partial) {
                    fs::remove_file(&partial)?;
                    drop(abandoned);
                }
                files.push((create_locked(&partial)?, partial, parity.shape.parity_length(shards.len())));
            }
            let volume_files = VolumeFiles::new(files);
            let with: Vec<_> = parity.shards.iter().cloned().zip(volume_files.files()).collect();
            let data: Vec<&File> = synced.volume_files.files().collect();
            bundle::parity::encode(&parity.shape, identity, &data, &with, &*step)?;
            volume_files.each(|file| {
                let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
                file.sync_all()
            })?;
            Ok(volume_files)
        };
        let made = make().map_err(|error| self.broke(&parity.names[0], error))?;
        synced.parity = Some(made);
        Ok(())
    }

    /// The parity files of the bundle.
    pub(crate) fn parity(&self) -> Option<&Parity> {
        self.parity.as_ref()
    }

    /// Reads the files back from the medium and compares them with the signed digests.
    ///
    /// # Errors
    /// If they differ. All files are removed then.
    pub(crate) fn read_back(
        &self,
        synced: &Synced,
        key: &PublicKey,
        identity: Digest,
        step: &dyn Step,
    ) -> Result<(), Error> {
        let parity: Vec<PathBuf> = synced
            .parity
            .iter()
            .flat_map(|volume_files| volume_files.paths().map(Path::to_path_buf))
            .collect();
        bundle::read_back(&self.partials, &parity, key, identity, step).map_err(|error| {
            self.failed.set(true);
            Error::Destination {
                path: self.names[0].clone(),
                what: format!("the data read back from the medium differs from the written data: {error}"),
                hint: "Use another medium: this one is failing, or is smaller than it claims.".into(),
            }
        })
    }

    /// Renames the files to their final names.
    ///
    /// # Errors
    /// If a file cannot be renamed. All files are removed then.
    pub(crate) fn publish(mut self, synced: Synced) -> Result<Vec<PathBuf>, Error> {
        let Synced { volume_files, parity } = synced;
        let names = self.parity.as_ref().map_or(&[][..], |parity| &parity.names);
        let publish = || {
            // The head volume gets its name last of all.
            parity.as_ref().map_or(Ok(()), |parity| parity.publish(names))?;
            volume_files.publish(&self.names).inspect_err(|_| {
                if let Some(parity) = &parity {
                    parity.withdraw(names);
                }
            })
        };
        publish().map_err(|error| self.broke(&self.names[0], error))?;
        self.published = true;
        Ok(std::mem::take(&mut self.names))
    }

    /// Converts an error of the writer.
    pub(crate) fn failed(&self, error: WriteError) -> Error {
        match error {
            WriteError::Destination(error) => self.broke(&self.names[0], error),
            WriteError::Sign(error) => error.into(),
            WriteError::Source { member, error } => Error::unexpected(format!("reading {member}"))(error),
            other => {
                Error::unexpected(format!("writing {}", self.names[0].display()))(io::Error::other(other))
            }
        }
    }
}

impl Drop for PendingBundle {
    fn drop(&mut self) {
        if self.published {
            let _ = fs::remove_file(resume::plan_of(&self.partials[0]));
        } else if !self.ours.get() {
            // Another run is writing these files.
        } else if self.failed.get() || !resume::is_worth_keeping(&self.partials) {
            resume::remove(&self.partials);
        } else if let Some(end) = self.spoiled.get() {
            self.geometry.cut(&self.partials, end);
        }
        if let (Some(parity), false) = (&self.parity, self.published) {
            // Parity can be computed only from the complete bundle.
            for name in &parity.names {
                let partial = names::partial_path(name);
                if self.ours.get() && abandoned(&partial).is_some() {
                    let _ = fs::remove_file(partial);
                }
            }
        }
        for leftover in &self.leftovers {
            // Its data is in the bundle now, or is bad.
            if leftover.path != self.partials[0] && (self.published || self.leftovers_spoiled.get()) {
                resume::remove(&leftover.paths());
            }
        }
    }
}

/// Raises the limit of open files for `count` volumes, in addition to the files that every export opens.
fn raise_open_file_limit(count: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const OTHERS: u64 = 200;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = OTHERS + count as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        // If this fails, creating a file may fail, which is reported then.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Renames a leftover that has the name of the new file. One with several volumes is removed.
fn set_aside(partial: &Path, leftovers: &mut Vec<Leftover>) {
    let name = partial.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside =
        partial.with_file_name(format!("{}{OLD}{PARTIAL}", name.strip_suffix(PARTIAL).unwrap_or(&name)));
    let has_name = |leftover: &Leftover| leftover.path == partial;
    if leftovers.iter().any(|leftover| has_name(leftover) && leftover.paths().len() > 1) {
        leftovers.retain(|leftover| !has_name(leftover));
        resume::remove_all(partial);
    }
    if leftovers.iter().any(has_name) {
        leftovers.retain(|leftover| leftover.path != aside);
        resume::remove_all(&aside);
        for leftover in leftovers.iter_mut().filter(|leftover| has_name(leftover)) {
            let rename = |from: &Path, to: &Path| fs::rename(from, to, Durability::Unsynced);
            let moved = rename(&resume::plan_of(partial), &resume::plan_of(&aside));
            if moved.and_then(|()| rename(partial, &aside)).is_ok() {
                leftover.path.clone_from(&aside);
            }
        }
    }
}

/// Creates a file and locks it, so that another run does not treat it as abandoned.
fn create_locked(partial: &Path) -> io::Result<File> {
    for _ in 0..TRIES {
        match fs::create_new(partial, 0o644) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            // Another run may have removed it before it was locked.
            Ok(file) => match file.try_lock() {
                Ok(()) if !is_at(&file, partial) => {}
                // Some file systems do not support locks.
                Ok(()) | Err(std::fs::TryLockError::Error(_)) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => {}
            },
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Finds the leftover files of interrupted exports of this stream. Removes those that cannot be resumed. A
/// running export holds the lock on its files.
fn find_leftovers(directory: &Path, name: &str, stream: &str, most: u64) -> Vec<Leftover> {
    let (mut found, mut volumes) = (Vec::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let is_volume = file_name.strip_suffix(PARTIAL).and_then(bundle::volumes::parse_name);
        let is_parity = file_name.strip_suffix(PARTIAL).and_then(bundle::parity::parse_name);
        if is_parity.is_some() || is_volume.is_some_and(|(_, number)| number != VolumeNumber::HEAD) {
            volumes.push(entry.path());
            continue;
        }
        let ours = file_name == format!("{name}{PARTIAL}")
            || file_name == format!("{name}{OLD}{PARTIAL}")
            || file_name.strip_suffix(PARTIAL).is_some_and(|name| is_named_for(name, stream));
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        // An export that was killed after it renamed its files leaves only the plan.
        let of_plan = file_name.strip_suffix(PLAN).filter(|of| *of == name || is_named_for(of, stream));
        if let Some(of) = of_plan.filter(|_| plain)
            && directory.join(format!("{of}{PARTIAL}")).symlink_metadata().is_err()
        {
            let _ = fs::remove_file(entry.path());
        }
        if ours && plain {
            // Use or remove a file only while this process holds its lock.
            let path = entry.path();
            let Some(file) = abandoned(&path) else { continue };
            // Exports do not leave more than a few files.
            let enough = found.len() >= MAX_LEFTOVERS;
            let small = file.metadata().is_ok_and(|metadata| metadata.len() <= most);
            let looked = (small && !enough).then(|| Leftover::look(&path, file)).flatten();
            match looked {
                Some(leftover) => found.push(leftover),
                None => resume::remove_all(&path),
            }
        }
    }
    // Parity files, and volumes without a head volume. The volumes of a leftover are locked with it.
    for path in volumes {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = name.strip_suffix(PARTIAL).is_some_and(|name| is_named_for(name, stream));
        if ours && abandoned(&path).is_some() {
            let _ = fs::remove_file(&path);
        }
    }
    found
}

/// Opens a file that no run is writing.
fn abandoned(path: &Path) -> Option<File> {
    let free = |file: &File| !matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock));
    fs::open_plain(path).ok().filter(|file| free(file) && is_at(file, path))
}

fn failed(path: &Path, error: io::Error) -> Error {
    use io::ErrorKind::{AlreadyExists, FileTooLarge, PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let hint = match error.kind() {
        AlreadyExists => "Another export of this stream is writing there; run the command again later.",
        StorageFull => "Free space, use a larger medium, or carry less (--skip trivy-java-db).",
        FileTooLarge => {
            "FAT32 cannot hold a file of 4 GiB or more: use a medium with exFAT, or carry less with --skip."
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "Choose a directory that you may write to, or mount the medium for writing."
        }
        _ => {
            "Check the medium, which may have been unplugged, and run the command again: no files were left there."
        }
    };
    Error::Destination { path: path.into(), what: error.to_string(), hint: hint.into() }
}
