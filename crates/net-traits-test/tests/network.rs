//! The virtual network: delays and faults, on a paused clock.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use net_traits::{
    CloseReason, ConnectError, Limit, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, RecvError, SendError, TrustPolicy, WithCauses,
};
use net_traits_test::Limits;
use net_traits_test::memory::{LinkPlan, MemoryConnection, MemoryNetwork, MemoryTransport};
use std::time::Duration;
use tokio::time::{Instant, timeout};

const ALPN: &str = "test/1";

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Two hosts, their network and their connection.
struct World {
    network: MemoryNetwork,
    hosts: [MemoryTransport; 2],
    dialled: MemoryConnection,
    accepted: MemoryConnection,
}

async fn world(seed: u64, plan: LinkPlan) -> World {
    let network = MemoryNetwork::new(seed);
    let limits = Limits { no_progress_timeout: ms(500), ..Limits::default() };
    let hosts = [network.transport_with(limits.clone()), network.transport_with(limits)];
    network.set_links(plan);
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let bind_addr = "0.0.0.0:0".parse().unwrap();
    let listener = hosts[1].create_listener(bind_addr, &[ALPN], credential.clone()).await.unwrap();
    let dial = hosts[0].connect(listener.local_addr(), &[ALPN], credential);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    World { network, hosts, dialled: dialled.unwrap(), accepted }
}

#[tokio::test(start_paused = true)]
async fn a_message_takes_the_latency_and_its_share_of_the_bandwidth() {
    let started = Instant::now();
    let plan = LinkPlan::new().latency(ms(50)).bandwidth(1_000_000);
    let World { dialled, accepted, .. } = world(1, plan).await;
    assert_eq!(started.elapsed(), ms(100), "a handshake is a round trip");
    let started = Instant::now();
    dialled.send_bytes(Bytes::from(vec![1; 99_996])).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    let (_, elapsed) = accepted.recv().await.unwrap();
    assert_eq!(started.elapsed(), ms(150), "100 000 bytes take 100 ms, and 50 ms to get there");
    assert_eq!(elapsed, ms(100));
    // The second of two waits for the first.
    let started = Instant::now();
    for _ in 0..2 {
        dialled.send_bytes(Bytes::from(vec![1; 9_996])).await.unwrap();
    }
    accepted.recv().await.unwrap();
    accepted.recv().await.unwrap();
    assert_eq!(started.elapsed(), ms(70));
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_until_the_sent_data_has_arrived() {
    let plan = LinkPlan::new().latency(ms(50)).bandwidth(1_000_000);
    let World { dialled, accepted, .. } = world(1, plan).await;
    dialled.send_bytes(Bytes::from(vec![1; 99_996])).await.unwrap();
    let started = Instant::now();
    dialled.close(3, "done").await;
    assert_eq!(started.elapsed(), ms(150));
    assert_eq!(accepted.recv().await.unwrap().0.len(), 99_996);
    let reason = CloseReason::Peer { code: 3, reason: "done".to_owned() };
    assert_eq!(accepted.watch_close().await, reason);
}

#[tokio::test(start_paused = true)]
async fn jitter_keeps_the_order() {
    let plan = LinkPlan::new().latency(ms(10)).jitter(ms(100));
    let World { dialled, accepted, .. } = world(7, plan).await;
    for number in 0..100_u8 {
        dialled.send(&[number]).await.unwrap();
    }
    let mut times = Vec::new();
    for number in 0..100_u8 {
        assert_eq!(accepted.recv().await.unwrap().0, [number][..]);
        times.push(Instant::now());
    }
    times.dedup();
    assert!(times.len() > 2, "messages arrive at different times");
}

#[tokio::test(start_paused = true)]
async fn a_healed_partition_delays_and_a_lasting_one_ends_connections() {
    let World { network, hosts, dialled, accepted } = world(1, LinkPlan::new()).await;
    let [one, other] = [&[hosts[0].ip()][..], &[hosts[1].ip()]];
    network.partition(one, other);
    dialled.send(b"late").await.unwrap();
    assert!(timeout(ms(5_000), accepted.recv()).await.is_err());
    assert_eq!(dialled.flush().await, Err(SendError::TimedOut { after: ms(500) }));
    network.heal();
    assert_eq!(accepted.recv().await.unwrap().0, "late");

    network.partition(one, other);
    let started = Instant::now();
    assert_eq!(accepted.recv().await, Err(RecvError::Closed(CloseReason::TimedOut)));
    assert_eq!(started.elapsed(), ms(30_000));
    assert_eq!(dialled.watch_close().await, CloseReason::TimedOut);
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let remote_addr = accepted.local_addr();
    let error = hosts[0].connect(remote_addr, &[ALPN], credential).await.unwrap_err();
    assert_eq!(error, ConnectError::TimedOut { remote_addr, after: ms(10_000) });
}

#[tokio::test(start_paused = true)]
async fn a_failed_host_is_silent_for_good() {
    let World { network, hosts, dialled, accepted } = world(1, LinkPlan::new()).await;
    network.fail_host(hosts[1].ip());
    dialled.send(b"lost").await.unwrap();
    network.heal();
    let started = Instant::now();
    assert_eq!(dialled.watch_close().await, CloseReason::TimedOut);
    assert_eq!(started.elapsed(), ms(30_000));
    assert_eq!(accepted.recv().await, Err(RecvError::Closed(CloseReason::TimedOut)));
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let remote_addr = accepted.local_addr();
    let newcomer = network.transport();
    let error = newcomer.connect(remote_addr, &[ALPN], credential).await.unwrap_err();
    assert_eq!(error, ConnectError::TimedOut { remote_addr, after: ms(10_000) });
}

#[tokio::test(start_paused = true)]
async fn messages_that_arrived_before_a_partition_are_received() {
    let World { network, hosts, dialled, accepted } =
        world(1, LinkPlan::new().latency(ms(50))).await;
    dialled.send(b"arrives").await.unwrap();
    tokio::time::sleep(ms(40)).await;
    dialled.send(b"is in flight").await.unwrap();
    tokio::time::sleep(ms(20)).await;
    network.partition(&[hosts[0].ip()], &[hosts[1].ip()]);
    assert_eq!(accepted.recv().await.unwrap().0, "arrives");
    assert!(timeout(ms(5_000), accepted.recv()).await.is_err());
    network.heal();
    assert_eq!(accepted.recv().await.unwrap().0, "is in flight");
    assert_eq!(dialled.flush().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn messages_that_arrive_after_the_peer_has_closed_are_not_flushed() {
    for is_cut in [false, true] {
        let World { network, hosts, dialled, accepted } =
            world(1, LinkPlan::new().latency(ms(50))).await;
        dialled.send(b"too late").await.unwrap();
        tokio::time::sleep(ms(20)).await;
        if is_cut {
            network.partition(&[hosts[0].ip()], &[hosts[1].ip()]);
        }
        accepted.abort(7, "");
        let flush = async { dialled.flush().await.unwrap_err() };
        let heal = async {
            tokio::time::sleep(ms(100)).await;
            network.heal();
        };
        let (error, ()) = tokio::join!(flush, heal);
        assert!(matches!(error, SendError::Closed(CloseReason::Peer { code: 7, .. })), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_ends_both_sides() {
    let World { network, hosts, dialled, accepted } = world(1, LinkPlan::new()).await;
    let receive = async { accepted.recv().await.unwrap_err() };
    let reset = async { network.reset(hosts[0].ip(), hosts[1].ip()) };
    let (error, ()) = tokio::join!(receive, reset);
    assert!(matches!(error, RecvError::Closed(CloseReason::Transport(_))), "{error}");
    let error = dialled.send(b"late").await.unwrap_err();
    assert!(matches!(error, SendError::Closed(CloseReason::Transport(_))) && error.is_retryable());
}

/// Sends 50 messages of 1000 bytes and returns the events at the receiver, with times.
async fn run(seed: u64, plan: LinkPlan) -> Vec<(Duration, String)> {
    let World { dialled, accepted, .. } = world(seed, plan).await;
    let started = Instant::now();
    let send = async {
        for _ in 0..50 {
            if dialled.send_bytes(Bytes::from(vec![7; 1000])).await.is_err() {
                break;
            }
        }
        dialled.close(0, "").await;
    };
    let receive = async {
        let mut events = Vec::new();
        loop {
            let event = match accepted.recv().await {
                Ok((message, _)) => message.len().to_string(),
                Err(RecvError::Closed(reason)) => {
                    events.push((started.elapsed(), WithCauses(&reason).to_string()));
                    return events;
                }
                Err(error) => error.to_string(),
            };
            events.push((started.elapsed(), event));
        }
    };
    let ((), events) = tokio::join!(send, receive);
    events
}

#[tokio::test(start_paused = true)]
async fn a_planned_truncation_loses_one_message_only() {
    let plan = LinkPlan::new().truncate_after(5_000..40_000);
    let events = run(1, plan).await;
    let cut: Vec<_> = events.iter().filter(|(_, event)| event.contains("ended after")).collect();
    assert_eq!((cut.len(), events.len()), (1, 51), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_planned_reset_ends_the_connection_there() {
    let events = run(1, LinkPlan::new().reset_after(5_000..40_000)).await;
    let (_, last) = events.last().unwrap();
    assert!(last.contains("reset") && (4..41).contains(&events.len()), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_planned_stall_delays_later_messages() {
    let events = run(1, LinkPlan::new().stall_after(5_000..40_000, ms(3_000))).await;
    assert_eq!(events.len(), 51);
    let late = events.iter().filter(|(at, _)| *at >= ms(3_000)).count();
    assert!((10..46).contains(&late), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let plan = LinkPlan::new()
        .latency(ms(20))
        .jitter(ms(30))
        .bandwidth(100_000)
        .truncate_after(1_000..30_000)
        .stall_after(1_000..50_000, ms(2_000));
    let first = run(42, plan.clone()).await;
    assert_eq!(run(42, plan.clone()).await, first);
    assert_ne!(run(43, plan).await, first);
}

#[tokio::test(start_paused = true)]
async fn a_stall_affects_one_connection() {
    let World { network, hosts, dialled, accepted: _accepted } = world(1, LinkPlan::new()).await;
    network.set_links(LinkPlan::new().stall_after(0..1, ms(3000)));
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let bind_addr = "0.0.0.0:0".parse().unwrap();
    let listener = hosts[1].create_listener(bind_addr, &[ALPN], credential.clone()).await.unwrap();
    let dial = hosts[0].connect(listener.local_addr(), &[ALPN], credential);
    let accept = async { listener.accept().await.unwrap().accept().await.unwrap() };
    let (stalled, at_listener) = tokio::join!(dial, accept);
    let stalled = stalled.unwrap();
    let started = Instant::now();
    stalled.send(b"late").await.unwrap();
    dialled.send(b"in time").await.unwrap();
    dialled.flush().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO, "the other connection is not delayed");
    assert_eq!(at_listener.recv().await.unwrap().0, "late");
    assert_eq!(started.elapsed(), ms(3000));
}

#[tokio::test(start_paused = true)]
async fn a_truncation_at_a_message_boundary_is_reported() {
    // Where one message ends and the next begins.
    let plan = LinkPlan::new().truncate_after(1004..1005);
    let World { dialled, accepted, .. } = world(1, plan).await;
    for _ in 0..3 {
        dialled.send(&[7; 1000]).await.unwrap();
    }
    assert_eq!(accepted.recv().await.unwrap().0.len(), 1000);
    let error = accepted.recv().await.unwrap_err();
    assert!(matches!(error, RecvError::Truncated { .. }), "{error}");
    assert_eq!(accepted.recv().await.unwrap().0.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn port_zero_selects_a_free_port() {
    let host = MemoryNetwork::new(1).transport();
    let credential = || NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let listen = |port| host.create_listener(([0, 0, 0, 0], port).into(), &[ALPN], credential());
    let _taken = listen(49_152).await.unwrap();
    let free = listen(0).await.unwrap();
    assert_ne!(free.local_addr().port(), 49_152);
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_not_a_stuck_peer() {
    // Each message takes ten times the progress timeout.
    let World { dialled, accepted, .. } = world(1, LinkPlan::new().bandwidth(10_000)).await;
    let send = async {
        for _ in 0..10 {
            dialled.send(&[7; 50_000]).await.unwrap();
        }
        dialled.flush().await.unwrap();
    };
    let receive = async {
        for _ in 0..10 {
            accepted.recv().await.unwrap();
        }
    };
    tokio::join!(send, receive);
}

/// Returns the order of the hosts whose dials, blocked by a partition, succeed.
async fn order_after_a_partition() -> Vec<u8> {
    let network = MemoryNetwork::new(7);
    let server = network.transport();
    let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
    let bind_addr = "0.0.0.0:0".parse().unwrap();
    let listener = server.create_listener(bind_addr, &[ALPN], credential.clone()).await.unwrap();
    let hosts: Vec<_> = (0..8).map(|_| network.transport()).collect();
    let others: Vec<_> = hosts.iter().map(MemoryTransport::ip).collect();
    network.partition(&[server.ip()], &others);
    let dial = |host: &MemoryTransport| {
        let (host, address, credential) = (host.clone(), listener.local_addr(), credential.clone());
        async move { host.connect(address, &[ALPN], credential).await }
    };
    let mut dials: FuturesUnordered<_> = hosts.iter().map(dial).collect();
    assert!(dials.next().now_or_never().is_none(), "all of them wait");
    network.heal();
    let accept = async {
        let mut order = Vec::new();
        for _ in 0..8 {
            let from = listener.accept().await.unwrap().remote_addr();
            let std::net::IpAddr::V4(ip) = from.ip() else { panic!("{from}") };
            order.push(ip.octets()[3]);
        }
        order
    };
    let (order, _refused) = tokio::join!(accept, dials.collect::<Vec<_>>());
    order
}

#[tokio::test(start_paused = true)]
async fn dials_blocked_by_a_partition_succeed_in_the_same_order() {
    let first = order_after_a_partition().await;
    for _ in 0..20 {
        assert_eq!(order_after_a_partition().await, first);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_and_attempts_are_limited_in_total_and_per_address() {
    let default = Limits::default;
    for (limits, of_one_address, limit) in [
        (Limits { max_connections_per_ip: 1, ..default() }, true, Limit::PerIp),
        (Limits { max_handshakes_per_ip: 1, ..default() }, true, Limit::Handshakes),
        (Limits { max_handshakes: 1, ..default() }, false, Limit::Handshakes),
        (Limits { max_connections: 1, ..default() }, false, Limit::Connections),
    ] {
        let network = MemoryNetwork::new(1);
        let server = network.transport_with(limits);
        let credential = NetCredential::self_signed(TrustPolicy::Any).unwrap();
        let bind_addr = "0.0.0.0:0".parse().unwrap();
        let listener =
            server.create_listener(bind_addr, &[ALPN], credential.clone()).await.unwrap();
        let (one, other) = (network.transport(), network.transport());
        let address = listener.local_addr();
        let dial = |host: &MemoryTransport| {
            let (host, credential) = (host.clone(), credential.clone());
            Box::pin(async move { host.connect(address, &[ALPN], credential).await })
        };
        let mut waiting = dial(&one);
        assert!(waiting.as_mut().now_or_never().is_none(), "{limit:?}: it waits to be accepted");
        let refused = Some(ConnectError::Refused(address));
        assert_eq!(dial(&one).await.err(), refused, "{limit:?}");
        let elsewhere = dial(&other).now_or_never().map(|refused| refused.err());
        assert_eq!(elsewhere.is_none(), of_one_address, "{limit:?}: {elsewhere:?}");
        let accept = async { listener.accept().await.unwrap().accept().await };
        let (dialled, accepted) = tokio::join!(waiting, accept);
        let (_dialled, _accepted) = (dialled.unwrap(), accepted.unwrap());
        let is_free = dial(&one).now_or_never().is_none();
        assert_eq!(is_free, limit == Limit::Handshakes, "{limit:?}: a handshake has ended");
        let counted = server.statistics();
        let counts =
            [counted.refused_per_ip, counted.refused_handshakes, counted.refused_connections];
        let limits = [Limit::PerIp, Limit::Handshakes, Limit::Connections];
        for (count, of) in counts.into_iter().zip(limits) {
            assert_eq!(count > 0, of == limit, "{limit:?}: {counts:?}");
        }
    }
}
