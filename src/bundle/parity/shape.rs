//! Divides a bundle into shards, and its parity shards into files.

use std::str::FromStr;

use reed_solomon_simd::ReedSolomonEncoder;

/// Into so many shards a bundle is divided, about: a bad range costs one of them.
const SHARDS: u64 = 512;
/// The smallest shard in bytes, and what every shard is a multiple of: media fail by the block.
const BLOCK: u64 = 4096;
/// The most shards of each kind that are read.
const MAX_SHARDS: u64 = 4096;
/// What encoding and rebuilding may take in memory, in bytes.
const MEMORY: usize = 12 << 20;
/// What of it the arithmetic works on at once, in bytes.
const CACHE: usize = 1 << 20;
/// What the header of a parity file takes beside file lengths and checksums, in bytes.
const HEADER: u64 = 512;

/// How much parity there is, in hundredths of the data: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

/// A string that is no such number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write it as a percentage from 1% to 100%: 10%")]
pub struct InvalidPercent;

impl FromStr for Percent {
    type Err = InvalidPercent;

    fn from_str(text: &str) -> Result<Self, InvalidPercent> {
        let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
        number.filter(|percent| (1..=100).contains(percent)).map(Percent).ok_or(InvalidPercent)
    }
}

/// A bundle in shards: each file by itself, its last shard filled up with zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    files: Vec<u64>,
    shard: u64,
    /// The number of the first shard of each file, and the number of all at the end.
    first: Vec<usize>,
    parity: usize,
}

impl Shape {
    /// For files of these lengths in bytes, the head first.
    pub fn new(files: Vec<u64>, percent: Percent) -> Result<Self, String> {
        let longest = files.iter().copied().max().unwrap_or(0);
        let total: u64 = files.iter().fold(0, |sum, length| sum.saturating_add(*length));
        // A file that is lost costs as few shards as possible: they divide the longest evenly.
        let in_longest = (SHARDS * longest / total.max(1)).max(1);
        let shard = longest.div_ceil(in_longest).next_multiple_of(BLOCK);
        let data: u64 = files.iter().map(|length| length.div_ceil(shard)).sum();
        Shape::of(files, shard, (data * u64::from(percent.0)).div_ceil(100))
    }

    /// With shards of this length in bytes, and so many of parity.
    ///
    /// # Errors
    /// If there are no files or too many, the length of a shard is not a multiple of the block or is larger
    /// than any file needs, or there are more shards than can be encoded. The text names the numbers.
    pub fn of(files: Vec<u64>, shard: u64, parity: u64) -> Result<Self, String> {
        // A shard beyond the longest file would be zeros, which cost nothing to claim and much to work through.
        let longest = files.iter().copied().max().unwrap_or(0);
        if shard == 0
            || !shard.is_multiple_of(BLOCK)
            || shard - BLOCK >= longest.max(1)
            || files.is_empty()
            || files.len() > crate::bundle::volumes::MAX_VOLUMES + 1
        {
            return Err(format!("{} files in shards of {shard} bytes", files.len()));
        }
        let mut first = vec![0];
        let mut data: u64 = 0;
        for length in &files {
            data = data.saturating_add(length.div_ceil(shard));
            if data > MAX_SHARDS || parity == 0 || parity > MAX_SHARDS {
                return Err(format!("{data} shards or more, and {parity} of parity"));
            }
            first.push(data as usize);
        }
        let shape = Shape { files, shard, first, parity: parity as usize };
        match ReedSolomonEncoder::supports(shape.data(), shape.parity) {
            true => Ok(shape),
            false => Err(format!("{data} shards and {parity} of parity")),
        }
    }

    /// The lengths of the bundle's files in bytes, the head first.
    pub fn files(&self) -> &[u64] {
        &self.files
    }

    /// The length of a shard in bytes.
    pub fn shard(&self) -> u64 {
        self.shard
    }

    /// The number of shards that the bundle is divided into.
    pub fn data(&self) -> usize {
        self.first.last().copied().unwrap_or(0)
    }

    /// The number of parity shards: so many lost ones can be made again.
    pub fn parity(&self) -> usize {
        self.parity
    }

    /// How many of the bundle's files can be lost, whichever they are.
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

    /// Where a shard lies: the file's number, the offset there, and the bytes before the zeros.
    pub(super) fn place(&self, shard: usize) -> (usize, u64, u64) {
        // Files without bytes have no shards: the last of those that begin here has this one.
        let file = self.first.partition_point(|first| *first <= shard).saturating_sub(1);
        let offset = (shard - self.first[file]) as u64 * self.shard;
        (file, offset, self.shard.min(self.files[file] - offset))
    }

    /// The numbers of a file's shards.
    pub(super) fn shards_of(&self, file: usize) -> std::ops::Range<usize> {
        self.first[file]..self.first[file + 1]
    }

    /// How much of each shard is worked on at once, in bytes: all shards of that width are in memory.
    pub(super) fn width(&self) -> usize {
        let together = (self.data() + self.parity).next_power_of_two();
        let width = (MEMORY / together / 64 * 64).max(64);
        width.min(usize::try_from(self.shard).unwrap_or(usize::MAX))
    }

    /// How much of each shard the arithmetic works on at once, in bytes: all of it together should stay in a
    /// processor's cache.
    pub(super) fn lane(&self) -> usize {
        let together = (self.data() + self.parity).next_power_of_two();
        (CACHE / together / 64 * 64).max(64).min(self.width())
    }

    /// What the header of a parity file takes, in bytes.
    pub(super) fn header(&self) -> u64 {
        let checksums = 8 * (self.data() + self.parity) as u64;
        (HEADER + 21 * self.files.len() as u64 + checksums).next_multiple_of(BLOCK)
    }

    /// The parity shards of each parity file, where none has more than `most` bytes.
    pub fn parity_files(&self, most: Option<u64>) -> Vec<std::ops::Range<usize>> {
        let room = most.map_or(u64::MAX, |most| most.saturating_sub(self.header()) / self.shard);
        let each = usize::try_from(room).unwrap_or(usize::MAX).clamp(1, self.parity);
        (0..self.parity).step_by(each).map(|first| first..self.parity.min(first + each)).collect()
    }

    /// The length of a parity file with so many shards, in bytes.
    pub fn parity_length(&self, shards: usize) -> u64 {
        self.header() + shards as u64 * self.shard
    }
}

/// The checksum of a shard: CRC-32, as gzip has it. It has to find damage, at the speed of the memory; what is
/// true is found by digests under the signature.
pub(crate) type Checksum = u32;

/// Whether a shard has the checksum that it should have. One that cannot be read has not.
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
