//! A request body that is written while it is sent.
//!
//! The writing end is `io::Write` for the blocking rest of the program; sending is done on the
//! network's thread. At most a few MiB are under way.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as blocking;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Client;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::error::{RemoteError, Unreachable};
use super::http::{Answer, Request, Timeouts, failure, host_of};
use super::runtime::Runtime;

/// The pieces that may wait to be sent.
const AHEAD: usize = 16;
/// The largest piece, in bytes.
const PIECE: usize = 256 << 10;
/// How long a server may take to store what it has received whole: it hashes all of it, and some
/// copy it to another place.
const STORING: Duration = Duration::from_secs(300);

type Sent = Result<Answer, RemoteError>;

/// A body under way. Dropped before [`Upload::finish`], it breaks the connection, so that the
/// server keeps nothing.
pub(crate) struct Upload {
    pieces: Option<mpsc::Sender<io::Result<Bytes>>>,
    answer: blocking::Receiver<Sent>,
    task: AbortHandle,
    /// Keeps the thread alive on which the task runs.
    _runtime: Runtime,
}

impl Upload {
    pub(super) fn start(
        runtime: &Runtime,
        client: &Client,
        timeouts: Timeouts,
        request: Request,
        length: u64,
    ) -> Self {
        let (pieces, waiting) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
        let (sender, answer) = blocking::sync_channel(1);
        let taken = Arc::new(Taken::default());
        let mut headers = request.headers();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let Request { subject, method, url, .. } = request;
        let body = reqwest::Body::wrap_stream(stream::unfold(
            (waiting, taken.clone()),
            |(mut waiting, taken)| async move {
                taken.waits.store(true, Ordering::Relaxed);
                let piece = waiting.recv().await;
                match &piece {
                    Some(_) => drop(taken.pieces.fetch_add(1, Ordering::Relaxed)),
                    None => taken.pieces.store(u64::MAX, Ordering::Relaxed),
                }
                taken.waits.store(false, Ordering::Relaxed);
                Some((piece?, (waiting, taken)))
            },
        ));
        let exchange = client.request(method, url.clone()).headers(headers).body(body).send();
        let task = runtime.handle().spawn(async move {
            let result = tokio::select! {
                sent = exchange => match sent {
                    Ok(response) => Ok(Answer::of(subject, &url, response)),
                    Err(error) => Err(failure(error, subject, &url)),
                },
                seconds = stalled(&taken, timeouts.stall) => Err(RemoteError::Unreachable {
                    subject,
                    host: host_of(&url),
                    why: Unreachable::Timeout(seconds),
                }),
            };
            let _ = sender.send(result);
        });
        let task = task.abort_handle();
        Upload { pieces: Some(pieces), answer, task, _runtime: runtime.clone() }
    }

    /// All bytes are written: waits for the server's answer, whatever its status.
    ///
    /// # Errors
    /// Where the connection broke or the server did not answer in time.
    pub(crate) fn finish(mut self) -> Sent {
        drop(self.pieces.take());
        self.answer
            .recv()
            .unwrap_or_else(|_| Err(RemoteError::Setup { why: "the network thread has ended".into() }))
    }

    /// What the server said before it had everything; where writing has failed, this is why.
    pub(crate) fn refused(self) -> Sent {
        // Not as if the body were complete.
        if let Some(pieces) = &self.pieces {
            let _ = pieces.try_send(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.finish()
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let Some(pieces) = &self.pieces else { return Err(io::ErrorKind::BrokenPipe.into()) };
        pieces
            .blocking_send(Ok(Bytes::copy_from_slice(piece)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far the connection is.
#[derive(Default)]
struct Taken {
    /// The pieces that it has taken; `u64::MAX` once it has taken all.
    pieces: AtomicU64,
    /// It would take more, were there any.
    waits: AtomicBool,
}

/// Ends when nothing has moved for too long, with the seconds that this was. To wait for the writer is
/// no stall: that may be a slow source, or another registry that gets the same bytes.
async fn stalled(taken: &Taken, stall: Duration) -> u64 {
    let mut last = 0;
    loop {
        let storing = last == u64::MAX;
        let patience = if storing { STORING } else { stall };
        tokio::time::sleep(patience).await;
        let now = taken.pieces.load(Ordering::Relaxed);
        if now == last && !taken.waits.load(Ordering::Relaxed) {
            return patience.as_secs();
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use reqwest::Method;

    use super::*;
    use crate::remote::Http;

    #[test]
    fn a_writer_that_is_slow_is_no_stall() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
            while !seen.ends_with(b"abcd") {
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "broken off after {}", String::from_utf8_lossy(&seen));
                seen.extend_from_slice(&piece[..count]);
            }
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let mut http = Http::new(Vec::new(), None, false).unwrap();
        http.timeouts.stall = Duration::from_millis(100);
        let mut upload = http.upload(Request::new(Method::PUT, "x", url), 4).unwrap();
        upload.write_all(b"ab").unwrap();
        std::thread::sleep(Duration::from_millis(500));
        upload.write_all(b"cd").unwrap();
        assert_eq!(upload.finish().unwrap().response.status(), 201);
        server.join().unwrap();
    }
}
