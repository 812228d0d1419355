//! `Core`: the state that the handles of a connection share with its task, and that task.
//!
//! The task reads all streams of the peer into the inbox, drives the lanes, and observes the end of
//! the connection. A dropped `send` or `recv` has queued or taken nothing.

use crate::config::QuinnConfig;
use crate::handshake::lost;
use crate::lane::Lane;
use futures_util::future::{Either, join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use net_kit::admission::Place;
use net_kit::frame::FrameDecoder;
use net_kit::handshake::Handshake;
use net_kit::inbox::{Inbox, Received};
use net_kit::progress::Look;
use net_traits::{CloseReason, RecvError};
use quinn::{Connection, ReadError, RecvStream, VarInt};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::sleep;

/// The code that stops a stream on which the peer announced a message over the limit.
const MESSAGE_TOO_LARGE: VarInt = VarInt::from_u32(1);

/// The longest reason of a close, in bytes.
const MAX_REASON: usize = 511;

/// How often, and at which interval, the task looks whether a close was sent.
const FAREWELL: (u32, Duration) = (50, Duration::from_millis(1));

pub(crate) struct Core {
    pub(crate) config: Arc<QuinnConfig>,
    pub(crate) connection: Connection,
    inbox: Inbox,
    /// Of equal rank; at least one.
    lanes: Vec<Lane>,
    pub(crate) urgent: Lane,
    /// Read-locked while an answer is sent: the close of this side waits for it.
    pub(crate) answers: RwLock<()>,
    /// Wakes the streams that wait for room in the inbox.
    taken: Notify,
    end: watch::Sender<Option<CloseReason>>,
    /// Everything that arrived before the end is in the inbox.
    is_read: AtomicBool,
    is_aborted: AtomicBool,
    /// How many datagrams were sent before the close.
    sent_before: AtomicU64,
}

impl Core {
    pub(crate) fn new(config: Arc<QuinnConfig>, connection: Connection) -> Arc<Self> {
        let lane = || Lane::new(config.send_queue);
        Arc::new(Self {
            connection,
            inbox: Inbox::new(config.receive_queue),
            lanes: std::iter::repeat_with(lane).take(config.send_streams.max(1)).collect(),
            urgent: Lane::urgent(config.send_queue),
            answers: RwLock::default(),
            taken: Notify::new(),
            end: watch::Sender::default(),
            is_read: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            sent_before: AtomicU64::new(0),
            config,
        })
    }

    /// Returns the lane for the next message: that with the shortest queue.
    pub(crate) fn lane(&self) -> &Lane {
        match &*self.lanes {
            [only] => only,
            lanes => lanes.iter().min_by_key(|lane| lane.outbox.queued()).unwrap_or(&self.urgent),
        }
    }

    pub(crate) fn all_lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().chain([&self.urgent])
    }

    /// Observes how far `lanes` are. quinn sends data of streams while the peer takes them.
    pub(crate) fn progress<'a>(
        &'a self,
        lanes: impl Iterator<Item = &'a Lane>,
    ) -> impl FnMut() -> Look + Send + 'a {
        let lanes: Vec<_> = lanes.collect();
        let mut before = self.connection.stats().frame_tx.stream;
        move || {
            let done = lanes.iter().map(|lane| lane.outbox.look().done).sum();
            let sent = self.connection.stats().frame_tx.stream;
            Look { done, is_moving: std::mem::replace(&mut before, sent) != sent }
        }
    }

    /// Waits for the next message.
    pub(crate) async fn recv(&self) -> Received {
        let is_read = || self.is_read.load(Ordering::Acquire);
        let end = || is_read().then(|| self.end.borrow().clone()).flatten();
        let (received, resume) = self.inbox.recv(end).await;
        if resume {
            self.taken.notify_waiters();
        }
        received
    }

    /// Stops queueing; the task closes once the peer has acknowledged the queued messages. Returns
    /// false if already closing.
    pub(crate) fn close(&self, code: u64, reason: &str) -> bool {
        let first = self.all_lanes().filter(|lane| lane.outbox.close(code, reason)).count();
        if first > 0 {
            self.discard();
        }
        first > 0
    }

    /// Drops the queued messages and closes the connection, unless it is closed.
    pub(crate) fn abort(&self, code: u64, reason: &str) {
        self.discard();
        if self.connection.close_reason().is_some() || self.is_aborted.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.all_lanes().for_each(|lane| lane.outbox.abort(code, reason));
        let mut length = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(length) {
            length -= 1;
        }
        let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
        self.sent_before.store(self.sent(), Ordering::Release);
        self.connection.close(code, &reason.as_bytes()[..length]);
    }

    fn discard(&self) {
        self.inbox.discard();
        self.taken.notify_waiters();
    }

    fn end(&self, reason: CloseReason) {
        let reasons = self.all_lanes().map(|lane| lane.outbox.end(reason.clone()));
        let reason = reasons.last().unwrap_or(reason); // a local close takes precedence
        self.end.send_replace(Some(reason));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until the connection has ended.
    pub(crate) async fn over(&self) -> CloseReason {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or(CloseReason::TimedOut) // there is a reason, since the sender lives
    }

    /// Runs the connection until it has ended and everything that arrived was received.
    pub(crate) async fn drive(self: Arc<Self>, handshake: Handshake, _place: Option<Place>) {
        let ended = async {
            let error = self.connection.closed().await;
            if error == quinn::ConnectionError::LocallyClosed {
                self.farewell().await;
            }
            self.end(lost(&handshake, error));
        };
        let read = async {
            self.read_all().await;
            self.over().await;
            self.is_read.store(true, Ordering::Release);
            self.inbox.wake_all();
        };
        let write = async {
            join_all(self.all_lanes().map(|lane| lane.drive(&self.connection))).await;
            let _all_sent = self.answers.write().await;
            if let Some((code, reason)) = self.urgent.outbox.closing() {
                self.abort(code, &reason);
            }
        };
        let rest = pin!(async { tokio::join!(ended, read) });
        if let Either::Right(((), rest)) = select(rest, pin!(write)).await {
            rest.await;
        }
    }

    /// Reads all streams until the connection has ended.
    async fn read_all(&self) {
        let mut streams = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.connection.accept_uni() => match accepted {
                    Ok(stream) => streams.push(self.read(stream)),
                    Err(_) => break,
                },
                Some(()) = streams.next() => {}
            }
        }
        while streams.next().await.is_some() {}
    }

    /// Reads one stream into the inbox.
    async fn read(&self, mut stream: RecvStream) {
        let mut decoder = FrameDecoder::new(self.config.max_message_size);
        loop {
            self.room().await;
            let end = match stream.read_chunk(usize::MAX, true).await {
                Ok(Some(chunk)) => {
                    let mut data = &chunk.bytes[..];
                    loop {
                        self.room().await;
                        match decoder.decode(&mut data) {
                            Ok(None) => break,
                            Ok(Some(message)) => self.inbox.push_one(Ok(message)),
                            Err(error) => {
                                self.inbox.push_one(Err(error));
                                let _ = stream.stop(MESSAGE_TOO_LARGE); // it may have ended
                                return;
                            }
                        }
                    }
                    continue;
                }
                Ok(None) => decoder.truncated(),
                Err(ReadError::Reset(code)) => {
                    decoder.truncated().map(|_| RecvError::Reset { code: code.into_inner() })
                }
                Err(_) => None, // the end of the connection is reported
            };
            end.into_iter().for_each(|error| self.inbox.push_one(Err(error)));
            return;
        }
    }

    /// Waits until the inbox has room. Once this side closes there is always room, because received
    /// messages are discarded.
    async fn room(&self) {
        loop {
            let mut taken = pin!(self.taken.notified());
            taken.as_mut().enable();
            if self.inbox.room() > 0 {
                return;
            }
            taken.await;
        }
    }

    /// Waits until the close was sent: a program may end once `close` returns. quinn does not
    /// notify.
    async fn farewell(&self) {
        let (times, interval) = FAREWELL;
        for _ in 0..times {
            if self.sent() > self.sent_before.load(Ordering::Acquire) {
                break;
            }
            sleep(interval).await;
        }
    }

    /// Returns how many datagrams were sent.
    fn sent(&self) -> u64 {
        self.connection.stats().udp_tx.datagrams
    }
}
