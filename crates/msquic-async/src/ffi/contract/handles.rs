//! Handles of the raw table, which are closed in order, and the calls with them.

use super::callbacks;
use super::events::{Answer, Call, Event, Events, Recorder};
use super::roots::Configuration;
use super::{is_driven, outside};
use crate::ffi::functions::call;
use crate::ffi::status::Status;
use crate::ffi::{Handle, address};
use msquic::ffi;
use std::ffi::CStr;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Any bytes are a value of such a type, and it owns nothing.
///
/// # Safety
///
/// As above.
pub(super) unsafe trait Plain: Copy + Send + 'static {}

// SAFETY: C10: integers.
unsafe impl Plain for u8 {}
// SAFETY: C10: integers.
unsafe impl Plain for u16 {}
// SAFETY: C10: integers.
unsafe impl Plain for u32 {}
// SAFETY: C10: integers.
unsafe impl Plain for u64 {}
// SAFETY: C10: integers.
unsafe impl<const N: usize> Plain for [u8; N] {}
// SAFETY: C10: integers.
unsafe impl Plain for ffi::QUIC_SETTINGS {}
// SAFETY: C6: a union of structures of integers.
unsafe impl Plain for msquic::Addr {}

/// What API calls are made with.
///
/// # Safety
///
/// The handle is open as long as the value is borrowed, and `run` runs its job where calls that wait may be made (C9),
/// not at the same time as a turn of the driver (C29).
pub(super) unsafe trait Open {
    fn handle(&self) -> Handle;

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T;

    /// Reads the parameter, with room for all of it.
    fn get<T: Plain>(&self, param: u32) -> Result<T, Status> {
        let (status, value, _) = self.get_with_length(param, size_of::<T>() as u32);
        Status::ok(status.to_raw()).map(|()| value)
    }

    /// Reads the parameter, with room for `length` bytes, and returns the length that the call
    /// reports too.
    fn get_with_length<T: Plain>(&self, param: u32, mut length: u32) -> (Status, T, u32) {
        assert!(length as usize <= size_of::<T>());
        let handle = self.handle();
        self.run(move || {
            let Handle(handle) = { handle };
            // SAFETY: C5, C9: the handle is open; at most `length` bytes are written over zeroed ones.
            unsafe {
                let mut value = MaybeUninit::<T>::zeroed();
                let buffer = value.as_mut_ptr().cast();
                let status = call!(GetParam(handle, param, &raw mut length, buffer));
                (Status::from_raw(status), value.assume_init(), length)
            }
        })
    }

    /// Sets the parameter, and overwrites the memory that it was set from.
    fn set<T: Plain>(&self, param: u32, value: T) -> Status {
        let handle = self.handle();
        self.run(move || {
            let (Handle(handle), mut value) = ({ handle }, value);
            // SAFETY: C5, C9, C10: the handle is open; the value is copied. Zero is a value of the type.
            unsafe {
                let buffer = &raw mut value;
                let length = size_of::<T>() as u32;
                let status = call!(SetParam(handle, param, length, buffer.cast()));
                buffer.write(mem::zeroed());
                Status::from_raw(status)
            }
        })
    }

    /// Sets a parameter of any length.
    fn set_bytes(&self, param: u32, value: Vec<u8>) -> Status {
        let handle = self.handle();
        self.run(move || {
            let Handle(handle) = { handle };
            let (length, buffer) = (value.len() as u32, value.as_ptr().cast());
            // SAFETY: C5, C9: the handle is open; the bytes are copied.
            Status::from_raw(unsafe { call!(SetParam(handle, param, length, buffer)) })
        })
    }

    /// Closes a connection; asynchronous.
    fn shutdown(&self, code: u64) {
        self.shutdown_with(
            ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_NONE,
            code,
        );
    }

    fn shutdown_with(&self, flags: ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS, code: u64) {
        // SAFETY: C1, C15: asynchronous, in every state of the open handle.
        unsafe { call!(ConnectionShutdown(self.handle().0, flags, code)) };
    }

    /// Aborts or ends a stream; asynchronous.
    fn abort(&self, flags: ffi::QUIC_STREAM_SHUTDOWN_FLAGS, code: u64) -> Status {
        // SAFETY: C1, C24: asynchronous; the handle is open.
        Status::from_raw(unsafe { call!(StreamShutdown(self.handle().0, flags, code)) })
    }

    fn start_stream(&self, flags: ffi::QUIC_STREAM_START_FLAGS) -> Status {
        // SAFETY: C1, C24: asynchronous; the handle is open.
        Status::from_raw(unsafe { call!(StreamStart(self.handle().0, flags)) })
    }

    /// Sends bytes that live as long as the process. The context is the address of the first.
    fn send(&self, data: &'static [u8], fin: bool) -> Result<usize, Status> {
        let array = Vec::leak(vec![ffi::QUIC_BUFFER {
            Length: data.len() as u32,
            Buffer: data.as_ptr().cast_mut(), // only read
        }]);
        let fin = if fin { ffi::QUIC_SEND_FLAGS_QUIC_SEND_FLAG_FIN } else { 0 };
        let context = array.as_ptr().addr();
        // SAFETY: C1, C23: the array and the bytes are never freed.
        Status::ok(unsafe {
            call!(StreamSend(
                self.handle().0,
                array.as_ptr(),
                1,
                fin,
                ptr::without_provenance_mut(context)
            ))
        })
        .map(|()| context)
    }

    fn send_datagram(&self, data: &'static [u8]) -> Result<usize, Status> {
        let array = Vec::leak(vec![ffi::QUIC_BUFFER {
            Length: data.len() as u32,
            Buffer: data.as_ptr().cast_mut(), // only read
        }]);
        let context = array.as_ptr().addr();
        // SAFETY: C1, C26: the array and the bytes are never freed.
        Status::ok(unsafe {
            call!(DatagramSend(
                self.handle().0,
                array.as_ptr(),
                1,
                0,
                ptr::without_provenance_mut(context)
            ))
        })
        .map(|()| context)
    }

    fn enable_receive(&self) -> Status {
        // SAFETY: C1, C25: asynchronous; the handle is open.
        Status::from_raw(unsafe { call!(StreamReceiveSetEnabled(self.handle().0, 1)) })
    }

    fn complete_receive(&self, length: u64) {
        // SAFETY: C1, C32: tests complete once, in full length.
        unsafe { call!(StreamReceiveComplete(self.handle().0, length)) };
    }

    /// Starts a client's connection; asynchronous. The name does not outlive the call.
    fn connect(&self, configuration: &Configuration, server: SocketAddr) -> Status {
        let mut name = format!("{}\0", server.ip()).into_bytes();
        // SAFETY: C14: name and configuration are copied or counted before the call returns.
        let status = unsafe {
            let host = CStr::from_bytes_with_nul_unchecked(&name).as_ptr();
            let (handle, configuration) = (self.handle().0, configuration.handle.0);
            call!(ConnectionStart(handle, configuration, 0, host, server.port()))
        };
        name.fill(b'x');
        Status::from_raw(status)
    }

    /// Accepts a server's connection; asynchronous.
    fn accept(&self, configuration: Handle) -> Status {
        // SAFETY: C14: the configuration is counted before the call returns; tests keep it open till then.
        Status::from_raw(unsafe {
            call!(ConnectionSetConfiguration(self.handle().0, configuration.0))
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Stream,
    Listener,
}

/// A handle with events, closed when it is dropped unless it was before.
pub(super) struct Object {
    handle: Handle,
    kind: Kind,
    pub(super) events: Events,
    is_closed: AtomicBool,
}

// SAFETY: C4: the handle is open until `close`, after which the assertion stops every call.
unsafe impl Open for Object {
    fn handle(&self) -> Handle {
        assert!(!self.is_closed.load(Ordering::SeqCst), "C4");
        self.handle
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        outside(job)
    }
}

impl Object {
    pub(super) fn new(handle: Handle, kind: Kind, events: Events) -> Self {
        Self { handle, kind, events, is_closed: AtomicBool::new(false) }
    }

    /// Returns the handle for other threads and for callbacks, while the test keeps the object.
    pub(super) fn borrow(&self) -> Borrowed {
        Borrowed(self.handle())
    }

    /// Closes the handle and waits until it is closed.
    pub(super) fn close(&self) {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            let (handle, kind) = (self.handle, self.kind);
            outside(move || close(handle, kind));
        }
    }

    /// Closes the handle inside `call`, a callback of its connection.
    pub(super) fn close_in(&self, _: &Call<'_>) {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            close(self.handle, self.kind);
        }
    }

    /// Returns the handle, which the caller closes.
    pub(super) fn forget(&self) -> Handle {
        self.is_closed.store(true, Ordering::SeqCst);
        self.handle
    }

    /// Opens a stream of the connection.
    pub(super) fn open_stream(
        &self,
        is_unidirectional: bool,
        react: impl Fn(&Call<'_>) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, Status> {
        let (context, events) = Recorder::create(react);
        let unidirectional = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL;
        let flags = if is_unidirectional { unidirectional } else { 0 };
        let mut stream = ptr::null_mut();
        // SAFETY: C1, C13: the context is never freed.
        Status::ok(unsafe {
            let callback = Some(callbacks::on_stream_event as unsafe extern "C" fn(_, _, _) -> _);
            call!(StreamOpen(self.handle().0, flags, callback, context, &raw mut stream))
        })?;
        Ok(Self::new(Handle(stream), Kind::Stream, events))
    }

    /// Starts a listener. The names and the address do not outlive the call.
    pub(super) fn listen(&self, alpn: &[u8], addr: SocketAddr) -> Status {
        assert_eq!(self.kind, Kind::Listener);
        let (mut alpn, mut addr) = (alpn.to_vec(), address::to_native_listen(addr));
        let mut names = [ffi::QUIC_BUFFER { Length: alpn.len() as u32, Buffer: alpn.as_mut_ptr() }];
        // SAFETY: C21: names and address are copied before the call returns.
        let status = unsafe {
            call!(ListenerStart(self.handle().0, names.as_ptr(), 1, (&raw const addr).cast()))
        };
        alpn.fill(b'x');
        names[0].Length = 0;
        addr = address::to_native(([0, 0, 0, 0], 1).into());
        let _ = (alpn, names, addr);
        Status::from_raw(status)
    }

    /// Stops a listener.
    pub(super) fn stop(&self) {
        assert_eq!(self.kind, Kind::Listener);
        stop(self.handle());
    }

    /// The address of a listener.
    pub(super) fn local_addr(&self) -> SocketAddr {
        let addr = self.get::<msquic::Addr>(ffi::QUIC_PARAM_LISTENER_LOCAL_ADDRESS);
        address::from_native_listen(&addr.unwrap())
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.close();
    }
}

fn stop(Handle(handle): Handle) {
    // SAFETY: C21: no other stop or close is in progress.
    unsafe { call!(ListenerStop(handle)) };
}

/// The handle of an [`Object`] that a test keeps open.
#[derive(Clone, Copy)]
pub(super) struct Borrowed(Handle);

impl Borrowed {
    /// Stops a listener.
    pub(super) fn stop(&self) {
        stop(self.0);
    }
}

// SAFETY: C4: tests borrow handles only for as long as they keep the object.
unsafe impl Open for Borrowed {
    fn handle(&self) -> Handle {
        self.0
    }

    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        outside(job)
    }
}

fn close(Handle(handle): Handle, kind: Kind) {
    const SILENT: ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS =
        ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT;
    // SAFETY: C4, C9, C29: called once, where it may wait, and not at the same time as a turn of the driver.
    unsafe {
        match kind {
            Kind::Connection => {
                if is_driven() {
                    let close_async = 1_u8; // C29: unknown before 2.6
                    call!(SetParam(handle, CLOSE_ASYNC, 1, (&raw const close_async).cast()));
                    call!(ConnectionShutdown(handle, SILENT, 0)); // C29: an operation behind the close
                }
                call!(ConnectionClose(handle));
            }
            Kind::Stream => {
                if is_driven() {
                    call!(StreamReceiveSetEnabled(handle, 1)); // C29
                }
                call!(StreamClose(handle));
            }
            Kind::Listener => call!(ListenerClose(handle)),
        }
    }
}

/// `QUIC_PARAM_CONN_CLOSE_ASYNC`, which the binding does not have.
pub(super) const CLOSE_ASYNC: u32 = 0x0500_001A;

/// Answers with success, and rejects streams of the peer (C18).
pub(super) fn ignore(call: &Call<'_>) -> Answer {
    match call.event {
        Event::PeerStream { .. } => Answer::status(Status::ABORTED),
        _ => Answer::default(),
    }
}

impl Deref for Object {
    type Target = Events;

    fn deref(&self) -> &Events {
        &self.events
    }
}

/// Returns whether `event` reports the end of the handshake.
pub(super) fn is_connected(event: &Event) -> bool {
    matches!(event, Event::Connected { .. })
}
