//! `PeerPool::broadcast`: one message for many peers.

mod common;

use bytes::Bytes;
use common::{ALPN, accept, listen, pool, recv, trusting, undelivered};
use futures_util::future::join_all;
use net_peers::{DropError, PeerEvent, PeerPoolConfig, QueueError, Unsent};
use net_traits::{CertHash, ConnectError, NetConnection, NetListener, NetTransport, SendError};
use net_traits_test::memory::MemoryNetwork;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Nothing listens there.
const ABSENT: &str = "10.9.9.9:1";

fn absent() -> SocketAddr {
    ABSENT.parse().unwrap()
}

fn stranger(number: u16) -> CertHash {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    CertHash::from_bytes(bytes)
}

#[tokio::test(start_paused = true)]
async fn each_peer_gets_the_message_or_is_reported() {
    let network = MemoryNetwork::new(1);
    let (me, [dialled, inserted]) = (trusting(), [trusting(), trusting()]);
    let (at_dialled, at_me) = (listen(&network, &dialled).await, listen(&network, &me).await);
    let (pool, _events) = pool(&network, me.clone(), PeerPoolConfig::new().max_attempts(2));

    let dial = pool.connection(dialled.identity(), at_dialled.local_addr());
    let (_ours, at_peer) = tokio::join!(dial, accept(&at_dialled));
    let host = network.transport();
    let dial = host.connect(at_me.local_addr(), &[ALPN], inserted.clone());
    let (theirs, accepted) = tokio::join!(dial, accept(&at_me));
    pool.insert(accepted);
    pool.send(stranger(1), absent(), "before".into()).unwrap();

    let peers = pool.peers();
    let mut expected = vec![dialled.identity(), inserted.identity(), stranger(1)];
    expected.sort();
    assert_eq!(peers, expected, "in the order of their identities");

    let also = [me.identity(), stranger(2)];
    let broadcast = pool.broadcast(peers.into_iter().chain(also), "news".into());
    assert_eq!(recv(&at_peer).await, b"news");
    assert_eq!(recv(&theirs.unwrap()).await, b"news");
    let mut unsent = broadcast.unsent().await;
    unsent.sort_by_key(|unsent| unsent.peer == stranger(1));
    let [own, unknown, unreachable] = &unsent[..] else { panic!("{unsent:?}") };
    let error = |unsent: &Unsent| (unsent.peer, unsent.error.clone());
    assert_eq!(error(own), (me.identity(), QueueError::OwnIdentity.into()));
    assert_eq!(error(unknown), (stranger(2), QueueError::NoAddress.into()));
    assert_eq!(error(unreachable), (stranger(1), ConnectError::Refused(absent()).into()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_peers_share_the_payload() {
    let network = MemoryNetwork::new(1);
    let (pool, _events) = pool(&network, trusting(), PeerPoolConfig::new());
    let peers: Vec<_> = (0..1000).map(stranger).collect();
    for peer in &peers {
        pool.send(*peer, absent(), Bytes::new()).unwrap();
    }
    let message = Bytes::from(vec![7; 1024 * 1024]);
    let broadcast = pool.broadcast(peers.clone(), message.clone());
    // If each peer had a copy, the payload would be unique now.
    for peer in peers {
        assert!(!message.is_unique(), "{peer} has another payload");
        pool.remove(peer);
        tokio::task::yield_now().await; // its task ends
    }
    let unsent = broadcast.unsent().await;
    assert!(message.is_unique());
    assert_eq!(unsent.len(), 1000);
    assert!(unsent.iter().all(|unsent| unsent.error == DropError::Removed), "{unsent:?}");
}

#[tokio::test(start_paused = true)]
async fn connected_peers_all_get_one_message() {
    let network = MemoryNetwork::new(1);
    let (pool, _events) = pool(&network, trusting(), PeerPoolConfig::new());
    let connected = join_all((0..100).map(|_| async {
        let server = trusting();
        let listener = listen(&network, &server).await;
        let dial = pool.connection(server.identity(), listener.local_addr());
        let (dialled, accepted) = tokio::join!(dial, accept(&listener));
        (listener, dialled.unwrap(), accepted)
    }));
    let connected = connected.await;
    let broadcast = pool.broadcast(pool.peers(), "news".into());
    let (unsent, heard) = tokio::join!(
        broadcast.unsent(),
        join_all(connected.iter().map(|(_, _, accepted)| recv(accepted)))
    );
    assert_eq!(unsent, []);
    assert!(heard.iter().all(|message| message == b"news"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_does_not_affect_others() {
    let network = MemoryNetwork::new(1);
    let (server, limited) = (trusting(), trusting());
    let listener = listen(&network, &server).await;
    let config = PeerPoolConfig::new().max_queued_bytes(8 * 1024 * 1024);
    let (pool, mut events) = pool(&network, limited, config);
    let dial = pool.connection(server.identity(), listener.local_addr());
    let (_dialled, accepted) = tokio::join!(dial, accept(&listener));
    let long = Bytes::from(vec![0; 2 * 1024 * 1024]); // a host takes 1 MiB
    let broadcast = pool.broadcast([server.identity()], long);
    let after = pool.broadcast([server.identity()], "short".into());
    let unsent = broadcast.unsent().await;
    let [Unsent { error: DropError::Send(error), .. }] = &unsent[..] else { panic!("{unsent:?}") };
    assert!(matches!(error, SendError::TooLarge { .. }), "{error:?}");
    assert_eq!(recv(&accepted).await, b"short");
    assert_eq!(after.unsent().await, []);
    let event = events.recv().await;
    assert!(matches!(event, Some(PeerEvent::Connected { .. })), "{event:?}");
    let again = timeout(Duration::from_secs(1), events.recv()).await;
    assert!(again.is_err(), "it is reported twice: {again:?}");
}

#[tokio::test(start_paused = true)]
async fn without_its_reports_a_broadcast_is_reported_by_events() {
    let network = MemoryNetwork::new(1);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new().max_attempts(2));
    pool.send(stranger(1), absent(), "one".into()).unwrap();
    drop(pool.broadcast([stranger(1)], "other".into()));
    for expected in ["one", "other"] {
        assert_eq!(undelivered(&mut events).await.message, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn reports_that_were_not_received_become_events() {
    let network = MemoryNetwork::new(1);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new().max_attempts(1));
    pool.send(stranger(1), absent(), "one".into()).unwrap();
    let mut broadcast = pool.broadcast([stranger(1), stranger(2), stranger(3)], "other".into());
    assert_eq!(undelivered(&mut events).await.message, "one");
    let first = broadcast.next_unsent().await.unwrap().peer;
    drop(pool); // all reports of the broadcast are queued then
    tokio::time::sleep(Duration::from_secs(1)).await;
    let nothing_yet = timeout(Duration::from_secs(1), events.recv()).await;
    assert!(!matches!(nothing_yet, Ok(Some(_))), "{nothing_yet:?}");
    drop(broadcast);
    let mut peers = vec![first];
    while let Ok(Some(PeerEvent::Undelivered(report))) =
        timeout(Duration::from_secs(1), events.recv()).await
    {
        assert_eq!((&report.message[..], report.may_have_arrived), (&b"other"[..], false));
        peers.push(report.peer);
    }
    peers.sort();
    let mut expected = [stranger(1), stranger(2), stranger(3)];
    expected.sort();
    assert_eq!(peers, expected);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connected_by_itself_is_not_dialled_when_it_leaves() {
    let network = MemoryNetwork::new(1);
    let (me, peer) = (trusting(), trusting());
    let listener = listen(&network, &me).await;
    let (pool, _events) = pool(&network, me, PeerPoolConfig::new());
    let host = network.transport();
    let dial = host.connect(listener.local_addr(), &[ALPN], peer.clone());
    let (theirs, accepted) = tokio::join!(dial, accept(&listener));
    pool.insert(accepted);
    theirs.unwrap().close(0, "bye").await;
    let unsent = pool.broadcast([peer.identity()], "too late".into()).unsent().await;
    let error = unsent[0].error.clone();
    let not_known = matches!(error, DropError::NoAddress | DropError::Queue(QueueError::NoAddress));
    assert!(not_known, "{error:?}");
}
