//! Clauses about streams: closing them, credit for new ones, sends, ends.

use super::events::{Answer, Event};
use super::handles::{Object, Open, ignore};
use super::harness::{ABORT_NOW, LOOPBACK, Occupied, Pair, Role, plenty, react};
use super::roots::Registration;
use crate::ffi::functions::call;
use crate::ffi::status::Status;
use msquic::ffi;
use std::net::UdpSocket;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FAIL_BLOCKED: ffi::QUIC_STREAM_START_FLAGS =
    ffi::QUIC_STREAM_START_FLAGS_QUIC_STREAM_START_FLAG_FAIL_BLOCKED;
const SHUTDOWN_ON_FAIL: ffi::QUIC_STREAM_START_FLAGS =
    ffi::QUIC_STREAM_START_FLAGS_QUIC_STREAM_START_FLAG_SHUTDOWN_ON_FAIL;
const INDICATE_PEER_ACCEPT: ffi::QUIC_STREAM_START_FLAGS =
    ffi::QUIC_STREAM_START_FLAGS_QUIC_STREAM_START_FLAG_INDICATE_PEER_ACCEPT;
const SILENT: ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS =
    ffi::QUIC_CONNECTION_SHUTDOWN_FLAGS_QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT;
const ABORT_SEND: ffi::QUIC_STREAM_SHUTDOWN_FLAGS =
    ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_SEND;
const ABORT_RECEIVE: ffi::QUIC_STREAM_SHUTDOWN_FLAGS =
    ffi::QUIC_STREAM_SHUTDOWN_FLAGS_QUIC_STREAM_SHUTDOWN_FLAG_ABORT_RECEIVE;

fn is_started(event: &Event) -> bool {
    matches!(event, Event::Started { .. })
}

fn is_sent(event: &Event) -> bool {
    matches!(event, Event::Sent { .. })
}

fn start(
    connection: &Object,
    is_unidirectional: bool,
    flags: ffi::QUIC_STREAM_START_FLAGS,
) -> Object {
    let stream = connection.open_stream(is_unidirectional, ignore).unwrap();
    assert!(stream.start_stream(flags).is_ok());
    stream
}

/// Starts a unidirectional stream if the peer permits it now.
fn try_start(connection: &Object) -> Option<Object> {
    let stream = start(connection, true, FAIL_BLOCKED);
    let Event::Started { status, .. } = stream.until(is_started).event else { unreachable!() };
    assert!(status.is_ok() || status == Status::STREAM_LIMIT_REACHED);
    status.is_ok().then_some(stream)
}

#[test]
fn c18_a_stream_that_is_rejected_is_closed_by_the_library() {
    let pair = Pair::new(); // its server rejects streams
    let stream = start(&pair.client, false, 0);
    stream.send(b"data", false).unwrap();
    let seen = stream.until(|event| matches!(event, Event::PeerReceiveAborted { .. })).event;
    assert_eq!(seen, Event::PeerReceiveAborted { code: 0 });
    stream.until(Event::is_last);
    stream.close();
    pair.finish(); // which closes the registration: no stream is left
}

#[test]
fn c20_delayed_credit_comes_when_the_stream_is_closed() {
    credit(true);
}

#[test]
fn c20_otherwise_credit_comes_when_the_stream_is_over() {
    credit(false);
}

fn credit(is_delayed: bool) {
    let settings = plenty().peer_uni_streams(1);
    let (pair, streams) = Pair::with_streams_and(&settings, is_delayed, react(ignore));
    let first = try_start(&pair.client).unwrap();
    first.send(b"data", true).unwrap();
    let peer_stream = streams.recv().unwrap();
    peer_stream.until(Event::is_last);
    first.until(Event::is_last);
    // The next event of the peer's connection comes after all events about the first stream.
    let round_trip = || {
        let stream = start(&pair.client, false, 0);
        stream.send(b"data", true).unwrap();
        let peer_stream = streams.recv().unwrap();
        peer_stream.until(|event| matches!(event, Event::PeerSendShutdown));
        peer_stream.send(b"answer", true).unwrap();
        stream.until(Event::is_last);
        peer_stream.until(Event::is_last);
    };
    round_trip();
    if is_delayed {
        assert!(try_start(&pair.client).is_none(), "credit came before the close");
        let waiting = start(&pair.client, true, INDICATE_PEER_ACCEPT);
        waiting.until(|event| matches!(event, Event::Started { accepted: false, .. }));
        peer_stream.close();
        waiting.until(|event| *event == Event::PeerAccepted);
        waiting.send(b"data", true).unwrap();
        streams.recv().unwrap().until(Event::is_last);
        drop(waiting);
    } else {
        let second = try_start(&pair.client).expect("credit although the stream is not closed");
        second.send(b"data", true).unwrap();
        streams.recv().unwrap().until(Event::is_last);
    }
    drop((first, peer_stream, streams));
    pair.finish();
}

#[test]
fn c35_as_many_streams_start_as_are_counted() {
    let pair = Pair::with(&plenty().peer_uni_streams(3), react(ignore), react(ignore));
    let count = || pair.client.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_UNIDI_STREAM_COUNT);
    let mut streams = Vec::new();
    for left in (0..=3).rev() {
        assert_eq!(count(), Ok(left));
        let stream = try_start(&pair.client);
        assert_eq!(stream.is_some(), left > 0);
        streams.extend(stream);
    }
    drop(streams);
    pair.finish();
}

#[test]
fn c35_a_server_is_not_told_how_many_streams_it_may_start() {
    let told = Arc::new(AtomicBool::new(false));
    let is_told = told.clone();
    let on_peer = react(move |call| {
        is_told.fetch_or(matches!(call.event, Event::StreamsAvailable), Ordering::SeqCst);
        ignore(call)
    });
    let pair = Pair::with(&plenty().peer_uni_streams(3), react(ignore), on_peer);
    assert!(!told.load(Ordering::SeqCst));
    assert_eq!(pair.peer.get::<u16>(ffi::QUIC_PARAM_CONN_LOCAL_UNIDI_STREAM_COUNT), Ok(3));
    pair.finish();
}

#[test]
fn c23_every_accepted_send_completes_once() {
    static DATA: [u8; 100_000] = [7; 100_000];
    let settings = plenty().send_buffering(false);
    let (pair, streams) = Pair::with_streams(&settings, react(|_| Answer::taken(0)));
    let stream = start(&pair.client, true, 0);
    // More than the window of the peer, which takes nothing: the rest is cancelled.
    let mut contexts: Vec<_> = (0..20).map(|_| stream.send(&DATA, false).unwrap()).collect();
    let peer_stream = streams.recv().unwrap();
    assert!(stream.abort(ABORT_SEND, 5).is_ok());
    let seen = peer_stream.until(|event| matches!(event, Event::PeerSendAborted { .. })).event;
    assert_eq!(seen, Event::PeerSendAborted { code: 5 });
    let mut canceled = 0;
    for seen in stream.all() {
        if let Event::Sent { context, canceled: is_canceled } = seen.event {
            let place = contexts.iter().position(|sent| *sent == context);
            contexts.remove(place.expect("a send completed twice"));
            canceled += usize::from(is_canceled);
        }
    }
    assert_eq!(contexts, [0; 0], "sends without an end");
    assert!(canceled > 0);
    drop((stream, peer_stream));
    pair.finish();
}

/// How a stream with sends in flight ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Abort,
    Close,
    /// The connection is shut down while the worker has not seen the sends.
    Overtaken,
    Silent,
    /// The connection is closed before the worker sees the start.
    NotStarted,
}

#[test]
fn c23_each_send_completes_before_the_last_event_however_the_stream_ends() {
    static DATA: [u8; 100_000] = [7; 100_000];
    let settings = plenty().send_buffering(false);
    for end in [End::Abort, End::Close, End::Overtaken, End::Silent, End::NotStarted] {
        for is_started in [true, false] {
            let (pair, streams) = Pair::with_streams(&settings, react(ignore));
            let stream = pair.client.open_stream(true, ignore).unwrap();
            let occupied = matches!(end, End::Overtaken | End::NotStarted)
                .then(|| Occupied::new(&pair.client));
            if is_started {
                assert!(stream.start_stream(SHUTDOWN_ON_FAIL).is_ok());
            }
            if is_started && matches!(end, End::Close) {
                stream.until(super::streams::is_started); // C29: an inline close overtakes the start
            }
            let mut contexts: Vec<_> =
                (0..3).map(|sent| stream.send(&DATA, sent == 2).unwrap()).collect();
            match end {
                End::Abort => assert!(stream.abort(ABORT_NOW, 0).is_ok()),
                End::Close => {}
                End::Overtaken | End::NotStarted => pair.client.shutdown(0),
                End::Silent => pair.client.shutdown_with(SILENT, 0),
            }
            drop(occupied);
            if !matches!(end, End::Close) {
                pair.client.shutdown(0);
                pair.client.until(Event::is_last);
            }
            stream.close(); // delivers the last event unless it came before
            for seen in stream.all() {
                if let Event::Sent { context, .. } = seen.event {
                    let place = contexts.iter().position(|sent| *sent == context);
                    contexts.remove(place.expect("a send completed twice"));
                }
            }
            assert_eq!(contexts, [0; 0], "{end:?}, {is_started}");
            assert_eq!(stream.so_far(), [], "{end:?}, {is_started}");
            pair.client.shutdown(0);
            pair.client.close();
            pair.peer.shutdown(0);
            pair.peer.until(Event::is_last);
            drop(streams);
        }
    }
}

#[test]
fn c23_a_send_that_fails_has_no_event() {
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let stream = start(&pair.client, true, 0);
    let last = stream.send(b"data", true).unwrap();
    stream.until(|event| *event == Event::Sent { context: last, canceled: false });
    assert_eq!(stream.send(b"more", false), Err(Status::INVALID_STATE));
    // A length that no bytes stand behind: it is rejected before they are read.
    let long = ffi::QUIC_BUFFER { Length: u32::MAX, Buffer: ptr::dangling_mut() };
    let array = [long, long];
    let second = start(&pair.client, true, 0);
    // SAFETY: C23: a send of 4 GiB or more fails, and reads only the array, which outlives the call.
    let status = unsafe {
        let context = ptr::null_mut();
        call!(StreamSend(second.handle().0, array.as_ptr(), 2, 0, context))
    };
    assert_eq!(Status::from_raw(status), Status::INVALID_PARAMETER);
    assert!(second.abort(ABORT_NOW, 0).is_ok());
    for stream in [&stream, &second] {
        let rest = stream.all();
        assert!(!rest.iter().any(|seen| is_sent(&seen.event)), "{rest:?}");
    }
    streams.recv().unwrap().until(Event::is_last);
    drop((stream, second, streams));
    pair.finish();
}

#[test]
fn c23_the_end_may_be_sent_without_bytes() {
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let stream = start(&pair.client, true, 0);
    let context = stream.send(b"", true).unwrap();
    stream.until(|event| *event == Event::Sent { context, canceled: false });
    streams.recv().unwrap().until(|event| *event == Event::PeerSendShutdown);
    drop(stream);
    pair.finish();
}

#[test]
fn c24_an_immediate_abort_does_not_wait_for_the_peer() {
    let silent_peer = UdpSocket::bind(LOOPBACK).unwrap();
    let registration = Registration::new();
    let configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection(ignore);
    let unused = client.open_stream(false, ignore).unwrap();
    let started = start(&client, false, 0);
    started.send(b"data", false).unwrap();
    assert!(client.connect(&configuration, silent_peer.local_addr().unwrap()).is_ok());
    for stream in [&unused, &started] {
        assert_eq!(stream.abort(ABORT_NOW, 7), Status::PENDING);
        let seen = stream.until(Event::is_last).event;
        assert_eq!(seen, Event::StreamOver { by_connection: false, app_close: false });
    }
}

#[test]
fn c24_a_failed_start_ends_the_stream_if_asked_to() {
    let settings = plenty().peer_uni_streams(0);
    let pair = Pair::with(&settings, react(ignore), react(ignore));
    let stays = start(&pair.client, true, FAIL_BLOCKED);
    let ends = start(&pair.client, true, FAIL_BLOCKED | SHUTDOWN_ON_FAIL);
    let failed = Event::Started { status: Status::STREAM_LIMIT_REACHED, accepted: false };
    assert_eq!(stays.next().event, failed);
    let events: Vec<_> = ends.all().into_iter().map(|seen| seen.event).collect();
    let over = Event::StreamOver { by_connection: false, app_close: false };
    assert_eq!(events, [failed, Event::SendOver { graceful: false }, over]);
    assert_eq!(stays.so_far(), []);
    drop((stays, ends));
    pair.finish();
}

#[test]
fn c24_started_streams_end_before_their_connection() {
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let mine: Vec<_> = (0..4).map(|index| start(&pair.client, index < 2, 0)).collect();
    mine.iter().for_each(|stream| assert!(stream.send(b"data", false).is_ok()));
    let theirs: Vec<_> = mine.iter().map(|_| streams.recv().unwrap()).collect();
    pair.client.shutdown(1);
    for (connection, streams) in [(&pair.client, &mine), (&pair.peer, &theirs)] {
        let end = connection.until(Event::is_last);
        for stream in streams {
            let seen = stream.until(Event::is_last);
            let over = Event::StreamOver { by_connection: true, app_close: false };
            assert_eq!(seen.event, over);
            assert!(seen.order < end.order);
        }
    }
}

#[test]
fn c24_a_start_that_is_queued_behind_a_shutdown_fails() {
    let pair = Pair::new();
    let occupied = Occupied::new(&pair.client);
    let stream = start(&pair.client, true, SHUTDOWN_ON_FAIL);
    let asleep = start(&pair.client, true, 0);
    pair.client.shutdown(1); // overtakes the starts
    drop(occupied);
    let events: Vec<_> = stream.all().into_iter().map(|seen| seen.event).collect();
    let failed = Event::Started { status: Status::INVALID_STATE, accepted: false };
    let over = Event::StreamOver { by_connection: true, app_close: false };
    assert_eq!(events, [failed.clone(), Event::SendOver { graceful: false }, over]);
    assert_eq!(asleep.next().event, failed);
    pair.client.until(Event::is_last);
    assert_eq!(asleep.so_far(), [], "without SHUTDOWN_ON_FAIL nothing follows");
}

#[test]
fn c24_a_code_of_2_to_the_62_fails() {
    let (pair, streams) = Pair::with_streams(&plenty(), react(ignore));
    let stream = start(&pair.client, true, 0);
    stream.send(b"data", false).unwrap();
    assert_eq!(stream.abort(ABORT_SEND, 1 << 62), Status::INVALID_PARAMETER);
    assert_eq!(stream.abort(ABORT_SEND, (1 << 62) - 1), Status::PENDING);
    let peer_stream = streams.recv().unwrap();
    let seen = peer_stream.until(|event| matches!(event, Event::PeerSendAborted { .. })).event;
    assert_eq!(seen, Event::PeerSendAborted { code: (1 << 62) - 1 });
    let back = start(&pair.peer, true, 0);
    assert_eq!(back.abort(ABORT_RECEIVE, 0), Status::PENDING); // nothing to receive: no effect
    assert!(back.abort(ABORT_NOW, 0).is_ok());
    back.until(Event::is_last);
    drop((stream, peer_stream, back));
    pair.finish();
}
