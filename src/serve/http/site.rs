//! The content of a server: repositories with their tags, manifests and blobs, and files by path.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::Digest;

/// Bytes that are read chunk by chunk. Each chunk is verified when it is read.
pub(crate) trait Blob: Send + Sync {
    /// Returns the number of bytes.
    fn size(&self) -> u64;

    /// Returns at least one byte from `offset` on, which is before the end. May block.
    ///
    /// # Errors
    /// If the bytes cannot be read, or have changed since they were verified.
    fn read(&self, offset: u64) -> io::Result<Bytes>;
}

impl Blob for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64) -> io::Result<Bytes> {
        let offset = usize::try_from(offset).ok().filter(|offset| *offset < self.len());
        Ok(self.slice(offset.ok_or(io::ErrorKind::UnexpectedEof)?..))
    }
}

/// Creates a document for the URL under which a client reaches the server.
pub(crate) type Naming = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// A file for a web server.
pub(crate) enum File {
    /// Bytes and their media type.
    Fixed(Arc<dyn Blob>, &'static str),
    /// A JSON document that contains the URL of the server.
    Naming(Box<Naming>),
}

/// A manifest: its media type and its bytes.
#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

/// The tags, manifests and blobs of a repository.
#[derive(Default)]
pub(crate) struct Repository {
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) manifests: HashMap<Digest, Manifest>,
    blobs: BTreeSet<Digest>,
}

/// Everything that a server serves.
#[derive(Default)]
pub(crate) struct Site {
    pub(crate) repositories: BTreeMap<String, Repository>,
    blobs: HashMap<Digest, Arc<dyn Blob>>,
    files: BTreeMap<String, File>,
}

impl Site {
    /// Adds a manifest under its digest, and under a tag if it has one.
    pub(crate) fn manifest(&mut self, repository: &str, tag: Option<&str>, media_type: &str, bytes: Vec<u8>) {
        let digest = Digest::of(&bytes);
        let manifest = Manifest { media_type: media_type.to_owned(), bytes: bytes.into() };
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        repository.manifests.insert(digest, manifest);
        repository.tags.extend(tag.map(|tag| (tag.to_owned(), digest)));
    }

    /// Adds a blob to a repository.
    pub(crate) fn blob(&mut self, repository: &str, digest: Digest, blob: Arc<dyn Blob>) {
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest);
        self.blobs.insert(digest, blob);
    }

    /// Adds a file at a path below the root, without a leading slash.
    pub(crate) fn file(&mut self, path: &str, file: File) {
        self.files.insert(path.to_owned(), file);
    }

    /// Returns a blob of a repository.
    pub(crate) fn blob_of(&self, repository: &Repository, digest: &Digest) -> Option<&Arc<dyn Blob>> {
        repository.blobs.get(digest).and_then(|digest| self.blobs.get(digest))
    }

    pub(crate) fn file_at(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }
}
