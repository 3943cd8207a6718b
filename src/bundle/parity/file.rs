//! A parity file: one line, a description in JSON, and shards. Every parity file holds the complete
//! description, so that each can be used without the others. Nothing in it is signed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle::BundleError;
use crate::bundle::content::{begins_with, open_regular};
use crate::bundle::parity::Shape;
use crate::bundle::parity::shape::Checksum;
use crate::digest::Digest;
use crate::util::json;

/// The beginning of a parity file.
const MAGIC: &str = "trivy-ferry-parity-1";
/// The length of the first line: the magic, the offset of the shards, the digest of the description.
const LINE: usize = MAGIC.len() + 1 + 8 + 1 + 64 + 1;
/// The longest description that is read, in bytes.
const MAX_HEADER: u64 = 1 << 20;

/// The description in a parity file.
#[derive(Serialize, Deserialize)]
struct Description {
    /// The identity of the bundle.
    bundle: Digest,
    /// The lengths of its files, the head first.
    files: Vec<u64>,
    /// The length of a shard.
    shard: u64,
    /// The number of parity shards in all parity files.
    parity: u64,
    /// The number of the first parity shard in this file, and the number of parity shards in it.
    first: u64,
    count: u64,
    /// The checksums of all shards, 8 hex digits each, those of the parity shards last.
    checksums: String,
}

/// A parity file that is open for reading. Its description is consistent, but unverified.
#[derive(Debug)]
pub struct ParityFile {
    path: PathBuf,
    file: File,
    pub(super) bundle: Digest,
    pub(super) shape: Shape,
    /// The shards that it holds completely.
    pub(super) shards: Range<usize>,
    /// The number of shards that it should hold.
    claimed: usize,
    pub(super) checksums: Vec<Checksum>,
}

/// Returns the header of a parity file with these shards.
pub(super) fn header(
    shape: &Shape,
    bundle: Digest,
    shards: &Range<usize>,
    checksums: &[Checksum],
) -> io::Result<Vec<u8>> {
    let description = Description {
        bundle,
        files: shape.files().to_vec(),
        shard: shape.shard(),
        parity: shape.parity() as u64,
        first: shards.start as u64,
        count: shards.len() as u64,
        checksums: checksums.iter().map(|checksum| format!("{checksum:08x}")).collect(),
    };
    let mut text = serde_json::to_vec(&description)?;
    let length = shape.header() as usize;
    if text.len() + LINE > length {
        return Err(io::Error::other("the description of the parity is too large for its header"));
    }
    text.resize(length - LINE, b' ');
    let line = format!("{MAGIC} {length:08} {}\n", blake3::hash(&text).to_hex());
    Ok([line.as_bytes(), &text].concat())
}

impl ParityFile {
    /// Opens a parity file and reads its description.
    ///
    /// # Errors
    /// [`BundleError::Open`], [`BundleError::NotAFile`] or [`BundleError::Read`] if the file cannot be
    /// read; [`BundleError::Parity`] if it is not a parity file, or its description is truncated, damaged or
    /// contradictory.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let (file, length) = open_regular(path)?;
        let bad = |why: &str| BundleError::Parity { path: path.into(), why: why.into() };
        let read = |buffer: &mut [u8], at| match file.read_exact_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(bad("it is truncated")),
            Err(error) => Err(BundleError::Read { path: path.into(), error }),
            Ok(()) => Ok(()),
        };
        let mut line = [0; LINE];
        read(&mut line, 0)?;
        let line = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n'));
        let mut fields = line.unwrap_or_default().split(' ');
        if fields.next() != Some(MAGIC) {
            return Err(bad("it does not begin like a parity file"));
        }
        let begin: u64 = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
        if begin <= LINE as u64 || begin > MAX_HEADER {
            return Err(bad("its description has an invalid length"));
        }
        let mut text = vec![0; begin as usize - LINE];
        read(&mut text, LINE as u64)?;
        if fields.next() != Some(blake3::hash(&text).to_hex().as_str()) {
            return Err(bad("its description is damaged"));
        }
        let description: Description = json::from_slice(&text).map_err(|error| bad(&error.to_string()))?;
        let Description { bundle, files, shard, parity, first, count, checksums } = description;
        let shape = Shape::of(files, shard, parity).map_err(|why| bad(&why))?;
        let end = first.checked_add(count).filter(|end| *end <= parity && count > 0);
        let all = shape.data() + shape.parity();
        let checksums: Option<Vec<Checksum>> = (checksums.len() == 8 * all && checksums.is_ascii())
            .then(|| checksums.as_bytes().chunks(8).map(number).collect())
            .flatten();
        let (Some(end), Some(checksums), true) = (end, checksums, begin == shape.header()) else {
            return Err(bad("its description is contradictory"));
        };
        // The complete shards of a truncated file are still usable.
        let there = length.saturating_sub(begin) / shard;
        let shards = first as usize..end.min(first + there) as usize;
        let claimed = count as usize;
        Ok(ParityFile { path: path.into(), file, bundle, shape, shards, claimed, checksums })
    }

    /// Whether a file begins like a parity file, regardless of its name.
    pub fn begins(path: &Path) -> bool {
        begins_with(path, MAGIC)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the identity of the bundle that it claims to belong to.
    pub fn bundle(&self) -> Digest {
        self.bundle
    }

    /// Returns the division of that bundle into shards.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether another file belongs to the same parity.
    pub fn is_of(&self, other: &ParityFile) -> bool {
        (self.bundle, &self.shape, &self.checksums) == (other.bundle, &other.shape, &other.checksums)
    }

    /// Reads all shards and compares their checksums.
    ///
    /// # Errors
    /// [`BundleError::Parity`] if a shard is damaged or cannot be read, or the file is truncated.
    pub fn check(&self) -> Result<(), BundleError> {
        for shard in self.shards.clone() {
            let read = |buffer: &mut [u8], at| self.read(shard, at, buffer);
            if !crate::bundle::parity::shape::is_good(
                &self.shape,
                self.checksums[self.shape.data() + shard],
                &read,
            ) {
                let why = format!("its shard {shard} is damaged");
                return Err(BundleError::Parity { path: self.path.clone(), why: why.into() });
            }
        }
        match self.claimed == self.shards.len() {
            true => Ok(()),
            false => Err(BundleError::Parity { path: self.path.clone(), why: "it is truncated".into() }),
        }
    }

    /// Reads bytes of a parity shard.
    pub(super) fn read(&self, shard: usize, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let index = (shard - self.shards.start) as u64;
        self.file.read_exact_at(buffer, self.shape.header() + index * self.shape.shard() + at)
    }
}

/// Parses 8 hex digits.
fn number(digits: &[u8]) -> Option<Checksum> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
