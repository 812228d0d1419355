//! The events of a stream, and the handler that gets them.

use super::{Abort, NativeStream, StreamCloser};
use crate::ffi::bound::Bound;
use crate::ffi::calls::Calls;
use crate::ffi::connection::{Hold, NativeConnection};
use crate::ffi::functions::call;
use crate::ffi::guard::guard;
use crate::ffi::receive::Received;
use crate::ffi::sends::StreamSendContext;
use crate::ffi::slot::Slotted;
use crate::ffi::status::Status;
use msquic::ffi;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An event of a stream, except received bytes; see `QUIC_STREAM_EVENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    StartComplete {
        status: Status,
        id: u64,
    },
    SendComplete {
        canceled: bool,
    },
    /// How many bytes the path can have in flight.
    IdealSendBuffer {
        bytes: u64,
    },
    PeerSendShutdown,
    PeerSendAborted {
        code: u64,
    },
    PeerReceiveAborted {
        code: u64,
    },
    SendShutdownComplete {
        graceful: bool,
    },
    /// The last event. `connection` says whether it came because the connection ended.
    ShutdownComplete {
        connection: bool,
    },
}

/// Handles the events of one stream, which never overlap (C1).
pub(crate) trait StreamHandler: Send + Sync + 'static {
    fn on_event(self: &Arc<Self>, event: StreamEvent, calls: Calls<'_>);
    /// Takes bytes as they arrive and returns how many; taking fewer than offered pauses the stream
    /// until [`NativeStream::enable_receive`]. What it [holds](Received::hold) counts as taken.
    fn on_receive(self: &Arc<Self>, received: Received<'_>) -> usize;
}

impl NativeStream {
    /// Opens the stream, unless a handle was adopted, and starts it. After `Ok`, `handler` lives
    /// until the last event. `StartComplete` reports the result of the start; after a failure the
    /// last event follows. At the peer's limit the start fails if `fail_on_blocked`, and waits
    /// otherwise.
    pub(crate) fn start<H: StreamHandler>(
        self: &Arc<Self>,
        unidirectional: bool,
        fail_on_blocked: bool,
        handler: &Arc<H>,
    ) -> Result<(), Status> {
        if self.slot.handle().is_err() {
            self.open(unidirectional, handler)?;
        }
        let start_flags = ffi::QUIC_STREAM_START_FLAGS_QUIC_STREAM_START_FLAG_SHUTDOWN_ON_FAIL
            | if fail_on_blocked {
                ffi::QUIC_STREAM_START_FLAGS_QUIC_STREAM_START_FLAG_FAIL_BLOCKED
            } else {
                0
            };
        let started = self.with(|handle| {
            // SAFETY: C1, C24: asynchronous; the handle is open.
            Status::ok(unsafe { call!(StreamStart(handle, start_flags)) })
        });
        // C24: the last event comes after this, although the stream never started.
        if started.is_err() && self.try_abort(Abort::Everything, 0).is_err() {
            self.slot.close(); // C13: the close delivers the last event
        }
        started
    }

    fn open<H: StreamHandler>(
        self: &Arc<Self>,
        unidirectional: bool,
        handler: &Arc<H>,
    ) -> Result<(), Status> {
        let claim = self.slot.claim()?;
        let hold = self.connection.hold().ok_or(Status::INVALID_STATE)?;
        let connection = hold.slot().handle()?;
        let open_flags = if unidirectional {
            ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL
        } else {
            ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_NONE
        };
        let context = Bound::context(self, handler);
        let mut handle = ptr::null_mut();
        // SAFETY: C13: `trampoline` takes the context back at the last event. No event comes before a call
        // with the handle. `hold` keeps the connection.
        let opened = unsafe {
            Status::ok(call!(StreamOpen(
                connection,
                open_flags,
                Some(trampoline::<H>),
                context,
                &raw mut handle,
            )))
        };
        if let Err(status) = opened {
            // SAFETY: the handle was not opened, so no callback has the context.
            drop(unsafe { Bound::<Self, H>::take(context) });
            return Err(status);
        }
        claim.set(handle, StreamCloser(hold));
        Ok(())
    }

    /// Sets `handler` as the one of `handle`; fails if this stream has a handle already.
    ///
    /// # Safety
    ///
    /// `handle` is an open stream of this value's connection, which `hold` keeps, only this value uses or closes it,
    /// and no event of it can come before this returns: it was not started, or its
    /// PEER_STREAM_STARTED is being handled.
    pub(in crate::ffi) unsafe fn adopt<H: StreamHandler>(
        self: &Arc<Self>,
        handle: ffi::HQUIC,
        hold: Hold,
        handler: &Arc<H>,
    ) -> Result<(), Status> {
        let claim = self.slot.claim()?;
        let context = Bound::context(self, handler);
        let function: unsafe extern "C" fn(_, _, _) -> _ = trampoline::<H>;
        // SAFETY: C13, C18: before any event of the stream.
        unsafe { call!(SetCallbackHandler(handle, function as *mut c_void, context)) };
        claim.set(handle, StreamCloser(hold));
        Ok(())
    }
}

/// A stream that the peer opened. [`adopt`](Self::adopt) takes ownership of it.
pub(crate) struct PeerStream<'a> {
    handle: ffi::HQUIC,
    connection: &'a Arc<NativeConnection>,
    pub(crate) unidirectional: bool,
    pub(crate) id: u64,
    hold: Hold,
    adopted: &'a mut bool,
}

impl<'a> PeerStream<'a> {
    /// # Safety
    ///
    /// Inside the PEER_STREAM_STARTED callback of `connection` that names `handle`; `hold` keeps the connection.
    pub(in crate::ffi) unsafe fn new(
        connection: &'a Arc<NativeConnection>,
        handle: ffi::HQUIC,
        unidirectional: bool,
        hold: Hold,
        adopted: &'a mut bool,
    ) -> Self {
        let mut id = 0_u64;
        let mut length = size_of_val(&id) as u32;
        // SAFETY: C5, C16: inline on the connection's own thread; eight bytes are written.
        let _ = unsafe {
            let id = (&raw mut id).cast();
            call!(GetParam(handle, ffi::QUIC_PARAM_STREAM_ID, &raw mut length, id))
        };
        Self { handle, connection, unidirectional, id, hold, adopted }
    }

    /// Takes ownership, with the handler that `make` creates. On failure libmsquic closes the
    /// stream (C18).
    pub(crate) fn adopt<H: StreamHandler>(
        self,
        make: impl FnOnce(Arc<NativeStream>) -> Arc<H>,
    ) -> Result<Arc<H>, Status> {
        let stream = Arc::new(NativeStream::new(self.connection));
        let handler = make(stream.clone());
        // SAFETY: C18: inside PEER_STREAM_STARTED, before any event of the stream, which is one of the connection.
        unsafe { stream.adopt(self.handle, self.hold, &handler) }?;
        *self.adopted = true;
        Ok(handler)
    }
}

/// All events of all streams arrive here.
///
/// # Safety
///
/// Called by libmsquic with the context that was registered with the handle.
unsafe extern "C" fn trampoline<H: StreamHandler>(
    _stream: ffi::HQUIC,
    context: *mut c_void,
    event: *mut ffi::QUIC_STREAM_EVENT,
) -> ffi::QUIC_STATUS {
    let status = guard(Status::INTERNAL_ERROR, || {
        // SAFETY: C13: the context lives until the end of the last event, and `event` is valid during the call.
        unsafe { dispatch(Bound::<_, H>::of(context), &mut *event) }
    });
    // SAFETY: `event` is valid during the call.
    let is_last =
        unsafe { (*event).Type } == ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE;
    if is_last {
        guard((), || {
            // SAFETY: C9, C13: no event follows, so the context comes back.
            unsafe { Bound::<NativeStream, H>::take(context).native.slot.close_in_callback() };
        });
    }
    status.to_raw()
}

/// Translates one event.
///
/// # Safety
///
/// `event` is what libmsquic gave to the callback, and the callback is still running.
unsafe fn dispatch<H: StreamHandler>(
    bound: &Bound<NativeStream, H>,
    event: &mut ffi::QUIC_STREAM_EVENT,
) -> Status {
    let data = &mut event.__bindgen_anon_1;
    // SAFETY: C6: `Type` says which member of the union is there.
    let event = unsafe {
        match event.Type {
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE => {
                return receive(bound, &mut data.RECEIVE);
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_START_COMPLETE => {
                let complete = data.START_COMPLETE;
                StreamEvent::StartComplete {
                    status: Status::from_raw(complete.Status),
                    id: complete.ID,
                }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_COMPLETE => {
                let complete = data.SEND_COMPLETE;
                // C23: each send completes once, so the context comes back.
                let context = Box::from_raw(complete.ClientContext.cast::<StreamSendContext>());
                guard((), || drop(context)); // the bytes may have a foreign owner
                StreamEvent::SendComplete { canceled: complete.Canceled != 0 }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_IDEAL_SEND_BUFFER_SIZE => {
                StreamEvent::IdealSendBuffer { bytes: data.IDEAL_SEND_BUFFER_SIZE.ByteCount }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_SHUTDOWN => {
                StreamEvent::PeerSendShutdown
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_ABORTED => {
                bound.native.is_receive_over.store(true, Ordering::SeqCst);
                StreamEvent::PeerSendAborted { code: data.PEER_SEND_ABORTED.ErrorCode }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_RECEIVE_ABORTED => {
                StreamEvent::PeerReceiveAborted { code: data.PEER_RECEIVE_ABORTED.ErrorCode }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_SHUTDOWN_COMPLETE => {
                let graceful = data.SEND_SHUTDOWN_COMPLETE.Graceful != 0;
                StreamEvent::SendShutdownComplete { graceful }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE => {
                let connection = data.SHUTDOWN_COMPLETE.ConnectionShutdown != 0;
                StreamEvent::ShutdownComplete { connection }
            }
            _ => return Status::SUCCESS, // C19
        }
    };
    // SAFETY: C16: inside a callback of a stream of this connection.
    bound.handler.on_event(event, unsafe { Calls::new(&bound.native.connection) });
    Status::SUCCESS
}

/// Offers received bytes to the handler and returns to libmsquic how many it took.
///
/// # Safety
///
/// As for [`dispatch`].
unsafe fn receive<H: StreamHandler>(
    Bound { native, handler }: &Bound<NativeStream, H>,
    event: &mut ffi::QUIC_STREAM_EVENT__bindgen_ty_1__bindgen_ty_2,
) -> Status {
    let offered = event.TotalBufferLength;
    event.TotalBufferLength = 0; // nothing is taken if the handler panics
    let buffers = if offered == 0 || event.Buffers.is_null() {
        &[] // C25: the end of the stream alone
    } else {
        // SAFETY: C25: array and bytes are valid during the callback.
        unsafe { slice::from_raw_parts(event.Buffers, event.BufferCount as usize) }
    };
    let is_last = event.Flags & ffi::QUIC_RECEIVE_FLAGS_QUIC_RECEIVE_FLAG_FIN != 0;
    let offset = event.AbsoluteOffset;
    let is_held = Cell::new(false);
    let taken = guard(None, || {
        let is_held = &is_held;
        Some(handler.on_receive(Received { stream: native, buffers, offset, is_last, is_held }))
    });
    if taken.is_none() {
        // The handler panicked, so it is unknown which bytes were taken, and reading must not
        // continue.
        native.abort(Abort::Everything, 0);
    }
    // C32: held bytes stay held, whatever went wrong afterwards.
    if is_held.get() {
        return Status::PENDING;
    }
    if let Some(taken) = taken {
        debug_assert!(taken as u64 <= offered);
        event.TotalBufferLength = offered.min(taken as u64);
    }
    Status::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::testing::{Pair, pair};
    use crate::{Settings, StreamType};
    use futures::executor::block_on;
    use parking_lot::Mutex;
    use std::sync::mpsc;

    /// Forwards its events.
    struct Handler {
        native: Arc<NativeStream>,
        events: Mutex<mpsc::Sender<StreamEvent>>,
    }

    impl StreamHandler for Handler {
        fn on_event(self: &Arc<Self>, event: StreamEvent, _: Calls<'_>) {
            let _ = self.events.lock().send(event);
        }

        fn on_receive(self: &Arc<Self>, received: Received<'_>) -> usize {
            received.length()
        }
    }

    fn handler(pair: &Pair) -> (Arc<Handler>, mpsc::Receiver<StreamEvent>) {
        let (events, receiver) = mpsc::channel();
        let native = Arc::new(NativeStream::new(pair.client.inner().native()));
        (Arc::new(Handler { native, events: Mutex::new(events) }), receiver)
    }

    #[test]
    fn a_stream_that_can_neither_be_started_nor_aborted_is_closed() {
        block_on(async {
            let pair = pair(&Settings::new()).await;
            let (handler, events) = handler(&pair);
            handler.native.open(true, &handler).unwrap();
            handler.native.slot.close(); // as if memory were short
            drop(handler);
            // The channel ends when the context was freed.
            let last = events.iter().last();
            assert_eq!(last, Some(StreamEvent::ShutdownComplete { connection: false }));
            let Pair { registration, listener, client, server } = pair;
            drop((listener, client, server));
            registration.wait_idle().await;
        });
    }

    #[test]
    fn a_stream_has_one_handle() {
        block_on(async {
            let pair = pair(&Settings::new().peer_uni_streams(4)).await;
            let (handler, events) = handler(&pair);
            handler.native.open(true, &handler).unwrap();
            assert_eq!(handler.native.open(true, &handler), Err(Status::INVALID_STATE));
            handler.native.slot.close();
            drop(handler);
            assert_eq!(events.iter().count(), 2, "of one stream: the end of sending, and the last");
            // A failure gives the claim back.
            let stream = pair.client.open_outbound_stream(StreamType::Unidirectional, false).await;
            assert!(stream.is_ok());
        });
    }
}
