//! Sends a blob: whole, or in chunks if the registry or a proxy before it refuses a request of that size; from
//! the first byte, or from where an upload broke off if the registry says how far it came (distribution
//! specification v1.1, "Pushing blobs").
//!
//! The registry is asked to keep a blob only when all of its content has been read and has ended well.

use std::io::{self, Read, Write};
use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use crate::digest::Digest;
use crate::remote::{
    Access, Answer, RemoteError, Repository, Request, Retry, Retryable, Upload, behind_tls, host_of,
};
use crate::targets::error::TargetError;
use crate::targets::registry::client::{BlobContent, BlobState, PushError, PushOutcome, Registry};
use crate::targets::registry::session::{Session, Unfinished};
use crate::util::pipe::CHUNK;
use crate::util::redacted::Redacted;
use crate::util::text::format_size;
use crate::util::threads::lock;

/// The smallest chunks that are sent, in bytes.
pub const LEAST_CHUNK: u64 = 1 << 20;
/// The chunks for a host that refuses more in one request, in bytes. CDNs let 100 MB pass, and nginx 1 MiB if
/// nobody configures it.
const CHUNK_SIZES: [u64; 4] = [64 << 20, 16 << 20, 4 << 20, LEAST_CHUNK];
/// The least that a registry takes as a chunk which is not the last one, in bytes.
const MIN_LENGTH: &str = "oci-chunk-min-length";

/// A blob and where it goes.
struct Pushed<'p> {
    repository: &'p Repository,
    digest: Digest,
    size: u64,
    subject: String,
}

impl Registry<'_> {
    /// Pushes a blob that the repository may lack. `content` is read only if it has to be sent, and then to its
    /// end: what it says there, that the bytes are the right ones, comes before the registry is asked to keep
    /// them. It is read again if the upload fails in a way that may pass.
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
        mut content: impl BlobContent,
    ) -> Result<PushOutcome, PushError> {
        loop {
            let opened = content.open().map_err(PushError::Source)?;
            match self.push_blob_once(repository, digest, size, opened) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.may_retry(repository, digest, error)?,
            }
        }
    }

    /// As [`Registry::push_blob`], with content that can be read once. If it fails, ask
    /// [`Registry::may_retry`].
    ///
    /// # Errors
    /// As [`Registry::push_blob`].
    pub(crate) fn push_blob_once(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        content: impl Read,
    ) -> Result<PushOutcome, PushError> {
        let subject = format!("blob {digest} of {repository}");
        let blob = Pushed { repository, digest, size, subject };
        let held = self.look(repository, digest, size)?;
        if held == BlobState::Complete {
            self.policy.succeeded(repository.host());
            return Ok(PushOutcome::Present);
        }
        let begun = match self.resume(&blob) {
            Some(session) => Some(session),
            None => self.begin(&blob)?,
        };
        let Some(mut session) = begun else {
            self.remember(repository, digest);
            return Ok(PushOutcome::Mounted);
        };
        match self.transfer(&blob, &mut session, content) {
            Ok(()) => {}
            Err(error) => {
                self.set_aside(&blob, session, &error);
                return Err(error);
            }
        }
        // Many take what they have under a digest for good, and throw away what is sent.
        if held == BlobState::Damaged && self.look(repository, digest, size)? == BlobState::Damaged {
            return Err(TargetError::DamagedBlob { blob: blob.subject, size }.into());
        }
        self.policy.succeeded(repository.host());
        self.remember(repository, digest);
        Ok(PushOutcome::Sent)
    }

    /// After a push of a blob that failed: waits until it may be tried again.
    ///
    /// # Errors
    /// The given error, if another attempt cannot help, or there were too many.
    pub(crate) fn may_retry(
        &self,
        repository: &Repository,
        digest: Digest,
        error: PushError,
    ) -> Result<(), PushError> {
        let key = (repository.to_string(), digest);
        let (host, request, least, renewed) = match lock(&self.unfinished).get(&key) {
            // What failed before an upload has been retried already.
            None => return Err(error),
            Some(Unfinished::Nothing) => return Ok(()),
            Some(Unfinished::Upload(session)) => {
                let host = self.host_at(repository, &session.location);
                (host, session.request, session.least, session.renewed)
            }
        };
        if is_too_large(&error) && self.reduce(repository.host(), &host, request, least) {
            return Ok(());
        }
        let again = if renewed { Retry::After(Some(Duration::ZERO)) } else { error.retry() };
        let waited =
            self.policy.failed_for(&host, error, again).and_then(|()| Ok(self.policy.wait(&host)?));
        let Err(error) = waited else { return Ok(()) };
        let Some(Unfinished::Upload(session)) = lock(&self.unfinished).remove(&key) else {
            return Err(error);
        };
        match error {
            PushError::Target(TargetError::Remote(RemoteError::Unreachable { why, .. }))
                if !self.remote.registries.is_at(repository, &session.location) =>
            {
                let address = Redacted::from(&session.location).to_string();
                Err(TargetError::UploadAddress { host: repository.host().to_owned(), address, why }.into())
            }
            // Whom nobody reaches, nobody tells anything.
            error if error.is_unreachable() => Err(error),
            error => {
                self.cancel(repository, session.location, &format!("blob {digest} of {repository}"));
                Err(error)
            }
        }
    }

    /// Keeps what is left of an upload that failed for another attempt, or has the registry drop it.
    fn set_aside(&self, blob: &Pushed<'_>, session: Session, error: &PushError) {
        let key = (blob.repository.to_string(), blob.digest);
        let may_pass = error.retry() != Retry::Never || is_too_large(error) || session.renewed;
        if may_pass {
            lock(&self.unfinished).insert(key, Unfinished::Upload(session));
            return;
        }
        // What another attempt left may be the reason.
        if session.resumed && matches!(error, PushError::Target(_)) {
            lock(&self.unfinished).insert(key, Unfinished::Nothing);
        }
        self.cancel(blob.repository, session.location, &blob.subject);
    }

    /// Makes the chunks for a registry smaller than a request that was refused, by it or at `host`, where it has the
    /// upload sent; whether there are smaller ones. What is sent next is always smaller, so that this has an end.
    fn reduce(&self, registry: &str, host: &str, refused: u64, least: u64) -> bool {
        let mut chunks = lock(&self.chunks);
        // Another upload may have been refused meanwhile.
        if chunks.get(registry).is_some_and(|chunk| (*chunk).max(least) < refused) {
            return true;
        }
        let Some(chunk) = CHUNK_SIZES.into_iter().find(|chunk| *chunk < refused && *chunk >= least) else {
            return false;
        };
        self.policy.info(&format!(
            "{host} takes no request of {} (status 413); sending chunks of {}",
            format_size(refused),
            format_size(chunk)
        ));
        chunks.insert(registry.to_owned(), chunk);
        true
    }

    /// The largest request for an upload; `None` for no limit.
    fn chunk(&self, registry: &str, session: &Session) -> Option<u64> {
        let chunk = lock(&self.chunks).get(registry).copied().or(self.chunk_size)?;
        Some(chunk.max(session.least).max(LEAST_CHUNK))
    }

    /// The host of an upload, as failures are counted.
    fn host_at(&self, repository: &Repository, location: &Url) -> String {
        match self.remote.registries.is_at(repository, location) {
            true => repository.host().to_owned(),
            false => host_of(location),
        }
    }

    /// Begins an upload; `None` if a mount made it needless.
    fn begin(&self, blob: &Pushed<'_>) -> Result<Option<Session>, TargetError> {
        let request = |url| Request {
            payload: Some((Vec::new(), "application/octet-stream".into())),
            ..Request::new(Method::POST, blob.subject.as_str(), url)
        };
        let mounted = self.elsewhere(blob.repository, blob.digest).map(|from| {
            // Neither a digest nor a repository's name holds what a query must escape.
            let path = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
            let access = Access::Mount { from };
            self.remote.registries.ask(&self.remote.http, blob.repository, &access, &path, &request)
        });
        let answer = match mounted {
            Some(Ok(answer)) if answer.response.status() == StatusCode::CREATED => return Ok(None),
            // The registry does not mount this one, and has begun an upload instead.
            Some(Ok(answer)) if answer.response.status() == StatusCode::ACCEPTED => answer,
            // Not every registry mounts, and an account need not read everywhere.
            _ => self.ask(blob.repository, "blobs/uploads/", &request)?,
        };
        if answer.response.status() != StatusCode::ACCEPTED {
            return Err(self.refusal(answer).into());
        }
        let location = self.location(&answer).map_err(|why| {
            let why = format!("the registry does not say where to send it (no usable Location{why})");
            RemoteError::Unusable { subject: blob.subject.clone(), why }
        })?;
        let least = answer.header(MIN_LENGTH).and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        Ok(Some(Session { location, sent: 0, request: 0, least, resumed: false, renewed: false }))
    }

    /// Takes up an upload that failed, if the registry says how far it came.
    fn resume(&self, blob: &Pushed<'_>) -> Option<Session> {
        let left = lock(&self.unfinished).remove(&(blob.repository.to_string(), blob.digest))?;
        let Unfinished::Upload(session) = left else { return None };
        let asked = self.send_to(blob.repository, Method::GET, &session.location, &blob.subject);
        let known = asked.ok().filter(|answer| answer.response.status().is_success());
        let sent = known.as_ref().and_then(received).filter(|sent| *sent <= blob.size);
        let (Some(answer), Some(sent)) = (known, sent) else {
            self.cancel(blob.repository, session.location, &blob.subject);
            return None;
        };
        let location = self.location(&answer).unwrap_or(session.location);
        Some(Session { location, sent, resumed: true, renewed: false, ..session })
    }

    /// Sends what the registry lacks of a blob, and has it keep all of it.
    fn transfer(
        &self,
        blob: &Pushed<'_>,
        session: &mut Session,
        mut content: impl Read,
    ) -> Result<(), PushError> {
        let host = self.host_at(blob.repository, &session.location);
        let chunk = self.chunk(blob.repository.host(), session);
        if session.sent == 0 && chunk.is_none_or(|chunk| blob.size <= chunk) {
            session.request = blob.size;
            let upload = self.put(blob, session.location.clone(), blob.size)?;
            return self.kept(blob, session, send(upload, content)?);
        }
        skip(&mut content, session.sent).map_err(PushError::Source)?;
        while session.sent < blob.size {
            let length = chunk.unwrap_or(u64::MAX).min(blob.size - session.sent);
            session.request = length;
            self.patch(blob, session, content.by_ref().take(length))?;
            // What failed before does not count any more, but an upload that begins again and again gets no further.
            let mut furthest = lock(&self.furthest);
            let furthest = furthest.entry((blob.repository.to_string(), blob.digest)).or_default();
            if session.sent > *furthest {
                *furthest = session.sent;
                self.policy.succeeded(&host);
            }
        }
        // At its end the content says whether it was the right one.
        if io::copy(&mut content, &mut io::sink()).map_err(PushError::Source)? > 0 {
            let why = "there is more than there should be";
            return Err(PushError::Source(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        session.request = 0;
        let upload = self.put(blob, session.location.clone(), 0)?;
        self.kept(blob, session, upload.finish()?)
    }

    /// Sends one chunk.
    fn patch(&self, blob: &Pushed<'_>, session: &mut Session, chunk: impl Read) -> Result<(), PushError> {
        let end = session.sent + session.request;
        let request = Request {
            content_range: Some(session.sent..end),
            ..self.request_to(blob.repository, Method::PATCH, &session.location, &blob.subject)
        };
        let upload = self.remote.http.upload(request, session.request)?;
        let (answer, complete) = send(upload, chunk)?;
        if !answer.response.status().is_success() {
            return Err(self.refused(blob, session, answer).into());
        }
        let got = received(&answer).filter(|_| answer.header(RANGE.as_str()).is_some()).unwrap_or(end);
        if !complete || got != end {
            let (subject, host) = (blob.subject.clone(), answer.host());
            let why = format!("the registry has {got} of the {end} bytes that it was sent");
            return Err(RemoteError::Lost { subject, host, got, why }.into());
        }
        session.sent = end;
        if let Ok(location) = self.location(&answer) {
            session.location = location;
        }
        Ok(())
    }

    /// What the answer to the last request of an upload says.
    fn kept(
        &self,
        blob: &Pushed<'_>,
        session: &mut Session,
        (answer, complete): (Answer, bool),
    ) -> Result<(), PushError> {
        match answer.response.status() {
            StatusCode::CREATED if complete => Ok(()),
            // Whoever has not read it cannot have kept it.
            status if status.is_success() && !complete => {
                let why = "the registry says that it has it, before it was sent".into();
                Err(RemoteError::Unusable { subject: blob.subject.clone(), why }.into())
            }
            _ => Err(self.refused(blob, session, answer).into()),
        }
    }

    /// What a refusal of an upload means, after a new login if that is what the registry wants. At another host, to
    /// which the registry sends the upload, nobody can log in.
    fn refused(&self, blob: &Pushed<'_>, session: &mut Session, mut answer: Answer) -> RemoteError {
        let registries = &self.remote.registries;
        session.renewed = registries.renew(&self.remote.http, blob.repository, &answer);
        if !registries.is_at(blob.repository, answer.response.url()) {
            answer.asked = blob.repository.host().to_owned();
            answer.same_origin = false;
        }
        self.refusal(answer)
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

    /// Begins the request that ends an upload.
    fn put(&self, blob: &Pushed<'_>, mut location: Url, length: u64) -> Result<Upload, TargetError> {
        location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let request = self.request_to(blob.repository, Method::PUT, &location, &blob.subject);
        Ok(self.remote.http.upload(request, length)?)
    }

    /// Has the registry drop what it got of an upload that failed. Some keep it for a week, and a disk
    /// that is full would be fuller with every attempt. Nothing depends on what it answers.
    fn cancel(&self, repository: &Repository, location: Url, subject: &str) {
        let uploads = format!("/v2/{}/blobs/uploads/", repository.name());
        let ask = |method, url: Url| {
            // On a registry's word nothing is deleted at other hosts, nor what is no upload.
            let is_upload =
                self.remote.registries.is_at(repository, &url) && url.path().starts_with(&uploads);
            if is_upload { self.send_to(repository, method, &url, subject).ok() } else { None }
        };
        // distribution names another place for each state of an upload, and cancels only at the last.
        let last = ask(Method::GET, location.clone()).and_then(|answer| self.location(&answer).ok());
        ask(Method::DELETE, last.unwrap_or(location));
    }

    /// Asks once at a place that the registry named.
    fn send_to(
        &self,
        repository: &Repository,
        method: Method,
        url: &Url,
        subject: &str,
    ) -> Result<Answer, RemoteError> {
        self.remote.http.send(self.request_to(repository, method, url, subject))
    }

    /// A request to a place that the registry named. Credentials go to the registry itself only.
    fn request_to(&self, repository: &Repository, method: Method, url: &Url, subject: &str) -> Request {
        let registries = &self.remote.registries;
        let login = || registries.login_of(repository, &Access::Push);
        let authorization: Option<HeaderValue> =
            self.remote.registries.is_at(repository, url).then(login).flatten();
        let named_by = registries.origin_of(repository);
        Request { authorization, named_by, ..Request::new(method, subject, url.clone()) }
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

/// Reads so many bytes that the registry has already.
fn skip(content: &mut impl Read, count: u64) -> io::Result<()> {
    match io::copy(&mut content.by_ref().take(count), &mut io::sink())? {
        skipped if skipped == count => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// How many bytes of an upload a registry says that it has.
fn received(answer: &Answer) -> Option<u64> {
    let Some(range) = answer.header(RANGE.as_str()) else { return Some(0) };
    let (_, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    match last.parse::<u64>().ok()? {
        // So distribution says that it has nothing.
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// Whether the registry, or a proxy before it, does not take a request of this size.
fn is_too_large(error: &PushError) -> bool {
    matches!(error, PushError::Target(TargetError::Remote(RemoteError::Status { status: 413, .. })))
}
