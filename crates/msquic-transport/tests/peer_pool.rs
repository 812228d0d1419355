//! Connections by identity that come back.

mod common;

use bytes::Bytes;
use common::{ALPN, run};
use futures_util::future::join_all;
use msquic_transport::{
    CLOSE_CODE_DUPLICATE, DropError, MsQuicListener, MsQuicNetConnection, MsQuicTransport,
    PeerEvent, PeerPool, PeerPoolConfig, QueueError,
};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, TrustPolicy,
};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

fn anybody() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

async fn listen(credential: &NetCredential, address: SocketAddr) -> MsQuicListener {
    MsQuicTransport::new().create_listener(address, &[ALPN], credential.clone()).await.unwrap()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn accept(listener: &MsQuicListener) -> MsQuicNetConnection {
    listener.accept().await.unwrap().accept().await.unwrap()
}

/// Impatient, so that tests are quick.
fn config() -> PeerPoolConfig {
    PeerPoolConfig::new().first_delay(Duration::from_millis(5)).max_delay(Duration::from_millis(20))
}

#[test]
fn many_callers_share_one_dial() {
    run(async {
        let server = anybody();
        let listener = listen(&server, loopback()).await;
        let (address, peer) = (listener.local_addr(), server.identity());
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], anybody(), config());
        let all = join_all((0..50).map(|_| pool.connection(peer, address)));
        let (connections, accepted) = tokio::join!(all, accept(&listener));
        for connection in connections {
            assert_eq!(connection.unwrap().local_addr(), accepted.remote_addr());
        }
    });
}

#[test]
fn messages_survive_a_break_of_the_connection() {
    run(async {
        let server = anybody();
        let listener = listen(&server, loopback()).await;
        let (address, peer) = (listener.local_addr(), server.identity());
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], anybody(), config());
        pool.send(peer, address, "first".into()).unwrap();
        let connection = accept(&listener).await;
        assert_eq!(connection.recv().await.unwrap().0, "first");
        connection.close(1, "go away").await;
        // The pool has to notice before it can use another connection.
        while pool.connection(peer, address).now_or_never_ok().is_some() {
            tokio::task::yield_now().await;
        }
        pool.send(peer, address, "second".into()).unwrap();
        let connection = accept(&listener).await;
        assert_eq!(connection.recv().await.unwrap().0, "second");
    });
}

/// Whether a future is ready with `Ok` at once.
trait NowOrNever<T> {
    fn now_or_never_ok(self) -> Option<T>;
}

impl<T, E, F: Future<Output = Result<T, E>>> NowOrNever<T> for F {
    fn now_or_never_ok(self) -> Option<T> {
        futures_util::FutureExt::now_or_never(self)?.ok()
    }
}

#[test]
fn a_peer_that_appears_later_gets_what_was_queued_in_order() {
    run(async {
        let server = anybody();
        let port = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap();
        let (pool, _events) =
            PeerPool::new(MsQuicTransport::new(), &[ALPN], anybody(), config().max_attempts(1000));
        for number in 0..10_u8 {
            pool.send(server.identity(), address, vec![number].into()).unwrap();
        }
        drop(port);
        let listener = listen(&server, address).await;
        let connection = accept(&listener).await;
        for number in 0..10_u8 {
            assert_eq!(connection.recv().await.unwrap().0, vec![number]);
        }
    });
}

#[test]
fn what_cannot_be_sent_is_reported_and_what_does_not_fit_refused() {
    run(async {
        let nobody = CertHash::from_bytes([1; 32]);
        // Nobody listens there: the socket is closed again.
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = config().max_attempts(2).max_queued_bytes(100);
        let (pool, mut events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], anybody(), config);
        pool.send(nobody, address, Bytes::from(vec![0; 60])).unwrap();
        let full = pool.send(nobody, address, Bytes::from(vec![0; 60]));
        assert_eq!(full, Err(QueueError::Full));
        pool.send(nobody, address, Bytes::from(vec![0; 40])).unwrap();
        let event = events.recv().await.unwrap();
        let PeerEvent::Dropped { peer, messages, error: DropError::Connect(error) } = event else {
            panic!("{event:?}");
        };
        assert_eq!((peer, messages), (nobody, 2));
        assert!(error.is_retryable(), "{error}");

        // Somebody else answers: trying again does not help.
        let server = anybody();
        let listener = listen(&server, loopback()).await;
        pool.send(nobody, listener.local_addr(), "secret".into()).unwrap();
        let refuse = async { listener.accept().await.unwrap().accept().await };
        let (event, accepted) = tokio::join!(events.recv(), refuse);
        let event = event.unwrap();
        assert!(accepted.is_err() || matches!(event, PeerEvent::Dropped { .. }), "{event:?}");
        let PeerEvent::Dropped { error: DropError::Connect(error), .. } = event else {
            panic!("{event:?}");
        };
        assert!(matches!(error, ConnectError::Rejected(_) | ConnectError::Refused(_)), "{error:?}");
    });
}

/// Accepts a peer into the pool, unless it was told meanwhile that it is one too many.
async fn take_in(
    pool: &PeerPool<MsQuicTransport>,
    listener: &MsQuicListener,
) -> Option<MsQuicNetConnection> {
    match listener.accept().await.unwrap().accept().await {
        Ok(connection) => Some(pool.insert(connection)),
        Err(ConnectError::Closed(CloseReason::Peer { code: CLOSE_CODE_DUPLICATE, .. })) => None,
        // Before the handshake is done the code is not told.
        Err(ConnectError::Refused(_)) => None,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn peers_that_dial_each_other_keep_the_same_connection() {
    run(async {
        for _ in 0..10 {
            let (one, other) = (anybody(), anybody());
            let (at_one, at_other) =
                (listen(&one, loopback()).await, listen(&other, loopback()).await);
            let pool = |credential: &NetCredential| {
                PeerPool::new(MsQuicTransport::new(), &[ALPN], credential.clone(), config()).0
            };
            let (of_one, of_other) = (pool(&one), pool(&other));
            let (dialled_one, dialled_other, in_one, in_other) = tokio::join!(
                of_one.connection(other.identity(), at_other.local_addr()),
                of_other.connection(one.identity(), at_one.local_addr()),
                take_in(&of_one, &at_one),
                take_in(&of_other, &at_other),
            );
            // Whichever each saw first, in the end both have that of the smaller identity.
            let stays_at_one =
                of_one.connection(other.identity(), at_other.local_addr()).await.unwrap();
            let stays_at_other =
                of_other.connection(one.identity(), at_one.local_addr()).await.unwrap();
            assert_eq!(stays_at_one.local_addr(), stays_at_other.remote_addr());
            assert_eq!(stays_at_one.remote_addr(), stays_at_other.local_addr());
            stays_at_one.send(b"hello").await.unwrap();
            assert_eq!(stays_at_other.recv().await.unwrap().0, "hello");
            let all = [Some(dialled_one.unwrap()), Some(dialled_other.unwrap()), in_one, in_other];
            let loser = all.iter().flatten().find(|it| {
                it.local_addr() != stays_at_one.local_addr()
                    && it.local_addr() != stays_at_other.local_addr()
            });
            if let Some(loser) = loser {
                let (CloseReason::Local { code, .. } | CloseReason::Peer { code, .. }) =
                    loser.watch_close().await
                else {
                    panic!("closed in another way");
                };
                assert_eq!(code, CLOSE_CODE_DUPLICATE);
            }
        }
    });
}

#[test]
fn the_policy_of_the_credential_counts_too() {
    run(async {
        let server = anybody();
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
fn connections_that_are_over_leave_the_pool() {
    run(async {
        let server = anybody();
        let listener = listen(&server, loopback()).await;
        let (pool, _events) = PeerPool::new(MsQuicTransport::new(), &[ALPN], anybody(), config());
        let dial = pool.connection(server.identity(), listener.local_addr());
        let (dialled, accepted) = tokio::join!(dial, accept(&listener));
        drop(dialled.unwrap());
        assert!(format!("{pool:?}").contains("peers: 1"), "{pool:?}");
        accepted.close(0, "").await;
        while !format!("{pool:?}").contains("peers: 0") {
            tokio::task::yield_now().await;
        }
    });
}
