//! Plays events to connections without msquic: every order of events up to a length, and long random orders,
//! also those that msquic never produces. Nothing may panic, no future may wait after the last event, and each
//! waiting task must have been woken.

use super::inner::ConnectionInner;
use super::peer_streams::Start;
use super::state::{ConnectionInput, ConnectionState};
use super::stream_connection::StreamConnection;
use super::{Connection, ConnectionError, DgramSendError};
use crate::StreamStartError;
use crate::buffer::DatagramSendState;
use crate::ffi::calls::Calls;
use crate::ffi::connection::{ConnectionEvent, ConnectionHandler, NativeConnection};
use crate::ffi::registration::{ExecutionProfile, NativeRegistration};
use crate::ffi::status::Status;
use crate::ffi::stream::{StreamEvent, StreamHandler};
use crate::resumption::{Resumption, Scope, Session};
use crate::stream::{ReceiveEnd, ReceiveSink, StreamInner, StreamType};
use futures_util::FutureExt;
use futures_util::task::{ArcWake, noop_waker, waker};
use net_traits::{NetCredential, TrustPolicy};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// What can happen, by number; see [`play_event`].
const EVENTS: usize = 17;

/// How long all sequences are played, before the last event.
const LENGTH: u32 = 4;

fn addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn play_event(inner: &Arc<ConnectionInner>, number: usize) {
    let event = match number {
        0 => {
            inner.exclusive.lock().session = Some(Session::new(&Scope::new(Resumption::new())));
            inner.transition(ConnectionInput::Start);
            return;
        }
        14 => {
            inner.on_ticket(b"state");
            return;
        }
        15 => ConnectionEvent::TicketReceived(b"ticket"),
        1 => {
            let certificate =
                inner.exclusive.lock().credential.certificate_chain().first().cloned();
            let _ = inner.on_certificate(certificate);
            return;
        }
        2 => {
            let _ = inner.on_certificate(None);
            return;
        }
        3 | 16 => ConnectionEvent::Connected {
            alpn: b"events",
            is_resumed: number == 16,
            local_addr: Some(addr()),
            remote_addr: None,
            key_log: None,
        },
        4 => ConnectionEvent::ShutdownByTransport { status: Status::CONNECTION_IDLE, code: 0 },
        5 => ConnectionEvent::ShutdownByPeer { code: 5 },
        6 => ConnectionEvent::ShutdownComplete { reason: Some("bye".to_owned()), key_log: None },
        7 => ConnectionEvent::StreamsAvailable { bidirectional: 1, unidirectional: 0 },
        8 => ConnectionEvent::DatagramStateChanged { max_size: Some(1000) },
        9 => ConnectionEvent::DatagramStateChanged { max_size: None },
        10 => ConnectionEvent::DatagramReceived(b"datagram"),
        11 => {
            let state = DatagramSendState::Acknowledged;
            ConnectionEvent::DatagramSendStateChanged { id: 1, state }
        }
        12 => {
            let state = DatagramSendState::Canceled;
            ConnectionEvent::DatagramSendStateChanged { id: 7, state }
        }
        _ => ConnectionEvent::PeerAddressChanged(addr()),
    };
    inner.on_event(event, Calls::none(inner.native()));
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Self>) {
        wakes.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Everything that can be waited for.
fn waits(connection: &Connection) -> Vec<Pin<Box<dyn Future<Output = ()> + '_>>> {
    vec![
        Box::pin(connection.accept().map(drop)),
        Box::pin(connection.watch_shutdown().map(drop)),
        Box::pin(connection.receive_remote_certificate().map(drop)),
        Box::pin(connection.accept_inbound_stream().map(drop)),
        Box::pin(connection.accept_inbound_uni_stream().map(drop)),
        Box::pin(async { while connection.receive_datagram().await.is_ok() {} }),
        Box::pin(async { while connection.address_changed().await.is_ok() {} }),
        Box::pin(async { while connection.next_change().await.is_ok() {} }),
        Box::pin(open(connection, StreamType::Bidirectional)),
        Box::pin(open(connection, StreamType::Unidirectional)),
        Box::pin(poll_fn(|cx| connection.poll_accept_inbound_stream(cx).map(drop))),
    ]
}

/// Opens a stream once the connection is established. Events give credit for bidirectional ones only.
async fn open(connection: &Connection, stream_type: StreamType) {
    let _ = connection.accept().await;
    let _ = connection.open_outbound_stream(stream_type, false).await;
}

fn play(registration: &Arc<NativeRegistration>, credential: &NetCredential, events: &[usize]) {
    let native = NativeConnection::closed(registration);
    let inner = Arc::new(ConnectionInner::new(native, credential.clone()));
    let connection = Connection::from_inner(inner.clone());
    let mut waits = waits(&connection);
    let wakes: Vec<_> = waits.iter().map(|_| Arc::new(Wakes::default())).collect();
    let mut is_done = vec![false; waits.len()];
    let mut poll = |index: usize, wakes: &Arc<Wakes>| {
        let waker = waker(wakes.clone());
        while !is_done[index] {
            let before = wakes.0.load(Ordering::SeqCst);
            is_done[index] =
                waits[index].as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            if wakes.0.load(Ordering::SeqCst) == before {
                break; // it waits, and did not only let other tasks run
            }
        }
        is_done[index]
    };
    for event in events {
        for (index, wakes) in wakes.iter().enumerate() {
            poll(index, wakes);
        }
        play_event(&inner, *event);
        let _ = connection.send_datagram(&"out".into());
    }
    inner.transition(ConnectionInput::Start); // waits are for connections that were started
    for (index, wakes) in wakes.iter().enumerate() {
        let is_done = poll(index, wakes);
        wakes.0.store(if is_done { 1 } else { 0 }, Ordering::SeqCst);
    }
    inner.on_event(
        ConnectionEvent::ShutdownComplete { reason: None, key_log: None },
        Calls::none(inner.native()),
    );
    let is_over = matches!(inner.exclusive.lock().state, ConnectionState::ShutdownComplete(_));
    assert!(is_over, "{events:?}");
    for (index, wakes) in wakes.iter().enumerate() {
        // `address_changed` ends with the shutdown; its completion does not wake it again.
        assert!(poll(index, wakes), "wait {index} hangs after {events:?}");
        assert!(wakes.0.load(Ordering::SeqCst) > 0, "wait {index} was not woken after {events:?}");
    }
    drop(waits);
    for stream_type in [StreamType::Bidirectional, StreamType::Unidirectional] {
        assert!(inner.stream_credit(stream_type).is_settled(), "credit is lost after {events:?}");
    }
    let noop = noop_waker();
    let mut cx = Context::from_waker(&noop);
    assert!(connection.poll_shutdown(&mut cx, 1).is_ready());
    let mut receive = || connection.poll_receive_datagram(&mut cx);
    let rest =
        std::iter::repeat_with(&mut receive).find(|next| !matches!(next, Poll::Ready(Ok(_))));
    assert!(matches!(rest, Some(Poll::Ready(Err(_)))), "{rest:?} after {events:?}");
    let sent = connection.send_datagram(&"late".into());
    assert!(matches!(sent, Err(DgramSendError::ConnectionLost(_))), "{sent:?} after {events:?}");
}

#[test]
fn no_order_of_events_leaves_a_future_waiting() {
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    for mut number in 0..EVENTS.pow(LENGTH) {
        let events: Vec<_> = std::iter::repeat_with(|| {
            let event = number % EVENTS;
            number /= EVENTS;
            event
        })
        .take(LENGTH as usize)
        .collect();
        play(&registration, &credential, &events);
    }
}

#[test]
fn long_random_orders_end_the_same_way() {
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..5000 {
        let events: Vec<_> = (0..40).map(|_| random.usize(..EVENTS)).collect();
        play(&registration, &credential, &events);
    }
}

#[test]
fn a_call_that_finds_the_connection_closing_tells_why_it_closes() {
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let inner = Arc::new(ConnectionInner::new(NativeConnection::closed(&registration), credential));
    let connection = Connection::from_inner(inner.clone());
    // Connected, with credit for a stream and room for datagrams; msquic answers with INVALID_STATE.
    [0, 1, 3, 7, 8].iter().for_each(|event| play_event(&inner, *event));
    let mut open = Box::pin(connection.open_outbound_stream(StreamType::Bidirectional, false));
    assert!((&mut open).now_or_never().is_none(), "the reason is not known yet");
    let sent = connection.send_datagram(&"late".into());
    assert!(matches!(sent, Err(DgramSendError::ConnectionLost(_))), "{sent:?}");
    play_event(&inner, 4);
    let idle = ConnectionError::ClosedByTransport { status: Status::CONNECTION_IDLE, code: 0 };
    let opened = open.now_or_never().map(|opened| opened.map(drop));
    assert_eq!(opened, Some(Err(StreamStartError::ConnectionLost(idle))));
}

#[test]
fn a_peer_is_connected_only_after_it_was_judged() {
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    for (events, is_connected) in [(&[0, 1, 3][..], true), (&[0, 3], false), (&[0, 2, 3], false)] {
        let native = NativeConnection::closed(&registration);
        let inner = Arc::new(ConnectionInner::new(native, credential.clone()));
        events.iter().for_each(|event| play_event(&inner, *event));
        let state = inner.exclusive.lock().state.clone();
        assert_eq!(state == ConnectionState::Connected, is_connected, "{events:?}");
        if !is_connected {
            assert!(matches!(state.error(), Some(ConnectionError::Untrusted(_))), "{state:?}");
        }
    }
}

#[test]
fn a_certificate_wakes_only_the_tasks_that_wait_for_it() {
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let inner = Arc::new(ConnectionInner::new(NativeConnection::closed(&registration), credential));
    let connection = Connection::from_inner(inner.clone());
    play_event(&inner, 0);
    let (accepts, receives) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let (mut accept, mut receive) = (connection.accept(), connection.receive_remote_certificate());
    assert!(accept.poll_unpin(&mut Context::from_waker(&waker(accepts.clone()))).is_pending());
    assert!(receive.poll_unpin(&mut Context::from_waker(&waker(receives.clone()))).is_pending());
    let wakes = || [&accepts, &receives].map(|wakes| wakes.0.load(Ordering::SeqCst));
    play_event(&inner, 1);
    assert_eq!(wakes(), [0, 1]);
    play_event(&inner, 3);
    assert_eq!(wakes(), [1, 1]);
}

/// Takes everything, and counts how often it receives the end.
struct Ends(Arc<AtomicUsize>);

impl ReceiveSink for Ends {
    fn receive(&mut self, data: &[u8]) -> usize {
        data.len()
    }

    fn end(&mut self, _: ReceiveEnd) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_stream_is_kept_until_its_sink_was_told_the_end() {
    let registration = NativeRegistration::open(c"events", ExecutionProfile::LowLatency).unwrap();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let inner = Arc::new(ConnectionInner::new(NativeConnection::closed(&registration), credential));
    let connection = Connection::from_inner(inner.clone());
    let ends = Arc::new(AtomicUsize::new(0));
    let told = ends.clone();
    connection.set_inbound_uni_sinks(move |_| Box::new(Ends(told.clone())));
    let start = |id| {
        let stream = StreamInner::new(inner.clone(), StreamType::Unidirectional, false);
        stream.set_id(id);
        let mut exclusive = inner.exclusive.lock();
        let start = exclusive.peer_streams.start(StreamType::Unidirectional, id, stream.clone());
        drop(exclusive);
        let Start::HasSink(make) = start else { panic!("{id} has no sink") };
        stream.accept_with_sink(&*make);
        assert_eq!(Arc::strong_count(&stream), 2);
        stream
    };
    let finished = start(2);
    finished.on_event(StreamEvent::PeerSendShutdown, Calls::none(inner.native()));
    assert_eq!((Arc::strong_count(&finished), ends.load(Ordering::SeqCst)), (1, 1));
    let unfinished = start(6);
    drop(connection);
    assert_eq!((Arc::strong_count(&unfinished), ends.load(Ordering::SeqCst)), (1, 2));
}
