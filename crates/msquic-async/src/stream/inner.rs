//! `StreamInner`: what the handles of a stream share with its callbacks.
//!
//! The application's thread and msquic's thread meet in `exclusive`. The thread that changes it collects
//! whom to wake, unlocks, and only then wakes or calls msquic.
//!
//! A [`ReceiveSink`] is taken out of `exclusive` while it runs, so that it runs without the lock.
//! Who needs it meanwhile leaves a note (`SinkSlot::Busy`), which the one that has it obeys.

use super::error::{ReadError, StartError, WriteError};
use super::progress::Progress;
use super::state::{ReceiveInput, ReceiveState, SendInput, SendState, StartState};
use crate::buffer::{ReceiveQueue, SendQueue};
use crate::connection::{ConnectionInner, Ticket};
use crate::ffi::receive::Held;
use crate::ffi::receive::Holding;
use crate::ffi::status::Status;
use crate::ffi::stream::{Abort, NativeStream, StreamHold};
use crate::stream::{ReceiveEnd, ReceiveSink, StreamRecvBuffer, StreamType};
use crate::waiters::Waiters;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// The code that the peer gets when a handle is dropped before the end.
pub(super) const DROPPED: u64 = 0;

pub(crate) struct StreamInner {
    pub(super) native: Arc<NativeStream>,
    pub(super) connection: Arc<ConnectionInner>,
    pub(super) stream_type: StreamType,
    pub(super) is_local: bool,
    pub(super) max_send_buffer: usize,
    /// Whether received bytes stay where they are until they are read.
    pub(super) holding: Holding,
    pub(super) id: OnceLock<u64>,
    /// Keeps the handle open while the stream waits to be accepted.
    hold: Mutex<Option<StreamHold>>,
    pub(super) exclusive: Mutex<Exclusive>,
    /// `Stream::poll_start` has the stream for itself.
    pub(super) start_waker: AtomicWaker,
    /// One is woken when bytes arrive, and wakes the next when it leaves some; all at the end.
    pub(super) readable: Waiters,
    /// Woken at the end of the receiving direction.
    pub(super) receive_ended: Waiters,
    /// One is woken when there is room for bytes, and wakes the next when it leaves some; all at the end.
    pub(crate) room: Waiters,
    /// Woken when their bytes are completed, and at the end.
    pub(crate) progress: Progress,
    /// Woken at the end of the sending direction.
    pub(super) send_ended: Waiters,
}

pub(super) struct Exclusive {
    pub(super) start: StartState,
    /// The place in the line for credit, or the credit that the start uses.
    pub(super) ticket: Option<Ticket>,
    /// The code with which to stop the peer once the stream is started.
    pub(super) stop: Option<u64>,
    pub(super) send: SendState,
    pub(super) queue: SendQueue,
    pub(super) receive: ReceiveState,
    pub(super) received: ReceiveQueue<Held>,
    pub(super) sink: SinkSlot,
}

/// Where received bytes go besides the queue.
pub(super) enum SinkSlot {
    /// Nowhere: a reader takes them from the queue.
    None,
    /// To the sink; the queue holds only what it did not take.
    Idle(Box<dyn ReceiveSink>),
    /// To the sink, which a thread is running. `again`: it has to be offered bytes once more.
    Busy { again: bool },
    /// The sink was told the end.
    Ended,
}

impl StreamInner {
    pub(crate) fn new(
        connection: &Arc<ConnectionInner>,
        stream_type: StreamType,
        is_local: bool,
    ) -> Arc<Self> {
        let limits = connection.stream_limits();
        let sends = is_local || stream_type == StreamType::Bidirectional;
        let receives = !is_local || stream_type == StreamType::Bidirectional;
        Arc::new(Self {
            native: Arc::new(NativeStream::new(connection.native())),
            connection: connection.clone(),
            stream_type,
            is_local,
            max_send_buffer: limits.max_send_buffer,
            holding: connection.holding(),
            id: OnceLock::new(),
            hold: Mutex::default(),
            exclusive: Mutex::new(Exclusive {
                start: if is_local { StartState::Idle } else { StartState::Started },
                ticket: None,
                stop: None,
                send: if sends { SendState::Open } else { SendState::None },
                queue: SendQueue::new(limits.send_buffer),
                receive: if receives { ReceiveState::Open } else { ReceiveState::None },
                received: ReceiveQueue::new(limits.receive_buffer),
                sink: SinkSlot::None,
            }),
            start_waker: AtomicWaker::new(),
            readable: Waiters::default(),
            receive_ended: Waiters::default(),
            room: Waiters::default(),
            progress: Progress::default(),
            send_ended: Waiters::default(),
        })
    }

    /// It is not known whether the stream has one receive at a time or several.
    pub(crate) fn complete_together(&mut self) {
        if self.holding == Holding::Several {
            self.holding = Holding::OneByOne;
        }
    }

    pub(crate) fn set_id(&self, id: u64) {
        let _ = self.id.set(id);
    }

    // ---- opening ----

    /// Waits for credit, and then for msquic to start the stream. `Stream` has it for itself meanwhile.
    pub(super) fn poll_start(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        fail_on_blocked: bool,
    ) -> Poll<Result<(), StartError>> {
        let ticket = {
            let exclusive = &mut *self.exclusive.lock();
            (exclusive.start == StartState::Idle).then(|| exclusive.ticket.take())
        };
        if let Some(ticket) = ticket {
            let credit = self.connection.stream_credit(self.stream_type);
            let ticket = match ticket {
                Some(ticket) => ticket,
                None if fail_on_blocked => credit.take().ok_or(StartError::LimitReached)?,
                None => credit.join(),
            };
            let is_blocked = ticket.poll(cx).is_pending();
            if is_blocked && fail_on_blocked {
                return Poll::Ready(Err(StartError::LimitReached));
            }
            {
                let mut exclusive = self.exclusive.lock();
                exclusive.ticket = Some(ticket);
                if is_blocked {
                    return Poll::Pending;
                }
                exclusive.start = StartState::Starting;
            }
            let unidirectional = self.stream_type == StreamType::Unidirectional;
            if let Err(status) = self.native.start(unidirectional, true, self) {
                self.start_failed(status);
            }
        }
        self.start_waker.register(cx.waker());
        match &self.exclusive.lock().start {
            StartState::Started => return Poll::Ready(Ok(())),
            StartState::Failed(error) => return Poll::Ready(Err(error.clone())),
            StartState::Idle | StartState::Starting => return Poll::Pending,
            StartState::Lost => {}
        }
        self.connection.poll_over(cx).map(|error| Err(StartError::ConnectionLost(error)))
    }

    /// The stream with which to try again, after msquic had no credit although there should have been some:
    /// a native stream can be started once.
    pub(super) fn successor(&self, keeps_place: bool) -> Option<Arc<Self>> {
        let (ticket, _left, stop) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.start != StartState::Failed(StartError::LimitReached) {
                return None;
            }
            let ticket = exclusive.ticket.take();
            if keeps_place {
                (ticket, None, exclusive.stop)
            } else {
                (None, ticket, exclusive.stop)
            }
        };
        let successor = Self::new(&self.connection, self.stream_type, self.is_local);
        {
            let next = &mut *successor.exclusive.lock();
            next.ticket = ticket;
            next.stop = stop;
            if next.stop.is_some() {
                next.receive.apply(ReceiveInput::Stop);
            }
        }
        Some(successor)
    }

    pub(super) fn start_failed(&self, status: Status) {
        let is_blocked = status == Status::STREAM_LIMIT_REACHED;
        let mut ticket = self.exclusive.lock().ticket.take();
        if is_blocked && let Some(ticket) = &ticket {
            ticket.wait_again();
        }
        let failed = match (status, self.connection.error()) {
            (_, Some(error)) => StartState::Failed(StartError::ConnectionLost(error)),
            (Status::STREAM_LIMIT_REACHED, None) => StartState::Failed(StartError::LimitReached),
            // The peer's close is known to msquic, and about to be told.
            (Status::ABORTED, None) => StartState::Lost,
            (status, None) => StartState::Failed(StartError::Other(status)),
        };
        {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.start == StartState::Starting {
                exclusive.start = failed;
                exclusive.ticket = ticket.take_if(|_| is_blocked);
            }
            exclusive.send.apply(SendInput::Abort);
            exclusive.receive.apply(ReceiveInput::Stop);
        }
        drop(ticket); // which wakes others
        self.start_waker.wake();
    }

    // ---- writing ----

    /// Lets `write` put bytes into the queue, and sends them; `None` if there is no room.
    pub(super) fn try_write<T>(
        &self,
        write: impl FnOnce(&mut SendQueue, &mut SendState) -> T,
    ) -> Option<Result<T, WriteError>> {
        let (written, has_more_room, is_closed) = {
            let exclusive = &mut *self.exclusive.lock();
            if let Err(error) = exclusive.check_writable() {
                return Some(Err(error));
            }
            if exclusive.queue.room() == 0 {
                return None;
            }
            let written = write(&mut exclusive.queue, &mut exclusive.send);
            (written, exclusive.queue.room() > 0, !exclusive.send.is_open())
        };
        if is_closed {
            self.room.wake_all();
        } else if has_more_room {
            self.room.pass_on();
        }
        self.pump();
        Some(Ok(written))
    }

    /// Puts all of `chunks` into the queue and tells how many bytes they are.
    pub(super) fn try_write_chunks(
        &self,
        chunks: &[Bytes],
        fin: bool,
    ) -> Option<Result<usize, WriteError>> {
        self.try_write(|queue, send| {
            chunks.iter().for_each(|chunk| queue.push(chunk));
            if fin {
                send.apply(SendInput::Finish);
                queue.finish();
            }
            chunks.iter().map(Bytes::len).sum()
        })
    }

    /// Puts `head` and all of `pieces` into the queue and tells the offset behind them.
    pub(crate) fn try_enqueue(
        &self,
        head: &[u8],
        pieces: &[Bytes],
    ) -> Option<Result<u64, WriteError>> {
        self.try_write(|queue, _| {
            queue.push_copy(head);
            pieces.iter().for_each(|piece| queue.push(piece));
            queue.queued()
        })
    }

    /// Ends the stream behind what was written; further writes fail.
    pub(super) fn finish(&self) -> Result<(), WriteError> {
        {
            let exclusive = &mut *self.exclusive.lock();
            if matches!(exclusive.send, SendState::Finishing | SendState::Finished) {
                return Ok(());
            }
            exclusive.check_writable()?;
            exclusive.send.apply(SendInput::Finish);
            exclusive.queue.finish();
        }
        self.room.wake_all();
        self.pump();
        Ok(())
    }

    /// Ends the stream, and tells how that went; `None` while it is under way.
    pub(super) fn try_finish(&self) -> Option<Result<(), WriteError>> {
        match self.finish() {
            Ok(()) => self.finished(),
            Err(error) => Some(Err(error)),
        }
    }

    /// How the finish ended; `None` while it is under way.
    fn finished(&self) -> Option<Result<(), WriteError>> {
        self.exclusive.lock().send.finished()
    }

    /// Whether all bytes up to `offset` are completed.
    pub(crate) fn completed(&self, offset: u64) -> Option<Result<(), WriteError>> {
        let exclusive = self.exclusive.lock();
        if exclusive.queue.completed() >= offset {
            return Some(Ok(()));
        }
        match exclusive.send {
            SendState::Open | SendState::Finishing | SendState::Finished => None,
            _ => Some(exclusive.send.check_open()),
        }
    }

    pub(super) fn completed_offset(&self) -> u64 {
        self.exclusive.lock().queue.completed()
    }

    /// Keeps the stream open, even if it ends, until it is [released](Self::release): the peer gets
    /// no credit for another one, so no more wait to be accepted than the peer may have open.
    pub(crate) fn hold_until_accepted(&self) {
        *self.hold.lock() = self.native.hold();
    }

    /// The stream was accepted, or never will be.
    pub(crate) fn release(&self) {
        let hold = self.hold.lock().take();
        drop(hold);
    }

    /// The stream will never be accepted.
    pub(crate) fn abandon(&self) {
        let _ = self.abort_write(DROPPED);
        let _ = self.abort_read(DROPPED);
        self.release();
    }

    /// The writer is gone: resets the stream unless it was finished.
    pub(super) fn writer_dropped(&self) {
        if self.exclusive.lock().send == SendState::Open {
            let _ = self.abort_write(DROPPED);
        }
    }

    /// The reader is gone: stops the peer unless it has ended.
    pub(super) fn reader_dropped(&self) {
        let _ = self.abort_read(DROPPED);
    }

    /// How the peer ended the stream; `None`: it has not.
    pub(super) fn stopped(&self) -> Option<Result<Option<u64>, WriteError>> {
        Some(match self.exclusive.lock().send.finished()? {
            Ok(()) => Ok(None),
            Err(WriteError::Stopped(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        })
    }

    pub(super) fn queued(&self) -> u64 {
        self.exclusive.lock().queue.queued()
    }

    pub(super) fn abort_write(&self, code: u64) -> Result<(), WriteError> {
        let (what, _given_up, _ticket) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.send == SendState::None {
                return Err(WriteError::Closed);
            }
            if !exclusive.send.apply(SendInput::Abort) {
                return Ok(());
            }
            if exclusive.start == StartState::Started {
                (Abort::Send, exclusive.queue.cut(), None)
            } else {
                // A start that is under way answers for its ticket.
                let ticket = exclusive.ticket.take_if(|_| exclusive.start == StartState::Idle);
                exclusive.start = StartState::Failed(StartError::Closed);
                exclusive.receive.apply(ReceiveInput::Stop);
                (Abort::Everything, exclusive.queue.cut(), ticket)
            }
        };
        self.native.abort(what, code);
        if what == Abort::Everything {
            self.start_waker.wake();
            self.wake_readers();
        }
        self.wake_writers();
        Ok(())
    }

    /// Submits what is due, until nothing is.
    pub(super) fn pump(&self) {
        loop {
            let Some(batch) = self.exclusive.lock().queue.next_batch() else { return };
            let sent = self.native.send(batch.data, batch.fin);
            let (failed, _given_up) = {
                let exclusive = &mut *self.exclusive.lock();
                exclusive.queue.submitted(sent.is_ok());
                match sent {
                    Ok(()) => (false, None),
                    // The stream or the connection is ending. Writers wait for the event that says
                    // why.
                    Err(Status::ABORTED | Status::INVALID_STATE) => {
                        (false, Some(exclusive.queue.cut()))
                    }
                    Err(status) => {
                        let failed = exclusive.send.apply(SendInput::Failed(status));
                        (failed, Some(exclusive.queue.cut()))
                    }
                }
            };
            if failed {
                self.native.abort(Abort::Send, 0);
                self.wake_writers();
            }
        }
    }

    pub(super) fn wake_writers(&self) {
        self.room.wake_all();
        self.progress.wake_all();
        self.send_ended.wake_all();
    }

    // ---- reading ----

    pub(super) fn try_read_chunk(&self) -> Option<Result<Option<StreamRecvBuffer>, ReadError>> {
        self.try_read(|queue| StreamRecvBuffer(queue.chunk(usize::MAX)))
    }

    /// Lets `read` take bytes from the queue: `Ok(None)` at the end of the stream, `None` when nothing
    /// has arrived.
    pub(super) fn try_read<T>(
        &self,
        read: impl FnOnce(&mut ReceiveQueue<Held>) -> T,
    ) -> Option<Result<Option<T>, ReadError>> {
        let (value, resume, has_more, _spent) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.received.is_empty() || !matches!(exclusive.sink, SinkSlot::None) {
                return Some(exclusive.receive.end()?.map(|()| None));
            }
            let received = &mut exclusive.received;
            let value = read(received);
            (value, received.resume(), !received.is_empty(), received.take_spent())
        };
        if has_more {
            self.readable.pass_on();
        }
        if resume {
            self.native.enable_receive();
        }
        Some(Ok(Some(value)))
    }

    pub(super) fn abort_read(&self, code: u64) -> Result<(), ReadError> {
        let (was_open, _spent) = {
            let exclusive = &mut *self.exclusive.lock();
            if exclusive.receive == ReceiveState::None {
                return Err(ReadError::Closed);
            }
            let is_started = exclusive.start == StartState::Started;
            let was_open = exclusive.receive.is_open() && is_started;
            if exclusive.receive.is_open() && !is_started {
                exclusive.stop = Some(code);
            }
            exclusive.receive.apply(ReceiveInput::Stop);
            exclusive.received.clear();
            (was_open, exclusive.received.take_spent())
        };
        if was_open {
            self.native.abort(Abort::Receive, code);
        }
        self.wake_readers();
        self.run_sink();
        Ok(())
    }

    /// How the peer ended the stream; `None`: it has not.
    pub(super) fn received_reset(&self) -> Option<Result<Option<u64>, ReadError>> {
        Some(match self.exclusive.lock().receive.end()? {
            Ok(()) => Ok(None),
            Err(ReadError::Reset(code)) => Ok(Some(code)),
            Err(error) => Err(error),
        })
    }

    pub(super) fn wake_readers(&self) {
        self.readable.wake_all();
        self.receive_ended.wake_all();
    }

    pub(super) fn set_sink(&self, sink: Box<dyn ReceiveSink>) -> Result<(), Box<dyn ReceiveSink>> {
        {
            let mut exclusive = self.exclusive.lock();
            if !matches!(exclusive.sink, SinkSlot::None) {
                return Err(sink);
            }
            exclusive.sink = SinkSlot::Idle(sink);
        }
        self.run_sink();
        Ok(())
    }

    /// Gives the sink what is in the queue, and the end when it has come, and resumes receiving.
    /// A thread that finds the sink running sets `again` instead.
    pub(super) fn run_sink(&self) {
        let mut exclusive = self.exclusive.lock();
        let mut sink = match std::mem::replace(&mut exclusive.sink, SinkSlot::None) {
            SinkSlot::Idle(sink) => sink,
            SinkSlot::Busy { .. } => {
                exclusive.sink = SinkSlot::Busy { again: true };
                return;
            }
            other => {
                exclusive.sink = other;
                return;
            }
        };
        loop {
            exclusive.sink = SinkSlot::Busy { again: false };
            let bytes = exclusive.received.chunk(usize::MAX);
            let is_last = exclusive.received.is_empty();
            let end = exclusive.receive.end().filter(|_| is_last);
            let spent = exclusive.received.take_spent();
            drop(exclusive);
            drop(spent);

            let taken = if bytes.is_empty() { 0 } else { sink.receive(&bytes).min(bytes.len()) };
            let took_all = taken == bytes.len();
            if took_all && let Some(end) = end {
                sink.end(ReceiveEnd::from_result(end));
                self.exclusive.lock().sink = SinkSlot::Ended;
                return;
            }
            let rest = bytes.slice(taken..);
            drop(bytes);

            exclusive = self.exclusive.lock();
            if exclusive.receive == ReceiveState::Stopped {
                exclusive.received.discard(rest);
            } else {
                exclusive.received.unread(rest);
            }
            let has_more = took_all && !exclusive.received.is_empty();
            if has_more || matches!(exclusive.sink, SinkSlot::Busy { again: true }) {
                continue;
            }
            exclusive.sink = SinkSlot::Idle(sink);
            let resume = exclusive.received.is_empty() && exclusive.received.resume();
            let spent = exclusive.received.take_spent();
            drop(exclusive);
            drop(spent);
            if resume {
                self.native.enable_receive();
            }
            return;
        }
    }
}

impl Exclusive {
    fn check_writable(&self) -> Result<(), WriteError> {
        match self.start {
            StartState::Idle | StartState::Starting => Err(WriteError::NotStarted),
            StartState::Started | StartState::Failed(_) | StartState::Lost => {
                self.send.check_open()
            }
        }
    }
}
