//! The callbacks: they record each native event as an [`Event`], and return the test's answer.

use super::events::{Event, Recorder};
use crate::ffi::status::Status;
use crate::ffi::{Handle, address, bytes};
use msquic::ffi;
use std::ffi::c_void;
use std::slice;

/// # Safety
///
/// Called by libmsquic with a context of [`Recorder::create`].
pub(super) unsafe extern "C" fn on_connection_event(
    handle: ffi::HQUIC,
    context: *mut c_void,
    event: *mut ffi::QUIC_CONNECTION_EVENT,
) -> ffi::QUIC_STATUS {
    // SAFETY: C6, C13: `event` is valid during the callback; the context is never freed.
    let (event, recorder) = unsafe { (&mut *event, &*context.cast::<Recorder>()) };
    // SAFETY: C6: inside the callback.
    let answer = recorder.record(handle, unsafe { connection_event(event) });
    if answer.delays_credit {
        let flag = ffi::QUIC_STREAM_OPEN_FLAGS_QUIC_STREAM_OPEN_FLAG_DELAY_ID_FC_UPDATES;
        // SAFETY: C6, C20: tests set this for PEER_STREAM_STARTED only.
        unsafe { event.__bindgen_anon_1.PEER_STREAM_STARTED.Flags |= flag };
    }
    answer.status
}

/// # Safety
///
/// As for [`on_connection_event`].
pub(super) unsafe extern "C" fn on_stream_event(
    handle: ffi::HQUIC,
    context: *mut c_void,
    event: *mut ffi::QUIC_STREAM_EVENT,
) -> ffi::QUIC_STATUS {
    // SAFETY: C6, C13: `event` is valid during the callback; the context is never freed.
    let (event, recorder) = unsafe { (&mut *event, &*context.cast::<Recorder>()) };
    // SAFETY: C6: inside the callback.
    let answer = recorder.record(handle, unsafe { stream_event(event) });
    if let Some(taken) = answer.taken {
        // C25: tests set this for RECEIVE only.
        event.__bindgen_anon_1.RECEIVE.TotalBufferLength = taken;
    }
    answer.status
}

/// # Safety
///
/// As for [`on_connection_event`].
pub(super) unsafe extern "C" fn on_listener_event(
    handle: ffi::HQUIC,
    context: *mut c_void,
    event: *mut ffi::QUIC_LISTENER_EVENT,
) -> ffi::QUIC_STATUS {
    // SAFETY: C6, C13: `event` is valid during the callback; the context is never freed.
    let (event, recorder) = unsafe { (&*event, &*context.cast::<Recorder>()) };
    // SAFETY: C6: inside the callback, and `Type` says which member of the union is there.
    let event = unsafe {
        let data = &event.__bindgen_anon_1;
        match event.Type {
            ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_NEW_CONNECTION => {
                let info = &*data.NEW_CONNECTION.Info;
                Event::NewConnection {
                    handle: Handle(data.NEW_CONNECTION.Connection),
                    local: address::from_event(info.LocalAddress.cast()),
                    remote: address::from_event(info.RemoteAddress.cast()),
                }
            }
            ffi::QUIC_LISTENER_EVENT_TYPE_QUIC_LISTENER_EVENT_STOP_COMPLETE => {
                Event::StopComplete { app_close: data.STOP_COMPLETE.AppCloseInProgress() != 0 }
            }
            other => Event::Other(other),
        }
    };
    recorder.record(handle, event).status
}

/// # Safety
///
/// Inside the callback that `event` was given to.
unsafe fn connection_event(event: &ffi::QUIC_CONNECTION_EVENT) -> Event {
    let data = &event.__bindgen_anon_1;
    // SAFETY: C6: `Type` says which member of the union is there, and what it points to is valid.
    unsafe {
        match event.Type {
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_CONNECTED => {
                Event::Connected { resumed: data.CONNECTED.SessionResumed != 0 }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT => {
                let shutdown = data.SHUTDOWN_INITIATED_BY_TRANSPORT;
                let status = Status::from_raw(shutdown.Status);
                Event::ShutdownByTransport { status, code: shutdown.ErrorCode }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_PEER => {
                Event::ShutdownByPeer { code: data.SHUTDOWN_INITIATED_BY_PEER.ErrorCode }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE => {
                Event::ConnectionOver { app_close: data.SHUTDOWN_COMPLETE.AppCloseInProgress() != 0 }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED => {
                Event::PeerStream { handle: Handle(data.PEER_STREAM_STARTED.Stream) }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_STREAMS_AVAILABLE => {
                Event::StreamsAvailable
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED => {
                let changed = data.DATAGRAM_STATE_CHANGED;
                Event::DatagramState { max: (changed.SendEnabled != 0).then_some(changed.MaxSendLength) }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED => {
                let buffer = &*data.DATAGRAM_RECEIVED.Buffer;
                Event::Datagram(bytes(buffer.Buffer, buffer.Length as usize).to_vec())
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_DATAGRAM_SEND_STATE_CHANGED => {
                let changed = data.DATAGRAM_SEND_STATE_CHANGED;
                Event::DatagramSend { context: changed.ClientContext.addr(), state: changed.State }
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_PEER_CERTIFICATE_RECEIVED => {
                // C22: a portable certificate is a QUIC_BUFFER of DER.
                let certificate = data.PEER_CERTIFICATE_RECEIVED.Certificate;
                let der = certificate.cast::<ffi::QUIC_BUFFER>().as_ref();
                Event::Certificate(der.map(|der| bytes(der.Buffer, der.Length as usize).to_vec()))
            }
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMED => Event::Resumed,
            ffi::QUIC_CONNECTION_EVENT_TYPE_QUIC_CONNECTION_EVENT_RESUMPTION_TICKET_RECEIVED => {
                let ticket = data.RESUMPTION_TICKET_RECEIVED;
                let length = ticket.ResumptionTicketLength as usize;
                Event::Ticket(bytes(ticket.ResumptionTicket, length).to_vec())
            }
            other => Event::Other(other), // C19
        }
    }
}

/// # Safety
///
/// Inside the callback that `event` was given to.
unsafe fn stream_event(event: &ffi::QUIC_STREAM_EVENT) -> Event {
    let data = &event.__bindgen_anon_1;
    // SAFETY: C6: `Type` says which member of the union is there, and what it points to is valid.
    unsafe {
        match event.Type {
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_START_COMPLETE => {
                let complete = data.START_COMPLETE;
                let status = Status::from_raw(complete.Status);
                Event::Started { status, accepted: complete.PeerAccepted() != 0 }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_ACCEPTED => Event::PeerAccepted,
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_RECEIVE => {
                let receive = data.RECEIVE;
                let buffers = match receive.TotalBufferLength {
                    0 => &[], // C25: the end of the stream alone
                    _ => slice::from_raw_parts(receive.Buffers, receive.BufferCount as usize),
                };
                let parts = buffers.iter().map(|part| bytes(part.Buffer, part.Length as usize));
                Event::Received {
                    data: parts.collect::<Vec<_>>().concat(),
                    fin: receive.Flags & ffi::QUIC_RECEIVE_FLAGS_QUIC_RECEIVE_FLAG_FIN != 0,
                    first: buffers.first().map_or(0, |part| part.Buffer.expose_provenance()),
                }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_COMPLETE => {
                let complete = data.SEND_COMPLETE;
                Event::Sent {
                    context: complete.ClientContext.addr(),
                    canceled: complete.Canceled != 0,
                }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_SHUTDOWN => {
                Event::PeerSendShutdown
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_SEND_ABORTED => {
                Event::PeerSendAborted { code: data.PEER_SEND_ABORTED.ErrorCode }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_PEER_RECEIVE_ABORTED => {
                Event::PeerReceiveAborted { code: data.PEER_RECEIVE_ABORTED.ErrorCode }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SEND_SHUTDOWN_COMPLETE => {
                Event::SendOver { graceful: data.SEND_SHUTDOWN_COMPLETE.Graceful != 0 }
            }
            ffi::QUIC_STREAM_EVENT_TYPE_QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE => {
                let complete = data.SHUTDOWN_COMPLETE;
                Event::StreamOver {
                    by_connection: complete.ConnectionShutdown != 0,
                    app_close: complete.AppCloseInProgress() != 0,
                }
            }
            other => Event::Other(other), // C19
        }
    }
}
