//! `PeerPool` over msquic: what differs from the virtual network of net-peers' own tests. There
//! the handshake tells the dialler at once whether the peer accepts it.

mod common;

use common::{ALPN, run};
use futures_util::future::join_all;
use msquic_transport::{MsQuicListener, MsQuicNetConnection, MsQuicTransport};
use net_peers::{DropError, FallbackTransport, PeerEvent, PeerEvents, PeerPool, PeerPoolConfig};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, TrustPolicy,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tcp_tls_transport::TcpTlsTransport;
use tokio::runtime::Builder;

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen(credential: &NetCredential) -> MsQuicListener {
    let address = "127.0.0.1:0".parse().unwrap();
    MsQuicTransport::new().create_listener(address, &[ALPN], credential.clone()).await.unwrap()
}

/// Short backoffs, so that tests are quick.
fn config() -> PeerPoolConfig {
    PeerPoolConfig::new().first_delay(Duration::from_millis(5)).max_delay(Duration::from_millis(20))
}

#[test]
fn messages_continue_after_breaks_which_are_reported() {
    run(async {
        let server = trusting();
        let listener = listen(&server).await;
        let (pool, mut events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config()).unwrap();
        for round in 0..3_u8 {
            pool.send(server.identity(), listener.local_addr(), vec![round].into()).unwrap();
            let connection = listener.accept().await.unwrap().accept().await.unwrap();
            assert_eq!(connection.recv().await.unwrap().0, [round][..]);
            connection.close(round.into(), "go away").await;
            let reason = loop {
                match events.recv().await.unwrap() {
                    PeerEvent::Disconnected { reason, .. } => break reason,
                    // The message that the peer received just before.
                    PeerEvent::Undelivered(report) => assert!(report.may_have_arrived),
                    event => assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}"),
                }
            };
            let expected = CloseReason::Peer { code: round.into(), reason: "go away".to_owned() };
            assert_eq!(reason, expected);
        }
    });
}

/// A node that listens and has a pool.
struct Node {
    credential: NetCredential,
    address: SocketAddr,
    pool: PeerPool<MsQuicTransport>,
    events: PeerEvents<MsQuicNetConnection>,
}

async fn node() -> Node {
    let credential = trusting();
    let listener = listen(&credential).await;
    let (pool, events) =
        PeerPool::new(MsQuicTransport::new(), &[ALPN], credential.clone(), config()).unwrap();
    let (address, accepting) = (listener.local_addr(), pool.clone());
    tokio::spawn(async move {
        while let Ok(request) = listener.accept().await {
            accepting.insert(request.accept().await.unwrap());
        }
    });
    Node { credential, address, pool, events }
}

/// Both nodes send; in the end all messages have arrived and both send on the same connection.
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
    for node in [&one, &other] {
        let mut seen = BTreeSet::new();
        while seen.len() < 100 {
            assert!(seen.insert(node.pool.recv().await.1[0]), "a message arrived twice");
        }
    }
    loop {
        let at_one = one.pool.connection(of_other, other.address).await.unwrap();
        let at_other = other.pool.connection(of_one, one.address).await.unwrap();
        if (at_one.local_addr(), at_one.remote_addr())
            == (at_other.remote_addr(), at_other.local_addr())
        {
            break;
        }
        // There are two, and one of them is closed.
        let event = tokio::select! { it = one.events.recv() => it, it = other.events.recv() => it };
        assert!(!matches!(event, None | Some(PeerEvent::Undelivered(_))), "{event:?}");
    }
    one.pool.send(of_other, other.address, vec![200].into()).unwrap();
    other.pool.send(of_one, one.address, vec![200].into()).unwrap();
    assert_eq!(one.pool.recv().await.1[0], 200);
    assert_eq!(other.pool.recv().await.1[0], 200);
}

#[test]
fn peers_that_dial_each_other_use_the_same_connection_and_lose_nothing() {
    run(async {
        join_all((0..10).map(|_| talk_at_once())).await;
    });
}

#[test]
fn a_peer_that_rejects_late_is_dialled_with_backoff() {
    run(async {
        let server = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
        let listener = listen(&server).await;
        let minute = Duration::from_secs(60);
        let config = config().first_delay(minute).max_delay(minute);
        let (pool, mut events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config).unwrap();
        let send = |number: u8| {
            pool.send(server.identity(), listener.local_addr(), vec![number].into()).unwrap();
        };
        send(0);
        listener.accept().await.unwrap().accept().await.unwrap_err();
        let told = loop {
            match events.recv().await.unwrap() {
                PeerEvent::Disconnected { reason, .. } => break reason,
                PeerEvent::Undelivered(report) => match report.error {
                    DropError::Connect(ConnectError::Rejected(it)) => break it.into(),
                    DropError::Lost(reason) => break reason,
                    error => panic!("{error}"),
                },
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
fn the_last_handle_may_be_dropped_outside_of_a_runtime() {
    let (pool, mut events, accepted) = run(async {
        let server = trusting();
        let listener = listen(&server).await;
        let (pool, events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], trusting(), config()).unwrap();
        let dial = pool.connection(server.identity(), listener.local_addr());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        dialled.unwrap();
        (pool, events, accepted)
    });
    drop(pool);
    run(async {
        assert!(matches!(accepted.watch_close().await, CloseReason::Peer { code: 0, .. }));
        while events.recv().await.is_some() {}
    });
}

#[test]
fn a_pool_over_tcp_and_fallback_may_be_dropped_outside_of_a_runtime() {
    drop_outside(TcpTlsTransport::new);
    drop_outside(|| FallbackTransport::new(MsQuicTransport::new(), TcpTlsTransport::new()));
}

/// Drops the last handle while the runtime runs and has messages to send.
fn drop_outside<T: NetTransport>(transport: impl Fn() -> T) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    const TIMEOUT: Duration = Duration::from_secs(20);
    let (pool, mut events, accepted) = runtime.block_on(async {
        let server = trusting();
        let address = "127.0.0.1:0".parse().unwrap();
        let listener = transport().create_listener(address, &[ALPN], server.clone()).await.unwrap();
        let config = config().keep_sent(Duration::from_secs(3600)); // none is taken for delivered
        let (pool, events) = PeerPool::new(transport(), &[ALPN], trusting(), config).unwrap();
        let dial = pool.connection(server.identity(), listener.local_addr());
        let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
        let (dialled, accepted) = tokio::join!(dial, accept);
        dialled.unwrap();
        for _ in 0..100 {
            let message = vec![0; 1000].into();
            pool.send(server.identity(), listener.local_addr(), message).unwrap();
        }
        (pool, events, accepted)
    });
    drop(pool);
    runtime.block_on(async {
        let closed = tokio::time::timeout(TIMEOUT, accepted.watch_close()).await;
        assert!(closed.is_ok(), "the connection stays open");
        let mut reports = 0;
        while let Some(event) = tokio::time::timeout(TIMEOUT, events.recv()).await.unwrap() {
            reports += usize::from(matches!(event, PeerEvent::Undelivered(_)));
        }
        assert_eq!(reports, 100);
    });
}
