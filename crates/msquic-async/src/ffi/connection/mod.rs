//! `NativeConnection`: a connection handle, and when it is closed.

mod events;

pub(crate) use events::{ConnectionEvent, ConnectionHandler, PeerConnection};

use super::MAX_CODE;
use super::configuration::NativeConfiguration;
use super::execution;
use super::functions::call;
use super::gate::Inside;
use super::holding::Holding;
use super::registration::Child;
use super::secrets::Secrets;
use super::sends::DatagramContext;
use super::slot::{Closer, Slot, Slotted};
use super::status::Status;
use super::threads;
use bytes::Bytes;
use msquic::ffi;
use net_traits::close_code::sent_reason;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A connection handle. It is closed after its last event, when no call uses it any more.
pub(crate) struct NativeConnection {
    slot: Slot<ConnectionCloser>,
    is_shut_down: AtomicBool,
    /// How streams hold what they receive; set at the start.
    holding: OnceLock<Holding>,
    /// The handle was opened by other code.
    is_foreign: AtomicBool,
    /// Where libmsquic writes the TLS secrets, if that is enabled.
    secrets: OnceLock<Box<Secrets>>,
    child: Arc<Child>,
}

impl NativeConnection {
    fn new(child: Arc<Child>, slot: Slot<ConnectionCloser>) -> Self {
        Self {
            slot,
            is_shut_down: AtomicBool::new(false),
            holding: OnceLock::new(),
            is_foreign: AtomicBool::new(false),
            secrets: OnceLock::new(),
            child,
        }
    }

    /// A connection as if it were closed, for tests that play events: each call fails.
    #[cfg(test)]
    pub(crate) fn closed(registration: &Arc<super::registration::NativeRegistration>) -> Arc<Self> {
        let this = Self::new(registration.add_connection().unwrap(), Slot::empty());
        this.slot.close();
        this.child.remove();
        Arc::new(this)
    }

    /// Starts the handshake with an address in text form, or with a name after
    /// [`set_remote_addr`](Self::set_remote_addr).
    pub(crate) fn start(
        &self,
        configuration: &NativeConfiguration,
        host: &CStr,
        port: u16,
    ) -> Result<(), Status> {
        let family = ffi::QUIC_ADDRESS_FAMILY_UNSPEC as ffi::QUIC_ADDRESS_FAMILY;
        self.with(|handle| {
            self.with_own(configuration, |configuration| {
                // SAFETY: C14: the name is copied, and the configuration counted, before the call
                // returns.
                Status::ok(unsafe {
                    call!(ConnectionStart(handle, configuration, family, host.as_ptr(), port))
                })
            })
        })
    }

    /// Lets the connection share its sockets with others, before the start, with a library that has the
    /// patch N28. Never blocks.
    pub(crate) fn share_binding(&self) -> Result<(), Status> {
        self.with(|handle| {
            let share = 1_u8;
            let length = size_of_val(&share) as u32;
            let value = (&raw const share).cast();
            // SAFETY: C5, C47: one byte is copied before the call returns.
            Status::ok(unsafe {
                call!(SetParam(handle, QUIC_PARAM_CONN_SHARE_AT_START, length, value))
            })
        })
    }

    /// Accepts a peer's connection: the handshake goes on with `configuration`.
    pub(crate) fn set_configuration(
        &self,
        configuration: &NativeConfiguration,
    ) -> Result<(), Status> {
        self.with(|handle| {
            self.with_own(configuration, |configuration| {
                // SAFETY: C14: the configuration is counted before the call returns.
                Status::ok(unsafe { call!(ConnectionSetConfiguration(handle, configuration)) })
            })
        })
    }

    /// Returns whether both belong to one registration. The close of another registration would
    /// wait for this connection (C8), and block a thread that other closes need.
    pub(crate) fn has_same_registration(&self, configuration: &NativeConfiguration) -> bool {
        self.child.has_same_registration(configuration.child())
    }

    fn with_own<T>(
        &self,
        configuration: &NativeConfiguration,
        call: impl FnOnce(ffi::HQUIC) -> Result<T, Status>,
    ) -> Result<T, Status> {
        if !self.has_same_registration(configuration) {
            return Err(Status::INVALID_PARAMETER);
        }
        // Set once, as libmsquic applies the settings of one configuration only.
        self.holding.set(configuration.holding()).map_err(|_| Status::INVALID_STATE)?;
        configuration.with(call)
    }

    /// How streams that were opened by this crate hold what they receive.
    pub(super) fn holding(&self) -> Holding {
        let holding = self.holding.get().copied().unwrap_or(Holding::No);
        if !self.is_foreign.load(Ordering::SeqCst) {
            return holding;
        }
        match holding {
            // The connection may have settings of its own. Completing all bytes of a receive
            // together is sound with one receive at a time and with several.
            Holding::Several => Holding::OneByOne,
            // Several receives may be enabled where that can stall.
            Holding::OneByOne | Holding::No => Holding::No,
        }
    }

    pub(super) fn set_foreign(&self) {
        self.is_foreign.store(true, Ordering::SeqCst);
    }

    /// Issues the only ticket of a server's connection, whose handshake is done.
    pub(crate) fn issue_ticket(&self, state: &[u8]) -> Result<(), Status> {
        let flags = ffi::QUIC_SEND_RESUMPTION_FLAGS_QUIC_SEND_RESUMPTION_FLAG_FINAL;
        let length = u16::try_from(state.len()).map_err(|_| Status::INVALID_PARAMETER)?;
        self.with(|handle| {
            // SAFETY: C1, C31: the state is copied, and the rest queued.
            Status::ok(unsafe {
                call!(ConnectionSendResumptionTicket(handle, flags, length, state.as_ptr()))
            })
        })
    }

    /// Closes the connection with `code`, without a CONNECTION_CLOSE frame if `silent`. Only the
    /// first call has an effect, since a second one could overtake it (C1). Never blocks.
    pub(crate) fn shutdown(&self, code: u64, silent: bool) {
        if self.is_shut_down.swap(true, Ordering::SeqCst) {
            return;
        }
        let flags = if silent {
            ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT
        } else {
            ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_NONE
        };
        let _ = self.with(|handle| {
            // SAFETY: C1, C15: asynchronous, from any thread, in every state.
            unsafe { call!(ConnectionShutdown(handle, flags, code.min(MAX_CODE))) };
            Ok(())
        });
    }

    /// Sends a datagram that the caller knows by `id`. On failure no event comes for it.
    pub(crate) fn send_datagram(&self, id: usize, data: Bytes) -> Result<(), Status> {
        let context = Box::into_raw(DatagramContext::new(id, data)?);
        let sent = self.with(|handle| {
            let flags = ffi::QUIC_SEND_FLAGS_QUIC_SEND_FLAG_NONE;
            // SAFETY: C26: after a success the context belongs to `datagram_state_changed`, which frees array
            // and bytes when they are not read any more.
            Status::ok(unsafe {
                call!(DatagramSend(handle, (*context).array().as_ptr(), 1, flags, context.cast()))
            })
        });
        if sent.is_err() {
            // SAFETY: C26: no event comes for it.
            drop(unsafe { Box::from_raw(context) });
        }
        sent
    }

    /// Where libmsquic writes the TLS secrets.
    pub(super) fn secrets(&self) -> &Secrets {
        self.secrets.get_or_init(|| Box::new(Secrets::new()))
    }

    /// Keeps the handle open until the hold is dropped; None once it is closed.
    pub(super) fn hold(self: &Arc<Self>) -> Option<Hold> {
        Inside::enter(self.clone())
    }
}

impl Slotted for NativeConnection {
    type Closer = ConnectionCloser;

    fn slot(&self) -> &Slot<ConnectionCloser> {
        &self.slot
    }
}

/// Closes a connection, and then removes it from its registration.
pub(crate) struct ConnectionCloser(Arc<Child>);

impl Closer for ConnectionCloser {
    const WAITS: bool = true;

    unsafe fn close(self, handle: ffi::HQUIC) {
        if execution::is_driven() {
            // From 2.6 on a close outside of a callback waits for the thread that it runs on (C29). An older
            // library does not know the parameter, and does not wait.
            let close_async = 1_u8;
            // SAFETY: C4, C5, C29: the handle is open; one byte is copied, inline.
            unsafe {
                let length = size_of_val(&close_async) as u32;
                let value = (&raw const close_async).cast();
                call!(SetParam(handle, QUIC_PARAM_CONN_CLOSE_ASYNC, length, value));
            }
        }
        // SAFETY: C4, C9: the caller's promise. On the connection's own thread this does not block,
        // elsewhere it may.
        unsafe { call!(ConnectionClose(handle)) };
        threads::connection_closed();
        self.0.remove();
    }
}

/// A parameter of the patch N28.
pub(crate) const QUIC_PARAM_CONN_SHARE_AT_START: u32 = 0x05F0_0003;

/// A parameter of libmsquic 2.6 that the binding does not have (`inc/msquic.h` there).
const QUIC_PARAM_CONN_CLOSE_ASYNC: u32 = 0x0500_001A;

/// Keeps a connection's handle open.
pub(crate) type Hold = Inside<Arc<NativeConnection>>;

/// Converts `reason` for libmsquic: at most 511 bytes, ended by zero (C17). `None` if nothing is
/// left.
pub(crate) fn close_reason_text(reason: &str) -> Option<CString> {
    CString::new(sent_reason(reason)).ok().filter(|reason| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_at_a_character_and_never_empty() {
        assert_eq!(close_reason_text(""), None);
        assert_eq!(close_reason_text("a\0b").unwrap().to_bytes(), b"a b");
        let long = close_reason_text(&"é".repeat(400)).unwrap();
        assert_eq!(long.as_bytes_with_nul().len(), 511);
        assert!(long.to_str().is_ok());
    }
}
