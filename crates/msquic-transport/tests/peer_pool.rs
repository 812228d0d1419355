//! `PeerPool` over msquic: what differs from the virtual network of net-peers' own tests. There
//! the handshake tells the dialler at once whether the peer accepts it.

mod common;

use common::{ALPN, run};
use futures_util::future::join_all;
use msquic_transport::{MsQuicListener, MsQuicNetConnection, MsQuicTransport};
use net_peers::{DropError, PeerEvent, PeerPool, PeerPoolConfig};
use net_traits::{
    CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener,
    NetTransport, TrustPolicy,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

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
                    event => assert!(matches!(event, PeerEvent::Connected { .. }), "{event:?}"),
                }
            };
            let expected = CloseReason::Peer { code: round.into(), reason: "go away".to_owned() };
            assert_eq!(reason, expected);
        }
    });
}

/// A node that listens, has a pool, and receives from all its connections.
struct Node {
    credential: NetCredential,
    address: SocketAddr,
    pool: PeerPool<MsQuicTransport>,
    received: mpsc::UnboundedReceiver<u8>,
}

/// Creates a node that notifies `ended` when a connection of its pool has ended.
async fn node(ended: Arc<Notify>) -> Node {
    let credential = trusting();
    let listener = listen(&credential).await;
    let (pool, mut events) =
        PeerPool::new(MsQuicTransport::new(), &[ALPN], credential.clone(), config()).unwrap();
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
                PeerEvent::Disconnected { .. } => ended.notify_one(),
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
    Node { credential, address, pool, received }
}

/// Both nodes send; in the end all messages have arrived and both send on the same connection.
async fn talk_at_once() {
    let ended = Arc::new(Notify::new());
    let (mut one, mut other) = (node(ended.clone()).await, node(ended.clone()).await);
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
    loop {
        let at_one = one.pool.connection(of_other, other.address).await.unwrap();
        let at_other = other.pool.connection(of_one, one.address).await.unwrap();
        if (at_one.local_addr(), at_one.remote_addr())
            == (at_other.remote_addr(), at_other.local_addr())
        {
            break;
        }
        ended.notified().await; // there are two, and one of them is closed
    }
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
