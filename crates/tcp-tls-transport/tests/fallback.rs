//! One transport first, another one where it does not get through.

use net_traits::{
    ConnectError, NetCredential, NetIncomingRequest, NetListener, NetTransport, RejectionBy,
    TrustPolicy,
};
use net_traits_test::memory::{LinkPlan, MemoryListener, MemoryNetwork, MemoryTransport};
use std::time::Duration;
use tcp_tls_transport::{FallbackConnection, FallbackTransport};
use tokio::time::Instant;

const ALPN: &str = "test/1";

fn anybody() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// Two networks in memory stand for two transports: of the first and of the second only the links differ.
struct Two {
    dialler: FallbackTransport<MemoryTransport, MemoryTransport>,
    listener: FallbackTransport<MemoryTransport, MemoryTransport>,
}

fn two(first: LinkPlan, second: LinkPlan) -> Two {
    let (one, other) = (MemoryNetwork::new(1), MemoryNetwork::new(1));
    one.set_links(first);
    other.set_links(second);
    let both = || FallbackTransport::new(one.transport(), other.transport());
    Two { dialler: both(), listener: both() }
}

async fn meet(two: &Two, listens: TrustPolicy) -> (Result<bool, ConnectError>, Duration) {
    let credential = NetCredential::self_signed(listens).unwrap();
    let bind_addr = "0.0.0.0:0".parse().unwrap();
    let listener = two.listener.create_listener(bind_addr, &[ALPN], credential).await.unwrap();
    let started = Instant::now();
    let accept_all = async {
        let mut accepted = Vec::new();
        loop {
            accepted.push(listener.accept().await.unwrap().accept().await);
        }
    };
    let dialled = tokio::select! {
        dialled = two.dialler.connect(listener.local_addr(), &[ALPN], anybody()) => dialled,
        () = accept_all => unreachable!("it does not end"),
    };
    let dialled = dialled.map(|connection| matches!(connection, FallbackConnection::Primary(_)));
    (dialled, started.elapsed())
}

fn after(milliseconds: u64) -> LinkPlan {
    LinkPlan::new().latency(Duration::from_millis(milliseconds))
}

#[tokio::test(start_paused = true)]
async fn the_first_has_a_head_start_and_then_the_faster_one_wins() {
    for (first, second, is_primary, elapsed) in [
        (100, 1, true, 200),      // within the head start
        (150, 100, true, 300),    // 250 + 200 would be later
        (400, 100, false, 450),   // 800 would be later
        (9_000, 100, false, 450), // beyond the handshake timeout
    ] {
        let (dialled, took) = meet(&two(after(first), after(second)), TrustPolicy::Any).await;
        assert_eq!(dialled, Ok(is_primary), "{first} ms against {second} ms");
        assert_eq!(took, Duration::from_millis(elapsed), "{first} ms against {second} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_says_is_final() {
    for (first, second) in [(1, 1), (300, 400)] {
        let (dialled, took) = meet(&two(after(first), after(second)), TrustPolicy::nobody()).await;
        let Err(ConnectError::Rejected(rejection)) = dialled else { panic!("{dialled:?}") };
        assert_eq!(rejection.by, RejectionBy::Peer);
        assert_eq!(took, Duration::from_millis(2 * first), "the other one is not asked");
    }
}

#[tokio::test(start_paused = true)]
async fn where_neither_gets_through_the_first_one_says_why() {
    let two = two(after(1), after(1));
    let remote_addr = "10.0.0.9:1".parse().unwrap();
    let error = two.dialler.connect(remote_addr, &[ALPN], anybody()).await.unwrap_err();
    assert_eq!(error, ConnectError::Refused(remote_addr));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_on_the_second_network_does_not_end_the_first_dial() {
    let (one, other) = (MemoryNetwork::new(1), MemoryNetwork::new(1));
    one.set_links(after(400));
    let (at_one, at_other) = (one.transport(), other.transport());
    let peer = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let bind_addr = "0.0.0.0:4433".parse().unwrap();
    let listener = at_one.create_listener(bind_addr, &[ALPN], peer.clone()).await.unwrap();
    let stranger = at_other.create_listener(bind_addr, &[ALPN], anybody()).await.unwrap();
    assert_eq!(listener.local_addr(), stranger.local_addr());
    let dialler = FallbackTransport::new(one.transport(), other.transport());
    let trust = TrustPolicy::hashes([peer.identity()]);
    let credential = NetCredential::self_signed(trust).unwrap();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], credential);
    let accept =
        |listener: MemoryListener| async move { listener.accept().await.unwrap().accept().await };
    let (dialled, accepted, turned_away) = tokio::join!(dial, accept(listener), accept(stranger));
    assert!(matches!(dialled, Ok(FallbackConnection::Primary(_))), "{dialled:?}");
    assert!(accepted.is_ok() && turned_away.is_err());
}
