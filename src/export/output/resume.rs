//! The leftover files of an interrupted export, from which the next export resumes: the volumes, and the plan
//! beside the first.
//!
//! The plan is lines of JSON: the layout of the bundle, then one checkpoint with a checksum per interval. It
//! is not trusted: it only saves a download. The checksums show where the good bytes end, and reused bytes
//! are hashed again with the rest.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use serde::{Deserialize, Serialize};

use crate::bundle::Member;
use crate::bundle::names::{PARTIAL, final_path, partial_path};
use crate::bundle::volumes::{VolumeNumber, beside};
use crate::bundle::writer::BundlePlan;
use crate::digest::Digest;
use crate::export::output::volume_files::VolumeFiles;
use crate::export::output::write_behind::WriteBehind;
use crate::util::fs::{self, Durability, open_plain, rename_new};

/// The suffix of the plan's file name.
pub(crate) const PLAN: &str = ".plan.partial";
/// The number of bytes between two checkpoints. A killed export loses at most this many.
const CHECKPOINT_INTERVAL: u64 = 4 << 20;
/// The maximum length of a line in a plan, in bytes. The first line lists all members of the bundle.
const MAX_LINE: u64 = 2 << 20;

/// The layout of a bundle in its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Geometry {
    /// The offset of the first member after the manifest.
    start: u64,
    members: Vec<Member>,
    /// The lengths of its files.
    files: Vec<u64>,
}

/// A checkpoint: its offset, and the CRC-32 of the interval before it. CRC-32 is enough to detect the effects
/// of a crash.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    end: u64,
    crc: u32,
}

impl Geometry {
    pub(crate) fn of(plan: &BundlePlan) -> Self {
        Geometry { start: plan.start(), members: plan.members().to_vec(), files: plan.files() }
    }

    /// Cuts files of this layout off at the byte `end`, rounded down to a checkpoint. Removes them if nothing
    /// would be left.
    pub(crate) fn cut(&self, partials: &[PathBuf], end: u64) {
        let end = end - end % CHECKPOINT_INTERVAL;
        let open = |(path, length): (&PathBuf, &u64)| Ok((open_plain(path)?, path.clone(), *length));
        let volume_files =
            partials.iter().zip(&self.files).map(open).collect::<io::Result<_>>().map(VolumeFiles::new);
        if end == 0 || volume_files.and_then(|volume_files| volume_files.set_len(end)).is_err() {
            remove(partials);
        }
    }

    /// Returns the offset of a blob with this length.
    pub(crate) fn find(&self, digest: Digest, size: u64) -> Option<u64> {
        let mut at = self.start;
        for member in &self.members {
            let (offset, next) = BundlePlan::place(at, member.size);
            if member.digest == digest && member.size == size && member.path.starts_with("blobs/") {
                return Some(offset);
            }
            at = next;
        }
        None
    }
}

/// The leftover files of an interrupted export. The first is locked until this value is dropped. No
/// file is opened by name again, because another process may have replaced it.
pub(crate) struct Leftover {
    /// Its first file.
    pub(crate) path: PathBuf,
    volume_files: VolumeFiles,
    plan: File,
    geometry: Geometry,
    /// The number of valid bytes at the start.
    good: u64,
}

impl Leftover {
    /// Examines a leftover file that this process has locked, and the volumes that follow it. Returns `None`
    /// if it has no usable plan or no valid byte.
    pub(crate) fn look(path: &Path, file: File) -> Option<Self> {
        let plan = open_plain(&plan_of(path)).ok()?;
        let mut lines = BufReader::new(&plan);
        let mut line = || {
            let mut bytes = Vec::new();
            let read = (&mut lines).take(MAX_LINE).read_until(b'\n', &mut bytes).ok()?;
            // The last line may be incomplete.
            (read > 0 && bytes.ends_with(b"\n")).then_some(bytes)
        };
        let geometry: Geometry = serde_json::from_slice(&line()?).ok()?;
        let mut files = vec![(file, path.to_path_buf(), *geometry.files.first()?)];
        for (behind, length) in behind(path).zip(geometry.files.iter().skip(1)) {
            // The export may have been killed while it renamed the files.
            if let (Some(name), false) = (final_path(&behind), behind.symlink_metadata().is_ok()) {
                let _ = rename_new(&name, &behind, Durability::Unsynced);
            }
            let file = open_plain(&behind).ok()?;
            let held = matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock));
            files.push((Some(file).filter(|_| !held)?, behind, *length));
        }
        let volume_files = VolumeFiles::new(files);
        let mut good = 0;
        let mut buffer = vec![0; CHECKPOINT_INTERVAL as usize];
        while let Some(checkpoint) = line().and_then(|line| serde_json::from_slice::<Checkpoint>(&line).ok())
        {
            let mut crc = Crc::new();
            if checkpoint.end != good + CHECKPOINT_INTERVAL
                || volume_files.read_exact_at(&mut buffer, good).is_err()
            {
                break;
            }
            // The manifest is written at the end, so the checksum does not cover it.
            let manifest = geometry.start.saturating_sub(good).min(CHECKPOINT_INTERVAL) as usize;
            buffer[..manifest].fill(0);
            crc.update(&buffer);
            if crc.sum() != checkpoint.crc {
                break;
            }
            good = checkpoint.end;
        }
        (good > 0).then_some(())?;
        Some(Leftover { path: path.into(), volume_files, plan, geometry, good })
    }

    /// The paths of its files, in order.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let behind = self.volume_files.paths().skip(1).map(Path::to_path_buf);
        [self.path.clone()].into_iter().chain(behind).collect()
    }

    /// Whether a bundle with this plan can resume these files.
    pub(crate) fn fits(&self, plan: &BundlePlan) -> bool {
        self.geometry == Geometry::of(plan) && self.good <= plan.length()
    }

    /// The number of valid bytes at the start.
    pub(crate) fn good(&self) -> u64 {
        self.good
    }

    /// The total size of its files in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.volume_files.size()
    }

    /// Returns the valid start of a blob.
    pub(crate) fn prefix(&self, digest: Digest, size: u64) -> Option<Prefix> {
        let at = self.geometry.find(digest, size)?;
        let length = self.good.checked_sub(at)?.min(size);
        (length > 0).then(|| Prefix { volume_files: self.volume_files.clone(), at, left: length })
    }

    /// Resumes the files. Bytes that are not known to be valid are cut off.
    ///
    /// # Errors
    /// If the medium fails.
    pub(crate) fn resume(&self) -> io::Result<PartialFile> {
        self.volume_files.set_len(self.good)?;
        let mut plan = self.plan.try_clone()?;
        shorten(&mut plan, self.good)?;
        Ok(PartialFile::of(self.volume_files.clone(), plan, self.good))
    }
}

/// The start of a blob that an earlier export fetched.
pub(crate) struct Prefix {
    volume_files: VolumeFiles,
    at: u64,
    left: u64,
}

impl Prefix {
    /// The number of bytes left to read.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl Read for Prefix {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.volume_files.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A writer for the pending files of a bundle. It also keeps their plan up to date.
pub(crate) struct PartialFile {
    out: WriteBehind,
    plan: File,
    crc: Crc,
    at: u64,
    /// The number of bytes that an earlier export wrote. They are compared with the new bytes, and rewritten
    /// only if they differ.
    there: u64,
    /// Whether all members are written. The manifest, which is written last, gets no checkpoint.
    ended: bool,
}

impl PartialFile {
    /// Begins new files, with their plan beside the first.
    ///
    /// # Errors
    /// If the plan cannot be written.
    pub(crate) fn new(volume_files: VolumeFiles, plan: &BundlePlan) -> io::Result<Self> {
        let first = volume_files.paths().next().ok_or(io::ErrorKind::InvalidInput)?;
        let beside = plan_of(first);
        // A file with this name is stale, or a link that leads elsewhere.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut text = serde_json::to_vec(&Geometry::of(plan))?;
        text.push(b'\n');
        let plan = fs::create_new(&beside, 0o666)?;
        fs::write_all(&plan, &beside, &text)?;
        Ok(PartialFile::of(volume_files, plan, 0))
    }

    fn of(volume_files: VolumeFiles, plan: File, there: u64) -> Self {
        PartialFile { out: WriteBehind::new(volume_files), plan, crc: Crc::new(), at: 0, there, ended: false }
    }

    /// Flushes everything and returns the files.
    ///
    /// # Errors
    /// If the last bytes cannot be written.
    pub(crate) fn into_volume_files(self) -> io::Result<VolumeFiles> {
        self.out.into_volume_files()
    }

    /// Skips bytes that are already in the files, and overwrites bytes that differ.
    fn compare(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let known = usize::try_from(self.there - self.at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(known)];
        let mut found = vec![0; bytes.len()];
        self.out.volume_files().read_exact_at(&mut found, self.at)?;
        if found != bytes {
            let mut place = self.out.volume_files().clone();
            place.seek(SeekFrom::Start(self.at))?;
            place.write_all(bytes)?;
        }
        self.at += bytes.len() as u64;
        if self.at == self.there {
            self.out.seek(SeekFrom::Start(self.at))?;
        }
        Ok(bytes.len())
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ended {
            return self.out.write(bytes);
        }
        if self.at < self.there {
            return self.compare(bytes);
        }
        let room = CHECKPOINT_INTERVAL - self.at % CHECKPOINT_INTERVAL;
        let most = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let count = self.out.write(&bytes[..most])?;
        self.crc.update(&bytes[..count]);
        self.at += count as u64;
        if self.at.is_multiple_of(CHECKPOINT_INTERVAL) {
            let mut line = serde_json::to_vec(&Checkpoint { end: self.at, crc: self.crc.sum() })?;
            line.push(b'\n');
            // The plan must not name bytes that are not in the files.
            let plan = self.plan.try_clone()?;
            self.out.then(move || fs::write_all(&plan, "plan", &line))?;
            self.crc.reset();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Seek for PartialFile {
    /// Seeks to the manifest at the start, after all members are written.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.ended = true;
        self.out.seek(to)
    }
}

/// Returns the path of the plan for the first of some pending files.
pub(crate) fn plan_of(partial: &Path) -> PathBuf {
    let name = partial.file_name().unwrap_or_default().to_string_lossy().into_owned();
    partial.with_file_name(format!("{}{PLAN}", name.strip_suffix(PARTIAL).unwrap_or(&name)))
}

/// Returns the temporary names of the volumes that follow a head volume; none if `head` is not one.
pub(crate) fn behind(head: &Path) -> impl Iterator<Item = PathBuf> {
    let head = final_path(head);
    let volume =
        move |index| beside(head.as_ref()?, VolumeNumber::at(index)?).map(|volume| partial_path(&volume));
    (0..).map_while(volume)
}

/// Whether the next export can resume from these files.
pub(crate) fn is_worth_keeping(partials: &[PathBuf]) -> bool {
    let length = |path: &PathBuf| std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    let together = partials.iter().all(|path| path.parent() == partials[0].parent());
    together && partials.iter().map(length).fold(0, u64::saturating_add) >= CHECKPOINT_INTERVAL
}

/// Removes pending files and their plan.
pub(crate) fn remove(partials: &[PathBuf]) {
    // The first one is removed last, because the next export uses it to find the others.
    for path in partials.iter().rev() {
        let _ = fs::remove_file(path);
    }
    partials.first().map(|first| fs::remove_file(plan_of(first)));
}

/// Removes the leftover files of an export, given the first.
pub(crate) fn remove_all(first: &Path) {
    let behind = behind(first).take_while(|path| path.symlink_metadata().is_ok());
    remove(&[first.to_path_buf()].into_iter().chain(behind).collect::<Vec<_>>());
}

/// Cuts a plan off after the checkpoint at `good`.
fn shorten(plan: &mut File, good: u64) -> io::Result<()> {
    plan.rewind()?;
    let mut length = 0;
    let mut reader = BufReader::new(&*plan);
    for _ in 0..good / CHECKPOINT_INTERVAL + 1 {
        let mut line = Vec::new();
        length += (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)? as u64;
    }
    fs::set_len(plan, "plan", length)?;
    plan.seek(SeekFrom::End(0)).map(drop)
}
