//! `PeerPool`: dials, redials, and which of several connections is used.

mod common;

use bytes::Bytes;
use common::{
    ALPN, Events, Pool, accept, any_port, listen, pool, recv, trusting, two_trusting, undelivered,
};
use futures_util::future::join_all;
use net_peers::{DropError, PeerEvent, PeerPool, PeerPoolConfig, QueueError};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, TrustPolicy, close_code,
};
use net_traits_test::memory::{
    LinkPlan, MemoryConnection, MemoryListener, MemoryNetwork, MemoryTransport,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::coop::{consume_budget, has_budget_remaining};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

fn config() -> PeerPoolConfig {
    PeerPoolConfig::new()
}

#[test]
fn options_are_checked_at_construction() {
    let (network, config) = (MemoryNetwork::new(1), config().max_dials(0));
    let made = PeerPool::new(network.transport(), &[ALPN], trusting(), config);
    assert_eq!(made.err().unwrap().option, "max_dials");
}

/// Futures that are ready are pending then. `connection` itself spends what is left.
#[tokio::test]
async fn an_ended_connection_is_not_used_although_the_budget_of_the_task_is_used_up() {
    let (network, credential) = (MemoryNetwork::new(1), trusting());
    let listener = listen(&network, &credential).await;
    let (peer, address) = (credential.identity(), listener.local_addr());
    let (pool, _events) = pool(&network, trusting(), PeerPoolConfig::new());
    let accepting = tokio::spawn(async move { (accept(&listener).await, accept(&listener).await) });
    let first = pool.connection(peer, address).await.unwrap();
    yield_now().await;
    let mut budget = 0;
    while has_budget_remaining() {
        consume_budget().await;
        budget += 1;
    }
    yield_now().await;
    for _ in 1..budget {
        consume_budget().await;
    }
    first.abort(0, ""); // the tasks of the pool do not learn it before this one yields
    pool.connection(peer, address).await.unwrap().send(b"news").await.unwrap();
    assert_eq!(recv(&accepting.await.unwrap().1).await, b"news");
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_one_dial() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (pool, _events) = pool(&network, trusting(), config());
    let dial = || pool.connection(server.identity(), listener.local_addr());
    let (connections, accepted) =
        tokio::join!(join_all((0..50).map(|_| dial())), accept(&listener));
    for connection in connections {
        assert_eq!(connection.unwrap().local_addr(), accepted.remote_addr());
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_sent_and_reported_across_reconnections() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (pool, mut events) = pool(&network, trusting(), config());
    for round in 0..3_u8 {
        pool.send(server.identity(), listener.local_addr(), vec![round].into()).unwrap();
        let connection = accept(&listener).await;
        assert_eq!(recv(&connection).await, [round]);
        connection.close(round.into(), "go away").await;
        let event = events.recv().await.unwrap();
        assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}");
        let event = events.recv().await.unwrap();
        let PeerEvent::Disconnected { reason, .. } = event else { panic!("{event:?}") };
        let report = undelivered(&mut events).await;
        assert!(report.may_have_arrived && report.message[..] == [round], "{report:?}");
        let expected = CloseReason::Peer { code: round.into(), reason: "go away".to_owned() };
        assert_eq!(reason, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_appears_later_gets_what_was_queued_in_order() {
    let network = MemoryNetwork::new(1);
    let (server, host) = (trusting(), network.transport());
    let address = SocketAddr::new(host.ip(), 4433);
    let (pool, _events) = pool(&network, trusting(), config().max_attempts(1000));
    for number in 0..10_u8 {
        pool.send(server.identity(), address, vec![number].into()).unwrap();
    }
    // When this attempt has ended, so has the first one, which is the same or an earlier attempt.
    pool.connection(server.identity(), address).await.unwrap_err();
    let listener = host.create_listener(address, &[ALPN], server).await.unwrap();
    let connection = accept(&listener).await;
    for number in 0..10_u8 {
        assert_eq!(recv(&connection).await, [number]);
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_are_made_with_backoff_and_then_the_messages_are_dropped() {
    let network = MemoryNetwork::new(1);
    let absent = CertHash::from_bytes([1; 32]);
    let second = Duration::from_secs(1);
    let config = config().first_delay(second).max_delay(4 * second);
    let (pool, mut events) = pool(&network, trusting(), config.max_attempts(5));
    let started = Instant::now();
    pool.send(absent, "10.0.0.9:1".parse().unwrap(), "in vain".into()).unwrap();
    let report = undelivered(&mut events).await;
    assert_eq!((report.peer, &report.message[..]), (absent, &b"in vain"[..]));
    assert!(!report.may_have_arrived);
    let DropError::Connect(error) = report.error else { panic!("{report:?}") };
    assert!(matches!(error, ConnectError::Refused(_)), "{error}");
    // The four backoffs are at most 1, 2, 4 and 4 s, and at least half of that.
    let took = started.elapsed();
    assert!(took >= 11 * second / 2 && took <= 11 * second, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn undeliverable_messages_are_reported_and_excess_ones_rejected() {
    let network = MemoryNetwork::new(1);
    let absent = CertHash::from_bytes([1; 32]);
    let address = "10.0.0.9:1".parse().unwrap();
    let config = config().max_attempts(2).max_queued_bytes(100);
    let (pool, mut events) = pool(&network, trusting(), config);
    pool.send(absent, address, Bytes::from(vec![0; 60])).unwrap();
    let full = pool.send(absent, address, Bytes::from(vec![0; 60]));
    assert_eq!(full, Err(QueueError::Full));
    let too_large = pool.send(absent, address, Bytes::from(vec![0; 101]));
    assert_eq!(too_large, Err(QueueError::TooLarge { size: 101, limit: 100 }));
    pool.send(absent, address, Bytes::from(vec![0; 40])).unwrap();
    for size in [60, 40] {
        let report = undelivered(&mut events).await;
        assert_eq!((report.peer, report.message.len()), (absent, size));
        let DropError::Connect(error) = report.error else { panic!("{report:?}") };
        assert!(error.is_retryable(), "{error}");
    }

    // A peer with another identity answers: trying again does not help.
    let listener = listen(&network, &trusting()).await;
    pool.send(absent, listener.local_addr(), "secret".into()).unwrap();
    let refuse = async { listener.accept().await.unwrap().accept().await };
    let (report, _) = tokio::join!(undelivered(&mut events), refuse);
    let DropError::Connect(error) = report.error else { panic!("{report:?}") };
    assert!(matches!(error, ConnectError::Rejected(_)), "{error:?}");
}

/// A node that listens and has a pool.
struct Node {
    credential: NetCredential,
    address: SocketAddr,
    host: MemoryTransport,
    pool: Pool,
    events: Events,
}

async fn node(network: &MemoryNetwork) -> Node {
    let (credential, host) = (trusting(), network.transport());
    let listener = host.create_listener(any_port(), &[ALPN], credential.clone()).await.unwrap();
    let made = PeerPool::new(host.clone(), &[ALPN], credential.clone(), config());
    let ((pool, events), address) = (made.unwrap(), listener.local_addr());
    let accepting = pool.clone();
    tokio::spawn(async move {
        while let Ok(request) = listener.accept().await {
            accepting.insert(request.accept().await.unwrap());
        }
    });
    Node { credential, address, host, pool, events }
}

/// Both nodes dial at the same time and send; all messages arrive, and one connection is left.
async fn talk_at_once(network: &MemoryNetwork) {
    let (mut one, mut other) = (node(network).await, node(network).await);
    let (of_one, of_other) = (one.credential.identity(), other.credential.identity());
    for number in 0..100_u8 {
        one.pool.send(of_other, other.address, vec![number].into()).unwrap();
        other.pool.send(of_one, one.address, vec![number].into()).unwrap();
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await; // other network time
        }
    }
    for node in [&one, &other] {
        let mut seen = BTreeSet::new();
        while seen.len() < 100 {
            assert!(seen.insert(node.pool.recv().await.1[0]), "a message arrived twice");
        }
    }
    // The redundant connection is closed, and both send on the other.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((one.host.connections().len(), other.host.connections().len()), (1, 1));
    let at_one = one.pool.connection(of_other, other.address).await.unwrap();
    let at_other = other.pool.connection(of_one, one.address).await.unwrap();
    assert_eq!(at_one.local_addr(), at_other.remote_addr());
    assert_eq!(at_one.remote_addr(), at_other.local_addr());
    one.pool.send(of_other, other.address, vec![200].into()).unwrap();
    other.pool.send(of_one, one.address, vec![200].into()).unwrap();
    assert_eq!(one.pool.recv().await.1[0], 200);
    assert_eq!(other.pool.recv().await.1[0], 200);
    for node in [&mut one, &mut other] {
        while let Some(event) = node.events.try_recv() {
            let is_connected =
                matches!(event, PeerEvent::Connected { .. } | PeerEvent::Replaced { .. });
            assert!(is_connected, "{event:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn peers_that_dial_each_other_use_the_same_connection_and_lose_nothing() {
    for seed in 0..20 {
        let network = MemoryNetwork::new(seed);
        let latency = LinkPlan::new().latency(Duration::from_millis(5 * (seed + 1)));
        network.set_links(latency.jitter(Duration::from_millis(seed)));
        talk_at_once(&network).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_connection_has_just_ended_is_redialled() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (address, peer) = (listener.local_addr(), server.identity());
    let (pool, _events) = pool(&network, trusting(), config());
    for round in 0..20 {
        let (dialled, accepted) = tokio::join!(pool.connection(peer, address), accept(&listener));
        let dialled = dialled.unwrap();
        // Closed by either side; the pool may or may not have noticed.
        let (closes, learns) =
            if round % 2 == 0 { (&dialled, &accepted) } else { (&accepted, &dialled) };
        tokio::join!(closes.close(1, ""), learns.watch_close());
    }
}

/// A pool that has dialled a peer, which then dials it: the connection of the pool, that which the
/// peer accepted, and that which the peer dialled.
struct Two {
    pool: Pool,
    _listeners: [MemoryListener; 2],
    peer: CertHash,
    ours: MemoryConnection,
    at_peer: MemoryConnection,
    theirs: MemoryConnection,
}

async fn two(me: NetCredential, peer: NetCredential) -> Two {
    let network = MemoryNetwork::new(1);
    let (at_me, at_peer) = (listen(&network, &me).await, listen(&network, &peer).await);
    let (pool, _) = pool(&network, me, config());
    let dial = pool.connection(peer.identity(), at_peer.local_addr());
    let (ours, accepted) = tokio::join!(dial, accept(&at_peer));
    let host = network.transport();
    let dial = host.connect(at_me.local_addr(), &[ALPN], peer.clone());
    let (theirs, inserted) = tokio::join!(dial, accept(&at_me));
    pool.insert(inserted);
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let listeners = [at_me, at_peer];
    Two { pool, _listeners: listeners, peer: peer.identity(), ours, at_peer: accepted, theirs }
}

impl Two {
    /// Whether the pool sends on the connection that it dialled.
    async fn uses_ours(&self) -> bool {
        let used = self.pool.connection(self.peer, any_port()).await.unwrap();
        used.local_addr() == self.ours.local_addr()
    }
}

#[tokio::test(start_paused = true)]
async fn the_newer_connection_is_used_and_the_other_one_is_closed_by_its_dialler() {
    for (swap, seconds) in [(false, 10), (true, 5)] {
        let (smaller, larger) = two_trusting();
        let (me, peer) = if swap { (larger, smaller) } else { (smaller, larger) };
        let two = two(me, peer).await;
        assert!(!two.uses_ours().await);
        let begun = Instant::now();
        let reason = two.ours.watch_close().await;
        let CloseReason::Local { code: close_code::DUPLICATE, .. } = reason else {
            panic!("{reason}");
        };
        assert_eq!(begun.elapsed(), Duration::from_secs(seconds));
        assert!(!two.uses_ours().await);
        let kept = timeout(Duration::from_secs(600), two.theirs.watch_close()).await;
        assert!(kept.is_err(), "{kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_the_smaller_identity_dialled_is_used_once_it_receives() {
    let (smaller, larger) = two_trusting();
    let two = two(smaller, larger).await;
    assert!(!two.uses_ours().await, "the peer may have restarted");
    tokio::time::sleep(Duration::from_secs(1)).await;
    two.at_peer.send(b"alive").await.unwrap();
    assert_eq!(two.pool.recv().await, (two.peer, "alive".into()));
    assert!(two.uses_ours().await);
    // The other connection is used when this one breaks.
    two.ours.close(0, "").await;
    assert!(!two.uses_ours().await);
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_is_kept_while_the_peer_sends_on_it() {
    let (smaller, larger) = two_trusting();
    let two = two(larger, smaller).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        two.at_peer.send(b"still here").await.unwrap();
        assert_eq!(two.pool.recv().await.1, "still here");
    }
    assert!(!two.uses_ours().await);
}

#[tokio::test(start_paused = true)]
async fn a_dial_ends_when_the_peer_connects_by_itself() {
    let network = MemoryNetwork::new(1);
    let (me, peer) = (trusting(), trusting());
    // A listener that does not accept: the dial alone would take 10 s.
    let silent = listen(&network, &peer).await;
    let (pool, _) = pool(&network, me.clone(), config());
    let started = Instant::now();
    pool.send(peer.identity(), silent.local_addr(), "hello".into()).unwrap();
    let listener = listen(&network, &me).await;
    let transport = network.transport();
    let dial = transport.connect(listener.local_addr(), &[ALPN], peer.clone());
    let (theirs, accepted) = tokio::join!(dial, accept(&listener));
    pool.insert(accepted);
    assert_eq!(recv(&theirs.unwrap()).await, b"hello");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_rejects_is_dialled_with_backoff() {
    let network = MemoryNetwork::new(1);
    let server = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
    let listener = listen(&network, &server).await;
    let minute = Duration::from_secs(60);
    let config = config().first_delay(minute).max_delay(minute);
    let (pool, mut events) = pool(&network, trusting(), config);
    let send = |number: u8| {
        pool.send(server.identity(), listener.local_addr(), vec![number].into()).unwrap();
    };
    send(0);
    listener.accept().await.unwrap().accept().await.unwrap_err();
    let report = undelivered(&mut events).await;
    let DropError::Connect(error) = report.error else { panic!("{report:?}") };
    assert!(matches!(error, ConnectError::Rejected(_)), "{error:?}");
    send(1);
    let again = timeout(minute / 2, listener.accept()).await;
    assert!(again.is_err(), "it is dialled again before half of the maximum backoff");
    assert!(timeout(minute / 2, listener.accept()).await.is_ok(), "it is not dialled again");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_peer_is_rejected_after_a_change_of_the_credential() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (peer, address, me) = (server.identity(), listener.local_addr(), trusting());
    let transport = network.transport();
    let (pool, mut events) =
        PeerPool::new(transport.clone(), &[ALPN], me.clone(), config()).unwrap();
    let (connection, _accepted) = tokio::join!(pool.connection(peer, address), accept(&listener));
    pool.set_credential(me.with_trust(TrustPolicy::reject_all()));
    assert_eq!(transport.revoke(&TrustPolicy::reject_all()).await, 1);
    connection.unwrap().watch_close().await;
    pool.send(peer, address, "to a revoked peer".into()).unwrap();
    let refuse = async { while listener.accept().await.unwrap().accept().await.is_err() {} };
    let report = tokio::select! {
        () = refuse => panic!("it connects again"),
        it = undelivered(&mut events) => it,
    };
    let DropError::Connect(error) = report.error else { panic!("{report:?}") };
    assert!(matches!(error, ConnectError::Rejected(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_connect_to_itself() {
    let network = MemoryNetwork::new(1);
    let me = trusting();
    let (pool, _events) = pool(&network, me.clone(), config());
    let address = "10.0.0.1:9".parse().unwrap();
    let error = pool.connection(me.identity(), address).await.unwrap_err();
    assert!(matches!(error, ConnectError::InvalidInput(_)), "{error}");
    let error = pool.send(me.identity(), address, "hello".into());
    assert_eq!(error, Err(QueueError::OwnIdentity));
}

#[tokio::test(start_paused = true)]
async fn removing_a_peer_and_dropping_the_pool_end_the_tasks() {
    let network = MemoryNetwork::new(1);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let server = trusting();
    let (silent, listener) = (listen(&network, &trusting()).await, listen(&network, &server).await);
    let (pool, events) = pool(&network, trusting(), config().max_attempts(1000));
    let stranger = CertHash::from_bytes([1; 32]);
    pool.send(stranger, silent.local_addr(), "in vain".into()).unwrap();
    pool.send(server.identity(), listener.local_addr(), "hello".into()).unwrap();
    let accepted = accept(&listener).await;
    recv(&accepted).await;
    pool.remove(stranger);
    assert!(format!("{pool:?}").contains("peers: 1"), "{pool:?}");
    drop((events, pool));
    // No handle of the connection is left.
    assert!(matches!(accepted.watch_close().await, CloseReason::Peer { code: 0, .. }));
    drop(accepted); // a transport has tasks while it has connections
    while tasks() > before {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_of_the_credential_applies_too() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let me = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
    let (pool, _events) = pool(&network, me, config());
    let dial = pool.connection(server.identity(), listener.local_addr());
    let (dialled, _) =
        tokio::join!(dial, async { listener.accept().await.unwrap().accept().await });
    assert!(matches!(dialled, Err(ConnectError::Rejected(_))), "{dialled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_changes_during_the_handshake_applies() {
    let network = MemoryNetwork::new(1);
    let (server, me) = (trusting(), trusting());
    let listener = listen(&network, &server).await;
    let (pool, _events) = pool(&network, me.clone(), config());
    let dial = pool.connection(server.identity(), listener.local_addr());
    let change = async {
        let request = listener.accept().await.unwrap();
        pool.set_credential(me.with_trust(TrustPolicy::reject_all()));
        request.accept().await.unwrap().watch_close().await
    };
    let (dialled, reason) = tokio::join!(dial, change);
    assert!(matches!(dialled, Err(ConnectError::Rejected(_))), "{dialled:?}");
    assert!(matches!(reason, CloseReason::Peer { code: close_code::REVOKED, .. }), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn entries_of_unused_peers_are_removed() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (pool, mut events) = pool(&network, trusting(), config());
    let dial = pool.connection(server.identity(), listener.local_addr());
    let (dialled, _accepted) = tokio::join!(dial, accept(&listener));
    assert!(format!("{pool:?}").contains("peers: 1"), "{pool:?}");
    dialled.unwrap().close(0, "").await;
    while !matches!(events.recv().await, Some(PeerEvent::Disconnected { .. })) {}
    yield_now().await; // the task of the connection ends
    assert!(format!("{pool:?}").contains("peers: 0"), "{pool:?}");

    // After a failure the entry is kept for its backoff, then removed.
    for hundred in 0..2 {
        let failed = join_all((0..100).map(|number| {
            let stranger = CertHash::from_bytes([100 * hundred + number; 32]);
            pool.connection(stranger, "10.0.0.9:1".parse().unwrap())
        }));
        assert!(failed.await.iter().all(Result::is_err));
        tokio::time::sleep(Duration::from_secs(1)).await; // the backoffs end
    }
    let shown = format!("{pool:?}");
    let peers: usize = shown.matches(char::is_numeric).collect::<String>().parse().unwrap();
    assert!(peers < 200, "{shown}");
}

#[tokio::test(start_paused = true)]
async fn operations_that_are_always_ready_let_other_tasks_run() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (pool, mut events) = pool(&network, trusting(), config());
    let connection = || pool.connection(server.identity(), listener.local_addr());
    let (connected, accepted) = tokio::join!(connection(), accept(&listener));
    connected.unwrap();
    for _ in 0..1000 {
        accepted.send(b"waiting").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await; // they arrive
    tokio::select! {
        biased;
        () = async { for _ in 0..1000 { pool.recv().await; } } => panic!("all were received at once"),
        () = yield_now() => {}
    }
    tokio::select! {
        biased;
        () = async { while connection().await.is_ok() {} } => panic!("the connection has ended"),
        () = yield_now() => {}
    }
    drop(pool);
    while events.recv().await.is_some() {}
    tokio::select! {
        biased;
        () = async { while events.recv().await.is_none() {} } => panic!("there are further events"),
        () = yield_now() => {}
    }
}
