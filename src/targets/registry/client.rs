//! Pushes to an OCI registry (distribution specification v1.1, "Push"): the missing blobs, then the manifest, then its
//! tags. At the end it reads the manifest back.
//!
//! The bytes are those that upstream published. The module stores nothing between runs, and queries
//! the registry instead. Transient failures are retried. The module depends on repositories and
//! digests, but not on bundles.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode, Url};
use tempfile::SpooledTempFile;

use crate::digest::{Digest, Hasher};
use crate::oci;
use crate::progress::Progress;
use crate::remote::{
    Access, Answer, Body, Remote, RemoteError, Repository, Request, Retry, RetryPolicy, Retryable, Service,
};
use crate::targets::error::TargetError;
use crate::targets::registry::session::Unfinished;
use crate::util::threads::lock;

/// The pauses between attempts to read a manifest back. Registries on object stores may take 1 s to show it.
const READ_BACK_PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// The accepted types of a manifest, including types that trivy-ferry does not push, so that it sees any existing
/// manifest.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// The registries that a run pushes to.
pub struct Registry<'r> {
    pub(super) remote: &'r Remote,
    access: Access,
    pub(super) policy: RetryPolicy<'r>,
    /// The largest request for a blob, if the user sets one.
    pub(super) chunk_size: Option<u64>,
    /// The registries that rejected a larger request, with the sizes of chunks for them.
    pub(super) chunks: Mutex<HashMap<String, u64>>,
    /// The failed uploads that may be resumed, by repository and digest.
    pub(super) unfinished: Mutex<HashMap<(String, Digest), Unfinished>>,
    /// The number of bytes of a blob that were ever sent in chunks, by repository and digest.
    pub(super) furthest: Mutex<HashMap<(String, Digest), u64>>,
    /// The repository of a host that has a blob, so that others can mount it.
    known: Mutex<HashMap<(String, Digest), String>>,
}

/// The state of a blob in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlobState {
    Complete,
    /// It has another length.
    Damaged,
    Nothing,
}

/// The result of pushing a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The repository had it.
    Present,
    /// It was mounted from another repository of the same registry.
    Mounted,
    /// It was uploaded.
    Sent,
}

/// The content of a blob, which may have to be sent more than once.
pub trait BlobContent {
    /// Opens the content at its beginning.
    ///
    /// # Errors
    /// If the content cannot be opened.
    fn open<'s>(&'s mut self) -> io::Result<Box<dyn Read + 's>>;
}

impl BlobContent for &[u8] {
    fn open<'s>(&'s mut self) -> io::Result<Box<dyn Read + 's>> {
        Ok(Box::new(*self))
    }
}

impl BlobContent for &mut SpooledTempFile {
    fn open<'s>(&'s mut self) -> io::Result<Box<dyn Read + 's>> {
        io::Seek::rewind(self)?;
        Ok(Box::new(&mut **self))
    }
}

/// The reason why a blob was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry rejected it or failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The content could not be read.
    #[error("cannot read: {0}")]
    Source(io::Error),
}

impl From<RemoteError> for PushError {
    fn from(error: RemoteError) -> Self {
        PushError::Target(error.into())
    }
}

impl Retryable for TargetError {
    fn retry(&self) -> Retry {
        match self {
            TargetError::Remote(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, TargetError::Remote(RemoteError::Unreachable { .. }))
    }
}

impl Retryable for PushError {
    fn retry(&self) -> Retry {
        match self {
            PushError::Target(error) => error.retry(),
            PushError::Source(_) => Retry::Never,
        }
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, PushError::Target(error) if error.is_unreachable())
    }
}

impl<'r> Registry<'r> {
    /// Creates a client that uses `remote` and its retry policy. `chunk_size` is the largest request for a blob in bytes.
    /// Without it, a blob is sent in one request unless the registry rejects that.
    pub fn new(remote: &'r Remote, chunk_size: Option<u64>, progress: &'r dyn Progress) -> Self {
        Registry {
            remote,
            access: Access::Push,
            policy: RetryPolicy::new(remote.limits, progress),
            chunk_size,
            chunks: Mutex::default(),
            unfinished: Mutex::default(),
            furthest: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Creates a client that only reads, and so needs no permission to push.
    pub fn to_read(remote: &'r Remote, progress: &'r dyn Progress) -> Self {
        Registry { access: Access::Pull, ..Registry::new(remote, None, progress) }
    }

    /// Returns the manifest that a reference names now; `None` if there is none.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached, rejects the request, or sends a manifest that is too
    /// large.
    pub fn manifest(&self, reference: &Repository) -> Result<Option<Vec<u8>>, TargetError> {
        let subject = reference.to_string();
        let path = format!("manifests/{}", reference.asked_by());
        let request = |url| Request { accept: Some(ACCEPT), ..Request::get(subject.as_str(), url) };
        let answer = self.ask(reference, &path, &request)?;
        let status = answer.response.status();
        if matches!(status, StatusCode::OK | StatusCode::NOT_FOUND) {
            self.policy.succeeded(reference.host());
        }
        match status {
            StatusCode::OK => Ok(Some(self.remote.http.bytes(answer, oci::MAX_MANIFEST)?)),
            // Registries also return 404 for a repository that does not exist before the first push.
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(answer).into()),
        }
    }

    /// Whether a repository has a blob with this length.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached or rejects the request.
    pub fn has_blob(&self, repository: &Repository, digest: Digest, size: u64) -> Result<bool, TargetError> {
        let held = self.look(repository, digest, size)?;
        self.policy.succeeded(repository.host());
        Ok(held == BlobState::Complete)
    }

    pub(super) fn look(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
    ) -> Result<BlobState, TargetError> {
        let subject = format!("blob {digest} of {repository}");
        // Some registries and proxies return no length for HEAD.
        for method in [Method::HEAD, Method::GET] {
            let request = |url| Request::new(method.clone(), subject.as_str(), url);
            let answer = self.ask(repository, &format!("blobs/{digest}"), &request)?;
            match answer.response.status() {
                StatusCode::OK => {
                    let length = answer.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
                    if length.is_none_or(|length: u64| length == size) {
                        self.remember(repository, digest);
                        return Ok(BlobState::Complete);
                    }
                }
                StatusCode::NOT_FOUND => return Ok(BlobState::Nothing),
                _ => return Err(self.refusal(answer).into()),
            }
        }
        Ok(BlobState::Damaged)
    }

    /// Reads a blob to its end. `take` gets a reader that fails at the end if the length or the digest is wrong. `take` is
    /// called again if the connection breaks.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached, does not have the blob, or closes the connection too
    /// often.
    pub fn read_blob<T>(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        mut take: impl FnMut(&mut BlobBody) -> T,
    ) -> Result<T, TargetError> {
        let subject = format!("blob {digest} of {repository}");
        loop {
            let request = |url| Request::get(subject.as_str(), url);
            let answer = self.ask(repository, &format!("blobs/{digest}"), &request)?;
            if answer.response.status() != StatusCode::OK {
                return Err(self.refusal(answer).into());
            }
            let mut body = BlobBody::new(self.remote.http.stream(answer), digest, size);
            let taken = take(&mut body);
            let Some(lost) = body.lost.take() else {
                self.policy.succeeded(repository.host());
                return Ok(taken);
            };
            self.policy.failed(repository.host(), TargetError::from(lost))?;
        }
    }

    /// Whether a repository has all of these blobs with these sizes. Registries may lose blobs to garbage collection or to
    /// failing disks.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached or rejects the request.
    pub fn has_all(
        &self,
        repository: &Repository,
        blobs: impl IntoIterator<Item = (Digest, u64)>,
    ) -> Result<bool, TargetError> {
        for (digest, size) in blobs {
            if !self.has_blob(repository, digest, size)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pushes a manifest under a tag, and reads it back.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached or rejects the manifest; [`TargetError::ReadBack`] if the
    /// tag then refers to another manifest.
    pub fn push_manifest(
        &self,
        reference: &Repository,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), TargetError> {
        let subject = reference.to_string();
        let path = format!("manifests/{}", reference.asked_by());
        let request = |url| Request {
            payload: Some((bytes.to_vec(), media_type.to_owned())),
            ..Request::new(Method::PUT, subject.as_str(), url)
        };
        let answer = self.ask(reference, &path, &request)?;
        // The specification allows only 201. Some registries return 202 or 200 (containers/image, issue 381). The
        // manifest that is read back shows whether the push succeeded.
        if !matches!(answer.response.status(), StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED) {
            return Err(self.refusal(answer).into());
        }
        let wanted = Digest::of(bytes);
        let mut pauses = READ_BACK_PAUSES.iter();
        loop {
            let found = self.manifest(reference)?.map(|bytes| Digest::of(&bytes));
            match pauses.next() {
                _ if found == Some(wanted) => return Ok(()),
                Some(pause) => std::thread::sleep(*pause),
                None => return Err(TargetError::ReadBack { reference: subject, wanted, found }),
            }
        }
    }

    /// Sends a request to a repository with retries. The answer may have any status that is not transient.
    pub(super) fn ask(
        &self,
        repository: &Repository,
        path: &str,
        request: &dyn Fn(Url) -> Request,
    ) -> Result<Answer, TargetError> {
        self.policy.retry_contact(repository.host(), || {
            let answer =
                self.remote.registries.ask(&self.remote.http, repository, &self.access, path, request)?;
            match answer.response.status().as_u16() {
                408 | 425 | 429 | 500.. => Err(self.refusal(answer).into()),
                _ => Ok(answer),
            }
        })
    }

    pub(super) fn refusal(&self, answer: Answer) -> RemoteError {
        // The hint for a reader must not ask for the permission to push.
        let service = if self.access == Access::Pull { Service::Registry } else { Service::Target };
        self.remote.http.refusal(answer, service)
    }

    /// Returns another repository of the same host that has a blob.
    pub(super) fn elsewhere(&self, repository: &Repository, digest: Digest) -> Option<String> {
        let known = lock(&self.known);
        known.get(&(repository.host().into(), digest)).filter(|name| *name != repository.name()).cloned()
    }

    /// Records that a repository has a blob, so that others can mount it.
    pub fn remember(&self, repository: &Repository, digest: Digest) {
        let mut known = lock(&self.known);
        known.entry((repository.host().into(), digest)).or_insert_with(|| repository.name().into());
    }
}

/// A reader of a blob from a registry. It fails at the end if the length or the digest is wrong.
pub struct BlobBody {
    body: Body,
    piece: Bytes,
    hasher: Option<Hasher>,
    wanted: Digest,
    left: u64,
    /// The error of the connection, if it broke.
    lost: Option<RemoteError>,
}

impl BlobBody {
    fn new(body: Body, wanted: Digest, size: u64) -> Self {
        BlobBody { body, piece: Bytes::new(), hasher: Some(Hasher::new()), wanted, left: size, lost: None }
    }
}

impl Read for BlobBody {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.body.next() {
                Ok(Some(piece)) => {
                    let other = || io::Error::new(io::ErrorKind::InvalidData, "it is longer than expected");
                    self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(other)?;
                    self.piece = piece;
                }
                Ok(None) => {
                    let found = self.hasher.take().map(Hasher::finish);
                    return match found.is_none_or(|found| found == self.wanted) {
                        true => Ok(0),
                        false => Err(io::Error::new(io::ErrorKind::InvalidData, "its digest is wrong")),
                    };
                }
                Err(error) => {
                    let what = error.to_string();
                    self.lost = Some(error);
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, what));
                }
            }
        }
        let count = out.len().min(self.piece.len());
        let taken = self.piece.split_to(count);
        out[..count].copy_from_slice(&taken);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&taken);
        }
        Ok(count)
    }
}

/// Pushes a manifest under the tag of the reference and then under extra tags.
///
/// # Errors
/// [`TargetError::Remote`] if the registry cannot be reached or rejects the manifest;
/// [`TargetError::ReadBack`] if a tag then refers to another manifest. The tags before the failed
/// one are pushed; those after it are not.
pub(crate) fn push_under(
    registry: &Registry<'_>,
    reference: &Repository,
    tags: &[String],
    media_type: &str,
    manifest: &[u8],
) -> Result<(), TargetError> {
    let further = tags.iter().map(|tag| reference.tagged(tag));
    std::iter::once(reference.clone())
        .chain(further)
        .try_for_each(|reference| registry.push_manifest(&reference, media_type, manifest))
}
