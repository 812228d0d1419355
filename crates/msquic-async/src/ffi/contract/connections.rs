//! Clauses about connections: contexts, starting, closing, reasons, certificates.

use super::events::{Answer, Event};
use super::handles::{Open, ignore, is_connected};
use super::harness::{IDENTITY, LOOPBACK, Pair, Role, Server, plenty, react};
use super::roots::Registration;
use super::{in_child, is_patched};
use crate::ffi::status::Status;
use libmsquic_sys::{LINKAGE, Linkage};
use msquic::ffi;
use parking_lot::Mutex;
use std::net::UdpSocket;
use std::sync::mpsc;

const REASON: u32 = ffi::QUIC_PARAM_CONN_CLOSE_REASON_PHRASE;
const SILENT: ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS =
    ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT;

fn is_shutdown_by_peer(event: &Event) -> bool {
    matches!(event, Event::ShutdownByPeer { .. })
}

#[test]
fn c13_a_handle_that_is_not_used_has_no_event_but_those_of_its_close() {
    let pair = Pair::new();
    let connection = pair.registration.open_connection(ignore);
    let stream = pair.client.open_stream(true, ignore).unwrap();
    assert_eq!(pair.client.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT), Ok(8));
    assert_eq!(connection.so_far(), []);
    assert_eq!(stream.so_far(), []);

    stream.close();
    let over = Event::StreamOver { by_connection: false, app_close: true };
    assert_eq!(stream.next().event, Event::SendOver { graceful: false });
    assert_eq!(stream.next().event, over);
    connection.close();
    assert_eq!(connection.next().event, Event::ConnectionOver { app_close: true });
    pair.finish();
}

#[test]
fn c13_nothing_follows_the_last_event() {
    let pair = Pair::new();
    let stream = pair.client.open_stream(false, ignore).unwrap();
    assert!(stream.start_stream(0).is_ok());
    stream.send(b"data", false).unwrap();
    pair.peer.until(|event| matches!(event, Event::PeerStream { .. }));
    pair.client.shutdown(3);
    for events in [stream.all(), pair.client.all(), pair.peer.all()] {
        let last = events.iter().filter(|seen| seen.event.is_last()).count();
        assert_eq!(last, 1, "{events:?}");
    }
    for object in [&stream, &pair.client, &pair.peer] {
        object.close();
        assert_eq!(object.so_far(), []);
    }
}

#[test]
fn c14_start_copies_the_name_and_counts_the_configuration() {
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore));
    let configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    assert_eq!(client.connect(&configuration, server.addr()), Status::PENDING);
    drop(configuration);
    let _peer = server.next();
    client.until(is_connected);
}

#[test]
fn c14_set_configuration_counts_it() {
    let registration = Registration::new();
    let (sender, adopted) = mpsc::channel();
    let listener = registration.open_listener(move |call| {
        if let Event::NewConnection { .. } = call.event {
            let _ = sender.send(call.adopt(ignore));
        }
        Answer::default()
    });
    assert_eq!(listener.listen(super::harness::ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    let client = registration.open_connection(ignore);
    let configuration = registration.configure(Role::Client, &plenty());
    assert!(client.connect(&configuration, listener.local_addr()).is_ok());
    let peer = adopted.recv().unwrap();
    let configuration = registration.configure(Role::Server, &plenty());
    assert_eq!(peer.accept(configuration.handle), Status::PENDING); // long after NEW_CONNECTION
    drop(configuration);
    peer.until(is_connected);
    client.until(is_connected);
}

#[test]
fn c15_shutdown_works_in_every_state() {
    let silent_peer = UdpSocket::bind(LOOPBACK).unwrap();
    let registration = Registration::new();
    let configuration = registration.configure(Role::Client, &plenty());

    let unused = registration.open_connection(ignore);
    unused.shutdown(1);
    assert_eq!(unused.next().event, Event::ConnectionOver { app_close: false });
    let started = unused.connect(&configuration, silent_peer.local_addr().unwrap());
    assert_eq!(started, Status::INVALID_STATE);

    let starting = registration.open_connection(ignore);
    assert!(starting.connect(&configuration, silent_peer.local_addr().unwrap()).is_ok());
    starting.shutdown(1);
    starting.shutdown(2);
    starting.until(Event::is_last);
    starting.shutdown(3); // no effect

    let (sender, adopted) = mpsc::channel();
    let listener = registration.open_listener(move |call| {
        if let Event::NewConnection { .. } = call.event {
            let connection = call.adopt(ignore);
            connection.shutdown_with(SILENT, 4);
            let _ = sender.send(connection);
        }
        Answer::default()
    });
    assert_eq!(listener.listen(super::harness::ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    let client = registration.open_connection(ignore);
    assert!(client.connect(&configuration, listener.local_addr()).is_ok());
    let peer = adopted.recv().unwrap();
    peer.until(Event::is_last);

    let pair = Pair::new();
    pair.peer.shutdown(5);
    let seen = pair.client.until(is_shutdown_by_peer).event;
    assert_eq!(seen, Event::ShutdownByPeer { code: 5 });
    pair.client.shutdown(6); // the peer closed already
    pair.client.until(Event::is_last);
    pair.peer.until(Event::is_last);
}

#[test]
fn c15_a_code_of_2_to_the_62_is_ignored() {
    // With its assertions on, libmsquic aborts instead.
    if let Some(child) = in_child("connections::c15_a_code_of_2_to_the_62_is_ignored") {
        let may_abort = cfg!(debug_assertions) || LINKAGE != Linkage::Vendored;
        assert!(child.is_success() || may_abort && child.is_aborted(), "{child}");
        return;
    }
    let pair = Pair::new();
    pair.client.shutdown(1 << 62);
    pair.client.shutdown(u64::MAX);
    assert_eq!(pair.client.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT), Ok(8));
    pair.client.shutdown(7);
    let seen = pair.peer.until(is_shutdown_by_peer).event;
    assert_eq!(seen, Event::ShutdownByPeer { code: 7 });
    pair.client.until(Event::is_last);
}

#[test]
fn c15_the_largest_code_is_2_to_the_62_less_1() {
    let pair = Pair::new();
    pair.client.shutdown((1 << 62) - 1);
    let seen = pair.peer.until(is_shutdown_by_peer).event;
    assert_eq!(seen, Event::ShutdownByPeer { code: (1 << 62) - 1 });
    pair.client.until(Event::is_last);
}

#[test]
fn c17_a_reason_is_sent_only_if_it_is_set_while_the_close_is_processed() {
    for is_early in [true, false] {
        let (reasons, peer_reasons) = mpsc::channel();
        let reasons = Mutex::new(reasons);
        let on_peer = react(move |call| {
            if is_shutdown_by_peer(call.event) || call.event.is_last() {
                let _ = reasons.lock().send(call.get_with_length::<[u8; 16]>(REASON, 16));
            }
            ignore(call)
        });
        let pair = Pair::with(&plenty(), react(ignore), on_peer);
        // Events of streams come between the close and the packet that carries it to the peer.
        let stream = pair.client.open_stream(true, ignore).unwrap();
        let late = pair.client.open_stream(true, {
            let connection = pair.client.borrow();
            move |call| {
                if call.event.is_last() && !is_early {
                    assert_eq!(connection.set(REASON, *b"later\0"), Status::SUCCESS);
                }
                Answer::default()
            }
        });
        let late = late.unwrap();
        for stream in [&stream, &late] {
            assert!(stream.start_stream(0).is_ok());
            stream.until(|event| matches!(event, Event::Started { .. }));
        }
        if is_early {
            assert_eq!(pair.client.set(REASON, *b"early\0"), Status::SUCCESS);
        }
        pair.client.shutdown(9);
        pair.peer.until(Event::is_last);
        let (status, _, _) = peer_reasons.recv().unwrap();
        assert_eq!(status, Status::NOT_FOUND, "the reason is there before SHUTDOWN_COMPLETE");
        let (status, reason, length) = peer_reasons.recv().unwrap();
        if is_early {
            assert_eq!(status, Status::NOT_FOUND, "{reason:?}");
        } else {
            assert_eq!((status, &reason[..length as usize]), (Status::SUCCESS, &b"later\0"[..]));
        }
        pair.client.until(Event::is_last);
    }
}

#[test]
fn c17_a_reason_ends_with_a_zero_and_has_at_most_512_bytes() {
    let registration = Registration::new();
    let connection = registration.open_connection(ignore);
    let mut longest = [b'x'; 512];
    longest[511] = 0;
    let mut longer = [b'x'; 513];
    longer[512] = 0;
    assert_eq!(connection.set(REASON, longest), Status::SUCCESS);
    assert_eq!(connection.set(REASON, longer), Status::INVALID_PARAMETER);
    assert_eq!(connection.set(REASON, *b"open"), Status::INVALID_PARAMETER);
    assert_eq!(connection.get::<[u8; 512]>(REASON), Ok(longest));
    let (status, _, length) = connection.get_with_length::<[u8; 512]>(REASON, 511);
    assert_eq!((length, Status::ok(status.to_raw()).is_err()), (512, true));
}

#[test]
fn c18_a_connection_that_is_rejected_is_closed_by_the_library() {
    let registration = Registration::new();
    let listener = registration.open_listener(|call| match call.event {
        Event::NewConnection { .. } => Answer::status(Status::CONNECTION_REFUSED),
        _ => Answer::default(),
    });
    assert_eq!(listener.listen(super::harness::ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);
    let configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    assert!(client.connect(&configuration, listener.local_addr()).is_ok());
    let seen = client.until(|event| matches!(event, Event::ShutdownByTransport { .. })).event;
    let status = Status::CONNECTION_REFUSED;
    assert_eq!(seen, Event::ShutdownByTransport { status, code: 2 });
    // Nothing is left, or the registration could not be closed.
    drop((client, listener, configuration));
    registration.close();
}

#[test]
fn c22_each_handshake_tells_the_certificate_once() {
    let registration = Registration::new();
    let server = Server::new(&registration, &plenty(), &react(ignore));
    for role in [Role::Client, Role::Anonymous] {
        let configuration = registration.configure(role, &plenty());
        let client = registration.open_connection(ignore);
        assert!(client.connect(&configuration, server.addr()).is_ok());
        let peer = server.next();
        peer.until(|event| {
            let Event::Certificate(der) = event else { return false };
            let expected = (role == Role::Client).then_some(&IDENTITY.certificate);
            assert_eq!(der.as_ref(), expected);
            true
        });
        peer.until(is_connected);
        let seen = client.until(|event| matches!(event, Event::Certificate(_))).event;
        assert_eq!(seen, Event::Certificate(Some(IDENTITY.certificate.clone())));
        client.until(is_connected);
        client.shutdown(0);
        for connection in [client, peer] {
            let rest = connection.all();
            let is_certificate = |event: &Event| matches!(event, Event::Certificate(_));
            assert!(!rest.iter().any(|seen| is_certificate(&seen.event)), "{rest:?}");
        }
    }
}

#[test]
fn c22_a_rejected_certificate_ends_the_connection_with_an_alert() {
    let unknown = Status::UNKNOWN_CERTIFICATE;
    let alert = if is_patched("N15") { 46 } else { 42 };
    for (role, answer, alert) in [
        (Role::Client, Status::BAD_CERTIFICATE, 42),
        (Role::Client, Status::INTERNAL_ERROR, 42),
        (Role::Client, unknown, alert),
        (Role::Anonymous, Status::BAD_CERTIFICATE, 116),
    ] {
        let registration = Registration::new();
        let on_peer = react(move |call| match call.event {
            Event::Certificate(_) => Answer::status(answer),
            _ => ignore(call),
        });
        let server = Server::new(&registration, &plenty(), &on_peer);
        let configuration = registration.configure(role, &plenty());
        let client = registration.open_connection(ignore);
        assert!(client.connect(&configuration, server.addr()).is_ok());
        let peer = server.next();
        let seen = client.until(|event| matches!(event, Event::ShutdownByTransport { .. })).event;
        let Event::ShutdownByTransport { code, .. } = seen else { unreachable!() };
        assert_eq!(code, 0x100 + alert, "{role:?}, {answer:?}");
        client.until(Event::is_last);
        let events = peer.all();
        assert!(!events.iter().any(|seen| is_connected(&seen.event)), "{events:?}");
    }
}
