//! Pushes to an OCI registry (distribution specification v1.1, "Push"): the blobs that are missing, then
//! the manifest, then its tags. At last it reads the manifest back.
//!
//! The bytes are those that upstream published. Nothing is remembered between runs: the registry is asked
//! what it has. Knows repositories and digests, and no bundles.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use crate::digest::Digest;
use crate::oci;
use crate::remote::{Access, Answer, Remote, RemoteError, Repository, Request, Service, Upload, behind_tls};
use crate::targets::error::TargetError;
use crate::util::pipe::CHUNK;
use crate::util::redacted::Redacted;
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
    remote: &'r Remote,
    access: Access,
    /// In which repository of a host a blob is known to be, so that another can mount it.
    known: Mutex<HashMap<(String, Digest), String>>,
}

/// What a repository has of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlobState {
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

impl<'r> Registry<'r> {
    /// Registries reached by `remote`.
    pub fn new(remote: &'r Remote) -> Self {
        Registry { remote, access: Access::Push, known: Mutex::default() }
    }

    /// Registries that are only asked what they hold: nobody has to be allowed to push for that.
    pub fn to_read(remote: &'r Remote) -> Self {
        Registry { access: Access::Pull, ..Registry::new(remote) }
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
        match answer.response.status() {
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
        Ok(self.look(repository, digest, size)? == BlobState::Complete)
    }

    fn look(&self, repository: &Repository, digest: Digest, size: u64) -> Result<BlobState, TargetError> {
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

    /// Pushes a blob that the repository may lack. `content` is read only where it has to be sent,
    /// and then to its end: what it says there, that the bytes are the right ones, comes before the
    /// registry is asked to keep them.
    ///
    /// # Errors
    /// [`PushError::Source`] if `content` fails; [`TargetError::DamagedBlob`] if the registry keeps other
    /// bytes under the digest; [`TargetError::Remote`] if it cannot be reached, refuses the upload, or
    /// claims to have it before it was sent.
    pub fn push_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        content: impl Read,
    ) -> Result<PushOutcome, PushError> {
        let held = self.look(repository, digest, size)?;
        if held == BlobState::Complete {
            return Ok(PushOutcome::Present);
        }
        let subject = format!("blob {digest} of {repository}");
        let Some(location) = self.begin(repository, digest, &subject)? else {
            self.remember(repository, digest);
            return Ok(PushOutcome::Mounted);
        };
        let upload = self.upload(repository, location.clone(), digest, size, &subject)?;
        let error = match send(upload, content) {
            Ok((answer, true)) if answer.response.status() == StatusCode::CREATED => {
                // Many take what they have under a digest for good, and throw away what is sent.
                if held == BlobState::Damaged && self.look(repository, digest, size)? == BlobState::Damaged {
                    return Err(TargetError::DamagedBlob { blob: subject, size }.into());
                }
                self.remember(repository, digest);
                return Ok(PushOutcome::Sent);
            }
            // Whoever has not read it cannot have kept it.
            Ok((answer, false)) if answer.response.status().is_success() => {
                let why = "the registry says that it has it, before it was sent".into();
                RemoteError::Unusable { subject: subject.clone(), why }.into()
            }
            Ok((answer, _)) => self.refusal(answer).into(),
            Err(error @ PushError::Source(_)) => error,
            // Whom nobody reaches, nobody tells anything.
            Err(error) => return Err(error),
        };
        self.cancel(repository, location, &subject);
        Err(error)
    }

    /// Begins an upload: where its bytes are to go, or `None` where a mount made it needless.
    fn begin(
        &self,
        repository: &Repository,
        digest: Digest,
        subject: &str,
    ) -> Result<Option<Url>, TargetError> {
        let start = |access: &Access, path: &str| {
            let request = |url| Request {
                payload: Some((Vec::new(), "application/octet-stream".into())),
                ..Request::new(Method::POST, subject, url)
            };
            self.remote.registries.ask(&self.remote.http, repository, access, path, &request)
        };
        let mounted = self.elsewhere(repository, digest).map(|from| {
            // Neither a digest nor a repository's name holds what a query must escape.
            let path = format!("blobs/uploads/?mount={digest}&from={from}");
            start(&Access::Mount { from }, &path)
        });
        let answer = match mounted {
            Some(Ok(answer)) if answer.response.status() == StatusCode::CREATED => return Ok(None),
            // The registry does not mount this one, and has begun an upload instead.
            Some(Ok(answer)) if answer.response.status() == StatusCode::ACCEPTED => answer,
            // Not every registry mounts, and an account need not read everywhere.
            None | Some(Ok(_) | Err(RemoteError::Denied { .. })) => start(&Access::Push, "blobs/uploads/")?,
            Some(Err(error)) => return Err(error.into()),
        };
        if answer.response.status() != StatusCode::ACCEPTED {
            return Err(self.refusal(answer).into());
        }
        let location = self.location(&answer).map_err(|why| {
            let why = format!("the registry does not say where to send it (no usable Location{why})");
            RemoteError::Unusable { subject: subject.into(), why }
        })?;
        Ok(Some(location))
    }

    /// Where an answer says that an upload goes on. An error is the end of a sentence: what it says instead.
    fn location(&self, answer: &Answer) -> Result<Url, String> {
        let asked = answer.response.url();
        // Relative to what was asked, as any URL in HTTP may be (RFC 9110, 10.2.2).
        let named = answer.header(LOCATION.as_str()).ok_or_else(String::new)?;
        let location = asked.join(named).map_err(|_| ": it is not a URL".to_owned())?;
        let location = behind_tls(location, asked);
        match location.scheme() {
            "https" => Ok(location),
            scheme if scheme == asked.scheme() => Ok(location),
            "http" if self.remote.options.insecure => Ok(location),
            "http" => Err(format!(
                ": {} is plain HTTP, and the registry was asked over HTTPS; a proxy before it may have to send X-Forwarded-Proto",
                Redacted::from(&location)
            )),
            _ => Err(format!(": {} is not an HTTP address", Redacted::from(&location))),
        }
    }

    /// Begins to send a blob whole. Credentials go to the registry itself only.
    fn upload(
        &self,
        repository: &Repository,
        mut location: Url,
        digest: Digest,
        size: u64,
        subject: &str,
    ) -> Result<Upload, TargetError> {
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let authorization = self.login_at(repository, &location);
        let named_by = self.remote.registries.origin_of(repository);
        let request = Request { authorization, named_by, ..Request::new(Method::PUT, subject, location) };
        Ok(self.remote.http.upload(request, size)?)
    }

    /// Has the registry drop what it got of an upload that failed. Some keep it for a week, and a disk
    /// that is full would be fuller with every attempt. Nothing depends on what it answers.
    fn cancel(&self, repository: &Repository, location: Url, subject: &str) {
        let own = self.remote.registries.origin_of(repository);
        let uploads = format!("/v2/{}/blobs/uploads/", repository.name());
        let ask = |method, url: Url| {
            // On a registry's word nothing is deleted at other hosts, nor what is no upload.
            own.as_ref().filter(|own| own.origin() == url.origin() && url.path().starts_with(&uploads))?;
            let authorization = self.login_at(repository, &url);
            let named_by = own.clone();
            self.remote
                .http
                .send(Request { authorization, named_by, ..Request::new(method, subject, url) })
                .ok()
        };
        // distribution names another place for each state of an upload, and cancels only at the last.
        let last = ask(Method::GET, location.clone()).and_then(|answer| self.location(&answer).ok());
        ask(Method::DELETE, last.unwrap_or(location));
    }

    /// The login for a place that the registry names: only where it is the registry itself.
    fn login_at(&self, repository: &Repository, url: &Url) -> Option<HeaderValue> {
        let registries = &self.remote.registries;
        registries.origin_of(repository).filter(|own| own.origin() == url.origin())?;
        registries.login_of(repository, &Access::Push)
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

    fn ask(
        &self,
        repository: &Repository,
        path: &str,
        request: &dyn Fn(Url) -> Request,
    ) -> Result<Answer, RemoteError> {
        self.remote.registries.ask(&self.remote.http, repository, &self.access, path, request)
    }

    fn refusal(&self, answer: Answer) -> RemoteError {
        self.remote.http.refusal(answer, Service::Target)
    }

    /// Another repository of the same host that has a blob.
    fn elsewhere(&self, repository: &Repository, digest: Digest) -> Option<String> {
        let known = lock(&self.known);
        known.get(&(repository.host().into(), digest)).filter(|name| *name != repository.name()).cloned()
    }

    /// Keeps in mind that a repository has a blob, so that others can mount it.
    pub fn remember(&self, repository: &Repository, digest: Digest) {
        let mut known = lock(&self.known);
        known.entry((repository.host().into(), digest)).or_insert_with(|| repository.name().into());
    }
}

/// Sends a content; the registry's answer to it, and whether it was sent to its end. The last piece goes
/// out only when the content has ended well.
fn send(mut upload: Upload, mut content: impl Read) -> Result<(Answer, bool), PushError> {
    let (mut held, mut next) = (Vec::new(), vec![0; CHUNK]);
    loop {
        // Dropping the upload on an error breaks the connection: nothing becomes a blob.
        let count = match content.read(&mut next) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(PushError::Source)?,
        };
        if upload.write_all(&held).is_err() {
            return Ok((upload.early_answer()?.0, false));
        }
        if count == 0 {
            return Ok(upload.finish()?);
        }
        next.truncate(count);
        std::mem::swap(&mut held, &mut next);
        next.resize(CHUNK, 0);
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
