//! Encodes parity. It reads every byte of the bundle once, from all shards at the same offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use flate2::Crc;
use reed_solomon_simd::ReedSolomonEncoder;

use crate::bundle::parity::shape::Checksum;
use crate::bundle::parity::{Shape, file};
use crate::digest::Digest;
use crate::progress::Step;
use crate::util::fs;

/// Encodes the parity of the files of a bundle and writes it into empty parity files. Each gets the shards
/// that [`Shape::parity_files`] assigns to it.
///
/// # Errors
/// If a file of the bundle cannot be read, a parity file cannot be written, or the parity files do not hold
/// all shards of the shape.
pub fn encode(
    shape: &Shape,
    bundle: Digest,
    data: &[&File],
    parity: &[(std::ops::Range<usize>, &File)],
    step: &dyn Step,
) -> io::Result<()> {
    let (width, lane) = (shape.width(), shape.lane());
    let mut crcs: Vec<Crc> = (0..shape.data() + shape.parity()).map(|_| Crc::new()).collect();
    let (of_data, of_parity) = crcs.split_at_mut(shape.data());
    let mut encoder =
        ReedSolomonEncoder::new(shape.data(), shape.parity(), lane).map_err(io::Error::other)?;
    let mut read = vec![0; shape.data() * width];
    let mut made = vec![0; shape.parity() * width];
    let mut at = 0;
    while at < shape.shard() {
        let width = width.min(usize::try_from(shape.shard() - at).unwrap_or(usize::MAX));
        let pieces = read.chunks_mut(width).zip(of_data.iter_mut());
        for (shard, (piece, crc)) in pieces.enumerate() {
            let (number, offset, length) = shape.place(shard);
            let there = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX).min(width);
            data[number].read_exact_at(&mut piece[..there], offset + at)?;
            piece[there..].fill(0);
            crc.update(piece);
            step.advance(there as u64);
        }
        for from in (0..width).step_by(lane) {
            let to = width.min(from + lane);
            encoder.reset(shape.data(), shape.parity(), to - from).map_err(io::Error::other)?;
            for piece in read.chunks(width).take(shape.data()) {
                encoder.add_original_shard(&piece[from..to]).map_err(io::Error::other)?;
            }
            let encoded = encoder.encode().map_err(io::Error::other)?;
            for (piece, bytes) in made.chunks_mut(width).zip(encoded.recovery_iter()) {
                piece[from..to].copy_from_slice(bytes);
            }
        }
        for (shard, (piece, crc)) in made.chunks(width).zip(of_parity.iter_mut()).enumerate() {
            crc.update(piece);
            let holder = parity.iter().find(|(shards, _)| shards.contains(&shard));
            let (shards, file) = holder.ok_or(io::ErrorKind::InvalidInput)?;
            let index = (shard - shards.start) as u64;
            fs::write_all_at(file, "parity", piece, shape.header() + index * shape.shard() + at)?;
        }
        at += width as u64;
    }
    let checksums: Vec<Checksum> = crcs.iter().map(Crc::sum).collect();
    for (shards, file) in parity {
        fs::write_all_at(file, "parity", &file::header(shape, bundle, shards, &checksums)?, 0)?;
    }
    Ok(())
}
