//! Pushes to an OCI registry (distribution specification v1.1, "Push"): the blobs that are missing, then
//! the manifest, then its tags. At last it reads the manifest back.
//!
//! The bytes are those that upstream published. Nothing is remembered between runs: the registry is asked
//! what it has. Every request is retried if its failure may pass. Knows repositories and digests, and no
//! bundles.

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

/// How long is waited between looks at a manifest that was pushed. Registries on object stores may take a second
/// until they show it.
const READ_BACK_PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// What a tag may name: also what this program would not push, to see that it is there.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// The registries that are pushed to in a run.
pub struct Registry<'r> {
    pub(super) remote: &'r Remote,
    access: Access,
    pub(super) policy: RetryPolicy<'r>,
    /// The largest request that a blob is sent with, if the user says so.
    pub(super) chunk_size: Option<u64>,
    /// The registries where a larger request was refused, with the chunks that they are sent.
    pub(super) chunks: Mutex<HashMap<String, u64>>,
    /// What is left of uploads that failed and may be resumed, by repository and digest.
    pub(super) unfinished: Mutex<HashMap<(String, Digest), Unfinished>>,
    /// How much of a blob was ever sent in chunks, by repository and digest.
    pub(super) furthest: Mutex<HashMap<(String, Digest), u64>>,
    /// In which repository of a host a blob is known to be, so that another can mount it.
    known: Mutex<HashMap<(String, Digest), String>>,
}

/// What a repository has of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlobState {
    Complete,
    /// Something of another length.
    Damaged,
    Nothing,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was there.
    Present,
    /// Another repository of the same registry had it.
    Mounted,
    /// It was sent.
    Sent,
}

/// The bytes of a blob, which may have to be sent more than once.
pub trait BlobContent {
    /// The bytes, from the first one on.
    ///
    /// # Errors
    /// If they cannot be had.
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

/// Why a blob was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry did not take it.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It could not be read.
    #[error("reading: {0}")]
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
    /// Registries reached by `remote`, and retried within its limits. `chunk_size` is the largest request that blobs
    /// are sent with, in bytes; without it, a blob is sent whole unless the registry refuses that.
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

    /// Registries that are only asked what they hold: nobody has to be allowed to push for that.
    pub fn to_read(remote: &'r Remote, progress: &'r dyn Progress) -> Self {
        Registry { access: Access::Pull, ..Registry::new(remote, None, progress) }
    }

    /// The manifest that a reference names now; `None` where it names none.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached, refuses to answer, or gives a manifest
    /// that is too large.
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
            // Registries answer 404 also for a repository that the first push will make.
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(answer).into()),
        }
    }

    /// Whether a repository has a blob, and all of it as far as its length tells.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached or refuses to answer.
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
        // Not every registry, or what stands before it, tells lengths to HEAD.
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

    /// Reads a blob to its end. `take` is given its bytes; whether they were the right ones is known after the
    /// last, where anything else is an error. It is called again if the connection breaks.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached, does not have the blob, or breaks off too
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

    /// Whether a repository has all of these blobs, of these sizes: registries lose some to their cleaning, and
    /// to disks that fail.
    ///
    /// # Errors
    /// [`TargetError::Remote`] if the registry cannot be reached or refuses to answer.
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
    /// [`TargetError::Remote`] if the registry cannot be reached or refuses the manifest;
    /// [`TargetError::ReadBack`] if the tag then names something else.
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
        // The specification knows 201 alone. Some answer 202, or 200 (containers/image, issue 381): the read-back
        // decides.
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

    /// Asks something of a repository; the answer may have any status that a retry does not change.
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
        // Whoever only asks needs no right to push.
        let service = if self.access == Access::Pull { Service::Registry } else { Service::Target };
        self.remote.http.refusal(answer, service)
    }

    /// Another repository of the same host that has a blob.
    pub(super) fn elsewhere(&self, repository: &Repository, digest: Digest) -> Option<String> {
        let known = lock(&self.known);
        known.get(&(repository.host().into(), digest)).filter(|name| *name != repository.name()).cloned()
    }

    /// Keeps in mind that a repository has a blob, so that others can mount it.
    pub fn remember(&self, repository: &Repository, digest: Digest) {
        let mut known = lock(&self.known);
        known.entry((repository.host().into(), digest)).or_insert_with(|| repository.name().into());
    }
}

/// The bytes of a blob on their way from a registry. They end well only with the right length and digest.
pub struct BlobBody {
    body: Body,
    piece: Bytes,
    hasher: Option<Hasher>,
    wanted: Digest,
    left: u64,
    /// What the network said, if it broke.
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
                    let other =
                        || io::Error::new(io::ErrorKind::InvalidData, "it is longer than it should be");
                    self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(other)?;
                    self.piece = piece;
                }
                Ok(None) => {
                    let found = self.hasher.take().map(Hasher::finish);
                    return match found.is_none_or(|found| found == self.wanted) {
                        true => Ok(0),
                        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it has another digest")),
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

/// Pushes a manifest under a repository's own tag and then under further ones.
///
/// # Errors
/// The error of the first push that fails: see [`Registry::push_manifest`]. The tags before it are pushed,
/// those after it are not.
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
