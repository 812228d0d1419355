//! `Calls`: the calls with a connection's handle that wait for its worker (C9).

use super::address;
use super::connection::NativeConnection;
use super::functions::call;
use super::library::has_patch;
use super::may_block::MayBlock;
use super::settings::{InEffect, NativeSettings};
use super::slot::Slotted;
use super::status::Status;
use msquic::ffi;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem;
use std::net::SocketAddr;
use std::ptr;

/// Reads and changes the parameters of one connection, on threads where that is allowed.
///
/// Outside of its callbacks such a call waits for the worker of the connection, so it must not be made in a
/// callback of another connection, nor on a thread that must not block. A value exists in two places: a callback
/// gets that of its own connection, where the calls run inline (C16), and [`NativeConnection::calls`] returns one
/// on threads that may block. It cannot be moved to another thread.
#[derive(Clone, Copy)]
pub(crate) struct Calls<'a> {
    native: &'a NativeConnection,
    /// Makes the type `!Send`.
    _not_send: PhantomData<*const ()>,
}

impl<'a> Calls<'a> {
    /// # Safety
    ///
    /// For `'a` this thread is inside a callback of `native` or of one of its streams, or it may block.
    pub(super) unsafe fn new(native: &'a NativeConnection) -> Self {
        Self { native, _not_send: PhantomData }
    }

    /// For tests that play events.
    #[cfg(test)]
    pub(crate) fn none(native: &'a NativeConnection) -> Self {
        assert!(native.with(|_| Ok(())).is_err(), "the handle is open");
        Self { native, _not_send: PhantomData }
    }

    /// Has libmsquic record the TLS secrets; before the handshake.
    pub(crate) fn log_keys(&self) -> Result<(), Status> {
        let secrets = self.native.secrets().as_ptr();
        self.native.with(|handle| {
            let length = size_of::<ffi::QUIC_TLS_SECRETS>() as u32;
            // SAFETY: C27: the memory lives as long as this value, which the handler of the
            // connection holds until the last event.
            Status::ok(unsafe {
                call!(SetParam(handle, ffi::QUIC_PARAM_CONN_TLS_SECRETS, length, secrets))
            })
        })
    }

    /// Sets the peer's address before the start.
    pub(crate) fn set_remote_addr(&self, addr: SocketAddr) -> Result<(), Status> {
        self.set_param(ffi::QUIC_PARAM_CONN_REMOTE_ADDRESS, &address::to_native(addr))
    }

    /// Sets the ticket of a client's connection, before its start (C33).
    pub(crate) fn set_ticket(&self, ticket: &[u8]) -> Result<(), Status> {
        self.set_param(ffi::QUIC_PARAM_CONN_RESUMPTION_TICKET, ticket)
    }

    /// Moves a running client to another local address, with a library that supports it (C28), and
    /// returns its new address.
    pub(crate) fn rebind(&self, addr: SocketAddr) -> Result<SocketAddr, Status> {
        let param = ffi::QUIC_PARAM_CONN_LOCAL_ADDRESS;
        self.set_param(param, &address::to_native(addr))?;
        let mut local = address::to_native(addr);
        self.get_param(param, &mut local)?;
        address::from_native(&local).ok_or(Status::INTERNAL_ERROR)
    }

    /// Fills `output` with keying material, with a library that supports it (C37).
    pub(crate) fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
        output: &mut [u8],
    ) -> Result<(), Status> {
        let length =
            |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Status::INVALID_PARAMETER);
        let (label_length, context_length) = (length(label)?, length(context)?);
        let mut material = KeyingMaterial {
            label: label.as_ptr(),
            context: context.as_ptr(),
            output_length: length(output)?,
            output: output.as_mut_ptr(),
            label_length,
            context_length,
        };
        let mut length = size_of_val(&material) as u32;
        self.native.with(|handle| {
            // SAFETY: C37: the call reads the structure, what it points to lives until it returns, and
            // at most `output_length` bytes are written to `output`.
            Status::ok(unsafe {
                call!(GetParam(
                    handle,
                    QUIC_PARAM_CONN_KEYING_MATERIAL,
                    &raw mut length,
                    (&raw mut material).cast(),
                ))
            })
        })
    }

    /// Sets the local address before the start.
    pub(crate) fn set_local_addr(&self, addr: SocketAddr) -> Result<(), Status> {
        self.set_param(ffi::QUIC_PARAM_CONN_LOCAL_ADDRESS, &address::to_native(addr))
    }

    /// Sets the interface of packets, before the start.
    pub(crate) fn set_interface(&self, index: u32) -> Result<(), Status> {
        self.set_param(ffi::QUIC_PARAM_CONN_LOCAL_INTERFACE, &index)
    }

    /// Changes settings.
    pub(crate) fn set_settings(&self, settings: &NativeSettings) -> Result<(), Status> {
        self.set_param(ffi::QUIC_PARAM_CONN_SETTINGS, settings.get())
    }

    /// The settings in effect.
    pub(crate) fn settings(&self) -> Result<InEffect, Status> {
        InEffect::read(|native| self.get_param(ffi::QUIC_PARAM_CONN_SETTINGS, native))
    }

    /// Serves streams of the same priority in turn, one packet each.
    pub(crate) fn serve_streams_in_turn(&self) -> Result<(), Status> {
        let scheme: ffi::QUIC_STREAM_SCHEDULING_SCHEME =
            ffi::QUIC_STREAM_SCHEDULING_SCHEME_QUIC_STREAM_SCHEDULING_SCHEME_ROUND_ROBIN;
        self.set_param(ffi::QUIC_PARAM_CONN_STREAM_SCHEDULING_SCHEME, &scheme)
    }

    /// How many streams this side can start now, bidirectional and unidirectional ones, each at most 65535 (C35).
    pub(crate) fn available_streams(&self) -> Result<(u16, u16), Status> {
        let (mut bidirectional, mut unidirectional) = (0_u16, 0_u16);
        self.get_param(ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT, &mut bidirectional)?;
        self.get_param(ffi::QUIC_PARAM_CONN_LOCAL_UNIDI_STREAM_COUNT, &mut unidirectional)?;
        Ok((bidirectional, unidirectional))
    }

    /// Sets a parameter whose native type is `T`.
    fn set_param<T: ?Sized>(&self, param: u32, value: &T) -> Result<(), Status> {
        self.native.with(|handle| {
            // SAFETY: C5: the value is copied before the call returns, and its length is checked.
            Status::ok(unsafe {
                call!(SetParam(
                    handle,
                    param,
                    size_of_val(value) as u32,
                    ptr::from_ref(value).cast(),
                ))
            })
        })
    }

    /// Sets the reason for the peer of the close that is being processed. For callbacks of this
    /// connection during its shutdown: before, libmsquic would discard the reason, and afterwards
    /// the close is sent (C17).
    pub(crate) fn set_close_reason(&self, reason: &CStr) {
        let bytes = reason.to_bytes_with_nul();
        let _ = self.native.with(|handle| {
            // SAFETY: C5, C17: inline on the connection's own thread; the bytes are copied.
            Status::ok(unsafe {
                call!(SetParam(
                    handle,
                    ffi::QUIC_PARAM_CONN_CLOSE_REASON_PHRASE,
                    bytes.len() as u32,
                    bytes.as_ptr().cast(),
                ))
            })
        });
    }

    /// Reads the measurements.
    pub(crate) fn statistics(&self) -> Result<NativeStatistics, Status> {
        // SAFETY: integers, for which zero is valid (C10).
        let mut quic: ffi::QUIC_STATISTICS_V2 = unsafe { mem::zeroed() };
        let length = self.get_param(ffi::QUIC_PARAM_CONN_STATISTICS_V2, &mut quic)?;
        let mut network = NetworkStatistics::default();
        let has_network = self.get_param(QUIC_PARAM_CONN_NETWORK_STATISTICS, &mut network);
        let bytes_in_flight = has_network.is_ok().then_some(network.bytes_in_flight);
        Ok(NativeStatistics { quic, length, bytes_in_flight })
    }

    /// Reads a parameter whose native type is `T`; returns the length that was written.
    fn get_param<T: Copy>(&self, param: u32, value: &mut T) -> Result<usize, Status> {
        let mut length = size_of::<T>() as u32;
        self.native.with(|handle| {
            // SAFETY: C5: at most `length` bytes are written. The types that are asked for here are
            // integers, for which all bits are valid.
            Status::ok(unsafe {
                call!(GetParam(handle, param, &raw mut length, ptr::from_mut(value).cast()))
            })
        })?;
        Ok(length as usize)
    }
}

/// The measurements of a connection.
pub(crate) struct NativeStatistics {
    pub(crate) quic: ffi::QUIC_STATISTICS_V2,
    /// How many bytes of `quic` the library has filled: an older one fills fewer fields.
    pub(crate) length: usize,
    /// `None` if the library lacks it.
    pub(crate) bytes_in_flight: Option<u32>,
}

impl NativeConnection {
    /// Returns the calls that wait for the worker of this connection; this thread may block.
    pub(crate) fn calls<'a>(&'a self, _: &'a MayBlock) -> Calls<'a> {
        // SAFETY: C9: `MayBlock` says that this thread has nothing else to do.
        unsafe { Calls::new(self) }
    }

    /// How many bytes of streams arrived and were not taken (C55). `None` if the library cannot tell it
    /// without waiting, or once the connection is closed.
    pub(crate) fn unread_stream_bytes(&self) -> Option<u64> {
        if !has_patch("N66") {
            return None;
        }
        let (mut bytes, mut length) = (0_u64, size_of::<u64>() as u32);
        let told = self.with(|handle| {
            // SAFETY: C55, C5: an integer of this length is written, and the call does not wait.
            Status::ok(unsafe {
                call!(GetParam(
                    handle,
                    QUIC_PARAM_CONN_RECEIVED_UNREAD,
                    &raw mut length,
                    (&raw mut bytes).cast(),
                ))
            })
        });
        told.ok().map(|_| bytes)
    }
}

/// A parameter of libmsquic 2.6 that the binding does not have (`inc/msquic.h` there).
const QUIC_PARAM_CONN_NETWORK_STATISTICS: u32 = 0x0500_0020;

/// A parameter of the patch N32, and its structure `QUIC_KEYING_MATERIAL`.
pub(super) const QUIC_PARAM_CONN_KEYING_MATERIAL: u32 = 0x05F0_0001;

/// A parameter of the patch N66.
pub(super) const QUIC_PARAM_CONN_RECEIVED_UNREAD: u32 = 0x05F0_0002;

#[repr(C)]
pub(super) struct KeyingMaterial {
    pub(super) label: *const u8,
    pub(super) context: *const u8,
    pub(super) output: *mut u8,
    pub(super) label_length: u32,
    pub(super) context_length: u32,
    pub(super) output_length: u32,
}

/// `QUIC_NETWORK_STATISTICS` of libmsquic 2.6.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct NetworkStatistics {
    bytes_in_flight: u32,
    _posted_bytes: u64,
    _ideal_bytes: u64,
    _smoothed_rtt: u64,
    _congestion_window: u32,
    _bandwidth: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The use of `HOLDS` is ambiguous, and does not compile, for a type that is `Send`.
    trait NotSend<A> {
        const HOLDS: bool = true;
    }
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<u8> for T {}

    const _: () = assert!(<Calls<'_> as NotSend<_>>::HOLDS);
    const _: () = assert!(<MayBlock as NotSend<_>>::HOLDS);
    const _: () = assert!(<&MayBlock as NotSend<_>>::HOLDS);
}
