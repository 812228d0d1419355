//! Clauses about session resumption.

use super::events::{Answer, Event};
use super::handles::{Object, Open, ignore, is_connected};
use super::harness::{LOOPBACK, Role, Server, plenty, react};
use super::roots::Registration;
use super::{is_2_6, is_driven, is_patched, lacks_patch};
use crate::ffi::functions::call;
use crate::ffi::status::Status;
use crate::resumption::without_limits;
use msquic::ffi;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A server that issues tickets, and accepts them if `takes_tickets` is true.
fn server(registration: &Registration, takes_tickets: &Arc<AtomicBool>) -> Server {
    let mut settings = *plenty().to_native().get();
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
    resume_with(registration, takes_tickets, |ticket| ticket)
}

/// The same, after `change` has changed the ticket.
fn resume_with(
    registration: &Registration,
    takes_tickets: bool,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Resumed {
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
    let status = second.set_bytes(ffi::QUIC_PARAM_CONN_RESUMPTION_TICKET, change(ticket));
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

/// Whether the test has to be skipped: with its assertions on, a driven 2.5 without the patch does not permit the
/// event inside SetParam (C33).
fn is_impossible() -> bool {
    is_driven() && !is_2_6() && lacks_patch("N30")
}

#[test]
fn c31_a_session_with_client_certificates_resumes_with_the_patch() {
    if is_impossible() {
        return;
    }
    let registration = Registration::new();
    let Resumed { client, peer, .. } = &resume(&registration, true);
    peer.until(|event| *event == Event::Resumed);
    if is_patched("N11-A9") {
        // The certificate of the session is verified again, on both sides.
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
    if is_impossible() {
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
    if is_impossible() {
        return;
    }
    let registration = Registration::new();
    let resumed = resume(&registration, true);
    assert_eq!(resumed.before_start.first(), Some(&Event::StreamsAvailable));
}

#[test]
fn c33_a_ticket_without_limits_tells_no_streams() {
    if is_impossible() {
        return;
    }
    let registration = Registration::new();
    let strip = |ticket: Vec<u8>| without_limits(&ticket).unwrap().to_vec();
    let resumed = resume_with(&registration, true, strip);
    assert!(!resumed.before_start.contains(&Event::StreamsAvailable));
    if is_patched("N11-A9") {
        let Resumed { client, peer, .. } = &resumed;
        client.until(|event| *event == Event::StreamsAvailable);
        client.until(|event| *event == Event::Connected { resumed: true });
        peer.until(|event| *event == Event::Connected { resumed: true });
    }
}

#[test]
fn c31_a_damaged_ticket_leads_to_a_full_handshake() {
    if is_impossible() {
        return;
    }
    let registration = Registration::new();
    // The last byte of the authentication tag; text that is not a session; half a session.
    let break_seal_of = |ticket: Vec<u8>| change_session(&ticket, break_seal);
    let scribble = |ticket: Vec<u8>| change_session(&ticket, |session| vec![b'x'; session.len()]);
    let cut = |ticket: Vec<u8>| change_session(&ticket, |text| text[..text.len() / 2].to_vec());
    let resumed = [
        resume_with(&registration, true, break_seal_of),
        resume_with(&registration, true, scribble),
        resume_with(&registration, true, cut),
    ];
    for Resumed { client, peer, .. } in &resumed {
        peer.until(|event| *event == Event::Connected { resumed: false });
        client.until(|event| *event == Event::Connected { resumed: false });
        assert!(!peer.so_far().contains(&Event::Resumed));
    }
}

#[test]
fn c31_a_ticket_is_issued_after_the_handshake_and_the_final_one_is_the_last() {
    let registration = Registration::new();
    let server = server(&registration, &Arc::default());
    let configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    let issue = |connection: &Object| {
        let state = [7; 100];
        let flags = ffi::QUIC_SEND_RESUMPTION_FLAGS_QUIC_SEND_RESUMPTION_FLAG_FINAL;
        // SAFETY: C31: the state is copied before the call returns.
        Status::from_raw(unsafe {
            let handle = connection.handle().0;
            call!(ConnectionSendResumptionTicket(handle, flags, 100, state.as_ptr()))
        })
    };
    assert!(client.connect(&configuration, server.addr()).is_ok());
    let peer = server.next();
    peer.until(is_connected);
    assert_eq!(issue(&client), Status::INVALID_PARAMETER, "clients issue none");
    assert_eq!(issue(&peer), Status::SUCCESS);
    client.until(|event| matches!(event, Event::Ticket(_)));
    assert_eq!(issue(&peer), Status::INVALID_STATE);
}

/// A client's ticket with another session.
fn change_session(ticket: &[u8], change: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let start = ticket.windows(5).position(|bytes| bytes == b"-----").unwrap();
    let session = change(&ticket[start..]);
    let length = u32::try_from(session.len()).unwrap() | 0x8000_0000;
    // Version, version of QUIC, no limits.
    [&[1], &ticket[1..5], &[0], &length.to_be_bytes(), &session].concat()
}

/// Changes the last byte of the server's ticket in a session (PEM of DER), which is part of its
/// authentication tag.
fn break_seal(session: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(session).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let mut der = base64::decode(&lines[1..lines.len() - 1].concat());
    // [10] { OCTET STRING } with lengths of two bytes.
    let ticket =
        der.windows(6).position(|it| it[0] == 0xaa && it[1] == 0x82 && it[4..] == [4, 0x82]);
    let ticket = ticket.unwrap();
    let length = usize::from(u16::from_be_bytes([der[ticket + 6], der[ticket + 7]]));
    der[ticket + 8 + length - 1] ^= 1;
    let body = base64::encode(&der);
    let body: Vec<_> = body.as_bytes().chunks(64).map(|line| [line, b"\n"].concat()).collect();
    [lines[0].as_bytes(), b"\n", &body.concat(), lines[lines.len() - 1].as_bytes(), b"\n"].concat()
}

/// Base64 as far as the test needs it.
mod base64 {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn decode(text: &str) -> Vec<u8> {
        let digits = text.bytes().filter(|letter| *letter != b'=');
        let digits = digits.map(|letter| LETTERS.iter().position(|it| *it == letter).unwrap());
        let bits = digits.flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1));
        let bits: Vec<_> = bits.collect();
        let byte = |bits: &[usize]| bits.iter().fold(0, |byte, bit| byte << 1 | *bit as u8);
        bits.chunks_exact(8).map(byte).collect()
    }

    pub(super) fn encode(bytes: &[u8]) -> String {
        let three = |part: &[u8]| {
            let mut all = [0; 4];
            all[1..=part.len()].copy_from_slice(part);
            let value = u32::from_be_bytes(all);
            let letter = |place: usize| match place {
                place if place > part.len() => '=',
                place => char::from(LETTERS[(value >> (18 - 6 * place) & 63) as usize]),
            };
            (0..4).map(letter).collect::<String>()
        };
        bytes.chunks(3).map(three).collect()
    }
}
