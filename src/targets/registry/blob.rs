//! Uploads a blob in one request, or in chunks if the registry or a proxy rejects a request of that size. An
//! interrupted upload is resumed if the registry reports its offset (distribution specification v1.1, "Pushing blobs").
//!
//! An upload is completed only after the content was read to its end without an error. The module does not depend
//! on the source of the content.

use std::io::{self, Read, Write};
use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use crate::digest::Digest;
use crate::remote::{
    Access, Answer, RemoteError, Repository, Request, Retry, Retryable, Upload, behind_tls, host_of,
};
use crate::targets::compat::Compat;
use crate::targets::error::TargetError;
use crate::targets::registry::client::{BlobContent, BlobState, PushError, PushOutcome, Registry};
use crate::targets::registry::session::{Session, Unfinished};
use crate::util::pipe::CHUNK;
use crate::util::redacted::Redacted;
use crate::util::text::format_size;
use crate::util::threads::lock;

/// The smallest chunk in bytes.
pub const LEAST_CHUNK: u64 = 1 << 20;
/// The sizes of chunks in bytes for a host that rejects larger requests. CDNs accept 100 MB, and nginx accepts 1 MiB by
/// default.
const CHUNK_SIZES: [u64; 4] = [64 << 20, 16 << 20, 4 << 20, LEAST_CHUNK];
/// The header with the smallest chunk that a registry accepts, except for the last one.
const MIN_LENGTH: &str = "oci-chunk-min-length";

/// A blob and its repository.
struct Pushed<'p> {
    repository: &'p Repository,
    digest: Digest,
    size: u64,
    subject: String,
}

impl Registry<'_> {
    /// Pushes a blob if the repository does not have it. `content` is read only if it has to be sent. It is read to its
    /// end, where it reports wrong bytes, before the upload is completed. It is opened again if the upload is retried.
    ///
    /// # Errors
    /// [`PushError::Source`] if `content` fails; [`TargetError::DamagedBlob`] if the registry keeps a damaged blob;
    /// [`TargetError::UploadAddress`] if it redirects the upload to an address that cannot be
    /// reached; [`TargetError::Remote`] if it cannot be reached, rejects the upload, or claims to
    /// have it before it was sent.
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

    /// Pushes the configuration that the manifests of [`Compat`] refer to.
    ///
    /// # Errors
    /// [`TargetError::DamagedBlob`] if the registry keeps a damaged blob;
    /// [`TargetError::UploadAddress`] if it redirects the upload to an address that cannot be
    /// reached; [`TargetError::Remote`] if it cannot be reached, rejects the upload, or claims to
    /// have the blob before it was sent.
    pub(crate) fn push_compat_config(&self, repository: &Repository) -> Result<PushOutcome, PushError> {
        let (digest, config) = Compat::config();
        self.push_blob(repository, digest, config.len() as u64, config)
    }

    /// Pushes a blob like [`Registry::push_blob`], with content that can be read only once. If it
    /// fails, call [`Registry::may_retry`].
    ///
    /// # Errors
    /// On the first failure: [`PushError::Source`] if `content` fails; [`TargetError::DamagedBlob`]
    /// if the registry keeps a damaged blob; [`TargetError::Remote`] if it cannot be reached,
    /// rejects the upload, or claims to have the blob before it was sent.
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
        // Many registries do not check the blob that they have under a digest, and discard the
        // upload.
        if held == BlobState::Damaged && self.look(repository, digest, size)? == BlobState::Damaged {
            return Err(TargetError::DamagedBlob { blob: blob.subject, size }.into());
        }
        self.policy.succeeded(repository.host());
        self.remember(repository, digest);
        Ok(PushOutcome::Sent)
    }

    /// Waits after a failed push of a blob until it may be retried.
    ///
    /// # Errors
    /// The given error, if another attempt cannot help or there were too many attempts;
    /// [`TargetError::UploadAddress`] in its place if the registry redirects the upload to an
    /// address that cannot be reached; [`RemoteError::Deadline`] if the deadline has passed.
    pub(crate) fn may_retry(
        &self,
        repository: &Repository,
        digest: Digest,
        error: PushError,
    ) -> Result<(), PushError> {
        let key = (repository.to_string(), digest);
        let (host, request, least, renewed) = match lock(&self.unfinished).get(&key) {
            // Failures before the upload were retried already.
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
            // A request to cancel would not reach the host either.
            error if error.is_unreachable() => Err(error),
            error => {
                self.cancel(repository, session.location, &format!("blob {digest} of {repository}"));
                Err(error)
            }
        }
    }

    /// Keeps a failed upload for a retry, or cancels it.
    fn set_aside(&self, blob: &Pushed<'_>, session: Session, error: &PushError) {
        let key = (blob.repository.to_string(), blob.digest);
        let may_pass = error.retry() != Retry::Never || is_too_large(error) || session.renewed;
        if may_pass {
            lock(&self.unfinished).insert(key, Unfinished::Upload(session));
            return;
        }
        // The bytes of an earlier attempt may be the reason.
        if session.resumed && matches!(error, PushError::Target(_)) {
            lock(&self.unfinished).insert(key, Unfinished::Nothing);
        }
        self.cancel(blob.repository, session.location, &blob.subject);
    }

    /// Chooses smaller chunks for a registry after a rejected request. `host` rejected it: the registry, or the host that
    /// it sends uploads to. Returns `false` if there are no smaller chunks. Each call chooses a smaller size, so retries
    /// end.
    fn reduce(&self, registry: &str, host: &str, refused: u64, least: u64) -> bool {
        let mut chunks = lock(&self.chunks);
        // Another upload may have been rejected meanwhile.
        if chunks.get(registry).is_some_and(|chunk| (*chunk).max(least) < refused) {
            return true;
        }
        let Some(chunk) = CHUNK_SIZES.into_iter().find(|chunk| *chunk < refused && *chunk >= least) else {
            return false;
        };
        self.policy.info(&format!(
            "{host} rejects requests of {} (status 413); sending chunks of {}",
            format_size(refused),
            format_size(chunk)
        ));
        chunks.insert(registry.to_owned(), chunk);
        true
    }

    /// Returns the largest request for an upload; `None` for no limit.
    fn chunk(&self, registry: &str, session: &Session) -> Option<u64> {
        let chunk = lock(&self.chunks).get(registry).copied().or(self.chunk_size)?;
        Some(chunk.max(session.least).max(LEAST_CHUNK))
    }

    /// Returns the host of an upload, for which failures are counted.
    fn host_at(&self, repository: &Repository, location: &Url) -> String {
        match self.remote.registries.is_at(repository, location) {
            true => repository.host().to_owned(),
            false => host_of(location),
        }
    }

    /// Begins an upload; `None` if the blob was mounted instead.
    fn begin(&self, blob: &Pushed<'_>) -> Result<Option<Session>, TargetError> {
        let request = |url| Request {
            payload: Some((Vec::new(), "application/octet-stream".into())),
            ..Request::new(Method::POST, blob.subject.as_str(), url)
        };
        let mounted = self.elsewhere(blob.repository, blob.digest).map(|from| {
            // Digests and names of repositories contain no characters that must be escaped in a query.
            let path = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
            let access = Access::Mount { from };
            self.remote.registries.ask(&self.remote.http, blob.repository, &access, &path, &request)
        });
        let answer = match mounted {
            Some(Ok(answer)) if answer.response.status() == StatusCode::CREATED => return Ok(None),
            // The registry did not mount it, and began an upload instead.
            Some(Ok(answer)) if answer.response.status() == StatusCode::ACCEPTED => answer,
            // Some registries cannot mount, and the account may not read the other repository.
            _ => self.ask(blob.repository, "blobs/uploads/", &request)?,
        };
        if answer.response.status() != StatusCode::ACCEPTED {
            return Err(self.refusal(answer).into());
        }
        let location = self.location(&answer).map_err(|why| {
            let why = format!("the registry did not return a usable upload URL in Location{why}");
            RemoteError::Unusable { subject: blob.subject.clone(), why }
        })?;
        let least = answer.header(MIN_LENGTH).and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        Ok(Some(Session { location, sent: 0, request: 0, least, resumed: false, renewed: false }))
    }

    /// Resumes a failed upload, if the registry reports its offset.
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

    /// Sends the rest of a blob, and completes the upload.
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
            // Progress resets the count of failures, but only beyond the furthest offset so far: an upload that restarts
            // again and again makes no progress.
            let mut furthest = lock(&self.furthest);
            let furthest = furthest.entry((blob.repository.to_string(), blob.digest)).or_default();
            if session.sent > *furthest {
                *furthest = session.sent;
                self.policy.succeeded(&host);
            }
        }
        // The content reports wrong bytes only at its end.
        if io::copy(&mut content, &mut io::sink()).map_err(PushError::Source)? > 0 {
            let why = "it is longer than expected";
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
            let why = format!("the registry received {got} of {end} bytes");
            return Err(RemoteError::Lost { subject, host, got, why }.into());
        }
        session.sent = end;
        if let Ok(location) = self.location(&answer) {
            session.location = location;
        }
        Ok(())
    }

    /// Checks the answer to the last request of an upload.
    fn kept(
        &self,
        blob: &Pushed<'_>,
        session: &mut Session,
        (answer, complete): (Answer, bool),
    ) -> Result<(), PushError> {
        match answer.response.status() {
            StatusCode::CREATED if complete => Ok(()),
            // A registry that has not received all bytes cannot have stored them.
            status if status.is_success() && !complete => {
                let why = "the registry claims to have it before it was sent".into();
                Err(RemoteError::Unusable { subject: blob.subject.clone(), why }.into())
            }
            _ => Err(self.refused(blob, session, answer).into()),
        }
    }

    /// Returns the error for a rejected upload, after renewing the login if the registry asks for that. There is no login
    /// for another host that the registry sends the upload to.
    fn refused(&self, blob: &Pushed<'_>, session: &mut Session, mut answer: Answer) -> RemoteError {
        let registries = &self.remote.registries;
        session.renewed = registries.renew(&self.remote.http, blob.repository, &answer);
        if !registries.is_at(blob.repository, answer.response.url()) {
            answer.asked = blob.repository.host().to_owned();
            answer.same_origin = false;
        }
        self.refusal(answer)
    }

    /// Returns the URL for the next request of an upload. An error is the reason, with a leading colon, or empty if there
    /// is no `Location`.
    fn location(&self, answer: &Answer) -> Result<Url, String> {
        let asked = answer.response.url();
        // It may be relative to the requested URL (RFC 9110, 10.2.2).
        let named = answer.header(LOCATION.as_str()).ok_or_else(String::new)?;
        let location = asked.join(named).map_err(|_| ": it is not a URL".to_owned())?;
        let location = behind_tls(location, asked);
        match location.scheme() {
            "https" => Ok(location),
            scheme if scheme == asked.scheme() => Ok(location),
            "http" if self.remote.options.insecure => Ok(location),
            "http" => Err(format!(
                ": {} is plain HTTP although the registry uses HTTPS; a proxy in front of it may have to send X-Forwarded-Proto",
                Redacted::from(&location)
            )),
            _ => Err(format!(": {} is not an HTTP address", Redacted::from(&location))),
        }
    }

    /// Begins the request that completes an upload.
    fn put(&self, blob: &Pushed<'_>, mut location: Url, length: u64) -> Result<Upload, TargetError> {
        location.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let request = self.request_to(blob.repository, Method::PUT, &location, &blob.subject);
        Ok(self.remote.http.upload(request, length)?)
    }

    /// Cancels a failed upload. Some registries keep the received bytes for 7 days, so retries would fill the disk. The
    /// answer is ignored.
    fn cancel(&self, repository: &Repository, location: Url, subject: &str) {
        let uploads = format!("/v2/{}/blobs/uploads/", repository.name());
        let ask = |method, url: Url| {
            // A registry must not make this program delete anything at other hosts, or anything except uploads.
            let is_upload =
                self.remote.registries.is_at(repository, &url) && url.path().starts_with(&uploads);
            if is_upload { self.send_to(repository, method, &url, subject).ok() } else { None }
        };
        // distribution has a different URL for each state of an upload, and cancels only at the latest one.
        let last = ask(Method::GET, location.clone()).and_then(|answer| self.location(&answer).ok());
        ask(Method::DELETE, last.unwrap_or(location));
    }

    /// Sends one request to a URL that the registry named.
    fn send_to(
        &self,
        repository: &Repository,
        method: Method,
        url: &Url,
        subject: &str,
    ) -> Result<Answer, RemoteError> {
        self.remote.http.send(self.request_to(repository, method, url, subject))
    }

    /// Creates a request to a URL that the registry named. Credentials are sent only to the registry itself.
    fn request_to(&self, repository: &Repository, method: Method, url: &Url, subject: &str) -> Request {
        let registries = &self.remote.registries;
        let login = || registries.login_of(repository, &Access::Push);
        let authorization: Option<HeaderValue> =
            self.remote.registries.is_at(repository, url).then(login).flatten();
        let named_by = registries.origin_of(repository);
        Request { authorization, named_by, ..Request::new(method, subject, url.clone()) }
    }
}

/// Sends the content. Returns the answer, and whether all bytes were sent. The last piece is sent only after the
/// content ended without an error.
fn send(mut upload: Upload, mut content: impl Read) -> Result<(Answer, bool), PushError> {
    let (mut held, mut next) = (Vec::new(), vec![0; CHUNK]);
    loop {
        // Dropping the upload on an error closes the connection, so the registry does not store the blob.
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

/// Skips the bytes that the registry has already.
fn skip(content: &mut impl Read, count: u64) -> io::Result<()> {
    match io::copy(&mut content.by_ref().take(count), &mut io::sink())? {
        skipped if skipped == count => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Returns the number of bytes of an upload that the registry has according to its answer.
fn received(answer: &Answer) -> Option<u64> {
    let Some(range) = answer.header(RANGE.as_str()) else { return Some(0) };
    let (_, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    match last.parse::<u64>().ok()? {
        // distribution reports 0 if it has no bytes.
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// Whether the registry, or a proxy in front of it, rejected a request because of its size.
fn is_too_large(error: &PushError) -> bool {
    matches!(error, PushError::Target(TargetError::Remote(RemoteError::Status { status: 413, .. })))
}
