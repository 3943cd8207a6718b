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
