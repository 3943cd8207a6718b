//! Fetches a blob from a registry: in parallel ranges if one stream is slower than this host, and resumes if
//! the connection fails.
//!
//! Delivers the bytes in order. Requests no byte twice, unless a server does not support ranges. Does not
//! compare the digest; the reader does.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue};
use reqwest::{StatusCode, Url};

use crate::digest::Digest;
use crate::remote::{
    Access, Answer, Body, Remote, RemoteError, Repository, Request, Retry, RetryPolicy, Retryable, Service,
    is_html,
};
use crate::source::error::SourceError;

/// The length of a range in bytes. It bounds memory together with [`AT_ONCE`]: a range that waits for its
/// turn is held in memory.
const PART: u64 = 2 << 20;
/// The number of parallel ranges.
const AT_ONCE: usize = 8;
/// The number of bytes that are fetched as one stream first. They show whether the network or this host is
/// slower.
const PROBE: u64 = 4 << 20;
/// The number of bytes without a failure after which earlier failures no longer count.
const WELL: u64 = 64 << 10;

/// A blob that is being fetched.
pub(super) struct Transfer<'n> {
    remote: &'n Remote,
    retry_policy: &'n RetryPolicy<'n>,
    repository: Repository,
    /// Further repositories that should have the same digest.
    others: VecDeque<Repository>,
    digest: Digest,
    size: u64,
    subject: String,
    /// The first byte that has not been returned yet.
    at: u64,
    /// The ranges that are being fetched, in the order of the bytes; the first holds the byte at `at`.
    parts: VecDeque<Part>,
    /// The end of the last range that was requested.
    asked: u64,
    /// The address that ranges are fetched from; `None` if the blob is fetched as one stream.
    place: Option<Place>,
    /// Whether ranges are requested; `false` after a wrong answer to a range request.
    knows_ranges: bool,
    pace: Pace,
    /// The number of bytes since the last failure.
    since: u64,
}

/// Whether parallel ranges are faster than one stream. They cost the server more and gain nothing on a fast
/// network.
enum Pace {
    /// The time spent waiting for data since the first byte.
    Unknown { since: Option<Instant>, waited: Duration },
    /// This host is slower than the network.
    OneStream,
    /// This host waits for the network most of the time.
    Ranges,
}

impl Pace {
    const NEW: Pace = Pace::Unknown { since: None, waited: Duration::ZERO };

    /// Records the time spent waiting for a piece.
    fn record(&mut self, waiting: Duration) {
        if let Pace::Unknown { since, waited } = self {
            match since {
                // The time to the first byte says nothing about the throughput.
                None => *since = Some(Instant::now()),
                Some(_) => *waited += waiting,
            }
        }
    }

    /// Decides after the first bytes.
    fn decide(&mut self) {
        #[cfg(test)]
        if matches!(self, Pace::Unknown { .. }) && FORCE_RANGES.get() {
            *self = Pace::Ranges;
            return;
        }
        if let Pace::Unknown { since: Some(since), waited } = *self {
            *self = if waited * 2 > since.elapsed() { Pace::Ranges } else { Pace::OneStream };
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Makes the transfers of this thread use ranges, regardless of the speed of the machine.
    pub(super) static FORCE_RANGES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A range that is being fetched.
struct Part {
    body: Body,
    /// The number of bytes to discard before the wanted ones.
    skip: u64,
    /// The next byte to receive.
    at: u64,
    end: u64,
    /// Whether it was requested in advance from the address of an earlier range. If the server at that
    /// address rejects it, the registry may still serve it.
    ahead: bool,
}

/// The address of a blob's bytes after all redirects.
#[derive(Clone)]
struct Place {
    url: Url,
    authorization: Option<HeaderValue>,
    etag: Option<HeaderValue>,
}

/// The answer of a registry.
enum Opened {
    Range(Answer),
    Complete(Answer),
}

impl<'n> Transfer<'n> {
    /// Begins to fetch a blob at its byte `at`.
    ///
    /// # Errors
    /// If every registry fails after all retries: the error of the last one; [`RemoteError::Deadline`] if the
    /// deadline has passed.
    pub(super) fn begin(
        remote: &'n Remote,
        retry_policy: &'n RetryPolicy<'n>,
        repositories: &[Repository],
        (digest, size): (Digest, u64),
        at: u64,
    ) -> Result<Self, SourceError> {
        let mut others: VecDeque<Repository> = repositories.iter().cloned().collect();
        let none = || RemoteError::Setup { why: "a blob without a repository".into() };
        let repository = others.pop_front().ok_or_else(none)?;
        let mut transfer = Transfer {
            remote,
            retry_policy,
            subject: format!("blob {digest} of {repository}"),
            repository,
            others,
            digest,
            size,
            at,
            parts: VecDeque::new(),
            asked: at,
            place: None,
            knows_ranges: true,
            pace: Pace::NEW,
            since: 0,
        };
        transfer.open()?;
        Ok(transfer)
    }

    /// The name of the blob for messages.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the next piece, never empty; `None` after the last.
    ///
    /// # Errors
    /// If every registry fails after all retries: the error of the last one, which is [`SourceError::Short`]
    /// if the blob ended early; [`RemoteError::Deadline`] if the deadline has passed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            self.retry_policy.check()?;
            if self.at >= self.size {
                return self.excess();
            }
            if self.parts.is_empty() {
                self.pace.decide();
                self.open()?;
            }
            self.look_ahead();
            let Some(part) = self.parts.front_mut() else { continue };
            let asked = Instant::now();
            let failure = match part.body.next() {
                Ok(Some(mut piece)) => {
                    self.pace.record(asked.elapsed());
                    if part.skip > 0 {
                        let skipped = part.skip.min(piece.len() as u64);
                        part.skip -= skipped;
                        drop(piece.split_to(skipped as usize));
                        if piece.is_empty() {
                            continue;
                        }
                    }
                    part.at += piece.len() as u64;
                    if part.at > part.end && part.end < self.size {
                        self.use_one_stream("it sent more bytes than requested");
                        continue;
                    }
                    self.at += piece.len() as u64;
                    self.since += piece.len() as u64;
                    if part.at == part.end && part.end < self.size {
                        self.parts.pop_front();
                    }
                    if self.since >= WELL {
                        self.retry_policy.succeeded(self.repository.host());
                        self.since = 0;
                    }
                    return Ok(Some(piece));
                }
                Ok(None) => {
                    let subject = self.subject.clone();
                    SourceError::Short { subject, wanted: self.size, got: self.at }
                }
                Err(error) => error.into(),
            };
            let ahead = part.ahead;
            let end = part.end;
            self.parts.pop_front();
            if !ahead || failure.retry() != Retry::Never {
                self.record_failure(failure)?;
            }
            self.fill(end)?;
        }
    }

    /// Returns any bytes after the expected end.
    fn excess(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(mut part) = self.parts.pop_front() else { return Ok(None) };
        // All bytes have arrived, and the reader compares their digest: a failure of the connection
        // no longer matters.
        Ok(part.body.next().unwrap_or(None))
    }

    /// Records a failure. If the retries of this source are used up, resumes from the next.
    fn record_failure(&mut self, failure: SourceError) -> Result<(), SourceError> {
        self.since = 0;
        let Err(error) = self.retry_policy.failed(self.repository.host(), failure) else { return Ok(()) };
        self.switch_source(error)
    }

    fn switch_source(&mut self, error: SourceError) -> Result<(), SourceError> {
        if matches!(error, SourceError::Remote(RemoteError::Deadline { .. })) {
            return Err(error);
        }
        let Some(next) = self.others.pop_front() else { return Err(error) };
        self.retry_policy.info(&format!("{error}; resuming from {next}"));
        self.subject = format!("blob {} of {next}", self.digest);
        self.repository = next;
        self.place = None;
        self.knows_ranges = true;
        self.pace = Pace::NEW;
        self.parts.clear();
        self.asked = self.at;
        Ok(())
    }

    /// Switches to one stream, because an answer was not the requested range.
    fn use_one_stream(&mut self, why: &str) {
        let host = self.repository.host();
        self.retry_policy.info(&format!(
            "{host} does not answer range requests correctly ({why}); resuming with a single stream"
        ));
        self.knows_ranges = false;
        self.place = None;
        self.parts.clear();
        self.asked = self.at;
    }

    /// Requests the next bytes when no request is running.
    fn open(&mut self) -> Result<(), SourceError> {
        let length = match self.pace {
            Pace::Unknown { .. } => PROBE,
            Pace::Ranges => PART,
            Pace::OneStream => self.size,
        };
        let end = self.at.saturating_add(length).min(self.size);
        self.fill(if self.knows_ranges { end } else { self.size })
    }

    /// Requests the bytes from `at` to `end` from the registry, and puts them before all other ranges.
    fn fill(&mut self, end: u64) -> Result<(), SourceError> {
        let answer = match self.retry_policy.retry_contact(self.repository.host(), || self.ask(end)) {
            Ok(Opened::Complete(answer)) => {
                return self.take_all(answer).or_else(|error| {
                    self.switch_source(error)?;
                    self.open()
                });
            }
            Ok(Opened::Range(answer)) => answer,
            Err(error) => {
                self.switch_source(error)?;
                return self.open();
            }
        };
        let etag = self.place.as_ref().and_then(|place| place.etag.as_ref());
        if let Err(why) = is_range(&answer, &(self.at..end), self.size, etag) {
            self.use_one_stream(&why);
            return self.fill(self.size);
        }
        if end < self.size {
            let login = self.remote.registries.login_of(&self.repository, &Access::Pull);
            let authorization = login.filter(|_| answer.same_origin);
            let etag = answer.response.headers().get(ETAG).cloned();
            self.place = Some(Place { url: answer.response.url().clone(), authorization, etag });
        }
        let (at, body) = (self.at, self.remote.http.stream(answer));
        self.parts.push_front(Part { body, skip: 0, at, end, ahead: false });
        self.asked = self.asked.max(end);
        Ok(())
    }

    /// Uses an answer that begins at the first byte.
    fn take_all(&mut self, answer: Answer) -> Result<(), SourceError> {
        if let Some(announced) = answer.response.content_length()
            && announced != self.size
        {
            return Err(SourceError::Length { subject: self.subject.clone(), wanted: self.size, announced });
        }
        let body = self.remote.http.stream(answer);
        self.parts.clear();
        self.place = None;
        self.asked = self.size;
        self.parts.push_front(Part { body, skip: self.at, at: self.at, end: self.size, ahead: false });
        Ok(())
    }

    /// Sends one request for the bytes from `at` to `end`, or for all of them.
    fn ask(&self, end: u64) -> Result<Opened, SourceError> {
        let all = self.at == 0 && end == self.size;
        let range = Some(self.at..end).filter(|_| self.knows_ranges && !all);
        let answer = self.request(range.clone())?;
        let answer = match answer.response.status() {
            // The server may reject ranges only: request the complete blob.
            StatusCode::BAD_REQUEST | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_IMPLEMENTED
                if range.is_some() =>
            {
                self.request(None)?
            }
            _ => answer,
        };
        let status = answer.response.status();
        let partial = status == StatusCode::PARTIAL_CONTENT && range.is_some();
        if status != StatusCode::OK && !partial {
            return Err(self.remote.http.refusal(answer, Service::Registry).into());
        }
        if is_html(answer.header(CONTENT_TYPE.as_str()), b"") {
            let (subject, host) = (self.subject.clone(), answer.host());
            return Err(RemoteError::Html { subject, host, service: Service::Registry }.into());
        }
        Ok(if partial { Opened::Range(answer) } else { Opened::Complete(answer) })
    }

    fn request(&self, range: Option<Range<u64>>) -> Result<Answer, RemoteError> {
        let request = |url| Request { range: range.clone(), ..Request::get(self.subject.as_str(), url) };
        let path = format!("blobs/{}", self.digest);
        let (remote, repository) = (self.remote, &self.repository);
        remote.registries.ask(&remote.http, repository, &Access::Pull, &path, &request)
    }

    /// Keeps several range requests running.
    fn look_ahead(&mut self) {
        let (Pace::Ranges, Some(place)) = (&self.pace, self.place.clone()) else { return };
        while self.parts.len() < AT_ONCE && self.asked < self.size {
            let range = self.asked..(self.asked + PART).min(self.size);
            let request = Request {
                range: Some(range.clone()),
                authorization: place.authorization.clone(),
                named_by: self.remote.registries.origin_of(&self.repository),
                ..Request::get(self.subject.as_str(), place.url.clone())
            };
            let (wanted, size, etag) = (range.clone(), self.size, place.etag.clone());
            let subject = self.subject.clone();
            let accept = move |answer: &Answer| {
                let status = answer.response.status();
                let good = match status {
                    StatusCode::PARTIAL_CONTENT => is_range(answer, &wanted, size, etag.as_ref()),
                    _ => Err(format!("status {}", status.as_u16())),
                };
                good.map_err(|why| RemoteError::Unusable { subject, why })
            };
            // If the client cannot be created, the next request to the registry reports it.
            let Ok(body) = self.remote.http.fetch(request, accept) else { return };
            self.parts.push_back(Part { body, skip: 0, at: range.start, end: range.end, ahead: true });
            self.asked = range.end;
        }
    }
}

/// Checks that an answer with status 206 is the requested range (RFC 9110, 15.3.7), of the same content as
/// before.
fn is_range(
    answer: &Answer,
    wanted: &Range<u64>,
    size: u64,
    etag: Option<&HeaderValue>,
) -> Result<(), String> {
    let promised = format!("bytes {}-{}/{size}", wanted.start, wanted.end - 1);
    let header = answer.header(CONTENT_RANGE.as_str()).unwrap_or("").trim();
    if !header.eq_ignore_ascii_case(&promised) {
        return Err(format!(
            "its Content-Range is {:?} instead of {promised:?}",
            crate::util::text::escape(header)
        ));
    }
    let length = wanted.end - wanted.start;
    if answer.response.content_length().is_some_and(|announced| announced != length) {
        return Err("its length differs from that of the range".into());
    }
    match (etag, answer.response.headers().get(ETAG)) {
        (Some(before), Some(now)) if before != now => Err("the blob changed on the server".into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_used_if_the_network_is_slower_than_this_host() {
        let decided = |waiting: &[Duration]| {
            let mut pace = Pace::NEW;
            waiting.iter().for_each(|waiting| pace.record(*waiting));
            pace.decide();
            pace
        };
        // Longer than any test runs.
        let (long, short) = (Duration::from_secs(24 * 3600), Duration::ZERO);
        assert!(matches!(decided(&[short, long]), Pace::Ranges));
        assert!(
            matches!(decided(&[long, short]), Pace::OneStream),
            "the time to the first byte says nothing about the throughput"
        );
        assert!(matches!(decided(&[]), Pace::Unknown { .. }));
    }
}
