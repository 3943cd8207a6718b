//! The body of an HTTP answer. The network thread reads it, and a blocking reader gets the pieces.
//!
//! This module verifies neither the length nor the digest of a body. The reader does.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::remote::error::RemoteError;
use crate::remote::exchange::innermost;
use crate::remote::retry::Deadline;
use crate::remote::runtime::Runtime;

/// The maximum number of bytes that wait for the reader.
const AHEAD: usize = 4 << 20;
/// The overhead of a piece in bytes. It limits memory if a body arrives in tiny pieces.
const PER_PIECE: usize = 512;
/// The minimum rate in bytes per second of waiting. A lower rate is a stall, not a slow network.
const LEAST_RATE: u128 = 1024;

/// The room that a piece needs.
fn room_for(piece: &Bytes) -> usize {
    (piece.len() + PER_PIECE).min(AHEAD)
}

enum Message {
    Piece(Bytes),
    End,
    Failed(RemoteError),
}

/// A body that is being received. Dropping it ends the transfer.
pub(crate) struct Body {
    messages: Receiver<Message>,
    room: Arc<Semaphore>,
    /// The room that the last returned piece occupies.
    held: usize,
    task: AbortHandle,
    subject: String,
    host: String,
    got: u64,
    ended: bool,
    until: Option<Deadline>,
    /// Keeps the thread of the task alive.
    _runtime: Runtime,
}

impl Body {
    /// Begins to read the body of an answer, which may still be pending.
    pub(super) fn start(
        runtime: &Runtime,
        stall: Duration,
        until: Option<Deadline>,
        subject: String,
        host: String,
        answer: impl Future<Output = Result<reqwest::Response, RemoteError>> + Send + 'static,
    ) -> Self {
        let (sender, messages) = mpsc::channel();
        let room = Arc::new(Semaphore::new(AHEAD));
        let pump = Pump { stall, subject: subject.clone(), host: host.clone(), room: room.clone() };
        let task = runtime.handle().spawn(async move {
            match answer.await {
                Ok(response) => pump.run(response, sender).await,
                Err(error) => drop(sender.send(Message::Failed(error))),
            }
        });
        let task = task.abort_handle();
        Body {
            messages,
            room,
            held: 0,
            task,
            subject,
            host,
            got: 0,
            ended: false,
            until,
            _runtime: runtime.clone(),
        }
    }

    /// Returns the next piece, never empty; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        self.room.add_permits(std::mem::take(&mut self.held));
        if self.ended {
            return Ok(None);
        }
        let received = match self.until {
            None => self.messages.recv().map_err(|_| self.lost()),
            Some(deadline) => {
                let left = deadline.at.saturating_duration_since(Instant::now());
                self.messages.recv_timeout(left).map_err(|error| match error {
                    RecvTimeoutError::Timeout => deadline.passed(self.host.clone()),
                    RecvTimeoutError::Disconnected => self.lost(),
                })
            }
        };
        match received? {
            Message::Piece(piece) => {
                self.held = room_for(&piece);
                self.got += piece.len() as u64;
                Ok(Some(piece))
            }
            Message::End => {
                self.ended = true;
                Ok(None)
            }
            Message::Failed(error) => Err(error),
        }
    }

    /// Creates the error of a network thread that has ended.
    fn lost(&self) -> RemoteError {
        let (subject, host) = (self.subject.clone(), self.host.clone());
        RemoteError::Lost { subject, host, got: self.got, why: "the transfer has ended".into() }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task on the network thread.
struct Pump {
    stall: Duration,
    subject: String,
    host: String,
    room: Arc<Semaphore>,
}

impl Pump {
    async fn run(self, mut response: reqwest::Response, sender: mpsc::Sender<Message>) {
        let Pump { stall, subject, host, room } = self;
        let mut got = 0u64;
        // Bytes and waiting time since the last check of the rate.
        let (mut came, mut waited) = (0, Duration::ZERO);
        let least = LEAST_RATE * stall.as_millis() / 1000;
        loop {
            let began = tokio::time::Instant::now();
            let next = tokio::time::timeout(stall, response.chunk()).await;
            waited += began.elapsed();
            let message = match next {
                Ok(Ok(Some(piece))) if piece.is_empty() => continue,
                Ok(Ok(Some(piece))) if waited >= stall && came + (piece.len() as u128) < least => {
                    got += piece.len() as u64;
                    Message::Failed(RemoteError::Stalled { subject, host, got, stall })
                }
                Ok(Ok(Some(piece))) => {
                    got += piece.len() as u64;
                    came += piece.len() as u128;
                    if waited >= stall {
                        (came, waited) = (0, Duration::ZERO);
                    }
                    let size = u32::try_from(room_for(&piece)).unwrap_or(u32::MAX);
                    // Waiting for the reader does not count as a stall.
                    match room.acquire_many(size).await {
                        Ok(permit) => permit.forget(),
                        Err(_) => return,
                    }
                    if sender.send(Message::Piece(piece)).is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Ok(None)) => Message::End,
                Ok(Err(error)) => {
                    Message::Failed(RemoteError::Lost { subject, host, got, why: innermost(&error) })
                }
                Err(_) => Message::Failed(RemoteError::Stalled { subject, host, got, stall }),
            };
            let _ = sender.send(message);
            return;
        }
    }
}
