//! `--with-self`: puts the program of this process beside the bundle, with its digest and a signature.
//!
//! This module depends on the signer and on the directory. It does not know the bundle.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use crate::bundle::names::{PROGRAM, PROGRAM_CHECKSUM, PROGRAM_SIGNATURE};
use crate::digest::{Digest, digest_of};
use crate::error::Error;
use crate::trust::message::Message;
use crate::trust::signer::Signer;
use crate::util::dir::write::{Durability, PendingFile};
use crate::util::dir::{Dir, FileMode};
use crate::util::fs;

/// The program of this process. It stays readable if an upgrade has replaced the file.
const THIS: &str = "/proc/self/exe";

/// The files that were written.
pub(crate) struct OwnProgram {
    pub(crate) paths: Vec<PathBuf>,
    /// Whether the program needs libraries that the other host may not have.
    pub(crate) needs_libraries: bool,
}

/// Writes the program, its digest and the signature of the digest into a directory, and replaces earlier ones.
///
/// # Errors
/// [`Error::Destination`] if the directory cannot be written; [`Error::Unexpected`] if the program cannot be read;
/// [`Error::Trust`] if the digest cannot be signed.
pub(crate) fn write(directory: &Path, signer: &dyn Signer) -> Result<OwnProgram, Error> {
    let unreadable = || Error::unexpected("reading the program of this process");
    let program = fs::open_regular(Path::new(THIS), fs::Links::Follow).map_err(io::Error::from);
    let mut program = program.map_err(unreadable())?;
    let needs_libraries = needs_libraries(&mut program).map_err(unreadable())?;
    let digest = digest(&mut program).map_err(unreadable())?;
    let checksum = format!("{}  {PROGRAM}\n", digest.hex());
    let signature = signer.sign(&Message::checksum(&checksum))?;
    put(directory, &mut program, &digest, &checksum, &signature)
        .map_err(|error| not_written(directory, &error))?;
    let paths = [PROGRAM, PROGRAM_CHECKSUM, PROGRAM_SIGNATURE].map(|name| directory.join(name)).into();
    Ok(OwnProgram { paths, needs_libraries })
}

fn not_written(directory: &Path, error: &io::Error) -> Error {
    const HINT: &str = "The bundle itself was written: free space or repair the medium, then export again with --with-self, or copy the program yourself.";
    let what = format!("{PROGRAM} could not be written there: {error}");
    Error::Destination { path: directory.to_path_buf(), what, hint: HINT.into() }
}

fn put(
    directory: &Path,
    program: &mut File,
    digest: &Digest,
    checksum: &str,
    signature: &[u8; 64],
) -> io::Result<()> {
    let dir = Dir::top(directory)?;
    // A medium wears out: an equal program is not written again.
    let same = fs::open_regular(&directory.join(PROGRAM), fs::Links::Refuse)
        .map_err(io::Error::from)
        .and_then(|mut file| self::digest(&mut file))
        .is_ok_and(|found| found == *digest);
    if !same {
        program.rewind()?;
        let mut copy =
            PendingFile::create(&dir, format!(".{PROGRAM}.partial"), FileMode::AtMost(0o755), None)?;
        io::copy(program, &mut copy)?;
        copy.replace(PROGRAM, Durability::Synced)?;
    }
    for (name, bytes) in [(PROGRAM_CHECKSUM, checksum.as_bytes()), (PROGRAM_SIGNATURE, &signature[..])] {
        dir.replace(name, bytes, FileMode::AtMost(0o644), None, Durability::Synced)?;
    }
    Ok(())
}

fn digest(file: &mut File) -> io::Result<Digest> {
    file.rewind()?;
    Ok(digest_of(file)?.0)
}

/// Whether an executable names an interpreter (`PT_INTERP` in the program headers of a 64-bit ELF file, see the System V
/// ABI), which loads shared libraries.
fn needs_libraries(file: &mut File) -> io::Result<bool> {
    const INTERP: u32 = 3;
    const MOST: usize = 64 << 10;
    file.rewind()?;
    let mut head = Vec::new();
    file.take(MOST as u64).read_to_end(&mut head)?;
    let number = |at: usize, size: usize| {
        let bytes = head.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let headers = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let kinds = (0..count).map(|index| {
            let at = start.checked_add(index.checked_mul(size)?)?;
            number(usize::try_from(at).ok().filter(|at| *at < MOST)?, 4)
        });
        Some(kinds.flatten().any(|kind| kind == u64::from(INTERP)))
    };
    Ok(head.starts_with(b"\x7fELF") && headers().unwrap_or(true))
}
