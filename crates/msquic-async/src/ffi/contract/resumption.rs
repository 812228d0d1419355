//! Clauses about session resumption.

use super::events::{Answer, Event};
use super::handles::{Object, Open, ignore, is_connected};
use super::harness::{LOOPBACK, Role, Server, plenty, react};
use super::roots::Registration;
use super::{is_2_6, is_driven, is_patched};
use crate::ffi::functions::call;
use crate::ffi::settings;
use crate::ffi::status::Status;
use msquic::ffi;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A server that issues tickets, and takes them if told to.
fn server(registration: &Registration, takes_tickets: &Arc<AtomicBool>) -> Server {
    let mut settings = settings::to_native(&plenty());
    settings
        .set_ServerResumptionLevel(ffi::QUIC_SERVER_RESUMPTION_LEVEL_QUIC_SERVER_RESUME_ONLY as u8);
    // SAFETY: C10: the bit set that says which settings count.
    unsafe { settings.__bindgen_anon_1.IsSet.set_ServerResumptionLevel(1) };
    let configuration = registration.configure_native(Role::Server, settings).unwrap();
    let takes_tickets = takes_tickets.clone();
    let on_peer = react(move |call| match call.event {
        Event::Resumed if !takes_tickets.load(Ordering::SeqCst) => {
            Answer::status(Status::NOT_SUPPORTED)
        }
        _ => ignore(call),
    });
    Server::with(registration, configuration, LOOPBACK, &on_peer)
}

/// Gets a ticket with a first connection, and uses it for a second.
fn resume(registration: &Registration, takes_tickets: bool) -> Resumed {
    let takes_tickets = Arc::new(AtomicBool::new(takes_tickets));
    let server = server(registration, &takes_tickets);
    let configuration = registration.configure(Role::Client, &plenty());
    let first = registration.open_connection(ignore);
    assert!(first.connect(&configuration, server.addr()).is_ok());
    let peer = server.next();
    peer.until(is_connected);
    // SAFETY: C1: asynchronous, without data.
    let status = unsafe {
        let none = ptr::null();
        call!(ConnectionSendResumptionTicket(peer.handle().0, 0, 0, none))
    };
    assert!(Status::from_raw(status).is_ok());
    let Event::Ticket(ticket) = first.until(|event| matches!(event, Event::Ticket(_))).event else {
        unreachable!()
    };
    first.shutdown(0);
    first.until(Event::is_last);
    let second = registration.open_connection(ignore);
    let status = second.set_bytes(ffi::QUIC_PARAM_CONN_RESUMPTION_TICKET, ticket);
    assert_eq!(status, Status::SUCCESS);
    let before_start = second.so_far();
    assert!(second.connect(&configuration, server.addr()).is_ok());
    let peer = server.next();
    Resumed { client: second, peer, before_start, _server: server }
}

struct Resumed {
    client: Object,
    peer: Object,
    /// The events of the client when the ticket was set.
    before_start: Vec<Event>,
    _server: Server,
}

/// With its assertions on, a driven 2.5 does not permit the event inside SetParam (C33).
fn is_possible() -> bool {
    !is_driven() || is_2_6()
}

#[test]
fn c31_a_session_with_client_certificates_resumes_with_the_patch() {
    if !is_possible() {
        return;
    }
    let registration = Registration::new();
    let Resumed { client, peer, .. } = &resume(&registration, true);
    peer.until(|event| *event == Event::Resumed);
    if is_patched("N11-A9") {
        // The certificate of the session is judged again, on both sides.
        peer.until(|event| matches!(event, Event::Certificate(Some(_))));
        peer.until(|event| *event == Event::Connected { resumed: true });
        client.until(|event| matches!(event, Event::Certificate(Some(_))));
        client.until(|event| *event == Event::Connected { resumed: true });
    } else {
        for connection in [client, peer] {
            let seen = connection.until(|event| matches!(event, Event::ShutdownByTransport { .. }));
            let Event::ShutdownByTransport { code, .. } = seen.event else { unreachable!() };
            assert_eq!(code, 0x100 + 80);
        }
    }
}

#[test]
fn c31_a_ticket_that_is_not_taken_leads_to_a_full_handshake() {
    if !is_possible() {
        return;
    }
    let registration = Registration::new();
    let Resumed { client, peer, .. } = &resume(&registration, false);
    peer.until(|event| *event == Event::Resumed);
    peer.until(|event| *event == Event::Connected { resumed: false });
    client.until(|event| *event == Event::Connected { resumed: false });
}

#[test]
fn c33_setting_a_ticket_tells_the_streams_before_it_returns() {
    if !is_possible() {
        return;
    }
    let registration = Registration::new();
    let resumed = resume(&registration, true);
    assert_eq!(resumed.before_start.first(), Some(&Event::StreamsAvailable));
}
