//! Parity: files beside a bundle from which lost or damaged parts of it are made again (Reed–Solomon).
//!
//! Nothing here is trusted: what parity gives is compared with what was signed, as everything is that comes
//! from a medium. Forged parity can keep a repair from succeeding, and nothing more.

mod encode;
mod file;
mod rebuild;
mod shape;

pub use encode::encode;
pub use file::ParityFile;
pub use rebuild::{Failed, Rebuilt, rebuild};
pub use shape::{InvalidPercent, Percent, Shape};

/// The checksum of a shard: CRC-32, as gzip has it. It has to find damage, at the speed of the memory; what is
/// true is found by digests under the signature.
type Checksum = u32;

/// Whether a shard has the checksum that it should have. One that cannot be read has not.
fn is_good(shape: &Shape, checksum: Checksum, read: &dyn Fn(&mut [u8], u64) -> std::io::Result<()>) -> bool {
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

/// The name of the parity file of this number, from 1 on, for the bundle `NAME.tar`: `NAME.par.001`. `cat
/// NAME.tar.*` must not meet it.
pub fn name(bundle: &str, number: usize) -> String {
    let end = bundle.len().saturating_sub(".tar".len());
    let stem = match bundle.get(end..) {
        Some(tar) if tar.eq_ignore_ascii_case(".tar") => &bundle[..end],
        _ => bundle,
    };
    format!("{stem}.par.{number:03}")
}

/// The name of the bundle that a parity file of this name belongs to.
pub fn parse_name(name: &str) -> Option<String> {
    let (rest, number) = name.rsplit_once('.')?;
    let digits = number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit());
    let (stem, par) = rest.rsplit_once('.').filter(|_| digits)?;
    (par.eq_ignore_ascii_case("par") && !stem.is_empty()).then(|| format!("{stem}.tar"))
}

#[cfg(test)]
mod tests;
