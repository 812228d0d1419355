//! `PeerPool`: connections by identity that are redialled.

mod common;

use bytes::Bytes;
use common::{ALPN, run};
use futures_util::FutureExt;
use futures_util::future::join_all;
use msquic_transport::{
    MsQuicListener, MsQuicNetConnection, MsQuicTransport, MsQuicTransportConfig,
};
use net_peers::{DropError, PeerEvent, PeerPool, PeerPoolConfig, QueueError};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, TrustPolicy, close_code,
};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen(credential: &NetCredential, address: SocketAddr) -> MsQuicListener {
    MsQuicTransport::new().create_listener(address, &[ALPN], credential.clone()).await.unwrap()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Binds a socket that never answers, so that no other socket gets its address.
fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Creates a transport with short timeouts.
fn impatient() -> MsQuicTransport {
    let timeout = Duration::from_millis(100);
    MsQuicTransport::with_config(MsQuicTransportConfig::new().handshake_timeout(timeout))
}

async fn accept(listener: &MsQuicListener) -> MsQuicNetConnection {
    listener.accept().await.unwrap().accept().await.unwrap()
}

/// Short backoffs, so that tests are quick.
fn config() -> PeerPoolConfig {
    PeerPoolConfig::new().first_delay(Duration::from_millis(5)).max_delay(Duration::from_millis(20))
}

#[test]
fn many_callers_share_one_dial() {
    run(async {
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let (address, peer) = (listener.local_addr(), server.identity());
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config());
        let all = join_all((0..50).map(|_| pool.connection(peer, address)));
        let (connections, accepted) = tokio::join!(all, accept(&listener));
        for connection in connections {
            assert_eq!(connection.unwrap().local_addr(), accepted.remote_addr());
        }
    });
}

#[test]
fn messages_continue_after_breaks_which_are_reported() {
    run(async {
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let (address, peer) = (listener.local_addr(), server.identity());
        let (pool, mut events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config());
        for round in 0..3_u8 {
            pool.send(peer, address, vec![round].into()).unwrap();
            let connection = accept(&listener).await;
            assert_eq!(connection.recv().await.unwrap().0, [round][..]);
            connection.close(round.into(), "go away").await;
            let reason = loop {
                match events.recv().await.unwrap() {
                    PeerEvent::Disconnected { reason, .. } => break reason,
                    event => assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}"),
                }
            };
            assert_eq!(
                reason,
                CloseReason::Peer { code: round.into(), reason: "go away".to_owned() }
            );
        }
    });
}

#[test]
fn a_peer_that_appears_later_gets_what_was_queued_in_order() {
    run(async {
        let server = trusting();
        // Other tests use ports of another address, where there is one.
        let port = UdpSocket::bind("127.0.0.2:0").or_else(|_| UdpSocket::bind("127.0.0.1:0"));
        let address = port.unwrap().local_addr().unwrap();
        let (pool, _events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config().max_attempts(1000));
        for number in 0..10_u8 {
            pool.send(server.identity(), address, vec![number].into()).unwrap();
        }
        // When this attempt ends, the first one has ended: it is the same or an earlier one.
        pool.connection(server.identity(), address).await.unwrap_err();
        let listener = listen(&server, address).await;
        let connection = accept(&listener).await;
        for number in 0..10_u8 {
            assert_eq!(connection.recv().await.unwrap().0, vec![number]);
        }
    });
}

#[test]
fn undeliverable_messages_are_reported_and_excess_ones_rejected() {
    run(async {
        let absent = CertHash::from_bytes([1; 32]);
        let (_silent, address) = silent();
        let second = Duration::from_secs(1);
        let config = config().first_delay(second).max_delay(second);
        let config = config.max_attempts(2).max_queued_bytes(100);
        let (pool, mut events) = PeerPool::new(impatient(), &[ALPN], trusting(), config);
        pool.send(absent, address, Bytes::from(vec![0; 60])).unwrap();
        let full = pool.send(absent, address, Bytes::from(vec![0; 60]));
        assert_eq!(full, Err(QueueError::Full));
        let too_large = pool.send(absent, address, Bytes::from(vec![0; 101]));
        assert_eq!(too_large, Err(QueueError::TooLarge { size: 101, limit: 100 }));
        pool.send(absent, address, Bytes::from(vec![0; 40])).unwrap();
        let event = events.recv().await.unwrap();
        let PeerEvent::Dropped { peer, messages, error: DropError::Connect(error) } = event else {
            panic!("{event:?}");
        };
        assert_eq!((peer, messages), (absent, 2));
        assert!(error.is_retryable(), "{error}");

        // A peer with another identity answers: trying again does not help.
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        pool.send(absent, listener.local_addr(), "secret".into()).unwrap();
        let refuse = async { listener.accept().await.unwrap().accept().await };
        let (event, _) = tokio::join!(events.recv(), refuse);
        let event = event.unwrap();
        let PeerEvent::Dropped { error: DropError::Connect(error), .. } = event else {
            panic!("{event:?}");
        };
        assert!(matches!(error, ConnectError::Rejected(_) | ConnectError::Refused(_)), "{error:?}");
    });
}

/// A node that listens, has a pool, and receives from all its connections.
struct Node {
    credential: NetCredential,
    address: SocketAddr,
    pool: PeerPool<MsQuicTransport>,
    received: mpsc::UnboundedReceiver<u8>,
    dials: MsQuicTransport,
    accepts: MsQuicTransport,
}

async fn node() -> Node {
    let credential = trusting();
    let (dials, accepts) = (MsQuicTransport::new(), MsQuicTransport::new());
    let listener = accepts.create_listener(loopback(), &[ALPN], credential.clone()).await.unwrap();
    let (pool, mut events) = PeerPool::new(dials.clone(), &[ALPN], credential.clone(), config());
    let (sender, received) = mpsc::unbounded_channel();
    let receive = move |connection: MsQuicNetConnection| {
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok((message, _)) = connection.recv().await {
                sender.send(message[0]).unwrap();
            }
        });
    };
    let (address, receive_dialled) = (listener.local_addr(), receive.clone());
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                PeerEvent::Connected { connection, .. } => receive_dialled(connection),
                PeerEvent::Disconnected { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    });
    let accepting = pool.clone();
    tokio::spawn(async move {
        while let Ok(request) = listener.accept().await {
            let connection = request.accept().await.unwrap();
            receive(connection.clone());
            accepting.insert(connection);
        }
    });
    Node { credential, address, pool, received, dials, accepts }
}

/// Both nodes send; in the end all messages have arrived and one connection is left.
async fn talk_at_once() {
    let (mut one, mut other) = (node().await, node().await);
    let (of_one, of_other) = (one.credential.identity(), other.credential.identity());
    for number in 0..100_u8 {
        one.pool.send(of_other, other.address, vec![number].into()).unwrap();
        other.pool.send(of_one, one.address, vec![number].into()).unwrap();
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for node in [&mut one, &mut other] {
        let mut seen = BTreeSet::new();
        while seen.len() < 100 {
            assert!(seen.insert(node.received.recv().await.unwrap()), "a message arrived twice");
        }
    }
    // The redundant connection is closed, and both send on the other.
    for node in [&one, &other] {
        while node.dials.statistics().connections + node.accepts.statistics().connections > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let at_one = one.pool.connection(of_other, other.address).await.unwrap();
    let at_other = other.pool.connection(of_one, one.address).await.unwrap();
    assert_eq!(at_one.local_addr(), at_other.remote_addr());
    assert_eq!(at_one.remote_addr(), at_other.local_addr());
    one.pool.send(of_other, other.address, vec![200].into()).unwrap();
    other.pool.send(of_one, one.address, vec![200].into()).unwrap();
    assert_eq!(one.received.recv().await, Some(200));
    assert_eq!(other.received.recv().await, Some(200));
}

#[test]
fn peers_that_dial_each_other_use_the_same_connection_and_lose_nothing() {
    run(async {
        join_all((0..10).map(|_| talk_at_once())).await;
    });
}

#[test]
fn a_connection_that_is_just_over_is_dialled_again() {
    run(async {
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let (address, peer) = (listener.local_addr(), server.identity());
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config());
        for _ in 0..20 {
            let (dialled, accepted) =
                tokio::join!(pool.connection(peer, address), accept(&listener));
            let (dialled, accepted) = (dialled.unwrap(), accepted);
            // Closed by either side; the pool may or may not have noticed.
            tokio::join!(dialled.close(1, ""), accepted.watch_close());
        }
    });
}

#[test]
fn the_redundant_connection_is_closed_as_a_duplicate() {
    run(async {
        let (one, other) = (trusting(), trusting());
        let (smaller, larger) =
            if one.identity() < other.identity() { (one, other) } else { (other, one) };
        let listener = listen(&larger, loopback()).await;
        let (pool, _) = PeerPool::new(MsQuicTransport::new(), &[ALPN], larger.clone(), config());
        // The peer with the smaller identity dials; its connection is used, and ours is closed.
        let at_smaller = listen(&smaller, loopback()).await;
        let dial = pool.connection(smaller.identity(), at_smaller.local_addr());
        let (ours, _accepted) = tokio::join!(dial, accept(&at_smaller));
        let ours = ours.unwrap();
        let transport = MsQuicTransport::new();
        let dial = transport.connect(listener.local_addr(), &[ALPN], smaller.clone());
        let (theirs, accepted) = tokio::join!(dial, accept(&listener));
        let theirs = theirs.unwrap();
        pool.insert(accepted);
        let used = pool.connection(smaller.identity(), at_smaller.local_addr()).await.unwrap();
        assert_eq!(used.remote_addr(), theirs.local_addr());
        let begun = Instant::now();
        let CloseReason::Local { code, .. } = ours.watch_close().await else {
            panic!("it stays open")
        };
        assert_eq!(code, close_code::DUPLICATE);
        assert!(begun.elapsed() >= Duration::from_secs(4), "both sides had time to switch");
    });
}

#[test]
fn the_connection_that_the_smaller_identity_dialled_is_used_although_it_is_older() {
    run(async {
        let (one, other) = (trusting(), trusting());
        let (smaller, larger) =
            if one.identity() < other.identity() { (one, other) } else { (other, one) };
        let (pool, _) = PeerPool::new(MsQuicTransport::new(), &[ALPN], smaller.clone(), config());
        let at_larger = listen(&larger, loopback()).await;
        let dial = pool.connection(larger.identity(), at_larger.local_addr());
        let (ours, _accepted) = tokio::join!(dial, accept(&at_larger));
        let listener = listen(&smaller, loopback()).await;
        let transport = MsQuicTransport::new();
        let dial = transport.connect(listener.local_addr(), &[ALPN], larger.clone());
        let (theirs, accepted) = tokio::join!(dial, accept(&listener));
        pool.insert(accepted);
        let used = pool.connection(larger.identity(), at_larger.local_addr()).await.unwrap();
        assert_eq!(used.local_addr(), ours.unwrap().local_addr());
        // The other connection is used when this one breaks.
        used.close(0, "").await;
        let used = pool.connection(larger.identity(), loopback()).await.unwrap();
        assert_eq!(used.remote_addr(), theirs.unwrap().local_addr());
    });
}

#[test]
fn a_dial_ends_when_the_peer_connects_by_itself() {
    run(async {
        let (me, peer) = (trusting(), trusting());
        let (_silent, nowhere) = silent();
        // The dial alone would take longer than the test may.
        let patient = MsQuicTransportConfig::new().handshake_timeout(Duration::from_secs(600));
        let patient = MsQuicTransport::with_config(patient);
        let (pool, _) = PeerPool::new(patient, &[ALPN], me.clone(), config());
        pool.send(peer.identity(), nowhere, "hello".into()).unwrap();
        let listener = listen(&me, loopback()).await;
        let transport = MsQuicTransport::new();
        let dial = transport.connect(listener.local_addr(), &[ALPN], peer.clone());
        let (theirs, accepted) = tokio::join!(dial, accept(&listener));
        pool.insert(accepted);
        assert_eq!(theirs.unwrap().recv().await.unwrap().0, "hello");
    });
}

#[test]
fn a_peer_that_rejects_is_dialled_with_backoff() {
    run(async {
        let server = NetCredential::self_signed(TrustPolicy::nobody()).unwrap();
        let listener = listen(&server, loopback()).await;
        let minute = Duration::from_secs(60);
        let config = config().first_delay(minute).max_delay(minute);
        let (pool, mut events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config);
        let send = |number: u8| {
            pool.send(server.identity(), listener.local_addr(), vec![number].into()).unwrap();
        };
        send(0);
        listener.accept().await.unwrap().accept().await.unwrap_err();
        let told = loop {
            match events.recv().await.unwrap() {
                PeerEvent::Disconnected { reason, .. } => break reason,
                PeerEvent::Dropped {
                    error: DropError::Connect(ConnectError::Rejected(it)),
                    ..
                } => {
                    break it.into();
                }
                event => assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}"),
            }
        };
        assert!(matches!(told, CloseReason::Rejected(_)), "{told:?}");
        send(1);
        let again = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
        assert!(again.is_err(), "it is dialled again at once");
    });
}

#[test]
fn a_new_credential_of_the_pool_keeps_a_revoked_peer_out() {
    run(async {
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let (peer, address, me) = (server.identity(), listener.local_addr(), trusting());
        let transport = MsQuicTransport::new();
        let (pool, mut events) = PeerPool::new(transport.clone(), &[ALPN], me.clone(), config());
        let (connection, accepted) =
            tokio::join!(pool.connection(peer, address), accept(&listener));
        pool.set_credential(me.with_trust(TrustPolicy::nobody()));
        assert_eq!(transport.revoke(&TrustPolicy::nobody()), 1);
        connection.unwrap().watch_close().await;
        drop(accepted);
        pool.send(peer, address, "to a revoked peer".into()).unwrap();
        let refuse = async {
            loop {
                let _ = listener.accept().await.unwrap().accept().await;
            }
        };
        let dropped = async {
            loop {
                if let PeerEvent::Dropped { error, .. } = events.recv().await.unwrap() {
                    break error;
                }
            }
        };
        let error =
            tokio::select! { () = refuse => unreachable!("it never ends"), it = dropped => it };
        assert!(matches!(error, DropError::Connect(ConnectError::Rejected(_))), "{error:?}");
    });
}

#[test]
fn a_node_does_not_connect_to_itself() {
    run(async {
        let me = trusting();
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], me.clone(), config());
        let address = "127.0.0.1:9".parse().unwrap();
        let error = pool.connection(me.identity(), address).await.unwrap_err();
        assert!(matches!(error, ConnectError::InvalidInput(_)), "{error}");
        let error = pool.send(me.identity(), address, "hello".into());
        assert_eq!(error, Err(QueueError::OwnIdentity));
    });
}

#[test]
fn removing_a_peer_and_dropping_the_pool_end_the_tasks() {
    run(async {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (pool, events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config().max_attempts(1000));
        let stranger = CertHash::from_bytes([1; 32]);
        pool.send(stranger, silent.local_addr().unwrap(), "in vain".into()).unwrap();
        pool.send(server.identity(), listener.local_addr(), "hello".into()).unwrap();
        let accepted = accept(&listener).await;
        accepted.recv().await.unwrap();
        pool.remove(stranger);
        assert!(format!("{pool:?}").contains("peers: 1"), "{pool:?}");
        drop((events, pool));
        // No handle of the connection is left.
        assert!(matches!(accepted.watch_close().await, CloseReason::Peer { code: 0, .. }));
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn the_policy_of_the_credential_applies_too() {
    run(async {
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let me = NetCredential::self_signed(TrustPolicy::nobody()).unwrap();
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], me, config());
        let dial = pool.connection(server.identity(), listener.local_addr());
        let (dialled, _) =
            tokio::join!(dial, async { listener.accept().await.unwrap().accept().await });
        assert!(matches!(dialled, Err(ConnectError::Rejected(_))), "{dialled:?}");
    });
}

#[test]
fn unused_peers_are_forgotten() {
    run(async {
        let server = trusting();
        let listener = listen(&server, loopback()).await;
        let (pool, _) = PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config());
        let dial = pool.connection(server.identity(), listener.local_addr());
        let (dialled, _accepted) = tokio::join!(dial, accept(&listener));
        assert!(format!("{pool:?}").contains("peers: 1"), "{pool:?}");
        dialled.unwrap().close(0, "").await;
        while !format!("{pool:?}").contains("peers: 0") {
            tokio::task::yield_now().await;
        }

        // After a failure the entry is kept for its backoff, then removed.
        let pause = Duration::from_millis(1);
        let config = config().first_delay(pause).max_delay(pause);
        let (pool, _) = PeerPool::new(impatient(), &[ALPN], trusting(), config);
        let (_silent, address) = silent();
        for hundred in 0..2 {
            join_all((0..100).map(|number| {
                let stranger = CertHash::from_bytes([100 * hundred + number; 32]);
                pool.connection(stranger, address).map(Result::unwrap_err)
            }))
            .await;
        }
        let shown = format!("{pool:?}");
        let peers: usize = shown.matches(char::is_numeric).collect::<String>().parse().unwrap();
        assert!(peers < 200, "{shown}");
    });
}
