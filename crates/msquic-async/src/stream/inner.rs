//! `StreamInner`: what the handles of a stream share with its callbacks.
//!
//! The threads of the application and of msquic share the state in `exclusive`. A thread that changes it collects
//! the tasks to wake, unlocks, and only then wakes them or calls msquic.
//!
//! A [`ReceiveSink`] is taken out of `exclusive` while it runs, so that it runs without the lock. A thread that
//! resumes it meanwhile sets `again` (`SinkSlot::Busy`), and the thread that runs the sink then loops.

use super::error::StartError;
use super::progress::Progress;
use super::sink::ReceiveSink;
use super::state::{ReceiveInput, ReceiveState, SendInput, SendState, StartState};
use super::stream_type::StreamType;
use crate::buffer::{ReceiveQueue, SendQueue};
use crate::connection::{StreamConnection, Ticket};
use crate::ffi::receive::Held;
use crate::ffi::status::Status;
use crate::ffi::stream::{NativeStream, StreamHold};
// The mutex of `parking_lot`, or of a model checker: `tests/models` includes this file too.
use crate::lock::Mutex;
use crate::waiters::Waiters;
use crate::waker_check::registered;
use futures_util::task::AtomicWaker;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// The code that is sent to the peer when a handle is dropped before the end.
pub(super) const DROPPED: u64 = 0;

pub(crate) struct StreamInner {
    pub(super) native: Arc<NativeStream>,
    pub(super) connection: Arc<dyn StreamConnection>,
    pub(super) stream_type: StreamType,
    pub(super) is_local: bool,
    pub(super) max_send_buffer: usize,
    pub(super) id: OnceLock<u64>,
    /// Keeps the handle open while the stream waits to be accepted, or for its sink.
    hold: Mutex<Option<StreamHold>>,
    pub(super) exclusive: Mutex<Exclusive>,
    /// A single waker, since `Stream::poll_start` borrows the stream exclusively.
    pub(super) start_waker: AtomicWaker,
    /// One task is woken when bytes arrive, and wakes the next if it leaves some; all are woken at
    /// the end.
    pub(super) readable: Waiters,
    /// Woken at the end of the receiving direction.
    pub(super) receive_ended: Waiters,
    /// One task is woken when there is room for bytes, and wakes the next if it leaves some; all
    /// are woken at the end.
    pub(crate) room: Waiters,
    /// Woken when their bytes are completed, and at the end.
    pub(crate) progress: Progress,
    /// Woken at the end of the sending direction.
    pub(super) send_ended: Waiters,
}

pub(super) struct Exclusive {
    pub(super) start: StartState,
    /// The place in the queue for credit, or the credit that the start uses.
    pub(super) ticket: Option<Ticket>,
    /// The code of a STOP_SENDING to send once the stream is started.
    pub(super) stop: Option<u64>,
    pub(super) send: SendState,
    pub(super) queue: SendQueue,
    pub(super) receive: ReceiveState,
    pub(super) received: ReceiveQueue<Held>,
    pub(super) sink: SinkSlot,
}

/// Where received bytes go besides the queue.
pub(super) enum SinkSlot {
    /// There is no sink: a reader takes bytes from the queue.
    None,
    /// The sink. The queue has only bytes that the sink did not take; then the sink is paused.
    Idle(Box<dyn ReceiveSink>),
    /// A thread is running the sink. `again`: the sink was resumed meanwhile.
    Busy { again: bool },
    /// The sink has received the end.
    Ended,
}

impl StreamInner {
    /// A stream of the connection without a native handle.
    pub(crate) fn new(
        connection: Arc<dyn StreamConnection>,
        stream_type: StreamType,
        is_local: bool,
    ) -> Arc<Self> {
        let native = Arc::new(NativeStream::new(connection.native()));
        Self::with_native(native, connection, stream_type, is_local)
    }

    pub(crate) fn with_native(
        native: Arc<NativeStream>,
        connection: Arc<dyn StreamConnection>,
        stream_type: StreamType,
        is_local: bool,
    ) -> Arc<Self> {
        let limits = connection.stream_limits();
        let received = ReceiveQueue::new(limits.receive_buffer, connection.queued_bytes());
        let sends = is_local || stream_type == StreamType::Bidirectional;
        let receives = !is_local || stream_type == StreamType::Bidirectional;
        Arc::new(Self {
            native,
            stream_type,
            is_local,
            max_send_buffer: limits.max_send_buffer,
            connection,
            id: OnceLock::new(),
            hold: Mutex::default(),
            exclusive: Mutex::new(Exclusive {
                start: if is_local { StartState::Idle } else { StartState::Started },
                ticket: None,
                stop: None,
                send: if sends { SendState::Open } else { SendState::None },
                queue: SendQueue::new(limits.send_buffer),
                receive: if receives { ReceiveState::Open } else { ReceiveState::None },
                received,
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

    pub(crate) fn set_id(&self, id: u64) {
        let _ = self.id.set(id);
    }

    // ---- opening ----

    /// Waits for credit, and then for msquic to start the stream. One caller at a time.
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
        registered();
        match &self.exclusive.lock().start {
            StartState::Started => return Poll::Ready(Ok(())),
            StartState::Failed(error) => return Poll::Ready(Err(error.clone())),
            StartState::Idle | StartState::Starting => return Poll::Pending,
            StartState::Lost => {}
        }
        self.connection.poll_over(cx).map(|error| Err(StartError::ConnectionLost(error)))
    }

    /// Returns a new stream with which to try again, after msquic had no credit although it had
    /// reported some. A native stream can be started only once.
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
        let successor = Self::new(self.connection.clone(), self.stream_type, self.is_local);
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
            // msquic is already closing the connection, and the event with the reason is about to
            // come.
            (Status::ABORTED | Status::INVALID_STATE, None) => StartState::Lost,
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
        drop(ticket); // wakes other openers
        self.start_waker.wake();
    }

    // ---- waiting to be accepted ----

    /// Keeps the handle open, even if the stream ends, until it is [released](Self::release). The
    /// peer gets no credit for another stream before, so the streams that wait to be accepted or
    /// have a sink are at most as many as the peer may open.
    pub(crate) fn hold_until_accepted(&self) {
        *self.hold.lock() = self.native.hold();
    }

    /// Releases the handle: the stream was accepted, or never will be, or its sink has received the
    /// end.
    pub(crate) fn release(&self) {
        let hold = self.hold.lock().take();
        drop(hold);
    }

    /// Aborts and releases a stream that will never be accepted.
    pub(crate) fn abandon(&self) {
        let _ = self.abort_write(DROPPED);
        let _ = self.abort_read(DROPPED);
        self.release();
    }
}
