//! An event player: streams without msquic, through every order of events up to a length, and through
//! long random ones, legal or not. Whatever comes, nothing panics, and once the last event is over nobody
//! is left waiting.

use super::inner::StreamInner;
use super::state::StartState;
use super::{ReceiveEnd, ReceiveSink, StreamType};
use crate::connection::ConnectionInner;
use crate::ffi::calls::Calls;
use crate::ffi::connection::NativeConnection;
use crate::ffi::registration::{ExecutionProfile, NativeRegistration};
use crate::ffi::status::Status;
use crate::ffi::stream::{StreamEvent, StreamHandler};
use crate::random::Random;
use futures_util::task::noop_waker;
use net_traits::{NetCredential, TrustPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

/// Every event, with the data that matters.
const EVENTS: [StreamEvent; 12] = [
    StreamEvent::StartComplete { status: Status::SUCCESS, id: 3 },
    StreamEvent::StartComplete { status: Status::ABORTED, id: 0 },
    StreamEvent::StartComplete { status: Status::STREAM_LIMIT_REACHED, id: 0 },
    StreamEvent::SendComplete { canceled: false },
    StreamEvent::SendComplete { canceled: true },
    StreamEvent::IdealSendBuffer { bytes: 1 << 20 },
    StreamEvent::PeerSendShutdown,
    StreamEvent::PeerSendAborted { code: 1 },
    StreamEvent::PeerReceiveAborted { code: 2 },
    StreamEvent::SendShutdownComplete { graceful: true },
    StreamEvent::SendShutdownComplete { graceful: false },
    StreamEvent::ShutdownComplete { connection: false },
];

/// How long the played sequences are, before the last event.
const LENGTH: usize = 4;

/// Counts how often it is told the end.
struct Ends(Arc<AtomicUsize>);

impl ReceiveSink for Ends {
    fn receive(&mut self, data: &[u8]) -> usize {
        data.len()
    }

    fn end(&mut self, _: ReceiveEnd) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn connection() -> Arc<ConnectionInner> {
    let registration = NativeRegistration::open(c"player", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    Arc::new(ConnectionInner::new(NativeConnection::closed(&registration), credential))
}

/// The sequence that `number` names in base `EVENTS.len()`.
fn events(mut number: usize) -> Vec<StreamEvent> {
    let digit = |_| {
        let event = EVENTS[number % EVENTS.len()];
        number /= EVENTS.len();
        event
    };
    (0..LENGTH).map(digit).collect()
}

/// Plays `all` against each kind of stream.
fn play_all(connection: &Arc<ConnectionInner>, all: &[StreamEvent], number: usize) {
    for (stream_type, is_local) in [
        (StreamType::Bidirectional, true),
        (StreamType::Bidirectional, false),
        (StreamType::Unidirectional, true),
        (StreamType::Unidirectional, false),
    ] {
        let inner = StreamInner::new(connection, stream_type, is_local);
        let ends = Arc::new(AtomicUsize::new(0));
        let has_sink = number.is_multiple_of(2);
        if has_sink {
            assert!(inner.set_sink(Box::new(Ends(ends.clone()))).is_ok());
        }
        play(&inner, all, number.is_multiple_of(3), has_sink.then_some(&*ends));
    }
}

fn play(inner: &Arc<StreamInner>, all: &[StreamEvent], finish: bool, ends: Option<&AtomicUsize>) {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    if inner.is_local {
        // As if msquic had taken the start.
        inner.exclusive.lock().start = StartState::Starting;
        assert!(inner.poll_start(&mut cx, false).is_pending());
    }
    let _ = inner.try_write(|queue, _| queue.push_copy(b"bytes"));
    for event in all {
        inner.on_event(*event, Calls::none(inner.connection.native()));
        let _ = inner.try_write(|queue, _| queue.push_copy(b"more"));
        let _ = inner.try_read(|queue| queue.chunk(10));
    }
    if finish {
        let _ = inner.finish();
    }
    inner.on_event(
        StreamEvent::ShutdownComplete { connection: true },
        Calls::none(inner.connection.native()),
    );

    assert!(inner.poll_start(&mut cx, false).is_ready(), "the opener hangs after {all:?}");
    assert!(inner.try_finish().is_some(), "the writer hangs after {all:?}");
    assert!(inner.completed(u64::MAX).is_some() || inner.stopped().is_some(), "{all:?}");
    let write = inner.try_write(|queue, _| queue.push_copy(b"late"));
    assert!(matches!(write, Some(Err(_))), "written after the end, {all:?}");
    assert!(matches!(inner.try_enqueue(&[], &[]), Some(Err(_))), "queued after the end, {all:?}");
    if let Some(ends) = ends {
        assert_eq!(ends.load(Ordering::SeqCst), 1, "ends told to the sink, {all:?}");
    } else {
        let read = inner.try_read(|queue| queue.chunk(10));
        assert!(matches!(read, Some(Ok(None) | Err(_))), "the reader hangs, {all:?}");
    }
    assert!(inner.received_reset().is_some(), "{all:?}");
    // What must not come any more changes nothing.
    EVENTS.iter().for_each(|event| inner.on_event(*event, Calls::none(inner.connection.native())));
    assert!(inner.try_finish().is_some() && inner.received_reset().is_some(), "{all:?}");
}

#[test]
fn every_order_of_events_ends_with_nobody_waiting() {
    let connection = connection();
    for number in 0..EVENTS.len().pow(LENGTH as u32) {
        play_all(&connection, &events(number), number);
    }
}

#[test]
fn long_random_orders_end_the_same_way() {
    let connection = connection();
    let mut random = Random::new();
    for number in 0..10_000 {
        let all: Vec<_> = (0..30).map(|_| EVENTS[random.below(EVENTS.len())]).collect();
        play_all(&connection, &all, number);
    }
}
