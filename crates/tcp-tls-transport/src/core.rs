//! `Core`: what the handles of a connection and the task that drives it share. Knows nothing of sockets.

use crate::config::TcpTlsConfig;
use bytes::Bytes;
use net_traits::frame::Message;
use net_traits::{CloseReason, RecvError, SendError};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What an entry of a queue costs besides its bytes, so that empty messages are bounded too.
const ENTRY_COST: usize = 128;

/// A queue that had more entries gives its memory back when it is empty.
const KEPT_ENTRIES: usize = 64;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Arc<TcpTlsConfig>,
    state: Mutex<State>,
    /// For the driver: there is something to write, or this side closes.
    work: Notify,
    /// For the driver: there is room for received messages.
    taken: Notify,
    /// For those who send: there may be room.
    room: Notify,
    /// For those who flush: something was written.
    written: Notify,
    /// For those who receive.
    arrived: Notify,
    /// For those who watch the end.
    over: Notify,
}

#[derive(Debug, Default)]
struct State {
    outbox: VecDeque<Frame>,
    /// The cost of what is queued and of what the driver writes.
    queued: usize,
    /// Frames that were queued, and frames that the socket has taken.
    pushed: u64,
    done: u64,
    /// Bytes that the socket has taken.
    progress: u64,
    inbox: VecDeque<Result<Message, RecvError>>,
    held: usize,
    /// What this side closes with, from the moment it began to.
    closing: Option<(u64, String)>,
    /// The driver has written everything, and this side's last word.
    has_written_all: bool,
    /// Nothing can be written any more, while there may be something to read.
    broken: Option<CloseReason>,
    end: Option<CloseReason>,
}

/// One message to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) pieces: Vec<Bytes>,
    cost: usize,
}

/// What the driver is to write.
pub(crate) enum Work {
    Frame(Frame),
    /// All was written; what to close with.
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

    /// Queues one message, if there is room, and leaves `pieces` empty.
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
            self.room.notify_one(); // for the next one who waits
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

    /// Waits until the socket has taken what was queued before.
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

    /// How many bytes the socket has taken.
    pub(crate) fn progress(&self) -> u64 {
        self.state.lock().progress
    }

    /// What to write next.
    pub(crate) async fn work(&self) -> Work {
        loop {
            if let Some(work) = self.next_work() {
                return work;
            }
            self.work.notified().await; // there is one driver: a permit is kept for it
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

    /// Whether there is nothing to write at the moment.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.lock().outbox.is_empty()
    }

    /// The socket has taken some bytes.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.state.lock().progress += bytes as u64;
    }

    /// The socket has taken a whole frame.
    pub(crate) fn wrote_frame(&self, frame: &Frame) {
        {
            let state = &mut *self.state.lock();
            state.queued -= frame.cost;
            state.done += 1;
        }
        self.room.notify_one();
        self.written.notify_waiters();
    }

    /// The driver has written everything, and this side's last word.
    pub(crate) fn wrote_all(&self) {
        self.state.lock().has_written_all = true;
    }

    pub(crate) fn has_written_all(&self) -> bool {
        self.state.lock().has_written_all
    }

    /// Nothing can be written any more, while there may be something to read.
    pub(crate) fn broke(&self, reason: CloseReason) {
        self.state.lock().broken.get_or_insert(reason);
        self.room.notify_waiters();
        self.written.notify_waiters();
        self.taken.notify_one();
    }

    /// Waits until there is room for a received message. While this side closes there always is: nobody takes it.
    ///
    /// # Errors
    ///
    /// Why nothing can be written any more, when then nobody takes anything for `patience`.
    pub(crate) async fn inbox_room(&self, patience: Duration) -> Result<(), CloseReason> {
        loop {
            let taken = self.taken.notified(); // there is one driver: a permit is kept for it
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

    /// Lets nothing more be queued; the driver closes when it has written what is. False if that had begun before.
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

    /// Drops what is queued and ends the connection for this side.
    pub(crate) fn close_now(&self, code: u64, reason: &str) {
        self.close(code, reason);
        let reason = self.state.lock().why_closed();
        self.end(reason.unwrap_or(CloseReason::TimedOut));
    }

    /// The connection is over, unless it already was. If this side closes, that is why.
    pub(crate) fn end(&self, reason: CloseReason) {
        let dropped = {
            let state = &mut *self.state.lock();
            if state.end.is_none() {
                state.broken = None; // the reader knows better
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

    /// Waits until the connection is over.
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
    /// Why nothing can be sent.
    fn why_closed(&self) -> Option<CloseReason> {
        let local = |(code, reason): &(u64, String)| CloseReason::Local {
            code: *code,
            reason: reason.clone(),
        };
        let end = self.end.clone().or_else(|| self.closing.as_ref().map(local));
        end.or_else(|| self.broken.clone())
    }
}

/// An empty queue gives back what it grew to.
fn give_back<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_ENTRIES {
        *queue = VecDeque::new();
    }
}

fn cost(entry: &Result<Message, RecvError>) -> usize {
    ENTRY_COST + entry.as_ref().map_or(0, |(message, _)| message.len())
}
