//! `Lane`: a stream that sends messages, opened on demand and replaced when the peer stops it.

use crate::frame_sink::STREAM_CODE_MESSAGE_TOO_LARGE;
use bytes::Bytes;
use futures_util::FutureExt;
use msquic_async::Connection;
use msquic_async::StreamStartError;
use msquic_async::{StreamType, WriteError, WriteStream};
use net_kit::frame::HEADER;
use net_kit::loss_reports::LossReports;
use net_kit::progress::{Progress, Snapshot, Stuck, Timeouts};
use net_kit::receipts::Receipts;
use net_traits::{Cause, SendError};
use parking_lot::Mutex;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;

/// The priority of streams for urgent messages, above the default of 0x7fff.
const URGENT: u16 = u16::MAX;

pub(crate) struct Lane {
    slot: Mutex<Slot>,
    /// How many messages, and bytes, were lost with streams that the peer stopped.
    lost: Mutex<(u64, u64)>,
    /// The losses of all lanes, to be reported.
    loss_reports: Arc<LossReports>,
    /// `None` if the peer's version has no receipts.
    receipts: Option<Arc<Receipts>>,
    /// Held by the task that opens the stream.
    opening: tokio::sync::Mutex<()>,
    /// A task [prepares](Self::wants_preparation) the stream.
    is_preparing: AtomicBool,
    /// Wakes senders that wait for room: no more messages are sent.
    closed: Notify,
    is_urgent: bool,
}

enum Slot {
    Empty,
    Open(Arc<WriteStream>),
    /// No more messages are sent. The stream is kept, because a dropped stream is reset.
    Closed(Option<Arc<WriteStream>>),
}

/// Why a message was not queued.
pub(crate) enum QueueError {
    WouldBlock,
    /// The peer made no progress for this time, or the operation did not end within it.
    TimedOut(Duration),
    Stopped(u64),
    /// The connection has ended.
    Connection,
    /// This side is closing.
    Closed,
    Other(Cause),
}

impl Lane {
    pub(crate) fn new(
        loss_reports: &Arc<LossReports>,
        receipts: Option<Arc<Receipts>>,
        is_urgent: bool,
    ) -> Self {
        Self {
            slot: Mutex::new(Slot::Empty),
            lost: Mutex::default(),
            loss_reports: loss_reports.clone(),
            receipts,
            opening: tokio::sync::Mutex::default(),
            is_preparing: AtomicBool::new(false),
            closed: Notify::new(),
            is_urgent,
        }
    }

    /// Returns the number of queued bytes.
    pub(crate) fn pending_bytes(&self) -> u64 {
        match &*self.slot.lock() {
            Slot::Open(open) => open.pending_bytes(),
            Slot::Empty | Slot::Closed(_) => 0,
        }
    }

    /// Queues one frame completely or not at all, and returns its stream.
    pub(crate) async fn send(
        &self,
        connection: &Connection,
        header: &[u8],
        parts: &[Bytes],
        timeouts: impl FnOnce() -> Timeouts,
    ) -> Result<Arc<WriteStream>, QueueError> {
        match self.try_send(header, parts) {
            Err(QueueError::WouldBlock) => {}
            result => return result,
        }
        let timeouts = timeouts(); // reads the clock, which takes as long as the rest
        let header = Bytes::copy_from_slice(header);
        let frame: Vec<_> = std::iter::once(header).chain(parts.iter().cloned()).collect();
        loop {
            let closed = self.closed.notified(); // before `acquire` checks whether it is closed
            let open = self.acquire(connection, timeouts).await?;
            let enqueue = open.enqueue(&frame);
            let enqueued = tokio::select! {
                biased;
                () = closed => return Err(QueueError::Closed),
                enqueued = unless_stuck(connection, &open, timeouts, enqueue) => enqueued?,
            };
            match enqueued {
                Ok(_) => return Ok(open),
                Err(error) => self.replace(&open, error)?,
            }
        }
    }

    /// Queues one frame if the stream is open and has room.
    pub(crate) fn try_send(
        &self,
        header: &[u8],
        parts: &[Bytes],
    ) -> Result<Arc<WriteStream>, QueueError> {
        let open = self.open_stream()?.ok_or(QueueError::WouldBlock)?;
        match open.try_enqueue(header, parts) {
            Ok(Some(_)) => Ok(open),
            Ok(None) => Err(QueueError::WouldBlock),
            Err(error) => {
                self.replace(&open, error)?;
                Err(QueueError::WouldBlock)
            }
        }
    }

    /// Queues messages with their headers if the stream is open, while there is room. Returns how
    /// many, at least one.
    pub(crate) fn try_send_many(
        &self,
        messages: &[([u8; HEADER], &Bytes)],
    ) -> Result<usize, QueueError> {
        let open = self.open_stream()?.ok_or(QueueError::WouldBlock)?;
        match open.try_enqueue_many(messages) {
            Ok(0) => Err(QueueError::WouldBlock),
            Ok(count) => Ok(count),
            Err(error) => {
                self.replace(&open, error)?;
                Err(QueueError::WouldBlock)
            }
        }
    }

    /// Returns whether the caller must [open](Self::open) the stream in a task, for
    /// [`try_send`](Self::try_send): it is not open, and no other task prepares it. When the task is
    /// dropped, it calls [`prepared`](Self::prepared).
    pub(crate) fn wants_preparation(&self) -> bool {
        matches!(*self.slot.lock(), Slot::Empty) && !self.is_preparing.swap(true, Ordering::SeqCst)
    }

    /// Opens the stream unless it is open.
    pub(crate) async fn open(
        &self,
        connection: &Connection,
        timeouts: Timeouts,
    ) -> Result<(), QueueError> {
        self.acquire(connection, timeouts).await.map(drop)
    }

    /// Records that the task that prepared the stream has ended, or was dropped with its runtime.
    pub(crate) fn prepared(&self) {
        self.is_preparing.store(false, Ordering::SeqCst);
    }

    /// Waits until the peer has acknowledged all queued data. Losses with a stopped stream are
    /// reported by [`LossReports`].
    pub(crate) async fn flush(
        &self,
        connection: &Connection,
        timeouts: Timeouts,
    ) -> Result<(), QueueError> {
        let open = match &*self.slot.lock() {
            Slot::Open(open) | Slot::Closed(Some(open)) => open.clone(),
            Slot::Empty | Slot::Closed(None) => return Ok(()),
        };
        let flush = open.flush();
        let flushed = unless_stuck(connection, &open, timeouts, flush).await?;
        let flushed = match stop_code(&open) {
            Some(code) if unconfirmed(&open).0 > 0 => Err(WriteError::Stopped(code)),
            _ => flushed,
        };
        match flushed.or_else(|error| self.replace(&open, error)) {
            Err(QueueError::Stopped(_)) => Ok(()),
            flushed => flushed,
        }
    }

    /// Waits until the peer stops the stream with messages that are not confirmed, and removes it; for
    /// ever if none is open.
    pub(crate) async fn stopped(&self) -> QueueError {
        while let Ok(Some(open)) = self.open_stream() {
            let code = stopped(&open).await;
            if let Err(error) = self.replace(&open, WriteError::Stopped(code)) {
                return error;
            }
        }
        pending().await
    }

    /// Removes a broken stream; `Ok` if no message is lost and another stream may succeed.
    fn replace(&self, broken: &Arc<WriteStream>, error: WriteError) -> Result<(), QueueError> {
        let unconfirmed = unconfirmed(broken);
        let is_loss = unconfirmed.0 > 0;
        {
            let mut slot = self.slot.lock();
            match &*slot {
                Slot::Open(open) if Arc::ptr_eq(open, broken) => {
                    *slot = Slot::Empty;
                    let mut lost = self.lost.lock();
                    *lost = sum(*lost, unconfirmed);
                    if let WriteError::Stopped(code) = error
                        && is_loss
                    {
                        self.loss_reports.record(code);
                    }
                }
                Slot::Closed(_) => return Err(QueueError::Closed),
                _ => {}
            }
        }
        match error {
            WriteError::Stopped(code) => {
                if let Some(receipts) = &self.receipts {
                    receipts.lost(number(broken), &SendError::Stopped { code });
                }
                if is_loss { Err(QueueError::Stopped(code)) } else { Ok(()) }
            }
            WriteError::ConnectionLost(_) => Err(QueueError::Connection),
            WriteError::Closed => Ok(()),
            error => Err(QueueError::Other(Cause::new(error))),
        }
    }

    /// Returns the stream, opening it if necessary.
    async fn acquire(
        &self,
        connection: &Connection,
        timeouts: Timeouts,
    ) -> Result<Arc<WriteStream>, QueueError> {
        if let Some(open) = self.open_stream()? {
            return Ok(open);
        }
        let open = async {
            let _opening = self.opening.lock().await;
            if let Some(stream) = self.open_stream()? {
                return Ok(stream);
            }
            let opened = connection.open_outbound_stream(StreamType::Unidirectional, false).await;
            let stream = opened.map_err(|error| match error {
                StreamStartError::ConnectionLost(_) => QueueError::Connection,
                error => QueueError::Other(Cause::new(error)),
            })?;
            let Some(stream) = stream.split().1 else {
                return Err(QueueError::Other(Cause::new("the stream cannot send")));
            };
            if self.is_urgent {
                // It fails only if the stream has ended, which the next send reports.
                let _ = stream.set_priority(URGENT).await;
            }
            let mut slot = self.slot.lock();
            match *slot {
                Slot::Closed(_) => Err(QueueError::Closed),
                _ => {
                    let open = Arc::new(stream);
                    *slot = Slot::Open(open.clone());
                    Ok(open)
                }
            }
        };
        timeouts.wait(open).await?
    }

    fn open_stream(&self) -> Result<Option<Arc<WriteStream>>, QueueError> {
        match &*self.slot.lock() {
            Slot::Open(open) => Ok(Some(open.clone())),
            Slot::Empty => Ok(None),
            Slot::Closed(_) => Err(QueueError::Closed),
        }
    }

    /// Stops sending and returns the stream to [drain]. `None` if already stopped,
    /// or if nothing was sent.
    pub(crate) fn close(&self) -> Option<Arc<WriteStream>> {
        let open = {
            let slot = &mut *self.slot.lock();
            let open = match slot {
                Slot::Closed(_) => return None,
                Slot::Open(open) => Some(open.clone()),
                Slot::Empty => None,
            };
            *slot = Slot::Closed(open.clone());
            open
        };
        self.closed.notify_waiters();
        open
    }

    /// Returns how many messages, and bytes, the peer has not acknowledged, at most, including
    /// those that were lost with stopped streams.
    pub(crate) fn unconfirmed(&self) -> (u64, u64) {
        let slot = self.slot.lock();
        let of_stream = match &*slot {
            Slot::Open(open) | Slot::Closed(Some(open)) => unconfirmed(open),
            Slot::Empty | Slot::Closed(None) => (0, 0),
        };
        sum(*self.lost.lock(), of_stream)
    }
}

/// Returns the number of the stream in the connection.
pub(crate) fn number(open: &WriteStream) -> u64 {
    open.id().unwrap_or(u64::MAX) // it is open
}

/// Returns how many messages the peer has not acknowledged, at most, and their bytes without headers. One
/// that is too long for the peer may be acknowledged before the peer refuses it: then it is one at least.
fn unconfirmed(open: &WriteStream) -> (u64, u64) {
    let (messages, bytes) = open.pending_writes();
    let is_refused = stop_code(open) == Some(STREAM_CODE_MESSAGE_TOO_LARGE);
    (messages.max(is_refused.into()), bytes.saturating_sub(messages * HEADER as u64))
}

/// Returns the code with which the peer has stopped the stream.
fn stop_code(open: &WriteStream) -> Option<u64> {
    unconstrained(stopped(open)).now_or_never()
}

/// Waits until the peer stops the stream, and returns its code. Never resolves if the connection
/// ends.
pub(crate) async fn stopped(open: &WriteStream) -> u64 {
    match open.stopped().await {
        Ok(Some(code)) => code,
        _ => pending().await,
    }
}

/// Waits until the peer has acknowledged all messages on a stream, or makes no progress. Returns whether it
/// has.
///
/// The stream is not finished: older peers read a finished stream again and again.
pub(crate) async fn drain(open: &WriteStream, connection: &Connection, timeouts: Timeouts) -> bool {
    unless_stuck(connection, open, timeouts, open.flush())
        .await
        .is_ok_and(|flushed| flushed.is_ok())
}

/// Waits until the peer has acknowledged a stream with an answer, or makes no progress.
pub(crate) async fn drain_answer(
    connection: &Connection,
    stream: &WriteStream,
    timeouts: Timeouts,
) {
    let _ = stream.finish(); // if the stream has ended, the next line reports it
    let _ = unless_stuck(connection, stream, timeouts, stream.stopped()).await;
}

/// Adds numbers of messages and of bytes.
pub(crate) fn sum(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    (one.0 + other.0, one.1 + other.1)
}

impl From<Stuck> for QueueError {
    fn from(Stuck(after): Stuck) -> Self {
        Self::TimedOut(after)
    }
}

/// Waits for `operation` as long as the stream makes progress.
///
/// Progress means that the peer acknowledges a native send of up to 1 MiB. On a slow link that may
/// take long, so a native send has longer while the connection makes progress on other streams.
pub(crate) async fn unless_stuck<T>(
    connection: &Connection,
    stream: &WriteStream,
    timeouts: Timeouts,
    operation: impl Future<Output = T>,
) -> Result<T, Stuck> {
    let progress = StreamProgress { connection, stream, sent: None };
    net_kit::progress::unless_stuck(timeouts, progress, operation).await
}

struct StreamProgress<'a> {
    connection: &'a Connection,
    stream: &'a WriteStream,
    /// How many bytes the connection had sent at the last check.
    sent: Option<u64>,
}

impl Progress for StreamProgress<'_> {
    async fn snapshot(&mut self) -> Snapshot {
        let statistics = self.connection.statistics().await;
        let sent = statistics.map(|it| it.sent_stream_bytes).unwrap_or_default();
        let is_moving = self.sent.replace(sent) != Some(sent);
        Snapshot { done: self.stream.completed(), is_moving }
    }
}
