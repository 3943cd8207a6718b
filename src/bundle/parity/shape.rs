//! Divides a bundle into shards, and its parity shards into files. It reads and writes nothing.

use std::str::FromStr;

use reed_solomon_simd::ReedSolomonEncoder;

/// The approximate number of shards of a bundle. A short damaged range makes one shard unusable.
const SHARDS: u64 = 512;
/// The smallest shard in bytes. The length of every shard is a multiple of it, because media fail in blocks.
const BLOCK: u64 = 4096;
/// The highest accepted number of shards of each kind.
const MAX_SHARDS: u64 = 4096;
/// The memory that encoding and rebuilding may use, in bytes.
const MEMORY: usize = 12 << 20;
/// The part of [`MEMORY`] that the codec processes at once, in bytes.
const CACHE: usize = 1 << 20;
/// The length of the header of a parity file without file lengths and checksums, in bytes.
const HEADER: u64 = 512;

/// The amount of parity as a percentage of the data: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

/// A string that is not a valid percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give a percentage from 1% to 100%, such as 10%")]
pub struct InvalidPercent;

impl FromStr for Percent {
    type Err = InvalidPercent;

    fn from_str(text: &str) -> Result<Self, InvalidPercent> {
        let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
        number.filter(|percent| (1..=100).contains(percent)).map(Percent).ok_or(InvalidPercent)
    }
}

/// The division of a bundle into shards. Each file is divided separately, and its last shard is padded with
/// zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    files: Vec<u64>,
    shard: u64,
    /// The number of the first shard of each file, followed by the number of all shards.
    first: Vec<usize>,
    parity: usize,
}

impl Shape {
    /// Divides files of these lengths in bytes, the head first.
    ///
    /// # Errors
    /// If [`Shape::of`] rejects the resulting numbers.
    pub fn new(files: Vec<u64>, percent: Percent) -> Result<Self, String> {
        let longest = files.iter().copied().max().unwrap_or(0);
        let total: u64 = files.iter().fold(0, |sum, length| sum.saturating_add(*length));
        // Shards divide the longest file evenly, so that the loss of a file affects as few shards as possible.
        let in_longest = (SHARDS * longest / total.max(1)).max(1);
        let shard = longest.div_ceil(in_longest).next_multiple_of(BLOCK);
        let data: u64 = files.iter().map(|length| length.div_ceil(shard)).sum();
        Shape::of(files, shard, (data * u64::from(percent.0)).div_ceil(100))
    }

    /// Divides files into shards of this length in bytes, with this number of parity shards.
    ///
    /// # Errors
    /// If there are no files or too many, the length of a shard is not a multiple of the block or is larger
    /// than any file needs, or there are more shards than can be encoded. The text names the numbers.
    pub fn of(files: Vec<u64>, shard: u64, parity: u64) -> Result<Self, String> {
        // The end of a shard that is longer than the longest file would hold only zeros. A forged file could
        // claim any number of them, and processing them would be expensive.
        let longest = files.iter().copied().max().unwrap_or(0);
        if shard == 0
            || !shard.is_multiple_of(BLOCK)
            || shard - BLOCK >= longest.max(1)
            || files.is_empty()
            || files.len() > crate::bundle::volumes::MAX_VOLUMES + 1
        {
            return Err(format!("{} files cannot be divided into shards of {shard} bytes", files.len()));
        }
        let mut first = vec![0];
        let mut data: u64 = 0;
        for length in &files {
            data = data.saturating_add(length.div_ceil(shard));
            if data > MAX_SHARDS || parity == 0 || parity > MAX_SHARDS {
                return Err(format!(
                    "at least {data} shards and {parity} parity shards are not supported (limit: {MAX_SHARDS} each)"
                ));
            }
            first.push(data as usize);
        }
        let shape = Shape { files, shard, first, parity: parity as usize };
        match ReedSolomonEncoder::supports(shape.data(), shape.parity) {
            true => Ok(shape),
            false => Err(format!("{data} shards and {parity} parity shards are not supported")),
        }
    }

    /// Returns the lengths of the files of the bundle in bytes, the head first.
    pub fn files(&self) -> &[u64] {
        &self.files
    }

    /// Returns the length of a shard in bytes.
    pub fn shard(&self) -> u64 {
        self.shard
    }

    /// Returns the number of shards of the bundle.
    pub fn data(&self) -> usize {
        self.first.last().copied().unwrap_or(0)
    }

    /// Returns the number of parity shards, which is also the number of lost shards that can be rebuilt.
    pub fn parity(&self) -> usize {
        self.parity
    }

    /// Returns the number of files of the bundle that can be lost, whichever files they are.
    pub fn lost_files(&self) -> usize {
        let mut shards: Vec<usize> = self.first.windows(2).map(|pair| pair[1] - pair[0]).collect();
        shards.sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = 0;
        shards
            .into_iter()
            .take_while(|shards| {
                sum += shards;
                sum <= self.parity
            })
            .count()
    }

    /// Returns the place of a shard: the number of the file, the offset, and the length without padding.
    pub(super) fn place(&self, shard: usize) -> (usize, u64, u64) {
        // Empty files have no shards, so several files can have the same first shard. It belongs to the last.
        let file = self.first.partition_point(|first| *first <= shard).saturating_sub(1);
        let offset = (shard - self.first[file]) as u64 * self.shard;
        (file, offset, self.shard.min(self.files[file] - offset))
    }

    /// Returns the numbers of the shards of a file.
    pub(super) fn shards_of(&self, file: usize) -> std::ops::Range<usize> {
        self.first[file]..self.first[file + 1]
    }

    /// Returns the number of bytes of each shard that are in memory at once.
    pub(super) fn width(&self) -> usize {
        let together = (self.data() + self.parity).next_power_of_two();
        let width = (MEMORY / together / 64 * 64).max(64);
        width.min(usize::try_from(self.shard).unwrap_or(usize::MAX))
    }

    /// Returns the number of bytes of each shard that the codec processes at once. Together, the bytes of all
    /// shards should fit into the cache of the processor.
    pub(super) fn lane(&self) -> usize {
        let together = (self.data() + self.parity).next_power_of_two();
        (CACHE / together / 64 * 64).max(64).min(self.width())
    }

    /// Returns the length of the header of a parity file in bytes.
    pub(super) fn header(&self) -> u64 {
        let checksums = 8 * (self.data() + self.parity) as u64;
        (HEADER + 21 * self.files.len() as u64 + checksums).next_multiple_of(BLOCK)
    }

    /// Returns the parity shards of each parity file, if no file may have more than `most` bytes.
    pub fn parity_files(&self, most: Option<u64>) -> Vec<std::ops::Range<usize>> {
        let room = most.map_or(u64::MAX, |most| most.saturating_sub(self.header()) / self.shard);
        let each = usize::try_from(room).unwrap_or(usize::MAX).clamp(1, self.parity);
        (0..self.parity).step_by(each).map(|first| first..self.parity.min(first + each)).collect()
    }

    /// Returns the length in bytes of a parity file with this number of shards.
    pub fn parity_length(&self, shards: usize) -> u64 {
        self.header() + shards as u64 * self.shard
    }
}

/// The checksum of a shard: CRC-32 as in gzip. It is fast and detects damage. The signed digests detect forgery.
pub(crate) type Checksum = u32;

/// Whether a shard can be read and has this checksum.
pub(crate) fn is_good(
    shape: &Shape,
    checksum: Checksum,
    read: &dyn Fn(&mut [u8], u64) -> std::io::Result<()>,
) -> bool {
    let mut crc = flate2::Crc::new();
    let mut buffer = vec![0; crate::dataset::layer::CHUNK];
    let mut at = 0;
    while at < shape.shard() {
        let count = buffer.len().min(usize::try_from(shape.shard() - at).unwrap_or(usize::MAX));
        if read(&mut buffer[..count], at).is_err() {
            return false;
        }
        crc.update(&buffer[..count]);
        at += count as u64;
    }
    crc.sum() == checksum
}
