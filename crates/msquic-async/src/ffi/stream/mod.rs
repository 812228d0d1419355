//! `NativeStream`: a stream handle, and when it is closed.

mod events;

pub(crate) use events::{PeerStream, StreamEvent, StreamHandler};

use super::connection::{Hold, NativeConnection};
use super::execution;
use super::functions::call;
use super::gate::{Gate, Gated, Inside};
use super::may_block::{self, MayBlock};
use super::sends::StreamSendContext;
use super::status::Status;
use super::{Handle, MAX_CODE};
use crate::buffer::Completions;
use bytes::Bytes;
use msquic::ffi;
use parking_lot::Mutex;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A stream handle. It is closed after its last event, when no call uses it any more.
pub(crate) struct NativeStream {
    handle: OnceLock<Handle>,
    /// There is a [`Claim`], or was one that set the handle.
    is_claimed: AtomicBool,
    gate: Gate,
    /// Which held bytes are done with.
    completions: Mutex<Completions>,
    /// Nothing that was received is completed any more.
    is_receive_over: AtomicBool,
    connection: Arc<NativeConnection>,
    /// Keeps the connection's handle open until this one is closed.
    hold: Mutex<Option<Hold>>,
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
            handle: OnceLock::new(),
            is_claimed: AtomicBool::new(false),
            gate: Gate::new(),
            completions: Mutex::default(),
            is_receive_over: AtomicBool::new(false),
            connection: connection.clone(),
            hold: Mutex::default(),
        }
    }

    /// Closes a stream that was opened, and can neither be started nor aborted. The close delivers the last event
    /// (C13).
    fn close_unstarted(&self) {
        if self.gate.close() {
            self.release();
        }
    }

    /// The right to set the handle, which is there once.
    fn claim(&self) -> Result<Claim<'_>, Status> {
        let is_taken = self.is_claimed.swap(true, Ordering::SeqCst);
        if is_taken { Err(Status::INVALID_STATE) } else { Ok(Claim(self)) }
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

    /// Lets bytes come again after fewer were taken than offered. Never blocks.
    pub(crate) fn enable_receive(&self) {
        let enabled = self.with(|handle| {
            // SAFETY: C1, C25: asynchronous; the handle is open.
            Status::ok(unsafe { call!(StreamReceiveSetEnabled(handle, 1)) })
        });
        self.require_memory(enabled, 0);
    }

    /// Closes the connection with `code` if a call on the stream lacked memory: otherwise both sides would wait
    /// for the call's effect. The shutdown has its memory in reserve (C1), as a send that lacks memory shuts the
    /// connection down too (C23).
    fn require_memory(&self, result: Result<(), Status>, code: u64) {
        if result == Err(Status::OUT_OF_MEMORY) {
            self.connection.shutdown(code, false);
        }
    }

    pub(super) fn completions(&self) -> &Mutex<Completions> {
        &self.completions
    }

    /// The oldest `length` bytes that are held are done with. Never blocks.
    pub(super) fn complete_receive(&self, length: u64) {
        if self.is_receive_over.load(Ordering::SeqCst) {
            return; // C32: a reset has given the credit back
        }
        let _ = self.with(|handle| {
            // SAFETY: C1, C32, C36: asynchronous; the handle is open. These bytes are no longer used, and
            // each byte is completed once, in one go with all that were offered, or in the mode that takes parts.
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

    fn with<T>(&self, call: impl FnOnce(ffi::HQUIC) -> Result<T, Status>) -> Result<T, Status> {
        let this = Inside::enter(self).ok_or(Status::INVALID_STATE)?;
        let Handle(handle) = this.handle.get().ok_or(Status::INVALID_STATE)?;
        call(*handle)
    }

    /// Closes the handle after the last event, in the callback, unless it is in use.
    fn close_in_callback(&self) {
        if self.gate.close()
            && let Some(handle) = self.handle.get()
        {
            let hold = self.hold.lock().take();
            // SAFETY: C9: in the callback of the last event.
            unsafe { close(*handle, hold) };
        }
    }
}

/// The right to give a stream its handle. Dropping it gives it back.
struct Claim<'a>(&'a NativeStream);

impl Claim<'_> {
    fn set(self, handle: ffi::HQUIC, hold: Hold) {
        let Self(stream) = *ManuallyDrop::new(self);
        *stream.hold.lock() = Some(hold);
        let _ = stream.handle.set(Handle(handle)); // this is the only claim
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.is_claimed.store(false, Ordering::SeqCst);
    }
}

impl Gated for NativeStream {
    fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Closes the handle on a thread that may block.
    fn release(&self) {
        let Some(handle) = self.handle.get().copied() else { return };
        let hold = self.hold.lock().take();
        may_block::detach_close(move |_| {
            // SAFETY: C9: this thread may block.
            unsafe { close(handle, hold) };
        });
    }
}

/// Keeps a stream's handle open.
pub(crate) type StreamHold = Inside<Arc<NativeStream>>;

/// The only place that closes a stream. The connection may be closed after it.
///
/// # Safety
///
/// As for closing a connection.
unsafe fn close(Handle(handle): Handle, connection: Option<Hold>) {
    if execution::is_driven() {
        // C29: the close needs another operation of the connection behind it, or it is not completed.
        // SAFETY: C1, C25: asynchronous; the handle is open.
        unsafe { call!(StreamReceiveSetEnabled(handle, 1)) };
    }
    // SAFETY: C4, C9: after the last event, and the gate lets no call use the handle any more. On
    // the connection's own thread this does not block, elsewhere it may.
    unsafe { call!(StreamClose(handle)) };
    drop(connection);
}
