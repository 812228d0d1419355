//! The events of a connection, and the handler that gets them.

use super::{ConnectionCloser, NativeConnection};
use crate::buffer::DatagramSendState;
use crate::ffi::bound::Bound;
use crate::ffi::calls::Calls;
use crate::ffi::functions::call;
use crate::ffi::guard::guard;
use crate::ffi::registration::{Child, Member, NativeRegistration};
use crate::ffi::sends::DatagramContext;
use crate::ffi::slot::{Slot, Slotted};
use crate::ffi::status::Status;
use crate::ffi::stream::PeerStream;
use crate::ffi::{address, bytes};
use bytes::Bytes;
use msquic::ffi;
use rustls_pki_types::CertificateDer;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ptr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// An event of a connection; see `QUIC_CONNECTION_EVENT`. It can contain secrets, so it has no
/// `Debug`.
pub(crate) enum ConnectionEvent<'a> {
    Connected {
        alpn: &'a [u8],
        /// The session of an earlier connection was resumed.
        is_resumed: bool,
        local_addr: Option<SocketAddr>,
        remote_addr: Option<SocketAddr>,
        key_log: Option<Zeroizing<String>>,
    },
    ShutdownByTransport {
        status: Status,
        code: u64,
    },
    ShutdownByPeer {
        code: u64,
    },
    /// The last event. `reason` is the reason phrase of the peer's close.
    ShutdownComplete {
        reason: Option<String>,
        key_log: Option<Zeroizing<String>>,
    },
    /// A server's ticket, for the next connection.
    TicketReceived(&'a [u8]),
    /// How many more streams the peer allows.
    StreamsAvailable {
        bidirectional: u16,
        unidirectional: u16,
    },
    DatagramStateChanged {
        max_size: Option<usize>,
    },
    DatagramReceived(&'a [u8]),
    DatagramSendStateChanged {
        id: usize,
        state: DatagramSendState,
    },
    LocalAddressChanged(SocketAddr),
    PeerAddressChanged(SocketAddr),
}

/// Handles the events of one connection, which never overlap (C1), and the end of its registration.
pub(crate) trait ConnectionHandler: Member + 'static {
    fn on_event(self: &Arc<Self>, event: ConnectionEvent<'_>, calls: Calls<'_>);
    /// Verifies the peer's certificate, or that it presented none; returns the TLS alert of a
    /// rejection.
    fn on_certificate(
        self: &Arc<Self>,
        certificate: Option<CertificateDer<'static>>,
    ) -> Result<(), u8>;
    /// Verifies a ticket that this side issued with `state`; returns whether the session may be
    /// resumed. It may be called several times, and before the peer has proved that the ticket is
    /// its own, which is certain when the handshake is complete.
    fn on_ticket(self: &Arc<Self>, state: &[u8]) -> bool;
    /// Takes a stream that the peer opened; if it is not adopted, it is aborted.
    fn on_peer_stream(self: &Arc<Self>, stream: PeerStream<'_>);
}

impl NativeConnection {
    /// Opens a client's handle, for the handler that `make` creates. The handler lives until the
    /// last event, which comes after [`shutdown`](Self::shutdown) at the latest.
    pub(crate) fn open<H: ConnectionHandler>(
        registration: &Arc<NativeRegistration>,
        make: impl FnOnce(Arc<Self>) -> H,
    ) -> Result<Arc<H>, Status> {
        let child = registration.add_connection()?;
        let mut handle = ptr::null_mut();
        let (callback, context) = (Some(ignore as _), ptr::null_mut());
        registration.with(|registration| {
            // SAFETY: C13: no event comes before a call with the handle, and until then it is adopted.
            Status::ok(unsafe {
                call!(ConnectionOpen(registration, callback, context, &raw mut handle))
            })
        })?;
        // SAFETY: C13: as above.
        Ok(unsafe { Self::adopt_as(child, handle, make) })
    }

    /// Sets the handler that `make` creates as the one of `handle`. On failure the caller still
    /// owns `handle`.
    ///
    /// # Safety
    ///
    /// `handle` is an open connection of the registration, only this value uses or closes it, and no event
    /// of it can come before this returns: it was not started, or its NEW_CONNECTION is being handled.
    pub(in crate::ffi) unsafe fn adopt<H: ConnectionHandler>(
        registration: &Arc<NativeRegistration>,
        handle: ffi::HQUIC,
        make: impl FnOnce(Arc<Self>) -> H,
    ) -> Result<Arc<H>, Status> {
        let child = registration.add_connection()?;
        // SAFETY: the caller's promise.
        Ok(unsafe { Self::adopt_as(child, handle, make) })
    }

    /// # Safety
    ///
    /// As for [`adopt`](Self::adopt).
    unsafe fn adopt_as<H: ConnectionHandler>(
        child: Arc<Child>,
        handle: ffi::HQUIC,
        make: impl FnOnce(Arc<Self>) -> H,
    ) -> Arc<H> {
        let slot = Slot::open(handle, ConnectionCloser(child.clone()));
        let this = Arc::new(Self::new(child, slot));
        let handler = Arc::new(make(this.clone()));
        let context = Bound::context(&this, &handler);
        let function: unsafe extern "C" fn(_, _, _) -> _ = trampoline::<H>;
        // SAFETY: C13, C18: before any event of the connection. `trampoline` takes the context back at the last event.
        unsafe { call!(SetCallbackHandler(handle, function as *mut c_void, context)) };
        if let Some(code) = this.child.set_connection(Arc::<H>::downgrade(&handler)) {
            handler.clone().end(code); // the registration was shut down before it knew the connection
        }
        handler
    }
}

/// A connection that is offered to a listener. [`adopt`](Self::adopt) takes ownership of it.
pub(crate) struct PeerConnection<'a> {
    pub(in crate::ffi) registration: &'a Arc<NativeRegistration>,
    pub(in crate::ffi) handle: ffi::HQUIC,
    pub(in crate::ffi) adopted: &'a mut bool,
    /// The peer's address; not validated yet.
    pub(crate) remote_addr: Option<SocketAddr>,
    pub(crate) local_addr: Option<SocketAddr>,
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Bytes,
}

impl PeerConnection<'_> {
    /// Takes ownership, with the handler that `make` creates.
    pub(crate) fn adopt<H: ConnectionHandler>(
        &mut self,
        make: impl FnOnce(Arc<NativeConnection>, Calls<'_>) -> H,
    ) -> Result<Arc<H>, Status> {
        if *self.adopted {
            return Err(Status::INVALID_STATE);
        }
        let make = |native: Arc<NativeConnection>| {
            // SAFETY: C16: NEW_CONNECTION is a callback of this connection.
            let calls = unsafe { Calls::new(&native) };
            make(native.clone(), calls)
        };
        // SAFETY: C18: inside NEW_CONNECTION, before any event of the connection.
        let handler = unsafe { NativeConnection::adopt(self.registration, self.handle, make) }?;
        *self.adopted = true;
        Ok(handler)
    }
}

/// The callback before a connection is adopted, while there are no events.
unsafe extern "C" fn ignore(
    _: ffi::HQUIC,
    _: *mut c_void,
    _: *mut ffi::QUIC_CONNECTION_EVENT,
) -> ffi::QUIC_STATUS {
    Status::SUCCESS.to_raw()
}

/// All events of all connections arrive here.
///
/// # Safety
///
/// Called by libmsquic with the context that was registered with the handle.
unsafe extern "C" fn trampoline<H: ConnectionHandler>(
    connection: ffi::HQUIC,
    context: *mut c_void,
    event: *mut ffi::QUIC_CONNECTION_EVENT,
) -> ffi::QUIC_STATUS {
    let status = guard(Status::INTERNAL_ERROR, || {
        // SAFETY: C13: the context lives until the end of the last event, and `event` is valid during the call.
        unsafe { dispatch(connection, Bound::<_, H>::of(context), &mut *event) }
    });
    // SAFETY: `event` is valid during the call.
    let is_last = unsafe { (*event).Type }
        == ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE;
    if is_last {
        guard((), || {
            // SAFETY: C9, C13: no event follows, so the context comes back.
            unsafe { Bound::<NativeConnection, H>::take(context).native.slot.close_in_callback() };
        });
    }
    status.to_raw()
}

/// Translates one event.
///
/// # Safety
///
/// `event` is what libmsquic gave to the callback, and the callback is still running.
unsafe fn dispatch<H: ConnectionHandler>(
    connection: ffi::HQUIC,
    Bound { native, handler }: &Bound<NativeConnection, H>,
    event: &mut ffi::QUIC_CONNECTION_EVENT,
) -> Status {
    let data = &mut event.__bindgen_anon_1;
    // SAFETY: C16: inside a callback of this connection.
    let calls = unsafe { Calls::new(native) };
    // SAFETY: C6: `Type` says which member of the union is there; pointers in it are valid during
    // the callback.
    unsafe {
        match event.Type {
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_CONNECTED => {
                let connected = data.CONNECTED;
                let alpn = connected.NegotiatedAlpn;
                handler.on_event(ConnectionEvent::Connected {
                    key_log: key_log(native),
                    alpn: bytes(alpn, connected.NegotiatedAlpnLength.into()),
                    is_resumed: connected.SessionResumed != 0,
                    local_addr: addr_param(connection, ffi::QUIC_PARAM_CONN_LOCAL_ADDRESS),
                    remote_addr: addr_param(connection, ffi::QUIC_PARAM_CONN_REMOTE_ADDRESS),
                }, calls);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT => {
                let shutdown = data.SHUTDOWN_INITIATED_BY_TRANSPORT;
                handler.on_event(ConnectionEvent::ShutdownByTransport {
                    status: Status::from_raw(shutdown.Status),
                    code: shutdown.ErrorCode,
                }, calls);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_PEER => {
                let code = data.SHUTDOWN_INITIATED_BY_PEER.ErrorCode;
                handler.on_event(ConnectionEvent::ShutdownByPeer { code }, calls);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE => {
                let reason = close_reason(connection);
                let key_log = key_log(native);
                handler.on_event(ConnectionEvent::ShutdownComplete { reason, key_log }, calls);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_STREAMS_AVAILABLE => {
                let available = data.STREAMS_AVAILABLE;
                handler.on_event(ConnectionEvent::StreamsAvailable {
                    bidirectional: available.BidirectionalCount,
                    unidirectional: available.UnidirectionalCount,
                }, calls);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED => {
                let changed = data.DATAGRAM_STATE_CHANGED;
                let max_size = (changed.SendEnabled != 0).then_some(changed.MaxSendLength.into());
                handler.on_event(ConnectionEvent::DatagramStateChanged { max_size }, calls);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED => {
                if let Some(buffer) = data.DATAGRAM_RECEIVED.Buffer.as_ref() {
                    let datagram = bytes(buffer.Buffer, buffer.Length as usize);
                    handler.on_event(ConnectionEvent::DatagramReceived(datagram), calls);
                }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_SEND_STATE_CHANGED => {
                let changed = &mut data.DATAGRAM_SEND_STATE_CHANGED;
                if let Some((id, state)) = datagram_state_changed(changed) {
                    handler.on_event(ConnectionEvent::DatagramSendStateChanged { id, state }, calls);
                }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_LOCAL_ADDRESS_CHANGED => {
                if let Some(addr) = address::from_event(data.LOCAL_ADDRESS_CHANGED.Address) {
                    handler.on_event(ConnectionEvent::LocalAddressChanged(addr), calls);
                }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_ADDRESS_CHANGED => {
                if let Some(addr) = address::from_event(data.PEER_ADDRESS_CHANGED.Address) {
                    handler.on_event(ConnectionEvent::PeerAddressChanged(addr), calls);
                }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED => {
                return peer_stream_started(native, handler, &mut data.PEER_STREAM_STARTED);
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_CERTIFICATE_RECEIVED => {
                let certificate = data.PEER_CERTIFICATE_RECEIVED.Certificate;
                // C22: portable certificates are a QUIC_BUFFER of DER, valid during the callback.
                let certificate = certificate.cast::<ffi::QUIC_BUFFER>().as_ref();
                let der = certificate.map(|der| bytes(der.Buffer, der.Length as usize).to_vec());
                let der = der.filter(|der| !der.is_empty()).map(CertificateDer::from);
                if let Err(alert) = handler.on_certificate(der) {
                    return Status::from_tls_alert(alert); // C22
                }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMED => {
                let resumed = data.RESUMED;
                let length = resumed.ResumptionStateLength.into();
                // C31: without the ticket there is a full handshake.
                if !handler.on_ticket(bytes(resumed.ResumptionState, length)) {
                    return Status::NOT_SUPPORTED;
                }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMPTION_TICKET_RECEIVED => {
                let received = data.RESUMPTION_TICKET_RECEIVED;
                let ticket = bytes(received.ResumptionTicket, received.ResumptionTicketLength as usize);
                handler.on_event(ConnectionEvent::TicketReceived(ticket), calls);
            }
            // C19: events that this version does not know are answered with success.
            _ => {}
        }
    }
    Status::SUCCESS
}

/// The lines of a key log, if one is wanted.
///
/// # Safety
///
/// Inside a callback of the connection.
unsafe fn key_log(connection: &NativeConnection) -> Option<Zeroizing<String>> {
    // SAFETY: the caller's promise.
    connection.secrets.get().and_then(|secrets| unsafe { secrets.lines() })
}

/// Frees what is no longer needed of the context of a datagram, and returns its number and state.
///
/// # Safety
///
/// As for [`dispatch`].
unsafe fn datagram_state_changed(
    changed: &mut ffi::QUIC_CONNECTION_EVENT__bindgen_ty_1__bindgen_ty_13,
) -> Option<(usize, DatagramSendState)> {
    let context = changed.ClientContext.cast::<DatagramContext>();
    let state = datagram_state(changed.State).filter(|_| !context.is_null())?;
    if state == DatagramSendState::Sent {
        // SAFETY: C26: the context stays until the final state, and events do not overlap (C1).
        let context = unsafe { &mut *context };
        guard((), || context.release_data()); // the bytes may have a foreign owner
        return Some((context.id, state));
    }
    changed.ClientContext = ptr::null_mut(); // C26: no further event gets it
    // SAFETY: C26: the final state comes once, so the context comes back.
    let context = unsafe { Box::from_raw(context) };
    let id = context.id;
    guard((), || drop(context));
    Some((id, state))
}

/// The states that matter: a datagram that is only suspected to be lost may still be acknowledged.
fn datagram_state(state: ffi::QUIC_DATAGRAM_SEND_STATE) -> Option<DatagramSendState> {
    Some(match state {
        ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_SENT => DatagramSendState::Sent,
        ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_LOST_DISCARDED => DatagramSendState::Lost,
        ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_ACKNOWLEDGED
        | ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_ACKNOWLEDGED_SPURIOUS => {
            DatagramSendState::Acknowledged
        }
        ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_CANCELED => DatagramSendState::Canceled,
        _ => return None,
    })
}

/// Offers a peer's stream to the handler.
///
/// # Safety
///
/// As for [`dispatch`].
unsafe fn peer_stream_started<H: ConnectionHandler>(
    connection: &Arc<NativeConnection>,
    handler: &Arc<H>,
    started: &mut ffi::QUIC_CONNECTION_EVENT__bindgen_ty_1__bindgen_ty_7,
) -> Status {
    let mut adopted = false;
    if let Some(hold) = connection.hold() {
        let unidirectional = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL;
        // SAFETY: C18: inside PEER_STREAM_STARTED, with the stream that it names.
        let stream = unsafe {
            let is_unidirectional = started.Flags & unidirectional != 0;
            PeerStream::new(connection, started.Stream, is_unidirectional, hold, &mut adopted)
        };
        // After a panic, `adopted` still says who owns the stream.
        guard((), || handler.on_peer_stream(stream));
    }
    if !adopted {
        return Status::ABORTED; // C18: libmsquic then closes the stream itself.
    }
    // C20: the peer gets the credit for another stream when this one is closed, not before.
    started.Flags |= ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_DELAY_ID_FC_UPDATES;
    Status::SUCCESS
}

/// An address parameter, read inline.
///
/// # Safety
///
/// Inside a callback of `connection`.
unsafe fn addr_param(connection: ffi::HQUIC, param: u32) -> Option<SocketAddr> {
    let mut addr = MaybeUninit::<msquic::Addr>::zeroed();
    let mut length = size_of_val(&addr) as u32;
    // SAFETY: C5, C16: inline on the connection's own thread; at most `length` bytes are written
    // over zeroed ones, which are a valid address.
    unsafe {
        Status::ok(call!(GetParam(connection, param, &raw mut length, addr.as_mut_ptr().cast())))
            .ok()?;
        address::from_native(&addr.assume_init())
    }
}

/// The reason that came with the peer's close, read inline.
///
/// # Safety
///
/// Inside the SHUTDOWN_COMPLETE callback of `connection`.
unsafe fn close_reason(connection: ffi::HQUIC) -> Option<String> {
    let mut reason = [0_u8; MAX_RECEIVED_REASON];
    let mut length = reason.len() as u32;
    // SAFETY: C5, C16, C17: inline on the connection's own thread; at most `length` bytes are
    // written.
    unsafe {
        Status::ok(call!(GetParam(
            connection,
            ffi::QUIC_PARAM_CONN_CLOSE_REASON_PHRASE,
            &raw mut length,
            reason.as_mut_ptr().cast(),
        )))
        .ok()?;
    }
    let text = CStr::from_bytes_until_nul(&reason).ok()?;
    Some(text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}

/// The longest reason that can arrive fits into a packet, and packets have at most 9000 bytes here.
const MAX_RECEIVED_REASON: usize = 9000;
