//! A bundle while it is written, as the next export finds it when this one is cut short: its files, the
//! plan beside the first, and how far they are good.
//!
//! The plan is lines of JSON: what is where, then a checksum for each stretch that was written. Nothing of
//! it is believed for more than to save a download: the checksums tell where the good bytes end, and
//! whatever is used again is hashed again with the rest.

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

/// What the plan beside a file has behind its name.
pub(crate) const PLAN: &str = ".plan.partial";
/// The bytes from one checkpoint to the next: what a killed export loses at the most.
const CHECKPOINT_INTERVAL: u64 = 4 << 20;
/// The longest line of a plan that is read, in bytes: a bundle's members all stand in the first.
const MAX_LINE: u64 = 2 << 20;

/// What is where in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Geometry {
    /// Where the first member after the manifest begins.
    start: u64,
    members: Vec<Member>,
    /// The lengths of its files.
    files: Vec<u64>,
}

/// A checkpoint: where it is, and the checksum of the bytes before it: CRC-32, which finds what a crash leaves.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    end: u64,
    crc: u32,
}

impl Geometry {
    pub(crate) fn of(plan: &BundlePlan) -> Self {
        Geometry { start: plan.start(), members: plan.members().to_vec(), files: plan.files() }
    }

    /// Keeps of files of this geometry only what stands before the byte `end`; nothing, where that is not
    /// worth it.
    pub(crate) fn cut(&self, partials: &[PathBuf], end: u64) {
        let end = end - end % CHECKPOINT_INTERVAL;
        let open = |(path, length): (&PathBuf, &u64)| Ok((open_plain(path)?, path.clone(), *length));
        let volume_files =
            partials.iter().zip(&self.files).map(open).collect::<io::Result<_>>().map(VolumeFiles::new);
        if end == 0 || volume_files.and_then(|volume_files| volume_files.set_len(end)).is_err() {
            remove(partials);
        }
    }

    /// Where the content of a blob of this length lies.
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

/// What an export left that was cut short. Its first file is locked while this lives; none is opened by its
/// name again, which somebody else may give to another one.
pub(crate) struct Leftover {
    /// Its first file.
    pub(crate) path: PathBuf,
    volume_files: VolumeFiles,
    plan: File,
    geometry: Geometry,
    /// The bytes from the start that are as they were written.
    good: u64,
}

impl Leftover {
    /// Looks at a file whose lock is held, and at those behind it. `None` where it has no plan that can be
    /// used, or no good byte.
    pub(crate) fn look(path: &Path, file: File) -> Option<Self> {
        let plan = open_plain(&plan_of(path)).ok()?;
        let mut lines = BufReader::new(&plan);
        let mut line = || {
            let mut bytes = Vec::new();
            let read = (&mut lines).take(MAX_LINE).read_until(b'\n', &mut bytes).ok()?;
            // The last line may have been cut off.
            (read > 0 && bytes.ends_with(b"\n")).then_some(bytes)
        };
        let geometry: Geometry = serde_json::from_slice(&line()?).ok()?;
        let mut files = vec![(file, path.to_path_buf(), *geometry.files.first()?)];
        for (behind, length) in behind(path).zip(geometry.files.iter().skip(1)) {
            // An export that was killed while it gave the files their names.
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
            // The manifest is filled in at the end, and not a part of what was checked.
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

    /// Its files, the first one first.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let behind = self.volume_files.paths().skip(1).map(Path::to_path_buf);
        [self.path.clone()].into_iter().chain(behind).collect()
    }

    /// Whether a bundle of this plan can be written where this one was left.
    pub(crate) fn fits(&self, plan: &BundlePlan) -> bool {
        self.geometry == Geometry::of(plan) && self.good <= plan.length()
    }

    /// The good bytes at the start of the file.
    pub(crate) fn good(&self) -> u64 {
        self.good
    }

    /// The bytes that its files take.
    pub(crate) fn length(&self) -> u64 {
        self.volume_files.size()
    }

    /// The start of a blob, as far as it is good.
    pub(crate) fn prefix(&self, digest: Digest, size: u64) -> Option<Prefix> {
        let at = self.geometry.find(digest, size)?;
        let length = self.good.checked_sub(at)?.min(size);
        (length > 0).then(|| Prefix { volume_files: self.volume_files.clone(), at, left: length })
    }

    /// Goes on with the files. What is not known to be good is cut off.
    ///
    /// # Errors
    /// Where the medium fails.
    pub(crate) fn resume(&self) -> io::Result<PartialFile> {
        self.volume_files.set_len(self.good)?;
        let mut plan = self.plan.try_clone()?;
        shorten(&mut plan, self.good)?;
        Ok(PartialFile::of(self.volume_files.clone(), plan, self.good))
    }
}

/// The start of a blob that an earlier export has fetched.
pub(crate) struct Prefix {
    volume_files: VolumeFiles,
    at: u64,
    left: u64,
}

impl Prefix {
    /// The bytes that are still to be read.
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

/// Files under way that keep their plan up to date.
pub(crate) struct PartialFile {
    out: WriteBehind,
    plan: File,
    crc: Crc,
    at: u64,
    /// The bytes at the start that an earlier export has written. They are compared with what is to be
    /// there, and written again only where they differ.
    there: u64,
    /// What is written at the start at the end is no news for the plan.
    ended: bool,
}

impl PartialFile {
    /// Begins new files, with their plan beside the first.
    ///
    /// # Errors
    /// Where the plan cannot be written.
    pub(crate) fn new(volume_files: VolumeFiles, plan: &BundlePlan) -> io::Result<Self> {
        let first = volume_files.paths().next().ok_or(io::ErrorKind::InvalidInput)?;
        let beside = plan_of(first);
        // Whatever has this name is not ours: a link would lead elsewhere.
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

    /// The files, when everything is written.
    ///
    /// # Errors
    /// Where the last bytes cannot be written.
    pub(crate) fn into_volume_files(self) -> io::Result<VolumeFiles> {
        self.out.into_volume_files()
    }

    /// Passes over bytes that are there already, or writes over others.
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
            // What the plan names is in the file.
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
    /// Only once everything is written, for what stands at the start.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.ended = true;
        self.out.seek(to)
    }
}

/// The plan of files that are being written, of which this is the first.
pub(crate) fn plan_of(partial: &Path) -> PathBuf {
    let name = partial.file_name().unwrap_or_default().to_string_lossy().into_owned();
    partial.with_file_name(format!("{}{PLAN}", name.strip_suffix(PARTIAL).unwrap_or(&name)))
}

/// What the volumes behind a head are called while they are written; none where it is no head.
pub(crate) fn behind(head: &Path) -> impl Iterator<Item = PathBuf> {
    let head = final_path(head);
    let volume =
        move |index| beside(head.as_ref()?, VolumeNumber::at(index)?).map(|volume| partial_path(&volume));
    (0..).map_while(volume)
}

/// Whether the next export would have something to go on with.
pub(crate) fn is_worth_keeping(partials: &[PathBuf]) -> bool {
    let length = |path: &PathBuf| std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    let together = partials.iter().all(|path| path.parent() == partials[0].parent());
    together && partials.iter().map(length).fold(0, u64::saturating_add) >= CHECKPOINT_INTERVAL
}

/// Removes files that were being written, and their plan.
pub(crate) fn remove(partials: &[PathBuf]) {
    // The first one last: it tells the next export that the others are abandoned.
    for path in partials.iter().rev() {
        let _ = fs::remove_file(path);
    }
    partials.first().map(|first| fs::remove_file(plan_of(first)));
}

/// Removes what an export left of which only the first file is known.
pub(crate) fn remove_all(first: &Path) {
    let behind = behind(first).take_while(|path| path.symlink_metadata().is_ok());
    remove(&[first.to_path_buf()].into_iter().chain(behind).collect::<Vec<_>>());
}

/// Cuts a plan off behind the stretch that ends at `good`.
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
