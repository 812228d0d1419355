//! What a `PeerPool` does where messages could be lost: each is received, or reported with its
//! payload.

mod common;

use bytes::Bytes;
use common::{ALPN, Events, accept, listen, pool, recv, trusting, two_trusting, undelivered};
use futures_util::FutureExt;
use net_peers::{DropError, Endpoint, PeerEvent, PeerPoolConfig, QueueError, StaticResolver};
use net_traits::{
    CertHash, CloseReason, ConnectError, NetConnection, NetIncomingRequest, NetListener,
    NetTransport, close_code,
};
use net_traits_test::memory::{LinkPlan, MemoryIncomingRequest, MemoryListener, MemoryNetwork};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// An address without a listener.
fn absent() -> SocketAddr {
    "10.9.9.9:1".parse().unwrap()
}

fn stranger(number: u16) -> CertHash {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    CertHash::from_bytes(bytes)
}

/// Returns the reports so far, and how many peers have connected.
fn all(events: &mut Events) -> (Vec<net_peers::Undelivered>, usize) {
    let (mut reports, mut connected) = (Vec::new(), 0);
    while let Some(event) = events.try_recv() {
        match event {
            PeerEvent::Undelivered(report) => reports.push(report),
            PeerEvent::Connected { .. } => connected += 1,
            _ => {}
        }
    }
    (reports, connected)
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_peers_are_received_without_receiving_events() {
    let network = MemoryNetwork::new(1);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
    let mut kept = Vec::new();
    for _ in 0..1100 {
        let peer = trusting();
        let listener = listen(&network, &peer).await;
        let dial = pool.connection(peer.identity(), listener.local_addr());
        let (dialled, accepted) = tokio::join!(dial, accept(&listener));
        accepted.send(&peer.identity().as_bytes()[..]).await.unwrap();
        kept.push((dialled.unwrap(), accepted));
    }
    let mut senders = BTreeSet::new();
    for _ in 0..1100 {
        let (peer, message) = pool.recv().await;
        assert_eq!(message, peer.as_bytes()[..]);
        senders.insert(peer);
    }
    assert_eq!((senders.len(), all(&mut events).1), (1100, 1100));
}

#[tokio::test(start_paused = true)]
async fn each_undelivered_message_is_reported_however_late_events_are_received() {
    let network = MemoryNetwork::new(1);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new().max_attempts(1));
    for number in 0..3000_u16 {
        let message = number.to_be_bytes().to_vec().into();
        pool.send(stranger(number / 3), absent(), message).unwrap();
    }
    sleep(60 * SECOND).await;
    let (reports, _) = all(&mut events);
    for report in &reports {
        let number = u16::from_be_bytes(report.message[..].try_into().unwrap());
        assert_eq!((report.peer, report.may_have_arrived), (stranger(number / 3), false));
        assert!(matches!(report.error, DropError::Connect(_)), "{report:?}");
    }
    let payloads: BTreeSet<_> = reports.iter().map(|report| report.message.clone()).collect();
    assert_eq!((reports.len(), payloads.len()), (3000, 3000));
}

#[tokio::test(start_paused = true)]
async fn reports_that_are_not_received_count_against_the_limit() {
    let network = MemoryNetwork::new(1);
    let config = PeerPoolConfig::new().max_attempts(1).max_queued_messages(10);
    let (pool, mut events) = pool(&network, trusting(), config);
    let send = || pool.send(stranger(1), absent(), "in vain".into());
    let mut sent = 0;
    for _ in 0..100 {
        match send() {
            Ok(()) => sent += 1,
            Err(error) => assert_eq!(error, QueueError::Full),
        }
        sleep(SECOND).await;
    }
    assert_eq!(sent, 10);
    undelivered(&mut events).await;
    assert_eq!((send(), send()), (Ok(()), Err(QueueError::Full)));
    // Without the receiver, reports are discarded.
    drop(events);
    sleep(60 * SECOND).await;
    for _ in 0..100 {
        assert_eq!(send(), Ok(()));
        sleep(60 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_all_peers_are_bounded_and_a_broadcast_counts_once() {
    let network = MemoryNetwork::new(1);
    let config = PeerPoolConfig::new().max_held_bytes(100_000);
    let (pool, mut events) = pool(&network, trusting(), config.max_attempts(1));
    let fill = |number| pool.send(stranger(number), absent(), Bytes::from(vec![0; 9_872]));
    assert_eq!((0..20).filter(|number| fill(*number).is_ok()).count(), 10);
    assert_eq!(fill(99), Err(QueueError::PoolFull));
    sleep(60 * SECOND).await;
    assert_eq!(fill(99), Err(QueueError::PoolFull), "the pool holds the reports");
    assert_eq!(all(&mut events).0.len(), 10);
    sleep(60 * SECOND).await;
    for number in 0..100 {
        pool.send(stranger(number), absent(), Bytes::new()).unwrap();
    }
    let broadcast = pool.broadcast((0..100).map(stranger), Bytes::from(vec![0; 50_000]));
    let unsent = broadcast.unsent().await;
    assert!(unsent.iter().all(|it| matches!(it.error, DropError::Connect(_))), "{unsent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_application_throttles_its_peers_and_loses_nothing() {
    let network = MemoryNetwork::new(1);
    let config = PeerPoolConfig::new().receive_queue(64 * 1024);
    let (pool, mut events) = pool(&network, trusting(), config);
    let (server, listener) = {
        let server = trusting();
        let listener = listen(&network, &server).await;
        (server, listener)
    };
    let dial = pool.connection(server.identity(), listener.local_addr());
    let (_dialled, accepted) = tokio::join!(dial, accept(&listener));
    let mut sent = 0_u32;
    let message = |number: u32| [&number.to_be_bytes()[..], &[0; 1000]].concat();
    while accepted.send(&message(sent)).now_or_never().is_some() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!((300..400).contains(&sent), "the connection takes 256 KiB, the pool 64 KiB: {sent}");
    for number in 0..1000 {
        let (_, received) = tokio::join!(
            async {
                if number + sent < 1000 {
                    accepted.send(&message(number + sent)).await.unwrap();
                }
            },
            pool.recv()
        );
        assert_eq!(received.1, message(number));
        if number % 100 == 0 {
            sleep(10 * SECOND).await;
        }
    }
    assert!(all(&mut events).0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_to_a_restarted_peer_use_its_new_connection() {
    let network = MemoryNetwork::new(1);
    let (smaller, larger) = two_trusting();
    for (me, peer) in [(smaller.clone(), larger.clone()), (larger, smaller)] {
        let (at_me, at_peer) = (listen(&network, &me).await, listen(&network, &peer).await);
        let (pool, mut events) = pool(&network, me, PeerPoolConfig::new());
        let dial = pool.connection(peer.identity(), at_peer.local_addr());
        let (ours, _dead) = tokio::join!(dial, accept(&at_peer));
        // The peer's process ends without a close, and is started again elsewhere.
        let pool_ip = ours.unwrap().local_addr().ip();
        network.partition(&[pool_ip], &[at_peer.local_addr().ip()]);
        pool.send(peer.identity(), at_peer.local_addr(), "before".into()).unwrap();
        sleep(SECOND).await;
        let host = network.transport();
        let dial = host.connect(at_me.local_addr(), &[ALPN], peer.clone());
        let (theirs, accepted) = tokio::join!(dial, accept(&at_me));
        pool.insert(accepted);
        let begun = Instant::now();
        for _ in 0..20 {
            pool.send(peer.identity(), at_peer.local_addr(), "after".into()).unwrap();
            assert_eq!(recv(theirs.as_ref().unwrap()).await, b"after");
            sleep(SECOND).await;
        }
        assert_eq!(begun.elapsed(), 20 * SECOND, "messages arrive immediately");
        let (reports, _) = all(&mut events);
        let [report] = &reports[..] else { panic!("{reports:?}") };
        assert!(report.message == "before" && report.may_have_arrived);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_connection_is_replaced_and_its_messages_are_reported() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
    let send = |number: u8| {
        let message = Bytes::from(vec![number; 16 * 1024]);
        pool.send(server.identity(), listener.local_addr(), message).unwrap();
    };
    (0..60).for_each(send);
    let stuck = accept(&listener).await; // nothing is received from it
    let begun = Instant::now();
    let fresh = accept(&listener).await;
    assert!(begun.elapsed() < 40 * SECOND, "{:?}", begun.elapsed());
    let mut seen = BTreeSet::new();
    while let Ok(message) = timeout(SECOND, fresh.recv()).await {
        assert!(seen.insert(message.unwrap().0[0]), "it arrived twice");
    }
    // The messages that had arrived on the stuck connection can be received.
    while let Ok((message, _)) = stuck.recv().await {
        assert!(seen.insert(message[0]), "it arrived twice");
    }
    assert!(matches!(stuck.watch_close().await, CloseReason::Peer { .. }));
    let (reports, _) = all(&mut events);
    assert!(reports.iter().all(|report| report.may_have_arrived));
    seen.extend(reports.iter().map(|report| report.message[0]));
    assert_eq!(seen, (0..60).collect());
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_a_slow_application_is_redialled_ever_less_often() {
    let network = MemoryNetwork::new(1);
    let server = trusting();
    let listener = listen(&network, &server).await;
    let config = PeerPoolConfig::new().max_attempts(1_000_000);
    let (pool, _events) = pool(&network, trusting(), config);
    for number in 0..60 {
        let message = Bytes::from(vec![number; 16 * 1024]);
        pool.send(server.identity(), listener.local_addr(), message).unwrap();
    }
    let mut accepted = Vec::new();
    let accept_all = async {
        loop {
            accepted.push(accept(&listener).await);
        }
    };
    assert!(timeout(600 * SECOND, accept_all).await.is_err());
    // Each takes 16 messages, and then nothing for 12, 24, 48 s and so on.
    assert_eq!(accepted.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn messages_that_a_flapping_peer_does_not_receive_are_reported() {
    let network = MemoryNetwork::new(1);
    network.set_links(LinkPlan::new().latency(Duration::from_millis(20)).reset_after(500..2000));
    let server = trusting();
    let listener = listen(&network, &server).await;
    let address = listener.local_addr();
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new().max_attempts(1000));
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (connection, sender) = (accept(&listener).await, sender.clone());
            tokio::spawn(async move {
                while let Ok((message, _)) = connection.recv().await {
                    sender.send(message).unwrap();
                }
            });
        }
    });
    let message = |number: u16| Bytes::from([&number.to_be_bytes()[..], &[0; 40]].concat());
    for number in 0..1000 {
        pool.send(server.identity(), address, message(number)).unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    sleep(3600 * SECOND).await;
    let mut seen = BTreeSet::new();
    while let Ok(message) = received.try_recv() {
        assert!(seen.insert(message), "a message arrived twice");
    }
    let (reports, _) = all(&mut events);
    for report in reports {
        assert!(report.may_have_arrived || !seen.contains(&report.message));
        seen.insert(report.message);
    }
    assert_eq!(seen, (0..1000).map(message).collect());
}

#[tokio::test(start_paused = true)]
async fn removing_a_peer_reports_its_messages() {
    let network = MemoryNetwork::new(1);
    network.set_links(LinkPlan::new().latency(SECOND));
    let (server, silent) = (trusting(), listen(&network, &trusting()).await);
    let listener = listen(&network, &server).await;
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
    for number in 0..3_u8 {
        pool.send(stranger(1), silent.local_addr(), vec![number].into()).unwrap();
        pool.send(server.identity(), listener.local_addr(), vec![number].into()).unwrap();
    }
    let _accepted = accept(&listener).await;
    sleep(1500 * SECOND / 1000).await; // on their way
    pool.remove(stranger(1));
    pool.remove(server.identity());
    tokio::task::yield_now().await;
    let (reports, connected) = all(&mut events);
    assert_eq!((reports.len(), connected), (6, 0));
    for report in reports {
        assert_eq!(report.error, DropError::Removed);
        assert_eq!(report.may_have_arrived, report.peer == server.identity());
    }
}

#[test]
fn the_last_handle_may_be_dropped_outside_of_a_runtime() {
    for in_another_runtime in [false, true] {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (pool, mut events, accepted, _listener) = runtime.block_on(async {
            let network = MemoryNetwork::new(1);
            let server = trusting();
            let listener = listen(&network, &server).await;
            let (pool, events) = pool(&network, trusting(), PeerPoolConfig::new());
            let dial = pool.connection(server.identity(), listener.local_addr());
            let (dialled, accepted) = tokio::join!(dial, accept(&listener));
            dialled.unwrap();
            pool.send(stranger(1), absent(), "in vain".into()).unwrap();
            (pool, events, accepted, listener)
        });
        if in_another_runtime {
            let other = Builder::new_current_thread().build().unwrap(); // without timers
            other.block_on(async move { drop(pool) });
        } else {
            drop(pool);
        }
        let (reason, reported) = runtime.block_on(async {
            let reason = accepted.watch_close().await;
            let mut reported = Vec::new();
            while let Some(event) = events.recv().await {
                reported.push(event);
            }
            (reason, reported)
        });
        assert!(matches!(reason, CloseReason::Peer { code: 0, .. }), "{reason}");
        let is_reported = |event: &PeerEvent<_>| matches!(event, PeerEvent::Undelivered(report) if report.message == "in vain");
        assert!(reported.iter().any(is_reported), "{reported:?}");
        let is_lost = |event: &PeerEvent<_>| matches!(event, PeerEvent::Disconnected { .. });
        assert!(reported.iter().any(is_lost), "{reported:?}");
    }
}

#[test]
fn a_runtime_that_is_shut_down_reports_what_its_tasks_held() {
    let network = MemoryNetwork::new(1);
    let one = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (pool, mut events, server, listener) = one.block_on(async {
        let server = trusting();
        let listener = listen(&network, &server).await;
        let (pool, events) = pool(&network, trusting(), PeerPoolConfig::new());
        pool.send(stranger(1), absent(), "queued".into()).unwrap();
        pool.send(server.identity(), listener.local_addr(), "sent".into()).unwrap();
        let accepted = accept(&listener).await;
        recv(&accepted).await;
        (pool, events, server, listener)
    });
    drop(one);
    let payloads: BTreeSet<_> = all(&mut events).0.into_iter().map(|it| it.message).collect();
    assert_eq!(payloads, BTreeSet::from(["queued".into(), "sent".into()]));
    // The pool works in another runtime.
    let other = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    other.block_on(async {
        pool.send(server.identity(), listener.local_addr(), "again".into()).unwrap();
        assert_eq!(recv(&accept(&listener).await).await, b"again");
        let tasks = || Handle::current().metrics().num_alive_tasks();
        drop(pool);
        while tasks() > 0 {
            tokio::task::yield_now().await;
        }
        while events.recv().await.is_some() {}
    });
}

/// Waits for an attempt of the pool.
async fn dialled(listener: &MemoryListener) -> MemoryIncomingRequest {
    let request = timeout(600 * SECOND, listener.accept()).await;
    request.expect("the pool does not dial").unwrap()
}

/// Accepts and keeps connections, and returns what is received.
async fn receive_all(listener: MemoryListener, count: usize) -> Vec<Bytes> {
    let mut received = Vec::new();
    while received.len() < count {
        if let Ok(connection) = listener.accept().await.unwrap().accept().await {
            while let Ok((message, _)) = connection.recv().await {
                received.push(message);
                if received.len() == count {
                    break;
                }
            }
        }
    }
    received
}

#[tokio::test(start_paused = true)]
async fn a_listener_without_the_protocol_does_not_end_the_queue() {
    let network = MemoryNetwork::new(1);
    let (server, host) = (trusting(), network.transport());
    let address = SocketAddr::new(host.ip(), 4433);
    let other = host.create_listener(address, &["other/1"], server.clone()).await.unwrap();
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
    for number in 0..10_u8 {
        pool.send(server.identity(), address, vec![number].into()).unwrap();
    }
    for _ in 0..3 {
        let error = dialled(&other).await.accept().await.unwrap_err();
        assert!(matches!(error, ConnectError::NoCommonAlpn { .. }), "{error}");
    }
    drop(other);
    let listener = host.create_listener(address, &[ALPN], server).await.unwrap();
    let received = receive_all(listener, 10).await;
    assert_eq!(received, (0..10).map(|number| Bytes::from(vec![number])).collect::<Vec<_>>());
    assert!(all(&mut events).0.iter().all(|report| report.may_have_arrived));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_another_address_of_the_peer_is_dialled() {
    let network = MemoryNetwork::new(1);
    let (server, host) = (trusting(), network.transport());
    let address = SocketAddr::new(host.ip(), 4433);
    let (pool, mut events) = pool(&network, trusting(), PeerPoolConfig::new());
    let listed = Endpoint::new(address).with_identity(server.identity());
    let _follow = pool.follow(StaticResolver::new([listed]));
    // Another node answers at the address that the application knows.
    let stranger = listen(&network, &trusting()).await;
    pool.send(server.identity(), stranger.local_addr(), "hello".into()).unwrap();
    for _ in 0..3 {
        dialled(&stranger).await.accept().await.unwrap_err();
    }
    let listener = host.create_listener(address, &[ALPN], server).await.unwrap();
    let accepted = loop {
        tokio::select! {
            request = stranger.accept() => drop(request.unwrap().accept().await),
            accepted = accept(&listener) => break accepted,
        }
    };
    assert_eq!(recv(&accepted).await, b"hello");
    assert!(all(&mut events).0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reconnects_cannot_fill_the_memory_while_the_application_is_slow() {
    let network = MemoryNetwork::new(1);
    let (me, peer, host) = (trusting(), trusting(), network.transport());
    let listener = listen(&network, &me).await;
    let (pool, _events) = pool(&network, me, PeerPoolConfig::new().receive_queue(1024));
    let (mut refused, mut sent) = (0, 0);
    for _ in 0..100 {
        let dial = host.connect(listener.local_addr(), &[ALPN], peer.clone());
        let (theirs, accepted) = tokio::join!(dial, accept(&listener));
        pool.insert(accepted);
        let theirs = theirs.unwrap();
        let mut number = 0;
        while number < 100 && theirs.send(&[0; 1000]).await.is_ok() {
            number += 1;
        }
        sent += number;
        theirs.close(0, "again").await;
        let reason = theirs.watch_close().await;
        if let CloseReason::Peer { code: close_code::TOO_MANY_PER_IDENTITY, .. } = reason {
            refused += 1;
        }
    }
    assert_eq!((refused, sent), (84, 1600));
    for _ in 0..sent {
        pool.recv().await;
    }
    // There is room again.
    let dial = host.connect(listener.local_addr(), &[ALPN], peer.clone());
    let (theirs, accepted) = tokio::join!(dial, accept(&listener));
    pool.insert(accepted);
    theirs.unwrap().send(b"hello").await.unwrap();
    assert_eq!(pool.recv().await, (peer.identity(), "hello".into()));
}
