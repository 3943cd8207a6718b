//! Reads a blob. The reader succeeds only if it received exactly the requested bytes, by number and digest.
//!
//! It requests one piece after another and does not depend on the kind of source.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;

use crate::digest::{Digest, Hasher};
use crate::oci::Descriptor;
use crate::source::error::SourceError;
use crate::source::transfer::Transfer;

/// The size of one read from a file, in bytes.
const PIECE: usize = 256 << 10;

pub(super) enum Pieces<'n> {
    Registry(Box<Transfer<'n>>),
    File { file: File, path: std::path::PathBuf },
}

impl Pieces<'_> {
    fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        match self {
            Pieces::Registry(transfer) => transfer.next(),
            Pieces::File { file, path } => {
                let mut piece = vec![0; PIECE];
                loop {
                    match file.read(&mut piece) {
                        Ok(0) => return Ok(None),
                        Ok(length) => {
                            piece.truncate(length);
                            return Ok(Some(piece.into()));
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(SourceError::Local { path: path.clone(), error }),
                    }
                }
            }
        }
    }
}

/// A blob's bytes. Reading returns `Ok(0)` only if their length and digest match the descriptor;
/// the last piece is returned only after both were verified. Anything else is an error that wraps a
/// [`SourceError`] (see [`SourceError::from_io`]); after an error, every further read fails.
pub struct Blob<'n> {
    pieces: Pieces<'n>,
    subject: String,
    wanted: Digest,
    size: u64,
    seen: u64,
    ended: bool,
    /// The hasher of the bytes; `None` if the reader computes the digest itself.
    hasher: Option<Hasher>,
    piece: Bytes,
    failed: bool,
}

impl<'n> Blob<'n> {
    pub(super) fn new(pieces: Pieces<'n>, subject: String, descriptor: &Descriptor, at: u64) -> Self {
        Blob {
            pieces,
            subject,
            wanted: descriptor.digest,
            size: descriptor.size,
            seen: at,
            ended: false,
            hasher: Some(Hasher::new()).filter(|_| at == 0),
            piece: Bytes::new(),
            failed: false,
        }
    }

    /// The blob's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The name of the blob for messages.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the same blob for a reader that computes and compares the digest itself.
    pub fn unhashed(mut self) -> UnhashedBlob<'n> {
        self.hasher = None;
        UnhashedBlob(self)
    }

    /// Fetches the next piece. Leaves `piece` empty at the end of a valid blob.
    fn fill(&mut self) -> Result<(), SourceError> {
        if self.ended {
            return Ok(());
        }
        let subject = || self.subject.clone();
        if let Some(piece) = self.pieces.next()? {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            self.seen += piece.len() as u64;
            if self.seen > self.size {
                return Err(SourceError::Long { subject: subject(), wanted: self.size });
            }
            self.piece = piece;
            if self.seen < self.size {
                return Ok(());
            }
            if self.pieces.next()?.is_some() {
                return Err(SourceError::Long { subject: subject(), wanted: self.size });
            }
        }
        if self.seen < self.size {
            return Err(SourceError::Short { subject: subject(), wanted: self.size, got: self.seen });
        }
        self.ended = true;
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.wanted => {
                Err(SourceError::Digest { subject: subject(), wanted: self.wanted, found })
            }
            _ => Ok(()),
        }
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("an earlier read of this blob failed"));
        }
        if out.is_empty() {
            return Ok(0);
        }
        if self.piece.is_empty()
            && let Err(error) = self.fill()
        {
            self.failed = true;
            self.piece = Bytes::new();
            return Err(error.into());
        }
        let length = out.len().min(self.piece.len());
        out[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// A blob whose length is verified and whose digest is not: its reader must compare the digest before it uses
/// the bytes. This type exists so that large layers are hashed only once.
pub struct UnhashedBlob<'n>(Blob<'n>);

impl Read for UnhashedBlob<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}
