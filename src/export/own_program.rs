//! `--with-self`: puts the program of this process beside the bundle, with its digest and a signature.
//!
//! This module depends on the signer and on the directory. It does not know the bundle.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::bundle::names::{PARTIAL, PROGRAM, PROGRAM_CHECKSUM, PROGRAM_SIGNATURE};
use crate::digest::{Digest, digest_of};
use crate::error::Error;
use crate::export::drop_directory::remove_partials;
use crate::trust::message::Message;
use crate::trust::signer::Signer;
use crate::util::dir::write::{Durability, PendingFile};
use crate::util::dir::{Dir, FileMode};
use crate::util::fs;

/// The program of this process. It stays readable if an upgrade has replaced the file.
const THIS: &str = "/proc/self/exe";

/// The program of this process, and the signature of its digest.
pub(crate) struct OwnProgram {
    file: File,
    digest: Digest,
    checksum: String,
    signature: [u8; 64],
    /// Whether the program needs libraries that the other host may not have.
    pub(crate) needs_libraries: bool,
}

impl OwnProgram {
    /// Opens the program, and signs its digest. An export does this before it fetches anything.
    ///
    /// # Errors
    /// [`Error::Unexpected`] if the program cannot be read; [`Error::Trust`] if the digest cannot be signed.
    pub(crate) fn signed(signer: &dyn Signer) -> Result<Self, Error> {
        let unreadable = || Error::unexpected("reading the program of this process");
        let file = fs::open_regular(Path::new(THIS), fs::Links::Follow).map_err(io::Error::from);
        let mut file = file.map_err(unreadable())?;
        let needs_libraries = needs_libraries(&mut file).map_err(unreadable())?;
        let digest = digest(&mut file).map_err(unreadable())?;
        let checksum = format!("{}  {PROGRAM}\n", digest.hex());
        let signature = signer.sign(&Message::checksum(&checksum))?;
        Ok(OwnProgram { file, digest, checksum, signature, needs_libraries })
    }

    /// Writes the program, its digest and the signature of the digest into a directory, and replaces earlier ones.
    /// Returns their paths.
    ///
    /// # Errors
    /// [`Error::Destination`] if the directory cannot be written.
    pub(crate) fn put(&mut self, directory: &Path) -> Result<Vec<PathBuf>, Error> {
        let failed = |name: &str, error: io::Error| {
            const HINT: &str = "The bundle itself was written: free space or repair the medium, then export again with --with-self, or copy the program yourself.";
            let what = format!("{name} could not be written there: {error}");
            Error::Destination { path: directory.to_path_buf(), what, hint: HINT.into() }
        };
        let dir = Dir::top(directory).map_err(|error| failed(PROGRAM, error))?;
        self.put_program(&dir).map_err(|error| failed(PROGRAM, error))?;
        let small = [(PROGRAM_CHECKSUM, self.checksum.as_bytes()), (PROGRAM_SIGNATURE, &self.signature[..])];
        for (name, bytes) in small {
            let mode = FileMode::AtMost(0o644);
            let put = dir.replace_beside_others(name, bytes, mode, None, Durability::Synced);
            put.map_err(|error| failed(name, error))?;
        }
        Ok([PROGRAM, PROGRAM_CHECKSUM, PROGRAM_SIGNATURE].map(|name| directory.join(name)).into())
    }

    fn put_program(&mut self, dir: &Dir) -> io::Result<()> {
        remove_partials(dir.path(), is_leftover);
        let there = fs::open_regular(&dir.at(PROGRAM), fs::Links::Refuse).map_err(io::Error::from);
        let same = there.and_then(|mut there| Ok((digest(&mut there)? == self.digest).then_some(there)));
        if let Ok(Some(there)) = same {
            // A medium wears out: an equal program is not written again. Some file systems have no modes.
            let _ = there.set_permissions(Permissions::from_mode(0o755));
            return Ok(());
        }
        self.file.rewind()?;
        // Two exports into one directory do not disturb each other.
        let temporary = format!(".{PROGRAM}.{}{PARTIAL}", std::process::id());
        let mut copy = PendingFile::create(dir, temporary, FileMode::AtMost(0o755), None)?;
        io::copy(&mut self.file, &mut copy)?;
        copy.replace(PROGRAM, Durability::Synced)
    }
}

/// Whether a temporary file of this name, without the dot and the suffix, belongs to a run that was killed.
fn is_leftover(name: &str) -> bool {
    let process = name.strip_prefix(PROGRAM).and_then(|rest| rest.strip_prefix('.')?.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
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
