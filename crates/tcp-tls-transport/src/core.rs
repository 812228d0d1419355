//! `Core`: the state shared by the handles of a connection and its driver task, without sockets.

use crate::config::TcpTlsConfig;
use bytes::Bytes;
use net_kit::frame::Message;
use net_traits::{CloseReason, RecvError, SendError};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bookkeeping bytes counted per queue entry, so that empty messages are bounded too.
const ENTRY_COST: usize = 128;

/// An empty queue with a larger capacity frees its memory.
const KEPT_ENTRIES: usize = 64;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<TcpTlsConfig>,
    state: Mutex<State>,
    /// Wakes the driver: there is data to write, or this side closes.
    work: Notify,
    /// Wakes the driver: the receive queue may have room.
    taken: Notify,
    /// Wakes senders: the send queue may have room.
    room: Notify,
    /// Wakes `flush`: a frame was written.
    written: Notify,
    /// Wakes receivers.
    arrived: Notify,
    /// Wakes tasks that wait for the end.
    over: Notify,
}

#[derive(Debug, Default)]
struct State {
    outbox: VecDeque<Frame>,
    /// The cost of the queued frames and of the frame that the driver is writing.
    queued: usize,
    /// Counts of the frames queued and of the frames written to the socket.
    pushed: u64,
    done: u64,
    /// Bytes written to the socket.
    progress: u64,
    inbox: VecDeque<Result<Message, RecvError>>,
    held: usize,
    /// Code and reason of the local close, once it has begun.
    closing: Option<(u64, String)>,
    /// The driver has written all frames and the close record.
    has_written_all: bool,
    /// Writing has failed; received data may still be read.
    broken: Option<CloseReason>,
    end: Option<CloseReason>,
}

/// One message to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) pieces: Vec<Bytes>,
    cost: usize,
}

/// The driver's next task.
pub(crate) enum Work {
    Frame(Frame),
    /// All frames are written: send the close record.
    Close(u64, String),
}

impl Core {
    pub(crate) fn new(config: Arc<TcpTlsConfig>) -> Arc<Self> {
        Arc::new(Self {
            config,
            state: Mutex::default(),
            work: Notify::new(),
            taken: Notify::new(),
            room: Notify::new(),
            written: Notify::new(),
            arrived: Notify::new(),
            over: Notify::new(),
        })
    }

    /// Queues one message if there is room, taking `pieces`.
    pub(crate) fn try_push(&self, pieces: &mut Vec<Bytes>) -> Result<(), SendError> {
        let has_more = {
            let state = &mut *self.state.lock();
            if let Some(reason) = state.why_closed() {
                return Err(SendError::Closed(reason));
            }
            if state.queued > 0 && state.queued >= self.config.send_queue {
                return Err(SendError::WouldBlock);
            }
            let cost = ENTRY_COST + pieces.iter().map(Bytes::len).sum::<usize>();
            state.queued += cost;
            state.pushed += 1;
            state.outbox.push_back(Frame { pieces: std::mem::take(pieces), cost });
            state.queued < self.config.send_queue
        };
        self.work.notify_one();
        if has_more {
            self.room.notify_one(); // for the next waiter
        }
        Ok(())
    }

    /// Queues one message as soon as there is room.
    pub(crate) async fn push(&self, mut pieces: Vec<Bytes>) -> Result<(), SendError> {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            match self.try_push(&mut pieces) {
                Err(SendError::WouldBlock) => {}
                result => return result,
            }
            room.await;
        }
    }

    /// Waits until all messages queued before are written to the socket.
    pub(crate) async fn flushed(&self) -> Result<(), SendError> {
        let target = self.state.lock().pushed;
        loop {
            let mut written = pin!(self.written.notified());
            written.as_mut().enable();
            {
                let state = self.state.lock();
                if state.done >= target {
                    return Ok(());
                }
                if let Some(reason) = state.end.as_ref().or(state.broken.as_ref()) {
                    return Err(SendError::Closed(reason.clone()));
                }
            }
            written.await;
        }
    }

    /// Returns the number of bytes written to the socket.
    pub(crate) fn progress(&self) -> u64 {
        self.state.lock().progress
    }

    /// Waits for the driver's next task.
    pub(crate) async fn work(&self) -> Work {
        loop {
            if let Some(work) = self.next_work() {
                return work;
            }
            self.work.notified().await; // one driver: `notify_one` keeps its permit
        }
    }

    fn next_work(&self) -> Option<Work> {
        let state = &mut *self.state.lock();
        if let Some(frame) = state.outbox.pop_front() {
            give_back(&mut state.outbox);
            return Some(Work::Frame(frame));
        }
        state.closing.clone().map(|(code, reason)| Work::Close(code, reason))
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.lock().outbox.is_empty()
    }

    /// Records that bytes were written to the socket.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.state.lock().progress += bytes as u64;
    }

    /// Records that a whole frame was written.
    pub(crate) fn wrote_frame(&self, frame: &Frame) {
        {
            let state = &mut *self.state.lock();
            state.queued -= frame.cost;
            state.done += 1;
        }
        self.room.notify_one();
        self.written.notify_waiters();
    }

    /// The driver has written all frames and the close record.
    pub(crate) fn wrote_all(&self) {
        self.state.lock().has_written_all = true;
    }

    pub(crate) fn has_written_all(&self) -> bool {
        self.state.lock().has_written_all
    }

    /// Writing has failed; received data may still be read.
    pub(crate) fn broke(&self, reason: CloseReason) {
        self.state.lock().broken.get_or_insert(reason);
        self.room.notify_waiters();
        self.written.notify_waiters();
        self.taken.notify_one();
    }

    /// Waits until the receive queue has room. While this side closes there is always room, because
    /// received messages are discarded.
    ///
    /// # Errors
    ///
    /// The reason of a failed write, if no message is then received for `patience`.
    pub(crate) async fn inbox_room(&self, patience: Duration) -> Result<(), CloseReason> {
        loop {
            let taken = self.taken.notified(); // one driver: `notify_one` keeps its permit
            let broken = {
                let state = self.state.lock();
                let has_room = state.held == 0 || state.held < self.config.receive_queue;
                if has_room || state.closing.is_some() {
                    return Ok(());
                }
                state.broken.clone()
            };
            match broken {
                None => taken.await,
                Some(reason) => timeout(patience, taken).await.map_err(|_| reason)?,
            }
        }
    }

    pub(crate) fn arrive(&self, entry: Result<Message, RecvError>) {
        {
            let state = &mut *self.state.lock();
            if state.closing.is_some() {
                return;
            }
            state.held += cost(&entry);
            state.inbox.push_back(entry);
        }
        self.arrived.notify_one();
    }

    /// Waits for the next message.
    pub(crate) async fn recv(&self) -> Result<Message, RecvError> {
        loop {
            let mut arrived = pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(entry) = self.take() {
                return entry;
            }
            arrived.await;
        }
    }

    fn take(&self) -> Option<Result<Message, RecvError>> {
        let (entry, has_more) = {
            let state = &mut *self.state.lock();
            let Some(entry) = state.inbox.pop_front() else {
                return state.end.clone().map(|reason| Err(RecvError::Closed(reason)));
            };
            state.held -= cost(&entry);
            give_back(&mut state.inbox);
            (entry, !state.inbox.is_empty())
        };
        self.taken.notify_one();
        if has_more {
            self.arrived.notify_one();
        }
        Some(entry)
    }

    /// Stops queueing; the driver closes after the queued frames. Returns false if already closing.
    pub(crate) fn close(&self, code: u64, reason: &str) -> bool {
        {
            let state = &mut *self.state.lock();
            if state.closing.is_some() || state.end.is_some() {
                return false;
            }
            state.closing = Some((code, reason.to_owned()));
        }
        self.work.notify_one();
        self.taken.notify_one();
        self.room.notify_waiters();
        true
    }

    /// Drops the queued frames and ends the connection.
    pub(crate) fn close_now(&self, code: u64, reason: &str) {
        self.close(code, reason);
        let reason = self.state.lock().why_closed();
        self.end(reason.unwrap_or(CloseReason::TimedOut));
    }

    /// Ends the connection, unless it already ended. A local close takes precedence as the reason.
    pub(crate) fn end(&self, reason: CloseReason) {
        let dropped = {
            let state = &mut *self.state.lock();
            if state.end.is_none() {
                state.broken = None; // the reader's reason is more precise
                let reason = state.why_closed().unwrap_or(reason);
                state.end = Some(reason);
            }
            std::mem::take(&mut state.outbox)
        };
        drop(dropped);
        self.work.notify_one();
        self.taken.notify_one();
        for waiters in [&self.room, &self.written, &self.arrived, &self.over] {
            waiters.notify_waiters();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Waits until the connection has ended.
    pub(crate) async fn over(&self) -> CloseReason {
        loop {
            let mut over = pin!(self.over.notified());
            over.as_mut().enable();
            if let Some(reason) = self.state.lock().end.clone() {
                return reason;
            }
            over.await;
        }
    }
}

impl State {
    /// Returns why nothing can be sent, if so.
    fn why_closed(&self) -> Option<CloseReason> {
        let local = |(code, reason): &(u64, String)| CloseReason::Local {
            code: *code,
            reason: reason.clone(),
        };
        let end = self.end.clone().or_else(|| self.closing.as_ref().map(local));
        end.or_else(|| self.broken.clone())
    }
}

/// Frees the memory of an empty queue that grew.
fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_ENTRIES {
        *queue = VecDeque::new();
    }
}

fn cost(entry: &Result<Message, RecvError>) -> usize {
    ENTRY_COST + entry.as_ref().map_or(0, |(message, _)| message.len())
}
