//! Rebuilds the lost and damaged files of a bundle from its other files and its parity.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use reed_solomon_simd::ReedSolomonDecoder;

use crate::bundle::parity::shape::is_good;
use crate::bundle::parity::{ParityFile, Shape};
use crate::util::fs;

/// The result of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuiltFiles {
    /// The numbers of the rebuilt files of the bundle, 0 for the head.
    pub files: Vec<usize>,
    /// The number of their bad shards.
    pub shards: usize,
}

/// The reason why nothing was rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// More shards are lost than the parity can rebuild.
    #[error("{lost} of {all} shards are lost, and the parity can rebuild {spare}")]
    TooMuch {
        /// The number of lost or damaged shards.
        lost: usize,
        /// The number of shards of the bundle.
        all: usize,
        /// The number of good parity shards.
        spare: usize,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Rebuilds the files of a bundle that are missing, incomplete or damaged. `data` are the existing files in
/// order; `make` creates the empty file that a rebuilt one is written to.
///
/// The result matches the checksums in `parity`, which are not signed: the caller has to verify it.
///
/// # Errors
/// [`RebuildError::TooMuch`] if more shards are lost than there are good parity shards; [`RebuildError::Io`] if a file
/// cannot be read, created or written.
pub fn rebuild(
    parity: &[ParityFile],
    data: &[Option<File>],
    make: &mut dyn FnMut(usize) -> io::Result<File>,
) -> Result<RebuiltFiles, RebuildError> {
    let Some(one) = parity.first() else { return Err(io::Error::from(io::ErrorKind::InvalidInput).into()) };
    let shape = &one.shape;
    let mut bad = Vec::new();
    for shard in 0..shape.data() {
        let (number, offset, length) = shape.place(shard);
        let read = |buffer: &mut [u8], at: u64| match data.get(number).and_then(Option::as_ref) {
            Some(file) => read_padded(file, buffer, offset + at, length.saturating_sub(at)),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if !is_good(shape, one.checksums[shard], &read) {
            bad.push(shard);
        }
    }
    let mut spare: Vec<(usize, &ParityFile)> = Vec::new();
    for file in parity.iter().filter(|file| file.is_of(one)) {
        for shard in file.shards.clone() {
            let known = spare.iter().any(|(other, _)| *other == shard);
            let read = |buffer: &mut [u8], at| file.read(shard, at, buffer);
            if spare.len() < bad.len() && !known && is_good(shape, one.checksums[shape.data() + shard], &read)
            {
                spare.push((shard, file));
            }
        }
    }
    if spare.len() < bad.len() {
        return Err(RebuildError::TooMuch { lost: bad.len(), all: shape.data(), spare: spare.len() });
    }
    // A file that is too long may have no bad shard.
    let wrong_length = |number: &usize| match data.get(*number) {
        Some(Some(file)) => file.metadata().map_or(true, |metadata| metadata.len() != shape.files()[*number]),
        _ => true,
    };
    let is_bad = |number: &usize| bad.iter().any(|shard| shape.shards_of(*number).contains(shard));
    let files: Vec<usize> =
        (0..shape.files().len()).filter(|number| is_bad(number) || wrong_length(number)).collect();
    let mut made: Vec<Option<File>> = Vec::new();
    for number in 0..shape.files().len() {
        made.push(files.contains(&number).then(|| make(number)).transpose()?);
    }
    for (number, target) in made.iter().enumerate() {
        let (Some(target), Some(Some(source))) = (target, data.get(number)) else { continue };
        for shard in shape.shards_of(number).filter(|shard| !bad.contains(shard)) {
            let (_, offset, length) = shape.place(shard);
            copy(source, target, offset, length, shape.width())?;
        }
    }
    decode_bad_shards(shape, data, &spare, &bad, &made)?;
    for (number, target) in made.iter().enumerate() {
        if let Some(target) = target {
            fs::set_len(target, "rebuilt", shape.files()[number])?;
        }
    }
    Ok(RebuiltFiles { files, shards: bad.len() })
}

/// Decodes the bad shards and writes them.
fn decode_bad_shards(
    shape: &Shape,
    data: &[Option<File>],
    spare: &[(usize, &ParityFile)],
    bad: &[usize],
    made: &[Option<File>],
) -> Result<(), RebuildError> {
    if bad.is_empty() {
        return Ok(());
    }
    let most = shape.width();
    let mut decoder =
        ReedSolomonDecoder::new(shape.data(), shape.parity(), most).map_err(io::Error::other)?;
    let mut buffer = vec![0; most];
    let mut at = 0;
    while at < shape.shard() {
        let width = most.min(usize::try_from(shape.shard() - at).unwrap_or(usize::MAX));
        decoder.reset(shape.data(), shape.parity(), width).map_err(io::Error::other)?;
        let buffer = &mut buffer[..width];
        for shard in (0..shape.data()).filter(|shard| bad.binary_search(shard).is_err()) {
            let (number, offset, length) = shape.place(shard);
            let Some(Some(file)) = data.get(number) else { continue };
            read_padded(file, buffer, offset + at, length.saturating_sub(at))?;
            decoder.add_original_shard(shard, &*buffer).map_err(io::Error::other)?;
        }
        for (shard, file) in spare {
            file.read(*shard, at, buffer)?;
            decoder.add_recovery_shard(*shard, &*buffer).map_err(io::Error::other)?;
        }
        let decoded = decoder.decode().map_err(io::Error::other)?;
        for (shard, bytes) in decoded.restored_original_iter() {
            let (number, offset, length) = shape.place(shard);
            let there = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX).min(width);
            if let Some(target) = &made[number] {
                fs::write_all_at(target, "rebuilt", &bytes[..there], offset + at)?;
            }
        }
        at += width as u64;
    }
    Ok(())
}

/// Reads the bytes of a shard, padded with zeros.
fn read_padded(file: &File, buffer: &mut [u8], at: u64, length: u64) -> io::Result<()> {
    let there = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
    buffer[there..].fill(0);
    file.read_exact_at(&mut buffer[..there], at)
}

fn copy(source: &File, target: &File, offset: u64, length: u64, most: usize) -> io::Result<()> {
    let mut buffer = vec![0; most];
    let mut at = 0;
    while at < length {
        let count = most.min(usize::try_from(length - at).unwrap_or(usize::MAX));
        source.read_exact_at(&mut buffer[..count], offset + at)?;
        fs::write_all_at(target, "rebuilt", &buffer[..count], offset + at)?;
        at += count as u64;
    }
    Ok(())
}
