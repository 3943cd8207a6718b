//! A request body that is written while it is sent.
//!
//! The caller writes to an `io::Write`; the network thread sends. At most 4 MiB wait to be sent.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::remote::connection::{self, Transport};
use crate::remote::error::{RemoteError, Unreachable};
use crate::remote::exchange::{Answer, Request, Timeouts, host_of};
use crate::remote::failure::failure;
use crate::remote::retry::Deadline;
use crate::remote::route::proxy::Proxies;
use crate::remote::runtime::Runtime;
use crate::remote::trace::Traced;

/// The maximum number of pieces that wait to be sent.
const AHEAD: usize = 16;
/// The maximum size of a piece in bytes.
const PIECE: usize = 256 << 10;

/// An answer, and whether the server had received the complete body before it.
type Sent = Result<(Answer, bool), RemoteError>;

/// A body that is being sent. If it is dropped before [`Upload::finish`], the connection breaks and the
/// server keeps nothing.
pub(crate) struct Upload {
    pieces: Option<mpsc::Sender<io::Result<Bytes>>>,
    answer: blocking::Receiver<Sent>,
    task: AbortHandle,
    /// Keeps the thread of the task alive.
    _runtime: Runtime,
}

impl Upload {
    pub(super) fn start(
        runtime: &Runtime,
        transport: Transport,
        timeouts: Timeouts,
        request: Request,
        length: u64,
        until: Option<Deadline>,
    ) -> Self {
        let (pieces, waiting) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
        let (sender, answer) = blocking::sync_channel(1);
        let consumed = Arc::new(Consumed::default());
        let mut headers = request.headers();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let traced = Traced::begin(&request);
        let (secrets, with_login) =
            (request.secrets(Proxies::of_environment()), request.authorization.is_some());
        let Request { subject, method, url, .. } = request;
        let body = StreamBody::new(counted(waiting, consumed.clone()));
        let exchange = connection::exchange(transport, method, url.clone(), headers, body.boxed_unsync());
        let task = runtime.handle().spawn(async move {
            let result = tokio::select! {
                sent = exchange => match sent {
                    Ok(answered) => {
                        let complete = answered.consumed && consumed.bytes.load(Ordering::Relaxed) == length;
                        Ok((Answer { with_login, secrets, ..Answer::of(subject, &url, answered.response) }, complete))
                    }
                    Err(error) => Err(failure(&*error, subject, &url)),
                },
                waited = stalled(&consumed, length, timeouts) => Err(RemoteError::Unreachable {
                    subject,
                    host: host_of(&url),
                    why: Unreachable::Timeout(waited),
                    proxy: Proxies::of_environment().used_for(&url),
                }),
                deadline = reached(until) => Err(match consumed.waits.load(Ordering::Relaxed) {
                    // The server waits for bytes from a slow source.
                    true => RemoteError::Deadline { deadline: deadline.given, host: None },
                    false => deadline.passed(host_of(&url)),
                }),
            };
            if let Some(traced) = traced {
                traced.end(result.as_ref().map(|(answer, _)| answer));
            }
            let _ = sender.send(result);
        });
        let task = task.abort_handle();
        Upload { pieces: Some(pieces), answer, task, _runtime: runtime.clone() }
    }

    /// Ends the body and waits for the server's answer with any status. Also returns whether the server had
    /// received all bytes before it answered.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] if the server stops reading or does not answer in time;
    /// [`RemoteError::Deadline`] if the deadline of the run passes; the error of the exchange if the connection
    /// breaks; [`RemoteError::Setup`] if the network thread has ended.
    pub(crate) fn finish(mut self) -> Sent {
        drop(self.pieces.take());
        self.answer
            .recv()
            .unwrap_or_else(|_| Err(RemoteError::Setup { why: "the network thread has ended".into() }))
    }

    /// Returns the server's answer after a failed write, which explains the failure.
    pub(crate) fn early_answer(self) -> Sent {
        // The body must not appear complete.
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

/// The progress of the connection.
#[derive(Default)]
struct Consumed {
    /// The number of bytes that the connection has consumed. The connection does not poll for the
    /// end of a body with a known length.
    bytes: AtomicU64,
    /// Whether it waits for more bytes.
    waits: AtomicBool,
}

/// Passes the pieces to the connection and counts them.
fn counted(
    waiting: mpsc::Receiver<io::Result<Bytes>>,
    consumed: Arc<Consumed>,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    stream::unfold((waiting, consumed), |(mut waiting, consumed)| async move {
        consumed.waits.store(true, Ordering::Relaxed);
        let piece = waiting.recv().await;
        if let Some(Ok(piece)) = &piece {
            consumed.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        consumed.waits.store(false, Ordering::Relaxed);
        Some((piece?.map(Frame::data), (waiting, consumed)))
    })
}

/// Ends at the deadline of the run, and returns it. Without a deadline, it does not end.
async fn reached(until: Option<Deadline>) -> Deadline {
    let Some(deadline) = until else { return std::future::pending().await };
    tokio::time::sleep_until(deadline.at.into()).await;
    deadline
}

/// Ends when no byte has been sent for too long, and returns that time. Waiting for the writer does not
/// count: the source, or another registry that receives the same bytes, may be slow.
async fn stalled(consumed: &Consumed, length: u64, timeouts: Timeouts) -> Duration {
    let look_every =
        (timeouts.stall.min(timeouts.store) / 8).clamp(Duration::from_millis(1), Duration::from_secs(5));
    let (mut last, mut since) = (0, tokio::time::Instant::now());
    loop {
        tokio::time::sleep(look_every).await;
        let now = consumed.bytes.load(Ordering::Relaxed);
        if now != last || consumed.waits.load(Ordering::Relaxed) {
            (last, since) = (now, tokio::time::Instant::now());
            continue;
        }
        let limit = if now == length { timeouts.store } else { timeouts.stall };
        if since.elapsed() >= limit {
            return limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::task::{Context, Waker};

    use reqwest::{Method, Url};

    use super::*;
    use crate::remote::Http;
    use crate::remote::tls::TlsOptions;
    use crate::util::seed::rounds;

    /// Runs a future that needs a clock.
    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_slow_writer_is_not_a_stall() {
        let consumed = Arc::new(Consumed::default());
        let (pieces, waiting) = mpsc::channel(1);
        let mut body = Box::pin(counted(waiting, consumed.clone()));
        let state = || (consumed.bytes.load(Ordering::Relaxed), consumed.waits.load(Ordering::Relaxed));
        run(async {
            let mut context = Context::from_waker(Waker::noop());
            assert!(body.as_mut().poll_next(&mut context).is_pending());
            assert_eq!(state(), (0, true), "the connection waits for the writer");
            let (soon, long) = (Duration::from_millis(1), Duration::from_millis(50));
            let timeouts = Timeouts { stall: soon, ..Timeouts::default() };
            assert!(tokio::time::timeout(long, stalled(&consumed, 4, timeouts)).await.is_err(), "no stall");
            pieces.try_send(Ok(Bytes::from_static(b"ab"))).unwrap();
            assert!(body.as_mut().poll_next(&mut context).is_ready());
            assert_eq!(state(), (2, false));
            assert_eq!(stalled(&consumed, 4, timeouts).await, soon, "now the server reads nothing more");
            let timeouts = Timeouts { store: soon, ..Timeouts::default() };
            assert_eq!(stalled(&consumed, 2, timeouts).await, soon, "the server does not store the bytes");
        });
    }

    /// The way in which a server closes the connection after it has read the head of a request, but
    /// not its body.
    #[derive(Debug, Clone, Copy)]
    enum Closes {
        /// Closes it with unread bytes in its buffer: the system resets the connection.
        Unread,
        /// Closes it immediately: the system answers later bytes with a reset.
        AtOnce,
        /// Closes its own direction only.
        Half,
    }

    /// Answers each request after its head, and closes the connection.
    fn server(status: u16, closes: Closes) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    head.push(byte[0]);
                }
                if matches!(closes, Closes::Unread) {
                    let _ = stream.peek(&mut byte);
                }
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
                if matches!(closes, Closes::Half) {
                    let _ = stream.shutdown(std::net::Shutdown::Write);
                    let _ = io::copy(&mut stream, &mut io::sink());
                }
            }
        });
        url
    }

    /// A length in bytes that exceeds the buffers of both sides.
    const LARGE: usize = 16 << 20;

    #[test]
    fn an_answer_before_the_end_of_the_body_is_returned() {
        let http = Http::new(TlsOptions::default()).unwrap();
        for closes in [Closes::Unread, Closes::AtOnce, Closes::Half] {
            for status in [201, 403, 413] {
                let url = server(status, closes);
                for method in [Method::PUT, Method::POST, Method::PATCH] {
                    for _ in 0..rounds(5) {
                        let request = Request::new(method.clone(), "x", url.clone());
                        let mut upload = http.upload(request, LARGE as u64).unwrap();
                        let written = (0..LARGE / PIECE).try_for_each(|_| upload.write_all(&[7; PIECE]));
                        let answer = if written.is_ok() { upload.finish() } else { upload.early_answer() };
                        let (answer, complete) =
                            answer.unwrap_or_else(|error| panic!("{closes:?} {method}: {error}"));
                        assert_eq!(answer.response.status(), status, "{closes:?} {method}");
                        // A server that keeps reading after its answer may have received everything.
                        assert!(!complete || matches!(closes, Closes::Half), "{closes:?} {method}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_early_answer_to_a_payload_in_memory_is_returned() {
        let http = Http::new(TlsOptions::default()).unwrap();
        for closes in [Closes::Unread, Closes::AtOnce, Closes::Half] {
            let url = server(413, closes);
            for method in [Method::PUT, Method::POST, Method::PATCH] {
                for size in [1, 4 << 20] {
                    for _ in 0..rounds(5) {
                        let payload = Some((vec![7; size], "application/json".to_owned()));
                        let request = Request { payload, ..Request::new(method.clone(), "x", url.clone()) };
                        let answer =
                            http.send(request).unwrap_or_else(|error| panic!("{closes:?} {method}: {error}"));
                        assert_eq!(answer.response.status(), 413, "{closes:?} {method} {size}");
                    }
                }
            }
        }
    }
}
