//! Sends the body of a response chunk by chunk. If few bodies are being sent, the next chunk is read ahead.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::serve::http::site::Blob;

/// The minimum number of free permits at which bodies are read ahead.
const FEW: usize = BODIES / 2;

/// Receives the number of bytes that were sent, and the error of the server if there was one.
type OnEnd = Box<dyn FnOnce(u64, Option<String>) + Send>;

/// A body. When it is dropped, it reports how much of it was sent.
pub(crate) struct Sending {
    /// The blob, if there is more to read.
    blob: Option<Arc<dyn Blob>>,
    next: u64,
    end: u64,
    ready: Option<Bytes>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    sent: u64,
    /// The permit to be one of the bodies that are sent at once.
    permit: Option<Arc<OwnedSemaphorePermit>>,
    fault: Option<String>,
    on_end: Option<OnEnd>,
}

impl Sending {
    /// Returns a body of these bytes. `on_end` is called when it is dropped.
    pub(crate) fn of(bytes: Bytes, on_end: impl FnOnce(u64, Option<String>) + Send + 'static) -> Self {
        let end = bytes.len() as u64;
        Sending {
            blob: None,
            next: end,
            end,
            ready: Some(bytes).filter(|bytes| !bytes.is_empty()),
            reading: None,
            sent: 0,
            permit: None,
            fault: None,
            on_end: Some(Box::new(on_end)),
        }
    }

    /// Returns a body of a range of a blob. Its first bytes have already been read.
    pub(crate) fn from(
        blob: Arc<dyn Blob>,
        (begin, end): (u64, u64),
        first: Bytes,
        permit: OwnedSemaphorePermit,
        on_end: impl FnOnce(u64, Option<String>) + Send + 'static,
    ) -> Self {
        let permit = Arc::new(permit);
        let first = held(cut(first, end - begin), &permit);
        Sending {
            blob: Some(blob),
            next: begin + first.len() as u64,
            end,
            ready: Some(first),
            reading: None,
            sent: 0,
            permit: Some(permit),
            fault: None,
            on_end: Some(Box::new(on_end)),
        }
    }

    fn left(&self) -> u64 {
        self.end - self.next + self.ready.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}

/// Bytes that keep a permit. hyper drops a body when it has taken the last bytes, but these stay in memory until the
/// client reads them.
struct Held {
    bytes: Bytes,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns these bytes, which keep the permit as long as they are in memory.
pub(crate) fn held(bytes: Bytes, permit: &Arc<OwnedSemaphorePermit>) -> Bytes {
    Bytes::from_owner(Held { bytes, _permit: permit.clone() })
}

fn read(blob: &Arc<dyn Blob>, offset: u64) -> JoinHandle<io::Result<Bytes>> {
    let blob = blob.clone();
    tokio::task::spawn_blocking(move || blob.read(offset))
}

fn cut(mut bytes: Bytes, most: u64) -> Bytes {
    bytes.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    bytes
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.ready.is_none() {
            let Some(blob) = this.blob.as_ref().filter(|_| this.next < this.end) else {
                return Poll::Ready(None);
            };
            let next = this.next;
            let reading = this.reading.get_or_insert_with(|| read(blob, next));
            let read = ready!(Pin::new(reading).poll(context));
            this.reading = None;
            match read.map_err(io::Error::other).flatten() {
                Ok(bytes) if !bytes.is_empty() => {
                    let mut bytes = cut(bytes, this.end - this.next);
                    if let Some(permit) = &this.permit {
                        bytes = held(bytes, permit);
                    }
                    this.next += bytes.len() as u64;
                    this.ready = Some(bytes);
                }
                Ok(_) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                // The connection ends here, so that the client gets an incomplete layer and not a wrong one.
                Err(error) => {
                    this.fault = Some(error.to_string());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        let bytes = this.ready.take();
        // The next chunk is read and verified while this one is sent. With many bodies, others are sent meanwhile,
        // and one chunk of each in memory is enough.
        let few = this.permit.as_ref().is_some_and(|permit| permit.semaphore().available_permits() >= FEW);
        if let Some(blob) = this.blob.as_ref().filter(|_| few && this.next < this.end) {
            this.reading = Some(read(blob, this.next));
        }
        this.sent += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.sent, self.fault.take());
        }
    }
}

/// The maximum number of blobs that are sent at once, each with 1 or 2 chunks in memory.
/// Further ones wait.
pub(crate) const BODIES: usize = 100;
