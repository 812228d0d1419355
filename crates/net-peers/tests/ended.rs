//! What a pool does with connections that end before they are inserted.

mod common;

use common::{ALPN, Events, Pool, accept, listen, pool, trusting};
use net_peers::{PeerEvent, PeerPoolConfig};
use net_traits::{
    CloseOutcome, CloseReason, NetConnection, NetCredential, NetListener, NetTransport, RecvError,
    close_code,
};
use net_traits_test::memory::{MemoryConnection, MemoryListener, MemoryNetwork, MemoryTransport};
use std::time::Duration;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(600);

/// A host that dials, and the listener of a pool.
struct Hosts {
    host: MemoryTransport,
    peer: NetCredential,
    listener: MemoryListener,
}

async fn hosts(network: &MemoryNetwork, pool: &NetCredential) -> Hosts {
    let listener = listen(network, pool).await;
    Hosts { host: network.transport(), peer: trusting(), listener }
}

impl Hosts {
    /// Returns both ends of a connection.
    async fn connect(&self) -> (MemoryConnection, MemoryConnection) {
        let dial = self.host.connect(self.listener.local_addr(), &[ALPN], self.peer.clone());
        let (dialled, accepted) = tokio::join!(dial, accept(&self.listener));
        (dialled.unwrap(), accepted)
    }

    /// Returns a connection that has ended and holds two messages.
    async fn ended(&self) -> MemoryConnection {
        let (theirs, accepted) = self.connect().await;
        for message in ["one", "two"] {
            theirs.send(message.as_bytes()).await.unwrap();
        }
        assert_eq!(theirs.close(0, "").await, CloseOutcome::Delivered);
        accepted.watch_close().await;
        accepted
    }
}

async fn recv_two(pool: &Pool, peer: &NetCredential) {
    for message in ["one", "two"] {
        let received = timeout(LONG, pool.recv()).await.expect("it is received");
        assert_eq!(received, (peer.identity(), message.into()));
    }
}

/// Receives all messages, and returns how many there are.
async fn recv_all(pool: &Pool) -> usize {
    let mut received = 0;
    while timeout(LONG, pool.recv()).await.is_ok() {
        received += 1;
    }
    received
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_connection_that_ends_before_it_is_inserted_are_received() {
    let (network, me) = (MemoryNetwork::new(1), trusting());
    let hosts = hosts(&network, &me).await;
    let (pool, mut events) = pool(&network, me, PeerPoolConfig::new());
    pool.insert(hosts.ended().await);
    recv_two(&pool, &hosts.peer).await;
    assert_eq!(pool.peers(), []);
    assert!(timeout(LONG, events.recv()).await.is_err(), "it was never used");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_ended_does_not_replace_an_open_one() {
    let (network, me) = (MemoryNetwork::new(1), trusting());
    let hosts = hosts(&network, &me).await;
    let (pool, mut events) = pool(&network, me, PeerPoolConfig::new());
    let (theirs, accepted) = hosts.connect().await;
    pool.insert(accepted);
    events.recv().await.unwrap();
    pool.insert(hosts.ended().await);
    recv_two(&pool, &hosts.peer).await;
    pool.broadcast([hosts.peer.identity()], "hello".into()).unsent().await;
    assert_eq!(common::recv(&theirs).await, b"hello");
    assert!(timeout(LONG, events.recv()).await.is_err(), "the open connection is used");
}

#[tokio::test(start_paused = true)]
async fn connections_that_have_ended_count_until_their_messages_are_received() {
    let (network, me) = (MemoryNetwork::new(1), trusting());
    let hosts = hosts(&network, &me).await;
    let (pool, _events) = pool(&network, me, PeerPoolConfig::new().receive_queue(1));
    for _ in 0..20 {
        pool.insert(hosts.ended().await);
    }
    assert_eq!(recv_all(&pool).await, 2 * 16);
    pool.insert(hosts.ended().await);
    recv_two(&pool, &hosts.peer).await;
}

/// Returns how many messages were not received, each since a connection was closed with `code`.
fn unreceived(events: &mut Events, peer: &NetCredential, code: u64) -> u64 {
    let mut count = 0;
    while let Some(event) = events.try_recv() {
        if let PeerEvent::ReceiveFailed { peer: of, error, messages } = event {
            let RecvError::Closed(CloseReason::Local { code: closed, .. }) = error else {
                panic!("{error}")
            };
            assert_eq!((of, closed), (peer.identity(), code));
            count += messages;
        }
    }
    count
}

#[tokio::test(start_paused = true)]
async fn messages_of_connections_beyond_the_limit_are_reported() {
    let (network, me) = (MemoryNetwork::new(1), trusting());
    let hosts = hosts(&network, &me).await;
    let (pool, mut events) = pool(&network, me, PeerPoolConfig::new().receive_queue(1));
    for _ in 0..20 {
        pool.insert(hosts.ended().await);
    }
    let (theirs, accepted) = hosts.connect().await;
    theirs.send(b"one").await.unwrap();
    theirs.flush().await.unwrap();
    pool.insert(accepted); // it is open, and closed with what has arrived
    theirs.watch_close().await;
    assert_eq!(recv_all(&pool).await, 2 * 16);
    let code = close_code::TOO_MANY_PER_IDENTITY;
    assert_eq!(unreceived(&mut events, &hosts.peer, code), 2 * 4 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_limit_of_the_transport_drops_is_reported() {
    let (network, me) = (MemoryNetwork::new(1), trusting());
    let hosts = hosts(&network, &me).await;
    let (pool, mut events) = pool(&network, me, PeerPoolConfig::new());
    let (theirs, accepted) = hosts.connect().await;
    pool.insert(accepted);
    theirs.send_raw("\0\0\x27\x10 the rest of 10000 bytes is missing".into()).await.unwrap();
    assert_eq!(recv_all(&pool).await, 0);
    assert_eq!(unreceived(&mut events, &hosts.peer, close_code::MESSAGE_TIMEOUT), 1);
}
