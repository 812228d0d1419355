//! Plays events to streams without msquic: every order of events up to a length, and long random
//! orders, also those that msquic never produces, with aborts of this side in between. Nothing may
//! panic; after the last event no future may wait, all credit must be given back, and a stream
//! whose connection goes on must not report that it is lost.

use super::future::Flush;
use super::inner::StreamInner;
use super::state::StartState;
use super::{ReadError, ReceiveEnd, ReceiveSink, StartError, StreamType, WriteError};
use crate::connection::{ConnectionError, ConnectionInner, StreamConnection};
use crate::ffi::calls::Calls;
use crate::ffi::connection::NativeConnection;
use crate::ffi::registration::{ExecutionProfile, NativeRegistration};
use crate::ffi::status::Status;
use crate::ffi::stream::{StreamEvent, StreamHandler};
use futures_util::FutureExt;
use futures_util::task::{ArcWake, noop_waker, waker};
use net_traits::{NetCredential, TrustPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// What happens to a stream.
#[derive(Debug, Clone, Copy)]
enum Step {
    Event(StreamEvent),
    AbortWrite,
    AbortRead,
}

/// Everything that can happen, with the data that matters.
const STEPS: [Step; 14] = [
    Step::Event(StreamEvent::StartComplete { status: Status::SUCCESS, id: 3 }),
    Step::Event(StreamEvent::StartComplete { status: Status::OUT_OF_MEMORY, id: 0 }),
    Step::Event(StreamEvent::StartComplete { status: Status::STREAM_LIMIT_REACHED, id: 0 }),
    Step::Event(StreamEvent::SendComplete { canceled: false }),
    Step::Event(StreamEvent::SendComplete { canceled: true }),
    Step::Event(StreamEvent::IdealSendBuffer { bytes: 1 << 20 }),
    Step::Event(StreamEvent::PeerSendShutdown),
    Step::Event(StreamEvent::PeerSendAborted { code: 1 }),
    Step::Event(StreamEvent::PeerReceiveAborted { code: 2 }),
    Step::Event(StreamEvent::SendShutdownComplete { graceful: true }),
    Step::Event(StreamEvent::SendShutdownComplete { graceful: false }),
    Step::Event(StreamEvent::ShutdownComplete { connection: false }),
    Step::AbortWrite,
    Step::AbortRead,
];

impl Step {
    fn play(self, inner: &Arc<StreamInner>) {
        match self {
            Self::Event(event) => inner.on_event(event, Calls::none(inner.connection.native())),
            Self::AbortWrite => drop(inner.abort_write(3)),
            Self::AbortRead => drop(inner.abort_read(4)),
        }
    }
}

/// How long the played sequences are, before the last event.
const LENGTH: usize = 4;

/// Counts how often it receives the end.
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
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    Arc::new(ConnectionInner::new(NativeConnection::closed(&registration), credential))
}

/// The sequence that `number` names in base `STEPS.len()`.
fn steps(mut number: usize) -> Vec<Step> {
    let digit = |_| {
        let step = STEPS[number % STEPS.len()];
        number /= STEPS.len();
        step
    };
    (0..LENGTH).map(digit).collect()
}

/// Plays `all` against each kind of stream.
fn play_all(connection: &Arc<ConnectionInner>, all: &[Step], number: usize) {
    for (stream_type, is_local) in [
        (StreamType::Bidirectional, true),
        (StreamType::Bidirectional, false),
        (StreamType::Unidirectional, true),
        (StreamType::Unidirectional, false),
    ] {
        let inner = StreamInner::new(connection.clone(), stream_type, is_local);
        let ends = Arc::new(AtomicUsize::new(0));
        let has_sink = number.is_multiple_of(2);
        if has_sink {
            assert!(inner.set_sink(Box::new(Ends(ends.clone()))).is_ok());
        }
        let finish = number.is_multiple_of(3);
        play(&inner, all, finish, number.is_multiple_of(5), has_sink.then_some(&*ends));
        assert!(connection.stream_credit(stream_type).is_settled(), "{all:?}");
    }
}

fn play(
    inner: &Arc<StreamInner>,
    all: &[Step],
    finish: bool,
    alone: bool,
    ends: Option<&AtomicUsize>,
) {
    let waker = noop_waker();
    let mut cx = Context::from_waker(&waker);
    if inner.is_local {
        // As if msquic had taken the start.
        let credit = inner.connection.stream_credit(inner.stream_type);
        credit.set_available(1);
        {
            let mut exclusive = inner.exclusive.lock();
            exclusive.start = StartState::Starting;
            exclusive.ticket = credit.take();
        }
        assert!(inner.poll_start(&mut cx, false).is_pending());
    }
    let _ = inner.try_write(|queue, _| queue.push_copy(b"bytes"));
    for step in all {
        step.play(inner);
        let _ = inner.try_write(|queue, _| queue.push_copy(b"more"));
        let _ = inner.try_read(|queue| queue.chunk(10));
    }
    if finish {
        let _ = inner.finish();
    }
    Step::Event(StreamEvent::ShutdownComplete { connection: !alone }).play(inner);

    let lost = ConnectionError::closing();
    let is_lost = Poll::Ready(Err(StartError::ConnectionLost(lost.clone())));
    assert!(!alone || inner.poll_start(&mut cx, false) != is_lost, "{all:?}");
    let is_lost = Some(Err(WriteError::ConnectionLost(lost.clone())));
    assert!(!alone || inner.stopped() != is_lost, "{all:?}");
    let is_lost = Some(Err(ReadError::ConnectionLost(lost)));
    assert!(!alone || inner.received_reset() != is_lost, "{all:?}");
    assert!(inner.poll_start(&mut cx, false).is_ready(), "the opener hangs after {all:?}");
    assert!(inner.try_finish().is_some(), "the writer hangs after {all:?}");
    assert!(inner.completed(u64::MAX).is_some() || inner.stopped().is_some(), "{all:?}");
    let write = inner.try_write(|queue, _| queue.push_copy(b"late"));
    assert!(matches!(write, Some(Err(_))), "written after the end, {all:?}");
    assert!(matches!(inner.try_enqueue(&[], &[]), Some(Err(_))), "queued after the end, {all:?}");
    if let Some(ends) = ends {
        assert_eq!(ends.load(Ordering::SeqCst), 1, "ends that the sink received, {all:?}");
    } else {
        let read = inner.try_read(|queue| queue.chunk(10));
        assert!(matches!(read, Some(Ok(None) | Err(_))), "the reader hangs, {all:?}");
    }
    assert!(inner.received_reset().is_some(), "{all:?}");
    // Events after the last one change nothing.
    STEPS.iter().for_each(|step| step.play(inner));
    assert!(inner.try_finish().is_some() && inner.received_reset().is_some(), "{all:?}");
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Self>) {
        wakes.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_completion_wakes_those_whose_bytes_it_completes() {
    const SENDS: usize = 20;
    const WAITING: usize = 50;
    let inner = StreamInner::new(connection(), StreamType::Unidirectional, true);
    let mut flushes = Vec::new();
    for _ in 0..SENDS {
        {
            let queue = &mut inner.exclusive.lock().queue;
            queue.push_copy(b"bytes");
            assert!(queue.next_batch().is_some()); // as if msquic had taken it
            queue.submitted(true);
        }
        for _ in 0..WAITING {
            flushes.push(Flush::new(&inner, inner.queued()));
        }
    }
    let wakes: Vec<_> = flushes.iter().map(|_| Arc::new(Wakes::default())).collect();
    for (flush, wakes) in flushes.iter_mut().zip(&wakes) {
        let waker = waker(wakes.clone());
        assert!(flush.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    for completed in 1..=SENDS {
        Step::Event(StreamEvent::SendComplete { canceled: false }).play(&inner);
        for (index, wakes) in wakes.iter().enumerate() {
            let is_due = index < completed * WAITING;
            assert_eq!(wakes.0.load(Ordering::SeqCst), usize::from(is_due), "flush {index}");
        }
    }
    assert!(flushes.into_iter().all(|flush| flush.now_or_never() == Some(Ok(()))));
}

#[test]
fn no_order_of_events_leaves_a_future_waiting() {
    let connection = connection();
    for number in 0..STEPS.len().pow(LENGTH as u32) {
        play_all(&connection, &steps(number), number);
    }
}

#[test]
fn long_random_orders_end_the_same_way() {
    let connection = connection();
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..10_000 {
        let all: Vec<_> = (0..30).map(|_| STEPS[random.usize(..STEPS.len())]).collect();
        play_all(&connection, &all, number);
    }
}
