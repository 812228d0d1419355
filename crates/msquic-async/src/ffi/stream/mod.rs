//! `NativeStream`: a stream handle, and when it is closed.

mod events;

pub(crate) use events::{PeerStream, StreamEvent, StreamHandler};

use super::MAX_CODE;
use super::connection::{Hold, NativeConnection};
use super::execution;
use super::functions::call;
use super::gate::Inside;
use super::holding::Holding;
use super::may_block::MayBlock;
use super::sends::StreamSendContext;
use super::slot::{Closer, Slot, Slotted};
use super::status::Status;
use crate::buffer::Completions;
use bytes::Bytes;
use msquic::ffi;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A stream handle. It is closed after its last event, when no call uses it any more.
pub(crate) struct NativeStream {
    slot: Slot<StreamCloser>,
    /// Which held bytes are completed.
    completions: Mutex<Completions>,
    /// Nothing that was received is completed any more.
    is_receive_over: AtomicBool,
    /// The handle was opened by other code.
    is_foreign: AtomicBool,
    connection: Arc<NativeConnection>,
}

/// How to end a direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abort {
    Send,
    Receive,
    /// Both directions, and the last event comes without waiting for the peer.
    Everything,
}

impl NativeStream {
    /// A stream of `connection` without a handle.
    pub(crate) fn new(connection: &Arc<NativeConnection>) -> Self {
        Self {
            slot: Slot::empty(),
            completions: Mutex::default(),
            is_receive_over: AtomicBool::new(false),
            is_foreign: AtomicBool::new(false),
            connection: connection.clone(),
        }
    }

    /// Sends `data`, and then the end of the stream if `fin`. The bytes are read until
    /// `SendComplete`. On failure nothing was sent and no event comes.
    pub(crate) fn send(&self, data: Vec<Bytes>, fin: bool) -> Result<(), Status> {
        debug_assert!(fin || data.iter().any(|bytes| !bytes.is_empty()), "C23");
        let context = Box::into_raw(StreamSendContext::new(data)?);
        let flags = if fin {
            ffi::QUIC_SEND_FLAGS_QUIC_SEND_FLAG_FIN
        } else {
            ffi::QUIC_SEND_FLAGS_QUIC_SEND_FLAG_NONE
        };
        let sent = self.with(|handle| {
            // SAFETY: C23: after a success the context belongs to the completion of the send, which frees
            // array and bytes; the call does not look at them after it has succeeded.
            Status::ok(unsafe {
                let array = (*context).array();
                let (buffers, count) = (array.as_ptr(), array.len() as u32);
                call!(StreamSend(handle, buffers, count, flags, context.cast()))
            })
        });
        if sent.is_err() {
            // SAFETY: C23: no event comes for it.
            drop(unsafe { Box::from_raw(context) });
        }
        sent
    }

    /// Aborts with `code`. Never blocks.
    pub(crate) fn abort(&self, what: Abort, code: u64) {
        self.require_memory(self.try_abort(what, code), code);
    }

    fn try_abort(&self, what: Abort, code: u64) -> Result<(), Status> {
        let flags = match what {
            Abort::Send => ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_SEND,
            Abort::Receive => {
                ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_RECEIVE
            }
            Abort::Everything => {
                ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT
                    | ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_IMMEDIATE
            }
        };
        let result = self.with(|handle| {
            // SAFETY: C1, C24: asynchronous; the handle is open.
            Status::ok(unsafe { call!(StreamShutdown(handle, flags, code.min(MAX_CODE))) })
        });
        if let Err(status) = result
            && status != Status::INVALID_STATE
        {
            tracing::warn!(%status, "a stream could not be aborted");
        }
        result
    }

    /// Resumes receiving after fewer bytes were taken than offered. Never blocks.
    pub(crate) fn enable_receive(&self) {
        let enabled = self.with(|handle| {
            // SAFETY: C1, C25: asynchronous; the handle is open.
            Status::ok(unsafe { call!(StreamReceiveSetEnabled(handle, 1)) })
        });
        self.require_memory(enabled, 0);
    }

    /// Closes the connection with `code` if a call on the stream failed for lack of memory:
    /// otherwise both sides would wait for the call's effect. The shutdown uses an operation that
    /// is reserved for it (C1). A send that lacks memory shuts the connection down as well (C23).
    fn require_memory(&self, result: Result<(), Status>, code: u64) {
        if result == Err(Status::OUT_OF_MEMORY) {
            self.connection.shutdown(code, false);
        }
    }

    /// How received bytes are held.
    pub(super) fn holding(&self) -> Holding {
        match self.connection.holding() {
            // It may have been opened before libmsquic applied the configuration's settings.
            Holding::Several if self.is_foreign.load(Ordering::SeqCst) => Holding::OneByOne,
            holding => holding,
        }
    }

    pub(super) fn set_foreign(&self) {
        self.is_foreign.store(true, Ordering::SeqCst);
    }

    pub(super) fn completions(&self) -> &Mutex<Completions> {
        &self.completions
    }

    /// Completes the oldest `length` bytes that are held. Never blocks.
    pub(super) fn complete_receive(&self, length: u64) {
        if self.is_receive_over.load(Ordering::SeqCst) {
            return; // C32: a reset has given the credit back
        }
        let _ = self.with(|handle| {
            // SAFETY: C1, C32, C36: asynchronous; the handle is open. These bytes are no longer
            // used, and each byte is completed once: together with all that were offered, or in the
            // mode that allows parts.
            unsafe { call!(StreamReceiveComplete(handle, length)) };
            Ok(())
        });
    }

    /// Sets the priority among the streams of the connection.
    pub(crate) fn set_priority(&self, priority: u16, _: &MayBlock) -> Result<(), Status> {
        self.with(|handle| {
            // SAFETY: C5: the value is copied before the call returns.
            Status::ok(unsafe {
                call!(SetParam(
                    handle,
                    ffi::QUIC_PARAM_STREAM_PRIORITY,
                    size_of_val(&priority) as u32,
                    (&raw const priority).cast(),
                ))
            })
        })
    }

    /// Keeps the handle open, so that the peer gets no credit for another stream (C20); `None` once it is
    /// closed.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<StreamHold> {
        Inside::enter(self.clone())
    }
}

impl Slotted for NativeStream {
    type Closer = StreamCloser;

    fn slot(&self) -> &Slot<StreamCloser> {
        &self.slot
    }
}

/// Keeps a stream's handle open.
pub(crate) type StreamHold = Inside<Arc<NativeStream>>;

/// Closes a stream, and keeps its connection open until then.
pub(crate) struct StreamCloser(Hold);

impl Closer for StreamCloser {
    const WAITS: bool = true;

    unsafe fn close(self, handle: ffi::HQUIC) {
        if execution::is_driven() {
            // C29: the close is completed only if another operation of the connection follows it.
            // SAFETY: C1, C25: asynchronous; the handle is open.
            unsafe { call!(StreamReceiveSetEnabled(handle, 1)) };
        }
        // SAFETY: C4, C9: the caller's promise. On the connection's own thread this does not block,
        // elsewhere it may.
        unsafe { call!(StreamClose(handle)) };
        let Self(connection) = self;
        drop(connection); // the connection may be closed after the stream
    }
}
