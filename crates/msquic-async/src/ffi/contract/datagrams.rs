//! Clauses about datagrams.

use super::events::{Answer, Call, Event};
use super::handles::{Open, ignore};
use super::harness::{Occupied, Pair, plenty, react};
use super::roots::Registration;
use crate::ffi::functions::call;
use crate::ffi::status::Status;
use msquic::ffi;
use std::ptr;

const SENT: ffi::QUIC_DATAGRAM_SEND_STATE = ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_SENT;
const CANCELED: ffi::QUIC_DATAGRAM_SEND_STATE =
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_CANCELED;
const LOST: ffi::QUIC_DATAGRAM_SEND_STATE =
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_LOST_DISCARDED;
const SILENT: ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS =
    ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT;
const SUSPECT: ffi::QUIC_DATAGRAM_SEND_STATE =
    ffi::QUIC_DATAGRAM_SEND_STATE_QUIC_DATAGRAM_SEND_LOST_SUSPECT;

/// The states of each datagram, in order.
fn states(events: &[Event], context: usize) -> Vec<ffi::QUIC_DATAGRAM_SEND_STATE> {
    let state = |event: &Event| match *event {
        Event::DatagramSend { context: of, state } if of == context => Some(state),
        _ => None,
    };
    events.iter().filter_map(state).filter(|state| *state != SUSPECT).collect()
}

#[test]
fn c26_an_accepted_datagram_is_sent_and_has_one_final_state() {
    let pair = Pair::new();
    pair.client.get::<u8>(ffi::QUIC_PARAM_CONN_DATAGRAM_SEND_ENABLED).unwrap();
    let contexts: Vec<_> =
        (0..20).map(|_| pair.client.send_datagram(b"datagram").unwrap()).collect();
    let seen = pair.peer.until(|event| matches!(event, Event::Datagram(_))).event;
    assert_eq!(seen, Event::Datagram(b"datagram".to_vec()));
    pair.client.shutdown(0);
    let events: Vec<_> = pair.client.all().into_iter().map(|seen| seen.event).collect();
    for context in contexts {
        match states(&events, context)[..] {
            [SENT, last] => assert_ne!(last, SENT),
            ref states => assert_eq!(states, [CANCELED]),
        }
    }
    pair.peer.until(Event::is_last);
}

#[test]
fn c26_a_datagram_that_is_still_queued_is_cancelled_at_the_end() {
    let pair = Pair::new();
    let occupied = Occupied::new(&pair.client);
    let context = pair.client.send_datagram(b"datagram").unwrap();
    pair.client.shutdown(0); // overtakes it
    drop(occupied);
    let events: Vec<_> = pair.client.all().into_iter().map(|seen| seen.event).collect();
    assert_eq!(states(&events, context), [CANCELED]);
    pair.peer.until(Event::is_last);
}

#[test]
fn c26_a_datagram_that_is_not_accepted_has_no_event() {
    static LONG: [u8; 2000] = [0; 2000];
    let pair = Pair::new();
    assert_eq!(pair.client.send_datagram(&LONG), Err(Status::INVALID_PARAMETER));
    pair.client.shutdown(0);
    let mut events: Vec<_> = pair.client.all().into_iter().map(|seen| seen.event).collect();
    assert_eq!(pair.client.send_datagram(b"late"), Err(Status::INVALID_STATE));
    pair.client.close();
    events.extend(pair.client.so_far());
    let is_state = |event: &Event| matches!(event, Event::DatagramSend { .. });
    assert!(!events.iter().any(is_state), "{events:?}");
    pair.peer.until(Event::is_last);

    let none = Pair::with(&plenty().datagrams(false), react(ignore), react(ignore));
    assert_eq!(none.client.send_datagram(b"unheard"), Err(Status::INVALID_STATE));
    none.finish();
}

#[test]
fn c26_a_datagram_that_is_not_acknowledged_is_lost_before_the_last_event() {
    // The connection has ended before the worker looks at the next packet of the peer.
    let close = |call: &Call<'_>| {
        if matches!(call.event, Event::DatagramSend { state: SENT, .. }) {
            call.shutdown_with(SILENT, 0);
        }
        Answer::default()
    };
    let pair = Pair::with(&plenty(), react(close), react(ignore));
    let context = pair.client.send_datagram(b"datagram").unwrap();
    let events: Vec<_> = pair.client.all().into_iter().map(|seen| seen.event).collect();
    assert_eq!(states(&events, context), [SENT, LOST]);
    pair.client.close();
    assert_eq!(pair.client.so_far(), []);
    pair.peer.shutdown(0);
    pair.peer.until(Event::is_last);

    // Without a context there is no such event.
    let pair = Pair::with(&plenty(), react(close), react(ignore));
    static DATAGRAM: [u8; 8] = *b"datagram";
    let array =
        Vec::leak(vec![ffi::QUIC_BUFFER { Length: 8, Buffer: DATAGRAM.as_ptr().cast_mut() }]);
    // SAFETY: C1, C26: the array and the bytes are never freed.
    let status = unsafe {
        let handle = pair.client.handle().0;
        call!(DatagramSend(handle, array.as_ptr(), 1, 0, ptr::null_mut()))
    };
    assert!(Status::from_raw(status).is_ok());
    let events: Vec<_> = pair.client.all().into_iter().map(|seen| seen.event).collect();
    assert_eq!(states(&events, 0), [SENT]);
    pair.peer.shutdown(0);
    pair.peer.until(Event::is_last);
}

#[test]
fn c26_a_datagram_is_taken_before_the_start_and_cancelled_without_it() {
    for is_shut_down in [true, false] {
        let registration = Registration::new();
        let connection = registration.open_connection(ignore);
        let context = connection.send_datagram(b"early").unwrap();
        if is_shut_down {
            connection.shutdown(0);
            connection.until(|event| matches!(event, Event::DatagramSend { .. }));
            connection.close();
        } else {
            connection.close();
            let events: Vec<_> = connection.all().into_iter().map(|seen| seen.event).collect();
            assert_eq!(states(&events, context), [CANCELED]);
        }
    }
}
