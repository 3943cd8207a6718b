//! Parity: files beside a bundle from which its lost or damaged files are rebuilt (Reed–Solomon).
//!
//! This module checks no signatures and trusts nothing that it reads. The caller compares the rebuilt files with
//! the signed digests, as it does with every file from a medium. Forged parity can make a rebuild fail and can
//! do no other harm.

mod encode;
mod file;
mod rebuild;
mod shape;

pub use encode::encode;
pub use file::ParityFile;
pub use rebuild::{RebuildError, RebuiltFiles, rebuild};
pub use shape::{InvalidPercent, Percent, Shape};

/// Returns the name of the parity file with this number, counted from 1, for the bundle `NAME.tar`:
/// `NAME.par.001`. The pattern `NAME.tar.*`, which matches the volumes, must not match it.
pub fn name(bundle: &str, number: usize) -> String {
    let end = bundle.len().saturating_sub(".tar".len());
    let stem = match bundle.get(end..) {
        Some(tar) if tar.eq_ignore_ascii_case(".tar") => &bundle[..end],
        _ => bundle,
    };
    format!("{stem}.par.{number:03}")
}

/// Returns the name of the bundle that a parity file with this name belongs to.
pub fn parse_name(name: &str) -> Option<String> {
    let (rest, number) = name.rsplit_once('.')?;
    let digits = number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit());
    let (stem, par) = rest.rsplit_once('.').filter(|_| digits)?;
    (par.eq_ignore_ascii_case("par") && !stem.is_empty()).then(|| format!("{stem}.tar"))
}

#[cfg(test)]
mod tests;
