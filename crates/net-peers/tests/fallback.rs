//! Fallback from a primary to a secondary transport.

use futures_util::FutureExt;
use net_peers::{FallbackConfig, FallbackConnection, FallbackTransport, PeerPool, PeerPoolConfig};
use net_traits::{
    ConnectError, NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport,
    RejectionBy, TrustPolicy,
};
use net_traits_test::memory::{LinkPlan, MemoryListener, MemoryNetwork, MemoryTransport};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

const ALPN: &str = "test/1";

fn trusting() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// Two in-memory networks stand for two transports. Only their links differ.
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

async fn connect(two: &Two, listens: TrustPolicy) -> (Result<bool, ConnectError>, Duration) {
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
        dialled = two.dialler.connect(listener.local_addr(), &[ALPN], trusting()) => dialled,
        () = accept_all => unreachable!("it never ends"),
    };
    let dialled = dialled.map(|connection| matches!(connection, FallbackConnection::Primary(_)));
    (dialled, started.elapsed())
}

fn after(milliseconds: u64) -> LinkPlan {
    LinkPlan::new().latency(Duration::from_millis(milliseconds))
}

#[tokio::test(start_paused = true)]
async fn the_primary_has_a_head_start_and_then_the_first_connection_is_used() {
    for (first, second, is_primary, elapsed) in [
        (100, 1, true, 200),      // within the head start
        (150, 100, true, 300),    // 250 + 200 would be later
        (400, 100, false, 450),   // 800 would be later
        (9_000, 100, false, 450), // beyond the handshake timeout
    ] {
        let (dialled, took) = connect(&two(after(first), after(second)), TrustPolicy::Any).await;
        assert_eq!(dialled, Ok(is_primary), "{first} ms against {second} ms");
        assert_eq!(took, Duration::from_millis(elapsed), "{first} ms against {second} ms");
    }
}

#[test]
fn a_delay_that_cannot_be_used_is_refused_by_the_name_of_the_option() {
    let network = MemoryNetwork::new(1);
    let config = FallbackConfig::new().delay(Duration::MAX);
    let made = FallbackTransport::with_config(network.transport(), network.transport(), config);
    assert_eq!(made.unwrap_err().option, "delay");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_over_both_transports_is_returned() {
    for (first, second) in [(1, 1), (300, 400)] {
        let (dialled, _) =
            connect(&two(after(first), after(second)), TrustPolicy::reject_all()).await;
        let Err(ConnectError::Rejected(rejection)) = dialled else { panic!("{dialled:?}") };
        assert_eq!(rejection.by, RejectionBy::Peer);
    }
}

/// Dials while `spoil` makes the primary transport fail. The secondary transport has a listener
/// that accepts if `has_secondary`.
async fn dial(
    spoil: impl AsyncFn(&MemoryTransport, &MemoryTransport) -> Option<MemoryListener>,
    latency: u64,
    has_secondary: bool,
) -> Result<(), ConnectError> {
    let (one, other) = (MemoryNetwork::new(1), MemoryNetwork::new(1));
    one.set_links(after(latency));
    let (at_one, at_other) = (one.transport(), other.transport());
    let bind_addr = SocketAddr::new(at_other.ip(), 4433);
    let dialler = FallbackTransport::new(one.transport(), other.transport());
    if let Some(listener) = spoil(&at_one, dialler.primary()).await {
        assert_eq!(listener.local_addr(), bind_addr);
        tokio::spawn(async move {
            while let Ok(request) = listener.accept().await {
                request.accept().await.unwrap_err();
            }
        });
    }
    if has_secondary {
        let listener = at_other.create_listener(bind_addr, &[ALPN], trusting()).await.unwrap();
        tokio::spawn(async move { listener.accept().await.unwrap().accept().await });
    }
    match dialler.connect(bind_addr, &[ALPN], trusting()).await? {
        FallbackConnection::Secondary(_) => Ok(()),
        FallbackConnection::Primary(it) => panic!("{it:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_failure_of_the_primary_is_final() {
    let bind_addr: SocketAddr = "0.0.0.0:4433".parse().unwrap();
    // During the head start of the primary transport, and after it.
    for latency in [1, 400] {
        let absent = async |_: &MemoryTransport, _: &MemoryTransport| None;
        assert_eq!(dial(absent, latency, true).await, Ok(()));
        let error = dial(absent, latency, false).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error}");

        let other_protocol = async |host: &MemoryTransport, _: &MemoryTransport| {
            Some(host.create_listener(bind_addr, &["other/1"], trusting()).await.unwrap())
        };
        assert_eq!(dial(other_protocol, latency, true).await, Ok(()));
        let error = dial(other_protocol, latency, false).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::BothFailed { .. }) && error.is_retryable(),
            "{error}"
        );

        let rejects = async |host: &MemoryTransport, _: &MemoryTransport| {
            let credential = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
            Some(host.create_listener(bind_addr, &[ALPN], credential).await.unwrap())
        };
        assert_eq!(dial(rejects, latency, true).await, Ok(()));
        let error = dial(rejects, latency, false).await.unwrap_err();
        assert!(matches!(error, ConnectError::Rejected(_)) && error.is_retryable(), "{error}");
    }
    let shut_down = async |_: &MemoryTransport, dialler: &MemoryTransport| {
        dialler.shutdown(Duration::ZERO, "").await;
        None
    };
    assert_eq!(dial(shut_down, 1, true).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_over_the_secondary_outranks_a_refusal_over_the_primary() {
    let (one, other) = (MemoryNetwork::new(1), MemoryNetwork::new(1));
    let host = other.transport();
    let rejects = NetCredential::self_signed(TrustPolicy::reject_all()).unwrap();
    let listener =
        host.create_listener("0.0.0.0:4433".parse().unwrap(), &[ALPN], rejects).await.unwrap();
    let dialler = FallbackTransport::new(one.transport(), other.transport());
    let dial = dialler.connect(listener.local_addr(), &[ALPN], trusting());
    let accept = async { listener.accept().await.unwrap().accept().await };
    let (dialled, _) = tokio::join!(dial, accept);
    assert!(matches!(dialled, Err(ConnectError::Rejected(_))), "{dialled:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_equal_errors_that_of_the_primary_is_returned() {
    let two = two(after(1), after(1));
    let remote_addr = "10.0.0.9:1".parse().unwrap();
    let error = two.dialler.connect(remote_addr, &[ALPN], trusting()).await.unwrap_err();
    assert_eq!(error, ConnectError::Refused(remote_addr));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_outranks_a_timeout_over_either_transport() {
    let blocked = 9_000; // a handshake takes longer than its timeout
    for (first, second) in [(1, blocked), (blocked, 1)] {
        let two = two(after(first), after(second));
        let host = two.listener.create_listener("0.0.0.0:0".parse().unwrap(), &[ALPN], trusting());
        let mut remote_addr = host.await.unwrap().local_addr(); // it does not listen any more
        remote_addr.set_port(1);
        let error = two.dialler.connect(remote_addr, &[ALPN], trusting()).await.unwrap_err();
        assert_eq!(error, ConnectError::Refused(remote_addr), "{first} ms against {second} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_peer_on_the_secondary_does_not_end_the_primary_dial() {
    let (one, other) = (MemoryNetwork::new(1), MemoryNetwork::new(1));
    one.set_links(after(400));
    let (at_one, at_other) = (one.transport(), other.transport());
    let peer = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let bind_addr = "0.0.0.0:4433".parse().unwrap();
    let listener = at_one.create_listener(bind_addr, &[ALPN], peer.clone()).await.unwrap();
    let stranger = at_other.create_listener(bind_addr, &[ALPN], trusting()).await.unwrap();
    assert_eq!(listener.local_addr(), stranger.local_addr());
    let dialler = FallbackTransport::new(one.transport(), other.transport());
    let trust = TrustPolicy::hashes([peer.identity()]);
    let credential = NetCredential::self_signed(trust).unwrap();
    let dial = dialler.connect(listener.local_addr(), &[ALPN], credential);
    let accept =
        |listener: MemoryListener| async move { listener.accept().await.unwrap().accept().await };
    let (dialled, accepted, rejected) = tokio::join!(dial, accept(listener), accept(stranger));
    assert!(matches!(dialled, Ok(FallbackConnection::Primary(_))), "{dialled:?}");
    assert!(accepted.is_ok() && rejected.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dial_in_progress_is_revoked_on_both_transports() {
    // The secondary transport dials after 250 ms.
    for (first, revoked_at) in [(9_000, 100), (9_000, 300), (100, 50)] {
        let two = two(after(first), after(100));
        let bind_addr = "0.0.0.0:4433".parse().unwrap();
        let listener = two.listener.create_listener(bind_addr, &[ALPN], trusting()).await.unwrap();
        let accept = async {
            let mut accepted = Vec::new();
            while let Ok(request) = listener.accept().await {
                accepted.push(request.accept().await);
            }
        };
        let dial = two.dialler.connect(listener.local_addr(), &[ALPN], trusting());
        let revoke = async {
            tokio::time::sleep(Duration::from_millis(revoked_at)).await;
            two.dialler.revoke(&TrustPolicy::reject_all()).await
        };
        let (dialled, revoked) = tokio::select! {
            done = async { tokio::join!(dial, revoke) } => done,
            () = accept => unreachable!("the listener is open"),
        };
        assert_eq!(revoked, 0, "it is not established");
        if let Ok(connection) = dialled {
            assert!(!connection.is_trusted(), "{first} ms, revoked at {revoked_at} ms");
            assert!(connection.watch_close().now_or_never().is_some());
        }
        assert!(two.dialler.connections().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_keeps_its_queue_while_the_secondary_may_connect_later() {
    let (one, other) = (MemoryNetwork::new(1), MemoryNetwork::new(1));
    let (stranger_host, host) = (one.transport(), other.transport());
    let bind_addr = "0.0.0.0:4433".parse().unwrap();
    // Another identity answers at the peer's port of the primary transport.
    let stranger = stranger_host.create_listener(bind_addr, &[ALPN], trusting()).await.unwrap();
    tokio::spawn(async move {
        while let Ok(request) = stranger.accept().await {
            request.accept().await.unwrap_err();
        }
    });
    let dialler = FallbackTransport::new(one.transport(), other.transport());
    let config = PeerPoolConfig::new().max_attempts(1000);
    let (pool, _events) = PeerPool::new(dialler, &[ALPN], trusting(), config).unwrap();
    let (peer, address) = (trusting(), SocketAddr::new(host.ip(), 4433));
    pool.send(peer.identity(), address, "queued".into()).unwrap();
    let error = pool.connection(peer.identity(), address).await.unwrap_err();
    assert!(matches!(error, ConnectError::Rejected(_)) && error.is_retryable(), "{error}");

    let listener = host.create_listener(bind_addr, &[ALPN], peer).await.unwrap();
    let connection = listener.accept().await.unwrap().accept().await.unwrap();
    assert_eq!(connection.recv().await.unwrap().0, "queued");
}
