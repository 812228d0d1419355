//! Clauses about received bytes: taking them, pausing, holding them in msquic's memory.

use super::events::{Answer, Event};
use super::handles::{Object, Open, ignore};
use super::harness::{Pair, React, plenty, react};
use super::lacks_patch;
use crate::Settings;
use crate::ffi::calls::QUIC_PARAM_CONN_RECEIVED_UNREAD;
use crate::ffi::status::Status;
use msquic::ffi;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

/// A connected pair, a stream of the client, and the streams that the server adopted with `on_stream`.
fn sender(on_stream: React) -> (Pair, Object, Receiver<Object>) {
    sender_with(&plenty(), on_stream)
}

fn sender_with(settings: &Settings, on_stream: React) -> (Pair, Object, Receiver<Object>) {
    let (pair, streams) = Pair::with_streams(settings, on_stream);
    let stream = pair.client.open_stream(true, ignore).unwrap();
    assert!(stream.start_stream(0).is_ok());
    (pair, stream, streams)
}

fn is_received(event: &Event) -> bool {
    matches!(event, Event::Received { .. })
}

/// Answers RECEIVE with `status`, other events with success.
fn answer(status: Status) -> React {
    react(move |call| match call.event {
        Event::Received { data, .. } if !data.is_empty() => Answer::status(status),
        _ => ignore(call),
    })
}

/// The bytes of the next RECEIVE, whether the end comes with them, and their address.
#[track_caller]
fn receive(stream: &Object) -> (Vec<u8>, bool, usize) {
    match stream.until(is_received).event {
        Event::Received { data, fin, first } => (data, fin, first),
        _ => unreachable!(),
    }
}

#[test]
fn c25_taking_less_pauses_until_receiving_is_enabled() {
    // Takes three bytes of the first event, nothing of the second, and all of the rest.
    let turn = AtomicUsize::new(0);
    let (pair, stream, streams) = sender(react(move |call| match call.event {
        Event::Received { .. } => match turn.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::taken(3),
            1 => Answer::taken(0),
            _ => Answer::default(),
        },
        _ => Answer::default(),
    }));
    let sent = stream.send(b"0123456789", true).unwrap();
    let peer_stream = streams.recv().unwrap();
    // The peer acknowledges all of it, and offers no more.
    stream.until(|event| *event == Event::Sent { context: sent, canceled: false });
    assert_eq!(receive(&peer_stream).0, b"0123456789");
    assert_eq!(peer_stream.get::<u64>(ffi::QUIC_PARAM_STREAM_ID), Ok(2));
    assert_eq!(peer_stream.so_far(), []);

    assert_eq!(peer_stream.enable_receive(), Status::PENDING);
    assert_eq!(receive(&peer_stream).0, b"3456789");
    assert_eq!(peer_stream.get::<u64>(ffi::QUIC_PARAM_STREAM_ID), Ok(2));
    assert_eq!(peer_stream.so_far(), []);

    assert_eq!(peer_stream.enable_receive(), Status::PENDING);
    assert_eq!(receive(&peer_stream).0, b"3456789");
    assert_eq!(peer_stream.next().event, Event::PeerSendShutdown);
    peer_stream.until(Event::is_last);
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c25_receiving_enabled_inside_the_callback_counts_after_it() {
    let (pair, stream, streams) = sender(react(|call| match call.event {
        Event::Received { data, .. } => {
            assert_eq!(call.enable_receive(), Status::PENDING);
            Answer::taken(u64::from(!data.is_empty()))
        }
        _ => Answer::default(),
    }));
    stream.send(b"0123", true).unwrap();
    let peer_stream = streams.recv().unwrap();
    let mut offered = Vec::new();
    for seen in peer_stream.all() {
        match seen.event {
            Event::Received { data, .. } => offered.push(data.len()),
            Event::PeerSendShutdown => offered.push(usize::MAX),
            _ => {}
        }
    }
    offered.dedup();
    assert!(
        offered.ends_with(&[1, usize::MAX]) || offered.ends_with(&[1, 0, usize::MAX]),
        "{offered:?}"
    );
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c25_an_end_without_bytes_has_length_0() {
    let (pair, stream, streams) = sender(react(ignore));
    stream.send(b"data", false).unwrap();
    let peer_stream = streams.recv().unwrap();
    let (data, fin, _) = receive(&peer_stream);
    assert_eq!((&data[..], fin), (&b"data"[..], false));
    stream.send(b"", true).unwrap();
    let (data, fin, _) = receive(&peer_stream);
    assert_eq!((&data[..], fin), (&b""[..], true));
    assert_eq!(peer_stream.next().event, Event::PeerSendShutdown);
    drop((stream, peer_stream));
    pair.finish();
}

/// Sends ten bytes, of which the server takes three before the connection closes. Returns how many were taken, and
/// whether the end was indicated.
fn rest_after(close: impl FnOnce(&Pair)) -> (usize, bool) {
    let turn = AtomicUsize::new(0);
    let (pair, stream, streams) = sender(react(move |call| match call.event {
        Event::Received { .. } if turn.fetch_add(1, Ordering::SeqCst) == 0 => Answer::taken(3),
        _ => Answer::default(),
    }));
    let sent = stream.send(b"0123456789", true).unwrap();
    let peer_stream = streams.recv().unwrap();
    stream.until(|event| *event == Event::Sent { context: sent, canceled: false });
    receive(&peer_stream);
    close(&pair);
    let (mut taken, mut is_ended) = (3, false);
    for seen in peer_stream.all() {
        match seen.event {
            Event::Received { data, .. } => taken += data.len(),
            Event::PeerSendShutdown => is_ended = true,
            _ => {}
        }
    }
    drop((stream, peer_stream));
    pair.finish();
    (taken, is_ended)
}

#[test]
fn c44_what_was_not_taken_is_offered_once_more_with_the_patch() {
    if !lacks_patch("N60") {
        assert_eq!(rest_after(|pair| pair.client.shutdown(7)), (10, true));
        assert_eq!(rest_after(|pair| pair.peer.shutdown(7)), (10, true));
    }
}

#[test]
fn c32_pending_bytes_stop_the_stream_until_they_are_completed() {
    let (pair, stream, streams) = sender(answer(Status::PENDING));
    stream.send(b"first", false).unwrap();
    let peer_stream = streams.recv().unwrap();
    let (data, fin, _) = receive(&peer_stream);
    assert_eq!((&data[..], fin), (&b"first"[..], false));
    let sent = stream.send(b"second", true).unwrap();
    stream.until(|event| *event == Event::Sent { context: sent, canceled: false });
    assert_eq!(peer_stream.get::<u64>(ffi::QUIC_PARAM_STREAM_ID), Ok(2));
    assert_eq!(peer_stream.so_far(), []);

    // From a thread that libmsquic does not know.
    let handle = peer_stream.borrow();
    thread::spawn(move || handle.complete_receive(5)).join().unwrap();
    let (data, fin, _) = receive(&peer_stream);
    assert_eq!((&data[..], fin), (&b"second"[..], true));
    assert_eq!(peer_stream.get::<u64>(ffi::QUIC_PARAM_STREAM_ID), Ok(2));
    assert_eq!(peer_stream.so_far(), [], "the end comes after the completion");
    peer_stream.complete_receive(6);
    assert_eq!(peer_stream.next().event, Event::PeerSendShutdown);
    peer_stream.until(Event::is_last);
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c32_completion_inside_the_callback_is_taken() {
    let (pair, stream, streams) = sender(react(|call| match call.event {
        Event::Received { data, .. } if !data.is_empty() => {
            call.complete_receive(data.len() as u64);
            Answer::status(Status::PENDING)
        }
        _ => Answer::default(),
    }));
    stream.send(b"data", true).unwrap();
    let peer_stream = streams.recv().unwrap();
    assert_eq!(receive(&peer_stream).0, b"data");
    peer_stream.until(|event| *event == Event::PeerSendShutdown);
    peer_stream.until(Event::is_last);
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c32_pending_bytes_stay_until_the_stream_is_closed() {
    static DATA: [u8; 30_000] = [0x5a; 30_000];
    let (pair, stream, streams) = sender(answer(Status::PENDING));
    stream.send(&DATA, false).unwrap();
    let peer_stream = streams.recv().unwrap();
    let (data, _, first) = receive(&peer_stream);
    // SAFETY: C32: the bytes are neither moved nor freed before the completion or the close of the stream.
    let held = unsafe {
        let first = ptr::with_exposed_provenance::<u8>(first);
        slice::from_raw_parts(first, data.len().min(1000))
    };
    let abort = ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_SEND;
    assert!(stream.abort(abort, 1).is_ok());
    peer_stream.until(|event| matches!(event, Event::PeerSendAborted { .. }));
    assert!(held.iter().all(|byte| *byte == 0x5a));
    pair.client.shutdown(0);
    peer_stream.until(Event::is_last);
    pair.peer.until(Event::is_last);
    pair.client.until(Event::is_last);
    let _ = pair.peer.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_BIDI_STREAM_COUNT); // all callbacks have returned
    assert!(held.iter().all(|byte| *byte == 0x5a));
    peer_stream.close();
}

/// As [`sender`], with several receives at a time; `None` where that can stall.
fn sender_to_several() -> Option<(Pair, Object, Receiver<Object>)> {
    let settings = plenty().zero_copy_receive(true);
    (!lacks_patch("I6180")).then(|| sender_with(&settings, answer(Status::PENDING)))
}

#[test]
fn c36_more_is_offered_while_bytes_are_pending() {
    let Some((pair, stream, streams)) = sender_to_several() else { return };
    stream.send(b"first", false).unwrap();
    let peer_stream = streams.recv().unwrap();
    let (data, _, first) = receive(&peer_stream);
    assert_eq!(data, b"first");
    stream.send(b"second", false).unwrap();
    let (data, _, second) = receive(&peer_stream);
    assert_eq!((&data[..], second), (&b"second"[..], first + 5), "one behind the other");

    // Parts, cumulatively, from several threads, also none; the rest is not offered again.
    let threads: Vec<_> = [3, 0, 2, 1, 0, 5]
        .map(|length| {
            let handle = peer_stream.borrow();
            thread::spawn(move || handle.complete_receive(length))
        })
        .into();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    stream.send(b"third", true).unwrap();
    let (data, fin, _) = receive(&peer_stream);
    assert_eq!((&data[..], fin), (&b"third"[..], true));
    assert_eq!(peer_stream.get::<u64>(ffi::QUIC_PARAM_STREAM_ID), Ok(2));
    assert_eq!(peer_stream.so_far(), [], "the end comes after the last completion");
    peer_stream.complete_receive(5);
    assert_eq!(peer_stream.next().event, Event::PeerSendShutdown);
    peer_stream.until(Event::is_last);
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c36_an_end_alone_is_not_told_while_bytes_are_pending() {
    let Some((pair, stream, streams)) = sender_to_several() else { return };
    stream.send(b"data", false).unwrap();
    let peer_stream = streams.recv().unwrap();
    assert_eq!(receive(&peer_stream).0, b"data");
    let _ = stream.send(b"", true).unwrap();
    thread::sleep(Duration::from_millis(50)); // it would come now
    assert_eq!(peer_stream.so_far(), []);
    peer_stream.complete_receive(4);
    assert_eq!(peer_stream.next().event, Event::PeerSendShutdown);
    peer_stream.until(Event::is_last);
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c36_credit_comes_for_completed_bytes_only() {
    if lacks_patch("I6180") {
        return;
    }
    static DATA: [u8; 30_000] = [0x5a; 30_000];
    let settings = plenty().zero_copy_receive(true).stream_receive_window(8192);
    let (pair, stream, streams) = sender_with(&settings, answer(Status::PENDING));
    stream.send(&DATA, true).unwrap();
    let peer_stream = streams.recv().unwrap();
    let mut blocks = Vec::new();
    while blocks.iter().sum::<usize>() < 8192 {
        blocks.push(receive(&peer_stream).0.len());
    }
    assert_eq!(blocks.iter().sum::<usize>(), 8192);
    thread::sleep(Duration::from_millis(50)); // more would come now
    assert_eq!(peer_stream.so_far(), []);
    // The oldest 4096 bytes, however they were offered.
    peer_stream.complete_receive(4096);
    let mut more = 0;
    while more < 4096 {
        more += receive(&peer_stream).0.len();
    }
    drop((stream, peer_stream));
    pair.finish();
}

#[test]
fn c55_what_was_not_taken_is_told_without_waiting() {
    if lacks_patch("N66") {
        return;
    }
    // Takes nothing of the first event, and all of the rest.
    let turn = AtomicUsize::new(0);
    let (pair, stream, streams) = sender(react(move |call| match call.event {
        Event::Received { .. } if turn.fetch_add(1, Ordering::SeqCst) == 0 => Answer::taken(0),
        _ => Answer::default(),
    }));
    let unread = || pair.peer.get::<u64>(QUIC_PARAM_CONN_RECEIVED_UNREAD);
    assert_eq!(unread(), Ok(0));
    let sent = stream.send(b"0123456789", true).unwrap();
    let peer_stream = streams.recv().unwrap();
    stream.until(|event| *event == Event::Sent { context: sent, canceled: false });
    assert_eq!(receive(&peer_stream).0, b"0123456789");
    assert_eq!(unread(), Ok(10));
    assert_eq!(peer_stream.enable_receive(), Status::PENDING);
    peer_stream.until(Event::is_last);
    assert_eq!(unread(), Ok(0));
    drop((stream, peer_stream));
    pair.finish();
}
